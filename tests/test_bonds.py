"""Bonds: values against QuantLib, P&L under scenarios against NumPy, payments inside it, refusals, gradients."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import QuantLib as ql
from hypothesis import given, settings
from hypothesis import strategies as st

import pmvar
from pmvar.instruments import Instruments
from pmvar.io.book import load_book
from pmvar.market.curves import DiscountCurve
from pmvar.market.snapshot import MarketSnapshot
from pmvar.methods.fallback import unpriceable
from pmvar.methods.standard import LINEAR_RATE, unit_requirements
from pmvar.models.specification import Factor, ModelSpecification
from pmvar.risk.rules import MarginRules
from pmvar.scenarios import ScenarioSet, stress_scenarios
from pmvar.scenarios.stress import instantaneous
from pmvar.types import Drift, Greek, Precision, Sampling
from pmvar.valuation.exposure import block_exposure, further_fields
from pmvar.valuation.reprice import ProfitAndLoss
from pmvar.valuation.today import STILL, terms_today, values_and_greeks, values_under
from tests.books import load, problems_of, small_book, small_model
from tests.markets import DAY, YEAR, instrument, portfolio, snapshot, specification, table

AS_OF = 1_738_281_600.0
"""2025-01-31T00:00:00Z: QuantLib knows days alone."""
TENORS = ("1y", "2y", "5y", "10y")
YEARS = np.array([1.0, 2.0, 5.0, 10.0])
RATE = {"USD": np.array([0.045, 0.041, 0.038, 0.042]), "EUR": np.array([0.025, 0.022, -0.004, 0.026])}
SPREAD = {"GOV": 0.0, "ACME": 0.013}
FACTORS = (*(f"{c}:rate.{t}" for c in RATE for t in TENORS), *(f"{u}:spread" for u in SPREAD), "EUR:spot")
BONDS = (
    ("GOV", "USD", 0.04, 2, "act/act", (2032, 5, 15)),
    ("GOV", "USD", 0.0, 0, "", (2025, 7, 31)),
    ("GOV", "EUR", 0.025, 1, "act/act", (2034, 2, 15)),
    ("ACME", "USD", 0.065, 4, "30/360", (2030, 3, 28)),
    ("ACME", "USD", 0.05, 12, "act/365", (2026, 8, 31)),
    ("ACME", "EUR", 0.03, 2, "act/360", (2029, 1, 30)),
    ("ACME", "USD", 0.06, 2, "30/360", (2025, 8, 1)),
    ("ACME", "USD", 0.06, 2, "act/365", (2025, 2, 1)),
)
"""Issuer, currency, coupon, frequency, day count, maturity: a coupon and a maturity lie inside two days."""
FACE = 1_000.0
CONVENTION = {
    "act/act": ql.ActualActual(ql.ActualActual.ISMA), "30/360": ql.Thirty360(ql.Thirty360.BondBasis),
    "act/365": ql.Actual365Fixed(), "act/360": ql.Actual360(), "": ql.Actual365Fixed(),
}  # fmt: skip


def epoch(day: tuple[int, int, int]) -> float:
    return float(np.datetime64("{:04d}-{:02d}-{:02d}".format(*day)).astype("datetime64[s]").astype(np.int64))


def bond(
    name: str, issuer: str, currency: str, coupon: float, frequency: int, day_count: str, maturity: float
) -> dict[str, object]:
    row = instrument(name, "bond", issuer, quote=currency, size=FACE, expiry=maturity)
    return row | {"coupon": coupon, "frequency": frequency, "day_count": day_count}


def bonds() -> Instruments:
    return table(
        [
            bond(f"B{i}", issuer, currency, coupon, frequency, count, epoch(day))
            for i, (issuer, currency, coupon, frequency, count, day) in enumerate(BONDS)
        ]
    )


def market(**changes: object) -> MarketSnapshot:
    curves = {c: DiscountCurve(AS_OF, AS_OF + YEAR * YEARS, rate) for c, rate in RATE.items()}
    found = snapshot({"EUR": (1.08, "USD")}, discounts=curves)
    return replace(found, **({"as_of": AS_OF, "spread": SPREAD} | changes))


def model(volatility: float = 0.0009, **options: Any) -> ModelSpecification:
    sizes = {f: 0.006 if f.endswith("spot") else volatility for f in FACTORS}
    return specification(sizes, **options)


def quantlib_values(shock: dict[str, float]) -> np.ndarray:
    """Each bond in USD, by QuantLib, after moves of the factors at once; pillars of curve and factors agree."""
    today = ql.Date(31, 1, 2025)
    ql.Settings.instance().evaluationDate = today
    out = []
    for issuer, currency, coupon, frequency, day_count, (year, month, day) in BONDS:
        rates = RATE[currency] + [shock.get(f"{currency}:rate.{t}", 0.0) for t in TENORS]
        dates = [today, *(today + int(365 * y) for y in YEARS)]
        curve = ql.ZeroCurve(dates, [rates[0], *rates], ql.Actual365Fixed(), ql.NullCalendar(), ql.Linear(),
                             ql.Continuous)  # fmt: skip
        spread = ql.QuoteHandle(ql.SimpleQuote(SPREAD[issuer] + shock.get(f"{issuer}:spread", 0.0)))
        moved = ql.ZeroSpreadedTermStructure(ql.YieldTermStructureHandle(curve), spread, ql.Continuous)
        end = ql.Date(day, month, year)
        if frequency:
            start = end - ql.Period(12, ql.Years)
            period = ql.Period(12 // frequency, ql.Months)
            schedule = ql.Schedule(start, end, period, ql.NullCalendar(), ql.Unadjusted, ql.Unadjusted,
                                   ql.DateGeneration.Backward, False)  # fmt: skip
            made = ql.FixedRateBond(0, FACE, schedule, [coupon], CONVENTION[day_count])
        else:
            made = ql.ZeroCouponBond(0, ql.NullCalendar(), FACE, end)
        made.setPricingEngine(ql.DiscountingBondEngine(ql.YieldTermStructureHandle(moved)))
        out.append(made.NPV() * (1.08 * np.exp(shock.get("EUR:spot", 0.0)) if currency == "EUR" else 1.0))
    return np.array(out)


@cache
def drawn() -> ScenarioSet:
    return pmvar.simulate(
        model(), market(), seed=1, n_scenarios=1_024, sampling=Sampling.MC, drift=Drift.NONE
    )  # fmt: skip


@cache
def found(precision: Precision) -> np.ndarray:
    pnl = pmvar.reprice(portfolio(bonds(), {}), market(), drawn(), precision=precision)
    assert not pnl.plan.unpriced
    return np.asarray(next(iter(pnl)), np.float64)[pnl.row][:, :1_024]


def expected(shock: np.ndarray, horizon: float) -> np.ndarray:
    """P&L of every bond, written anew: payments by year and month, one bond, one flow at a time."""
    column = {f: i for i, f in enumerate(FACTORS)}
    rows = []
    for issuer, currency, coupon, frequency, day_count, day in BONDS:
        z = DiscountCurve(AS_OF, AS_OF + YEAR * YEARS, RATE[currency])
        dates, k = [np.datetime64("{:04d}-{:02d}-{:02d}".format(*day))], 0
        while frequency and dates[-1] > np.datetime64("2025-01-31"):
            k += 12 // frequency
            month = np.datetime64("{:04d}-{:02d}".format(*day[:2])) - k
            dates.append(min(month.astype("datetime64[D]") + day[2] - 1, (month + 1).astype("datetime64[D]") - 1))
        dates = dates[::-1] if frequency else [np.datetime64("2025-01-31"), *dates]
        before, after = 0.0, 0.0
        for start, end in zip(dates[:-1], dates[1:], strict=True):
            share = {"act/365": (end - start).astype(int) / 365, "act/360": (end - start).astype(int) / 360}
            pay = FACE * coupon * share.get(day_count, 1 / frequency if frequency else 0.0)
            pay += FACE if end == dates[-1] else 0.0
            t = float(end.astype("datetime64[s]").astype(np.int64))
            year, left = (t - AS_OF) / YEAR, max(t - AS_OF - horizon, 0.0) / YEAR
            before += pay * z.discount_factor(t) * np.exp(-SPREAD[issuer] * year)
            if left == 0:
                after = after + pay
                continue
            moves = np.stack([shock[:, column[f"{currency}:rate.{tenor}"]] for tenor in TENORS])
            dz = np.array([np.interp(left, YEARS, m) for m in moves.T]) + shock[:, column[f"{issuer}:spread"]]
            forward = z.discount_factor(t) / z.discount_factor(AS_OF + horizon)
            after = after + pay * forward * np.exp(-(SPREAD[issuer] + dz) * left)
        x = 1.08 * np.exp(shock[:, column["EUR:spot"]]) if currency == "EUR" else np.ones(len(shock))
        rows.append(after * x - before * (1.08 if currency == "EUR" else 1.0))
    return np.array(rows)


def test_values_today_are_quantlibs() -> None:
    value, _ = values_and_greeks(bonds(), market())
    assert np.allclose(value, quantlib_values({}), rtol=1e-13, atol=0)


def test_moves_at_once_are_quantlibs() -> None:
    """A stress list: each factor alone, and all together."""
    shocks = [{f: 0.01 * (1 + i)} for i, f in enumerate(FACTORS)] + [dict.fromkeys(FACTORS, -0.02)]
    rows = np.array([[s.get(f, 0.0) for f in FACTORS] for s in shocks])
    grid = instantaneous(FACTORS, AS_OF, rows, tuple(map(str, range(len(shocks)))))
    pnl = pmvar.reprice(portfolio(bonds(), {}), market(), grid, precision=Precision.FLOAT64)
    tile = np.asarray(next(iter(pnl)))[pnl.row][:, : len(shocks)]
    reference = np.stack([quantlib_values(s) for s in shocks], axis=1) - quantlib_values({})[:, None]
    assert np.abs(tile - reference).max() < 1e-10 * FACE


def test_stress_list_moves_rates_absolutely() -> None:
    listed = stress_scenarios({"up": {"USD:rate.2y": 0.01, "EUR:spot": -0.1}}, model(), market())
    [shock] = np.asarray(listed.shock)[:, 0]
    assert shock[FACTORS.index("USD:rate.2y")] == 0.01
    assert shock[FACTORS.index("EUR:spot")] == np.log1p(-0.1)


@pytest.mark.parametrize(("precision", "tolerance"), [(Precision.FLOAT64, 1e-13), (Precision.FLOAT32, 1e-7)])
def test_profit_under_scenarios(precision: Precision, tolerance: float) -> None:
    shock = np.asarray(drawn().tile(0).shock)[:1_024]
    assert np.abs(found(precision) - expected(shock, 2 * DAY)).max() < tolerance * FACE


def test_standing_still_earns_the_forward_and_the_spread() -> None:
    """Zero moves: carry is the curve's own rate to the horizon, and the spread's; what matured is paid."""
    pnl = pmvar.reprice(portfolio(bonds(), {}), market(), drawn(), precision=Precision.FLOAT64)
    still = pnl.standing[pnl.row]
    assert np.allclose(still, expected(np.zeros((1, len(FACTORS))), 2 * DAY)[:, 0], atol=1e-10)
    value, _ = values_and_greeks(bonds(), market())
    year = 2 * DAY / YEAR
    assert np.isclose(still[1], value[1] * np.expm1(RATE["USD"][0] * year))
    matured = value[7]
    assert np.isclose(matured + still[7], FACE * (1 + 0.06 * 184 / 365))


@settings(max_examples=8)
@given(st.floats(0.0, 0.2), st.sampled_from([1, 2, 4, 12]), st.integers(40, 3_600))
def test_a_coupon_bond_is_its_bills(coupon: float, frequency: int, days: int) -> None:
    """Under every scenario: the bond and one bill for each of its payments."""
    maturity = AS_OF + days * DAY
    whole = table([bond("W", "ACME", "USD", coupon, frequency, "act/act", maturity)])
    amount, year, _ = np.moveaxis(np.asarray(terms_today(whole, market()).flows)[0], -1, 0)
    bills = table([bond(f"Z{i:03d}", "ACME", "USD", 0.0, 0, "", AS_OF + t * YEAR) for i, t in enumerate(year)])
    pnl = pmvar.reprice(portfolio(whole.join(bills), {}), market(), drawn(), precision=Precision.FLOAT64)
    tile = np.asarray(next(iter(pnl)))[pnl.row]
    assert np.allclose(tile[0], amount / FACE @ tile[1:], atol=1e-9)


def test_greeks() -> None:
    """Rho by each pillar is the value's slope; pillars add up to the parallel one, which is the spread's too."""
    value, plain = values_and_greeks(bonds(), market())
    _, by_factor = values_and_greeks(bonds(), market(), FACTORS)
    rho = {s.factor: s.value for s in by_factor if s.greek is Greek.RHO}
    h = 1e-6
    for name in FACTORS[:-1]:
        slope = (quantlib_values({name: h}) - quantlib_values({name: -h})) / (2 * h)
        assert np.allclose(rho[name], slope, rtol=1e-6, atol=1e-5)
    parallel = {s.factor: s.value for s in plain if s.greek is Greek.RHO}
    for c in RATE:
        assert np.allclose(parallel[f"{c}:rate"], sum(rho[f"{c}:rate.{t}"] for t in TENORS), rtol=1e-12)
    assert np.allclose(parallel["USD:rate"] + parallel["EUR:rate"], parallel["GOV:spread"] + parallel["ACME:spread"])
    theta = next(s.value for s in plain if s.greek is Greek.THETA)
    later = values_under(bonds(), terms_today(bonds(), market()), STILL._replace(clock=1e-6))[:, 0]
    assert np.allclose(theta, (later - value) / 1e-6 / 365, rtol=1e-4)
    delta = next(s.value for s in plain if s.greek is Greek.DELTA)
    assert np.allclose(delta, np.where(bonds().quote_currency == "EUR", value / 1.08, 0.0))


def test_values_under_moves() -> None:
    """A clock past the first payment, and rates up: what has been paid counts at its face."""
    terms = terms_today(bonds(), market())
    moved = values_under(bonds(), terms, STILL._replace(rate=np.array([0.0, 0.01]), clock=2 / 365))
    flows = np.asarray(terms.flows)
    amount, year, rate = (flows[..., k] for k in range(3))
    settled = np.where(bonds().quote_currency == "EUR", 1.08, 1.0)
    for column, shift in enumerate((0.0, 0.01)):
        value = settled * np.sum(amount * np.exp(-(rate + shift) * np.maximum(year - 2 / 365, 0.0)), axis=1)
        assert np.allclose(moved[:, column], value, rtol=1e-12)


def test_exposures_are_slopes() -> None:
    """By automatic differentiation, of every factor and of today's rate, against differences of revaluations."""
    pnl = pmvar.reprice(portfolio(bonds(), {}), market(), drawn(), precision=Precision.FLOAT64)
    [placed] = pnl.plan.blocks
    world, n = pnl.plan.layout.world(0), len(BONDS)
    by = block_exposure(placed.block, world, 1.6)
    shock, h = np.asarray(drawn().tile(0).shock)[:50], 1e-6
    assert set(further_fields(pnl.plan.layout)) == set(FACTORS[:-1])
    for name, slope in zip(further_fields(pnl.plan.layout), by.further, strict=True):
        step = h * (np.array(FACTORS) == name)
        difference = (expected(shock + step, 2 * DAY) - expected(shock - step, 2 * DAY)) / (2 * h)
        assert np.allclose(np.asarray(slope)[placed.index.argsort()[-n:], :50], difference, rtol=1e-5, atol=1e-4)


