"""Filtered and plain historical simulation: exact discrete laws, severity order, sampling, drift and errors."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from pmvar.errors import InputError, UsageError
from pmvar.models import build
from pmvar.models.bootstrap import BURN_IN, bootstrap, by_severity
from pmvar.models.specification import LEAST_HISTORY, ModelSpecification
from pmvar.scenarios import simulate
from pmvar.types import Drift, PriceMap, Sampling
from tests.laws import MARKET, N, assert_mean, marginal, normals, total, walk
from tests.markets import AS_OF, DAY, specification

SIGMA = {"A:spot": 0.02, "B:spot": 0.03, "A:vol": 0.05}
GARCH = {"omega": 2e-5, "alpha": 0.05, "gamma": 0.06, "beta": 0.88, "variance": 6e-4}
FILTER = {"A:spot": GARCH, "B:spot": {"ewma": True}}


def past(n: int = 400, seed: int = 4) -> np.ndarray:
    """Fat tails, dependent, with a mean."""
    rng = np.random.default_rng(seed)
    mixed = rng.standard_t(4, size=(n, 1)) * 0.7 + rng.standard_t(4, size=(n, 3)) * 0.7
    return mixed * [0.02, 0.03, -0.05] + [1e-3, 0, 0]


def of(model: str, history: np.ndarray | None, **more: Any) -> ModelSpecification:
    """A specification with this history, filtered where the model is."""
    state = {"filter": FILTER} if model == "fhs" else {}
    return replace(specification(SIGMA, model=model), history=history, **({"state": state} | more))


# ---- residuals -----------------------------------------------------------------------------------------------------


def test_residuals_against_a_plain_loop():
    """x less its mean over the filter's forecast, burn-in dropped, mean 0, variance 1; the law's rows, reordered."""
    x = past()
    centred, expected = x - x.mean(axis=0), np.empty((len(x) - BURN_IN, 3))
    recursion = (GARCH, {"omega": 0.0, "alpha": 0.03, "gamma": 0.0, "beta": 0.97}, None)
    for f, given in enumerate(recursion):
        variance = centred[:, f].var()
        for t, r in enumerate(centred[:, f]):
            if t >= BURN_IN:
                expected[t - BURN_IN, f] = r / np.sqrt(variance)
            if given is None:
                variance = SIGMA["A:vol"] ** 2
            else:
                variance = (
                    given["omega"] + (given["alpha"] + given["gamma"] * (r < 0)) * r**2 + given["beta"] * variance
                )
    expected = (expected - expected.mean(axis=0)) / expected.std(axis=0)
    rows = np.asarray(bootstrap(of("fhs", x)).residual.rows())
    np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-14)
    np.testing.assert_allclose(rows.var(axis=0), 1, rtol=1e-12)
    np.testing.assert_allclose(rows, expected[by_severity(expected)], rtol=1e-10, atol=1e-12)


def test_the_heaviest_rows_come_first():
    """By the sum of squares over the factors, whatever their units; ties in the order of time."""
    rows = np.asarray(bootstrap(of("fhs", past())).residual.rows())
    assert np.all(np.diff(np.sum(rows**2, axis=1)) <= 1e-12)
    move = past()
    np.testing.assert_array_equal(by_severity(move), by_severity(move * [1.0, 1e6, 1e-6]))
    same = np.array([[1.0], [-1.0], [3.0], [-3.0]])
    np.testing.assert_array_equal(by_severity(same), [2, 3, 0, 1])
    still = np.column_stack([move, np.zeros(len(move))])
    np.testing.assert_array_equal(by_severity(move), by_severity(still))


def test_the_bridge_has_the_residuals_correlation():
    law = bootstrap(of("fhs", past()))
    rows = np.asarray(law.residual.rows())
    np.testing.assert_allclose(law.loading @ law.loading.T, np.corrcoef(rows.T), atol=1e-12)


# ---- laws ----------------------------------------------------------------------------------------------------------


def test_one_filtered_step_has_the_exact_law():
    """Today's volatility times the residuals: every row with probability 1/n, a χ² test, whole rows together."""
    specified = of("fhs", past())
    law, residual = build(specified), np.asarray(bootstrap(specified).residual.rows())
    n = 1 << 15
    x = total(law, n=n)
    at = residual * np.sqrt([GARCH["variance"], 0.03**2, 0.05**2])
    which = np.argmin(np.abs(x[:, :1] - at[None, :, 0]), axis=1)
    np.testing.assert_allclose(x, at[which], rtol=1e-12)
    seen = np.bincount(which, minlength=len(at))
    assert stats.chi2(len(at) - 1).sf(np.sum((seen - n / len(at)) ** 2) / (n / len(at))) > 1e-3


