"""Columns of `instruments` that single payoffs have: which belong to which."""

from __future__ import annotations

import numpy as np

from pmvar.instruments import SHORT_AVERAGE
from pmvar.io.problems import Problems
from pmvar.io.tables import Table
from pmvar.types import Exercise, Kind


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
