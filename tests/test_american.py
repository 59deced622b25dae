"""American options: QuantLib's engine, cited values, closed forms at the limits, slopes against bumps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import QuantLib as ql

from pmvar.kernels.american import american, as_put
from pmvar.kernels.black import normalised_black
from pmvar.kernels.exercise_boundary import exercised_early, has_two_boundaries
from pmvar.kernels.exercise_table import ExerciseTable, tabulated

BATCH = 512
"""All prices and slopes are compiled for this many options."""
PRICE = jax.jit(american)
TERMS = ("spot", "strike", "vol", "time", "rate", "dividend_yield")


@jax.jit
def all_slopes(*terms):
    along = jnp.eye(len(TERMS))

    def slope(direction):
        tangents = [jnp.full_like(x, 1.0) * d for x, d in zip(terms, direction, strict=False)]
        return jax.jvp(american, terms, (*tangents, jnp.zeros_like(terms[-1])))[1]

    return jax.vmap(slope)(along)


def batched(function, *terms):
    """`function` of spot, strike, vol, time, rate, yield and sign, padded to whole batches."""
    columns = np.broadcast_arrays(*(np.asarray(x, float) for x in terms))
    n = columns[0].size
    columns = [np.resize(x.ravel(), -(-n // BATCH) * BATCH) for x in columns]
    parts = [
        np.asarray(function(*(jnp.asarray(x[i : i + BATCH]) for x in columns)))
        for i in range(0, len(columns[0]), BATCH)
    ]
    return np.concatenate(parts, axis=-1)[..., :n]


def price(*terms):
    return batched(PRICE, *terms)


def european(spot, strike, vol, time, rate, dividend_yield, sign):
    columns = np.broadcast_arrays(
        *(np.asarray(x, float) for x in (spot, strike, vol, time, rate, dividend_yield, sign))
    )
    spot, strike, vol, time, rate, dividend_yield, sign = columns
    forward = spot * np.exp((rate - dividend_yield) * time)
    k, s = np.log(strike / forward), vol * np.sqrt(time)
    return np.exp(-rate * time) * forward * np.asarray(normalised_black(*(jnp.asarray(x) for x in (k, s, sign))))


HIGHEST = ql.QdFpAmericanEngine.highPrecisionScheme()
"""Half a second a price."""
FINE = ql.QdFpLegendreScheme(32, 10, 16, 64)
"""A thousand prices a second, within 3e-6 of the strike."""
ACCURATE = ql.QdFpAmericanEngine.accurateScheme()
"""Two thousand, most of them as good."""


def quantlib(scheme, spot, strike, vol, days, rate, dividend_yield, sign):
    today, count = ql.Date(1, 1, 2026), ql.Actual365Fixed()
    ql.Settings.instance().evaluationDate = today
    held, earned = (ql.YieldTermStructureHandle(ql.FlatForward(today, x, count)) for x in (dividend_yield, rate))
    surface = ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.NullCalendar(), vol, count))
    process = ql.BlackScholesMertonProcess(ql.QuoteHandle(ql.SimpleQuote(spot)), held, earned, surface)
    kind = ql.Option.Call if sign > 0 else ql.Option.Put
    option = ql.VanillaOption(ql.PlainVanillaPayoff(kind, strike), ql.AmericanExercise(today, today + int(days)))
    option.setPricingEngine(ql.QdFpAmericanEngine(process, scheme))
    return option.NPV()


def cases(n, seed, *, vols=(0.03, 2.0), years=3.0):
    """Random options, no two boundaries among them: spot, strike, vol, days, rate, yield, sign."""
    draw = np.random.default_rng(seed)
    vol = np.exp(draw.uniform(np.log(vols[0]), np.log(vols[1]), n))
    days = np.exp(draw.uniform(0, np.log(365 * years), n)).round()
    high, low = draw.uniform(-0.01, 0.15, n), draw.uniform(-0.03, 0.15, n)
    put = np.arange(n) % 2 == 0
    low = np.where((high < 0) & (low < high), -low, low)
    rate, dividend_yield = np.where(put, high, low), np.where(put, low, high)
    spot = 100 * np.exp(draw.uniform(-2.5, 2.5, n) * np.minimum(vol * np.sqrt(days / 365), 1.0))
    return spot, np.full(n, 100.0), vol, days, rate, dividend_yield, np.where(put, -1.0, 1.0)


@pytest.mark.parametrize(
    ("scheme", "n", "tolerance"),
    [
        (FINE, 400, 3e-6),
        (HIGHEST, 10, 1e-6),
    ],
)
def test_against_quantlib(scheme, n, tolerance):
    terms = cases(n, seed=5)
    exact = np.array([quantlib(scheme, *map(float, row)) for row in zip(*terms, strict=True)])
    spot, strike, vol, days, *rest = terms
    error = np.abs(price(spot, strike, vol, days / 365, *rest) - exact) / np.maximum(spot, strike)
    assert error.max() <= tolerance
    premium = exact - european(spot, strike, vol, days / 365, *rest)
    assert (premium > 1e-3).mean() > 0.3, "premiums are at stake"


def test_ten_thousand_against_quantlib():
    """Within 3e-6 of max(S, K) everywhere; where QuantLib's quicker scheme is itself in doubt, by its finer one."""
    terms = cases(10_000, seed=6)
    rows = [tuple(map(float, row)) for row in zip(*terms, strict=True)]
    exact = np.array([quantlib(ACCURATE, *row) for row in rows])
    spot, strike, vol, days, *rest = terms
    ours, size = price(spot, strike, vol, days / 365, *rest), np.maximum(spot, strike)
    doubtful = np.flatnonzero(np.abs(ours - exact) > 2e-6 * size)
    assert len(doubtful) < 50
    exact[doubtful] = [quantlib(FINE, *rows[i]) for i in doubtful]
    assert np.max(np.abs(ours - exact) / size) <= 3e-6