def test_limits_are_finite() -> None:
    """Rates that move by nothing, by half up and down, in float32: value and every derivative."""
    moves = np.outer([0.0, 0.5, -0.5], np.ones(len(FACTORS)))
    pnl = pmvar.reprice(portfolio(bonds(), {}), market(), instantaneous(FACTORS, AS_OF, moves, ("0", "up", "down")))
    world = pnl.plan.layout.world(0)
    found = block_exposure(pnl.plan.blocks[0].block, world, np.inf)
    assert all(np.isfinite(np.asarray(x)).all() for x in (*found[:-1], *found.further, next(iter(pnl))))


def test_margin_and_gradients() -> None:
    """By all volatilities of the curves together, and by today's rates, against runs with these displaced."""
    names = (*FACTORS[:2], "ACME:spread")
    held = portfolio(bonds(), {"a": {"B3": 20.0, "B6": -5.0}})

    def profit(volatility: float, **changes: Any) -> ProfitAndLoss:
        drawn = pmvar.simulate(
            specification(dict.fromkeys(names, volatility)), market(), seed=2, n_scenarios=4_096,
            drift=Drift.NONE, sampling=Sampling.SOBOL,
        )  # fmt: skip
        return pmvar.reprice(held, market(**changes), drawn, precision=Precision.FLOAT64)

    def shortfall(volatility: float, **changes: Any) -> float:
        pnl = profit(volatility, **changes)
        loss = np.sort(-(held.quantity @ np.asarray(next(iter(pnl)))[pnl.row])[0])[::-1]
        return float((loss[:40].sum() + 0.96 * loss[40]) / 40.96)

    base, h = pmvar.margin_report(profit(0.0009), held, MarginRules()).tables, 1e-6
    found, parts, greeks = base["model_greeks"], base["components"], base["greeks"]
    by_volatility = found["value"][found["parameter"] == "volatility"].sum()
    assert np.isclose(by_volatility, (shortfall(0.0009 + h) - shortfall(0.0009 - h)) / (2 * h), rtol=1e-4)
    assert np.allclose(parts["spot_es"] + parts["vol_es"] + parts["time_es"], parts["component_es"])
    assert np.all(np.abs(parts["vol_es"]) < 1e-9)
    es = float(base["margins"]["expected_shortfall"][0])
    assert es == pytest.approx(shortfall(0.0009), rel=1e-12)
    moved = {
        "USD:rate": {"discounts": {c: replace(d, zero_rate=d.zero_rate + 1e-5) for c, d in market().discounts.items()}},
        "ACME:spread": {"spread": SPREAD | {"ACME": SPREAD["ACME"] + 1e-5}},
    }
    for name, changes in moved.items():
        slope = greeks["value"][(greeks["of"] == "margin") & (greeks["factor"] == name)]
        assert np.isclose(slope[0], (shortfall(0.0009, **changes) - es) / 1e-5, rtol=1e-3)


