"""Where the tail of each row of losses begins and ends, in loops that numba compiles: on a CPU the twin of the sums
over bins in `pmvar.risk.quantiles`, which read every loss several times.

Sums of weights are exact (`pmvar.scenarios.scenario_set.GRAIN`), so that neither bins nor their order change a bit.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numba
import numpy as np

BINS = 256
"""Bins of a row, from where the tail surely ends to where it surely begins."""
HALVINGS = 12
"""Of the interval of losses in which a bin's bound is sought."""
UNIT = 2.0**16
"""Weights of the sample are counted in integers, whose sums a compiler may reorder."""
FEW = 32
"""Losses that are sorted by insertion."""


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # Run-time type checks wrap what is defined here, and numba compiles no wrapper.
    plain = inspect.unwrap(function)
    try:
        return numba.njit(plain, nogil=True, cache=True)
    except RuntimeError:
        # Nowhere to keep it: every process compiles anew.
        return numba.njit(plain, nogil=True)


@_compiled
def _beyond(value, unit, square, mass, errors):
    """A value of a sample through which there is more weight than `mass`, so many standard errors surely."""
    low, high = value.min(), value.max()
    for _ in range(HALVINGS):
        middle = low + 0.5 * (high - low)
        through, squares = 0, 0
        for k in range(len(value)):
            inside = value[k] >= middle
            through += unit[k] * inside
            squares += square[k] * inside
        if through > mass * UNIT + errors * np.sqrt(squares * UNIT):
            low = middle
        else:
            high = middle
    return low


@_compiled
def _sorted(ids, loss):
    """Scenarios by their losses, worst first, of equals the lower scenario first; they come in increasing order."""
    if len(ids) > FEW:
        return ids[np.argsort(-loss[ids], kind="mergesort")]
    for i in range(1, len(ids)):
        own, j = ids[i], i - 1
        while j >= 0 and loss[ids[j]] < loss[own]:
            ids[j + 1] = ids[j]
            j -= 1
        ids[j + 1] = own
    return ids


@_compiled
def _place(weight, before, n_tail, band, which):
    """Index among sorted pieces of `weight`, and the weight before it: where the band begins (0), the VaR (1), where
    the band ends (2). Pieces without weight are nowhere."""
    found, found_before = 0, before
    for i in range(len(weight)):
        own = weight[i]
        if own > 0:
            if which == 0 and before + own > (1 - band) * n_tail:
                return i, before
            # 1e-9 forgives rounding.
            within = before <= n_tail * (1 + 1e-9) if which == 1 else before < (1 + band) * n_tail
            if which != 0 and not within:
                break
            found, found_before = i, before
        before += own
    return found, found_before


@_compiled
def places(loss, weight, replicate, n_replicates, n_tail, band, step):
    """What `pmvar.risk.quantiles.Found` has, in its order, of rows of finite losses.

    `replicate` is that of each scenario; every `step`-th scenario is sampled.
    """
    n_rows, n = loss.shape
    at = np.empty((n_rows, 3))
    before, through, mass = np.empty(n_rows), np.empty(n_rows), np.empty(n_rows)
    in_tail, excess = np.zeros((n_rows, n_replicates)), np.zeros((n_rows, n_replicates))
    kept, bins, edge = np.empty(n, np.int32), np.empty(n, np.int32), np.empty(n, np.int32)
    held = np.empty(BINS)
    end = (1 + band) * n_tail
    unit = (weight[::step] * (step * UNIT)).astype(np.int64)
    square = (weight[::step] ** 2 * (step * step * UNIT)).astype(np.int64)
    for row in range(n_rows):
        own = loss[row]
        sample = own[::step].copy()
        high = _beyond(sample, unit, square, (1 - band) * n_tail, -3.0)
        for errors in (3.0, 9.0, np.inf):
            low = _beyond(sample, unit, square, end, errors) if errors < np.inf else own.min()
            count = 0
            for i in range(n):
                kept[count] = i
                count += own[i] >= low
            # Where the width is next to nothing, or beyond the largest float, all is in the last bin.
            width = np.float64(high) - low
            scale = BINS / width if 1e-300 < width < np.inf else 0.0
            held[:] = 0.0
            for k in range(count):
                depth = (np.float64(own[kept[k]]) - low) * scale
                bins[k] = BINS - 1 - (np.int32(min(depth, BINS - 1.0)) if depth > 0 else 0)
                held[bins[k]] += weight[kept[k]]
            mass[row] = held.sum()
            if mass[row] > end:
                break
        for which in range(3):
            bin_, sum_ = _place(held, 0.0, n_tail, band, which)
            size = 0
            for k in range(count):
                edge[size] = kept[k]
                size += bins[k] == bin_
            order = _sorted(edge[:size], own)
            rank, sum_ = _place(weight[order], sum_, n_tail, band, which)
            at[row, which] = own[order[rank]]
            if which == 0:
                before[row] = sum_
            through[row] = sum_ + weight[order[rank]]
        for k in range(count):
            i = kept[k]
            beyond = weight[i] * (own[i] > at[row, 1])
            in_tail[row, replicate[i]] += beyond
            excess[row, replicate[i]] += beyond * (np.float64(own[i]) - at[row, 1])
    return at[:, 0], at[:, 1], at[:, 2], mass, before, through, in_tail, excess