@pytest.mark.parametrize(
    ("spot", "strike", "vol", "time", "rate", "held", "premium_only", "cited", "tolerance"),
    [
        # Andersen, Lake and Offengenden (2016), of their tables 2 and 3
        (100.0, 100.0, 0.25, 1.0, 0.05, 0.05, True, 0.1069527, 1e-7),
        (100.0, 100.0, 0.25, 1.0, 0.075, 0.05, True, 0.367111, 1e-6),
        # the case of Longstaff and Schwartz (2001), whose 4.478 is a Bermudan's
        (36.0, 40.0, 0.2, 1.0, 0.06, 0.0, False, 4.48667, 5e-6),
        (100.0, 120.0, 0.25, 10.0, 0.10, 0.03, False, 23.0003, 5e-5),
    ],
)
def test_cited_puts(spot, strike, vol, time, rate, held, premium_only, cited, tolerance):
    terms = (spot, strike, vol, time, rate, held, -1.0)
    found = price(*terms) - (european(*terms) if premium_only else 0.0)
    assert float(found[0] if found.ndim else found) == pytest.approx(cited, abs=tolerance)


def test_a_long_put_is_nearly_perpetual():
    # Merton (1973): (K − B)(S/B)^λ with B = Kλ/(λ − 1); 80 years leave e^(−rT) < 2e-3 of the horizon
    rate, vol, strike = 0.08, 0.2, 100.0
    power = -2 * rate / vol**2
    boundary = strike * power / (power - 1)
    spot = np.array([85.0, 100.0, 140.0])
    exact = (strike - boundary) * (spot / boundary) ** power
    np.testing.assert_allclose(price(spot, strike, vol, 80.0, rate, 0.0, -1.0), exact, atol=2e-3)


def test_bounds_and_time():
    spot, strike, vol, days, *rest = cases(BATCH, seed=8)
    short, long = (price(spot, strike, vol, days / 365 * scale, *rest) for scale in (0.5, 1.0))
    size = np.maximum(spot, strike)
    sign = rest[-1]
    assert np.all((long - np.maximum(sign * (spot - strike), 0)) / size >= -1e-15)
    assert np.all((long - european(spot, strike, vol, days / 365, *rest)) / size >= -1e-6)
    assert np.all((long - short) / size >= -1e-6)


