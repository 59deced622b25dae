"""Deribit's portfolio margin: the exchange's own answers, and option books by formulas written out here.

The exchange rounds the worst loss to nine decimals before it adds the roll shock.
"""

import numpy as np
import pytest

from tests.grids import black, book, margin, one_expiry, steps
from tests.markets import AS_OF, DAY, YEAR, carry_curve, instrument, portfolio, snapshot, table

JUNE = AS_OF + 11 * DAY
EXPIRY, TIME = AS_OF + 20 * DAY, 20 * DAY / YEAR


def option(put_call="call", strike=100_000.0, **more):
    kind = {"settlement": "inverse", "expiry": EXPIRY, "strike": strike, "put_call": put_call} | more
    return instrument(f"{put_call[0]}{strike:.0f}", "option", "BTC", **kind)


def inverse(x, *, sigma, forward=100_000.0, strike=100_000.0, put_call="call"):
    """Coins that an inverse option is worth after the price moves by x."""
    return black(forward * (1 + x), strike, sigma, TIME, put_call=put_call) / (forward * (1 + x))


def test_exchange_example_of_bitcoin():
    # Documentation of private/pme/simulate, response example: sizes in BTC, results in BTC.
    index = 65_666.19
    market = snapshot({"BTC": (index, "USD")}, forwards={"BTC": carry_curve(index, 0.2)})
    forward = float(market.forwards["BTC"].at(JUNE))
    rows = [
        instrument("perpetual", "perpetual", "BTC", settlement="inverse"),
        instrument("june", "future", "BTC", settlement="inverse", expiry=JUNE),
    ]
    found = margin(book(rows, {"perpetual": 0.314538364 * index, "june": -0.001187534 * forward}), market, "deribit")
    got = steps(found)
    assert got["scan"][0] == "-0.16 vol up"
    assert got["scan"][1] / index == pytest.approx(0.05968587238095239, rel=1e-12)
    assert got["roll"][1] / index == pytest.approx(0.00315725898, rel=1e-12)
    assert found.initial[0] / index == pytest.approx(0.06284313098, abs=5e-10)
    assert found.maintenance[0] / index == pytest.approx(0.050274504784, abs=5e-10)


def test_exchange_answer_for_ether():
    # An answer of private/pme/simulate of 15 February 2026: short 0.999487053 ETH of the perpetual.
    index = 1_949.34
    rows = [instrument("perpetual", "perpetual", "ETH", settlement="inverse")]
    held = book(rows, {"perpetual": -0.999487053 * index})
    found = margin(held, snapshot({"ETH": (index, "USD")}), "deribit")
    assert steps(found)["scan"][1] / index == pytest.approx(0.15246412672881357, rel=1e-12)
    assert steps(found)["roll"][1] / index == pytest.approx(0.004997435265, rel=1e-12)
    assert found.initial[0] / index == pytest.approx(0.157461562265, abs=5e-10)
    assert found.maintenance[0] / index == pytest.approx(0.125969249812, abs=5e-10)


def test_a_perpetual_loses_no_more_by_an_extended_move_than_at_the_edge_of_the_range():
    # The exchange's vectors of one instrument, before the dampener: the extended ones equal the outermost.
    from pmvar.methods.grid_file import load_rules
    from pmvar.methods.grid_values import VenueState, grid_values

    rules = load_rules("deribit")
    rows = table([instrument("perpetual", "perpetual", "BTC", settlement="inverse")])
    market = snapshot({"BTC": (65_666.19, "USD")})
    values = grid_values(rows, market, rules, VenueState())
    weight = np.array([s.weight for s in rules.class_of("BTC").scenarios()])
    coins = 0.314538364 * values.value[0] * weight
    lower, upper = -0.05991206933333334, 0.04338460193103449
    np.testing.assert_allclose(coins[-8:], [lower, lower, *[upper] * 6], rtol=1e-12)
    assert coins[0] == pytest.approx(lower, rel=1e-12) and coins[26] == pytest.approx(upper, rel=1e-12)


@pytest.mark.parametrize("vol", [0.3, 0.8])
def test_short_straddle_by_hand(vol):
    # A volatility of 0.3 rises to the floor of 0.5, one of 0.8 by half, more as the expiry is near.
    market = one_expiry("BTC", spot=100_000.0, forward=100_000.0, time=TIME, vol=vol)
    held = book([option("call"), option("put")], {"c100000": -2.0, "p100000": -2.0})
    m = (30 / 20) ** 0.3
    up, down = max(vol * (1 + 0.5 * m), 0.5), vol * (1 - 0.25 * m)
    worst = min(
        -2 * sum(inverse(x, sigma=s, put_call=pc) - inverse(0, sigma=vol, put_call=pc) for pc in ("call", "put"))
        for x in np.arange(-4, 5) * 0.04
        for s in (up, vol, down)
    )
    found = margin(held, market, "deribit")
    assert steps(found)["scan"] == ("-0.16 vol up", pytest.approx(-worst * 100_000.0, rel=1e-12))
    d1 = vol * np.sqrt(TIME) / 2
    from scipy.stats import norm

    delta = abs(-2 * (norm.cdf(d1) - norm.cdf(-d1)))
    assert steps(found)["roll"][1] == pytest.approx(delta * 0.01 * 100_000.0, rel=1e-12)
    assert found.maintenance[0] == pytest.approx(0.8 * found.initial[0], rel=1e-12)


def test_far_out_of_the_money_shorts_are_scanned_by_the_extended_table():
    market = one_expiry("BTC", spot=100_000.0, forward=100_000.0, time=TIME, vol=0.8)
    n, strike, m = 400.0, 250_000.0, (30 / 20) ** 0.3
    found = margin(book([option("call", strike)], {"c250000": -n}), market, "deribit")

    def extended(x):
        up = inverse(x, sigma=0.8 * (1 + 0.5 * m), strike=strike) - inverse(0, sigma=0.8, strike=strike)
        scaled = -n * up * 0.16 / abs(x) * (1 + x) / (1 + np.copysign(0.16, x)) * 100_000.0
        return np.sign(scaled) * max(abs(scaled) - (abs(x) / 0.16 - 1) * 100_000.0, 0.0)

    worst = min((extended(x), x) for x in (-0.66, -0.33, 0.5, 1, 2, 3, 4, 5))
    assert steps(found)["scan"] == (f"{worst[1]:+.4g} vol up", pytest.approx(-worst[0], rel=1e-12))
    assert worst[1] >= 2 and worst[0] < 0


def test_underlyings_add_up():
    market = snapshot({"BTC": (60_000.0, "USD"), "ETH": (2_000.0, "USD")})
    rows = table([instrument(f"{u}-P", "perpetual", u, settlement="inverse") for u in ("BTC", "ETH")])
    positions = {"both": {"BTC-P": 5e4, "ETH-P": -7e4}, "btc": {"BTC-P": 5e4}, "eth": {"ETH-P": -7e4}}
    found = margin(portfolio(rows, positions), market, "deribit")
    assert found.initial[0] == pytest.approx(found.initial[1] + found.initial[2], rel=1e-14)
