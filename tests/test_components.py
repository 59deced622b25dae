"""Where the expected shortfall comes from: parts that sum, scale, flip and hedge as they must."""

from __future__ import annotations

import numpy as np
import pytest

import pmvar
from pmvar.market.snapshot import MarketSnapshot
from pmvar.report.margin_report import MarginReport
from pmvar.risk.rules import MarginRules
from pmvar.scenarios import ScenarioSet
from pmvar.types import Measure
from tests.engines import (
    Row,
    hold,
    mixed_market,
    mixed_rows,
    of,
    option_id,
    random_rows,
    report,
    scenarios,
    sized,
    table,
)

VAR = MarginRules(measure=Measure.VALUE_AT_RISK)
CALL, PUT = (option_id("BTC", "NEAR", 0.0, side) for side in ("call", "put"))
INDEX_CALL, SOL_PUT = option_id("EQX", "FAR", 0.1, "call"), option_id("SOL", "NEAR", -0.1, "put")


@pytest.fixture(scope="module")
def market() -> MarketSnapshot:
    """The mixed market."""
    return mixed_market()


@pytest.fixture(scope="module")
def drawn(market: MarketSnapshot) -> ScenarioSet:
    """Scenarios shared by all tests here, so that identities are not blurred by sampling."""
    return scenarios(market, n=8192)


@pytest.fixture(scope="module")
def rows() -> tuple[list[Row], list[Row]]:
    """Sixty random accounts, three of them with a hundred positions."""
    return random_rows(57, 3, seed=8)


@pytest.fixture(scope="module")
def full(rows: tuple[list[Row], list[Row]], market: MarketSnapshot, drawn: ScenarioSet) -> MarginReport:
    """Their report."""
    return report(hold(*rows), market, drawn=drawn)


def summed(found: MarginReport, column: str) -> np.ndarray:
    """Sum of a column of components per account of `margins`, in the order of positions."""
    components = found.tables["components"]
    return np.array(
        [np.sum(components[column][components["account_id"] == a]) for a in found.tables["margins"]["account_id"]]
    )


def test_components_sum_to_the_expected_shortfall(full: MarginReport) -> None:
    """Every account's components add up to its ES: 1e-6 is promised, the rounding of a sum is what is left."""
    components, margins = full.tables["components"], full.tables["margins"]
    shortfall = margins["expected_shortfall"]
    total = summed(full, "component_es")
    np.testing.assert_allclose(total, shortfall, rtol=1e-6)
    gross = np.array([np.abs(components["component_es"][components["account_id"] == a]).sum()
                      for a in margins["account_id"]])  # fmt: skip
    assert np.all(np.abs(total - shortfall) <= 100 * np.finfo(float).eps * gross)


def test_running_sum_is_the_expected_shortfall_exactly(full: MarginReport) -> None:
    """Added in the order of the table, components give the published ES to the bit."""
    components, margins = full.tables["components"], full.tables["margins"]
    for account, shortfall in zip(margins["account_id"], margins["expected_shortfall"], strict=True):
        running = 0.0
        for part in components["component_es"][components["account_id"] == account]:
            running += float(part)
        assert running == shortfall


def test_spot_vol_and_time_sum_to_each_component(full: MarginReport) -> None:
    """The three shares of each position add up to it; time alone is what the standing position decays by."""
    c = full.tables["components"]
    parts = c["spot_es"] + c["vol_es"] + c["time_es"]
    size = np.abs(c["spot_es"]) + np.abs(c["vol_es"]) + np.abs(c["time_es"])
    assert np.all(np.abs(parts - c["component_es"]) <= 1e-12 * size)
    linear = np.array([not i.endswith(("-C", "-P")) for i in c["instrument_id"]])
    # What is not an option has no vol. The split is priced in float32: 1e-6 of the component's size.
    assert np.all(np.abs(c["vol_es"][linear]) <= 1e-6 * size[linear])
    dated = np.array([i.endswith("-NEAR") for i in c["instrument_id"]])
    assert np.all(c["time_es"][linear & ~dated] == 0)
    # A forward slides down its carry while the spot stands still; over two days at 2 and 6 % a year.
    two_days, n = 2 / 365, c["quantity"]
    slide = {
        "EQX-NEAR": 5_000 * 1.08 * np.exp(0.02 * 28 / 365) * np.expm1(-0.02 * two_days),
        "BTC-NEAR": np.exp(-0.06 * 28 / 365) * -np.expm1(0.06 * two_days),
    }
    for name, per_contract in slide.items():
        own = c["instrument_id"] == name
        assert own.sum() > 3
        np.testing.assert_allclose(c["time_es"][own], -n[own] * per_contract, rtol=1e-5)  # a float32 tile