def test_calls_without_yield_and_puts_without_interest_wait():
    draw = np.random.default_rng(2)
    spot, vol, time = draw.uniform(50, 150, BATCH), draw.uniform(0.05, 1, BATCH), draw.uniform(0.01, 3, BATCH)
    low, more = draw.uniform(-0.05, 0.0, BATCH), draw.uniform(0.0, 0.1, BATCH)
    for terms in ((spot, 100.0, vol, time, low, low + more, -1.0), (spot, 100.0, vol, time, low + more, low, 1.0)):
        np.testing.assert_allclose(price(*terms), european(*terms), rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("rate", "held", "early", "two"),
    [
        (0.05, 0.0, True, False),
        (0.05, 0.2, True, False),
        (0.05, -0.02, True, False),
        (0.0, 0.0, False, False),
        (0.0, 0.05, False, False),
        (0.0, -0.02, True, False),
        (-0.02, 0.05, False, False),
        (-0.02, -0.01, False, False),
        (-0.02, -0.02, False, False),
        (-0.01, -0.03, True, True),
    ],
)
def test_signs_of_rate_and_yield(rate, held, early, two):
    r, q = jnp.asarray(rate), jnp.asarray(held)
    assert bool(exercised_early(r, q)) == early
    assert bool(has_two_boundaries(r, q)) == two
    found = price(95.0, 100.0, 0.2, 1.0, [rate, held], [held, rate], [-1.0, 1.0])
    assert np.isnan(found).all() if two else np.isfinite(found).all()
    if not two:
        # Below K·r/q in every case that is exercised.
        deep = (20.0, 100.0, 0.2, 1.0, rate, held, -1.0)
        assert (price(*deep)[()] > european(*deep) + 1e-3).all() == early


def test_two_boundaries_leave_the_neighbours_alone():
    found = price(95.0, 100.0, 0.2, 1.0, [-0.01, 0.05], [-0.03, 0.0], -1.0)
    assert np.isnan(found[0]) and np.isfinite(found[1])


GRID = [
    axis.ravel()
    for axis in np.meshgrid(
        [0.0, 1e-6, 0.999, 1.0, 2.0, 1e6],  # S/K
        [0.0, 1e-8, 0.2, 5.0],  # vol
        [0.0, 1e-8, 1.0, 30.0],  # years
        [-0.05, 0.0, 0.1],  # rate, yield of a call
        [-0.05, 0.0, 0.1],  # yield, rate of a call
        [-1.0, 1.0],
        indexing="ij",
    )
]


def test_limits_are_finite_in_value_and_slope():
    spot, vol, time, one, other, sign = GRID
    rate, held = np.where(sign < 0, one, other), np.where(sign < 0, other, one)
    terms = (spot, 1.0, vol, time, rate, held, sign)
    value = price(*terms)
    assert np.isfinite(value).all()
    assert np.all(value >= np.maximum(sign * (spot - 1), 0) * (1 - 1e-15))
    assert np.isfinite(batched(all_slopes, *terms)).all()
    dead = time == 0
    np.testing.assert_allclose(value[dead], np.maximum(sign * (spot - 1), 0)[dead], rtol=1e-15, atol=1e-12)


def test_a_strike_of_nothing():
    """K → 0: a call is the price itself, a put nothing."""
    for strike in (1e-300, 1e-30):
        np.testing.assert_allclose(price(1.0, strike, 0.3, 1.0, 0.05, 0.0, [1.0, -1.0]), [1.0, 0.0], atol=1e-15)


def test_without_volatility_the_best_moment_is_taken():
    draw = np.random.default_rng(4)
    spot, time = draw.uniform(0.7, 1.3, BATCH), draw.uniform(0.1, 2.0, BATCH)
    rate, held = draw.uniform(0.01, 0.1, (2, BATCH))
    moment = np.linspace(0, 1, 2_001)[:, None] * time
    exact = np.max(np.maximum(np.exp(-rate * moment) - spot * np.exp(-held * moment), 0), axis=0)
    # Exercise at one moment is a kink that a quadrature sees to a tenth of a per cent of the strike.
    np.testing.assert_allclose(price(spot, 1.0, 1e-7, time, rate, held, -1.0), exact, atol=2e-3)


def test_slopes_against_bumps():
    spot, strike, vol, days, *rest = cases(BATCH, seed=11, vols=(0.1, 1.0))
    terms = [spot / 100, strike / 100, vol, days / 365, *rest]
    found = batched(all_slopes, *terms)
    # Narrow: gamma has a step at the boundary.
    width = 1e-6
    for row, name in enumerate(TERMS):
        up, down = list(terms), list(terms)
        up[row], down[row] = up[row] + width, down[row] - width
        bumped = (price(*up) - price(*down)) / (2 * width)
        assert np.max(np.abs(found[row] - bumped)) <= 3e-6 * np.max(np.abs(bumped)), name


