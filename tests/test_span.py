"""SPAN: risk arrays and aggregation against recomputed figures of Takasbank's file, and what must hold of any book."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse, stats

from pmvar.errors import InputError
from pmvar.methods.span.aggregate import SpanMargin, span_margin
from pmvar.methods.span.arrays import SpanArrays, SpanContracts
from pmvar.methods.span.default import default_span, scan_ranges
from pmvar.methods.span.parameters import (
    STANDARD,
    CombinedCommodity,
    Leg,
    ShortOptionMethod,
    SpanParameters,
    SpotRate,
    Spread,
    scenario_label,
)
from pmvar.methods.standard import standard_margin
from pmvar.scenarios import ScenarioSet
from pmvar.types import PATH_TILE, Sampling
from pmvar.valuation.today import values_and_greeks
from tests.engines import SPOT, hold, mixed_market, mixed_model, random_rows, scenarios

# Takasbank, 2016-05-17: S = 94.642, t = .120548, r = .10, q = 0, PSR = 955, VSR 25%, cvf 100.
NAMES = ["future 201606", "future 201608", "call 86", "put 96", "call 96"]
CONTRACTS = SpanContracts(
    kind=np.array([0, 0, 1, -1, 1]),
    price=np.array([95.5, 96.8, 94.642, 94.642, 94.642]),
    strike=np.array([np.nan, np.nan, 86.0, 96.0, 96.0]),
    time=np.array([0.120548, 0.29, 0.120548, 0.120548, 0.120548]),
    vol=np.array([0.0, 0.0, 0.304521, 0.19994, 0.19994]),
    rate=np.full(5, 0.10),
    dividend=np.zeros(5),
    multiplier=np.full(5, 100.0),
    price_scan=np.full(5, 955.0),
    vol_scan=np.full(5, 0.25),
)
FUTURE = [0, 0, -318.333, -318.333, 318.333, 318.333, -636.667, -636.667, 636.667, 636.667, -955, -955, 955, 955,
          -916.80, 916.80]  # fmt: skip
CALL_86 = [-54.096428, 52.488091, -323.203735, -249.018707, 192.898132, 333.497894, -608.869873, -560.659912,
           412.026520, 579.254578, -906.301941, -876.626282, 598.218506, 774.331238, -891.402893,
           333.234863]  # fmt: skip
TOLERANCE = 0.005


def arrays() -> SpanArrays:
    """The five contracts as one commodity."""
    loss, delta = CONTRACTS.arrays(STANDARD)
    months = np.array(["201606", "201608", "201606", "201606", "201606"], dtype=object)
    value = np.array([0.0, 0.0, 950.0, 200.0, 250.0])
    return SpanArrays(np.zeros(5, int), months, CONTRACTS.kind, loss, delta, value, np.ones(5))


INTER_MONTH = Spread(955.0, (Leg(0, 1, 1.0), Leg(0, -1, 1.0)))
XU030 = CombinedCommodity("XU030", "TRY", spreads=(INTER_MONTH,))


def parameters(*commodities: CombinedCommodity, credits: tuple[Spread, ...] = ()) -> SpanParameters:
    """Of the standard grid."""
    return SpanParameters(STANDARD, commodities or (XU030,), credits, "test")


def margin(*held: dict[str, float], **changes: object) -> SpanMargin:
    """Margins of accounts, from name -> long contracts."""
    position = np.array([[one.get(name, 0.0) for name in NAMES] for one in held])
    given = parameters(replace(XU030, **changes)) if changes else parameters()  # pyright: ignore[reportArgumentType]
    return span_margin(sparse.csr_array(position), arrays(), given)


def steps(found: SpanMargin, account: int = 0) -> dict[str, float]:
    """Amount by name of step."""
    return {s.name: s.amount for s in found.steps if s.account == account}


def test_risk_arrays_of_takasbank() -> None:
    """Recomputed figures of the published file."""
    found = arrays()
    np.testing.assert_allclose(found.loss[0], FUTURE, atol=TOLERANCE)
    np.testing.assert_allclose(found.loss[2], CALL_86, atol=TOLERANCE)
    put = found.loss[3]
    np.testing.assert_allclose(put[[0, 12, 15]], [-62.045307, -743.329407, -837.346802], atol=TOLERANCE)
    np.testing.assert_allclose(found.delta[[0, 2, 3]], [1.0, 0.835427, -0.505068], atol=5e-6)


@pytest.mark.parametrize(
    ("held", "scan", "point"),
    [
        ({"future 201606": 1.0, "call 86": -1.0}, 583.565125, 16),
        ({"put 96": -1.0, "call 96": -1.0}, 756.679291, 16),
    ],
)
def test_scan_risk_of_takasbank(held: dict[str, float], scan: float, point: int) -> None:
    """A covered call and a short straddle; both lose most where the price falls three scan ranges."""
    found = margin(held, spreads=())
    [step] = [s for s in found.steps if s.name == "scan"]
    assert step.amount == pytest.approx(scan, abs=TOLERANCE) and step.label.startswith(f"#{point} ")
    assert found.risk[0, 0] == found.initial[0] == found.maintenance[0] == pytest.approx(scan, abs=TOLERANCE)


def test_calendar_of_takasbank() -> None:
    """Long one month, short another: no scan risk, and the charge between months, whichever is long."""
    for sign in (1, -1):
        found = margin({"future 201606": sign, "future 201608": -sign})
        assert steps(found) == {"inter-month": 955.0}
        assert found.initial[0] == 955.0
    assert steps(margin({"future 201606": 3, "future 201608": -2}))["inter-month"] == 2 * 955.0


def test_tiers_take_the_earliest_months_first_and_in_priority() -> None:
    """A dear spread of tiers 1 and 2 before a cheap one of all months; what one took the other cannot."""
    months = (("201606", (1,)), ("201608", (2,)))
    dear = Spread(100.0, (Leg(0, 1, 1.0, tier=1), Leg(0, -1, 2.0, tier=2)))
    found = margin({"future 201606": 5, "future 201608": -4}, months=months, spreads=(dear, INTER_MONTH))
    # Two of the first use 2 long and 4 short: nothing short is left for the second.
    assert [s.amount for s in found.steps if s.name == "inter-month"] == [200.0]
    swapped = margin({"future 201606": 5, "future 201608": -4}, months=months, spreads=(INTER_MONTH, dear))
    assert [s.amount for s in swapped.steps if s.name == "inter-month"] == [4 * 955.0]


def test_spot_month() -> None:
    """So much for each delta that a spread took, so much for each that is left."""
    found = margin({"future 201606": 3, "future 201608": -2}, spot=(SpotRate("201606", 10.0, 25.0),))
    assert steps(found)["spot month"] == 2 * 10.0 + 1 * 25.0


@pytest.mark.parametrize(("method", "count"), [(ShortOptionMethod.GROSS, 5), (ShortOptionMethod.MAX, 3)])
def test_short_option_minimum(method: ShortOptionMethod, count: int) -> None:
    """Where the scan finds less, the short options' minimum holds: all of them, or the more numerous right."""
    held = {"call 86": -2.0, "put 96": -3.0}
    found = margin(held, short_option_minimum=1e4, short_option_method=method, spreads=())
    assert found.initial[0] == pytest.approx(count * 1e4)
    assert steps(found)["short option minimum"] == pytest.approx(count * 1e4 - steps(found)["scan"])
    assert "short option minimum" not in steps(margin(held, short_option_minimum=1.0, spreads=()))


