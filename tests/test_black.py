"""Black's formula against arbitrary precision, QuantLib, published values and its own limits."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import QuantLib as ql
from hypothesis import given
from hypothesis import strategies as st

from pmvar.kernels.black import SMALLEST_DEVIATION, black, moved_black, normalised_black
from pmvar.kernels.european import Bump, EuropeanState, EuropeanTerms, Formula, european_value

EPS = float(np.finfo(np.float64).eps)
NONE = Bump(*(jnp.zeros(()) for _ in Bump._fields))


def price(k, s, sign, dtype: type = np.float64) -> np.ndarray:
    """Normalised price of arrays or numbers that broadcast."""
    k, s, sign = np.broadcast_arrays(np.asarray(k, dtype), np.asarray(s, dtype), np.asarray(sign, dtype))
    return np.asarray(normalised_black(jnp.array(k), jnp.array(s), jnp.array(sign)))


def exact(k: float, s: float, sign: float) -> float:
    """The same in 50 digits, correctly rounded, of the binary numbers given."""
    with mpmath.workdps(50):
        x, y, c = mpmath.mpf(float(k)), mpmath.mpf(float(s)), int(sign)
        if y == 0:
            return float(max(c * (1 - mpmath.exp(x)), 0))
        d1 = -x / y + y / 2
        return float(c * (mpmath.ncdf(c * d1) - mpmath.exp(x) * mpmath.ncdf(c * (d1 - y))))


def cases(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-moneyness to ±13.8 (K/F from 1e-6 to 1e6), most of it near the money; s from 1e-4 to 5; both signs."""
    rng = np.random.default_rng(seed)
    k = np.clip(rng.normal(0, 1, n) * rng.choice([0.01, 0.1, 1.0, 4.0], n), -13.8, 13.8)
    return k, np.exp(rng.uniform(np.log(1e-4), np.log(5), n)), rng.choice([-1.0, 1.0], n)


# ---- values ------------------------------------------------------------------------------------------------------


def test_double_precision_against_arbitrary_precision():
    """Absolute error at most 2 ulp of max(F, K) on 3,000 random cases, ten times below what is asked for."""
    k, s, sign = cases(3_000, 1)
    reference = np.array([exact(*case) for case in zip(k, s, sign, strict=True)])
    error = np.abs(price(k, s, sign) - reference)
    assert np.max(error / np.maximum(1, np.exp(k))) <= 2 * EPS

    # Relative, for prices above 1e-12 of F. Formula's conditioning: the time value is about s·φ(d) while its two terms
    # are of size Φ(−|d|) ≥ φ(d)/(|d|+1), and a rounding of d (and of k/s in it) moves each by up to d²·ulp. The ratio
    # of term to difference is (1+|d|)/s. So 1e-12 holds for all but the shortest or farthest options.
    d = np.abs(-k / s) + s / 2
    # The intrinsic value of an in-the-money leg adds no relative error.
    bound = 4 * EPS * (1 + d**2) * (1 + (1 + d) / s)
    material = reference > 1e-12
    assert np.all((error <= bound * reference)[material])
    ordinary = material & (bound < 1e-12)
    assert ordinary.sum() > 1_000
    assert np.max(error[ordinary] / reference[ordinary]) <= 1e-12


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 4), (np.float32, 5)])
def test_a_moved_forward_is_priced_as_the_normalised_price_times_its_growth(dtype, bound):
    """Against 50 digits: within a few roundings of the larger of forward and strike."""
    k, s, sign = (x.astype(dtype) for x in cases(3_000, 11))
    x = np.clip(np.random.default_rng(12).standard_t(3, len(k)) * 0.3, -8, 8).astype(dtype)
    got = np.asarray(moved_black(*(jnp.asarray(a) for a in (k, x, s, sign))))
    assert got.dtype == dtype
    moneyness = [float(a) - float(b) for a, b in zip(k, x, strict=True)]
    growth = np.exp(x.astype(np.float64))
    reference = growth * [exact(m, *rest) for m, *rest in zip(moneyness, s, sign, strict=True)]
    scale = np.maximum(growth, np.exp(k.astype(np.float64)))
    # A rounding of k, x or k − x moves the price by at most that times forward or strike: the slope is strike × Φ(d₂).
    rounding = np.finfo(dtype).eps * (1 + np.abs(k) + np.abs(x))
    np.testing.assert_array_less(np.abs(got - reference) / scale, bound * rounding)


