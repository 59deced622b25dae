"""Tools against procyclical margins: a buffer, stressed observations, a floor. None of them lowers a margin.

Commission Delegated Regulation (EU) No 153/2013, article 28(1): at least one of (a) a buffer of 25% of the calculated
margin that may be used up while margins rise, (b) a weight of 25% on stressed observations, (c) no margin below the one
under volatility estimated over ten years.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from pmvar.risk.buffer import buffered
from pmvar.risk.measure import Rows, measure_losses
from pmvar.risk.result import Columns
from pmvar.risk.rules import MarginRules
from pmvar.scenarios.scenario_set import ScenarioSet, union
from pmvar.types import ApcTool, Measure

STRESSED_WEIGHT = 0.25
"""Of the stressed scenarios in the union."""


class Protection(NamedTuple):
    """The measure of some accounts under another law, and its standard error; in base currency."""

    measure: Float[np.ndarray, " account"]
    error: Float[np.ndarray, " account"]


def protection(
    losses: Sequence[Rows],
    scenarios: Sequence[ScenarioSet],
    rules: MarginRules,
    *,
    shares: Sequence[float] = (1.0,),
    names: np.ndarray | None = None,
) -> Protection:
    """The rules' measure of each account in the union of scenario sets, weighted by `shares`, in one quantile pass.

    `losses` are of the same accounts under each set. Raises NumericsError for a loss that is not finite.
    """
    all_of_them = union(scenarios, shares) if len(scenarios) > 1 else scenarios[0]
    found = measure_losses(Joined(tuple(losses)), all_of_them, rules.level, names=names)
    if rules.measure is Measure.EXPECTED_SHORTFALL:
        return Protection(found.expected_shortfall, found.es_error)
    return Protection(found.value_at_risk, found.var_error)


class Joined(NamedTuple):
    """Losses of the same accounts under several scenario sets, one set after the other."""

    parts: tuple[Rows, ...]

    def __len__(self) -> int:
        return len(self.parts[0])

    def __getitem__(self, rows: slice) -> Float[np.ndarray, "account scenario"]:
        return np.concatenate([part[rows] for part in self.parts], axis=1)


@dataclass(frozen=True)
class Protected:
    """What raises the margins of some accounts, one number for each; zeros for a tool that is switched off."""

    rules: MarginRules
    stressed: Protection
    """In the union of today's and the stressed scenarios."""
    long_run: Protection
    """Under the long-run volatility."""
    previous: Float[np.ndarray, " account"]
    """The initial margin charged before; 0: none."""
    days: Float[np.ndarray, " account"]
    """Since then."""

    def calculated(self, current: Float[np.ndarray, " account"]) -> Float[np.ndarray, " account"]:
        """The margin without its buffer: `current`, or what a tool says where that is more."""
        stressed, long_run = (self.rules.multiplier * p.measure for p in (self.stressed, self.long_run))
        return np.maximum(current, np.maximum(stressed, long_run))

    def initial(self, current: Float[np.ndarray, " account"]) -> Float[np.ndarray, " account"]:
        """The margin that is charged."""
        calculated = self.calculated(current)
        if ApcTool.BUFFER not in self.rules.apc:
            return calculated
        return buffered(calculated, self.previous, self.days)

    def table(
        self, name: np.ndarray, current: Float[np.ndarray, " account"], rows: Int[np.ndarray, " some"]
    ) -> Columns:
        """The table `anti_procyclicality` of the accounts at `rows`; none where no tool is switched on."""
        times = self.rules.multiplier
        columns = {
            "account_id": name,
            "current_margin": current,
            "stressed_margin": times * self.stressed.measure,
            "stressed_standard_error": times * self.stressed.error,
            "long_run_margin": times * self.long_run.measure,
            "long_run_standard_error": times * self.long_run.error,
            "calculated_margin": self.calculated(current),
            "previous_margin": self.previous,
            "previous_days": self.days,
            "initial_margin": self.initial(current),
        }
        return {c: values[rows if self.rules.apc else rows[:0]] for c, values in columns.items()}
