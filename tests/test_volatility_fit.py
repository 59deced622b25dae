"""Maximum likelihood of volatility filters: the digits of `arch`, recovery within standard errors, failures as data."""

from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from arch import univariate
from arch.data import sp500
from scipy import stats

from pmvar.calibration.garch import FitStatus, VolatilityFit, filtered, fit_volatility
from pmvar.calibration.volatility_likelihood import (
    Innovation,
    Volatility,
    coordinates,
    log_likelihoods,
    natural,
    starts,
    variances,
)

NORMAL, T = Innovation.NORMAL, Innovation.STUDENT_T
EWMA, RISKMETRICS, GARCH, GJR = Volatility
TRUE = {"mean": 0.05, "omega": 0.02, "alpha": 0.04, "gamma": 0.08, "beta": 0.90, "degrees_of_freedom": 6.0}


def simulated(n: int, assets: int, *, seed: int, **changed: float) -> np.ndarray:
    """Returns of a GJR-t with the parameters TRUE but for those changed."""
    p, rng = TRUE | changed, np.random.default_rng(seed)
    nu, variance, out = p["degrees_of_freedom"], np.full(assets, 1.0), np.empty((n, assets))
    for day in range(-500, n):
        r = np.sqrt(variance) * rng.standard_t(nu, assets) * np.sqrt((nu - 2) / nu)
        variance = p["omega"] + (p["alpha"] + p["gamma"] * (r < 0)) * r**2 + p["beta"] * variance
        if day >= 0:
            out[day] = p["mean"] + r
    return out


@lru_cache(maxsize=1)
def panel() -> np.ndarray:
    """S&P 500; a late listing; gaps; quiet news; then what cannot be fitted: short, still, infinite."""
    close = sp500.load()["Adj Close"].to_numpy()
    y = np.full((5030, 7), np.nan)
    y[:, 0] = 100 * (close[1:] / close[:-1] - 1)
    y[2000:, 1] = simulated(3030, 1, seed=1)[:, 0]
    y[:, 2] = simulated(5030, 1, seed=2, gamma=0.0, alpha=0.08)[:, 0]
    y[np.random.default_rng(3).random(5030) < 0.1, 2] = np.nan
    y[:, 3] = simulated(5030, 1, seed=4, alpha=0.02, gamma=0.04, beta=0.95, degrees_of_freedom=20.0)[:, 0]
    y[-100:, 4] = 1.0 + np.arange(100)
    y[:, 5] = 0.25
    y[:, 6] = np.where(np.arange(5030) == 7, np.inf, y[:, 0])
    return y


@lru_cache(maxsize=8)
def fit(volatility: Volatility, innovation: Innovation) -> VolatilityFit:
    """Of the panel: one shape for all tests."""
    return fit_volatility(panel(), volatility=volatility, innovation=innovation)


@pytest.mark.parametrize(
    ("volatility", "innovation", "expected"),
    [
        (GARCH, NORMAL, (-6936.7185, 0.056353, 0.017507, 0.102150, 0.0, 0.885206, np.inf)),
        (GARCH, T, (-6834.7356, 0.066128, 0.008664, 0.099596, 0.0, 0.899932, 6.607)),
        (GJR, T, (-6744.4314, 0.037299, 0.012942, 0.0, 0.185622, 0.898243, 7.691)),
    ],
)
def test_published_digits_of_the_sp500(volatility, innovation, expected):
    """Those of arch 8.0, whose search stops up to 3e-6 from the maximum in a parameter."""
    found = fit(volatility, innovation)
    assert found.log_likelihood[0] == pytest.approx(expected[0], abs=5e-5)
    at = [p[0] for p in found.estimate]
    np.testing.assert_allclose(at[:5], expected[1:6], atol=4e-6)
    assert at[5] == pytest.approx(expected[6], abs=5e-4)
    assert found.status[0] is (FitStatus.ON_BOUND if volatility is GJR else FitStatus.FITTED)
    assert np.isnan(found.standard_error.alpha[0]) == (volatility is GJR)


