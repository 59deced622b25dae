"""From a tail to a margin call: the rules, equity, withheld accounts, and numbers that must not be published."""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

import pmvar
from pmvar.errors import NumericsError
from pmvar.instruments import Instruments
from pmvar.market.snapshot import MarketSnapshot
from pmvar.methods.standard import standard_margin, unit_requirements
from pmvar.portfolio import Portfolio
from pmvar.report.margin_report import MarginReport
from pmvar.risk.rules import MarginRules
from pmvar.scenarios import ScenarioSet
from pmvar.types import Measure, Precision
from pmvar.valuation.today import values_and_greeks
from tests.engines import (
    SPOT,
    Row,
    hold,
    mixed_instruments,
    mixed_market,
    mixed_model,
    mixed_rows,
    of,
    option_id,
    report,
    scenarios,
    sized,
    table,
)

CALL, PUT = option_id("BTC", "NEAR", 0.1, "call"), option_id("BTC", "NEAR", -0.1, "put")
BASE = {"EUR": 1.08, "SOL": 150 * 0.999, "BTC": 100_000.0, "ETH": 3_000.0, "USDC": 0.999, "USD": 1.0}


@pytest.fixture(scope="module")
def market() -> MarketSnapshot:
    """The mixed market."""
    return mixed_market()


@pytest.fixture(scope="module")
def drawn(market: MarketSnapshot) -> ScenarioSet:
    """Scenarios shared by the tests."""
    return scenarios(market)


def values(market: MarketSnapshot, instruments: Instruments | None = None) -> dict[str, float]:
    """Value per contract of every instrument, in dollars."""
    listed = mixed_instruments() if instruments is None else instruments
    found, _ = values_and_greeks(listed, market)
    return dict(zip(listed.instrument_id.tolist(), found.tolist(), strict=True))


def test_margins_follow_the_rules(market: MarketSnapshot, drawn: ScenarioSet) -> None:
    """IM = multiplier·max(measure, floor), MM = ratio·IM, excess = equity − IM; measures do not depend on the rules."""
    held = [("big", CALL, -5.0), ("small", CALL, -0.01), ("long cash", "BTC_USD", 0.0)]
    portfolio = hold(held, [("long cash", "USD", 10.0)])
    plain = report(portfolio, market, drawn=drawn)
    for measure in Measure:
        rules = MarginRules(measure=measure, multiplier=1.5, floor=500.0, maintenance_ratio=0.7)
        m = report(portfolio, market, drawn=drawn, rules=rules).tables["margins"]
        for column in ("value_at_risk", "var_standard_error", "expected_shortfall", "es_standard_error", "equity"):
            np.testing.assert_array_equal(m[column], plain.tables["margins"][column])
        tail = m["expected_shortfall" if measure is Measure.EXPECTED_SHORTFALL else "value_at_risk"]
        np.testing.assert_array_equal(m["initial_margin"], 1.5 * np.maximum(tail, 500.0))
        np.testing.assert_array_equal(m["maintenance_margin"], 0.7 * m["initial_margin"])
        np.testing.assert_array_equal(m["excess"], m["equity"] - m["initial_margin"])
        assert (tail > 500.0).tolist() == [True, False, False]
    # A margin cannot be negative: cash in the base currency moves with nothing.
    assert of(plain, "long cash", "initial_margin") == of(plain, "long cash", "expected_shortfall") == 0


def test_status_thresholds(market: MarketSnapshot, drawn: ScenarioSet) -> None:
    """Equity at the margin is enough; a cent below is a margin call; below maintenance margin is liquidation."""
    held = [("x", "BTC-PERPETUAL", 50_000.0)]
    need = of(report(hold(held), market, drawn=drawn), "x", "initial_margin")
    levels = {"at": need, "below": need - 0.01, "at maintenance": 0.8 * need, "under": 0.8 * need - 0.01, "none": None}
    rows = [(name, "BTC-PERPETUAL", 50_000.0) for name in levels]
    cash = [(name, "USD", amount) for name, amount in levels.items() if amount is not None]
    found = report(hold(rows, cash), market, drawn=drawn)
    got = dict(zip(found.tables["margins"]["account_id"], found.tables["margins"]["status"], strict=True))
    assert got == {
        "at": "OK", "below": "MARGIN_CALL", "at maintenance": "MARGIN_CALL", "under": "LIQUIDATION",
        "none": "LIQUIDATION",
    }  # fmt: skip


