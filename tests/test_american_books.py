"""American options in books: P&L under scenarios against QuantLib, limits, gradients, refusals, columns."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import QuantLib as ql

import pmvar
from pmvar.instruments import Instruments
from pmvar.io.book import load_book
from pmvar.io.span_read import read_span
from pmvar.io.span_write import write_span
from pmvar.kernels.smile import NODES
from pmvar.market.curves import DiscountCurve, ForwardCurve
from pmvar.market.snapshot import MarketSnapshot
from pmvar.market.surface import VolSlice, VolSurface
from pmvar.methods.fallback import unpriceable
from pmvar.methods.grid_file import read_rules
from pmvar.methods.grid_values import VenueState, grid_values
from pmvar.methods.span.default import default_arrays
from pmvar.risk.rules import MarginRules
from pmvar.scenarios import ScenarioSet, stress_scenarios
from pmvar.types import PATH_TILE, Greek, Precision
from pmvar.valuation.blocks import AmericanBlock, TangentBlock, block_pnl, no_bump
from pmvar.valuation.exposure import block_exposure
from pmvar.valuation.today import STILL, terms_today, values_and_greeks, values_under
from tests.books import small_book, small_rows
from tests.grids import MINIMAL
from tests.markets import (
    AS_OF,
    DAY,
    YEAR,
    flat_rate,
    flat_vol,
    instrument,
    portfolio,
    snapshot,
    specification,
    table,
)
from tests.test_gradient import bumped

DAYS = (1, 20, 90, 400)
"""To expiry: the first inside the horizon of two days."""
EXPIRY = AS_OF + DAY * np.array(DAYS)
SPOT = {"STK": 50.0, "OIL": 80.0, "GAS": 3.0}
CARRY = {"STK": (0.03, 0.0, -0.02, 0.01), "OIL": (0.0, -0.02, 0.06, 0.03), "GAS": (0.2, 0.1, -0.1, 0.0)}
"""ln(F/S) per year at each expiry: dividends that come and go."""
DELIVERABLE = {"STK": "spot", "OIL": "future", "GAS": "spot"}
HORIZON = AS_OF + 2 * DAY


def smile(level: float) -> VolSurface:
    """Skewed, on a fine grid: the tabulated smile is then the smile to 1e-7."""
    k = np.linspace(-3, 3, 2001)
    return VolSurface(AS_OF, tuple(VolSlice(t, k, level * (1 - 0.2 * np.tanh(k) + 0.1 * k**2)) for t in EXPIRY))


def market(**changes: object) -> MarketSnapshot:
    found = snapshot(
        {name: (price, "USD") for name, price in SPOT.items()},
        forwards={
            name: ForwardCurve(AS_OF, price, EXPIRY, price * np.exp(np.array(CARRY[name]) * (EXPIRY - AS_OF) / YEAR))
            for name, price in SPOT.items()
        },
        discounts={"USD": DiscountCurve(AS_OF, EXPIRY, np.array([0.05, 0.045, 0.055, 0.06]))},
        vols={"STK": smile(0.3), "OIL": smile(0.4), "GAS": smile(0.7)},
    )
    return replace(found, **changes)


def options(exercise: str = "american") -> Instruments:
    rows = []
    for name, price in SPOT.items():
        for day, expiry in zip(DAYS, EXPIRY, strict=True):
            for ratio in (0.7, 0.9, 0.97, 1.0, 1.05, 1.3):
                for side in ("call", "put"):
                    rows.append(
                        instrument(f"{name}-{day:03d}-{ratio}-{side}", "option", name, expiry=float(expiry), size=2.0,
                                   strike=round(ratio * price, 4), put_call=side, exercise=exercise,
                                   deliverable=DELIVERABLE[name] if exercise == "american" else "")
                    )  # fmt: skip
    return table(rows)


AMERICAN, EUROPEAN = options(), options("european")
MODEL = specification(
    {f"{name}:{kind}": x for name in SPOT for kind, x in (("spot", 0.03), ("vol", 0.06))},
    model="t", degrees_of_freedom=4.0, correlation=0.3 * np.eye(6) + 0.7, term_exponent=0.4,
)  # fmt: skip


@pytest.fixture(scope="module")
def drawn() -> ScenarioSet:
    return pmvar.simulate(MODEL, market(), seed=3, n_scenarios=PATH_TILE, horizon="2d")


def held(instruments: Instruments) -> pmvar.Portfolio:
    return portfolio(instruments, {"A": dict.fromkeys(map(str, instruments.instrument_id), 1.0)})


def profit(
    instruments: Instruments, drawn: ScenarioSet, precision: str = "float32", where: MarketSnapshot | None = None
) -> np.ndarray:
    """P&L of one contract of each, [instrument, scenario]."""
    pnl = pmvar.reprice(held(instruments), where or market(), drawn, precision=Precision(precision))
    assert not pnl.plan.unpriced
    return np.asarray(pnl.tile(0), np.float64)[pnl.row][:, : drawn.n_scenarios]


FINE = ql.QdFpLegendreScheme(32, 10, 16, 64)
"""A thousand prices a second, within 3e-6 of the strike; `highPrecisionScheme` takes half a second each."""


def quantlib(
    scheme: ql.QdFpIterationScheme,
    spot: float,
    strike: float,
    vol: float,
    days: float,
    rate: float,
    held: float,
    sign: float,
) -> float:
    today, count = ql.Date(1, 1, 2026), ql.Actual365Fixed()
    ql.Settings.instance().evaluationDate = today
    flat = [ql.YieldTermStructureHandle(ql.FlatForward(today, x, count)) for x in (held, rate)]
    surface = ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.NullCalendar(), vol, count))
    process = ql.BlackScholesMertonProcess(ql.QuoteHandle(ql.SimpleQuote(spot)), flat[0], flat[1], surface)
    kind = ql.Option.Call if sign > 0 else ql.Option.Put
    end = today + round(days)
    option = ql.VanillaOption(ql.PlainVanillaPayoff(kind, strike), ql.AmericanExercise(today, end))
    option.setPricingEngine(ql.QdFpAmericanEngine(process, scheme))
    return option.NPV()


def terms_in(i: int, drawn: ScenarioSet | None, path: int | None) -> tuple[float, ...]:
    """Spot, strike, vol, days, rate, yield and sign of option i today (path None) or at the horizon of a path.

    Written from the definitions: F₁(T) = S₁·F₀(T)/F₀(h), D₁ = D₀(T)/D₀(h), the smile sticky in ln(K/F) and linear
    between `NODES`, which is the engine's own approximation and has its test with the European options.
    """
    where, a = market(), AMERICAN
    name, expiry, strike = str(a.underlying[i]), float(a.expiry[i]), float(a.strike[i])
    start = AS_OF if path is None else HORIZON
    curve, discount, year = where.forwards[name], where.discounts["USD"], (expiry - start) / YEAR
    carry = float(np.log(curve.at(expiry) / curve.at(start))) / year
    rate = float(np.log(discount.discount_factor(start) / discount.discount_factor(expiry))) / year
    spot, up, move, nodes = SPOT[name], 0.0, 0.0, np.zeros(1)
    if path is not None and drawn is not None:
        shock = np.asarray(drawn.tile(0).shock)[path]
        move, nodes = float(shock[drawn.factors.index(f"{name}:spot")]), NODES
        x = shock[drawn.factors.index(f"{name}:vol")] * (30 / (year * 365)) ** 0.4
        up = drawn.vol_cap * np.tanh(x / drawn.vol_cap)
    k = np.log(strike / (spot * np.exp(carry * year))) - nodes
    vol = float(np.interp(move, nodes, where.vols[name].vol(k, expiry)) * np.exp(up))
    spot *= np.exp(move)
    forward = spot * np.exp(carry * year)
    sign = 1.0 if a.put_call[i] == "call" else -1.0
    if a.deliverable[i] == "future":
        return forward, strike, vol, year * 365, rate, rate, sign
    return spot, strike, vol, year * 365, rate, rate - carry, sign


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 3e-6), ("float32", 3.5e-6)])
def test_profit_against_quantlib(drawn: ScenarioSet, precision: str, tolerance: float) -> None:
    """The whole path: model, world, smile, boundaries, today's value; on paths at random and on the widest."""
    pnl = profit(AMERICAN, drawn, precision)
    rng, alive = np.random.default_rng(1), np.flatnonzero(AMERICAN.expiry > HORIZON)
    extreme = np.argsort(np.abs(np.asarray(drawn.tile(0).shock)).max(1))[-40:]
    error = []
    for count, i in enumerate(rng.choice(alive, 300)):
        path = int(rng.choice(extreme)) if count % 3 == 0 else int(rng.integers(PATH_TILE))
        today, then = (quantlib(FINE, *terms_in(i, drawn, p)) for p in (None, path))
        size = max(SPOT[str(AMERICAN.underlying[i])], float(AMERICAN.strike[i]))
        error.append(abs(pnl[i, path] / 2.0 - (then - today)) / size)
    assert max(error) <= tolerance


