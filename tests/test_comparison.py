"""Methods side by side: verdicts and statistics by hand, exceedance by counting, and the whole of it on one book."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import pmvar
from pmvar.methods.comparison import OVER, TABLES, comparison_tables, drivers, monte_carlo
from pmvar.methods.result import MethodMargin, Step
from pmvar.methods.strategies import strategies
from pmvar.report.comparison_html import render
from pmvar.report.comparison_report import ComparisonReport
from pmvar.risk.accounts import account_blocks
from pmvar.risk.exceedance import Exceedance, exceedance
from pmvar.risk.rules import MarginRules
from pmvar.types import PATH_TILE, FactorKind, Sampling
from pmvar.valuation.store import TileStore
from pmvar.valuation.today import values_and_greeks
from tests.engines import SPOT, call, hold, mixed_market, put, random_rows, report, scenarios, sized
from tests.results import make_result
from tests.test_report import Page


def method(name: str, initial: np.ndarray, steps: tuple[Step, ...] = ()) -> MethodMargin:
    """Its maintenance margin is three quarters."""
    return MethodMargin(name, f"rules of {name}", initial, 0.75 * initial, steps, ("an approximation",))


def half_isolated(portfolio) -> MethodMargin:
    """A method that knows nothing: a thousand for each contract, whatever it is."""
    gross = np.asarray(abs(portfolio.quantity).sum(axis=1)).ravel()
    steps = tuple(Step(i, "everything", "contracts", "each", 1000.0 * float(g)) for i, g in enumerate(gross))
    return method("flat", 1000.0 * gross, steps)


def test_exceedance_is_a_weighted_share_and_mean() -> None:
    """Against the losses themselves, under weights; at no margin it is the share of losses at all."""
    portfolio, market = hold(*random_rows(9, 1)), mixed_market()
    drawn = scenarios(market, n=2 * PATH_TILE, sampling=Sampling.SOBOL_IS)
    store = TileStore(pmvar.reprice(portfolio, market, drawn), memory_bytes=1e9)
    tiles = np.concatenate([np.asarray(t, dtype=np.float64)[store.pnl.row] for t in store.pnl], axis=1)
    loss = -(portfolio.quantity @ tiles)
    rng = np.random.default_rng(5)
    margin = np.stack([np.zeros(10), np.quantile(loss, 0.97, axis=1), rng.uniform(0, 1e5, 10), np.full(10, 1e12)])
    blocks = list(account_blocks(portfolio.quantity, np.arange(10), 32))
    found = exceedance(blocks, store, margin)
    for m, limits in enumerate(margin):
        over = loss - limits[:, None]
        probability = ((over > 0) * drawn.weight).mean(axis=1)
        np.testing.assert_allclose(found.probability[m], probability, rtol=1e-9)
        np.testing.assert_allclose(found.uncovered[m], (np.maximum(over, 0) * drawn.weight).mean(axis=1), rtol=1e-6)
    assert not found.probability[3].any() and np.all(found.probability[0] > 0.2)
    # Of an account nothing depends on the others.
    few = exceedance(list(account_blocks(portfolio.quantity, np.array([2, 7]), 32)), store, margin)
    np.testing.assert_array_equal(few.probability[:, [2, 7]], found.probability[:, [2, 7]])
    np.testing.assert_array_equal(few.uncovered[:, [2, 7]], found.uncovered[:, [2, 7]])
    assert not np.delete(few.probability, [2, 7], axis=1).any()


def test_tables_by_hand() -> None:
    """Four accounts, one withheld and one without risk, under two methods."""
    made = make_result(n_accounts=4, account_ids=("a", "b", "c", "d"))
    margins = {n: v.copy() for n, v in made.tables["margins"].items()}
    margins["expected_shortfall"] = np.array([100.0, 200.0, 0.0, 50.0])
    margins["status"][:] = ["OK", "OK", "OK", "WITHHELD"]
    result = replace(made, tables={**made.tables, "margins": margins})
    steps = (
        Step(0, "BTC", "scan", "up 16 %", 70.0),
        Step(0, "BTC", "roll", "", 10.0),
        Step(1, "ETH", "scan", "", 320.0),
    )
    methods = [
        method("mc", np.array([100.0, 200.0, 0.0, 60.0])),
        method("grid", np.array([80.0, 320.0, 5.0, 1.0]), steps),
    ]
    beyond = Exceedance(np.array([[0.004, 0.004, 0, 0], [0.02, 0.0, 0, 0.0]]), np.array([[1.0, 2, 0, 0], [9, 0, 0, 0]]))
    tables = comparison_tables(methods, result, beyond, level=0.99)
    flat = tables["comparison"]
    assert list(flat["account_id"]) == ["a", "a", "b", "b", "c", "c", "d", "d"]
    assert list(flat["method"]) == ["mc", "grid"] * 4
    assert list(flat["ratio"]) == [1, 0.8, 1, 1.6, 0, 0, 0, 0]
    assert list(flat["verdict"]) == ["FAIR", "UNDER", "FAIR", "OVER", "FAIR", "OVER", "WITHHELD", "WITHHELD"]
    assert list(flat["uncovered"]) == [1, 9, 2, 0, 0, 0, 0, 0]
    assert list(flat["driver"]) == ["", "BTC scan up 16 %", "", "ETH scan", "", "", "", ""]
    summary = {n: v[1] for n, v in tables["methods"].items()}
    assert summary["total_margin"] == 406 and summary["distance"] == pytest.approx((20 + 120) / 300)
    assert (summary["n_under"], summary["n_fair"], summary["n_over"]) == (1, 0, 2)
    assert summary["rank_correlation"] == pytest.approx(1) and summary["ratio_median"] == pytest.approx(1.2)
    assert summary["breach_probability"] == pytest.approx(0.01) and summary["notes"] == "an approximation"
    assert [tuple(tables["steps"][c][i] for c in TABLES["steps"]) for i in range(3)] == [
        ("a", "grid", "BTC", "scan", "up 16 %", 70.0), ("a", "grid", "BTC", "roll", "", 10.0),
        ("b", "grid", "ETH", "scan", "", 320.0),
    ]  # fmt: skip
    assert {n: set(t) == set(TABLES[n]) for n, t in tables.items()} == {
        "comparison": True,
        "methods": True,
        "steps": True,
    }
    assert OVER == 1.5


def test_the_monte_carlo_margin_in_steps() -> None:
    """They lead to the margin of every account, whatever the rules add, and of those withheld."""
    rows, owned = random_rows(6, 1)
    held = [*rows, ("lost", "NOT-LISTED", 1.0)]
    rules = MarginRules(multiplier=1.25, floor=2e4)
    found = report(hold(held, owned), rules=rules, greeks=False)
    steps = monte_carlo(found)
    total = np.zeros(len(steps.initial))
    np.add.at(total, [s.account for s in steps.steps], [s.amount for s in steps.steps])
    np.testing.assert_allclose(total, steps.initial, rtol=1e-12)
    np.testing.assert_array_equal(steps.initial, found.tables["margins"]["initial_margin"])
    assert {s.name for s in steps.steps} == {"component", "rules"}
    assert all(drivers(steps, len(total)))


def test_strategies_are_what_their_names_say() -> None:
    """Of every underlying with options; legs of one unit; the hedge takes the delta away; a box has no risk."""
    market, instruments = mixed_market(), hold([("x", call("BTC"), 1.0)]).instruments
    book = strategies(instruments, market)
    names = {str(a) for a in book.account_id}
    assert {n.split(" · ")[1] for n in names if n[:4] != "pair"} == {"BTC", "ETH", "EQX", "SOL"}
    for wanted in ("covered call", "short straddle", "calendar", "box", "ratio spread", "short wings"):
        assert f"{wanted} · BTC" in names
    value, greeks = values_and_greeks(book.instruments, market)
    [delta] = [g.value for g in greeks if g.factor == f"BTC:{FactorKind.SPOT}" and g.greek == "delta"]
    row = {str(a): i for i, a in enumerate(book.account_id)}
    held = book.quantity @ delta
    for hedged in ("hedged straddle", "hedged risk reversal"):
        assert abs(held[row[f"{hedged} · BTC"]]) < 1e-9 < 0.01 < abs(held[row["covered call · BTC"]])
    assert sum(n.startswith("pair · ") for n in names) == 6
    pair = book.quantity[[row["pair · BTC − ETH"]]].toarray()[0]
    assert pair.sum() == pytest.approx(0, abs=1e-6) and sorted(np.abs(pair[pair != 0])) == pytest.approx(
        [SPOT["BTC"]] * 2
    )
    quantity = book.quantity[[row["box · BTC"]]].toarray()[0]
    legs = np.flatnonzero(quantity)
    sign = np.where(book.instruments.put_call[legs] == "call", 1.0, -1.0) * quantity[legs]
    assert (
        len(legs) == 4 and len(set(book.instruments.expiry[legs])) == 1 and len(set(book.instruments.strike[legs])) == 2
    )
    # Long the call and short the put at the lower strike, the other way round at the higher.
    low = book.instruments.strike[legs] == book.instruments.strike[legs].min()
    assert np.all(sign[low] == 1) and np.all(sign[~low] == -1)
    m = report(book, market).tables["margins"]
    box, straddle = (m["account_id"] == f"{n} · BTC" for n in ("box", "short straddle"))
    assert m["initial_margin"][box] < 0.002 * m["initial_margin"][straddle]


@pytest.fixture(scope="module")
def compared() -> ComparisonReport:
    """Two methods on random accounts, one of them withheld."""
    rows, owned = random_rows(12, 1)
    rows = [
        *rows,
        ("lost", "NOT-LISTED", 1.0),
        ("short", call("BTC"), sized(call("BTC"), -2.0)),
        ("short", put("ETH"), -9.0),
    ]
    portfolio, market = hold(rows, owned), mixed_market()
    pnl = pmvar.reprice(portfolio, market, scenarios(market))
    return pmvar.compare(pnl, portfolio, MarginRules(), [half_isolated])


def test_the_yardstick_measures_itself(compared: ComparisonReport) -> None:
    """The Monte Carlo margin is its own ES, breached with a probability below 1 − level, and always fair."""
    flat = compared.tables["comparison"]
    own = (flat["method"] == "mc") & (flat["verdict"] != "WITHHELD")
    assert set(flat["verdict"][own]) == {"FAIR"}
    positive = own & (flat["expected_shortfall"] > 0)
    np.testing.assert_allclose(flat["ratio"][positive], 1.0, rtol=1e-12)
    assert np.all((flat["breach_probability"][positive] > 0) & (flat["breach_probability"][positive] < 0.01))
    assert list(flat["verdict"][flat["account_id"] == "lost"]) == ["WITHHELD"] * 3
    assert compared.tables["methods"]["distance"][0] == pytest.approx(0, abs=1e-12)


def test_published_whole(compared: ComparisonReport, tmp_path) -> None:
    """All tables, every number finite, and a page that holds all its parts and no reference elsewhere."""
    folder = compared.write(tmp_path / "out")
    files = {p.name for p in folder.iterdir()}
    assert files == {*(f"{t}.parquet" for t in TABLES), "chain.parquet", "report.html", "manifest.json"}
    text = (folder / "report.html").read_text(encoding="utf-8")
    assert text == render(compared)
    page = Page(text)
    assert {"methods", "scatter", "apart", "strategies", "grids", "settings"} <= set(page.ids)
    assert all(t.startswith("#") for t in page.targets) and "<image" not in text and "<script" not in text
    assert len(compared.grids) == 2 and all(g.loss.shape == (3, 7) for g in compared.grids)


def test_the_middle_of_the_grid_is_where_nothing_moves(compared: ComparisonReport) -> None:
    """And its corners are moves of the 99% size; a short option loses where its vol rises."""
    for g in compared.grids:
        assert abs(g.loss[1, 3]) < 1e-6 * np.abs(g.loss).max() and g.spot_move[3] == 0
        assert g.spot_move[0] < 0 < g.spot_move[-1] and g.vol_move[0] > 0 > g.vol_move[-1]
        assert g.is_tail.any() and not g.is_tail.all()


def test_order_of_accounts_changes_no_comparison(compared: ComparisonReport) -> None:
    """An account alone compares as it does among others."""
    rows, owned = random_rows(12, 1)
    account = rows[0][0]
    portfolio = hold([r for r in rows if r[0] == account], [r for r in owned if r[0] == account])
    market = mixed_market()
    alone = pmvar.compare(
        pmvar.reprice(portfolio, market, scenarios(market)), portfolio, MarginRules(), [half_isolated]
    )
    flat = compared.tables["comparison"]
    for name, values in alone.tables["comparison"].items():
        np.testing.assert_array_equal(values, flat[name][flat["account_id"] == account], err_msg=name)
