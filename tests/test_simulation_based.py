"""A short simulation-based calibration of the posterior sampler; the long one is among the benchmarks."""

import jax
import numpy as np
import pytest

from pmvar.calibration.posterior import Course, Draws, Sampler
from pmvar.calibration.simulation_based import BEFORE, cells, posteriors, ranks, simulate_prior, uniformity
from pmvar.calibration.volatility_likelihood import Volatility

FITS, DAYS, EVERY, BINS = 48, 80, 10, 4
SHORT = Sampler(chains=1, warmup=150, draws=190)
MOST = 19


def test_ranks_are_uniform_and_would_not_be_of_wrong_posteriors():
    """Each parameter's χ² passes at 1%; of posteriors a quarter as wide, or moved by 1.5 deviations, none does."""
    made = simulate_prior(jax.random.key(5), fits=FITS, days=DAYS, volatility=Volatility.GARCH)
    found = jax.device_get(posteriors(jax.random.key(6), made.returns, volatility=Volatility.GARCH, sampler=SHORT))
    sampled, course = Draws(*found[: len(Draws._fields)]), Course(*found[len(Draws._fields) :])
    assert course.diverging.mean() < 0.01
    for name in ("mean", "omega", "alpha", "beta", "degrees_of_freedom", "variance"):
        truth, draws = getattr(made.parameters, name), getattr(sampled, name)

        def p_value(draws: np.ndarray, truth: np.ndarray = truth) -> float:
            return uniformity(ranks(truth, draws, every=EVERY), most=MOST, bins=BINS)

        assert p_value(draws) > 0.01, name
        centre = np.median(draws, axis=(1, 2), keepdims=True)
        moved = draws + 1.5 * draws.std(axis=(1, 2), keepdims=True)
        assert p_value(centre + 0.25 * (draws - centre)) < 0.01, name
        assert p_value(moved) < 0.01, name


def test_the_prior_s_returns():
    """The variance of returns is what their filters forecast, the first day's that after `BEFORE`."""
    made = simulate_prior(jax.random.key(1), fits=20_000, days=1, volatility=Volatility.GJR)
    p = made.parameters
    first = p.omega + (p.alpha + p.gamma / 2 + p.beta) * BEFORE
    square = (made.returns[:, 0] - p.mean) ** 2 / first
    # Tails down to ν = 2: the median of their squares says more than the mean.
    sound = p.degrees_of_freedom > 6
    assert abs(square[sound].mean() - 1) < 4 * square[sound].std() / np.sqrt(sound.sum())
    assert abs(np.mean(p.alpha + p.gamma / 2 + p.beta) - 20 / 21) < 4 * np.sqrt(20 / (21**2 * 22)) / np.sqrt(20_000)
    assert np.all((p.alpha >= 0) & (p.alpha + p.gamma >= 0))


def test_cells_and_uniformity():
    assert cells(19, 4).tolist() == [0] * 5 + [1] * 5 + [2] * 5 + [3] * 5
    assert np.bincount(cells(100, 20)).tolist().count(5) == 19
    assert uniformity(np.repeat(np.arange(20), 3), most=19, bins=4) == pytest.approx(1.0)
    assert ranks(np.array([2.5]), np.arange(6.0).reshape(1, 2, 3), every=2).tolist() == [2]