@pytest.mark.parametrize(
    ("volatility", "innovation"), [(EWMA, T), (RISKMETRICS, T), (GARCH, NORMAL), (GARCH, T), (GJR, T)]
)
def test_against_arch(volatility, innovation):
    """Four series: never a lower likelihood, the same place, the same standard errors of both kinds."""
    found = fit(volatility, innovation)
    for i in range(4):
        y = panel()[~np.isnan(panel()[:, i]), i]
        peer: Any = univariate.ConstantMean(y)
        peer.volatility = (
            univariate.EWMAVariance(lam=None if volatility is EWMA else 0.94)
            if volatility in (EWMA, RISKMETRICS)
            else univariate.GARCH(p=1, o=int(volatility is GJR), q=1)
        )
        peer.distribution = univariate.StudentsT() if innovation is T else univariate.Normal()
        robust, classic = (peer.fit(disp="off", options={"ftol": 1e-12}, cov_type=c) for c in ("robust", "classic"))
        assert found.log_likelihood[i] == pytest.approx(robust.loglikelihood, abs=2e-3)
        assert found.log_likelihood[i] >= robust.loglikelihood - 1e-5
        names = {"mu": "mean", "omega": "omega", "alpha[1]": "alpha", "gamma[1]": "gamma", "beta[1]": "beta",
                 "lam": "beta", "nu": "degrees_of_freedom"}  # fmt: skip
        for theirs, ours in names.items():
            if theirs not in robust.params:
                continue
            error = getattr(found.standard_error, ours)[i]
            if np.isnan(error):
                assert found.status[i] is FitStatus.ON_BOUND
                continue
            assert abs(getattr(found.estimate, ours)[i] - robust.params[theirs]) < 0.02 * error
            if found.status[i] is FitStatus.FITTED:
                assert error == pytest.approx(classic.std_err[theirs], rel=0.03)
                assert getattr(found.robust_error, ours)[i] == pytest.approx(robust.std_err[theirs], rel=0.03)


def test_likelihood_of_the_plain_loop():
    """`filtered`, a loop over the calendar with gaps, and SciPy's density give the likelihood of the compiled scan."""
    for volatility, innovation in ((EWMA, T), (GARCH, NORMAL), (GJR, T)):
        found = fit(volatility, innovation)
        seen = filtered(found, panel())
        for i in range(4):
            there = ~np.isnan(panel()[:, i])
            nu, z, sigma = found.estimate.degrees_of_freedom[i], seen.residual[there, i], seen.deviation[there, i]
            law: Any = stats.norm() if innovation is NORMAL else stats.t(nu, scale=np.sqrt((nu - 2) / nu))
            total = np.sum(law.logpdf(z) - np.log(sigma))
            assert total == pytest.approx(found.log_likelihood[i], rel=1e-11)
            assert z.std() == pytest.approx(1, abs=0.1)
        assert np.all(np.isnan(seen.residual[:2000, 1]))
        assert np.all(np.isnan(seen.residual[:, 4:]))


def test_bad_assets_are_data_and_leave_the_others_alone():
    """Each names its remedy; no estimate is left behind."""
    found = fit(GJR, T)
    assert found.status[4:] == (FitStatus.TOO_SHORT, FitStatus.STILL, FitStatus.NOT_FINITE)
    np.testing.assert_array_equal(found.usable, [True] * 4 + [False] * 3)
    for numbers in (*found.estimate, *found.standard_error, *found.robust_error, found.log_likelihood):
        assert np.all(np.isnan(numbers[4:]))
    np.testing.assert_array_equal(found.n_obs[[0, 1, 4]], [5030, 3030, 100])
    for status, remedy in ((FitStatus.TOO_SHORT, "longer history"), (FitStatus.STILL, "leave the factor out")):
        assert remedy in status.message
    nothing = fit_volatility(panel()[:, 4:])
    assert not nothing.usable.any()


