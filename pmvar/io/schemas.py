"""The tables of a book: their columns, as data."""

from __future__ import annotations

from pmvar.io.tables import Column, Schema, Type
from pmvar.types import BarrierType, DayCount, Deliverable, Exercise, Kind, Payoff, PriceModel, PutCall, Settlement

MAX_VOL = 10.0
"""Largest volatility believed; a higher one is probably in percent."""
MAX_MEDIAN_VOL = 3.0
"""Largest median volatility of an underlying believed."""
PERCENT_FIX = "volatilities are fractions per √year: 65% is 0.65, so divide by 100"


def _name(name: str, *, optional: bool = False, reserved: str = "") -> Column:
    return Column(name, Type.NAME, optional=optional, reserved=reserved)


def _number(
    name: str, low: float = -1e15, *, optional: bool = False, exclusive: bool = False, high: float = 1e15
) -> Column:
    return Column(name, Type.NUMBER, optional=optional, low=low, high=high, exclusive=exclusive)


def _time(name: str, *, optional: bool = False) -> Column:
    return Column(name, Type.TIME, optional=optional)


def _vol(name: str, *, optional: bool = False) -> Column:
    return Column(name, Type.NUMBER, optional=optional, low=0.0, high=MAX_VOL, fix=PERCENT_FIX)


_CASH = "CASH:"

# Which prices, strikes and moves may be at or below zero is `price_models`' part: it depends on the underlying.

POSITIONS = Schema(
    "positions",
    (
        _name("account_id"),
        _name("instrument_id", reserved=_CASH),
        _number("quantity", exclusive=True),
    ),
)
"""Without a key: what becomes of duplicates is a setting of the run."""
BALANCES = Schema("balances", (_name("account_id"), _name("asset", reserved=_CASH), _number("amount", exclusive=True)))
INSTRUMENTS = Schema(
    "instruments",
    (
        _name("instrument_id", reserved=_CASH),
        Column(
            "kind",
            Type.TEXT,
            choices=tuple(kind for kind in Kind if kind != Kind.CASH),
        ),
        _name("underlying"),
        Column("settlement", Type.TEXT, choices=tuple(Settlement)),
        _name("quote_currency"),
        _name("settlement_currency"),
        _number("contract_size", 0.0, exclusive=True),
        _time("expiry", optional=True),
        _number("strike", optional=True),
        Column("put_call", Type.TEXT, optional=True, choices=tuple(PutCall)),
        Column("exercise", Type.TEXT, optional=True, choices=tuple(Exercise)),
        Column("deliverable", Type.TEXT, optional=True, choices=tuple(Deliverable)),
        _number("coupon", 0.0, optional=True, high=1.0),
        _number("frequency", 0.0, optional=True, high=12.0),
        Column("day_count", Type.TEXT, optional=True, choices=tuple(DayCount)),
        Column("payoff", Type.TEXT, optional=True, choices=tuple(Payoff)),
        _time("averaging_start", optional=True),
        _number("average_so_far", 0.0, optional=True, exclusive=True),
        _number("fx_rate", 0.0, optional=True, exclusive=True),
        _number("barrier", 0.0, optional=True, exclusive=True),
        Column("barrier_type", Type.TEXT, optional=True, choices=tuple(BarrierType)),
        _number("rebate", 0.0, optional=True),
    ),
    key=("instrument_id",),
)
SPOTS = Schema(
    "market/spots",
    (
        _name("name", reserved=_CASH),
        _number("price"),
        _name("currency"),
        _time("time"),
        Column("haircut", Type.NUMBER, optional=True, default=0.0, low=0.0, high=1.0),
        Column("price_model", Type.TEXT, optional=True, default="lognormal", choices=tuple(PriceModel)),
        _number("shift", optional=True),
    ),
    key=("name",),
)
FORWARDS = Schema(
    "market/forwards",
    (_name("underlying"), _time("expiry"), _number("forward")),
    key=("underlying", "expiry"),
)
RATES = Schema(
    "market/rates",
    (_name("currency"), _time("maturity"), _number("zero_rate", -1.0, high=10.0)),
    key=("currency", "maturity"),
)
VOLS = Schema(
    "market/vols",
    (
        _name("underlying"),
        _time("expiry"),
        _number("strike"),
        _vol("implied_vol"),
        _vol("bid_vol", optional=True),
        _vol("ask_vol", optional=True),
        Column("flag", Type.TEXT, optional=True),
    ),
    key=("underlying", "expiry", "strike"),
)
MARKS = Schema(
    "market/marks",
    (
        _name("instrument_id"),
        _number("mark"),
        _number("bid", optional=True),
        _number("ask", optional=True),
        _time("time"),
    ),
    key=("instrument_id",),
)
LIQUIDITY = Schema(
    "market/liquidity",
    (
        _name("instrument_id"),
        _number("half_spread", 0.0, optional=True),
        _number("daily_volume", 0.0, optional=True),
    ),
    key=("instrument_id",),
)
DIVIDENDS = Schema(
    "market/dividends",
    (_name("underlying"), _time("ex_date"), _number("amount", 0.0), _name("currency")),
    key=("underlying", "ex_date"),
)
SPREADS = Schema(
    "market/spreads",
    (_name("underlying"), _number("spread", -1.0, high=10.0)),
    key=("underlying",),
)
FUNDING = Schema(
    "market/funding",
    (_name("instrument_id"), _number("daily_rate", -1.0, high=1.0)),
    key=("instrument_id",),
)
STRESS = Schema(
    "market/stress",
    (Column("scenario", Type.NAME), _name("factor"), _number("shock")),
    key=("scenario", "factor"),
)

QUANTO = Schema(
    "market/quanto",
    (_name("underlying"), _name("settlement_currency"), _number("correlation", -1.0, high=1.0), _vol("fx_vol")),
    key=("underlying", "settlement_currency"),
)

REQUIRED = (INSTRUMENTS, POSITIONS, SPOTS)
OPTIONAL = (BALANCES, FORWARDS, RATES, VOLS, MARKS, LIQUIDITY, DIVIDENDS, STRESS, SPREADS, FUNDING, QUANTO)
"""Forwards, rates and vols are needed only by what is listed: a book of spots has none."""
SCHEMAS = {schema.name: schema for schema in (*REQUIRED, *OPTIONAL)}