def test_equity_in_base_currency(market: MarketSnapshot, drawn: ScenarioSet) -> None:
    """Balances at their base price, positive ones after their haircut, debts in full; values added; futures worth 0."""
    haircut = dict(zip(market.asset, market.haircut, strict=True))
    owned: list[Row] = [
        ("coin", "BTC", 2.0), ("debt", "BTC", -2.0), ("chain", "SOL", 100.0), ("euro", "EUR", 1e4),
        ("cash", "USD", 1e4), ("owing", "USD", -1e4), ("mix", "BTC", 1.0), ("mix", "USDC", -500.0),
    ]  # fmt: skip
    held = [("mix", CALL, -3.0), ("mix", PUT, 2.0), ("mix", "BTC-PERPETUAL", 1e5), ("mix", "BTC_USD", 0.5)]
    found = report(hold(held, owned), market, drawn=drawn)
    price = values(market)
    expected = {
        "coin": 2 * 100_000 * (1 - haircut["BTC"]), "debt": -200_000, "chain": 100 * 150 * 0.999 * (1 - haircut["SOL"]),
        "euro": 10_800, "cash": 1e4, "owing": -1e4,
        "mix": 100_000 * 0.9 - 500 * 0.999 - 3 * price[CALL] + 2 * price[PUT] + 50_000,
    }  # fmt: skip
    for account, equity in expected.items():
        assert of(found, account, "equity") == pytest.approx(equity, rel=1e-12), account


def test_only_foreign_money_is_at_risk(market: MarketSnapshot, drawn: ScenarioSet) -> None:
    """A balance in the base currency needs no margin; one in a coin moves with it, before its haircut."""
    owned: list[Row] = [("dollar", "USD", 5e5), ("coin", "BTC", 1.0), ("debt", "BTC", -1.0)]
    found = report(hold([], owned), market, drawn=drawn)
    assert [of(found, "dollar", c) for c in ("initial_margin", "value_at_risk", "es_standard_error")] == [0, 0, 0]
    assert of(found, "dollar", "status") == "OK"
    coin = np.exp(np.asarray(drawn.shock[:, 0, drawn.factors.index("BTC:spot")])) - 1
    for account, sign in (("coin", -1.0), ("debt", 1.0)):
        worst = -np.sort(-sign * 100_000 * coin)
        assert of(found, account, "expected_shortfall") == pytest.approx(
            (worst[:40].sum() + 0.96 * worst[40]) / 40.96, rel=1e-6
        )
    assert set(found.tables["components"]["instrument_id"]) == {"CASH:BTC", "CASH:USD"}


def test_isolated_margin_takes_the_rules(market: MarketSnapshot, drawn: ScenarioSet) -> None:
    """Isolated margin = multiplier·max(Σ |q|·measure of one contract on its side, floor)."""
    held = [("x", CALL, -2.0), ("x", PUT, 3.0), ("x", "BTC-PERPETUAL", -1e4)]
    apart = [(i, i, q) for _, i, q in held]
    single = report(hold(apart), market, drawn=drawn).tables["margins"]["initial_margin"].sum()
    for floor, base in ((0.0, single), (1e9, 1e9)):
        rules = MarginRules(multiplier=1.25, floor=floor)
        found = report(hold(held), market, drawn=drawn, rules=rules)
        assert of(found, "x", "isolated_margin") == pytest.approx(1.25 * base, rel=1e-12)


