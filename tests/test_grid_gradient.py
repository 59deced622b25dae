"""Gradients of a grid margin against differences of it in markets moved a little."""

from dataclasses import replace

import numpy as np
import pytest

from pmvar.methods.grid_file import load_rules
from pmvar.methods.grid_gradient import grid_gradient
from pmvar.methods.grid_rules import Balances, Basis, Minimum
from pmvar.methods.grid_values import VenueState
from tests.grids import margin
from tests.markets import AS_OF, DAY, carry_curve, flat_rate, flat_vol, instrument, portfolio, snapshot, table

SPOT = {"BTC": 60_000.0, "ETH": 3_000.0}


def market(btc=0.0, eth=0.0, btc_vol=0.0, eth_vol=0.0):
    """Two coins in dollars, moved in ln S and in volatility."""
    spot = {"BTC": SPOT["BTC"] * np.exp(btc), "ETH": SPOT["ETH"] * np.exp(eth)}
    return snapshot(
        {u: (s, "USD") for u, s in spot.items()},
        forwards={u: carry_curve(s, 0.03) for u, s in spot.items()},
        discounts={"USD": flat_rate(0.04)},
        vols={"BTC": flat_vol(0.6 + btc_vol), "ETH": flat_vol(0.7 + eth_vol)},
    )


def option(name, days, strike, put_call, settlement, underlying="BTC"):
    return instrument(
        name, "option", underlying, expiry=AS_OF + days * DAY, strike=strike, put_call=put_call, settlement=settlement
    )


ROWS = table(
    [
        option("call", 20, 66_000.0, "call", "linear"),
        option("put", 45, 52_000.0, "put", "inverse"),
        instrument("perp", "perpetual", "BTC", settlement="inverse", size=10.0),
        instrument("future", "future", "BTC", expiry=AS_OF + 45 * DAY, settlement="linear"),
        option("eth put", 30, 2_700.0, "put", "linear", "ETH"),
        instrument("eth perp", "perpetual", "ETH", settlement="linear"),
    ]
)
BOOK = portfolio(
    ROWS,
    {
        "calls": {"call": -3.0},
        "fence": {"call": -2.0, "put": -4.0, "perp": 3_000.0, "future": 1.5},
        "long": {"call": 5.0, "put": 2.0},
        "perp": {"perp": -6_000.0},
        "calendar": {"future": 2.0, "perp": -12_000.0},
        "both": {"call": -1.0, "future": 0.3, "eth put": -20.0, "eth perp": 6.0},
        "debtor": {"eth perp": 30.0},
    },
    {"debtor": {"BTC": -0.5, "USD": 1e5}, "long": {"ETH": 3.0}},
)
VENUES = ["deribit", "derive", "paradex", "okx", "aevo", "tims"]


def difference(rules, state, **move):
    """Of the initial margin, central, by a move of 1e-5."""
    [(name, h)] = move.items()
    up, down = (margin(BOOK, market(**{name: x}), rules, state).initial for x in (h, -h))
    return (up - down) / (2 * h)


def check(rules, state=None):
    found = {g.underlying: g for g in grid_gradient(BOOK, market(), rules, state=state)}
    assert set(found) == {"BTC", "ETH"}
    for u, g in found.items():
        for own, name in ((g.log_spot, u.lower()), (g.vol, f"{u.lower()}_vol")):
            by = difference(rules, state, **{name: 1e-5})
            # Of prices in floating point a difference knows no more.
            np.testing.assert_allclose(own, by, rtol=2e-5, atol=1e-6 * np.abs(by).max(), err_msg=f"{rules.name} {name}")
    return found


@pytest.mark.parametrize("venue", VENUES)
def test_gradients_are_differences_of_the_whole_margin(venue):
    """Scan or alternative, roll, basis, minimum, contingencies, factors, offsets between products, and debts."""
    rules = load_rules(venue)
    found = check(rules)
    btc, eth = found["BTC"], found["ETH"]
    row = {str(a): i for i, a in enumerate(BOOK.account_id)}
    for account in ("calls", "fence"):
        assert btc.log_spot[row[account]] != 0 and btc.vol[row[account]] != 0 == eth.log_spot[row[account]]
    assert eth.log_spot[row["both"]] != 0
    # A debt of half a coin that is not scanned is margined at a rate of its price.
    assert rules.balances is Balances.SCANNED or btc.log_spot[row["debtor"]] == pytest.approx(0.15 * 0.5 * SPOT["BTC"])
    # The dollars of an inverse perpetual stay what they are.
    assert abs(btc.log_spot[row["perp"]]) < 1e-3 and abs(btc.vol[row["perp"]]) < 1e-3


def test_under_a_venue_that_doubts_its_oracle_and_its_peg():
    """Low confidence charges the notional, and a stablecoin off its peg raises the factor."""
    state = VenueState(confidence={"BTC": 0.4}, stable=0.95)
    doubted, calm = check(load_rules("derive"), state)["BTC"], grid_gradient(BOOK, market(), load_rules("derive"))[0]
    row = list(BOOK.account_id).index("calls")
    assert doubted.log_spot[row] > 1.01 * calm.log_spot[row] and doubted.vol[row] > 1.01 * calm.vol[row]


@pytest.mark.parametrize(
    "charge",
    [{"minimum": Minimum(net_delta=0.9, hedged_delta=0.4)}, {"basis": Basis(0.045, 40.0, 2.0)}],
    ids=["minimum", "basis"],
)
def test_where_a_charge_binds_it_is_what_moves(charge):
    """A minimum of net and hedged delta has the options' gammas and vannas; a large basis charge, their own moves."""
    rules = load_rules("derive")
    changed = replace(rules, classes=tuple(replace(c, **charge) for c in rules.classes))
    found, before = check(changed)["BTC"], grid_gradient(BOOK, market(), rules)[0]
    row = list(BOOK.account_id).index("calls")
    assert found.vol[row] not in (0, before.vol[row])


def test_the_gradient_of_what_cannot_be_valued_is_none():
    """Not zero: its margin is another."""
    lost = replace(market(), quarantined={"ETH:vol": "vol is 0"})
    for g in grid_gradient(BOOK, lost, load_rules("deribit")):
        held = [str(a) for a in BOOK.account_id[np.isnan(g.log_spot)]]
        assert held == ["both"] and np.isnan(g.vol).sum() == 1
