"""Every option payoff together in one book: from its files to margins, Greeks and a report, and through the methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pmvar
from pmvar.errors import UsageError
from pmvar.io.book import Book, load_book
from pmvar.io.span_write import write_span
from pmvar.methods.collateral import collateral_margin
from pmvar.methods.grid_file import read_rules
from pmvar.methods.grid_values import VenueState, grid_slopes, grid_values
from pmvar.methods.isolated import isolated_margin
from pmvar.methods.span.default import default_arrays
from pmvar.types import Greek
from pmvar.valuation.today import STILL, terms_today, values_and_greeks, values_under
from tests.books import FAR, problems_of, small_book, small_rows, small_toml
from tests.grids import MINIMAL

LINEAR = {"settlement": "linear", "quote_currency": "USD", "settlement_currency": "USD", "contract_size": 0.1}
INVERSE = {"settlement": "inverse", "quote_currency": "USD", "settlement_currency": "BTC", "contract_size": 0.1}
QUANTO = {"settlement": "quanto", "quote_currency": "USD", "settlement_currency": "BTC", "contract_size": 1.0,
          "fx_rate": 2e-5}  # fmt: skip
OPTION = {"underlying": "BTC", "expiry": FAR, "strike": 105_000.0, "put_call": "call"}
PRODUCTS: dict[str, dict[str, Any]] = {
    "CASH-OR-NOTHING": {**OPTION, **LINEAR, "kind": "digital", "payoff": "cash_or_nothing", "contract_size": 5_000.0},
    "ASSET-OR-NOTHING": {**OPTION, **INVERSE, "kind": "digital", "payoff": "asset_or_nothing"},
    "ASIAN": {**OPTION, **LINEAR, "kind": "asian", "averaging_start": "2025-03-01T08:00:00Z"},
    "ASIAN-BEGUN": {**OPTION, **INVERSE, "kind": "asian", "averaging_start": "2025-01-20T08:00:00Z",
                    "average_so_far": 99_000.0},
    "TWAP": {**OPTION, **INVERSE, "kind": "option", "exercise": "european",
             "averaging_start": "2025-03-28T07:30:00Z"},
    "UP-OUT": {**OPTION, **LINEAR, "kind": "barrier", "barrier": 130_000.0, "barrier_type": "up_out", "rebate": 500.0},
    "DOWN-IN": {**OPTION, **INVERSE, "kind": "barrier", "barrier": 90_000.0, "barrier_type": "down_in",
                "put_call": "put"},
    "QUANTO-OPTION": {**OPTION, **QUANTO, "underlying": "ETH", "strike": 3_000.0, "kind": "option",
                      "exercise": "european"},
    "QUANTO-FUTURE": {**QUANTO, "underlying": "ETH", "kind": "future", "expiry": FAR},
    "QUANTO-PERPETUAL": {**QUANTO, "underlying": "ETH", "kind": "perpetual"},
}  # fmt: skip


def rows() -> dict[str, list[dict[str, Any]]]:
    """The small book, with every payoff listed and held."""
    found = small_rows()
    found["instruments"] += [{"instrument_id": name, **terms} for name, terms in PRODUCTS.items()]
    found["positions"] += [
        {"account_id": account, "instrument_id": name, "quantity": sign * 10.0}
        for account, sign in (("long", 1), ("short", -1)) for name in PRODUCTS
    ]  # fmt: skip
    found["market/quanto"] = [{"underlying": "ETH", "settlement_currency": "BTC", "correlation": -0.5, "fx_vol": 0.5}]
    found["market/rates"] += [{"currency": "BTC", "maturity": FAR, "zero_rate": 0.01}]
    return found


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Book:
    toml = small_toml()
    toml["run"]["scenarios"] = 4096
    return load_book(small_book(tmp_path_factory.mktemp("payoffs") / "book", rows=rows(), toml=toml))


# Every block's derivatives compile for a minute.
@pytest.mark.parametrize("with_greeks", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_margins_and_report(book: Book, tmp_path: Path, with_greeks: bool) -> None:
    scenarios = pmvar.simulate(book.model, book.market, seed=1, n_scenarios=4096, horizon="2d")
    pnl = pmvar.reprice(book.portfolio, book.market, scenarios)
    assert not pnl.plan.unpriced
    report = pmvar.margin_report(pnl, book.portfolio, book.rules, greeks=with_greeks)
    margins = report.tables["margins"]
    both = np.isin(margins["account_id"], ["long", "short"])
    assert (margins["initial_margin"][both] > 0).all() and not (margins["status"] == "WITHHELD").any()
    parts = report.tables["components"]
    for account in ("long", "short"):
        own = parts["account_id"] == account
        assert set(parts["instrument_id"][own]) == set(PRODUCTS)
        whole = margins["expected_shortfall"][margins["account_id"] == account][0]
        assert parts["component_es"][own].sum() == pytest.approx(whole, rel=1e-9)
    greeks = report.tables["greeks"]
    assert not with_greeks or len(greeks["value"]) > 100
    assert np.isfinite(greeks["value"]).all() and np.isfinite(report.tables["model_greeks"]["value"]).all()
    mine = greeks["instrument_id"] == "QUANTO-OPTION"
    assert "USD:rate" not in greeks["factor"][mine] and with_greeks == ("BTC:rate" in greeks["factor"][mine])
    report.write(tmp_path / "run")
    assert "CASH-OR-NOTHING" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")


def test_methods_know_them(book: Book, tmp_path: Path) -> None:
    """Grids, SPAN arrays, isolated margin and collateral factors give finite numbers, and short options need some."""
    table = book.portfolio.instruments
    scenarios = pmvar.simulate(book.model, book.market, seed=1, n_scenarios=4096, horizon="2d")
    rules = read_rules(MINIMAL.encode(), file="minimal.toml")
    some = ("ASIAN-BEGUN", "UP-OUT", "ASSET-OR-NOTHING")
    btc = table.take(np.isin(table.instrument_id, some))
    found = grid_values(btc, book.market, rules, VenueState())
    assert np.isfinite(found.value).all() and np.isfinite(found.delta).all()
    assert all(np.isfinite(s.delta).all() for s in grid_slopes(found, book.market, rules, VenueState()))
    # In units of the underlying, of coin-settled ones too.
    _, greeks = values_and_greeks(btc, book.market)
    delta = next(s.value for s in greeks if s.greek is Greek.DELTA and s.factor == "BTC:spot")
    names = list(btc.instrument_id)
    for name in some:
        i = names.index(name)
        forward = float(book.market.forwards["BTC"].at(btc.expiry[i])) / 100_000.0
        assert found.delta[i] * forward == pytest.approx(delta[i], rel=0.02)
    for margin in (
        isolated_margin(book.portfolio, book.market),
        collateral_margin(book.portfolio, book.market, scenarios),
    ):
        account = list(book.portfolio.account_id).index("short")
        assert np.isfinite(margin.initial).all() and margin.initial[account] > 0
    derivatives = table.take(np.isin(table.instrument_id, [*some, "QUANTO-OPTION"]))
    arrays, parameters = default_arrays(derivatives, book.market, book.model, scenarios)
    assert np.isfinite(arrays.loss).all()
    with pytest.raises(UsageError, match="does not know"):
        write_span(tmp_path / "own.spn", derivatives, book.market, arrays, parameters)


def test_a_quanto_without_its_inputs_is_refused(tmp_path: Path) -> None:
    def without(tables: dict[str, list[dict[str, Any]]]) -> None:
        tables.clear()
        tables.update(rows())
        del tables["market/quanto"]

    (problem,) = problems_of(tmp_path, without)
    assert problem.column == "settlement_currency" and problem.fix == "add a row to market/quanto"


def test_clocks_past_expiry_pay(book: Book) -> None:
    """A grid's clock beyond the expiry: the payoff on what has been averaged and not been hit."""
    table = book.portfolio.instruments
    some = table.take(np.isin(table.instrument_id, [n for n, terms in PRODUCTS.items() if "strike" in terms]))
    terms = terms_today(some, book.market)
    paid = values_under(some, terms, STILL._replace(clock=1.0, log_spot=0.1))[:, 0]
    value = dict(zip(some.instrument_id.tolist(), paid.tolist(), strict=True))
    assert value["CASH-OR-NOTHING"] == pytest.approx(5_000.0)
    assert value["ASSET-OR-NOTHING"] == pytest.approx(0.1 * 1e5)
    assert value["DOWN-IN"] == 0.0
    assert value["UP-OUT"] == pytest.approx(0.1 * (101_000 * np.exp(0.1) - 105_000.0))
