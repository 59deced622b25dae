"""Barrier options: against QuantLib, at their limits, and the chance of a hit between today and the horizon."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import QuantLib as ql

from pmvar.kernels.barrier import BarrierTerms, barrier_price, hit_probability
from pmvar.kernels.black import normalised_black
from pmvar.types import Precision
from pmvar.valuation.plan import make_plan
from pmvar.valuation.today import values_and_greeks
from tests.markets import AS_OF, YEAR, flat_rate
from tests.payoffs import (
    EXPIRY,
    SPOT,
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
def _price(sign, up, knock_in, k, h, carry, deviation, rate, rebate, hit):
    return barrier_price(BarrierTerms(sign, up, knock_in), k, h, carry, deviation, rate, rebate, hit)


def price(*given) -> np.ndarray:
    return np.asarray(_price(*(jnp.asarray(x, jnp.float64) for x in np.broadcast_arrays(*given))))


KINDS = {(1, 1): ql.Barrier.UpIn, (1, 0): ql.Barrier.UpOut, (-1, 1): ql.Barrier.DownIn, (-1, 0): ql.Barrier.DownOut}


def test_against_quantlib() -> None:
    """2,000 cases of all types, with rebates and without, to 1e-8 of a spot of 100; in and out are the plain option."""
    rng, n = np.random.default_rng(1), 2000
    day, count = ql.Date(1, 1, 2026), ql.Actual365Fixed()
    ql.Settings.instance().evaluationDate = day
    strike, vol, rate, held = (rng.uniform(a, b, n) for a, b in ((60, 160), (0.05, 1), (0, 0.1), (-0.02, 0.1)))
    days, sign, up = rng.integers(2, 800, n), rng.choice([-1.0, 1.0], n), rng.choice([-1.0, 1.0], n)
    knock_in, rebate = rng.integers(0, 2, n).astype(float), rng.uniform(0, 10, n) * rng.integers(0, 2, n)
    barrier, found = 100 * np.exp(up * rng.uniform(0.005, 0.5, n)), []
    for i in range(n):
        flat = [ql.YieldTermStructureHandle(ql.FlatForward(day, float(x[i]), count)) for x in (held, rate)]
        surface = ql.BlackVolTermStructureHandle(ql.BlackConstantVol(day, ql.NullCalendar(), float(vol[i]), count))
        process = ql.BlackScholesMertonProcess(ql.QuoteHandle(ql.SimpleQuote(100.0)), flat[0], flat[1], surface)
        payoff = ql.PlainVanillaPayoff(ql.Option.Call if sign[i] > 0 else ql.Option.Put, strike[i])
        kind = KINDS[int(up[i]), int(knock_in[i])]
        option = ql.BarrierOption(kind, barrier[i], rebate[i], payoff, ql.EuropeanExercise(day + int(days[i])))
        option.setPricingEngine(ql.AnalyticBarrierEngine(process))
        found.append(option.NPV())
    t = days / 365
    carry = (rate - held) * t
    forward = 100 * np.exp(carry)
    rest = (np.log(strike / forward), np.log(barrier / 100), carry, vol * np.sqrt(t), rate * t)
    own = price(sign, up, knock_in, *rest, rebate / forward, 0.0) * forward * np.exp(-rate * t)
    np.testing.assert_allclose(own, found, rtol=0, atol=1e-8)
    both = price(sign, up, 1.0, *rest, 0.0, 0.0) + price(sign, up, 0.0, *rest, 0.0, 0.0)
    plain = np.asarray(normalised_black(*map(jnp.asarray, (rest[0], rest[3], sign))))
    np.testing.assert_allclose(both, plain, rtol=0, atol=1e-14)


def test_limits() -> None:
    """Finite everywhere, in both precisions; no time: paid, or the rebate; a barrier far away: the plain option."""
    sign, up, knock_in, k, h, s, carry = (
        x.ravel()
        for x in np.meshgrid(
            [-1.0, 1.0], [-1.0, 1.0], [0.0, 1.0], np.log(np.logspace(-6, 6, 9)),
            [-10.0, -0.1, -1e-9, 0.0, 1e-9, 0.1, 10.0],
            [0.0, 1e-8, 1e-3, 0.3, 5.0], [0.0, 0.05],
        )
    )  # fmt: skip

    def kernel(sign, up, knock_in, k, h, carry, s, rate, rebate, hit):
        return barrier_price(BarrierTerms(sign, up, knock_in), k, h, carry, s, rate, rebate, hit)

    hit, rate, rebate = 0.2 + 0 * k, 0.03 + 0 * k, 0.1 + 0 * k
    # Where the drift alone decides on the hit there is no digit in float32.
    drifting = (np.abs(carry) > 30 * s) & (np.abs(h) < 1)
    live = [x[~drifting] for x in (sign, up, knock_in, k, h, carry, s, rate, rebate, hit)]
    check_finite(kernel, live, by=(3, 4, 6))
    alive = up * h > 1e-6
    paid = price(sign, up, knock_in, k, h, 0.0, 0.0, 0.0, 0.1, 0.0)
    # ln(F/H) = −h: what is alive has not crossed.
    intrinsic = np.maximum(sign * -np.expm1(k), 0)
    expected = np.where(alive, np.where(knock_in > 0, 0.1, intrinsic), np.where(knock_in > 0, intrinsic, 0.1))
    sure = (up * h > 1e-6) | (up * h < 0)
    np.testing.assert_allclose(paid[sure], expected[sure], rtol=1e-5, atol=1e-6)
    far = price(sign, up, knock_in, k, up * 50.0, carry, s + 0.01, 0.0, 0.0, 0.0)
    plain = np.asarray(normalised_black(*map(jnp.asarray, (k, s + 0.01, sign))))
    np.testing.assert_allclose(far, np.where(knock_in > 0, 0, plain), atol=2e-3, rtol=1e-3)


def test_expected_value_at_the_horizon_is_todays() -> None:
    """Without rates the value is a martingale: over the law of the price at the horizon, hits before it weighed by the
    bridge, it averages to today's."""
    vol, t, horizon_at, strike, z = 0.5, 0.25, 0.1, 95.0, np.linspace(-9, 9, 6001)
    for sign in (-1.0, 1.0):
        for up, barrier in ((1.0, 110.0), (-1.0, 92.0)):
            for knock_in in (0.0, 1.0):
                before = vol * np.sqrt(horizon_at)
                spot = 100 * np.exp(before * z - before**2 / 2)
                distance = np.full_like(z, up * np.log(barrier / 100)), up * np.log(barrier / spot)
                hit = np.asarray(hit_probability(*map(jnp.asarray, (*distance, np.full_like(z, before**2)))))
                rest = vol * np.sqrt(t - horizon_at)
                then = spot * price(
                    sign, up, knock_in, np.log(strike / spot), np.log(barrier / spot), 0.0, rest, 0.0, 3.0 / spot, hit
                )
                mean = np.trapezoid(then * np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi), z)
                k, h = np.log(strike / 100), np.log(barrier / 100)
                now = 100 * price(sign, up, knock_in, k, h, 0.0, vol * np.sqrt(t), 0.0, 0.03, 0.0)
                np.testing.assert_allclose(mean, now, rtol=2e-4)


