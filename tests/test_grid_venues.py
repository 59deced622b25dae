"""Paradex, OKX, Aevo and TIMS on books whose margins are worked out here, by formulas and not by the engine."""

import numpy as np
import pytest
from scipy.stats import norm

from pmvar.methods.grid_accounts import underlying_risk
from pmvar.methods.grid_file import load_rules
from pmvar.methods.grid_values import VenueState, grid_values
from tests.grids import black, book, margin, one_expiry, steps
from tests.markets import AS_OF, DAY, YEAR, carry_curve, flat_rate, flat_vol, instrument, portfolio, snapshot, table

SPOT, RATE, VOL = 70_000.0, 0.05, 0.6


def market(days):
    time = days * DAY / YEAR
    return one_expiry("BTC", spot=SPOT, forward=SPOT * np.exp(RATE * time), time=time, vol=VOL, rate=RATE)


def strike_of_delta(delta, days):
    s = VOL * np.sqrt(days * DAY / YEAR)
    return SPOT * np.exp(RATE * days * DAY / YEAR) * np.exp(-s * norm.ppf(delta) + s * s / 2)


def rows(days, strike):
    call = {"expiry": AS_OF + days * DAY, "strike": strike, "put_call": "call"}
    return [instrument("perp", "perpetual", "BTC"), instrument("call", "option", "BTC", **call)]


def pnl(x, sigma, *, days, strike, calls, perps=0.0, clock=0.0):
    """Of `calls` and `perps` after a move x."""
    time = days * DAY / YEAR
    forward = SPOT * np.exp(RATE * time)
    value = black(forward * (1 + x), strike, sigma, time - clock, rate=RATE)
    return calls * (value - black(forward, strike, VOL, time, rate=RATE)) + perps * SPOT * x


def test_paradex_minimum_of_its_documentation():
    # Long 1 perpetual, short 5 calls of delta 0.3: net −0.5, hedged 1.0, hence (2%·0.5 + 1%·1)·70,000.
    held = book(rows(14, strike_of_delta(0.3, 14)), {"perp": 1.0, "call": -5.0})
    rules = load_rules("paradex")
    values = grid_values(held.instruments, market(14), rules, VenueState())
    risk = underlying_risk(held.quantity, values, rules.class_of("BTC"), confidence=1.0)
    assert risk.minimum[0] == pytest.approx(1_400.0, rel=1e-12)


def test_paradex_minimum_binds_for_a_hedged_book():
    expiry = AS_OF + 30 * DAY
    held = book(
        [instrument("perp", "perpetual", "BTC"), instrument("future", "future", "BTC", expiry=expiry)],
        {"perp": 1.0, "future": -1.0},
    )
    found = margin(held, market(30), "paradex")
    # The future's price is a little higher: it moves a little more.
    carry = np.expm1(RATE * 30 * DAY / YEAR)
    scan, least = 0.16 * SPOT * carry, 0.01 * SPOT
    assert steps(found) == {
        "scan": ("+0.16 vol up", pytest.approx(scan, rel=1e-9)),
        "minimum": ("", pytest.approx(least - scan, rel=1e-9)),
    }
    assert found.initial[0] == pytest.approx(least) and found.maintenance[0] == pytest.approx(least / 2)


@pytest.mark.parametrize("days", [0.25, 14, 60])
def test_paradex_scan(days):
    strike = strike_of_delta(0.05, days)
    m = (30 / max(1, days)) ** (0.3 if days < 30 else 0.13)
    up, down = VOL * (1 + 0.4 * m), VOL * max(1 - 0.22 * m, 0.0)
    grid = [(x, s, 1.0) for x in np.arange(-3, 4) * 0.04 for s in (up, down)] + [(x, up, 1.0) for x in (-0.16, 0.16)]
    grid += [(x, up, 0.16 / abs(x)) for x in (-0.66, -0.33, 0.5, 1, 2, 3, 4, 5)]
    worst = min(w * pnl(x, s, days=days, strike=strike, calls=-5.0, perps=0.1) for x, s, w in grid)
    found = margin(book(rows(days, strike), {"call": -5.0, "perp": 0.1}), market(days), "paradex")
    assert steps(found)["scan"][1] == pytest.approx(-worst, rel=1e-9)


@pytest.mark.parametrize(("days", "calls", "perps"), [(45, -3.0, 1.2), (10, 4.0, -2.0), (90, 6.0, -1.0)])
def test_okx(days, calls, perps):
    strike, position = 75_000.0, {"days": days, "strike": 75_000.0, "calls": calls, "perps": perps}
    shock = 0.5 * np.interp(days, [0, 30, 60], [1, 0.7, 0.5])
    sigmas = (VOL * (1 + shock), VOL, VOL * (1 - shock))
    mr1 = max(-pnl(x, s, **position) for x in np.arange(-3, 4) * 0.04 for s in sigmas)
    mr2 = max(-pnl(0.0, VOL, **position, clock=1 / 365), 0.0)
    d1 = (np.log(SPOT / strike) + RATE * days / 365) / (VOL * np.sqrt(days / 365)) + VOL * np.sqrt(days / 365) / 2
    mr4 = abs(calls) * norm.cdf(d1) * 0.05 * days / 365 * SPOT
    mr6 = max(-pnl(x, VOL, **position) / 2 for x in (-0.24, 0.24))
    found = margin(book(rows(days, strike), {"call": calls, "perp": perps}), market(days), "okx")
    # The clock's day shortens the discounting with the time to expiry, forwards held.
    maintenance = max(max(mr1, 0.0) + mr2 + mr4, mr6)
    assert found.maintenance[0] == pytest.approx(maintenance, rel=1e-9)
    assert found.initial[0] == pytest.approx(1.3 * maintenance, rel=1e-9)


