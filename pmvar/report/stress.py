"""The stress list as a table: losses under fixed moves, shaded against each account's margin."""

from __future__ import annotations

import math
from dataclasses import dataclass

from pmvar.report.account import Account

WIDEST = 10
"""Scenarios that fit a printed page side by side; a longer list runs down the page, accounts across."""
FULL_SHADE = 0.55
"""Opacity where a loss equals the initial margin: dark text stays readable on it."""


@dataclass(frozen=True)
class Cell:
    """A loss in base currency, and as a fraction of the account's initial margin."""

    loss: float
    share: float

    @property
    def shade(self) -> float:
        """Opacity of the cell's colour: full where the margin is used up, since there it stops to suffice."""
        return round(FULL_SHADE * min(1.0, abs(self.share)), 3) if math.isfinite(self.share) else 0.0


@dataclass(frozen=True)
class StressTable:
    """Scenarios and accounts in their order; `cells[account][scenario]`."""

    scenarios: tuple[str, ...]
    accounts: tuple[str, ...]
    margins: tuple[float, ...]
    cells: tuple[tuple[Cell, ...], ...]

    @property
    def accounts_down(self) -> bool:
        """Whether each account is a row."""
        return len(self.scenarios) <= WIDEST


def stress_table(accounts: list[Account]) -> StressTable:
    """The stress losses of these accounts; a scenario that an account lacks is NaN there."""
    names = tuple(dict.fromkeys(name for account in accounts for name, _ in account.stress))
    margins = tuple(float(account.margin["initial_margin"]) for account in accounts)
    cells = []
    for account, margin in zip(accounts, margins, strict=True):
        losses = dict(account.stress)
        found = [losses.get(name, math.nan) for name in names]
        cells.append(tuple(Cell(loss, loss / margin if margin > 0 else math.nan) for loss in found))
    return StressTable(names, tuple(account.account_id for account in accounts), margins, tuple(cells))
