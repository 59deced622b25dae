"""Heston and SVCJ: option prices against the literature and QuantLib, moments, martingale, limits, what is refused."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache, partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import QuantLib as ql
from scipy import stats

from pmvar.errors import InputError
from pmvar.kernels.random import normals, run_key, stream
from pmvar.models import build
from pmvar.models.base import PathShock, RiskFactorModel
from pmvar.models.specification import Factor, ModelSpecification
from pmvar.models.svcj import variance_jumps
from pmvar.scenarios import simulate
from pmvar.types import Drift, PriceMap, Sampling
from tests.laws import Inverted, assert_mean
from tests.markets import carry_curve, snapshot

N = 32_768
FACTORS = (Factor("A:spot", 0.01), Factor("A:vol", 0.05))


def law_of(
    initial: float, kappa: float, theta: float, xi: float, rho: float, *, jumps: tuple[float, ...] | None = None
) -> ModelSpecification:
    """One underlying; `jumps` = λ, μ_s, σ_s, μ_v, ρ_J."""
    variance = {"kappa": kappa, "theta": theta, "vol_of_variance": xi, "initial": initial}
    parameters: dict[str, Any] = {"variance": {"A": variance}}
    if jumps:
        own = dict(zip(("mean", "deviation", "variance_mean", "correlation"), jumps[1:], strict=True))
        parameters["jumps"] = {"intensity": jumps[0], "by_underlying": {"A": own}}
    return ModelSpecification(
        "svcj" if jumps else "heston", 0.0, FACTORS, np.array([[1, rho], [rho, 1.0]]),
        parameters=parameters, price_map=PriceMap.EXP,
    )  # fmt: skip


@partial(eqx.filter_jit)
def _tile(law: RiskFactorModel, start: jax.Array, steps: jax.Array, n_steps: int) -> PathShock:
    def one(i: jax.Array) -> PathShock:
        return law.path(normals(stream(run_key(3), i), n_steps * law.dimension()).reshape(n_steps, -1), steps)

    return jax.vmap(one)(start + jnp.arange(4096, dtype=jnp.uint32))


def walked(specification: ModelSpecification, years: float, n_steps: int, *, n: int = N) -> np.ndarray:
    """x of both factors after `years`, [path, factor]."""
    law = build(specification, years * 365 / n_steps)
    parts = [_tile(law, jnp.uint32(i), jnp.float64(years * 365), n_steps) for i in range(0, n, 4096)]
    return np.concatenate([np.asarray((p.diffusion + p.jump).sum(axis=1)) for p in parts])


def log_jump_mean(mu: float, deviation: float, mu_v: float, rho_j: float) -> float:
    """μ_s of a mean relative jump μ̄."""
    return float(np.log((1 + mu) * (1 - rho_j * mu_v)) - deviation**2 / 2)


Jumps = tuple[float, ...] | None
ANDERSEN_1 = (0.04, 0.5, 0.04, 1.0, -0.9)
ORACLES: dict[str, tuple[tuple[float, ...], float, float, float, int, float, float, Jumps]] = {
    # (v0, κ, θ, ξ, ρ), K, r, T, steps, price, largest standard error, jumps
    "heston": ((0.010201, 6.21, 0.019, 0.61, -0.7), 100, 0.0319, 1, 100, 6.8061, 0.024, None),
    "heston long": ((0.09, 2.0, 0.09, 1.0, -0.3), 100, 0.05, 5, 160, 34.99976, 0.094, None),
    "svj": ((0.008836, 3.99, 0.014, 0.27, -0.79), 100, 0.0319, 5, 160, 20.16415, 0.045,
            (0.11, log_jump_mean(-0.12, 0.15, 0, 0), 0.15, 0.0, 0.0)),
    "svcj": ((0.007569, 3.46, 0.008, 0.14, -0.82), 100, 0.0319, 1, 200, 6.86188, 0.024,
             (0.47, log_jump_mean(-0.1, 1e-4, 0.05, -0.38), 1e-4, 0.05, -0.38)),
    "andersen I at 70": (ANDERSEN_1, 70, 0.0, 10, 320, 35.84977, 0.053, None),
    "andersen I at 100": (ANDERSEN_1, 100, 0.0, 10, 320, 13.08467, 0.053, None),
    "andersen I at 140": (ANDERSEN_1, 140, 0.0, 10, 320, 0.295774, 0.019, None),
    "andersen II": ((0.04, 0.3, 0.04, 0.9, -0.5), 100, 0.0, 15, 240, 16.64922, 0.13, None),
    "andersen III": ((0.09, 1.0, 0.09, 1.0, -0.3), 100, 0.05, 5, 160, 33.59682, 0.099, None),
}  # fmt: skip


@lru_cache
def sampled(law: tuple[float, ...], jumps: Jumps, years: float, steps: int) -> np.ndarray:
    """x of the price, walked once for all that look at it."""
    v0, kappa, theta, xi, rho = law
    return walked(law_of(v0, kappa, theta, xi, rho, jumps=jumps), years, steps)[:, 0]


@pytest.mark.parametrize("name", ORACLES)
def test_option_prices(name):
    """Calls at S = 100 within four standard errors, the martingale e^x as control variate, itself within four. An error
    may be a tenth above what it was measured to be."""
    law, strike, rate, years, steps, price, largest, jumps = ORACLES[name]
    ratio = np.exp(sampled(law, jumps, years, steps))
    assert abs(ratio.mean() - 1) <= 4 * ratio.std() / np.sqrt(N)
    paid = np.exp(-rate * years) * np.maximum(100 * ratio * np.exp(rate * years) - strike, 0)
    controlled = paid - np.cov(paid, ratio)[0, 1] / ratio.var() * (ratio - 1)
    error = controlled.std() / np.sqrt(N)
    assert error < largest
    assert abs(controlled.mean() - price) <= 4 * error


def price_law(law: tuple[float, ...], jumps: Jumps, years: float) -> Callable[[np.ndarray], np.ndarray]:
    """Characteristic function of x, whose exponential has mean 1: Heston (1993) in the form without branch cuts of
    Albrecher et al. (2007), the jumps of Duffie, Pan and Singleton (2000) by quadrature over their time."""
    v0, kappa, theta, xi, rho = law
    moment, weight = np.polynomial.legendre.leggauss(48)

    def phi(u: np.ndarray) -> np.ndarray:
        b = kappa - rho * xi * 1j * u
        d = np.sqrt(b * b + xi**2 * (1j * u + u * u))
        g = (b - d) / (b + d)

        def slope(t: float) -> np.ndarray:
            return (b - d) / xi**2 * -np.expm1(-d * t) / (1 - g * np.exp(-d * t))

        level = (b - d) * years - 2 * np.log((1 - g * np.exp(-d * years)) / (1 - g))
        exponent = kappa * theta / xi**2 * level + slope(years) * v0
        if jumps:
            rate, mean, deviation, variance_mean, correlation = jumps
            relative = np.exp(mean + deviation**2 / 2) / (1 - correlation * variance_mean) - 1
            exponent = exponent - 1j * u * rate * relative * years
            price = np.exp(1j * u * mean - 0.5 * (deviation * u) ** 2)
            for t, w in zip(years * (moment + 1) / 2, years * weight / 2, strict=True):
                both = 1 - variance_mean * (slope(t) + correlation * 1j * u)
                exponent = exponent + rate * w * (price / both - 1)
        return np.exp(exponent)

    return phi


@pytest.mark.parametrize("name", [name for name in ORACLES if name not in ("andersen I at 70", "andersen I at 140")])
def test_the_price_has_the_exact_law(name):
    """Kolmogorov–Smirnov of the paths that priced the options, against the inverted characteristic function."""
    law, _, _, years, steps, _, _, jumps = ORACLES[name]
    x = sampled(law, jumps, years, steps)
    assert stats.kstest(x, Inverted(price_law(law, jumps, years), most=200 / x.std()).cdf).pvalue > 1e-3


def variance_law(law: tuple[float, ...], jumps: Jumps, years: float) -> Callable[[np.ndarray], np.ndarray]:
    """Characteristic function of v: affine, its exponent in closed form, jumps by quadrature over their time."""
    v0, kappa, theta, xi, _ = law
    moment, weight = np.polynomial.legendre.leggauss(48)

    def phi(u: np.ndarray) -> np.ndarray:
        def spread(t: float) -> np.ndarray:
            return 1 + 1j * u * xi**2 * np.expm1(-kappa * t) / (2 * kappa)

        def slope(t: float) -> np.ndarray:
            return 1j * u * np.exp(-kappa * t) / spread(t)

        exponent = slope(years) * v0 - 2 * kappa * theta / xi**2 * np.log(spread(years))
        if jumps:
            for t, w in zip(years * (moment + 1) / 2, years * weight / 2, strict=True):
                exponent = exponent + jumps[0] * w * (1 / (1 - jumps[3] * slope(t)) - 1)
        return np.exp(exponent)

    return phi


def variance_at(x: np.ndarray, law: tuple[float, ...], jumps: Jumps = None) -> np.ndarray:
    """v read back from the vol factor: x is half the change of the log of v's expected mean to 30 days."""
    v0, kappa, theta, _, _ = law
    left = -np.expm1(-kappa * 30 / 365) / (kappa * 30 / 365)
    far = theta + (jumps[0] * jumps[3] / kappa if jumps else 0.0)
    return (np.exp(2 * x) * (far + (v0 - far) * left) - far) / left + far


