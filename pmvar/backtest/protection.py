"""What tools against procyclicality would have made of a model's margins, day by day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pmvar.backtest.step import STEP_DAYS
from pmvar.risk.anti_procyclicality import STRESSED_WEIGHT, protection
from pmvar.risk.buffer import buffered
from pmvar.risk.rules import MarginRules
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import ApcTool


@dataclass(frozen=True)
class Simulated:
    """Losses of all accounts under one law."""

    loss: Float[np.ndarray, "account scenario"]
    scenarios: ScenarioSet

    def times(self, ratio: float) -> Simulated:
        """Losses `ratio` as large: what linear accounts lose under a volatility `ratio` as high."""
        return Simulated(ratio * self.loss, self.scenarios)


def choices(tools: Sequence[ApcTool]) -> dict[str, tuple[ApcTool, ...]]:
    """Each of the tools alone, and all of them together."""
    alone = {str(tool): (tool,) for tool in tools}
    return alone if len(tools) < 2 else {**alone, ", ".join(tools): tuple(tools)}


def calculated(
    margin: Float[np.ndarray, " account"],
    today: Simulated,
    others: Mapping[ApcTool, Simulated],
    level: float,
) -> dict[ApcTool, Float[np.ndarray, " account"]]:
    """Of each tool that asks for another law, the expected shortfall that `margin` must not lie below."""
    rules, out = MarginRules(level=level), {}
    for tool, other in others.items():
        laws, shares = ([today, other], [1 - STRESSED_WEIGHT, STRESSED_WEIGHT])
        if tool is ApcTool.FLOOR:
            laws, shares = [other], [1.0]
        found = protection([law.loss for law in laws], [law.scenarios for law in laws], rules, shares=shares)
        out[tool] = np.maximum(margin, found.measure)
    return out


def charged(
    margin: Float[np.ndarray, "period account"],
    raised: Mapping[ApcTool, Float[np.ndarray, "period account"]],
    days: Float[np.ndarray, " period"],
    tools: Sequence[ApcTool],
) -> Float[np.ndarray, "period account"]:
    """The margins under `tools`; `days` are those since the period before, whose margin the buffer starts from."""
    out = np.maximum.reduce([margin, *(raised[tool] for tool in tools if tool in raised)])
    if ApcTool.BUFFER in tools:
        before = np.zeros(margin.shape[1])
        for i, since in enumerate(days.tolist()):
            before = out[i] = buffered(out[i], before, since)
    return out


def step_of(
    tools: Sequence[ApcTool],
    path: Float[np.ndarray, " day"],
    margin: Float[np.ndarray, " account"],
    today: Simulated,
    others: Mapping[ApcTool, Simulated],
    level: float,
) -> tuple[float, ...]:
    """The margin on `STEP_DAYS` of a doubled volatility over the margin before, the mean over accounts.

    `path` is σ over σ before, day by day; losses are taken to grow with it, as those of linear accounts do.
    """
    needed = {tool: other for tool, other in others.items() if tool in tools}
    days = [calculated(ratio * margin, today.times(ratio), needed, level) for ratio in path.tolist()]
    raised = {tool: np.stack([day[tool] for day in days]) for tool in needed}
    found = charged(path[:, None] * margin, raised, np.ones(len(path)), tools)
    return tuple((found[np.array(STEP_DAYS)] / found[0]).mean(axis=1).tolist())