@pytest.mark.parametrize(
    ("changes", "without", "reason"),
    [
        ({"spread": {"GOV": 0.0}}, "", "no spread of ACME"),
        ({"discounts": {"EUR": market().discounts["EUR"]}}, "", "no discount curve for USD"),
        ({}, "ACME:spread", "the model has no factor ACME:spread"),
        ({}, "USD:rate", "the model has no factor USD:rate.<tenor>"),
        ({"as_of": epoch((2035, 1, 1))}, "", "B3 has expired"),
    ],
)
def test_what_is_missing_withholds(changes: dict, without: str, reason: str) -> None:
    kept = [i for i, f in enumerate(FACTORS) if not (without and f.startswith(without))]
    factors = tuple(FACTORS[i] for i in kept)
    drawn = instantaneous(factors, AS_OF, np.zeros((1, len(factors))), ("0",))
    held = portfolio(bonds(), {"a": {"B3": 1.0}})
    plan = pmvar.reprice(held, market(**changes), drawn).plan
    assert plan.unpriced[3] == reason


def test_fallback_margins() -> None:
    """Alone a bond needs a share of its face, and where nothing prices it all of it; venues move no bond."""
    value, _ = values_and_greeks(bonds(), market())
    face = FACE * np.where(bonds().quote_currency == "EUR", 1.08, 1.0)
    assert np.allclose(unit_requirements(bonds(), market(), value).long, LINEAR_RATE * face)
    assert np.allclose(unit_requirements(bonds(), market(), np.full(len(value), np.nan)).short, face)
    assert set(unpriceable(bonds(), market())) == set(range(len(BONDS)))


