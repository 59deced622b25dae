"""Quanto futures, perpetuals and options: against QuantLib, published values, and the definition on every path."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import QuantLib as ql

from pmvar.kernels.black import normalised_black
from pmvar.kernels.quanto import quanto_drift
from pmvar.types import Precision
from pmvar.valuation.plan import make_plan
from pmvar.valuation.today import values_and_greeks
from tests.payoffs import (
    EXPIRY,
    SPOT,
    black,
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

PAID = {"BTC": ("EUR", 0.9), "DAX": ("USD", 2.0)}
"""Settlement currency, and what it pays for one unit of the quote currency."""


def quanto(name: str, kind: str, underlying: str, **columns):
    currency, rate = PAID[underlying]
    return row(name, kind, underlying, settlement="quanto", settled_in=currency, fx_rate=rate, size=2.0, **columns)


ROWS = [
    quanto(f"{u}-{i}-{r}-{side}", "option", u, expiry=float(e), strike=r * SPOT[u][0], put_call=side)
    for u in PAID for i, e in enumerate(EXPIRY) for r in (0.8, 1.0, 1.1) for side in ("call", "put")
]  # fmt: skip
OPTIONS = listed(ROWS)
LINEAR = listed(
    [quanto(f"{u}-{i}", "future", u, expiry=float(e)) for u in PAID for i, e in enumerate(EXPIRY)]
    + [quanto(f"{u}-perpetual", "perpetual", u) for u in PAID]
)


def price(forward, strike, vol, time, covariance, sign):
    """Undiscounted, per unit of the fixed rate."""
    given = (jnp.asarray(x, jnp.float64) for x in np.broadcast_arrays(forward, strike, vol, time, covariance, sign))
    f, k, v, t, c, y = given
    move = quanto_drift(v, t, c)
    return np.asarray(f * jnp.exp(move) * normalised_black(jnp.log(k / f) - move, v * jnp.sqrt(t), y))


def test_published_values(shared_data: Path) -> None:
    path = shared_data / "quantlib_vectors" / "quantooption__testValues__values.csv"
    with path.open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    assert len(rows) == 2
    for r in rows:
        k, s, q, rate, t, v, foreign, fx_vol, rho = (
            float(r[c]) for c in ("strike", "s", "q", "r", "t", "v", "fxr", "fxv", "corr")
        )
        forward, sign = s * np.exp((foreign - q) * t), 1.0 if r["type"].endswith("Call") else -1.0
        own = np.exp(-rate * t) * float(price(forward, k, v, t, rho * fx_vol, sign))
        assert own == pytest.approx(float(r["result"]), abs=1e-4)


def test_against_quantlib() -> None:
    """200 cases, to 1e-10 of the spot."""
    rng, n = np.random.default_rng(1), 200
    day, count = ql.Date(1, 1, 2026), ql.Actual365Fixed()
    ql.Settings.instance().evaluationDate = day
    strike, vol, rate, foreign, held, fx_vol, rho = (
        rng.uniform(a, b, n)
        for a, b in ((60, 160), (0.05, 1), (-0.01, 0.1), (-0.01, 0.1), (0, 0.1), (0.01, 0.3), (-0.9, 0.9))
    )
    days, sign, found = rng.integers(5, 900, n), rng.choice([-1.0, 1.0], n), []

    def surface(x: float) -> ql.BlackVolTermStructureHandle:
        return ql.BlackVolTermStructureHandle(ql.BlackConstantVol(day, ql.NullCalendar(), x, count))

    for i in range(n):
        held_ts, rate_ts, foreign_ts = (
            ql.YieldTermStructureHandle(ql.FlatForward(day, float(x[i]), count)) for x in (held, rate, foreign)
        )
        spot = ql.QuoteHandle(ql.SimpleQuote(100.0))
        process = ql.BlackScholesMertonProcess(spot, held_ts, rate_ts, surface(float(vol[i])))
        side = ql.Option.Call if sign[i] > 0 else ql.Option.Put
        option = ql.QuantoVanillaOption(ql.PlainVanillaPayoff(side, strike[i]), ql.EuropeanExercise(day + int(days[i])))
        correlation = ql.QuoteHandle(ql.SimpleQuote(rho[i]))
        option.setPricingEngine(ql.QuantoEuropeanEngine(process, foreign_ts, surface(float(fx_vol[i])), correlation))
        found.append(option.NPV())
    t = days / 365
    own = np.exp(-rate * t) * price(100 * np.exp((foreign - held) * t), strike, vol, t, rho * fx_vol, sign)
    np.testing.assert_allclose(own, found, rtol=0, atol=1e-8)


def test_profit_against_the_definition() -> None:
    """Options to the tabulated smile, 1e-4 of the forward; what is margined n·rate·(F₁ − F₀)·X₁, without a drift."""
    where, scenarios = market(), drawn()
    found, (value, _) = profit(OPTIONS), values_and_greeks(OPTIONS, where)
    for i in range(len(OPTIONS)):
        one = OPTIONS.take(np.array([i]))
        u, strike = str(one.underlying[0]), float(one.strike[0])
        quoted, sign = where.quanto[u, str(one.settlement_currency[0])], 1.0 if one.put_call[0] == "call" else -1.0
        worth = []
        for state in (today(one, where), horizon(one, where, scenarios)):
            vol = state.vol(np.log(strike / state.forward))
            forward = state.forward * np.exp(-quoted.correlation * quoted.fx_vol * vol * state.time)
            paid = black(forward, strike, vol * np.sqrt(state.time), sign)
            worth.append(2.0 * PAID[u][1] * state.discount * paid * state.money)
        size = 2.0 * PAID[u][1] * SPOT[u][0]
        assert value[i] == pytest.approx(float(worth[0][0]), abs=1e-9 * size)
        assert np.quantile(np.abs(found[i] - (worth[1] - worth[0])) / size, 0.999) <= 1e-4
    found = profit(LINEAR)
    for i in range(len(LINEAR)):
        one = LINEAR.take(np.array([i]))
        u = str(one.underlying[0])
        dated = one if np.isfinite(one.expiry[0]) else replace(one, expiry=np.array([scenarios.horizon_end + 0.0]))
        state = horizon(dated, where, scenarios)
        start = today(dated, where).forward if dated is one else SPOT[u][0]
        expected = 2.0 * PAID[u][1] * (state.forward - start) * state.money
        np.testing.assert_allclose(found[i], expected, rtol=1e-9, atol=1e-9)


def test_gradients_and_greeks() -> None:
    size = np.array([2.0 * PAID[u][1] * SPOT[u][0] for u in OPTIONS.underlying])
    check_gradients(OPTIONS, size=size, most=1e-3, rows=np.flatnonzero(OPTIONS.expiry > drawn().horizon_end))
    check_greeks(OPTIONS, tolerance=1e-5)


def test_without_a_correlation_it_is_withheld() -> None:
    plan = make_plan(OPTIONS, replace(market(), quanto={}), drawn(), Precision.FLOAT64)
    assert plan.unpriced[0] == "no quanto correlation of BTC with EUR" and len(plan.unpriced) == len(OPTIONS)