def test_isolated_margin_has_an_error(market: MarketSnapshot, drawn: ScenarioSet) -> None:
    """That of the margin where there is one position; errors of losses that move together add up; none at the floor."""
    held = [("call", CALL, -2.0), ("put", PUT, 3.0), ("long", "BTC-PERPETUAL", 1e4), ("both", "BTC-PERPETUAL", 1e4)]
    m = report(hold(held, [("coin", "BTC", 0.3), ("both", "BTC", 0.3)]), market, drawn=drawn).tables["margins"]
    errors = dict(zip(m["account_id"], m["isolated_standard_error"], strict=True))
    alone = m["account_id"] != "both"
    np.testing.assert_allclose(m["isolated_standard_error"][alone], m["es_standard_error"][alone], rtol=1e-5)
    assert errors["both"] == pytest.approx(errors["long"] + errors["coin"], rel=1e-4)
    floored = report(hold(held), market, drawn=drawn, rules=MarginRules(floor=1e9)).tables["margins"]
    assert not floored["isolated_standard_error"].any()


# --- Withheld accounts


HEALTHY: list[Row] = [("healthy", CALL, -1.0), ("healthy", "ETH-PERPETUAL", 5e3), ("solvent", PUT, 2.0)]
CASH: list[Row] = [("healthy", "BTC", 1.0), ("solvent", "USD", 1e5)]


def broken(case: str) -> tuple[MarketSnapshot, ScenarioSet, list[Row]]:
    """A market, scenarios and positions of account `bad` of which one thing cannot be valued."""
    market = mixed_market()
    if case == "zero price":
        spot = market.spot.copy()
        spot[market.column("SOL")] = 0.0
        market = replace(
            market,
            spot=spot,
            forwards={u: f for u, f in market.forwards.items() if u != "SOL"},
            quarantined={"SOL:spot": "price 0"},
        )
        return market, scenarios(market), [("bad", "SOL-PERPETUAL", -50.0), ("bad", CALL, -1.0)]
    if case == "missing factor":
        full = mixed_model()
        keep = [i for i, name in enumerate(full.factor_names) if name != "SOL:vol"]
        model = replace(
            full, factors=tuple(full.factors[i] for i in keep), correlation=full.correlation[np.ix_(keep, keep)]
        )
        return market, scenarios(market, model=model), [("bad", option_id("SOL", "NEAR", 0.0, "call"), -50.0)]
    if case == "no curve":
        market = replace(market, discounts={c: d for c, d in market.discounts.items() if c != "USDC"})
        return market, scenarios(market), [("bad", option_id("SOL", "NEAR", 0.0, "put"), 70.0)]
    drawn = scenarios(market)
    if case == "unknown instrument":
        return market, drawn, [("bad", "DOGE-PERPETUAL", 3.0), ("bad", CALL, 1.0)]
    assert case == "expired"
    return market, drawn, [("bad", "OLD", -2.0)]


REASONS = {
    "zero price": "SOL:spot: price 0",
    "missing factor": "the model has no factor SOL:vol",
    "no curve": "no discount curve for USDC",
    "unknown instrument": "unknown instrument DOGE-PERPETUAL",
    "expired": "OLD has expired",
}


@pytest.mark.parametrize("case", list(REASONS))
def test_withheld_accounts(case: str) -> None:
    """What cannot be valued withholds its account, with a reason and a positive fallback; the others do not notice."""
    market, drawn, bad = broken(case)
    old = {"instrument_id": "OLD", "kind": "option", "underlying": "BTC", "settlement": "inverse",
           "quote_currency": "USD", "settlement_currency": "BTC", "expiry": market.as_of, "strike": 9e4,
           "put_call": "call"}  # fmt: skip
    listed = table([*mixed_rows(), old])
    without = report(hold(HEALTHY, CASH, instruments=listed), market, drawn=drawn)
    portfolio = hold([*HEALTHY, *bad], [*CASH, ("bad", "USD", 1e6)], instruments=listed)
    found = report(portfolio, market, drawn=drawn)
    m = found.tables["margins"]
    assert m["account_id"].tolist() == ["bad", "healthy", "solvent"]
    assert (of(found, "bad", "status"), of(found, "bad", "reason")) == ("WITHHELD", REASONS[case])
    assert any(note == f"bad is withheld: {REASONS[case]}" for note in found.notes)
    margin = of(found, "bad", "initial_margin")
    assert margin > 0 and of(found, "bad", "maintenance_margin") == 0.8 * margin
    assert margin >= standard_margin(portfolio, market, known_values(portfolio, market, drawn))[0] > 0
    for name, columns in found.tables.items():
        if "account_id" not in columns:
            continue
        others = columns["account_id"] != "bad"
        for column, values_ in columns.items():
            np.testing.assert_array_equal(values_[others], without.tables[name][column], err_msg=f"{name}.{column}")
        if name != "margins":
            of_margin = columns.get("of", np.full(len(others), "margin"))
            assert not np.any((columns["account_id"] == "bad") & (of_margin == "margin")), name


