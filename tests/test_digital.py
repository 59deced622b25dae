"""Digital options: against QuantLib, published values, and call spreads under the same smile on every path."""

from __future__ import annotations

import csv
import re
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
import QuantLib as ql

from pmvar.kernels.digital import normalised_digital
from pmvar.valuation.today import values_and_greeks
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

ROWS = [
    row(f"{u}-{s}-{p[:4]}-{i}-{r}-{side}", "digital", u, settlement=s, expiry=float(e), strike=r * SPOT[u][0],
        put_call=side, payoff=p, size=2.0)
    for u, s in (("ABC", "linear"), ("BTC", "linear"), ("BTC", "inverse"), ("DAX", "linear"))
    for p in ("cash_or_nothing", "asset_or_nothing")
    for i, e in enumerate(EXPIRY)
    for r in (0.97, 1.1)
    for side in ("call", "put")
]  # fmt: skip
DIGITALS = listed(ROWS)


def closed_form(forward, strike, deviation, slope, sign, asset):
    """By the kernel, in units of the quote currency."""
    given = np.broadcast_arrays(np.log(strike / forward), deviation, slope, sign, asset)
    price = normalised_digital(*(jnp.asarray(x, jnp.float64) for x in given))
    return np.asarray(price) * np.where(asset, forward, 1.0)


def test_against_quantlib() -> None:
    """500 cases of flat vol, to 1e-13 of what is paid."""
    rng = np.random.default_rng(1)
    day, count = ql.Date(1, 1, 2026), ql.Actual365Fixed()
    ql.Settings.instance().evaluationDate = day
    n = 500
    strike, vol, rate, held = (rng.uniform(a, b, n) for a, b in ((50, 200), (0.02, 1.5), (-0.02, 0.1), (-0.02, 0.1)))
    days, sign, asset = rng.integers(1, 1000, n), rng.choice([-1.0, 1.0], n), rng.integers(0, 2, n)
    found = []
    for i in range(n):
        flat = [ql.YieldTermStructureHandle(ql.FlatForward(day, float(x[i]), count)) for x in (held, rate)]
        surface = ql.BlackVolTermStructureHandle(ql.BlackConstantVol(day, ql.NullCalendar(), float(vol[i]), count))
        process = ql.BlackScholesMertonProcess(ql.QuoteHandle(ql.SimpleQuote(100.0)), flat[0], flat[1], surface)
        side = ql.Option.Call if sign[i] > 0 else ql.Option.Put
        payoff = ql.AssetOrNothingPayoff(side, strike[i]) if asset[i] else ql.CashOrNothingPayoff(side, strike[i], 1.0)
        option = ql.VanillaOption(payoff, ql.EuropeanExercise(day + int(days[i])))
        option.setPricingEngine(ql.AnalyticEuropeanEngine(process))
        found.append(option.NPV())
    t = days / 365
    own = np.exp(-rate * t) * closed_form(100 * np.exp((rate - held) * t), strike, vol * np.sqrt(t), 0.0, sign, asset)
    np.testing.assert_allclose(own, found, rtol=0, atol=1e-11)


def test_published_barrier_digitals_add_up(shared_data: Path) -> None:
    """Haug's knocked-in and knocked-out digitals are together a plain one, to the four digits of the table."""
    pairs = 0
    for name, asset in (("Cash", 0.0), ("Asset", 1.0)):
        path = shared_data / "quantlib_vectors" / f"binaryoption__test{name}OrNothingHaugValues__values.csv"
        table: dict[tuple[str, ...], dict[str, float]] = {}
        with path.open(encoding="utf-8") as lines:
            for r in csv.DictReader(lines):
                way, knocked = re.fullmatch("Barrier::(Down|Up)(In|Out)", r["barrierType"]).groups()  # pyright: ignore
                key = (way, *(r[c] for c in ("barrier", "cash", "type", "strike", "s", "q", "r", "t", "v")))
                table.setdefault(key, {})[knocked] = float(r["result"])
        for key, both in table.items():
            if len(both) == 2:
                sign = 1.0 if key[3].endswith("Call") else -1.0
                cash, (strike, s, q, rate, t, v) = float(key[2]), map(float, key[4:])
                own = closed_form(s * np.exp((rate - q) * t), strike, v * np.sqrt(t), 0.0, sign, asset)
                own = float(own) * np.exp(-rate * t) * (1.0 if asset else cash)
                assert own == pytest.approx(sum(both.values()), abs=1.1e-4)
                pairs += 1
    assert pairs == 16


