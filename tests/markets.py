"""Markets, instruments and models for tests, built through the public classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from pmvar.instruments import Instruments
from pmvar.market.curves import DiscountCurve, ForwardCurve
from pmvar.market.snapshot import MarketSnapshot
from pmvar.market.surface import VolSlice, VolSurface
from pmvar.models.specification import Factor, ModelSpecification
from pmvar.portfolio import Portfolio, build_portfolio
from pmvar.types import PriceMap

AS_OF = 1_738_310_400.0
"""2025-01-31T08:00:00Z, a Friday."""
DAY = 86_400.0
YEAR = 31_536_000.0


def carry_curve(spot: float, rate: float) -> ForwardCurve:
    """F(t) = S·e^{rate·t}: the curve's ln(F/S) is linear in time, so one pillar says it all."""
    return ForwardCurve(AS_OF, spot, np.array([AS_OF + YEAR]), np.array([spot * np.exp(rate)]))


def flat_rate(rate: float) -> DiscountCurve:
    """One zero rate for every maturity."""
    return DiscountCurve(AS_OF, np.array([AS_OF + YEAR]), np.array([rate]))


def flat_vol(vol: float) -> VolSurface:
    """One volatility for every strike and expiry."""
    return VolSurface(AS_OF, (VolSlice(AS_OF + YEAR, np.zeros(1), np.array([vol])),))


def snapshot(
    spots: Mapping[str, tuple[float, str]],
    *,
    base: str = "USD",
    forwards: Mapping[str, ForwardCurve] | None = None,
    discounts: Mapping[str, DiscountCurve] | None = None,
    vols: Mapping[str, VolSurface] | None = None,
) -> MarketSnapshot:
    """A market from name -> (price, quote currency); no haircuts."""
    names = tuple(sorted(spots))
    return MarketSnapshot(
        AS_OF,
        base,
        names,
        np.array([spots[n][0] for n in names]),
        tuple(spots[n][1] for n in names),
        np.zeros(len(names)),
        forwards or {},
        discounts or {},
        vols or {},
    )


def instrument(
    name: str,
    kind: str,
    underlying: str,
    *,
    settlement: str = "linear",
    quote: str = "USD",
    settled_in: str | None = None,
    size: float = 1.0,
    expiry: float = np.inf,
    strike: float = np.nan,
    put_call: str = "",
    exercise: str = "european",
    deliverable: str = "",
) -> dict[str, object]:
    """One row of an instrument table; by default settled in what its settlement says."""
    return {
        "instrument_id": name,
        "kind": kind,
        "underlying": underlying,
        "settlement": settlement,
        "quote_currency": quote,
        "settlement_currency": settled_in or (underlying if settlement == "inverse" else quote),
        "contract_size": size,
        "expiry": expiry,
        "strike": strike,
        "put_call": put_call,
        "exercise": exercise if kind == "option" else "",
        "deliverable": deliverable,
    }


def table(rows: Sequence[Mapping[str, object]]) -> Instruments:
    """Rows as a table, sorted by id."""
    rows = sorted(rows, key=lambda row: str(row["instrument_id"]))
    numbers = {"contract_size", "expiry", "strike", "coupon", "frequency"}
    return Instruments(**{c: np.array([r[c] for r in rows], float if c in numbers else object) for c in rows[0]})


def portfolio(
    instruments: Instruments,
    positions: Mapping[str, Mapping[str, float]],
    balances: Mapping[str, Mapping[str, float]] | None = None,
) -> Portfolio:
    """Account -> instrument -> quantity, and account -> asset -> amount."""
    flat = [(a, i, q) for a, held in positions.items() for i, q in held.items()]
    money = [(a, i, q) for a, held in (balances or {}).items() for i, q in held.items()]

    def column(rows: list, j: int, dtype: type) -> np.ndarray:
        return np.array([row[j] for row in rows], dtype=dtype)

    return build_portfolio(
        instruments,
        position_account=column(flat, 0, object),
        position_instrument=column(flat, 1, object),
        position_quantity=column(flat, 2, float),
        balance_account=column(money, 0, object),
        balance_asset=column(money, 1, object),
        balance_amount=column(money, 2, float),
    )


def specification(
    volatility: Mapping[str, float],
    *,
    model: str = "gaussian",
    degrees_of_freedom: float | None = None,
    correlation: np.ndarray | None = None,
    price_map: PriceMap = PriceMap.EXP_LINEAR,
    steps_per_year: int = 365,
    vol_cap: float = 1.6,
    tenor: float = 30.0,
    term_exponent: float = 0.0,
) -> ModelSpecification:
    """A model from factor -> standard deviation of x a step; uncorrelated unless said."""
    factors = tuple(
        Factor(name, v, degrees_of_freedom, "test", tenor=tenor, term_exponent=term_exponent if "vol" in name else 0.0)
        for name, v in volatility.items()
    )
    c = np.eye(len(factors)) if correlation is None else np.asarray(correlation, float)
    return ModelSpecification(
        model, AS_OF, factors, c, steps_per_year=steps_per_year, price_map=price_map, vol_cap=vol_cap
    )