@pytest.mark.parametrize("jumps", [None, (4.0, -0.05, 0.05, 0.05, -0.3)])
def test_ten_days_have_the_exact_law(jumps):
    """Daily steps, 65,536 paths: Kolmogorov–Smirnov of price and variance. Jumps come at the end of their day, which at
    four a year moves neither law by a thousandth."""
    v0, kappa, theta, xi, rho = law = (0.3, 3.0, 0.4, 0.8, -0.6)
    x, y = walked(law_of(v0, kappa, theta, xi, rho, jumps=jumps), 10 / 365, 10, n=1 << 16).T
    v = variance_at(y, law, jumps)
    for sample, exact in ((x, price_law(law, jumps, 10 / 365)), (v, variance_law(law, jumps, 10 / 365))):
        assert stats.kstest(sample, Inverted(exact, most=40 / sample.std()).cdf).pvalue > 1e-3
    if jumps is None:
        scale = xi**2 * -np.expm1(-kappa * 10 / 365) / (4 * kappa)
        cir: Any = stats.ncx2(4 * kappa * theta / xi**2, v0 * np.exp(-kappa * 10 / 365) / scale)
        assert stats.kstest(v / scale, cir.cdf).pvalue > 1e-3


def test_moments_of_jumps_of_price_and_variance():
    """Means, variances and covariances of the sums over a tenth of a year, of two underlyings whose variances jump
    together: E_k is common, so that Cov of two sums is λt·E of the product of two jumps."""
    mean, deviation, upward, rho = np.array([-0.05, 0.02]), np.array([0.04, 0.1]), np.array([0.1, 0.2]), [-0.4, 0.3]
    by = {
        u: dict(zip(("mean", "deviation", "variance_mean", "correlation"), row, strict=True))
        for u, row in zip("AB", zip(mean.tolist(), deviation.tolist(), upward.tolist(), rho, strict=True), strict=True)
    }
    model = replace(law_of(0.04, 1.0, 0.04, 0.5, -0.5, jumps=JUMPS), parameters={
        "jumps": {"intensity": 15.0, "by_underlying": by}})  # fmt: skip
    law = variance_jumps(model, ("A", "B"), 0.1)
    z = np.random.default_rng(5).standard_normal((1 << 17, law.dimension()))
    price, variance, count = map(np.asarray, jax.jit(jax.vmap(lambda one: law.draw(one, jnp.float64(0.1))))(z))
    # A jump is m + lift·E + σζ, one of variance lift·E alone; E E = 1, E E² = 2.
    m, lift, own, s = np.r_[mean, 0, 0], np.r_[rho * upward, upward], np.r_[deviation, 0, 0] ** 2, 1.5
    every = np.hstack([price, variance])
    assert_mean(count, s)
    assert_mean(every, s * (m + lift))
    product = np.outer(m, m) + np.outer(m, lift) + np.outer(lift, m) + 2 * np.outer(lift, lift) + np.diag(own)
    centred = every - s * (m + lift)
    assert_mean(centred[:, :, None] * centred[:, None, :], s * product)
    # The compensator is what the jumps add to E e^x.
    assert_mean(np.exp(price), np.exp(0.1 * np.asarray(law.compensator())))


