"""Options on averages: against QuantLib, against a simulation, at their limits, on every path of a book."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import QuantLib as ql

from pmvar.kernels.average import average_price, earlier_share, exponential_mean, window_variance
from pmvar.valuation.today import values_and_greeks
from tests.markets import AS_OF, DAY, YEAR
from tests.payoffs import (
    EXPIRY,
    SPOT,
    black,
    check_finite,
    check_gradients,
    check_greeks,
    drawn,
    horizon,
    listed,
    market,
    profit,
    row,
    today,
)  # fmt: skip


@jax.jit
def _price(f, k, v, g, b, w, s, a, y):
    variance = v**2 * b + window_variance(v**2 * w, earlier_share(g * w))
    return average_price(s * f * exponential_mean(-g * w), k - a, variance, y)


def price(forward, strike, vol, growth, before, left, share_left, known, sign):
    """Undiscounted, by the kernel: an average of which `share_left` is to come, over `left` years, after `before`."""
    every = np.broadcast_arrays(forward, strike, vol, growth, before, left, share_left, known, sign)
    return np.asarray(_price(*(jnp.asarray(x, float) for x in every)))


def test_against_quantlib() -> None:
    """Levy's engine has the same two moments: 300 averages that begin today or have begun, to 1e-9 of the spot."""
    rng = np.random.default_rng(1)
    day, count, n = ql.Date(1, 1, 2026), ql.Actual365Fixed(), 300
    ql.Settings.instance().evaluationDate = day
    strike, vol, rate, carry = (rng.uniform(a, b, n) for a, b in ((60, 160), (0.05, 1.0), (0.0, 0.1), (0.01, 0.1)))
    days, past, sign = rng.integers(5, 500, n), rng.integers(0, 200, n) * rng.integers(0, 2, n), rng.choice([-1, 1], n)
    so_far = rng.uniform(80, 120, n)
    found = []
    for i in range(n):
        flat = [
            ql.YieldTermStructureHandle(ql.FlatForward(day, float(x), count)) for x in (rate[i] - carry[i], rate[i])
        ]
        surface = ql.BlackVolTermStructureHandle(ql.BlackConstantVol(day, ql.NullCalendar(), float(vol[i]), count))
        process = ql.BlackScholesMertonProcess(ql.QuoteHandle(ql.SimpleQuote(100.0)), flat[0], flat[1], surface)
        side = ql.Option.Call if sign[i] > 0 else ql.Option.Put
        option = ql.ContinuousAveragingAsianOption(
            ql.Average.Arithmetic, ql.PlainVanillaPayoff(side, strike[i]), ql.EuropeanExercise(day + int(days[i]))
        )
        average = ql.QuoteHandle(ql.SimpleQuote(so_far[i] if past[i] else 0.0))
        option.setPricingEngine(ql.ContinuousArithmeticAsianLevyEngine(process, average, day - int(past[i])))
        found.append(option.NPV())
    t, whole = days / 365, (days + past) / 365
    share = t / whole
    own = price(100 * np.exp(carry * t), strike, vol, carry, 0.0, t, share, (1 - share) * so_far, sign)
    found, own = np.array(found), np.exp(-rate * t) * own
    # Where what is known exceeds the strike QuantLib takes the logarithm of less than nothing.
    certain = (1 - share) * so_far >= strike
    np.testing.assert_array_equal(np.isnan(found), certain)
    assert 0 < certain.sum() < 30
    np.testing.assert_allclose(own[~certain], found[~certain], rtol=0, atol=1e-8)
    ahead = share * 100 * np.expm1(carry * t) / (carry * t)
    paid = np.exp(-rate * t) * np.maximum(sign * ((1 - share) * so_far + ahead - strike), 0)
    np.testing.assert_allclose(own[certain], paid[certain], rtol=1e-12)


