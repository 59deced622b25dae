"""Columns of `instruments` that single payoffs have: which belong to which."""

from __future__ import annotations

import numpy as np

from pmvar.io.problems import Problems
from pmvar.io.tables import Table
from pmvar.types import Kind


def check_payoffs(table: Table, *, problems: Problems) -> None:
    """Reject rows whose product columns do not make up the payoff that they name."""
    kind = table["kind"]

    def reject(mask: np.ndarray, column: str, rule: str, fix: str) -> None:
        table.reject(problems, mask, column=column, rule=rule, fix=fix)

    digital, blank = kind == Kind.DIGITAL, table["payoff"] == ""
    rule = "a digital option says what it pays"
    reject(digital & blank, "payoff", rule, "write cash_or_nothing or asset_or_nothing")
    reject(~digital & ~blank, "payoff", "only a digital option has a payoff", "leave it blank")