def known_values(portfolio: Portfolio, market: MarketSnapshot, drawn: ScenarioSet) -> np.ndarray:
    """Value per contract of every instrument of a portfolio, NaN where nothing prices."""
    listed, unpriced = portfolio.instruments, pmvar.reprice(portfolio, market, drawn).plan.unpriced
    priced = np.array([i for i in range(len(listed)) if i not in unpriced])
    value = np.full(len(listed), np.nan)
    value[priced], _ = values_and_greeks(listed.take(priced), market)
    return value


def test_last_good_margin_is_respected(market: MarketSnapshot, drawn: ScenarioSet) -> None:
    """A withheld account keeps at least its last good margin, as it was: multiplier and floor are in it already."""
    portfolio = hold([*HEALTHY, ("bad", "DOGE", 1e-6)], CASH)
    rules = MarginRules(multiplier=1.5, floor=100.0)
    low = report(portfolio, market, drawn=drawn, rules=rules)
    standard = of(low, "bad", "initial_margin")
    assert standard >= 150.0
    for last, expected in ((standard / 2, standard), (1e7, 1e7)):
        given = {"bad": last, "healthy": 1e12, "gone": 1e12}
        found = report(portfolio, market, drawn=drawn, rules=rules, last_good=given)
        assert of(found, "bad", "initial_margin") == expected
        # The last margin of an account that can be valued says nothing.
        assert of(found, "healthy", "initial_margin") == of(low, "healthy", "initial_margin")


def test_everybody_withheld_and_nobody_at_all(market: MarketSnapshot, drawn: ScenarioSet) -> None:
    """A book of which nothing can be valued, and one without accounts, are complete and finite."""
    found = report(hold([("a", "DOGE", 2.0), ("b", "DOGE", -1.0)]), market, drawn=drawn)
    assert found.tables["margins"]["status"].tolist() == ["WITHHELD", "WITHHELD"]
    assert np.all(found.tables["margins"]["initial_margin"] > 0)
    assert all(len(found.tables[t]["account_id"]) == 0 for t in ("components", "greeks", "worst", "stress"))
    nobody = report(hold([]), market, drawn=drawn)
    assert all(len(column) == 0 for t in nobody.tables.values() for column in t.values())


def test_nothing_known_is_never_a_margin_of_zero(market: MarketSnapshot, drawn: ScenarioSet) -> None:
    """Where not one instrument has a usable price there is no notional to take: the run refuses rather than say 0."""
    nothing = mixed_instruments().take(np.zeros(len(mixed_instruments()), bool))
    with pytest.raises(NumericsError, match="account a is withheld"):
        report(hold([("a", "DOGE", 2.0)], instruments=nothing), market, drawn=drawn)
    # With a last good margin there is something to say.
    found = report(hold([("a", "DOGE", 2.0)], instruments=nothing), market, drawn=drawn, last_good={"a": 7.0})
    assert of(found, "a", "initial_margin") == 7.0