@pytest.fixture(scope="module")
def wide(drawn: ScenarioSet) -> tuple[np.ndarray, np.ndarray]:
    """P&L of Americans and Europeans in float64."""
    return profit(AMERICAN, drawn, "float64"), profit(EUROPEAN, drawn, "float64")


def test_worth_at_least_a_european_and_its_exercise(
    drawn: ScenarioSet, wide: tuple[np.ndarray, np.ndarray]
) -> None:
    """Under every scenario, to 3e-6 of max(S, K); calls on what yields nothing wait, and are worth as much."""
    value, _ = values_and_greeks(AMERICAN, market())
    european, _ = values_and_greeks(EUROPEAN, market())
    size = 2.0 * np.maximum(AMERICAN.strike, [SPOT[u] for u in AMERICAN.underlying])
    assert np.all(value - european >= -1e-6 * size) and np.mean(value - european > 1e-4 * size) > 0.3
    alive = AMERICAN.expiry > HORIZON
    then = (value[:, None] + wide[0])[alive]
    growth = np.exp(np.abs(np.asarray(drawn.tile(0).shock)).max(1))
    assert np.all(then - (european[:, None] + wide[1])[alive] >= -3e-6 * size[alive, None] * growth)
    paid = []
    for i in np.flatnonzero(alive):
        name, sign = str(AMERICAN.underlying[i]), 1.0 if AMERICAN.put_call[i] == "call" else -1.0
        shock = np.asarray(drawn.tile(0).shock)[:, drawn.factors.index(f"{name}:spot")]
        spot = SPOT[name] * np.exp(shock)
        if AMERICAN.deliverable[i] == "future":
            curve = market().forwards[name]
            spot = spot * float(curve.at(AMERICAN.expiry[i]) / curve.at(HORIZON))
        paid.append(2.0 * np.maximum(sign * (spot - AMERICAN.strike[i]), 0))
    assert np.min((then - np.array(paid)) / size[alive, None]) >= -1e-12
    assert np.any(np.abs(then - np.array(paid)) <= 1e-12 * size[alive, None]), "some are exercised"