@pytest.mark.parametrize("name", [name for name, o in ORACLES.items() if o[-1] is None])
def test_the_references_are_quantlibs(name):
    """Half a unit of the last digit, plus the error of an adaptive integral."""
    (v0, kappa, theta, xi, rho), strike, rate, years, _, price, _, _ = ORACLES[name]
    day = ql.Date(1, 1, 2025)
    ql.Settings.instance().evaluationDate = day
    count = ql.Actual365Fixed()
    curves = [ql.YieldTermStructureHandle(ql.FlatForward(day, r, count)) for r in (rate, 0.0)]
    process = ql.HestonProcess(*curves, ql.QuoteHandle(ql.SimpleQuote(100.0)), v0, kappa, theta, xi, rho)
    option = ql.VanillaOption(
        ql.PlainVanillaPayoff(ql.Option.Call, strike), ql.EuropeanExercise(day + int(365 * years))
    )
    option.setPricingEngine(ql.AnalyticHestonEngine(ql.HestonModel(process), 1e-10, 100_000))
    assert option.NPV() == pytest.approx(price, abs=6e-5)


@pytest.mark.parametrize("n_steps", [4, 50])
def test_moments_of_the_variance(n_steps):
    """Mean and variance of v_T, exact in QE at any step, read back from the vol factor."""
    v0, kappa, theta, xi, _ = law = (0.09, 2.0, 0.04, 0.6, -0.5)
    v = variance_at(walked(law_of(*law), 0.5, n_steps)[:, 1], law)
    d = np.exp(-kappa * 0.5)
    mean = theta + (v0 - theta) * d
    variance = v0 * xi**2 * d * (1 - d) / kappa + theta * xi**2 * (1 - d) ** 2 / (2 * kappa)
    assert v.min() >= -1e-12
    assert v.mean() == pytest.approx(mean, abs=4 * v.std() / np.sqrt(N))
    spread = np.sqrt(stats.kurtosis(v, fisher=False) - 1)
    assert v.var() == pytest.approx(variance, abs=4 * variance * spread / np.sqrt(N))


