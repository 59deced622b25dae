"""Posteriors of volatility filters: densities by SciPy, a published posterior, failures as data."""

from functools import lru_cache
from typing import Any

import arviz as az
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
SHORT = Sampler(warmup=200, draws=300)
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


def scipy_log_density(x: np.ndarray, variance: float) -> float:
    """ln posterior of GJR at free coordinates, but for a constant, from the priors' own formulas."""
    mean, log_omega, logit_p, logit_news, log_excess, logit_falls = x
    p, news, falls = (1 / (1 + np.exp(-v)) for v in (logit_p, logit_news, logit_falls))
    nu = 2 + np.exp(log_excess)
    jacobian = sum(np.log(v * (1 - v)) for v in (p, news, falls)) + log_omega + log_excess
    return jacobian + sum(
        (
            stats.norm.logpdf(mean),
            stats.lognorm.logpdf(np.exp(log_omega), 1.5, scale=np.exp(-4.0)),
            stats.beta.logpdf(p, 20, 1),
            stats.beta.logpdf(news, 1.5, 8),
            stats.gamma.logpdf(nu - 2, 2, scale=10.0),
            stats.beta.logpdf(falls, 2, 2),
        )
    )


def test_prior_and_coordinates():
    """The prior in free coordinates by SciPy; the filter by the definitions of p, its news and the falls in it."""
    for x in np.random.default_rng(1).normal([0, -3, 3, -2, 1.5, 0.4], 1.0, (5, 6)):
        at, density = bounded(jnp.asarray(x), volatility=GJR)
        assert float(density) == pytest.approx(scipy_log_density(x, 1.0), rel=1e-12)
        p, news, falls = (1 / (1 + np.exp(-x[i])) for i in (2, 3, 5))
        persistence = float(at.alpha + at.gamma / 2 + at.beta)
        assert persistence == pytest.approx(p)
        assert float(at.alpha + at.gamma / 2) / persistence == pytest.approx(news)
        assert float((at.alpha + at.gamma) / (2 * at.alpha + at.gamma)) == pytest.approx(falls)
        assert float(1 / at.inverse_dof) == pytest.approx(2 + np.exp(x[4]))
    start, _ = bounded(free_start(jnp.asarray(2.0), volatility=GARCH), volatility=GARCH)
    assert float(start.gamma) == 0 and float(start.omega) == pytest.approx(0.06)
    assert list(priors(GJR)) == [*priors(GARCH), "falls_share"]
    with pytest.raises(UsageError, match="EWMA has no posterior"):
        priors(Volatility.EWMA)


def test_failures_are_data():
    """An asset that cannot be fitted says why, and is NaN among the others."""
    found = sampled()
    assert found.status == (FitStatus.TOO_SHORT, FitStatus.FITTED, FitStatus.NOT_FINITE)
    assert found.usable.tolist() == [False, True, False]
    assert all(np.isnan(part[[0, 2]]).all() and np.isfinite(part[1]).all() for part in found.draws)


def test_returns_as_the_posterior_sees_them():
    """The day after the last, densities and PIT of one draw by the plain filter and SciPy; units cancel."""
    found, y = sampled(), panel()[:, 1]
    view = seen(found, panel(), asset=1, every=100)
    assert view.log_likelihood.shape == (4, 3, 5030)
    fit = fit_volatility(panel()[:, 1:2], volatility=GARCH)
    pits = []
    for chain, draw in np.ndindex(4, 3):
        p = [part[1, chain, 100 * draw] for part in found.draws]
        estimate = fit.estimate._replace(**{n: np.array([v]) for n, v in zip(fit.estimate._fields, p[:6], strict=True)})
        plain = filtered(type(fit)(**{**fit.__dict__, "estimate": estimate}), panel()[:, 1:2])
        assert plain.forecast[0] == pytest.approx(p[6], rel=1e-9)
        law: Any = stats.t(p[5], loc=p[0], scale=plain.deviation[:, 0] * np.sqrt((p[5] - 2) / p[5]))
        np.testing.assert_allclose(view.log_likelihood[chain, draw], law.logpdf(y), rtol=1e-9, atol=1e-9)
        pits.append(law.cdf(y))
    np.testing.assert_allclose(view.pit, np.mean(pits, axis=0), rtol=1e-9)


def test_draws_do_not_depend_on_the_other_assets():
    """Nor on how many threads there are: each asset has a key of its own."""
    y = 0.01 * np.random.default_rng(2).standard_t(5, (300, 2))
    brief = Sampler(chains=2, warmup=20, draws=10)
    both, done = sample_posterior(y, seed=3, sampler=brief), []
    first = sample_posterior(y[:, :1], seed=3, sampler=brief, progress=done.append)
    assert done == [1]
    for one, two in zip((*first.draws, *first.course), (*both.draws, *both.course), strict=True):
        np.testing.assert_array_equal(one[0], two[0])
    assert not np.array_equal(both.draws.omega[0], both.draws.omega[1])
