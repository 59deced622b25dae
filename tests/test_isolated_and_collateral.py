"""Baselines without netting: each by its formula on books small enough to work out by hand."""

from __future__ import annotations

import numpy as np
import pytest

from pmvar.errors import UsageError
from pmvar.methods.collateral import collateral_margin
from pmvar.methods.isolated import isolated_margin
from pmvar.methods.registry import methods_named
from pmvar.methods.result import MethodMargin
from pmvar.methods.span.default import scan_ranges
from pmvar.scenarios import ScenarioSet
from pmvar.types import DAY
from pmvar.valuation.today import values_and_greeks
from tests.engines import hold, mixed_market, mixed_model, random_rows, scenarios
from tests.markets import AS_OF, carry_curve, flat_rate, flat_vol, instrument, portfolio, snapshot, table

NEAR, FAR = AS_OF + 30 * DAY, AS_OF + 90 * DAY
MARKET = snapshot(
    {"A": (100.0, "USD")}, forwards={"A": carry_curve(100.0, 0.0)}, discounts={"USD": flat_rate(0.0)},
    vols={"A": flat_vol(0.5)},
)  # fmt: skip
LISTED = table([
    *(instrument(f"{right[0]}{strike:g}{'F' if far else ''}", "option", "A", expiry=FAR if far else NEAR, strike=strike,
                 put_call=right)
      for right in ("call", "put") for strike in (90.0, 100.0, 110.0, 130.0) for far in (False, True)),
    instrument("perp", "perpetual", "A"), instrument("spot", "spot", "A"),
])  # fmt: skip
VALUE = dict(zip(LISTED.instrument_id, values_and_greeks(LISTED, MARKET)[0], strict=True))


def alone(held: dict[str, float]) -> MethodMargin:
    """Isolated margin of one account."""
    return isolated_margin(portfolio(LISTED, {"x": held}), MARKET)


@pytest.mark.parametrize(
    ("name", "initial", "maintenance"),
    [
        # 15% at the money, less what is out of the money, 13% at least; 9% kept.
        ("c100", 15.0, 9.0),
        ("c110", 13.0, 9.0),
        ("c90", 15.0, 9.0),
        # A put keeps 9% of the larger of spot and mark, and asks at least that.
        ("p100", 15.0, 9.0),
        ("p90", 13.0, 9.0),
        ("p130", max(15.0, 1.05 * (9 + VALUE["p130"]) - VALUE["p130"]), 9.0),
    ],
)
def test_a_short_option(name: str, initial: float, maintenance: float) -> None:
    """The rule without the mark, which equity counts."""
    found = alone({name: -1.0})
    assert found.initial[0] == pytest.approx(initial) and found.maintenance[0] == pytest.approx(maintenance)
    assert alone({name: -3.0}).initial[0] == pytest.approx(3 * initial)


def test_a_long_option_needs_its_value() -> None:
    """No more can be lost, and no credit is given; a perpetual 20% of notional; what is owned nothing."""
    assert alone({"p110": 2.0}).initial[0] == pytest.approx(2 * VALUE["p110"])
    assert alone({"perp": -4.0}).initial[0] == pytest.approx(0.2 * 400)
    assert alone({"perp": 4.0}).maintenance[0] == pytest.approx(0.10 * 400)
    assert alone({"spot": 4.0}).initial[0] == 0