def test_account_without_positions(market: MarketSnapshot, drawn: ScenarioSet) -> None:
    """Positions that net to nothing leave an account with a margin of zero and status OK; it is not dropped."""
    found = report(
        hold([*HEALTHY, ("flat", CALL, 1.0), ("flat", CALL, -1.0), ("zero", PUT, 0.0)], CASH), market, drawn=drawn
    )
    for account in ("flat", "zero"):
        assert [of(found, account, c) for c in ("initial_margin", "equity", "isolated_margin")] == [0, 0, 0]
        assert (of(found, account, "status"), of(found, account, "reason")) == ("OK", "")
    assert set(found.tables["components"]["account_id"]) == {"healthy", "solvent"}


# --- Numbers that are not finite


@pytest.mark.parametrize("quantity", [1e36, 1e39])
def test_overflow_is_refused_by_name(market: MarketSnapshot, drawn: ScenarioSet, quantity: float) -> None:
    """Losses beyond float32, and quantities beyond it: exit code 5, naming the account and what to do."""
    portfolio = hold([*HEALTHY, ("huge", CALL, -quantity)], CASH)
    with pytest.raises(NumericsError, match=r"account huge .*--precision float64") as caught:
        report(portfolio, market, drawn=drawn)
    assert caught.value.exit_code == 5
    wide = report(portfolio, market, drawn=drawn, precision="float64")
    assert of(wide, "huge", "expected_shortfall") > 1e39
    assert np.isfinite(of(wide, "huge", "initial_margin"))


def test_a_shock_that_is_not_a_number_is_refused(market: MarketSnapshot, drawn: ScenarioSet) -> None:
    """A NaN in one factor of one scenario stops the run, naming what it hit and who holds it: sorting would drop it."""
    shock = np.array(drawn.shock)
    shock[1234, 0, drawn.factors.index("ETH:spot")] = np.nan
    bad = replace(drawn, shock=jnp.asarray(shock), paths=None)
    with pytest.raises(NumericsError, match="ETH-FAR-.* held by .*healthy.* not finite in scenario tile 0") as caught:
        report(hold(HEALTHY, CASH), market, drawn=bad)
    assert caught.value.exit_code == 5


def test_a_price_that_falls_to_nothing_has_a_loss(market: MarketSnapshot, drawn: ScenarioSet) -> None:
    """e^−100 of today's price, beyond what single precision inverts: finite, and the same as e^−60."""
    margins = []
    for fall in (-60.0, -100.0):
        shock = np.array(drawn.shock)
        shock[1234, 0, drawn.factors.index("ETH:spot")] = fall
        bad = replace(drawn, shock=jnp.asarray(shock), paths=None)
        margins.append(report(hold(HEALTHY, CASH), market, drawn=bad).tables["margins"]["initial_margin"])
    assert np.all(np.isfinite(margins[1]))
    np.testing.assert_array_equal(*margins)


# --- The standard margin, by hand


def required(name: str, market: MarketSnapshot, **changes: object) -> tuple[float, float, float]:
    """(long, short, value) of one contract of one instrument."""
    rows = [{**r, **changes} for r in mixed_rows() if r["instrument_id"] == name]
    listed = table(rows)
    value, _ = values_and_greeks(listed, market)
    unit = unit_requirements(listed, market, value)
    return float(unit.long[0]), float(unit.short[0]), float(value[0])


def test_standard_margin_of_options(market: MarketSnapshot) -> None:
    """max(15 % − OTM, 13 %)·S + mark for calls; for puts also 9 % of max(S, mark) + mark; nothing for long options."""
    s = 100_000.0
    for moneyness in (-0.2, 0.0, 0.1, 0.2):
        name = option_id("BTC", "NEAR", moneyness, "call")
        strike = float(name.split("-")[2])
        long, short, mark = required(name, market)
        out = max(strike - s, 0) / s
        assert long == 0
        assert short == pytest.approx(max(0.15 - out, 0.13) * s + mark, rel=1e-12)
    for moneyness in (-0.2, 0.0, 0.2):
        name = option_id("BTC", "NEAR", moneyness, "put")
        strike = float(name.split("-")[2])
        long, short, mark = required(name, market)
        out = max(s - strike, 0) / s
        assert long == 0
        assert short == pytest.approx(max(max(0.15 - out, 0.13) * s + mark, 0.09 * max(s, mark) + mark), rel=1e-12)
    # A put so deep that 9 % of its mark is more than 13 % of spot.
    deep = option_id("BTC", "NEAR", 0.2, "put")
    _, short, mark = required(deep, market, strike=300_000.0)
    assert 0.09 * mark > 0.13 * s and short == pytest.approx(1.09 * mark, rel=1e-12)


