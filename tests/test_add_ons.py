"""Add-ons: stress in closed form, cost of closing out by hand, its Euler split, and nothing absent in silence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import sparse, stats

import pmvar
from pmvar.errors import UsageError
from pmvar.io.book import load_book
from pmvar.risk.close_out import CloseOut, close_out, cost, euler_shares
from pmvar.risk.rules import MarginRules
from pmvar.scenarios import stress_scenarios
from pmvar.types import Drift, FactorKind, Liquidity, Measure, PriceMap, StressOf
from pmvar.valuation.today import values_and_greeks
from tests.books import small_book, small_rows, small_toml
from tests.engines import SPOT, call, hold, mixed_market, mixed_model, report, scenarios
from tests.markets import instrument, portfolio, snapshot, specification, table
from tests.test_cli import Cli, cli

__all__ = ["cli"]

RHO, SIGMA = 0.98, 0.02


def es(level: float) -> float:
    """Of a standard normal."""
    return float(stats.norm.pdf(stats.norm.ppf(level)) / (1 - level))


def spread_margins(**rules) -> dict[str, dict[str, float]]:
    """Table `margins` of a spread of two nearly equal prices and of both long, by account."""
    correlation = np.array([[1.0, RHO], [RHO, 1.0]])
    model = specification({"A:spot": SIGMA, "B:spot": SIGMA}, correlation=correlation, price_map=PriceMap.LINEAR)
    market = snapshot({"A": (100.0, "USD"), "B": (100.0, "USD")})
    listed = table([instrument("A-SPOT", "spot", "A"), instrument("B-SPOT", "spot", "B")])
    held = portfolio(listed, {"both": {"A-SPOT": 1.0, "B-SPOT": 1.0}, "spread": {"A-SPOT": 1.0, "B-SPOT": -1.0}})
    plain, less = (
        pmvar.reprice(held, market, pmvar.simulate(m, market, seed=1, n_scenarios=8192, horizon="1d", drift=Drift.NONE))
        for m in (model, model.decorrelated(1.0))
    )
    found = pmvar.margin_report(plain, held, MarginRules(**rules), decorrelated=less, greeks=False).tables
    rows = zip(*found["margins"].values(), strict=True)
    return {str(r[0]): dict(zip(found["margins"], r, strict=True)) for r in rows}


def test_the_stress_of_dependence_in_closed_form() -> None:
    """A quarter of what ES99.5 without correlation, or with it where that is more, asks beyond ES99."""
    margins = spread_margins(stress_share=0.25)
    for account, deviation in (("spread", np.sqrt(2)), ("both", np.sqrt(2 + 2 * RHO))):
        base = 100 * SIGMA * np.sqrt(2 + (2 if account == "both" else -2) * RHO) * es(0.99)
        stressed = 100 * SIGMA * deviation * es(0.995)
        row = margins[account]
        assert row["initial_margin"] == pytest.approx(base + 0.25 * (stressed - base), rel=6e-3)
        assert row["expected_shortfall"] == pytest.approx(base, rel=4e-3), "the measure stays what it is"
        # What netting saves is of the measure: an add-on is no loss of netting.
        assert row["diversification_benefit"] == pytest.approx(row["isolated_margin"] - row["expected_shortfall"])


def test_the_share_of_the_stress_list() -> None:
    """x·measure + (1 − x)·the worst entry where that is more; without a list nothing, which is said."""
    portfolio, market = hold([("long", "BTC_USD", 1.0), ("short", "BTC_USD", -1.0)]), mixed_market()
    drawn = scenarios(market)
    rules = MarginRules(measure=Measure.VALUE_AT_RISK, stress_share=0.25, stress_of=StressOf.LIST)
    entries = {"crash": {"BTC:spot": -0.5}, "rally": {"BTC:spot": 0.01}}
    pnl = pmvar.reprice(portfolio, market, drawn)
    listed = stress_scenarios(entries, mixed_model(), market)
    found = pmvar.margin_report(pnl, portfolio, rules, stress=listed, greeks=False).tables
    margin = dict(zip(found["margins"]["account_id"], found["margins"]["initial_margin"], strict=True))
    var = dict(zip(found["margins"]["account_id"], found["margins"]["value_at_risk"], strict=True))
    assert margin["long"] == pytest.approx(0.75 * var["long"] + 0.25 * 0.5 * SPOT["BTC"], rel=1e-6)
    assert margin["short"] == pytest.approx(var["short"], rel=1e-12), "a rally of 1% is less than the VaR"
    assert list(found["add_ons"]["account_id"]) == ["long"] and found["add_ons"]["amount"][0] > 0
    without = pmvar.margin_report(pnl, portfolio, rules, greeks=False)
    assert set(without.tables["add_ons"]["absent"]) == {"no stress list"}
    np.testing.assert_allclose(
        without.tables["margins"]["initial_margin"], without.tables["margins"]["value_at_risk"], rtol=1e-12
    )
    assert any("add-on stress is absent" in note for note in without.notes)


def test_half_a_tail_needs_twice_the_scenarios() -> None:
    portfolio, market = hold([("a", "BTC_USD", 1.0)]), mixed_market()
    pnl = pmvar.reprice(portfolio, market, scenarios(market, n=1500))
    pmvar.margin_report(pnl, portfolio, MarginRules(), greeks=False)
    with pytest.raises(UsageError, match=r"beyond level 0\.995; use at least 2,000"):
        pmvar.margin_report(pnl, portfolio, MarginRules(stress_share=0.25), greeks=False)


HELD = [
    ("fund", "BTC_USD", 3.0), ("fund", "BTC-PERPETUAL", -200_000.0), ("fund", call("BTC"), -4.0),
    ("other", "ETH-PERPETUAL", 60_000.0),
]  # fmt: skip
BOOK = hold(HELD, [("fund", "BTC", 2.0), ("fund", "USD", 1e6)])
QUOTES = {"BTC_USD": 8.0, "BTC-PERPETUAL": 5.0, call("BTC"): 0.0004, "ETH-PERPETUAL": 0.1}
TRADED = {"BTC_USD": 900.0, "BTC-PERPETUAL": 5e7, call("BTC"): 250.0, "ETH-PERPETUAL": 4e6}
MARKET = mixed_market(half_spread=QUOTES, daily_volume=TRADED)


@pytest.fixture(scope="module")
def unit() -> CloseOut:
    """Of the mixed market's instruments, two days ahead."""
    table = BOOK.instruments
    _, greeks = values_and_greeks(table, MARKET)
    return close_out(table, MARKET, scenarios(MARKET), greeks, np.arange(len(table)))