def test_long_options_risk_their_value_at_most() -> None:
    """Of a book of long options alone; with a future in it the cap is off."""
    found = margin({"put 96": 1.0})
    assert steps(found)["scan"] > 250 and found.initial[0] == pytest.approx(200.0)
    assert found.net_option_value[0, 0] == 200 and found.requirement[0] == 0
    assert "long option cap" not in steps(margin({"put 96": 1.0, "future 201606": 1.0}))
    short = margin({"put 96": -1.0})
    assert short.requirement[0] == pytest.approx(short.risk[0, 0] + 200)


def test_initial_over_maintenance() -> None:
    """The ratio is a step of its own."""
    found = margin({"future 201606": 2.0}, initial_ratio=1.25)
    assert found.maintenance[0] == pytest.approx(2 * 955) and found.initial[0] == pytest.approx(2.5 * 955)
    assert steps(found)["initial ratio"] == pytest.approx(0.5 * 955)


def two_commodities() -> SpanArrays:
    """A future on each of two: scan ranges 100 and 30."""
    move = np.round(STANDARD.price * STANDARD.weight, 12)
    return SpanArrays(
        np.array([0, 1]), np.array(["1", "1"], dtype=object), np.zeros(2, int), -np.outer([100.0, 30.0], move),
        np.ones(2), np.zeros(2), np.ones(2),
    )  # fmt: skip


def test_credit_between_commodities() -> None:
    """By hand: ratio 1 : 3, so that one spread takes a delta of A and three of B; each leg is credited 60% of its price
    risk, 100 and 30 for a delta. The same way round both, or not at all where they run together."""
    credit = Spread(0.6, (Leg(0, 1, 1.0), Leg(1, -1, 3.0)))
    given = parameters(CombinedCommodity("A", "USD"), CombinedCommodity("B", "USD"), credits=(credit,))
    position = sparse.csr_array(np.array([[2.0, -3.0], [-2.0, 3.0], [2.0, 3.0], [2.0, -9.0]]))
    found = span_margin(position, two_commodities(), given)
    one = 200 + 90 - 0.6 * (100 + 3 * 30)
    np.testing.assert_allclose(found.initial, [one, one, 290, 200 + 270 - 2 * 0.6 * 190], rtol=1e-12)
    assert [(s.group, s.amount) for s in found.steps if s.name == "credit" and s.account == 0] == [
        ("A", pytest.approx(-60)), ("B", pytest.approx(-54)),
    ]  # fmt: skip