def test_spreads_are_capped_by_what_they_can_lose() -> None:
    """Of one expiry: the width less what was paid; a naked call, or legs of two expiries, are not capped."""
    credit = VALUE["c100"] - VALUE["c110"]
    found = alone({"c100": -1.0, "c110": 1.0})
    assert found.initial[0] == pytest.approx(10 - credit) and {s.label for s in found.steps} == {"max loss"}
    assert alone({"c110": -1.0, "c100": 1.0}).initial[0] == pytest.approx(credit)
    # A box is worth its width whatever happens.
    box = {"c100": 1.0, "c110": -1.0, "p110": 1.0, "p100": -1.0}
    assert alone(box).initial[0] == pytest.approx(
        VALUE["c100"] - VALUE["c110"] + VALUE["p110"] - VALUE["p100"] - 10, abs=1e-9
    )
    calendar = alone({"c100": -1.0, "c100F": 1.0})
    assert calendar.initial[0] == pytest.approx(15 + VALUE["c100F"]) and {s.label for s in calendar.steps} == {
        "each option"
    }
    assert alone({"c100": -2.0, "c110": 1.0}).initial[0] == pytest.approx(30 + VALUE["c110"])
    # Where each option alone asks more than 120% of the forward for the naked call and the loss at a strike.
    many = {"c90": -4.0, "c110": 3.0}
    bound = 4 * -VALUE["c90"] + 3 * VALUE["c110"] + (4 * 40 - 3 * 20) + 1.2 * 100
    assert alone(many).initial[0] == pytest.approx(min(60 + 3 * VALUE["c110"], bound))
    # A short put loses its strike at most.
    assert alone({"p90": -1.0, "p100": 1.0}).initial[0] == pytest.approx(VALUE["p100"] - VALUE["p90"])


@pytest.fixture(scope="module")
def drawn() -> ScenarioSet:
    return scenarios(mixed_market())


def test_collateral_nets_an_asset_and_no_more(drawn: ScenarioSet) -> None:
    """Haircut times net exposure by asset; options do not hedge; assets add up."""
    market = mixed_market()
    cut = {u: scan_ranges(drawn, u, 0.99).price for u in ("BTC", "SOL", "EUR")}
    found = collateral_margin(
        hold([("a", "BTC-PERPETUAL", 5e4), ("b", "BTC-PERPETUAL", 5e4), ("b", "BTC-NEAR", -3e4)],
             [("c", "EUR", -1000.0), ("b", "SOL", 10.0), ("c", "USD", 500.0)]), market, drawn,
    )  # fmt: skip
    expected = [cut["BTC"] * 5e4, cut["BTC"] * 2e4 + cut["SOL"] * 10 * market.base_price("SOL"), cut["EUR"] * 1080]
    np.testing.assert_allclose(found.initial, expected, rtol=1e-9)
    assert "BTC" in found.source and np.all(found.maintenance == 0.8 * found.initial)


@pytest.mark.parametrize("name", ["isolated", "collateral", "span", "deribit", "derive"])
def test_every_method_of_any_book(name: str, drawn: ScenarioSet) -> None:
    """Finite, not negative, in steps that add up, whoever stands beside; at least standard where nothing prices."""
    rows, owned = random_rows(14, 1)
    held = hold([*rows, ("lost", "NOT-LISTED", 2.0)], owned)
    [method] = methods_named([name], mixed_market(), mixed_model(), drawn)
    found = method(held)
    assert found.method == name and found.source
    for margin in (found.initial, found.maintenance):
        assert margin.shape == (held.n_accounts,) and np.all(np.isfinite(margin)) and np.all(margin >= 0)
    total = np.zeros(held.n_accounts)
    np.add.at(total, [s.account for s in found.steps], [s.amount for s in found.steps])
    np.testing.assert_allclose(np.maximum(total, 0), found.initial, rtol=1e-9, atol=1e-6)
    some = np.arange(0, held.n_accounts, 3)
    np.testing.assert_array_equal(method(held.accounts(some)).initial, found.initial[some])
    assert found.initial[list(held.account_id).index("lost")] > 0
    assert any("lost holds what cannot be valued" in n for n in found.notes)


def test_names_that_are_none() -> None:
    """They are refused with those that are."""
    with pytest.raises(UsageError, match="no method spam: there are mc, gross, span, isolated, collateral.*deribit"):
        methods_named(["spam", "mc"], mixed_market(), mixed_model(), scenarios(mixed_market()))
