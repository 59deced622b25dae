"""The grid engine: a venue from a TOML file alone, properties of all methods, and accounts that cannot be valued."""

from dataclasses import replace

import numpy as np
import pytest

from pmvar.errors import NumericsError
from pmvar.methods.grid import grid_margin
from pmvar.methods.grid_file import load_rules, read_rules, venues
from pmvar.methods.standard import standard_margin
from pmvar.valuation.today import values_and_greeks
from tests import engines
from tests.grids import MINIMAL, black, book, margin, one_expiry, steps, with_values
from tests.markets import AS_OF, YEAR, instrument, portfolio, snapshot, table

HELD, OWNED = engines.random_rows(12, 2, seed=5)
BOOK, MARKET = engines.hold(HELD, OWNED), engines.mixed_market()


def test_a_venue_is_added_by_writing_a_file(tmp_path):
    # Moves of ±10% with 5 more vol points up, a minimum, and 1.5 times the maintenance margin.
    file = tmp_path / "nova.toml"
    file.write_text("""
        format = 1
        name = "nova"
        date = 2026-01-31
        source = "made up"
        coin = "moves"
        balances = "outside"
        factors = { initial = 1.5 }
        [[classes]]
        name = "all"
        underlyings = ["*"]
        vol = { up = 0.05, unit = "points" }
        minimum = { per_option = 5 }
        [[classes.grid]]
        moves = [-0.1, 0.1]
        vols = ["up"]
        """)
    time = 0.1
    market = one_expiry("XYZ", spot=100.0, forward=100.0, time=time, vol=0.4, rate=0.03)
    rows = [instrument("c", "option", "XYZ", expiry=AS_OF + time * YEAR, strike=100.0, put_call="call", size=10.0)]
    found = margin(book(rows, {"c": -3.0}), market, load_rules(file))
    loss = 30 * (black(110, 100, 0.45, time, rate=0.03) - black(100, 100, 0.4, time, rate=0.03))
    assert found.method == "nova" and found.source == "made up (2026-01-31)"
    assert found.maintenance[0] == pytest.approx(loss, rel=1e-12)
    assert found.initial[0] == pytest.approx(1.5 * loss, rel=1e-12)
    assert steps(found) == {
        "scan": ("+0.1 vol up", pytest.approx(loss)), "factor": ("× 1.5", pytest.approx(loss / 2))
    }  # fmt: skip
    long = margin(book(rows, {"c": 1e-3}), market, load_rules(file))
    assert steps(long)["scan"][1] < 0.05 and long.maintenance[0] == pytest.approx(0.05, rel=1e-12)


@pytest.mark.parametrize("venue", venues())
def test_margins_are_finite_and_the_sum_of_their_steps(venue):
    found = margin(BOOK, MARKET, venue)
    assert np.isfinite(found.initial).all() and (found.initial > 0).all() and (found.maintenance > 0).all()
    total = np.zeros(BOOK.n_accounts)
    for step in found.steps:
        total[step.account] += step.amount
    np.testing.assert_allclose(total, found.initial, rtol=1e-12)
    assert [(s.account, s.group) for s in found.steps] == sorted((s.account, s.group) for s in found.steps)


@pytest.mark.parametrize("venue", venues())
def test_order_and_split_of_accounts_change_nothing(venue):
    whole = margin(BOOK, MARKET, venue)
    again = margin(engines.hold(HELD[::-1], OWNED[::-1]), MARKET, venue)
    np.testing.assert_array_equal(whole.initial, again.initial)
    for rows in (np.arange(5), np.arange(5, BOOK.n_accounts)):
        part = margin(BOOK.accounts(rows), MARKET, venue)
        np.testing.assert_array_equal(part.initial, whole.initial[rows])
        np.testing.assert_array_equal(part.maintenance, whole.maintenance[rows])


@pytest.mark.parametrize("venue", [v for v in venues() if v != "deribit"])
def test_twice_the_positions_need_twice_the_margin(venue):
    # Not Deribit: its dampener is an amount.
    double = engines.hold([(a, i, 2 * q) for a, i, q in HELD], [(a, i, 2 * q) for a, i, q in OWNED])
    once, twice = (margin(b, MARKET, venue) for b in (BOOK, double))
    np.testing.assert_allclose(twice.initial, 2 * once.initial, rtol=1e-12)


