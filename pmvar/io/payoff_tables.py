"""Columns of `instruments` that single payoffs have: which belong to which."""

from __future__ import annotations

import numpy as np

from pmvar.instruments import SHORT_AVERAGE
from pmvar.io.problems import Problems
from pmvar.io.tables import Table
from pmvar.market.snapshot import MarketSnapshot
from pmvar.types import BarrierType, Exercise, Kind, Settlement


def check_payoffs(table: Table, *, problems: Problems) -> None:
    """Reject rows whose product columns do not make up the payoff that they name."""
    kind = table["kind"]

    def reject(mask: np.ndarray, column: str, rule: str, fix: str) -> None:
        table.reject(problems, mask, column=column, rule=rule, fix=fix)

    digital, blank = kind == Kind.DIGITAL, table["payoff"] == ""
    rule = "a digital option says what it pays"
    reject(digital & blank, "payoff", rule, "write cash_or_nothing or asset_or_nothing")
    reject(~digital & ~blank, "payoff", "only a digital option has a payoff", "leave it blank")

    start, expiry, asian = table["averaging_start"], table["expiry"], kind == Kind.ASIAN
    averaged = ~np.isnan(start)
    column, future = "averaging_start", kind == Kind.FUTURE
    reject(asian & ~averaged, column, "an Asian option says when averaging starts", "supply it")
    able = asian | future | ((kind == Kind.OPTION) & (table["exercise"] == Exercise.EUROPEAN))
    rule = "only European and Asian options and futures settle on an average"
    reject(averaged & ~able, column, rule, "leave it blank")
    reject(averaged & able & (start >= expiry), column, "averaging starts before expiry", "correct one of the two")
    long = averaged & future & (expiry - start > SHORT_AVERAGE)
    reject(long, column, "a future on an average of more than an hour is not priced", "remove these rows")

    quanto, none = table["settlement"] == Settlement.QUANTO, np.isnan(table["fx_rate"])
    vanilla = (kind == Kind.OPTION) & (table["exercise"] != Exercise.AMERICAN) & ~averaged
    margined = (kind == Kind.PERPETUAL) | (future & ~averaged)
    rule = "only futures, perpetuals and European options, not averaged, are quanto"
    reject(quanto & ~vanilla & ~margined, "settlement", rule, "settle it linearly")
    rule = "a quanto is paid at a fixed rate: settlement currency for one unit of quote currency"
    reject(quanto & none, "fx_rate", rule, "supply it")
    reject(~quanto & ~none, "fx_rate", "only a quanto has a fixed rate", "leave it blank")
    same = quanto & (table["settlement_currency"] == table["quote_currency"])
    reject(same, "settlement_currency", "a quanto settles in another currency than it is quoted in", "write linear")

    is_barrier, level, way = kind == Kind.BARRIER, np.isnan(table["barrier"]), table["barrier_type"] == ""
    reject(is_barrier & level, "barrier", "a barrier option needs a barrier above 0", "supply it")
    reject(~is_barrier & ~level, "barrier", "only a barrier option has a barrier", "leave it blank")
    rule = "a barrier option says how it is hit"
    reject(is_barrier & way, "barrier_type", rule, f"write one of {', '.join(BarrierType)}")
    reject(~is_barrier & ~way, "barrier_type", "only a barrier option has a barrier_type", "leave it blank")
    rebate = np.nan_to_num(table["rebate"], nan=0.0) > 0
    reject(~is_barrier & rebate, "rebate", "only a barrier option has a rebate", "leave it blank")
    inverse = table["settlement"] == Settlement.INVERSE
    reject(is_barrier & inverse & rebate, "rebate", "an inverse barrier option has no rebate", "leave it blank")


def check_quantos(table: Table, market: MarketSnapshot, *, problems: Problems) -> None:
    """Reject live quanto options whose market has no correlation, and quantos paid in what has no price."""
    quanto = (table["settlement"] == Settlement.QUANTO) & (table["expiry"] > market.as_of)
    pairs = zip(table["underlying"].tolist(), table["settlement_currency"].tolist(), strict=True)
    lacking = quanto & (table["kind"] == Kind.OPTION) & np.array([p not in market.quanto for p in pairs], bool)
    rule = "a quanto option needs the correlation of its underlying with its settlement currency"
    table.reject(problems, lacking, column="settlement_currency", rule=rule, fix="add a row to market/quanto")


def check_averages(table: Table, as_of: float, *, problems: Problems) -> None:
    """Reject rows that have begun to average at `as_of` and do not say what, or the other way round."""
    begun = (table["averaging_start"] <= as_of) & (table["expiry"] > as_of) & (table["kind"] != Kind.FUTURE)
    none = np.isnan(table["average_so_far"])
    rule, fix = (
        "the average has begun: what it is so far decides on the payoff",
        "supply the average from its start to as_of",
    )
    table.reject(problems, begun & none, column="average_so_far", rule=rule, fix=fix)
    rule = "only what has begun to average has an average so far"
    live = ~none & ~begun & ~(table["expiry"] <= as_of)
    table.reject(problems, live, column="average_so_far", rule=rule, fix="leave it blank")