def test_a_quiet_variance_is_black_and_scholes():
    x = walked(law_of(0.04, 1.0, 0.04, 1e-3, 0.0), 0.25, 8)[:, 0]
    assert stats.kstest((x + 0.005) / 0.1, "norm").pvalue > 1e-3


def test_prices_and_variances_of_two_underlyings_move_together():
    """Correlations of one day's moves are those of the Brownian motions, where the variance hardly moves."""
    factors = (*FACTORS, Factor("B:spot", 0.01), Factor("B:vol", 0.05))
    c = np.array([[1, -0.6, 0.5, -0.2], [-0.6, 1, -0.3, 0.4], [0.5, -0.3, 1, -0.5], [-0.2, 0.4, -0.5, 1]])
    variance = {u: {"kappa": 1.0, "theta": 0.04, "vol_of_variance": 0.05, "initial": 0.04} for u in "AB"}
    both = ModelSpecification("heston", 0.0, factors, c, parameters={"variance": variance}, price_map=PriceMap.EXP)
    np.testing.assert_allclose(np.corrcoef(walked(both, 1 / 365, 1).T), c, atol=4 / np.sqrt(N) + 2e-3)


def test_without_jumps_svcj_is_heston():
    base = (0.04, 2.0, 0.05, 0.4, -0.7)
    law = build(law_of(*base))
    jumping = build(law_of(*base, jumps=(0.0, -0.1, 0.1, 0.05, -0.4)))
    z = np.random.default_rng(1).standard_normal((5, jumping.dimension()))
    plain = law.path(jnp.asarray(z[:, :2]), jnp.float64(5.0))
    found = jumping.path(jnp.asarray(z), jnp.float64(5.0))
    np.testing.assert_allclose(found.diffusion, plain.diffusion, rtol=0, atol=1e-15)
    assert not np.any(found.jump) and float(found.count[0]) == 0