def test_marginal_of_the_residuals_is_point_masses():
    law = bootstrap(of("fhs", past()))
    mass = law.marginal()
    np.testing.assert_array_equal(mass.mean, np.asarray(law.residual.rows()).T)
    assert np.all(mass.deviation == 0) and np.allclose(mass.weight.sum(axis=1), 1, atol=1e-12)


def test_filtered_steps_follow_the_filter():
    """Five days: path by path the filter's recursion, its forecast of the variance, independent rows."""
    law: Any = build(of("fhs", past()))
    path = walk(law, normals(law, steps=5), steps=5)
    variance = np.full(N, GARCH["variance"])
    residual = np.asarray(law.innovation.residual.rows())[:, 0]
    mean = GARCH["variance"]
    for k in range(5):
        x = path.diffusion[:, k, 0]
        np.testing.assert_allclose(path.deviation[:, k, 0] ** 2, variance, rtol=1e-12)
        assert_mean(x**2, mean)
        variance = GARCH["omega"] + (GARCH["alpha"] + GARCH["gamma"] * (x < 0)) * x**2 + GARCH["beta"] * variance
        falls = float(np.mean(residual**2 * (residual < 0)))
        mean = GARCH["omega"] + (GARCH["alpha"] + GARCH["gamma"] * falls + GARCH["beta"]) * mean


@pytest.mark.parametrize("steps", [1, 3, 10])
def test_historical_windows(steps):
    """Every window of consecutive rows, equally likely, whole: totals, rows and a χ² test."""
    x = past()
    law: Any = build(of("historical", x), float(steps))
    assert law.start.shape == (len(x) - steps + 1,)
    path = walk(law, normals(law, steps=steps, n=1 << 15), steps=steps)
    window = np.lib.stride_tricks.sliding_window_view(x, steps, axis=0).transpose(0, 2, 1)
    which = np.argmin(np.abs(path.diffusion[:, :1, 0] - x[None, : len(window), 0]), axis=1)
    np.testing.assert_array_equal(path.diffusion, window[which])
    seen, each = np.bincount(which, minlength=len(window)), len(which) / len(window)
    assert stats.chi2(len(window) - 1).sf(np.sum((seen - each) ** 2) / each) > 1e-3
    np.testing.assert_allclose(path.deviation, np.broadcast_to(x.std(axis=0), path.deviation.shape), rtol=1e-12)

    mass = marginal(law, float(steps))
    np.testing.assert_allclose(np.sort(mass.mean, axis=1), np.sort(window.sum(axis=1).T, axis=1), atol=1e-14)
    totals = window.sum(axis=1)[np.asarray(law.start)]
    assert np.all(np.diff(np.sum((totals / totals.std(axis=0)) ** 2, axis=1)) <= 1e-9), "severest first"


def test_one_coordinate_picks_the_window():
    """The mean over the steps: moving the other coordinates of the rotated draws changes nothing."""
    law: Any = build(of("historical", past()), 4.0)
    z = normals(law, steps=4, n=512)
    noise = np.random.default_rng(0).standard_normal(z.shape)
    moved = z + 5 * (noise - noise.mean(axis=1, keepdims=True))
    np.testing.assert_array_equal(walk(law, z, steps=4).diffusion, walk(law, moved, steps=4).diffusion)
    worst = np.full((1, 4, 1), -3.0)
    start = int(law.start[0])
    np.testing.assert_array_equal(walk(law, worst, steps=4).diffusion[0], past()[start : start + 4])


def test_a_law_inside_a_step_is_that_of_its_bridge():
    """Halfway through day 2 of 3: what `at` shows has the mixture's distribution."""
    specified = replace(of("historical", past()), price_map=PriceMap.LINEAR)
    set_ = simulate(
        specified, MARKET, seed=1, n_scenarios=1 << 14, horizon="3d", drift=Drift.NONE, sampling=Sampling.MC
    )
    x = np.concatenate([np.asarray(set_.at(i, AS_OF + 1.5 * DAY)) for i in range(set_.n_tiles)])
    mass = marginal(build(specified, 3.0), 1.5)
    for f, column in ((0, np.expm1(x[:, 0])), (2, x[:, 2])):
        grid = np.sort(column)
        cdf = sum(stats.norm.cdf(grid, m, d) for m, d in zip(mass.mean[f], mass.deviation[f], strict=True))
        assert stats.kstest(np.asarray(cdf) / mass.mean.shape[1], stats.uniform.cdf).pvalue > 1e-3


