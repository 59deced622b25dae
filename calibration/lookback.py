"""Volatilities beside today's: over ten years, and of a stressed period; what tools against procyclicality go by."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float

from pmvar.calibration.assumed import SOURCE
from pmvar.calibration.calibrate import x_of
from pmvar.calibration.panel import Moves
from pmvar.errors import UsageError
from pmvar.models.specification import ModelSpecification
from pmvar.types import DAY

LONG_RUN_YEARS = 10
"""Regulation (EU) 153/2013, article 28(1)(c)."""
STRESSED_MOVES = 250
"""Length of the stressed period where none is named: the worst year of trading."""
LEAST_MOVES = 20
"""Of a factor in the stressed period: fewer do not make a volatility."""


@dataclass(frozen=True)
class Lookback:
    """Standard deviations of x over one step, by factor; NaN where its history says nothing."""

    long_run: Float[np.ndarray, " factor"]
    years: Float[np.ndarray, " factor"]
    """That `long_run` looks back, at most `LONG_RUN_YEARS`."""
    stressed: Float[np.ndarray, " factor"]
    period: tuple[float, float]
    """First and last day of the stressed period, epoch seconds."""


def lookback(
    day: Float[np.ndarray, " day"],
    x: Float[np.ndarray, "day factor"],
    *,
    period: tuple[float, float] | None = None,
) -> Lookback:
    """Both volatilities of factors with the moves `x`, up to the last of `day` (epoch seconds, ascending).

    Without a `period` the stressed one is the `STRESSED_MOVES` days in a row whose moves, each over its factor's own
    long-run volatility, are largest in mean square. A factor that has fewer than `LEAST_MOVES` moves in it gets its
    long-run volatility times the mean ratio of the others. Raises UsageError for a period without moves.
    """
    ago = day[-1] - LONG_RUN_YEARS * 365.25 * DAY
    inside = day > ago
    long_run = _deviation(x[inside], LEAST_MOVES)
    stressed_day = _worst(x / long_run) if period is None else (day >= period[0]) & (day <= period[1])
    own = _deviation(x[stressed_day], LEAST_MOVES)
    ratio = own / long_run
    if np.isnan(ratio).all():
        raise UsageError(f"no factor has {LEAST_MOVES} moves in the stressed period; name another")
    stressed = np.where(np.isnan(own), np.nanmean(ratio) * long_run, own)
    begun = np.array([day[inside][np.argmax(~np.isnan(column[inside]))] for column in x.T])
    days = day[stressed_day]
    return Lookback(long_run, (day[-1] - begun) / (365.25 * DAY), stressed, (float(days[0]), float(days[-1])))


def with_lookback(
    specification: ModelSpecification, moves: Moves, *, period: tuple[float, float] | None = None
) -> tuple[ModelSpecification, Lookback]:
    """`specification` with both volatilities of its factors, from all `moves` there are; of the fitted factors, the
    first ones, what was found. Assumed ones keep their assumed volatility. Raises UsageError as `lookback` does."""
    fitted = [f.name for f in specification.factors if f.source != SOURCE]
    own = moves.part(slice(None), fitted)
    found = lookback(own.day, x_of(own), period=period)
    both = dict(zip(fitted, zip(found.long_run.tolist(), found.stressed.tolist(), strict=True), strict=True))
    factors = []
    for f in specification.factors:
        long_run, stressed = both.get(f.name, (f.volatility, f.volatility))
        factors.append(replace(f, long_run_volatility=long_run, stressed_volatility=stressed))
    return replace(specification, factors=tuple(factors)), found


def _deviation(x: Float[np.ndarray, "day factor"], least: int) -> Float[np.ndarray, " factor"]:
    enough = np.sum(~np.isnan(x), axis=0) >= least
    out = np.full(x.shape[1], np.nan)
    out[enough] = np.nanstd(x[:, enough], axis=0)
    return out


def _worst(x: Float[np.ndarray, "day factor"]) -> np.ndarray:
    """The days of the window whose mean square over all its moves is largest, the latest of equals."""
    square, n = np.nansum(x**2, axis=1), np.sum(~np.isnan(x), axis=1)
    width = min(STRESSED_MOVES, len(x))
    sums = [np.convolve(part, np.ones(width), "valid") for part in (square, n)]
    mean = sums[0] / np.maximum(sums[1], 1)
    last = len(mean) - 1 - int(np.argmax(mean[::-1]))
    return (np.arange(len(x)) >= last) & (np.arange(len(x)) < last + width)