def test_credit_by_tier() -> None:
    """By hand, A's months 1 and 2 in tiers of their own: only the near one is credited against B, at A's price risk a
    delta, 100; where the far month turns A's net delta down to 1, no more than its price risk is."""
    move = np.round(STANDARD.price * STANDARD.weight, 12)
    arrays = SpanArrays(
        np.array([0, 0, 1]), np.array(["1", "2", "1"], dtype=object), np.zeros(3, int),
        -np.outer([100.0, 100.0, 30.0], move), np.ones(3), np.zeros(3), np.ones(3),
    )  # fmt: skip
    a = CombinedCommodity("A", "USD", months=(("2", (1,)),), credit_months=(("1", (1,)), ("2", (2,))))
    near = Spread(0.5, (Leg(0, 1, 1.0, 1), Leg(1, -1, 1.0)))
    given = parameters(a, CombinedCommodity("B", "USD"), credits=(near,))
    held = [[2.0, 0.0, -2.0], [0.0, 2.0, -2.0], [3.0, 1.0, -4.0], [3.0, -2.0, -3.0]]
    found = span_margin(sparse.csr_array(np.array(held)), arrays, given)
    np.testing.assert_allclose(
        found.risk, [[200 - 100, 60 - 30], [200, 60], [400 - 150, 120 - 45], [100 - 50, 90 - 45]], rtol=1e-12
    )


books = st.lists(
    st.lists(st.sampled_from([0.0, 1.0, -1.0, 2.0, -3.0, 7.0, -0.5]), min_size=5, max_size=5), min_size=1, max_size=6
)
FULL = replace(
    XU030, short_option_minimum=40.0, initial_ratio=1.1, spot=(SpotRate("201606", 3.0, 5.0),),
    months=(("201606", (1,)), ("201608", (2,))),
    spreads=(Spread(50.0, (Leg(0, 1, 1.0, 1), Leg(0, -1, 1.0, 2))), INTER_MONTH),
)  # fmt: skip


@settings(max_examples=60)
@given(books)
def test_what_holds_of_every_book(held: list[list[float]]) -> None:
    """Finite and not negative; steps add up; an account alone as among others; homogeneous in the positions."""
    position = np.array(held)
    found = span_margin(sparse.csr_array(position), arrays(), parameters(FULL))
    assert np.all(np.isfinite(found.initial)) and np.all(found.initial >= found.maintenance) and np.all(found.risk >= 0)
    total = np.zeros(len(held))
    np.add.at(total, [s.account for s in found.steps], [s.amount for s in found.steps])
    np.testing.assert_allclose(total, found.initial, rtol=1e-12, atol=1e-9)
    alone = [span_margin(sparse.csr_array(row[None]), arrays(), parameters(FULL)).initial[0] for row in position]
    np.testing.assert_array_equal(alone, found.initial)
    twice = span_margin(sparse.csr_array(2 * position), arrays(), parameters(FULL))
    np.testing.assert_allclose(twice.initial, 2 * found.initial, rtol=1e-12)


def test_labels_of_scenarios() -> None:
    """As a risk officer counts them."""
    assert scenario_label(STANDARD, 0) == "#1 price 0 PSR, vol up"
    assert scenario_label(STANDARD, 5) == "#6 price −1/3 PSR, vol down"
    assert scenario_label(STANDARD, 15) == "#16 price −3 PSR, 32%"


def test_parameters_that_cannot_be_are_refused() -> None:
    """Each names what it must be."""
    for make, rule in (
        (lambda: replace(STANDARD, paired=np.zeros(16, int)), "points pair up"),
        (lambda: replace(STANDARD, delta_weight=np.ones(7)), "sum 7"),
        (lambda: Leg(0, 2, 1.0), "side A or B"),
        (lambda: Spread(-1.0, INTER_MONTH.legs), "rate ≥ 0"),
        (lambda: Spread(1.0, (Leg(0, 1, 1.0), Leg(0, 1, 1.0))), "both sides"),
        (lambda: replace(XU030, initial_ratio=0.9), "initial ratio ≥ 1"),
        (lambda: parameters(credits=(Spread(0.5, (Leg(0, 1, 1.0), Leg(1, -1, 1.0))),)), "known commodities"),
    ):
        with pytest.raises(InputError, match=rule):
            make()