# ---- sampling and drift --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["fhs", "historical"])
def test_prices_grow_to_their_forward(model):
    """Plain and leaning draws: weights average 1, E g = 1 inside four standard errors, and the tail is met more often
    by the leaning ones, by the same measure."""
    tail = {}
    for sampling in (Sampling.MC, Sampling.SOBOL_IS):
        set_ = simulate(of(model, past()), MARKET, seed=1, n_scenarios=1 << 15, horizon="2d", sampling=sampling)
        weight = np.asarray(set_.weight)
        price = np.exp(np.asarray(set_.shock[:, 0, :2]))
        assert_mean(weight, 1.0)
        assert_mean(weight[:, None] * price, 1.0)
        assert weight.max() <= set_.provenance.get("importance", {"weight_bound": 1.0})["weight_bound"]
        far = np.abs(np.log(price[:, 0])) > 0.1
        tail[sampling] = np.mean(weight * far), np.mean(far), np.std(weight * far) / np.sqrt(len(far))
    plain, leaning = tail.values()
    assert leaning[0] == pytest.approx(plain[0], abs=4 * plain[2])
    assert leaning[1] > 1.5 * plain[1]


def test_drift_of_point_masses_is_exact():
    """One step of history: the mean price over its rows is the spot, to rounding."""
    specified = of("historical", past())
    set_ = simulate(specified, MARKET, seed=1, n_scenarios=2048, horizon="1d", sampling=Sampling.SOBOL)
    x = past()[:, 0]
    c = float(set_.paths.shift(set_.horizon_end)[0]) if set_.paths else np.nan
    y = x + c
    assert np.mean(np.where(y > 0, 1 + y, np.exp(np.minimum(y, 0)))) == pytest.approx(1, abs=1e-10)
    assert abs(c) > 1e-5


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["fhs", "historical"])
def test_histories_that_say_too_little(model):
    with pytest.raises(InputError, match=rf"history.*model {model} needs past steps of its factors.*key history"):
        build(of(model, None))
    with pytest.raises(InputError, match=f"model {model} needs {LEAST_HISTORY} past steps, the history has 249"):
        build(of(model, past(249)))
    assert build(of(model, past(250))).dimension() == 1


def test_a_factor_that_never_moved():
    still = past() * [1, 0, 1]
    with pytest.raises(InputError, match=r"B:spot has a volatility of 0\.03 and never moves in the history"):
        build(of("fhs", still))
    x = total(build(of("historical", still)), n=1024)
    assert np.all(x[:, 1] == 0) and np.all(np.isfinite(x))


def test_a_factor_without_volatility_stands_still():
    factors = tuple(replace(f, volatility=0.0) if f.name == "A:vol" else f for f in of("fhs", None).factors)
    x = total(build(replace(of("fhs", past()), factors=factors)), n=1024)
    assert np.all(x[:, 2] == 0) and np.all(np.isfinite(x))


def test_what_historical_cannot_do():
    law = build(of("historical", past()), 2.0)
    assert law.n_steps(2.0) == 2
    for steps, rule in ((1.5, r"replays whole steps; the horizon is 1\.5"), (3.0, "built for 2 steps")):
        with pytest.raises(UsageError, match=rule):
            law.n_steps(steps)
    with pytest.raises(InputError, match="longer than the history"):
        build(of("historical", past()), 401.0)
    with pytest.raises(InputError, match="model historical has no state"):
        build(of("historical", past(), state={"filter": FILTER}))
    with pytest.raises(InputError, match="model fhs has no parameters"):
        build(of("fhs", past(), parameters={"jumps": {}}))
    with pytest.raises(InputError, match="history must be a finite matrix of 3 columns"):
        of("fhs", np.where(past() > 0.1, np.nan, past()))
    assert jnp.issubdtype(build(of("historical", past())).history.bits.dtype, jnp.integer)  # type: ignore[attr-defined]
