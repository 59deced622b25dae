"""Coupon bonds under scenarios of a zero curve and spreads: pmvar's block path, and QuantLib's discounting engine.

1,000 bonds of ten issuers, half-yearly coupons, half a year to thirty years; five rates and ten spreads move. QuantLib
values the same bonds on a curve made anew from the moved rates in each of a few scenarios, settings alike.
"""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from _peers import Peer

import pmvar
from pmvar.instruments import Instruments
from pmvar.market.curves import DiscountCurve
from pmvar.market.snapshot import MarketSnapshot
from pmvar.models.specification import Factor, ModelSpecification
from pmvar.portfolio import build_portfolio
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.scenarios.stress import instantaneous
from pmvar.types import DAY, SECONDS_PER_YEAR, Precision, Sampling
from pmvar.valuation.reprice import ProfitAndLoss

AS_OF = datetime(2026, 6, 1, tzinfo=UTC).timestamp()
TENORS = (1, 2, 5, 10, 30)
ZERO = np.array([0.042, 0.039, 0.038, 0.041, 0.044])
ISSUERS = 10
FACE = 1000.0
SPREAD = {f"I{k}": 0.002 * k for k in range(ISSUERS)}
FACTORS = (*(f"USD:rate.{t}y" for t in TENORS), *(f"{u}:spread" for u in SPREAD))


def bonds(n: int) -> Instruments:
    """Half-yearly coupons of 2% to 8%."""
    draw = np.random.default_rng(5)
    days = np.floor(365 * np.linspace(0.5, 30.0, n))

    def text(value: str) -> np.ndarray:
        return np.full(n, value, dtype=object)

    return Instruments(
        instrument_id=np.array([f"B{i:05d}" for i in range(n)], dtype=object),
        kind=text("bond"),
        underlying=np.array([f"I{i % ISSUERS}" for i in range(n)], dtype=object),
        settlement=text("linear"),
        quote_currency=text("USD"),
        settlement_currency=text("USD"),
        contract_size=np.full(n, FACE),
        expiry=AS_OF + DAY * days,
        strike=np.full(n, np.nan),
        put_call=text(""),
        exercise=text(""),
        deliverable=text(""),
        coupon=draw.uniform(0.02, 0.08, n).round(4),
        frequency=np.full(n, 2.0),
        day_count=text("act/act"),
    )


def market() -> MarketSnapshot:
    """One curve."""
    curve = DiscountCurve(AS_OF, AS_OF + SECONDS_PER_YEAR * np.array(TENORS, float), ZERO)
    return MarketSnapshot(AS_OF, "USD", (), np.zeros(0), (), np.zeros(0), discounts={"USD": curve}, spread=SPREAD)


def bond_profit(table: Instruments, scenarios: ScenarioSet, precision: Precision) -> ProfitAndLoss:
    """P&L of all of them."""
    none, no = np.array([], dtype=object), np.zeros(0)
    held = build_portfolio(
        table, position_account=none, position_instrument=none, position_quantity=no,
        balance_account=none, balance_asset=none, balance_amount=no,
    )  # fmt: skip
    return pmvar.reprice(held, market(), scenarios, precision=precision)


def bond_scenarios(n: int) -> ScenarioSet:
    """Two days at 6 basis points a day, drawn."""
    model = ModelSpecification("gaussian", AS_OF, tuple(Factor(f, 0.0006) for f in FACTORS), np.eye(len(FACTORS)))
    return pmvar.simulate(model, market(), seed=1, n_scenarios=n, sampling=Sampling.MC)


def moved(n: int) -> np.ndarray:
    """A few moves at once, of up to some per cent."""
    return np.random.default_rng(8).normal(0, 0.01, (n, len(FACTORS)))


def quantlib_bonds(table: Instruments, shock: np.ndarray) -> tuple[Peer, int]:
    """Values [bond, scenario] at `shock`, and how many."""
    import QuantLib as ql

    today, clock = ql.Date(1, 6, 2026), ql.Settings.instance()
    curve = ql.RelinkableYieldTermStructureHandle()
    spreads = {u: ql.SimpleQuote(s) for u, s in SPREAD.items()}
    engines = {
        u: ql.DiscountingBondEngine(
            ql.YieldTermStructureHandle(ql.ZeroSpreadedTermStructure(curve, ql.QuoteHandle(q), ql.Continuous))
        )
        for u, q in spreads.items()
    }
    count, made = ql.ActualActual(ql.ActualActual.ISMA), []
    days = ((table.expiry - AS_OF) / DAY).astype(int)
    for u, after, coupon in zip(table.underlying, days.tolist(), table.coupon.tolist(), strict=True):
        end = today + after
        schedule = ql.Schedule(
            end - ql.Period(31, ql.Years), end, ql.Period(6, ql.Months), ql.NullCalendar(), ql.Unadjusted,
            ql.Unadjusted, ql.DateGeneration.Backward, False,
        )  # fmt: skip
        made.append(ql.FixedRateBond(0, FACE, schedule, [coupon], count))
        made[-1].setPricingEngine(engines[u])
    dates = [today, *(today + 365 * t for t in TENORS)]

    def call() -> np.ndarray:
        out, others = np.empty((len(made), len(shock))), clock.evaluationDate
        clock.evaluationDate = today
        for j, row in enumerate(shock):
            rates = ZERO + row[: len(TENORS)]
            zero = [float(rates[0]), *rates.tolist()]
            for (u, quote), move in zip(spreads.items(), row[len(TENORS) :].tolist(), strict=True):
                quote.setValue(SPREAD[u] + move)
            made_curve = ql.ZeroCurve(dates, zero, ql.Actual365Fixed(), ql.NullCalendar(), ql.Linear(), ql.Continuous)
            made_curve.enableExtrapolation()
            curve.linkTo(made_curve)
            out[:, j] = [bond.NPV() for bond in made]
        # The other peers stand at a date of their own.
        clock.evaluationDate = others
        return out

    return call, len(made) * len(shock)


def bond_accuracy(table: Instruments) -> dict[str, float]:
    """Largest error of P&L over the face, against QuantLib."""
    shock = moved(3)
    value, _ = quantlib_bonds(table, np.concatenate([np.zeros((1, len(FACTORS))), shock]))
    exact = value()
    at_once = instantaneous(FACTORS, AS_OF, shock, tuple(map(str, range(len(shock)))))
    out = {}
    for precision in Precision:
        pnl = bond_profit(table, at_once, precision)
        found = np.asarray(next(iter(pnl)), np.float64)[pnl.row][:, : len(shock)]
        out[f"bond_{precision}_max_error"] = float(np.abs(found - (exact[:, 1:] - exact[:, :1])).max() / FACE)
    return out