def test_standard_margin_in_other_currencies(market: MarketSnapshot) -> None:
    """Strike and price both in base currency: an index in euro, a coin in USDC, contracts of any size."""
    name = option_id("EQX", "NEAR", 0.0, "call")
    price, strike = 5_000 * 1.08, 5_000 * 1.08
    _, short, mark = required(name, market, contract_size=10.0)
    assert short == pytest.approx(
        10 * (max(0.15 - max(strike - price, 0) / price, 0.13) * price + mark / 10), rel=1e-12
    )
    assert required("SOL-PERPETUAL", market, contract_size=7.0)[:2] == pytest.approx(
        (0.15 * 7 * 150 * 0.999,) * 2, rel=1e-12
    )


def test_standard_margin_of_the_rest(market: MarketSnapshot) -> None:
    """15 % of notional for futures either way (inverse: of its dollars), and of a debt, which equity holds already."""
    assert required("BTC-PERPETUAL", market, contract_size=10.0)[:2] == pytest.approx((1.5, 1.5), rel=1e-12)
    assert required("EQX-NEAR", market)[:2] == pytest.approx((0.15 * 5_400,) * 2, rel=1e-12)
    assert required("BTC_USD", market)[:2] == pytest.approx((0.0, 15_000.0), rel=1e-12)


def test_standard_margin_of_accounts(market: MarketSnapshot) -> None:
    """No offsets: units on each side add up; what nothing prices needs its full notional, the unknown the largest."""
    listed = mixed_instruments()
    value, _ = values_and_greeks(listed, market)
    held = [("a", CALL, -2.0), ("a", PUT, 5.0), ("a", "BTC-PERPETUAL", -1e4), ("b", "DOGE", -3.0), ("b", PUT, -1.0)]
    portfolio = hold(held, [("a", "EUR", -1e3), ("a", "USD", 1e9)])
    every = portfolio.instruments
    known, _ = values_and_greeks(every, market)
    margin = standard_margin(portfolio, market, known)
    expected = 2 * required(CALL, market)[1] + 0.15 * 1e4 + 0.15 * 1_080
    assert margin[0] == pytest.approx(expected, rel=1e-12)
    largest = max(SPOT["BTC"] * BASE["USD"], *(float(s) for s in listed.strike[listed.underlying == "BTC"] if s == s))
    assert margin[1] == pytest.approx(3 * largest + required(PUT, market)[1], rel=1e-12)
    blind = known.copy()
    blind[every.instrument_id == CALL] = np.nan
    strike = float(CALL.split("-")[2])
    assert standard_margin(portfolio, market, blind)[0] == pytest.approx(
        2 * max(strike, 1e5) + 0.15 * 1e4 + 0.15 * 1_080, rel=1e-12
    )


def test_precision_of_a_run_is_that_of_its_tail_only(market: MarketSnapshot, drawn: ScenarioSet) -> None:
    """float32 tiles change a margin by less than 1e-6 of its gross notional."""
    legs = ((0.0, "call", -1.0), (0.1, "call", 1.0), (-0.1, "put", -1.0))
    names = [(option_id(u, "FAR", k, side), q) for u in ("BTC", "SOL", "EQX") for k, side, q in legs]
    held = [("a", name, sized(name, q)) for name, q in names]
    portfolio = hold(held)
    found: dict[Precision, MarginReport] = {
        p: report(portfolio, market, drawn=drawn, precision=str(p)) for p in Precision
    }
    narrow, wide = (of(found[p], "a", "expected_shortfall") for p in (Precision.FLOAT32, Precision.FLOAT64))
    assert abs(narrow - wide) <= 1e-6 * 9 * 100_000