def test_slopes_at_the_money():
    """Where ln(K/F) is 0 but for rounding, all slopes are of one leg of Black's formula."""
    rate = np.linspace(0.0, 0.1, BATCH)
    for spot, held in ((3.0, rate), (3.0 * np.exp((0.03 - rate) * 400 / 365), 0.03)):
        found = batched(all_slopes, spot, 3.0, 0.7, 400 / 365, rate, held, -1.0)
        beside = batched(all_slopes, spot * (1 + 1e-9), 3.0, 0.7, 400 / 365, rate, held, -1.0)
        np.testing.assert_allclose(found, beside, rtol=0, atol=1e-7)


def test_pasted_smoothly():
    # Delta runs into −1 without a step: through the boundary, found as the least price above the intrinsic value.
    spot = np.linspace(0.7, 0.95, BATCH)
    delta = batched(all_slopes, spot, 1.0, 0.25, 1.0, 0.06, 0.02, -1.0)[0]
    assert delta[0] == -1.0 and delta[-1] > -0.7
    assert np.max(np.abs(np.diff(delta))) <= 4e-3


WIDTH = 96


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
@pytest.mark.parametrize(("factor", "tolerance"), [(np.exp(1.6), 3e-6), (np.exp(2.2), 5e-6)])
def test_tabulated_boundaries_price_as_their_own(dtype, factor, tolerance):
    draw = np.random.default_rng(3)
    n = 64
    rate, held = draw.uniform(0.0, 0.10, (2, n))
    vol, time = draw.uniform(0.1, 0.9, n), np.exp(draw.uniform(np.log(1 / 365), np.log(2), n))
    table = TABLE(*(jnp.asarray(x) for x in (rate, held, time, vol / factor, vol * factor)))
    sigma = vol[:, None] * factor ** draw.uniform(-1, 1, (n, WIDTH))
    m = draw.uniform(-3.0, 2.0, (n, WIDTH)) * sigma * np.sqrt(time)[:, None]
    cast = jax.tree.map(lambda x: x.astype(dtype), table)
    found = np.asarray(VALUE(cast, jnp.asarray(m, dtype), jnp.asarray(sigma, dtype)), dtype=np.float64)
    wide = [np.broadcast_to(x[:, None], m.shape) for x in (time, rate, held)]
    exact = price(np.exp(m), 1.0, sigma, *wide, -1.0).reshape(m.shape)
    error = (found - exact) / np.maximum(1, np.exp(m))
    assert np.max(np.abs(error)) <= tolerance
    assert np.sqrt(np.mean(error**2)) <= 1e-6


TABLE, VALUE = jax.jit(tabulated), jax.jit(ExerciseTable.value)


def test_a_table_is_finite_beyond_its_range_in_float32():
    n = 64
    ends = [np.resize(x, n) for x in ([0.0, 0.05, 0.5, -0.02], [0.0, 0.05, 0.0, 0.05], [1e-6, 0.01, 1.0, 10.0])]
    table = TABLE(*(jnp.asarray(x) for x in (*ends, np.full(n, 0.1), np.full(n, 0.9))))
    cast = jax.tree.map(lambda x: x.astype(jnp.float32), table)
    m, vol = (np.resize(x, (n, WIDTH)) for x in ([-80.0, -5, -1e-3, 0, 1e-3, 5, 80.0], [0.0, 1e-9, 0.1, 0.5, 0.9, 9.0]))
    m, vol = jnp.asarray(m, jnp.float32), jnp.asarray(vol, jnp.float32)

    @jax.jit
    def slopes(m, vol):
        one, none = jnp.ones_like(m), jnp.zeros_like(m)
        along = jnp.stack([one, none]), jnp.stack([none, one])
        return jax.vmap(lambda dm, dv: jax.jvp(cast.value, (m, vol), (dm, dv))[1])(*along)

    assert np.isfinite(np.asarray(VALUE(cast, m, vol))).all()
    assert np.isfinite(np.asarray(slopes(m, vol))).all()


def test_put_call_symmetry():
    call = as_put(*(jnp.asarray([x]) for x in (90.0, 100.0, 0.02, 0.05, 1.0)))
    assert [float(x[0]) for x in call] == pytest.approx([np.log(100 / 90), 0.05, 0.02, 90.0])
    # C(S, K, r, q) = P(K, S, q, r), each by its own path through the quadrature of the other
    one, other = price([90.0, 100.0], [100.0, 90.0], 0.3, 1.0, [0.02, 0.05], [0.05, 0.02], [1.0, -1.0])
    assert one == pytest.approx(other, rel=1e-14)