def test_what_expires_inside_the_horizon_settles_as_a_european(wide: tuple[np.ndarray, np.ndarray]) -> None:
    soon = AMERICAN.expiry < HORIZON
    today = values_and_greeks(AMERICAN, market())[0] - values_and_greeks(EUROPEAN, market())[0]
    np.testing.assert_allclose(wide[0][soon] + today[soon, None], wide[1][soon], rtol=0, atol=1e-9)


def test_no_time_and_no_move_is_no_profit() -> None:
    """To the accuracy of the table."""
    still = stress_scenarios({"nothing": {}}, MODEL, market())
    assert np.max(np.abs(profit(AMERICAN, still, "float64")[:, 0]) / (2 * AMERICAN.strike)) <= 2e-6


FIELDS = {"log_spot": 1e-4, "vol": 1e-4, "rate": 1e-4}


def displaced(where: MarketSnapshot, field: str, size: float) -> MarketSnapshot:
    """All prices, vols or zero rates moved."""
    kind = {"log_spot": "spot", "vol": "vol", "rate": "rate"}[field]
    for name in ["USD"] if kind == "rate" else SPOT:
        where = bumped(where, f"{name}:{kind}", float(np.expm1(size)) if kind == "spot" else size)
    return where


def test_gradients_against_differences(drawn: ScenarioSet) -> None:
    """By today's price, vol and rate, through the boundary: the same scenarios in a displaced market."""
    pnl = pmvar.reprice(held(AMERICAN), market(), drawn, precision=Precision.FLOAT64)
    world = pnl.plan.layout.world(0)
    near = [block.tangent(world) for _, block in pnl.plan.blocks]
    found = [block_exposure(block, world, drawn.vol_cap) for block in near]
    for (_, block), tangent in zip(pnl.plan.blocks, near, strict=True):
        assert isinstance(block, AmericanBlock) and isinstance(tangent, TangentBlock)
        # What is differentiated is the P&L.
        own = block.profit(tangent.put, world, no_bump(world.log_base.dtype))
        np.testing.assert_allclose(own, block_pnl(block, world), rtol=0, atol=1e-12)
    size = 2.0 * np.maximum(AMERICAN.strike, [SPOT[u] for u in AMERICAN.underlying])[:, None]
    growth = np.exp(2 * np.abs(np.asarray(drawn.tile(0).shock)).max(1))
    alive = AMERICAN.expiry > HORIZON
    for field, width in FIELDS.items():
        own = np.asarray(pnl.stacked([getattr(x, field) for x in found]))[pnl.row]
        up, down = (profit(AMERICAN, drawn, "float64", displaced(market(), field, x)) for x in (width, -width))
        # What is settled has a kink at its strike.
        error = (np.abs(own - (up - down) / (2 * width)) / size / growth)[alive]
        assert np.isfinite(own).all() and np.max(np.abs(own) / size) > 0.05
        # Gamma has a step at the boundary, and the slope of a smile between two of `NODES` is that of the chord.
        most, typical = (1e-3, 5e-5) if field == "log_spot" else (1e-4, 5e-6)
        assert np.quantile(error, 0.9999) <= most and np.sqrt(np.mean(error**2)) <= typical, field