def test_error_of_the_lognormal_average() -> None:
    """Against 2^15 paths of 64 steps: what the docs say of the method."""
    rng, n, paths, t = np.random.default_rng(2), 64, 2**15, 1.0
    walk = np.cumsum(rng.standard_normal((n, paths // 2)), axis=0) / np.sqrt(n)
    walk = np.concatenate([walk, -walk], axis=1)
    when = (np.arange(n) + 1) / n
    strikes = np.array([80.0, 100.0, 120.0])
    for vol, bound in ((0.2, 3e-4), (0.6, 4e-3), (1.0, 1.2e-2)):
        # Trapezoids: the first point is certain.
        price_at = 100 * np.exp(vol * walk - 0.5 * vol**2 * when[:, None])
        average = (price_at.sum(axis=0) - price_at[-1] / 2 + 50) / n
        for k in strikes:
            paid = np.maximum(average - k, 0)
            own = float(price(100.0, k, vol, 0.0, 0.0, t, 1.0, 0.0, 1.0))
            error = paid[: paths // 2] / 2 + paid[paths // 2 :] / 2
            noise = error.std() / np.sqrt(paths // 2)
            assert abs(own - paid.mean()) / 100 <= bound + 3 * noise / 100, (vol, k)


def test_limits() -> None:
    """No window is the European option; finite everywhere, and in both precisions; parity and monotony."""
    k = 100 * np.logspace(-6, 6, 25)
    for sign in (-1.0, 1.0):
        european = black(np.full(25, 100.0), k, np.full(25, 0.5), sign)
        np.testing.assert_allclose(price(100.0, k, 0.5, 0.1, 1.0, 1e-9, 1.0, 0.0, sign), european, rtol=1e-8, atol=1e-7)
    call, put = (price(100.0, k, 0.5, 0.1, 0.5, 0.5, 0.7, 20.0, y) for y in (1.0, -1.0))
    mean = 20 + 70 * -np.expm1(-0.05) / 0.05
    np.testing.assert_allclose(call - put, mean - k, atol=1e-9 * k.max())

    def kernel(strike, vol, window, ahead, sign):
        variance = window_variance(vol**2 * window, earlier_share(0.1 * window))
        return average_price(ahead, strike, variance, sign)

    grid = np.meshgrid(
        np.concatenate([[-1.0, 0.0], np.logspace(-6, 6, 13)]), [0.0, 1e-8, 0.01, 1.0, 10.0], [0.0, 1e-8, 0.1, 5.0],
        [0.0, 1e-6, 1.0], [-1.0, 1.0],
    )  # fmt: skip
    check_finite(kernel, [x.ravel() for x in grid], by=(0, 1, 3))


WINDOWS = {"life": (None, "asian"), "days": (5.0, "asian"), "hours": (0.8, "option"), "minutes": (0.5 / 24, "option"),
           "begun": (-10.0, "asian")}  # fmt: skip
"""Days of averaging before expiry (negative: it began so long ago), and the kind of the instrument."""


def started(expiry: float, days: float | None) -> float:
    """When averaging starts."""
    if days is None:
        return AS_OF - 0.1 * DAY
    return AS_OF + days * DAY if days < 0 else max(expiry - days * DAY, AS_OF + 0.1 * DAY)


ROWS = [
    row(f"{u}-{s}-{w}-{i}-{r}-{side}", kind, u, settlement=s, expiry=float(e), strike=r * SPOT[u][0], put_call=side,
        averaging_start=started(float(e), days),
        **({"average_so_far": 0.97 * SPOT[u][0]} if days is None or days < 0 else {}))
    for u, s in (("ABC", "linear"), ("BTC", "inverse"), ("DAX", "linear"))
    for w, (days, kind) in WINDOWS.items()
    for i, e in enumerate(EXPIRY)
    for r in (1.02,)
    for side in ("call", "put")
]  # fmt: skip
AVERAGES = listed(ROWS)


def worth(one, state, now: float) -> np.ndarray:
    """In base currency: of a table of one, `now` seconds after AS_OF; the price between runs straight in its log."""
    u, expiry, start = str(one.underlying[0]), float(one.expiry[0]) - AS_OF, float(one.averaging_start[0]) - AS_OF
    curve, spot0, window = market().forwards[u], SPOT[u][0], expiry - start
    vol, sign = state.vol(np.log(float(one.strike[0]) / state.forward)), 1.0 if one.put_call[0] == "call" else -1.0
    if one.kind[0] == "option" and window < 3600:
        # Quoted as of an option without an average.
        vol = vol * np.sqrt(expiry / (expiry - 2 / 3 * window))
    now, strike = min(now, expiry), float(one.strike[0])
    known = np.zeros_like(state.spot)
    if start <= 0:
        known = known - start / window * float(one.average_so_far[0])
    if now > max(start, 0):
        root, weight = np.polynomial.legendre.leggauss(12)
        at = max(start, 0) + (now - max(start, 0)) * (root + 1) / 2
        passed = spot0 * (weight / 2) @ np.exp(np.log(state.spot / spot0) * (at[:, None] / now))
        known = known + (now - max(start, 0)) / window * passed
    left, before = expiry - max(start, now), max(start - now, 0)
    ends = curve.at(AS_OF + np.array([max(start, 0), expiry]))
    growth = np.log(ends[1] / ends[0]) / (expiry - max(start, 0)) * YEAR
    value = price(state.forward, strike, vol, growth, before / YEAR, left / YEAR, left / window, known, sign)
    mean = known + left / window * state.forward * np.asarray(exponential_mean(jnp.asarray(-growth * left / YEAR)))
    return value * state.money * (1 / mean if one.settlement[0] == "inverse" else state.discount)


def test_profit_against_the_definition() -> None:
    """Averages that begin before, inside and after the horizon, and settle before and after it; 2e-5 of the forward.

    Half an hour of averaging goes by the European formula with less time, the forward of its end and,
    inside the horizon, the spot of its end.
    """
    found, (value, _) = profit(AVERAGES), values_and_greeks(AVERAGES, market())
    for i in range(len(AVERAGES)):
        one = AVERAGES.take(np.array([i]))
        size = SPOT[str(one.underlying[0])][0] * (1.08 if one.underlying[0] == "DAX" else 1.0)
        before = worth(one, today(one, market()), 0.0)
        after = worth(one, horizon(one, market(), drawn()), 2 * DAY)
        assert abs(value[i] - before[0]) <= (3e-6 if one.kind[0] == "option" else 1e-7) * size, one.instrument_id
        if one.kind[0] == "option" and one.expiry[0] < drawn().horizon_end and one.averaging[0] < 3600:
            continue
        error = np.abs(found[i] - (after - before)) / size
        assert np.quantile(error, 0.999) <= 3e-5, (one.instrument_id, np.quantile(error, 0.999))


def test_gradients_and_greeks() -> None:
    size = np.array([SPOT[u][0] for u in AVERAGES.underlying])
    alive = np.flatnonzero(AVERAGES.expiry > drawn().horizon_end)
    check_gradients(AVERAGES, size=size, most=2e-3, rows=alive)
    check_greeks(AVERAGES, tolerance=1e-4)


def test_single_precision() -> None:
    size = np.array([SPOT[u][0] for u in AVERAGES.underlying])
    growth = np.exp(2 * np.abs(np.asarray(drawn().tile(0).shock)).max(1))
    error = np.abs(profit(AVERAGES) - profit(AVERAGES, precision="float32")) / size[:, None] / growth
    assert error.max() <= 2e-6