def test_double_precision_against_quantlib():
    """2e-14 of max(F, K) on 100,000 random forwards, strikes and deviations."""
    k, s, sign = cases(100_000, 2)
    forward = np.exp(np.random.default_rng(3).uniform(-3, 12, len(k)))
    strike = forward * np.exp(k)
    kind = {1.0: ql.Option.Call, -1.0: ql.Option.Put}
    theirs = [
        ql.blackFormula(kind[c], float(x), float(f), float(y))
        for c, x, f, y in zip(sign, strike, forward, s, strict=True)
    ]
    ours = np.asarray(black(*(jnp.asarray(a) for a in (forward, strike, s, sign))))
    assert np.max(np.abs(ours - theirs) / np.maximum(forward, strike)) <= 2e-14


def test_single_precision_is_bounded_by_the_larger_of_forward_and_strike():
    """2e-7·max(F, K) of the exact price of the rounded inputs: two erf (6e-8 each), one product, one sum.

    A strike far above the forward multiplies an error of Φ by K: the bound is not one of F alone.
    """
    k, s, sign = (a.astype(np.float32) for a in cases(3_000, 4))
    reference = np.array([exact(*case) for case in zip(k, s, sign, strict=True)])
    got = price(k, s, sign, np.float32)
    assert got.dtype == np.float32
    error = np.abs(got - reference)
    assert np.max(error / np.maximum(1, np.exp(k))) <= 2e-7
    assert np.max(error[k <= 1]) <= 3e-7 * np.e


@pytest.mark.parametrize(
    ("x", "s", "value"),
    [
        (-0.5, 0.1, 5.3399117858008565e-9),
        (-2.0, 0.5, 3.4724760825473944e-6),
        (-5.0, 1.0, 4.7557763710846427e-8),
        (-0.01, 0.001, 7.4745593377628338e-28),
        (0.0, 0.3, 0.11923538474048504),
    ],
)
def test_normalised_table(x, s, value):
    """b(x, s) = price/√(FK), x = ln(F/K): published to 17 digits. Tolerances from the conditioning of the formula,
    as above, plus one ulp of the table."""
    got = float(price(-x, s, 1.0)) * np.exp(x / 2)
    d = abs(x / s) + s / 2
    assert got == pytest.approx(value, rel=4 * EPS * (1 + d**2) * (1 + (1 + d) / s), abs=0)
    assert exact(-x, s, 1.0) * np.exp(x / 2) == pytest.approx(value, rel=4 * EPS)


def test_black_scholes_merton_oracle():
    """100/100/1y/5%/20%: call, Δ, Γ, vega and digital through the kernel that values options, by automatic
    differentiation of it."""
    forward, discount = 100 * np.exp(0.05), np.exp(-0.05)

    def call(spot, vol, strike):
        one = jnp.ones(1)
        f = spot * np.exp(0.05)
        terms = EuropeanTerms((f * discount) * one, jnp.log(strike / f) * one, one)
        state = EuropeanState(jnp.zeros((1, 1)), vol * jnp.ones((1, 1)), jnp.ones((1, 1)), jnp.zeros(1), one)
        return european_value(terms, state, NONE, Formula.LINEAR)[0, 0]

    at = (jnp.asarray(100.0), jnp.asarray(0.2), jnp.asarray(100.0))
    assert float(call(*at)) == pytest.approx(10.450583572185567, rel=1e-14)
    assert float(jax.grad(call)(*at)) == pytest.approx(0.63683065117561907, rel=1e-14)
    assert float(jax.grad(jax.grad(call))(*at)) == pytest.approx(0.018762017345846894, rel=1e-12)
    assert float(jax.grad(call, 1)(*at)) == pytest.approx(37.524034691693788, rel=1e-13)
    # −∂C/∂K is the discounted probability of exercise: the digital of the table.
    assert float(-jax.grad(call, 2)(*at)) == pytest.approx(0.5323248154537634, rel=1e-13)
    assert discount * forward == pytest.approx(100.0)