def test_greeks_against_differences() -> None:
    """Of today's values, the volatility of a strike and the forward held."""
    where = market()
    _, found = values_and_greeks(AMERICAN, where)
    terms = terms_today(AMERICAN, where)
    spot = np.array([SPOT[u] for u in AMERICAN.underlying])

    def change(field: str) -> np.ndarray:
        width = 1e-5 if field == "clock" else 1e-4
        up, down = (values_under(AMERICAN, terms, STILL._replace(**{field: x}))[:, 0] for x in (width, -width))
        return (up - down) / (2 * width)

    def greek(name: Greek) -> np.ndarray:
        return np.sum([s.value for s in found if s.greek is name], axis=0)

    for name, field, unit in (
        (Greek.DELTA, "log_spot", 1 / spot), (Greek.VEGA, "vol", 1.0), (Greek.RHO, "rate", 1.0),
        (Greek.THETA, "clock", DAY / YEAR),
    ):  # fmt: skip
        slope = change(field)
        scale = np.maximum(np.abs(slope), 1e-2 * spot) * unit
        assert np.max(np.abs(greek(name) - slope * unit) / scale) <= 2e-3, name
    assert np.all(np.isfinite(greek(Greek.GAMMA))) and np.all(greek(Greek.GAMMA) >= -1e-9)


def test_deep_options_are_exercised_or_nothing() -> None:
    rows = [
        instrument(f"{side}-{ratio}", "option", "STK", expiry=float(EXPIRY[2]), strike=50.0 * ratio, put_call=side,
                   exercise="american", deliverable="spot")
        for side in ("call", "put")
        for ratio in (0.02, 50.0)
    ]  # fmt: skip
    a, where = table(rows), replace(market(), vols=dict.fromkeys(SPOT, flat_vol(0.3)))
    value, greeks = values_and_greeks(a, where)
    by = {s.greek: s.value for s in greeks}
    # call-0.02, call-50.0, put-0.02, put-50.0: the call pays its strike early, which costs the interest on it
    assert value[3] == pytest.approx(50.0 * 49, rel=1e-14) and by[Greek.DELTA][3] == pytest.approx(-1.0, rel=1e-14)
    assert by[Greek.GAMMA][3] == by[Greek.VEGA][3] == by[Greek.RHO][3] == 0.0
    # Forwards stand while time passes, so the spot runs along its curve.
    assert by[Greek.THETA][3] == pytest.approx(0.02 * 50 / 365, rel=1e-9)
    np.testing.assert_allclose(value[[1, 2]], 0.0, atol=1e-12)
    assert value[0] >= 49.0