NOTE = {
    "instrument_id": "NOTE", "kind": "bond", "underlying": "ACME", "settlement": "linear", "quote_currency": "USD",
    "settlement_currency": "USD", "contract_size": 100.0, "expiry": "2027-01-31T08:00:00Z", "coupon": 0.05,
    "frequency": 2, "day_count": "act/act",
}  # fmt: skip


def with_note(**changes: object):  # noqa: ANN201
    def change(rows: dict) -> None:
        rows["instruments"].append(NOTE | changes)
        rows["positions"].append({"account_id": "desk", "instrument_id": "NOTE", "quantity": 50.0})
        rows["market/spreads"] = [{"underlying": "ACME", "spread": 0.02}]

    return change


def test_book_with_a_bond(tmp_path: Path) -> None:
    """A table of bonds is read as it is written; without the factors the account is withheld, by name."""
    book = load(tmp_path, with_note())
    i = list(book.portfolio.instruments.instrument_id).index("NOTE")
    assert book.portfolio.instruments.coupon[i] == 0.05 and book.market.spread == {"ACME": 0.02}
    drawn = stress_scenarios(book.stress, book.model, book.market)
    plan = pmvar.reprice(book.portfolio, book.market, drawn).plan
    assert plan.unpriced == {i: "the model has no factor ACME:spread"}
    assert not any("today's rates" in flag for flag in book.flags)
    moved = replace(
        small_model(), factors=(*small_model().factors, Factor("USD:rate.1y", 0.001, 4.0)), correlation=np.eye(5)
    )  # fmt: skip
    flagged = load_book(small_book(tmp_path / "moved", model=moved)).flags
    assert "rate factors of USD move bonds alone: options are discounted at today's rates" in flagged