def test_components_by_underlying_sum(full: MarginReport) -> None:
    """Each component has its instrument's underlying; sums by underlying, then over them, are the ES."""
    c, margins = full.tables["components"], full.tables["margins"]
    for account, shortfall in zip(margins["account_id"], margins["expected_shortfall"], strict=True):
        own = c["account_id"] == account
        parts = {u: c["component_es"][own & (c["underlying"] == u)].sum() for u in set(c["underlying"][own])}
        assert sum(parts.values()) == pytest.approx(shortfall, rel=1e-9)
    prefix = [str(i).removeprefix("CASH:").replace("_", "-").partition("-")[0] for i in c["instrument_id"]]
    assert prefix == c["underlying"].tolist()


def test_components_are_the_tail_means_of_positions(market: MarketSnapshot, drawn: ScenarioSet) -> None:
    """An independent tail: sort all losses, average each position's loss over the worst 81.92, the last in part."""
    held = [("a", CALL, -3.0), ("a", INDEX_CALL, 20.0), ("a", SOL_PUT, -700.0), ("a", "BTC-PERPETUAL", 90_000.0)]
    portfolio = hold(held, [("a", "EUR", -5_000.0)])
    pnl = pmvar.reprice(portfolio, market, drawn)
    tiles = np.concatenate([np.asarray(t, dtype=np.float64)[pnl.row] for t in pnl], axis=1)
    found = report(portfolio, market, drawn=drawn)
    columns = portfolio.quantity.indices
    loss = np.asarray(portfolio.quantity.data, np.float64)[:, None] * -tiles[columns]
    order = np.argsort(-loss.sum(axis=0), kind="stable")
    share = np.zeros(drawn.n_scenarios)
    share[order[:81]], share[order[81]] = 1.0, 0.92
    expected = loss @ share / 81.92
    np.testing.assert_allclose(of(found, "a", "component_es", "components"), expected, rtol=1e-9)


@pytest.mark.parametrize("rules", [MarginRules(), VAR], ids=["es", "var"])
def test_homogeneity(
    rows: tuple[list[Row], list[Row]], market: MarketSnapshot, drawn: ScenarioSet, rules: MarginRules
) -> None:
    """λ times the book needs λ times the margin: to the bit for powers of two, to rounding otherwise."""
    held, owned = ([r for r in part if int(r[0][-4:]) % 5 == 0] for part in rows)

    def scaled(factor: float) -> dict[str, np.ndarray]:
        portfolio = hold([(a, i, factor * q) for a, i, q in held], [(a, i, factor * q) for a, i, q in owned])
        found = report(portfolio, market, drawn=drawn, rules=rules)
        c = found.tables["components"]["component_es"]
        return {**{k: v for k, v in found.tables["margins"].items() if v.dtype == np.float64}, "component_es": c}

    one = scaled(1.0)
    for factor in (4.0, 0.125):
        for name, values in scaled(factor).items():
            if name != "level":
                np.testing.assert_array_equal(values, factor * one[name], err_msg=name)
    for name, values in scaled(3.0).items():
        if name not in ("level", "excess", "diversification_benefit"):
            # The worst conditioning is that of a component: a mean over the tail of terms of both signs.
            np.testing.assert_allclose(values, 3 * one[name], rtol=1e-9, atol=1e-6, err_msg=name)


def test_sign_flips(rows: tuple[list[Row], list[Row]], market: MarketSnapshot, drawn: ScenarioSet) -> None:
    """The mirror of a book: its Greeks change sign exactly, and its tail is the other tail of the book."""
    held, owned = ([r for r in part if int(r[0][-4:]) % 5 == 0] for part in rows)
    mirror = hold([(a, i, -q) for a, i, q in held], [(a, i, -q) for a, i, q in owned])
    ours, theirs = (report(p, market, drawn=drawn) for p in (hold(held, owned), mirror))
    # ES(L) + ES(−L) ≥ 0: whatever the book earns in its mirror's tail, both sides together never earn.
    both = ours.tables["margins"]["expected_shortfall"] + theirs.tables["margins"]["expected_shortfall"]
    assert np.all(both > 0)
    g, h = ours.tables["greeks"], theirs.tables["greeks"]
    position = g["of"] == "position"
    np.testing.assert_array_equal(g["value"][position], -h["value"][h["of"] == "position"])
    # Tail of the mirror = the other tail of the book.
    pnl = pmvar.reprice(hold(held, owned), market, drawn)
    tiles = np.concatenate([np.asarray(t, dtype=np.float64)[pnl.row] for t in pnl], axis=1)
    best = -np.sort(-(hold(held, owned).quantity @ tiles), axis=1)
    expected = (best[:, :81].sum(axis=1) + 0.92 * best[:, 81]) / 81.92
    np.testing.assert_allclose(theirs.tables["margins"]["expected_shortfall"], expected, rtol=1e-9)