def test_put_call_symmetry() -> None:
    """C(S, K, r, q) = P(K, S, q, r): a call on a dollar price, a put on a price in euro that swaps the rates."""
    year = (EXPIRY[2] - AS_OF) / YEAR
    where = snapshot(
        {"A": (90.0, "USD"), "B": (100.0, "EUR"), "EUR": (1.0, "USD")},
        forwards={
            "A": ForwardCurve(AS_OF, 90.0, EXPIRY[2:3], np.array([90 * np.exp(0.03 * year)])),
            "B": ForwardCurve(AS_OF, 100.0, EXPIRY[2:3], np.array([100 * np.exp(-0.03 * year)])),
        },
        discounts={c: DiscountCurve(AS_OF, EXPIRY[2:3], np.array([r])) for c, r in (("USD", 0.05), ("EUR", 0.02))},
        vols=dict.fromkeys(("A", "B"), flat_vol(0.3)),
    )
    rows = [
        instrument(name, "option", name, quote=quote, expiry=float(EXPIRY[2]), strike=strike, put_call=side,
                   exercise="american", deliverable="spot")
        for name, quote, strike, side in (("A", "USD", 100.0, "call"), ("B", "EUR", 90.0, "put"))
    ]  # fmt: skip
    value, _ = values_and_greeks(table(rows), where)
    assert value[0] == pytest.approx(value[1], rel=1e-12)


@pytest.mark.parametrize("vol", [1e-9, 1e-3, 9.0])
def test_limits_are_finite_in_value_and_gradient(vol: float) -> None:
    """σ → 0 and far up, with expiries inside the horizon, moves to −99% and ×20 and no move at all; float32."""
    where = replace(market(), vols=dict.fromkeys(SPOT, flat_vol(vol)))
    moves = {"crash": -0.99, "rally": 19.0, "still": 0.0}
    listed = {n: {f"{u}:spot": x for u in SPOT} | {f"{u}:vol": 0.5 for u in SPOT} for n, x in moves.items()}
    pnl = pmvar.reprice(held(AMERICAN), where, stress_scenarios(listed, MODEL, where))
    world = pnl.plan.layout.world(0)
    for _, block in pnl.plan.blocks:
        found = block_exposure(block.tangent(world), world, np.inf)
        assert all(np.isfinite(np.asarray(x)).all() for x in found)
    value, greeks = values_and_greeks(AMERICAN, where)
    assert np.isfinite(np.asarray(pnl.tile(0))).all() and all(np.isfinite(s.value).all() for s in greeks)
    paid = np.where(AMERICAN.put_call == "put", AMERICAN.strike - [SPOT[u] * 0.01 for u in AMERICAN.underlying], 0.0)
    on_spot = AMERICAN.deliverable == "spot"
    then = value + np.asarray(pnl.tile(0), np.float64)[pnl.row, 0]
    assert np.all((then - 2 * np.maximum(paid, 0))[on_spot] >= -1e-6 * AMERICAN.strike[on_spot])


TWO = {
    "call": ("STK-090-1.0-call", replace(market(), discounts={"USD": flat_rate(-0.03)}), "call under a rate of -3.0"),
    "put": ("STK-400-1.0-put", replace(market(), discounts={"USD": flat_rate(-0.01)}), "put under a rate of -1.0"),
}


@pytest.mark.parametrize("side", list(TWO))
def test_two_boundaries_are_refused_and_withheld(side: str, drawn: ScenarioSet) -> None:
    """r < q < 0 of a call, q < r < 0 of a put: never zero, never a guess; the same option as a European is priced."""
    name, where, reason = TWO[side]
    i = list(AMERICAN.instrument_id).index(name)
    one, other = AMERICAN.take(np.array([i])), EUROPEAN.take(np.array([i]))
    pnl = pmvar.reprice(held(one), where, drawn)
    assert name in pnl.plan.unpriced[0] and reason in pnl.plan.unpriced[0]
    assert not pmvar.reprice(held(other), where, drawn).plan.unpriced
    book = portfolio(one, {"A": {name: -1.0}})
    found = pmvar.margin_report(pmvar.reprice(book, where, drawn), book, MarginRules()).tables["margins"]
    assert found["status"].tolist() == ["WITHHELD"] and reason in found["reason"][0]
    assert found["initial_margin"][0] >= 0.09 * 2 * 50.0