@pytest.mark.parametrize(
    ("underlying", "mr1", "mr6"),
    [("BTC", 0.12, 0.24), ("XRP", 0.18, 0.36), ("DOT", 0.18, 0.5), ("SOL", 0.25, 0.36), ("XYZ", 0.25, 0.5)],
)
def test_okx_ranges_by_underlying(underlying, mr1, mr6):
    held = book([instrument("p", "perpetual", underlying)], {"p": 1.0})
    found = margin(held, snapshot({underlying: (100.0, "USD")}), "okx")
    assert found.maintenance[0] == pytest.approx(100 * max(mr1, mr6 / 2))


def test_aevo_shifts_volatility_by_points():
    days, strike = 7, 70_000.0
    worst = min(
        pnl(x, s, days=days, strike=strike, calls=-2.0)
        for x in (-0.2, -0.1, 0.0, 0.1, 0.2)
        for s in (VOL + 0.5, VOL, VOL - 0.25)
    )
    found = margin(book(rows(days, strike), {"call": -2.0}), market(days), "aevo")
    assert steps(found) == {"scan": ("+0.2 vol up", pytest.approx(-worst, rel=1e-9))}
    # 20% less 25 points is nothing, not a negative volatility.
    calm = one_expiry("BTC", spot=SPOT, forward=SPOT, time=days * DAY / YEAR, vol=0.2, rate=RATE)
    found = margin(book(rows(days, strike), {"call": 2.0}), calm, "aevo")
    time = days * DAY / YEAR
    assert steps(found)["scan"][1] == pytest.approx(2 * black(SPOT, strike, 0.2, time, rate=RATE), rel=1e-9)


def equities():
    spots = {"SPX": 5_000.0, "OEX": 2_400.0, "NDX": 18_000.0, "RUT": 2_000.0, "XYZ": 100.0}
    return snapshot(
        {u: (s, "USD") for u, s in spots.items()},
        forwards={u: carry_curve(s, 0.04) for u, s in spots.items()},
        discounts={"USD": flat_rate(0.04)},
        vols={u: flat_vol(0.2) for u in spots},
    )


def share(underlying):
    return instrument(underlying, "spot", underlying)


@pytest.mark.parametrize(("underlying", "fall", "rise"), [("SPX", 0.08, 0.06), ("NDX", 0.1, 0.1), ("XYZ", 0.15, 0.15)])
def test_tims_ranges_by_class(underlying, fall, rise):
    held = portfolio(table([share(underlying)]), {"long": {underlying: 1.0}, "short": {underlying: -1.0}})
    price = float(equities().spot[equities().asset.index(underlying)])
    np.testing.assert_allclose(margin(held, equities(), "tims").initial, [fall * price, rise * price], rtol=1e-12)


def test_tims_minimum_per_contract():
    far = {"expiry": AS_OF + 5 * DAY, "strike": 9_000.0, "put_call": "call", "size": 100.0}
    held = book([instrument("call", "option", "SPX", **far)], {"call": -7.0})
    found = margin(held, equities(), "tims")
    assert found.initial[0] == pytest.approx(7 * 37.5, rel=1e-9)
    assert steps(found)["minimum"][1] == pytest.approx(7 * 37.5, rel=1e-6)


@pytest.mark.parametrize(
    ("long", "short", "offset", "fall", "rise"),
    [("SPX", "OEX", 0.9, 0.08, 0.06), ("NDX", "RUT", 0.75, 0.1, 0.1), ("SPX", "NDX", 0.0, 0.08, 0.1)],
)
def test_tims_offsets_in_product_groups(long, short, offset, fall, rise):
    # $1,000 long and $1,000 short: the loss of one less a share of the gain of the other, at the worse of both ends.
    spot = dict(zip(equities().asset, equities().spot, strict=True))
    positions = {long: 1_000 / spot[long], short: -1_000 / spot[short]}
    found = margin(book([share(long), share(short)], positions), equities(), "tims")
    # In two groups the long one falls and the short one rises, each on its own.
    expected = max(fall, rise) * 1_000 * (1 - offset) if offset else 1_000 * (fall + rise)
    assert found.initial[0] == pytest.approx(expected, rel=1e-9)


def test_tims_keeps_volatility():
    time, strikes = 30 * DAY / YEAR, (4_500.0, 5_500.0)
    end = AS_OF + 30 * DAY
    options = [
        instrument("put", "option", "SPX", size=100.0, expiry=end, strike=strikes[0], put_call="put"),
        instrument("call", "option", "SPX", size=100.0, expiry=end, strike=strikes[1], put_call="call"),
    ]
    forward = 5_000 * np.exp(0.04 * time)

    def value(x):
        legs = zip(strikes, ("put", "call"), strict=True)
        return 100 * sum(black(forward * (1 + x), k, 0.2, time, put_call=side, rate=0.04) for k, side in legs)

    worst = max(value(x) - value(0) for x in [*(-0.016 * np.arange(1, 6)), *(0.012 * np.arange(1, 6))])
    found = margin(book(options, {"put": -1.0, "call": -1.0}), equities(), "tims")
    assert found.initial[0] == pytest.approx(worst, rel=1e-9)
    assert steps(found)["scan"][0] == "-0.08 vol flat"