def quantity(account: str) -> np.ndarray:
    return BOOK.quantity[[list(BOOK.account_id).index(account)]].toarray()[0]


def test_the_cost_of_an_inverse_perpetual_by_hand(unit: CloseOut) -> None:
    """60,000 contracts of a dollar: half a spread of 0.1 on 3,000 dollars, and the root of its share of a day."""
    found = cost(BOOK.quantity, unit, BOOK.instruments.instrument_id)
    row = list(BOOK.account_id).index("other")
    assert found.spread[row] == pytest.approx(60_000 * 0.1 / SPOT["ETH"])
    total = np.asarray(scenarios(MARKET).shock.sum(axis=1))[:, scenarios(MARKET).factors.index("ETH:spot")]
    deviation = total.std() / np.sqrt(2)
    assert found.impact[row].sum() == pytest.approx(60_000 * deviation * np.sqrt(60_000 / 4e6), rel=1e-9)
    assert found.absent[row] == ""


def test_exposures_net_by_underlying_and_balances_are_left_to_their_haircut(unit: CloseOut) -> None:
    """Delta of spot, perpetual and option add up with their signs; a coin balance is no position to close out."""
    f = unit.factors.index(f"BTC:{FactorKind.SPOT}")
    held, ids = quantity("fund"), BOOK.instruments.instrument_id
    by_id = dict(zip(ids, unit.exposure[:, f], strict=True))
    assert by_id["BTC_USD"] == pytest.approx(SPOT["BTC"]) and by_id["BTC-PERPETUAL"] == pytest.approx(1.0)
    assert by_id["CASH:BTC"] == 0 and 0.4 * SPOT["BTC"] < by_id[call("BTC")] < 0.6 * SPOT["BTC"]
    net = 3 * SPOT["BTC"] - 200_000 - 4 * by_id[call("BTC")]
    assert held @ unit.exposure[:, f] == pytest.approx(net)
    volume = 900 * SPOT["BTC"] + 5e7 + 250 * by_id[call("BTC")]
    assert unit.volume[f] == pytest.approx(volume)
    spread = cost(BOOK.quantity, unit, ids).spread[list(BOOK.account_id).index("fund")]
    assert spread == pytest.approx(3 * 8 + 200_000 * 5 / SPOT["BTC"] + 4 * 0.0004 * SPOT["BTC"])


def test_the_euler_split_is_that_of_degrees_one_and_one_and_a_half(unit: CloseOut) -> None:
    """q·∂C/∂q by differences is the spread's share and 1.5 times the impact's; shares add up; a hedge's is negative."""
    ids, held = BOOK.instruments.instrument_id, quantity("fund")

    def charge(q: np.ndarray) -> tuple[float, float]:
        found = cost(sparse.csr_array(q[None, :]), unit, ids)
        return float(found.spread[0]), float(found.impact.sum())

    spread, impact = euler_shares(held, unit)
    assert spread.sum() == pytest.approx(charge(held)[0]) and impact.sum() == pytest.approx(charge(held)[1])
    assert charge(2 * held)[0] == pytest.approx(2 * charge(held)[0])
    assert charge(2 * held)[1] == pytest.approx(2**1.5 * charge(held)[1])
    for i in np.flatnonzero(held):
        h = 1e-5 * held[i] * np.eye(len(held))[i]
        slope = [(a - b) / 2e-5 for a, b in zip(charge(held + h), charge(held - h), strict=True)]
        assert spread[i] == pytest.approx(slope[0], abs=1e-6)
        assert 1.5 * impact[i] == pytest.approx(slope[1], rel=1e-6, abs=1e-6)
    # Net short BTC: the spot hedges, the short perpetual and call do not.
    by_id = dict(zip(ids, impact, strict=True))
    net = held @ unit.exposure[:, unit.factors.index("BTC:spot")]
    assert np.sign(by_id["BTC-PERPETUAL"]) == -np.sign(net) and np.sign(by_id["BTC_USD"]) == np.sign(net)