@pytest.mark.parametrize("venue", venues())
def test_two_accounts_together_need_no_more_than_apart(venue):
    rows = [(f"{i % 2}", name, q) for i, (_, name, q) in enumerate(HELD)]
    apart = margin(engines.hold(rows), MARKET, venue)
    together = margin(engines.hold([("0", name, q) for _, name, q in rows]), MARKET, venue)
    # A dampener is counted once for the joint account, so that Deribit's may be higher by what the others dampened.
    if venue != "deribit":
        assert together.initial[0] <= apart.initial.sum() * (1 + 1e-12)


def test_a_quarantined_input_never_lowers_a_margin():
    broken = engines.mixed_market(quarantined={"ETH:vol": "stale"})
    value, _ = values_and_greeks(BOOK.instruments, MARKET)
    value[(BOOK.instruments.underlying == "ETH") & (BOOK.instruments.kind == "option")] = np.nan
    standard = standard_margin(BOOK, MARKET, value)
    found = margin(BOOK, broken, "deribit")
    column = np.flatnonzero(~np.isfinite(value))
    hit = np.asarray(abs(BOOK.quantity[:, column]).sum(axis=1)).reshape(-1) > 0
    assert hit.any()
    assert (found.initial[hit] >= standard[hit] * (1 - 1e-12)).all()
    assert (found.maintenance[hit] >= standard[hit] * (1 - 1e-12)).all()
    np.testing.assert_array_equal(found.initial[~hit], margin(BOOK, MARKET, "deribit").initial[~hit])
    assert sum("ETH:vol: stale" in note for note in found.notes) == min(hit.sum(), 20)


def test_an_unknown_instrument_gives_at_least_the_standard_margin():
    held = engines.hold([("a", "BTC-PERPETUAL", 10.0), ("a", "no such thing", -2.0), ("b", "BTC-PERPETUAL", 10.0)])
    found = margin(held, MARKET, "derive")
    assert found.initial[0] > 2 * found.initial[1] and "unknown instrument" in " ".join(found.notes)
    assert [s.name for s in found.steps if s.account == 0][0] == "fallback"
    assert not any(s.name == "fallback" for s in found.steps if s.account == 1)


def test_without_any_price_there_is_an_error_and_no_margin():
    market = snapshot({"XYZ": (100.0, "USD")})
    expired = instrument("f", "future", "XYZ", expiry=AS_OF - 1.0)
    unheard = book([expired, instrument("p", "perpetual", "XYZ")], {"?": 1.0, "p": 0.0})
    assert margin(unheard, market, read_rules(MINIMAL.encode(), file="x")).initial[0] > 0
    nothing = replace(snapshot({"XYZ": (np.nan, "USD")}), quarantined={"XYZ:spot": "no price"})
    with pytest.raises(NumericsError, match="a cannot be valued.*standard margin"):
        margin(unheard, nothing, read_rules(MINIMAL.encode(), file="x"))


def test_a_quantity_that_is_not_finite_is_an_error():
    rows = [instrument("p", "perpetual", "XYZ")]
    with pytest.raises(NumericsError, match="not finite"):
        margin(book(rows, {"p": np.inf}), snapshot({"XYZ": (1.0, "USD")}), read_rules(MINIMAL.encode(), file="x"))


def test_balances_join_the_scan_or_stay_outside():
    scanned = read_rules(with_values(MINIMAL, balances='"scanned"').encode(), file="x")
    outside = read_rules(MINIMAL.encode(), file="x")
    market = snapshot({"XYZ": (100.0, "USD"), "ABC": (10.0, "USD")})
    rows = [instrument("p", "perpetual", "XYZ")]
    held = portfolio(
        table(rows),
        {"hedged": {"p": -1.0}, "short": {"p": 0.5}},
        {"hedged": {"XYZ": 1.0, "ABC": 5.0}, "short": {"XYZ": -1.0, "ABC": -2.0}},
    )
    # ABC underlies no derivative: long it is collateral, short it needs 15% in both.
    np.testing.assert_allclose(margin(held, market, scanned).initial, [0.0, 0.5 * 20 + 3.0], rtol=1e-12, atol=1e-12)
    np.testing.assert_allclose(margin(held, market, outside).initial, [20.0, 0.5 * 10 + 15.0 + 3.0], rtol=1e-12)


def test_an_account_without_positions_needs_nothing():
    held = engines.hold([("a", "BTC-PERPETUAL", 1.0)], [("b", "USD", 5.0)])
    assert grid_margin(held, MARKET, load_rules("deribit")).initial[1] == 0
