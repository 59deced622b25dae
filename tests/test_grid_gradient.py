"""Gradients of a grid's scan against differences of it in markets moved a little."""

import numpy as np
import pytest

from pmvar.methods.grid_file import load_rules
from pmvar.methods.grid_gradient import grid_gradient
from tests.grids import margin
from tests.markets import AS_OF, DAY, carry_curve, flat_rate, flat_vol, instrument, portfolio, snapshot, table


def market(log_spot=0.0, vol=0.0):
    spot = 60_000.0 * np.exp(log_spot)
    return snapshot(
        {"BTC": (spot, "USD")},
        forwards={"BTC": carry_curve(spot, 0.03)},
        discounts={"USD": flat_rate(0.04)},
        vols={"BTC": flat_vol(0.6 + vol)},
    )


def option(name, days, strike, put_call, settlement):
    return instrument(
        name, "option", "BTC", expiry=AS_OF + days * DAY, strike=strike, put_call=put_call, settlement=settlement
    )


ROWS = table(
    [
        option("call", 20, 66_000.0, "call", "linear"),
        option("put", 45, 52_000.0, "put", "inverse"),
        instrument("perp", "perpetual", "BTC", settlement="inverse", size=10.0),
    ]
)
BOOK = portfolio(
    ROWS,
    {
        "calls": {"call": -3.0},
        "fence": {"call": -2.0, "put": -4.0, "perp": 3_000.0},
        "long": {"call": 5.0, "put": 2.0},
        "perp": {"perp": -6_000.0},
    },
)


def scans(at, rules):
    found = np.zeros(BOOK.n_accounts)
    for step in margin(BOOK, at, rules).steps:
        found[step.account] += step.amount * (step.name == "scan")
    return found


@pytest.mark.parametrize("venue", ["deribit", "derive", "paradex", "aevo", "tims"])
def test_gradients_are_differences_of_the_scan(venue):
    rules, h = load_rules(venue), 1e-5
    (found,) = grid_gradient(BOOK, market(), rules)
    assert found.underlying == "BTC"
    by_spot = (scans(market(log_spot=h), rules) - scans(market(log_spot=-h), rules)) / (2 * h)
    by_vol = (scans(market(vol=h), rules) - scans(market(vol=-h), rules)) / (2 * h)
    scale = np.abs(by_spot).max()
    np.testing.assert_allclose(found.log_spot, by_spot, rtol=1e-5, atol=1e-7 * scale)
    np.testing.assert_allclose(found.vol, by_vol, rtol=1e-5, atol=1e-7 * scale)
    assert np.all(found.log_spot[:3] != 0) and np.all(found.vol[[0, 2]] != 0)
    # The dollars of an inverse perpetual stay what they are.
    assert abs(found.log_spot[3]) < 1e-3 and abs(found.vol[3]) < 1e-3