def test_units_and_order_do_not_matter():
    """Returns as fractions, assets reversed: μ scales by .01, ω by 1e-4, the rest stays."""
    found, other = fit(GJR, T), fit_volatility(panel()[:, 3::-1] / 100)
    for name, unit in (("mean", 100), ("omega", 1e4), ("alpha", 1), ("gamma", 1), ("beta", 1)):
        ours, theirs = (getattr(f.estimate, name) for f in (found, other))
        np.testing.assert_allclose(theirs[::-1] * unit, ours[:4], rtol=1e-5, atol=1e-9)


def test_recovery_within_standard_errors():
    """64 series of 2,000 days: each parameter's errors over its standard error have mean 0 and deviation 1, less what
    a finite sample adds: estimates of a GARCH are biased by about 1/√n of a standard error."""
    found = fit_volatility(simulated(2000, 64, seed=5))
    good = np.array([s is FitStatus.FITTED for s in found.status])
    assert found.usable.all() and good.sum() >= 55
    for name, true in TRUE.items():
        for errors in (found.standard_error, found.robust_error):
            z = ((getattr(found.estimate, name) - true) / getattr(errors, name))[good]
            assert abs(np.median(z)) < 4 * 1.25 / np.sqrt(len(z)), name
            # The middle half of a normal law is 1.35 wide.
            assert 0.9 < np.subtract(*np.percentile(z, [75, 25])) < 1.95, name
        if name != "degrees_of_freedom":
            # Without the right scale the spread would not agree either.
            spread = np.std(getattr(found.estimate, name)[good])
            assert 0.6 < spread / np.median(getattr(found.standard_error, name)[good]) < 1.6, name


@pytest.mark.parametrize("innovation", [NORMAL, T])
def test_gradient_and_recursion(innovation):
    """Derivatives by every coordinate against central differences; the scan against a loop."""
    box = coordinates(GJR, innovation)
    y, n = jnp.asarray(np.append(simulated(60, 1, seed=6)[:, 0], np.zeros(4))), jnp.int64(60)
    x = starts(box)[0, 1] + np.array([0.1, 0.2, -0.02, 0.03, 0.1, 0.01])[: len(box)]
    total = jax.jit(lambda x: jnp.sum(log_likelihoods(x, y, n, box=box)))
    slope, step = np.asarray(jax.jit(jax.grad(total))(jnp.asarray(x))), 1e-6
    for i, e in enumerate(np.eye(len(box))):
        difference = (total(jnp.asarray(x + step * e)) - total(jnp.asarray(x - step * e))) / (2 * step)
        assert slope[i] == pytest.approx(float(difference), rel=1e-6, abs=1e-6)
    p = natural(jnp.asarray(x), box=box)
    found, variance = variances(p, y, jnp.float64(1.5)), float(p.omega + (p.alpha + p.gamma / 2 + p.beta) * 1.5)
    for day in range(60):
        assert found[day] == pytest.approx(variance, rel=1e-13)
        r = float(y[day] - p.mean)
        variance = float(p.omega + (p.alpha + (p.gamma if r < 0 else 0.0)) * r * r + p.beta * variance)


def test_every_point_of_the_box_obeys_the_constraints():
    """Corners included: ω > 0, α, α + γ, β ≥ 0, α + γ/2 + β ≤ 1, ν > 2: what model.json accepts."""
    box = coordinates(GJR, T)
    corners = np.stack(np.meshgrid(*([c.lower, c.upper] for c in box), indexing="ij"), -1).reshape(-1, len(box))
    p = jax.vmap(lambda x: natural(x, box=box))(jnp.asarray(corners))
    low = np.min([p.alpha, p.alpha + p.gamma, p.beta], axis=0)
    assert low.min() >= -1e-15 and np.max(p.alpha + p.gamma / 2 + p.beta) <= 1 + 1e-15
    assert np.min(p.omega) > 0 and np.max(p.inverse_dof) < 0.5