# ---- SPAN of a book without a file ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn() -> ScenarioSet:
    """Weighted scenarios, as a run has them."""
    return scenarios(mixed_market(), n=2 * PATH_TILE, sampling=Sampling.SOBOL_IS)


def test_scan_ranges_are_quantiles_of_the_model(drawn: ScenarioSet) -> None:
    """Of a t with four degrees of freedom over two days, against its own law: within the noise of 8,192 paths."""
    model = mixed_model()
    for name in ("BTC", "SOL"):
        found = scan_ranges(drawn, name, 0.99)
        x = {f.name: f for f in model.factors}
        scale = np.sqrt(2) * np.sqrt(0.5)  # two days, variance ν/(ν − 2)
        vol = x[f"{name}:vol"].volatility * scale * stats.t(4).ppf(0.995)
        assert found.log_vol == pytest.approx(vol, rel=0.05)
        price = x[f"{name}:spot"].volatility * scale * stats.t(4).ppf(0.995)
        assert found.price == pytest.approx(price, rel=0.1)
    assert scan_ranges(drawn, "EUR", 0.99).log_vol == 0


def test_default_span_of_linear_positions(drawn: ScenarioSet) -> None:
    """A perpetual scans its range of the notional, and short the same; the extreme move stops above zero."""
    psr = scan_ranges(drawn, "SOL", 0.99).price
    found = default_span(mixed_market(), mixed_model(), drawn)(
        hold([("long", "SOL-PERPETUAL", 10.0), ("short", "SOL-PERPETUAL", -10.0)])
    )
    notional = 10 * SPOT["SOL"] * SPOT["USDC"]
    by = dict(zip(["long", "short"], found.initial, strict=True))
    worst = max(psr, 0.32 * min(3 * psr, 1 - 1e-3))
    assert by["long"] == pytest.approx(worst * notional, rel=1e-9)
    assert by["short"] == pytest.approx(max(psr, 0.32 * 3 * psr) * notional, rel=1e-9)
    assert "no SPAN file" in found.notes[0] and "SOL" in found.source


def test_default_span_nets_months_and_credits_underlyings(drawn: ScenarioSet) -> None:
    """A calendar pays the inter-month charge alone; BTC against ETH is credited, BTC beside ETH is not."""
    method = default_span(mixed_market(), mixed_model(correlation=close_coins()), drawn)
    btc, eth = 1e5, 1e5
    found = method(hold([
        ("calendar", "BTC-NEAR", btc), ("calendar", "BTC-PERPETUAL", -btc),
        ("pair", "BTC-PERPETUAL", btc), ("pair", "ETH-PERPETUAL", -eth),
        ("same", "BTC-PERPETUAL", btc), ("same", "ETH-PERPETUAL", eth),
    ]))  # fmt: skip
    names = ["calendar", "pair", "same"]
    margins = dict(zip(names, found.initial, strict=True))
    kinds = {n: {s.name for s in found.steps if s.account == i} for i, n in enumerate(names)}
    assert "inter-month" in kinds["calendar"] and margins["calendar"] < 0.2 * margins["same"]
    assert "credit" in kinds["pair"] and "credit" not in kinds["same"]
    assert margins["pair"] < 0.75 * margins["same"]


def close_coins() -> np.ndarray:
    """The mixed model's correlations, BTC and ETH at .8."""
    c = mixed_model().correlation.copy()
    c[0, 1] = c[1, 0] = 0.8
    return c


def test_default_span_of_any_book(drawn: ScenarioSet) -> None:
    """Finite, not negative, in steps that add up, whoever stands beside; at least standard where nothing prices."""
    held, owned = random_rows(20, 2)
    held = [*held, ("lost", "NOT-LISTED", 2.0), ("lost", "BTC-PERPETUAL", 1e4)]
    market = mixed_market()
    method = default_span(market, mixed_model(), drawn)
    portfolio = hold(held, owned)
    found = method(portfolio)
    assert (
        np.all(np.isfinite(found.initial)) and np.all(found.initial >= 0) and np.all(found.maintenance <= found.initial)
    )
    total = np.zeros(portfolio.n_accounts)
    np.add.at(total, [s.account for s in found.steps], [s.amount for s in found.steps])
    np.testing.assert_allclose(total, found.initial, rtol=1e-9, atol=1e-6)
    half = method(portfolio.accounts(np.arange(0, portfolio.n_accounts, 2)))
    np.testing.assert_array_equal(half.initial, found.initial[::2])
    row = list(portfolio.account_id).index("lost")
    value, _ = values_and_greeks(portfolio.instruments, market)
    assert found.initial[row] >= standard_margin(portfolio, market, value)[row] > 0
    assert any("lost holds what cannot be valued" in n for n in found.notes)