def test_limits() -> None:
    """K/F from 1e-6 to 1e6, no time, no vol, any slope: finite values and gradients, in both precisions."""
    k, s, slope, sign, asset = (
        x.ravel()
        for x in np.meshgrid(
            np.log(np.logspace(-6, 6, 25)), [0.0, 1e-13, 1e-9, 1e-4, 0.1, 1.0, 20.0], [-0.5, 0.0, 0.5], [-1.0, 1.0],
            [0.0, 1.0],
        )
    )  # fmt: skip
    check_finite(normalised_digital, (k, s, slope, sign, asset), by=(0, 1, 2))
    paid = np.asarray(normalised_digital(*map(jnp.asarray, (k, 0 * s, slope, sign, asset))))
    np.testing.assert_array_equal(paid[np.abs(k) > 1e-9], (sign * k < 0)[np.abs(k) > 1e-9])
    live = np.asarray(normalised_digital(*map(jnp.asarray, (k, s + 0.01, 0 * slope, sign, asset))))
    other = np.asarray(normalised_digital(*map(jnp.asarray, (k, s + 0.01, 0 * slope, -sign, asset))))
    np.testing.assert_allclose(live + other, 1.0, atol=1e-15)


def spread(state, strike: float, sign: float, asset: bool) -> np.ndarray:
    """The limit of call (put) spreads under the state's own smile, in quote currency, undiscounted."""
    if state.time == 0:
        paid = (sign * (state.forward - strike) > 0).astype(float)
        return paid * (state.forward if asset else 1.0)
    root, width = np.sqrt(state.time), 1e-5

    def price(at: float) -> np.ndarray:
        return black(state.forward, at, state.vol(np.log(at / state.forward)) * root, sign)

    up, down = strike * (1 + width), strike * (1 - width)
    cash = -sign * (price(up) - price(down)) / (up - down)
    return price(strike) * sign + strike * cash if asset else cash


def test_profit_is_that_of_call_spreads() -> None:
    """The whole path under a smile, today and in every scenario: within 1e-4 of what is paid, which is the table's."""
    where, found = market(), profit(DIGITALS)
    value, _ = values_and_greeks(DIGITALS, where)
    worst = 0.0
    for i in range(len(DIGITALS)):
        one = DIGITALS.take(np.array([i]))
        sign, asset = 1.0 if one.put_call[0] == "call" else -1.0, one.payoff[0] == "asset_or_nothing"
        worth = []
        for state in (today(one, where), horizon(one, where, drawn())):
            price = spread(state, float(one.strike[0]), sign, asset)
            price = price / state.forward if one.settlement[0] == "inverse" else price * state.discount
            worth.append(2.0 * price * state.money)
        size = 2.0 * (SPOT[str(one.underlying[0])][0] if asset else 1.0) * (1.08 if one.underlying[0] == "DAX" else 1.0)
        assert value[i] == pytest.approx(float(worth[0][0]), abs=5e-5 * size), one.instrument_id
        error = np.abs(found[i] - (worth[1] - worth[0])) / size
        worst = max(worst, float(np.quantile(error, 0.999)))
    assert worst <= 2e-4


def test_gradients_and_greeks() -> None:
    """What is settled has a jump, whose derivative is none almost everywhere."""
    unit = np.where(DIGITALS.payoff == "asset_or_nothing", [SPOT[u][0] for u in DIGITALS.underlying], 1.0)
    alive = np.flatnonzero(DIGITALS.expiry > drawn().horizon_end + 86_400)
    check_gradients(DIGITALS, size=2.0 * unit, most=2e-3, rows=alive)
    check_greeks(DIGITALS, tolerance=1e-5)


def test_single_precision() -> None:
    wide, narrow = profit(DIGITALS), profit(DIGITALS, precision="float32")
    unit = np.where(DIGITALS.payoff == "asset_or_nothing", [SPOT[u][0] for u in DIGITALS.underlying], 1.0)
    error = np.abs(wide - narrow) / unit[:, None]
    # At a strike the rounding of a price decides on the jump.
    assert np.quantile(error, 0.9999) <= 1e-5