def test_a_hedge_of_the_same_terms_is_exactly_zero(market: MarketSnapshot, drawn: ScenarioSet) -> None:
    """Long one and short another contract of the same terms: every number of the margin is 0, not nearly 0."""
    twins = [r | {"instrument_id": f"TWIN-{r['instrument_id']}"} for r in mixed_rows()]
    listed = table(mixed_rows() + twins)
    names = [str(r["instrument_id"]) for r in mixed_rows()]
    held = [(f"pair {name}", i, sized(name, q)) for name in names for i, q in ((name, 3.7), (f"TWIN-{name}", -3.7))]
    held += [("all", i, q) for _, i, q in held] + [("open", CALL, 1.0), ("netted", PUT, 2.0), ("netted", PUT, -2.0)]
    found = report(hold(held, instruments=listed), market, drawn=drawn)
    m = found.tables["margins"]
    hedged = np.array([a == "netted" or a.startswith("pair ") for a in m["account_id"]])
    assert hedged.sum() == len(names) + 1
    for column in ("value_at_risk", "expected_shortfall", "initial_margin", "es_standard_error", "var_standard_error",
                   "equity", "maintenance_margin", "excess"):  # fmt: skip
        assert np.all(m[column][hedged] == 0), column
    assert set(m["status"][hedged]) == {"OK"}
    worst = found.tables["worst"]
    assert np.all(worst["loss"][~np.isin(worst["account_id"], ["all", "open"])] == 0)
    assert np.all(m["isolated_margin"][hedged] >= 0) and of(found, "netted", "isolated_margin") == 0
    # Hundreds of pairs in one account leave the rounding of a sum: an ulp of the gross for each term, and no more.
    bound = len(names) * np.finfo(float).eps * of(found, "all", "isolated_margin")
    assert abs(of(found, "all", "expected_shortfall")) <= bound < 1e-3


@pytest.mark.parametrize("rules", [MarginRules(), VAR], ids=["es", "var"])
def test_isolated_margin_and_diversification(
    rows: tuple[list[Row], list[Row]], market: MarketSnapshot, drawn: ScenarioSet, rules: MarginRules
) -> None:
    """ES is subadditive on fixed scenarios: no account needs more than its positions apart. VaR may."""
    found = report(hold(*rows), market, drawn=drawn, rules=rules)
    m = found.tables["margins"]
    if rules is VAR:
        np.testing.assert_array_equal(m["initial_margin"], np.maximum(m["value_at_risk"], 0))
    else:
        assert np.all(m["diversification_benefit"] >= -1e-9 * m["isolated_margin"])
    np.testing.assert_array_equal(m["diversification_benefit"], m["isolated_margin"] - m["initial_margin"])
    single = [("one", CALL, -2.0), ("two", INDEX_CALL, 9.0), ("three", "ETH-PERPETUAL", -5e4)]
    alone = report(hold(single), market, drawn=drawn, rules=rules).tables["margins"]
    np.testing.assert_allclose(alone["isolated_margin"], alone["initial_margin"], rtol=1e-12)


def test_isolated_margin_is_that_of_each_position_alone(market: MarketSnapshot, drawn: ScenarioSet) -> None:
    """Splitting an account into one per position gives margins that add up to its isolated margin."""
    held = [("a", i, sized(i, q)) for i, q in ((CALL, -1.0), (PUT, 2.0), (SOL_PUT, -1.5), ("EQX-NEAR", 0.4))]
    split = [(f"{n}", i, q) for n, (_, i, q) in enumerate(held)]
    whole = report(hold(held, [("a", "EUR", -3e4)]), market, drawn=drawn)
    parts = report(hold(split, [("cash", "EUR", -3e4)]), market, drawn=drawn)
    assert of(whole, "a", "isolated_margin") == pytest.approx(
        parts.tables["margins"]["initial_margin"].sum(), rel=1e-12
    )


def test_subadditivity_of_merged_accounts(market: MarketSnapshot, drawn: ScenarioSet) -> None:
    """Two accounts in one need no more than both; cash in the base currency changes no measure."""
    held, owned = random_rows(24, 0, seed=9)
    merged = [(f"pair-{int(a[-4:]) // 2}", i, q) for a, i, q in held]
    cash = [(f"pair-{int(a[-4:]) // 2}", i, q) for a, i, q in owned]
    apart = report(hold(held, owned), market, drawn=drawn).tables["margins"]
    together = report(hold(merged, cash), market, drawn=drawn).tables["margins"]
    by_pair = {str(a): float(x) for a, x in zip(together["account_id"], together["expected_shortfall"], strict=True)}
    for pair, joint in by_pair.items():
        first = 2 * int(pair.removeprefix("pair-"))
        members = [f"small-{first:04d}", f"small-{first + 1:04d}"]
        total = sum(float(apart["expected_shortfall"][apart["account_id"] == a][0]) for a in members)
        assert joint <= total + 1e-9 * abs(total)
    richer = report(hold(merged, [*cash, *((p, "USD", 1e6) for p in by_pair)]), market, drawn=drawn).tables["margins"]
    np.testing.assert_array_equal(richer["expected_shortfall"], together["expected_shortfall"])
    np.testing.assert_allclose(richer["equity"], together["equity"] + 1e6, rtol=1e-12)