@pytest.mark.parametrize("initial", [0.0, 0.04])
@pytest.mark.parametrize("rho", [-1.0, -0.7, 0.0, 1.0])
@pytest.mark.parametrize("xi", [1e-3, 0.5, 3.0])
def test_derivatives_are_finite(initial, rho, xi):
    """By every array, over both branches of QE and at the ends of every range."""
    law = build(law_of(initial, 1.5, 0.04, xi, rho, jumps=(5.0, -0.1, 0.1, 0.05, -0.4)), 3.0)
    z = jnp.asarray(np.random.default_rng(2).standard_normal((64, 3, law.dimension())))

    def total(law: RiskFactorModel) -> jax.Array:
        path = jax.vmap(lambda one: law.path(one, jnp.float64(3.0)))(z)
        return jnp.sum(jnp.tanh(path.diffusion + path.jump))

    leaves = jax.tree.leaves(eqx.filter_grad(total)(law))
    assert leaves and all(np.all(np.isfinite(leaf)) for leaf in leaves)


@pytest.mark.parametrize("jumps", [None, (20.0, -0.1, 0.05, 0.05, -0.4)])
@pytest.mark.parametrize("horizon", ["2d", "10d"])
def test_scenarios_grow_to_the_forward(jumps, horizon):
    market = snapshot({"A": (100.0, "USD")}, forwards={"A": carry_curve(100.0, 0.05)})
    model = replace(law_of(0.3, 3.0, 0.25, 1.0, -0.5, jumps=jumps), price_map=PriceMap.EXP_LINEAR)
    drawn = simulate(
        model, market, seed=1, n_scenarios=8192, horizon=horizon, drift=Drift.FORWARD, sampling=Sampling.MC
    )
    ratio = np.exp(np.asarray(drawn.shock[:, 0, 0]))
    growth = market.forwards["A"].at(drawn.horizon_end) / 100
    assert abs(ratio.mean() - float(growth)) <= 4 * ratio.std() / np.sqrt(8192)


def changed(path: str, value: Any, *, jumps: tuple[float, ...] | None = None) -> ModelSpecification:
    """A sound model with one entry replaced, or dropped for None."""
    specification = law_of(0.04, 1.0, 0.04, 0.5, -0.5, jumps=jumps)
    *parents, last = path.split("/")
    node: Any = specification.parameters
    for key in parents:
        node = node[key]
    node.pop(last) if value is None else node.__setitem__(last, value)
    return specification


JUMPS = (1.0, -0.1, 0.1, 0.05, -0.4)


@pytest.mark.parametrize(
    ("specification", "match"),
    [
        (lambda: changed("variance/A/kappa", 0.0), "kappa"),
        (lambda: changed("variance/A/initial", -0.1), "initial"),
        (lambda: changed("variance/A/theta", float("nan")), "theta"),
        (lambda: changed("variance/A/rho", 0.1), "nothing else"),
        (lambda: changed("variance/A", None), "A needs a spot factor"),
        (lambda: changed("variance/B", {}), "B needs a spot factor"),
        (lambda: changed("steps_per_day", 0), "steps_per_day"),
        (lambda: changed("jumps", {}), "no such parameter"),
        (lambda: changed("jumps/intensity", -1.0, jumps=JUMPS), "≥ 0"),
        (lambda: changed("jumps/by_underlying/A/correlation", 30.0, jumps=JUMPS), "infinite"),
        (lambda: changed("jumps/by_underlying/B", {}, jumps=JUMPS), "by_underlying"),
        (lambda: changed("jumps", None, jumps=JUMPS), "needs parameters.jumps"),
        (lambda: changed("jumps/intensity", 1e9, jumps=JUMPS), "128"),
    ],
)  # fmt: skip
def test_what_is_refused(specification, match):
    with pytest.raises(InputError, match=match):
        build(specification(), 2.0)