def test_inverse_oracle():
    """F=60000, K=65000, σ=.6, 30/365, no rates: coin call, put, PA-delta N(d₁) − coin price."""
    k, s = np.log(65_000 / 60_000), 0.6 * np.sqrt(30 / 365)
    assert price(k, s, 1.0) == pytest.approx(0.037297802590077506, rel=1e-13)
    assert price(k, s, -1.0) == pytest.approx(0.12063113592341108, rel=1e-13)
    # dV/d ln F of the coin price is the premium-adjusted delta in dollars over F.
    slope = jax.grad(lambda x: normalised_black(x, jnp.asarray(s), jnp.asarray(1.0)))(jnp.asarray(k))
    n_d1 = 0.5 * (1 + float(jax.scipy.special.erf((-k / s + s / 2) / np.sqrt(2))))
    assert n_d1 - float(price(k, s, 1.0)) == pytest.approx(0.31492820995580821, rel=1e-13)
    # F²·∂c/∂F per coin: −∂c/∂k = e^k Φ(d₂) = N(d₁) − c.
    assert -float(slope) == pytest.approx(0.31492820995580821, rel=1e-12)


@given(st.floats(-13.8, 13.8), st.floats(0, 10))
def test_parity(k, s):
    """c − p = 1 − K/F, to an ulp of the larger."""
    gap = float(price(k, s, 1.0)) - float(price(k, s, -1.0))
    assert abs(gap + np.expm1(k)) <= 2 * EPS * max(1, np.exp(k))


@given(st.floats(-5, 5), st.floats(1e-3, 5), st.sampled_from([-1.0, 1.0]))
def test_put_call_symmetry(k, s, sign):
    """P(k, s) = e^k·C(−k, s): nothing in the formula prefers a side."""
    mirrored = np.exp(k) * float(price(-k, s, -sign))
    assert float(price(k, s, sign)) == pytest.approx(mirrored, abs=4 * EPS * max(1, np.exp(k)))


@given(st.floats(-5, 5), st.floats(0, 4), st.floats(0, 1), st.sampled_from([-1.0, 1.0]))
def test_bounds_and_monotone_in_deviation(k, s, more, sign):
    low, high = float(price(k, s, sign)), float(price(k, s + more, sign))
    rounding = 4 * EPS * max(1, np.exp(k))
    assert max(sign * -np.expm1(k), 0.0) - rounding <= low <= high + rounding
    assert high <= (1.0 if sign > 0 else np.exp(k)) + rounding


# ---- limits ------------------------------------------------------------------------------------------------------

RATIO = np.array([1e-6, 1e-3, 0.5, 0.999999, 1.0, 1.000001, 2.0, 1e3, 1e6])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_no_deviation_is_the_intrinsic_value(dtype, sign):
    """σ → 0 or τ → 0, exactly zero or below the smallest deviation, in and out of the money and at it."""
    eps = np.finfo(dtype).eps
    k = np.log(RATIO).astype(dtype)
    intrinsic = np.maximum(sign * -np.expm1(k.astype(np.float64)), 0.0)
    for s in (0.0, 1e-300 if dtype is np.float64 else 1e-38, SMALLEST_DEVIATION):
        got = price(k, s, sign, dtype)
        # At the money .4·1e-12 of time value remains.
        np.testing.assert_allclose(got, intrinsic, rtol=2 * eps, atol=5e-13)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_extreme_strikes_and_deviations_have_finite_values_and_gradients(dtype):
    """K/F from 1e-6 to 1e6, s from 0 to 50, exactly at the money included: no NaN, no infinity, in either precision."""
    k, s, sign = np.meshgrid(
        np.concatenate([np.log(RATIO), [1e-16, -1e-16, 1e-12, -1e-12, 1e-9]]),
        [0.0, 1e-300, 1e-20, 1e-13, 1e-12, 1.0000001e-12, 1e-9, 1e-6, 1e-3, 0.1, 1.0, 10.0, 50.0],
        [1.0, -1.0],
    )
    k, s, sign = (jnp.asarray(a.ravel(), dtype) for a in (k, s, sign))
    assert np.all(np.isfinite(normalised_black(k, s, sign)))
    for argument in (0, 1):
        slope = jax.vmap(jax.grad(normalised_black, argument))(k, s, sign)
        assert np.all(np.isfinite(slope))
    vega = jax.vmap(jax.grad(normalised_black, 1))(k, s, sign)
    # Vega per unit of forward lies between 0 and φ(0)·√(K/F).
    ceiling = 0.4 * np.exp(np.asarray(k, float) / 2)
    rounding = 50 * np.finfo(dtype).eps * (1 + np.exp(np.asarray(k, float)))
    assert np.all(np.asarray(vega) >= -rounding) and np.all(np.asarray(vega) <= ceiling + rounding)