def test_inverse_americans_are_refused(drawn: ScenarioSet) -> None:
    row = instrument("I", "option", "STK", settlement="inverse", expiry=float(EXPIRY[1]), strike=50.0, put_call="put",
                     exercise="american", deliverable="spot")  # fmt: skip
    pnl = pmvar.reprice(held(table([row])), market(), drawn)
    assert pnl.plan.unpriced == {0: "I is an American option that settles in its underlying, which is not priced"}


def test_margins_do_not_depend_on_neighbours_or_order(drawn: ScenarioSet) -> None:
    """Every table of an account to the bit: beside another one, in another order, with Europeans listed or not."""
    names = [str(n) for n in AMERICAN.instrument_id[::7]]
    mine = {n: float(q) for n, q in zip(names, np.random.default_rng(2).normal(size=len(names)), strict=True)}
    shuffled = AMERICAN.take(np.random.default_rng(3).permutation(len(AMERICAN)))

    def tables(book: pmvar.Portfolio) -> Any:
        return pmvar.margin_report(pmvar.reprice(book, market(), drawn), book, MarginRules()).tables

    alone = tables(portfolio(AMERICAN, {"A": mine}, {"A": {"USD": 1e3}}))
    crowd = tables(
        portfolio(
            shuffled,
            {"B": dict.fromkeys(map(str, AMERICAN.instrument_id), 1.0), "A": dict(reversed(mine.items()))},
            {"A": {"USD": 1e3}},
        )
    )
    for name, columns in alone.items():
        if "account_id" in columns:
            own = crowd[name]["account_id"] == "A"
            for column, values in columns.items():
                np.testing.assert_array_equal(crowd[name][column][own], values, err_msg=f"{name}.{column}")
    g = alone["greeks"]
    assert len(g["value"]) and np.isfinite(g["value"]).all() and np.isfinite(alone["model_greeks"]["value"]).all()
    assert alone["margins"]["isolated_margin"][0] > 0


def test_grids_value_and_delta() -> None:
    """A grid's values are American prices after its moves; its delta is the American's."""
    a = AMERICAN.take(np.flatnonzero((AMERICAN.underlying == "STK") & (AMERICAN.expiry == EXPIRY[2])))
    rules = read_rules(MINIMAL.encode(), file="minimal.toml")
    found = grid_values(a, market(), rules, VenueState())
    where = list(AMERICAN.instrument_id)
    for j, name in enumerate(a.instrument_id):
        spot, *rest = terms_in(where.index(name), None, None)
        exact = [2.0 * quantlib(FINE, spot * (1 + move), *rest) for move in (-0.1, 0.0, 0.2)]
        np.testing.assert_allclose(found.value[j, :3], exact, rtol=0, atol=2 * 3e-6 * 50 * 1.3)
    _, greeks = values_and_greeks(a, market())
    np.testing.assert_allclose(found.delta, next(s.value for s in greeks if s.greek is Greek.DELTA), rtol=1e-9)


def test_a_book_on_disk(tmp_path: Path) -> None:
    """The column is read; a blank deliverable is the spot; the run goes through and says what it is worth."""
    rows = small_rows()
    for row in rows["instruments"]:
        if row["instrument_id"] == "BTC_USD-28MAR25-110000-C":
            row["exercise"] = "american"
    book = load_book(small_book(tmp_path / "book", rows=rows))
    listed = book.portfolio.instruments
    i = list(listed.instrument_id).index("BTC_USD-28MAR25-110000-C")
    assert (listed.exercise[i], listed.deliverable[i]) == ("american", "spot")
    assert set(listed.deliverable.tolist()) == {"", "spot"} and listed.exercise[0] == "european"
    assert not unpriceable(listed, book.market)


def test_arrays_written_as_american_are_read_as_american(tmp_path: Path, drawn: ScenarioSet) -> None:
    """Both exercises on one underlying are two families of the file."""
    both = AMERICAN.take(np.arange(0, len(AMERICAN), 9)).join(EUROPEAN.take(np.arange(4, len(AMERICAN), 9)))
    arrays, parameters = default_arrays(both, market(), MODEL, drawn)
    found = read_span(write_span(tmp_path / "own.spn", both, market(), arrays, parameters))
    place = [list(found.number).index(name) for name in both.instrument_id]
    np.testing.assert_array_equal(found.american[place], both.exercise == "american")
    np.testing.assert_array_equal(found.arrays.loss[place], arrays.loss)