@pytest.mark.parametrize(
    ("changes", "column", "rule"),
    [
        ({"frequency": 3}, "frequency", "coupons a year are 0, 1, 2, 4, 12"),
        ({"day_count": "bus/252"}, "day_count", "must be one of"),
        ({"day_count": None}, "day_count", "needs a coupon and a day_count"),
        ({"coupon": None}, "coupon", "needs a coupon and a day_count"),
        ({"frequency": None}, "coupon", "a bill has no coupon"),
        ({"expiry": None}, "expiry", "a bond needs an expiry"),
        ({"strike": 5.0}, "strike", "only an option has a strike"),
        ({"underlying": "OTHER"}, "underlying", "needs the spread of its issuer"),
        ({"quote_currency": "BTC", "settlement_currency": "BTC"}, "quote_currency", "needs zero rates"),
        ({"settlement": "inverse", "settlement_currency": "ACME"}, "settlement", "a bond is linear"),
        ({"kind": "spot", "underlying": "BTC", "expiry": None}, "coupon", "only a bond has a coupon"),
    ],
)
def test_columns_that_make_no_bond(tmp_path: Path, changes: dict, column: str, rule: str) -> None:
    found = problems_of(tmp_path, with_note(**changes))
    assert any(p.column == column and rule in p.rule for p in found), found