def test_a_million_points_in_single_precision_are_finite():
    """A 10⁶-point grid of log-moneyness ±14 and deviations 0 to 50 in float32."""
    k = jnp.linspace(-14, 14, 1000, dtype=jnp.float32)
    s = jnp.concatenate([jnp.zeros(1, jnp.float32), jnp.geomspace(1e-12, 50, 999, dtype=jnp.float32)])
    kk, ss = jnp.meshgrid(k, s)
    for sign in (1.0, -1.0):
        assert bool(jnp.all(jnp.isfinite(normalised_black(kk, ss, jnp.full_like(kk, sign)))))


def test_a_strike_of_zero_is_the_forward():
    """K = 0: the call is worth F and the put nothing."""
    np.testing.assert_array_equal(price(-np.inf, 0.3, [1.0, -1.0]), [1.0, 0.0])


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("s", [1e-3, 0.02, 0.3, 2.0])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_delta_exactly_at_the_money(dtype, s, sign):
    """At k = 0 the leg priced changes from put to call: the derivative is that of one leg, sign·Φ(sign·d₁), and not a
    mean with the intrinsic value's kink."""

    def value(x):
        # Per unit of today's forward: F·b(ln K/F, s).
        one = jnp.asarray(1.0, dtype)
        return black(x, one, jnp.asarray(s, dtype), jnp.asarray(sign, dtype))

    delta = float(jax.grad(value)(jnp.asarray(1.0, dtype)))
    n = ql.CumulativeNormalDistribution()
    # Each of two terms ±φ/s that cancel carries an ulp.
    assert delta == pytest.approx(sign * n(sign * s / 2), abs=4 * float(np.finfo(dtype).eps) * (1 + 0.4 / s))


@pytest.mark.parametrize("ratio", [1 - 1e-9, 1 - 1e-13, 1.0, 1 + 1e-13, 1 + 1e-9])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_delta_is_continuous_through_the_money(ratio, sign):
    """A hair either side of the money both legs have the same delta; calls and puts differ by exactly 1 in F."""
    s = 0.2

    def value(x, c):
        return black(x, jnp.asarray(ratio), jnp.asarray(s), jnp.asarray(c))

    call, put = (float(jax.grad(value)(jnp.asarray(1.0), c)) for c in (1.0, -1.0))
    assert call - put == pytest.approx(1.0, abs=1e-14)
    assert (call if sign > 0 else put) == pytest.approx(sign * ql.CumulativeNormalDistribution()(sign * 0.1), abs=1e-8)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_delta_of_an_expired_option_at_the_money_is_a_half(dtype, sign):
    """s = 0 and k = 0: either one-sided delta would do, their mean is what both legs give, with no NaN."""
    one, none, c = (jnp.asarray(x, dtype) for x in (1.0, 0.0, sign))
    delta = float(jax.grad(lambda x: black(x, one, none, c))(one))
    assert delta == pytest.approx(0.5 * sign, abs=1e-11)


def test_what_is_not_a_number_stays_so():
    """A clamp at zero must not turn a NaN into a price."""
    for k, s in ((np.nan, 0.2), (0.1, np.nan), (np.nan, np.nan)):
        assert np.all(np.isnan(price(k, s, [1.0, -1.0])))


@pytest.mark.parametrize("argument", [0, 1])
def test_derivatives_against_differences_in_arbitrary_precision(argument):
    """∂b/∂k and ∂b/∂s by automatic differentiation against closed forms: −e^k Φ(d₂)·sign…, φ(d₁)."""
    k, s, sign = (np.asarray(a) for a in cases(500, 7))
    keep = s > 1e-3
    k, s, sign = k[keep], s[keep], sign[keep]
    got = np.asarray(jax.vmap(jax.grad(normalised_black, argument))(*(jnp.asarray(a) for a in (k, s, sign))))
    d1 = -k / s + s / 2
    phi, cdf = ql.NormalDistribution(), ql.CumulativeNormalDistribution()
    if argument == 1:
        exact_slope = np.array([phi(d) for d in d1])
    else:
        exact_slope = np.array([-c * np.exp(x) * cdf(c * (d - y)) for c, x, d, y in zip(sign, k, d1, s, strict=True)])
    # Two terms φ(d₁)·(k/s² or 1/s) cancel.
    size = np.maximum(1, np.exp(k)) * (1 + 1 / s + np.abs(k) / s**2)
    assert np.max(np.abs(got - exact_slope) / size) <= 4e-15