ROWS = [
    row(f"{u}-{s}-{kind}-{i}-{r}-{side}", "barrier", u, settlement=s, expiry=float(e), strike=r * SPOT[u][0],
        put_call=side, barrier_type=kind, barrier=(1.06 if kind[0] == "u" else 0.95) * SPOT[u][0],
        **({} if s == "inverse" else {"rebate": 0.02 * SPOT[u][0]}))
    for u, s in (("ABC", "linear"), ("BTC", "inverse"))
    for kind in ("up_in", "up_out", "down_in", "down_out")
    for i, e in enumerate(EXPIRY[:3])
    for r in (0.97, 1.05)
    for side in ("call", "put")
]  # fmt: skip
BARRIERS = listed(ROWS)


def test_profit_against_the_definition() -> None:
    """Knocked in or out where the price is beyond, with the chance of a hit where neither end is; 1e-4 of the spot."""
    where, scenarios = market(), drawn()
    found, (value, _) = profit(BARRIERS), values_and_greeks(BARRIERS, where)
    for i in range(len(BARRIERS)):
        one = BARRIERS.take(np.array([i]))
        u, strike, barrier = str(one.underlying[0]), float(one.strike[0]), float(one.barrier[0])
        kind, sign = str(one.barrier_type[0]), 1.0 if one.put_call[0] == "call" else -1.0
        up, knock_in = 1.0 if kind.startswith("up") else -1.0, float(kind.endswith("in"))
        rebate, worth, vol0 = float(np.nan_to_num(one.rebate[0])), [], 0.0
        for state in (today(one, where), horizon(one, where, scenarios)):
            vol, passed = state.vol(np.log(strike / state.forward)), 0.0
            beyond = up * np.log(barrier / state.spot) <= 0
            if worth:
                passed = min(scenarios.horizon_end, float(one.expiry[0])) - AS_OF
                product = np.log(barrier / SPOT[u][0]) * np.log(barrier / state.spot)
                hit = np.where(beyond, 1.0, np.exp(-2 * product / (vol0**2 * passed / YEAR)))
            else:
                hit, vol0 = np.zeros(1), float(vol[0])
            undiscounted = state.forward * price(
                sign, up, knock_in, np.log(strike / state.forward), np.log(barrier / state.spot),
                np.log(state.forward / state.spot), vol * np.sqrt(state.time), -np.log(state.discount),
                rebate / state.forward, hit,
            )  # fmt: skip
            paid = 1 / state.forward if one.settlement[0] == "inverse" else state.discount
            worth.append(undiscounted * state.money * paid)
        size = SPOT[u][0]
        assert abs(value[i] - worth[0][0]) <= 1e-12 * size
        error = np.abs(found[i] - (worth[1] - worth[0])) / size
        assert np.quantile(error, 0.999) <= 1e-4, (one.instrument_id, np.quantile(error, 0.999))


def test_gradients_and_greeks() -> None:
    size = np.array([SPOT[u][0] for u in BARRIERS.underlying])
    check_gradients(BARRIERS, size=size, most=2e-3, rows=np.flatnonzero(BARRIERS.expiry > drawn().horizon_end))
    check_greeks(BARRIERS, tolerance=1e-4)


def test_single_precision() -> None:
    size = np.array([SPOT[u][0] for u in BARRIERS.underlying])
    growth = np.exp(2 * np.abs(np.asarray(drawn().tile(0).shock)).max(1))
    error = np.abs(profit(BARRIERS) - profit(BARRIERS, precision="float32")) / size[:, None] / growth
    assert np.quantile(error, 0.9999) <= 5e-6


def test_a_rebate_at_the_hit_under_a_negative_rate_is_withheld() -> None:
    where = replace(market(), discounts={"USD": flat_rate(-0.01), "EUR": flat_rate(0.01)})
    plan = make_plan(BARRIERS, where, drawn(), Precision.FLOAT64)
    named = {str(BARRIERS.instrument_id[i]) for i in plan.unpriced}
    assert named == {n for n in map(str, BARRIERS.instrument_id) if n.startswith("ABC") and "out" in n}
