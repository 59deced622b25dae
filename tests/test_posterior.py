"""Posteriors of volatility filters: densities by SciPy, a published posterior, failures as data."""

from functools import lru_cache

import arviz as az
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arch.data import sp500
from scipy import stats

from pmvar.calibration.garch import FitStatus, filtered, fit_volatility
from pmvar.calibration.posterior import Draws, Sampler, VolatilityPosterior, sample_posterior, seen
from pmvar.calibration.priors import bounded, free_start, priors
from pmvar.calibration.volatility_likelihood import Volatility
from pmvar.errors import UsageError

GARCH, GJR = Volatility.GARCH, Volatility.GJR
SHORT = Sampler(draws=300)
# Mean and standard deviation (c), in per cent.
PUBLISHED = {
    "mean": (0.0658, 0.0107),
    "omega": (0.0099, 0.0024),
    "alpha": (0.0992, 0.0100),
    "beta": (0.8974, 0.0103),
    "degrees_of_freedom": (6.96, 0.63),
    "persistence": (0.9966, 0.0027),
    "deviation": (1.930, 0.034),
}
PUBLISHED_SIZE = 1_000.0
"""Independent draws that the published figures may come from."""


@lru_cache(maxsize=1)
def panel() -> np.ndarray:
    """The S&P 500 among what cannot be fitted."""
    close = sp500.load()["Adj Close"].to_numpy()
    y = np.full((5030, 3), np.nan)
    y[:, 1] = close[1:] / close[:-1] - 1
    y[-100:, 0] = 0.01 * np.arange(100)
    y[:, 2] = np.where(np.arange(5030) == 7, np.inf, y[:, 1])
    return y


@lru_cache(maxsize=1)
def sampled() -> VolatilityPosterior:
    """GARCH-t of the panel."""
    return sample_posterior(panel(), seed=1, volatility=GARCH, sampler=SHORT)


def in_per_cent(d: Draws, asset: int) -> dict[str, np.ndarray]:
    """The published quantities, by chain and draw."""
    return {
        "mean": 100 * d.mean[asset],
        "omega": 1e4 * d.omega[asset],
        "alpha": d.alpha[asset],
        "beta": d.beta[asset],
        "degrees_of_freedom": d.degrees_of_freedom[asset],
        "persistence": (d.alpha + d.gamma / 2 + d.beta)[asset],
        "deviation": 100 * np.sqrt(d.variance[asset]),
    }


def test_the_published_posterior():
    """Means and standard deviations inside four Monte Carlo errors of both."""
    for name, x in in_per_cent(sampled().draws, 1).items():
        mean, deviation = PUBLISHED[name]
        size = 1 / (1 / az.ess(x) + 1 / PUBLISHED_SIZE)
        # Half a digit of the published figures too.
        digit = 0.5 * 10.0 ** -(4 if abs(mean) < 1 else 2)
        assert abs(x.mean() - mean) <= 4 * deviation / np.sqrt(size) + digit, name
        assert abs(x.std() - deviation) <= 4 * deviation / np.sqrt(2 * size) + digit, name
    assert az.rhat(sampled().draws.omega[1]) < 1.02
    assert not sampled().course.diverging.any()
