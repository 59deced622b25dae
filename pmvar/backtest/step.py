"""What a model makes of volatility that doubles from one day to the next."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from pmvar.calibration.calibrate import FILTERED
from pmvar.models.garch import EWMA_DECAY
from pmvar.models.specification import ModelSpecification
from pmvar.types import FactorKind

STEP_DAYS = (1, 5, 20)
"""After volatility doubled, the days at which the margin's response is told."""


def step_path(specification: ModelSpecification, *, window: int, recalibrate: int) -> Float[np.ndarray, "price day"]:
    """σ over σ before, on the day of the step and each up to the last of `STEP_DAYS`, as the model expects it.

    A filter, for each price: σ²_{k+1} = (1 − p)σ²₀ + (α + γ/2)·4σ²₀ + βσ²_k, p = α + γ/2 + β, from its level σ₀. A
    constant volatility follows with its window, √(1 + 3k/window), at each calibration.
    """
    days = np.arange(max(STEP_DAYS) + 1)
    if specification.model not in FILTERED:
        return np.sqrt(1 + 3 * (days // recalibrate * recalibrate) / window)[None]
    prices = [f.name for f in specification.factors if f.kind is FactorKind.SPOT]
    rows = [specification.state["filter"][name] for name in prices]
    news, kept = np.array([
        (row["alpha"] + row["gamma"] / 2, row["beta"]) if "alpha" in row else (1 - EWMA_DECAY, EWMA_DECAY)
        for row in rows
    ]).T  # fmt: skip
    square = np.ones((len(rows), len(days)))
    for k in days[1:]:
        square[:, k] = (1 - news - kept) + 4 * news + kept * square[:, k - 1]
    return np.sqrt(square)


def step_response(specification: ModelSpecification, *, window: int, recalibrate: int) -> tuple[float, ...]:
    """`step_path` on each of `STEP_DAYS`, the mean over prices."""
    path = step_path(specification, window=window, recalibrate=recalibrate)
    return tuple(path[:, STEP_DAYS].mean(axis=0).tolist())
