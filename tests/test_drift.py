"""Drift: E[g(x + c)] is the forward's growth under every price map, by quadrature and in simulation."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from pmvar.errors import NumericsError
from pmvar.kernels.mixing import U_MIN, U_MIN_EXP, Z_MAX
from pmvar.models import build
from pmvar.models.price_map import NormalMixture, log_price_ratio, mean_shift
from pmvar.models.specification import ModelSpecification
from pmvar.scenarios import simulate
from pmvar.types import PriceMap, Sampling
from tests.laws import MARKET, N, marginal
from tests.markets import AS_OF, DAY, carry_curve, specification

SIGMA = {"A:spot": 0.03, "B:spot": 0.05}


def one_normal(deviation: float, mean: float = 0.0) -> NormalMixture:
    """The law of one normal factor."""
    return NormalMixture(np.array([[mean]]), np.array([[deviation]]), np.ones((1, 1)))


def ratio(price_map: PriceMap, x: float) -> float:
    """g(x), written again."""
    if price_map is PriceMap.EXP:
        return np.exp(x)
    if price_map is PriceMap.LINEAR:
        return max(1 + x, 1e-8)
    return np.exp(x) if x <= 0 else 1 + x


@pytest.mark.parametrize("price_map", list(PriceMap))
def test_price_maps(price_map):
    """ln g against its definition, continuous with its slope at zero, finite far down."""
    x = np.array([-50.0, -5.0, -1.0, -0.9, -1e-9, 0.0, 1e-9, 0.5, 3.0, 50.0])
    got = np.asarray(log_price_ratio(price_map, jnp.asarray(x)))
    np.testing.assert_allclose(got, [np.log(ratio(price_map, v)) for v in x], rtol=1e-12, atol=1e-15)
    assert np.all(np.diff(got) >= 0)


def mean_ratio(price_map: PriceMap, c: float, deviation: float) -> float:
    """E[g(Y)], Y ~ N(c, deviation²), by adaptive quadrature split at the kinks; independent of closed forms."""
    kinks = [(k - c) / deviation for k in (-1.0, 0.0) if abs(k - c) < 12 * deviation]
    # e^x·φ peaks at its own deviation, up to 12 of them away.
    low, high = -12.0, 12.0 + (deviation if price_map is PriceMap.EXP else 0.0)
    return integrate.quad(
        lambda z: ratio(price_map, c + deviation * z) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi),
        low, high, points=kinks or None, epsabs=1e-14, epsrel=1e-13, limit=200,
    )[0]  # fmt: skip


@pytest.mark.parametrize("price_map", list(PriceMap))
@pytest.mark.parametrize("growth", [0.98, 1.0, 1.001])
@pytest.mark.parametrize("deviation", [0.0, 0.01, 0.2, 1.0])
def test_drift_of_a_normal_by_quadrature(price_map, growth, deviation):
    """E[g(x + c)] = F/S to 1e-10 (the shift's own stopping rule is 1e-11; the linear map's floor adds 1e-8 of what lies
    below it)."""
    (c,) = mean_shift(price_map, one_normal(deviation), np.array([growth]))
    got = mean_ratio(price_map, c, deviation) if deviation else ratio(price_map, c)
    below = stats.norm.cdf((-1 - c) / max(deviation, 1e-12)) if price_map is PriceMap.LINEAR else 0.0
    assert got == pytest.approx(growth, abs=float(1e-10 + 2e-8 * below))


@pytest.mark.parametrize("price_map", [PriceMap.EXP_LINEAR, PriceMap.LINEAR])
@pytest.mark.parametrize(("nu", "sigma", "steps"), [(3.0, 0.03, 2.0), (4.0, 0.05, 10.0), (8.0, 0.2, 1.0)])
def test_drift_of_a_t_by_quadrature(price_map, nu, sigma, steps):
    """The t density of SciPy, not the mixture: agreement to what the truncation of U can move, and to 1e-9.

    Beyond it lies probability U_MIN with x of the order of σ√h·√W(U_MIN).
    """
    growth, deviation = 1.0005, sigma * np.sqrt(steps)
    model = build(specification({"A:spot": sigma}, model="t", degrees_of_freedom=nu))
    (c,) = mean_shift(price_map, marginal(model, steps), np.array([growth]))
    law: Any = stats.t(nu, scale=deviation * np.sqrt((nu - 2) / nu))

    pieces = sorted([-np.inf, -30 * deviation, -1 - c, -c, 30 * deviation, np.inf])
    mean = sum(
        integrate.quad(lambda x: ratio(price_map, x + c) * law.pdf(x), a, b, epsabs=1e-12, limit=400)[0]
        for a, b in zip(pieces, pieces[1:], strict=False)
    )
    extreme = deviation * np.sqrt((nu - 2) / stats.chi2(nu).ppf(U_MIN))
    # Half of it lies on each side and the linear branch cancels; all of it is an upper bound.
    assert mean == pytest.approx(growth, abs=2 * U_MIN * extreme + 1e-9)


@pytest.mark.parametrize("price_map", list(PriceMap))
def test_drift_of_a_t_with_its_truncation_by_quadrature(price_map):
    """Both integrals by adaptive quadrature, over the mixing normal and the conditional normal, truncated alike: exact
    also for the exponential map, whose untruncated mean is infinite."""
    nu, sigma, growth = 4.0, 0.04, 1.0003
    spec = specification({"A:spot": sigma}, model="t", degrees_of_freedom=nu, price_map=price_map)
    (c,) = mean_shift(price_map, marginal(build(spec), 2.0), np.array([growth]))
    u_min = U_MIN_EXP if price_map is PriceMap.EXP else U_MIN
    z_min = float(special.ndtri(u_min))

    def given(z: float) -> float:
        u = stats.norm.cdf(z)
        w = nu / (stats.chi2(nu).ppf(u) if z < 0 else stats.chi2(nu).isf(stats.norm.sf(z)))
        return mean_ratio(price_map, c, sigma * np.sqrt(2 * (nu - 2) / nu * w))

    body = integrate.quad(
        lambda z: given(z) * stats.norm.pdf(z), z_min, Z_MAX, epsabs=1e-10, epsrel=1e-10, limit=100
    )[0]  # fmt: skip
    mean = body + given(z_min) * u_min
    # ln W is approximated to 1e-8 (ν = 4), the quadratures stop at 1e-10.
    assert mean == pytest.approx(growth, abs=1e-9)


def assert_forwards_are_met(law: ModelSpecification, *, n: int, inside: bool) -> None:
    """E g = F/S in simulation, inside four standard errors, at the horizon and `inside` it; vols get no drift."""
    market = replace(MARKET, forwards={"A": carry_curve(100.0, 3.0), "B": carry_curve(10.0, -2.0)})
    scenarios = simulate(law, market, seed=3, n_scenarios=n, horizon="2d", sampling=Sampling.MC)
    at = {2.0: np.asarray(scenarios.shock[:, 0])}
    if inside:
        at[1.25] = np.concatenate([scenarios.at(i, AS_OF + 1.25 * DAY) for i in range(scenarios.n_tiles)])
    for days, shock in at.items():
        price = np.exp(shock[:, :2])
        forward = np.exp(np.array([3.0, -2.0]) * days / 365)
        np.testing.assert_array_less(np.abs(price.mean(0) - forward), 4 * price.std(0) / np.sqrt(n))
        # The drift is material: without it the test would fail.
        assert np.all(np.abs(forward - 1) > 20 * price.std(0) / np.sqrt(n))
        assert abs(shock[:, 2].mean()) < 4 * shock[:, 2].std() / np.sqrt(n)


@pytest.mark.parametrize("price_map", list(PriceMap))
@pytest.mark.parametrize(("model", "nu"), [("gaussian", None), ("t", 5.0)])
def test_prices_grow_to_their_forward_on_average(price_map, model, nu):
    """Under every map."""
    law = specification(SIGMA | {"A:vol": 0.05}, model=model, degrees_of_freedom=nu, price_map=price_map)
    assert_forwards_are_met(law, n=N, inside=True)


MERTON = {"intensity": 40.0, "mean": -0.03, "deviation": 0.03, "loading": {"B:spot": 1.5}}
KOU = {"intensity": 40.0, "up_probability": 0.3, "up_rate": 60.0, "down_rate": 40.0}
FILTER = {f"{u}:spot": {"omega": 4e-5, "alpha": 0.1, "gamma": 0.05, "beta": 0.8} for u in "AB"}


@pytest.mark.parametrize(
    ("model", "more", "inside"),
    [
        ("t-multi", {"parameters": {"skew": {"A:spot": -0.4, "B:spot": 0.3}}}, False),
        ("merton", {"parameters": {"jumps": MERTON}}, False),
        ("kou", {"parameters": {"jumps": KOU}}, False),
        ("t-jump", {"parameters": {"jumps": MERTON}}, True),
        ("t-garch", {"state": {"filter": FILTER}}, False),
        ("t-garch-jump", {"parameters": {"jumps": KOU}, "state": {"filter": FILTER}}, False),
    ],
)
def test_prices_of_every_composed_model_grow_to_their_forward(model, more, inside):
    """Under the map that no law has a closed form of: by the mixture where there is one, else by reference paths."""
    law = specification(SIGMA | {"A:vol": 0.05}, model=model, degrees_of_freedom=6.0)
    assert_forwards_are_met(replace(law, **more), n=1 << 15, inside=inside)


def test_vol_factors_are_not_asked_for_a_drift():
    """Under the exponential map a wild vol factor has no mean to match, and needs none."""
    law = specification({"A:spot": 0.02, "A:vol": 0.5}, model="t", degrees_of_freedom=3.0, price_map=PriceMap.EXP)
    shock = simulate(law, MARKET, seed=1, n_scenarios=2048).shock
    assert bool(jnp.all(jnp.isfinite(shock)))


def test_a_drift_that_does_not_exist_is_refused():
    law = one_normal(0.1)
    for growth in (np.nan, np.inf, -1.0):
        with pytest.raises(NumericsError, match="no drift reaches the forward"):
            mean_shift(PriceMap.EXP_LINEAR, law, np.array([growth]))
