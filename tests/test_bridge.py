"""The bridge inside a step: Brownian motion given its ends, at any number of times, as a function of the path alone."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from pmvar.kernels.random import Stream, run_key, stream
from pmvar.models.bridge import DEPTH, bridge, bridge_noise
from pmvar.scenarios import simulate
from pmvar.types import Drift, Sampling
from tests.markets import AS_OF, DAY, snapshot, specification

N = 1 << 16
LOADING = np.linalg.cholesky(np.array([[1.0, -0.4], [-0.4, 1.0]]))
DEVIATION = np.array([0.02, 0.3])
TIMES = [0.1, 0.25, 0.5, 0.7, 0.9]
LEAF_WIDTH = 0.5**DEPTH


@jax.jit
def at(end: jax.Array, fraction: jax.Array, timestamp: jax.Array) -> jax.Array:
    """All paths at one time: [path, factor]."""

    def one(path, x):
        key = stream(run_key(3), Stream.BRIDGE, path)
        noise = bridge_noise(key, fraction, timestamp, len(LOADING))
        return bridge(noise, x, jnp.asarray(DEVIATION), jnp.asarray(LOADING), fraction)

    return jax.vmap(one)(jnp.arange(len(end), dtype=jnp.uint32), end)


def paths(fraction: float, end: np.ndarray, timestamp: int | None = None) -> np.ndarray:
    stamp = round(1e6 * fraction) if timestamp is None else timestamp
    return np.asarray(at(jnp.asarray(end), jnp.asarray(fraction), jnp.uint32(stamp)))


def free_ends() -> np.ndarray:
    """Ends of Brownian motion itself."""
    return DEVIATION * (np.random.default_rng(5).normal(size=(N, 2)) @ LOADING.T)


@pytest.mark.parametrize("f", TIMES)
def test_given_the_end_mean_and_covariance_are_those_of_a_brownian_bridge(f):
    """E = f·end, Cov = f(1−f)·D L Lᵀ D; bounds are four standard errors of a mean and of a (co)variance."""
    end = np.array([0.05, -0.2])
    x = (paths(f, np.tile(end, (N, 1))) - f * end) / (DEVIATION * np.sqrt(f * (1 - f)))
    np.testing.assert_allclose(x.mean(0), 0.0, atol=4 / np.sqrt(N))
    np.testing.assert_allclose(np.cov(x.T), LOADING @ LOADING.T, atol=4 * np.sqrt(2 / N))
    for j in range(2):
        assert stats.kstest(x[:, j], "norm").pvalue > 1e-3


@pytest.mark.parametrize("f", TIMES)
def test_with_a_free_end_the_variance_grows_with_time(f):
    """At fraction f the law is N(0, f·σ²) and increments after it are independent of what came before."""
    end = free_ends()
    x = paths(f, end)
    for j in range(2):
        assert stats.kstest(x[:, j] / (DEVIATION[j] * np.sqrt(f)), "norm").pvalue > 1e-3
    before, after = x / DEVIATION / np.sqrt(f), (end - x) / DEVIATION / np.sqrt(1 - f)
    np.testing.assert_allclose(before.T @ after / N, 0.0, atol=4 / np.sqrt(N))


def test_two_times_belong_to_one_path():
    """Cov(x_s, x_t) = min(s, t)·D L Lᵀ D for all pairs of times."""
    end = free_ends()
    x = {f: paths(f, end) / DEVIATION for f in [*TIMES, 1.0]}
    for s in x:
        for t in x:
            # A product of correlated normals has variance st + min(s,t)² at most 2st.
            bound = 4 * np.sqrt(2 * s * t / N)
            np.testing.assert_allclose(x[s].T @ x[t] / N, min(s, t) * LOADING @ LOADING.T, atol=bound)


def test_two_times_closer_than_a_leaf():
    """Within 1/64 of a step they are independent given the leaf's ends: the covariance falls short of min(s, t) by
    share·(1−share) of the leaf at most, a quarter of 1/64."""
    left = 20 * LEAF_WIDTH
    s, t = left + 0.3 * LEAF_WIDTH, left + 0.6 * LEAF_WIDTH
    end = free_ends()
    x, y = paths(s, end, 1) / DEVIATION, paths(t, end, 2) / DEVIATION
    exact = left + 0.3 * 0.6 * LEAF_WIDTH
    bound = 4 * np.sqrt(2 * s * t / N)
    assert np.mean(x[:, 0] * y[:, 0]) == pytest.approx(exact, abs=bound)
    # The increment between them shows it without the noise of what both share.
    gap = np.var(y[:, 0] - x[:, 0])
    expected = LEAF_WIDTH * (0.3 * 0.7 + 0.6 * 0.4 + 0.3**2)
    assert gap == pytest.approx(expected, rel=4 * np.sqrt(2 / N))
    assert abs(exact - s) <= LEAF_WIDTH / 4


def test_the_end_is_reached():
    end = free_ends()
    np.testing.assert_allclose(paths(1.0, end), end, rtol=0, atol=1e-15)
    # Continuity: distance to the end is N(0, (1−f)σ²), six deviations at most.
    for f in (1 - 1e-6, 1 - 1e-10):
        assert np.max(np.abs(paths(f, end) - end) / DEVIATION) <= 6.5 * np.sqrt(1 - f)
    assert np.max(np.abs(paths(1e-10, end)) / DEVIATION) <= 6.5e-5


def test_no_deviation_is_a_straight_line():
    """A factor without volatility moves in proportion."""
    key = run_key(1)
    noise = bridge_noise(key, jnp.asarray(0.37), jnp.uint32(5), 1)
    x = bridge(noise, jnp.array([0.3]), jnp.zeros(1), jnp.ones((1, 1)), jnp.asarray(0.37))
    assert float(x[0]) == pytest.approx(0.3 * 0.37, rel=1e-14)


# ---- in a scenario set --------------------------------------------------------------------------------------------

MARKET = snapshot({"A": (100.0, "USD"), "B": (10.0, "USD")})
MODEL = specification(
    {"A:spot": 0.03, "B:spot": 0.05}, model="t", degrees_of_freedom=5.0, correlation=np.array([[1, 0.5], [0.5, 1]])
)


def test_adding_an_expiry_changes_no_draw():
    """What a path does at one time is the same number whatever else is asked, and in whatever order."""
    first, second = AS_OF + 0.4 * DAY, AS_OF + 1.3 * DAY
    alone = simulate(MODEL, MARKET, seed=4, n_scenarios=5000, sampling=Sampling.MC)
    expected = np.asarray(alone.at(0, first))
    other = simulate(MODEL, MARKET, seed=4, n_scenarios=5000, sampling=Sampling.MC)
    other.at(0, second)
    other.at(1, first)
    np.testing.assert_array_equal(other.at(0, first), expected)
    np.testing.assert_array_equal(other.tile(0).shock, alone.tile(0).shock)


def test_a_path_is_a_function_of_its_id():
    """Not of its tile: paths 4096 and on of a longer set are the same inside the horizon."""
    time = AS_OF + 0.7 * DAY
    short = simulate(MODEL, MARKET, seed=4, n_scenarios=4100, sampling=Sampling.MC)
    long = simulate(MODEL, MARKET, seed=4, n_scenarios=8192, sampling=Sampling.MC)
    np.testing.assert_array_equal(short.at(1, time)[:4], long.at(1, time)[:4])
    np.testing.assert_array_equal(short.at(1, time)[4:], 0.0)


def test_at_and_after_the_horizon_a_path_stands_at_its_end():
    scenarios = simulate(MODEL, MARKET, seed=4, n_scenarios=4096)
    for time in (scenarios.horizon_end, scenarios.horizon_end + DAY):
        np.testing.assert_array_equal(scenarios.at(0, time), scenarios.tile(0).shock)
    just_before = np.asarray(scenarios.at(0, scenarios.horizon_end - 1.0))
    # One second of two days: deviations √(1/172800) of a t, whose mixing reaches 30 here, on a volatility of .05·√2.
    assert np.max(np.abs(just_before - scenarios.tile(0).shock)) <= 30 * 0.05 * np.sqrt(2) * 5 / np.sqrt(172_800)


@pytest.mark.parametrize(("model", "nu"), [("gaussian", None), ("t", 5.0)])
def test_inside_the_horizon_every_model_has_its_own_law(model, nu):
    """At half the horizon x has the model's law with half the variance: Kolmogorov–Smirnov of x = g⁻¹."""
    law = specification({"A:spot": 0.03, "B:spot": 0.05}, model=model, degrees_of_freedom=nu)
    scenarios = simulate(law, MARKET, seed=6, n_scenarios=N, drift=Drift.NONE, sampling=Sampling.MC)
    half = np.concatenate([scenarios.at(i, AS_OF + DAY) for i in range(scenarios.n_tiles)])
    x = np.where(half > 0, np.expm1(half), half)
    exact = stats.norm() if nu is None else stats.t(nu, scale=np.sqrt((nu - 2) / nu))
    for j, sigma in enumerate((0.03, 0.05)):
        assert stats.kstest(x[:, j] / sigma, exact.cdf).pvalue > 1e-3
    # Given W the path is Brownian: after and before half time the moves are uncorrelated.
    end = np.asarray(scenarios.shock[:, 0])
    whole = np.where(end > 0, np.expm1(end), end)
    slack = 4 * np.sqrt((1 if nu is None else (nu - 2) / (nu - 4)) / N)
    assert abs(np.mean(x * (whole - x)) / 0.03 / 0.05) <= slack


def test_over_a_weekend_a_session_clock_stands_still():
    """Friday 16:00 UTC and on for two sessions: whatever expires on Saturday or Sunday, at any hour, settles at one
    price, that of Friday's end; on Monday the price moves again."""
    model = specification({"A:spot": 0.03, "B:spot": 0.05}, steps_per_year=252)
    friday = replace(MARKET, as_of=AS_OF + 8 * 3600)
    scenarios = simulate(model, friday, seed=4, n_scenarios=4096, drift=Drift.NONE)
    saturday, sunday, monday = (np.asarray(scenarios.at(0, AS_OF + h * 3600)) for h in (16.5, 51.0, 65.0))
    np.testing.assert_array_equal(saturday, sunday)
    assert not np.any(sunday == monday)
    assert saturday[:, 0].std() == pytest.approx(0.03 * np.sqrt(8 / 24), rel=4 * np.sqrt(0.5 / 4096))
