"""Rolling forecasts: for each day the model that was known the day before, its parameters fitted on a schedule."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from pmvar.calibration.calibrate import (
    Calibration,
    Estimates,
    MissingVols,
    calibrate,
    estimate,
    family,
    filter_state,
    x_of,
)
from pmvar.calibration.lookback import with_lookback
from pmvar.calibration.panel import Moves
from pmvar.errors import InputError, Problem, UsageError
from pmvar.models.specification import LEAST_HISTORY, ModelSpecification


@dataclass(frozen=True)
class Schedule:
    """Which days are forecast, from which past."""

    first: int
    """Row of the moves that is forecast first."""
    horizon: int = 1
    """Steps of each forecast; forecasts do not overlap."""
    window: int = 1_000
    """Moves that parameters are fitted on."""
    recalibrate: int = 20
    """Steps after which parameters are fitted again; volatility is filtered every day."""

    def starts(self, n: int) -> range:
        """First row of each forecast period, of `n` rows."""
        return range(self.first, n - self.horizon + 1, self.horizon)


class Forecast(NamedTuple):
    """A model as it was known before the moves of row `row`."""

    row: int
    specification: ModelSpecification
    calibrated: int
    """Row before which its parameters were fitted: equal ones and a model of constant volatility mean equal laws."""


class Past:
    """Estimates of windows of `moves`, each made once for all models of a family."""

    def __init__(self, moves: Moves, earlier: Moves | None = None) -> None:
        """`earlier` moves of the same names, gaps allowed, are looked back on for long-run and stressed volatility.

        Raises InputError for moves with gaps: see `complete`.
        """
        gaps = [name for name, r in zip(moves.name, moves.ratio.T, strict=True) if np.isnan(r).any()]
        if gaps:
            rule = f"a backtest needs a move on each of its days; there are gaps in {', '.join(gaps[:10])}"
            raise InputError(Problem(rule, "leave these factors out (see complete)", file="history"))
        self.moves = moves
        self._earlier = moves.part(slice(0, 0)) if earlier is None else earlier
        self._made: dict[tuple[str, int, int], Estimates] = {}

    def before(self, row: int, window: int, *, model: str) -> Estimates:
        """What `model`'s family is made from, from the `window` rows before `row`."""
        key = family(model), row, window
        if key not in self._made:
            self._made[key] = estimate(self.moves.part(slice(row - window, row)), model=model)
        return self._made[key]


    def all_before(self, row: int) -> Moves:
        """Every move there is before `row`."""
        parts = self._earlier, self.moves.part(slice(0, row))
        day, ratio = (np.concatenate([getattr(p, key) for p in parts]) for key in ("day", "ratio"))
        return replace(self.moves, day=day, ratio=ratio, findings=())


def complete(moves: Moves, schedule: Schedule) -> tuple[Moves, list[str]]:
    """The moves from the first window on of those names that have them all, and the other names.

    Raises UsageError where the first window begins before the history, or nothing is left.
    """
    begin = schedule.first - schedule.window
    if not (begin >= 0 and schedule.window >= LEAST_HISTORY and schedule.first + schedule.horizon <= len(moves.day)):
        raise UsageError(
            f"the backtest begins at move {schedule.first} of {len(moves.day)} and needs {schedule.window} before it, "
            f"at least {LEAST_HISTORY}; start later, or shorten the window"
        )
    whole = np.asarray(~np.isnan(moves.ratio[begin:]).any(axis=0))
    if not whole.any():
        raise UsageError(
            "no factor has a move on every day from the first window on; start later, or shorten the window"
        )
    kept = [n for n, w in zip(moves.name, whole.tolist(), strict=True) if w]
    return moves.part(slice(begin, None), kept), [n for n in moves.name if n not in kept]


def forecasts(past: Past, schedule: Schedule, *, model: str) -> Iterator[Forecast]:
    """The forecasts of `model` for each period of `schedule`, oldest first; no number in them is of a later day."""
    moves, fitted, made = past.moves, schedule.first, None
    x = x_of(moves)
    for row in schedule.starts(len(moves.day)):
        if made is None or row - fitted >= schedule.recalibrate:
            fitted = row
            made = calibrate(past.before(row, schedule.window, model=model), model=model, missing_vols=MissingVols.OMIT)
            until = min(row + schedule.recalibrate + schedule.horizon, len(moves.day))
            deviation = _deviations(made, x[row - schedule.window : until])
            looking_back, _ = with_lookback(made.specification, past.all_before(row))
        specification = replace(looking_back, as_of=float(moves.day[row - 1]))
        if deviation is not None:
            state = filter_state(made.estimates, deviation[row - fitted + schedule.window])
            specification = replace(specification, state=state)
        yield Forecast(row, specification, fitted)


def _deviations(made: Calibration, x: np.ndarray) -> np.ndarray | None:
    """σ of each day, each from the days before it; None where it is constant."""
    return None if made.estimates.fit is None else made.estimates.deviations(x)