def test_what_is_absent_is_named_and_lowers_no_margin() -> None:
    """Without inputs the margin is the measure; with some it is more; each gap is in the table and in a note."""
    rules = MarginRules(liquidity=Liquidity.CHARGE)
    full, bare = (report(BOOK, market, rules=rules, greeks=False) for market in (MARKET, mixed_market()))
    fewer = {name: value for name, value in QUOTES.items() if name != "BTC_USD"}
    some = report(BOOK, replace(MARKET, half_spread=fewer), rules=rules, greeks=False)
    plain = report(BOOK, MARKET, greeks=False).tables["margins"]["initial_margin"]
    margins = [r.tables["margins"]["initial_margin"] for r in (bare, some, full)]
    np.testing.assert_allclose(margins[0], plain, rtol=1e-12)
    assert np.all(margins[1] >= margins[0]) and margins[2][0] - margins[1][0] == pytest.approx(3 * 8, rel=1e-6)
    added = full.tables["add_ons"]
    total = np.array([added["amount"][added["account_id"] == a].sum() for a in BOOK.account_id])
    np.testing.assert_allclose(margins[2] - plain, total, rtol=1e-9)
    assert set(added["absent"]) == {""}
    assert "no half_spread of BTC_USD" in set(some.tables["add_ons"]["absent"])
    gaps = bare.tables["add_ons"]
    assert set(gaps["account_id"]) == {"fund", "other"} and not gaps["amount"].any()
    assert all("no half_spread" in why and "no daily_volume" in why for why in gaps["absent"])
    assert any("add-on spread is absent for 4 of 6 instruments" in n for n in bare.notes)
    assert any("add-on impact is absent for" in n for n in bare.notes)
    assert not any("add-on" in n for n in report(BOOK, MARKET, greeks=False).notes)


def test_a_run_explains_its_add_ons(cli: Cli, tmp_path: Path) -> None:
    """From the measure to the margin in steps that add up, with what is absent; the report says that they are in it."""
    rows = small_rows()
    rows["market/liquidity"] = [{"instrument_id": "BTC-PERPETUAL", "half_spread": 2.5, "daily_volume": 1e6}]
    toml = small_toml()
    toml["margin"] = toml.get("margin", {}) | {"liquidity": "charge", "stress_share": 0.25}
    book = small_book(tmp_path / "book", rows=rows, toml=toml)
    done = cli("run", book, "--out", tmp_path / "run", "--paths", 2048, "--no-components")
    assert done.code == 0, done.err
    added = pq.read_table(tmp_path / "run" / "add_ons.parquet").to_pydict()
    assert {"stress", "spread", "impact"} <= set(added["add_on"])
    for account in sorted(set(added["account_id"])):
        told = cli("explain", tmp_path / "run", account).out
        assert "check: equals the initial margin in the table" in told and "CHECK FAILS" not in told
        assert "add-on stress, " in told or "add-on spread, " in told
    assert "no half_spread of" in cli("explain", tmp_path / "run", added["account_id"][0]).out
    assert "with add-ons (25" in (tmp_path / "run" / "report.html").read_text()


def test_a_book_brings_its_liquidity(tmp_path: Path) -> None:
    """A table of its own, every cell optional; what is not listed is said."""
    rows = small_rows()
    rows["market/liquidity"] = [
        {"instrument_id": "BTC-PERPETUAL", "half_spread": 2.5, "daily_volume": 1e6},
        {"instrument_id": "BTC_USD", "half_spread": 5.0, "daily_volume": None},
        {"instrument_id": "GONE", "half_spread": 1.0, "daily_volume": 2.0},
    ]
    book = load_book(small_book(tmp_path / "book", rows=rows), overrides={"liquidity": "charge", "stress_share": 0.25})
    assert book.market.half_spread == {"BTC-PERPETUAL": 2.5, "BTC_USD": 5.0, "GONE": 1.0}
    assert book.market.daily_volume == {"BTC-PERPETUAL": 1e6, "GONE": 2.0}
    assert book.rules.liquidity is Liquidity.CHARGE and book.rules.stress_share == 0.25
    assert any("market/liquidity: 1 rows belong to instruments that are not listed" in flag for flag in book.flags)
