"""Measures of rows of losses from sums over bins, where `tail` sorts all that it keeps.

With likelihood ratios a tenth of the scenarios lie in the tail. VaR, ES and their errors need the order of losses in
three places only, at the VaR and at both ends of the band around it; of the others they need sums.
"""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from pmvar.errors import NumericsError
from pmvar.risk.selection import Sample
from pmvar.risk.tail import BAND, replicate_deviation

BINS = 128
"""Bins of each row, from where the band around the VaR begins to where it surely ends."""

SAMPLE = 384
"""Least scenarios that tell where the bins lie; a guess, which only costs time when it is wrong."""


class Measured(NamedTuple):
    """Measures of rows of losses, and what each replicate says of them."""

    value_at_risk: Float[np.ndarray, " row"]
    expected_shortfall: Float[np.ndarray, " row"]
    var_parts: Float[np.ndarray, "row replicate"]
    """Each replicate's estimate, but for what all replicates share: rows add up, and the spread gives a sum's error."""
    es_parts: Float[np.ndarray, "row replicate"]

    @property
    def var_error(self) -> Float[np.ndarray, " row"]:
        """Standard error of the VaR."""
        return spread(self.var_parts)

    @property
    def es_error(self) -> Float[np.ndarray, " row"]:
        """Standard error of the ES."""
        return spread(self.es_parts)


def spread(parts: Float[np.ndarray, "row replicate"]) -> Float[np.ndarray, " row"]:
    """Standard error of a mean over replicates."""
    return replicate_deviation(parts, parts.shape[-1])


def measure_rows(
    loss: Float[np.ndarray, "row scenario"], weight: Float[np.ndarray, " scenario"], *, level: float, n_replicates: int
) -> Measured:
    """VaR, ES and their standard errors, as `tail` and `standard_errors` define them, of finite losses.

    No bit of a row depends on the others. Raises NumericsError if the weights do not cover the tail.
    """
    n = loss.shape[1]
    n_tail = n * (1 - level)
    find = in_loops if has_numba() else by_bins
    found = find(loss, weight, np.arange(n, dtype=np.int32) % n_replicates, n_replicates, n_tail)
    if not np.all(found.mass >= n_tail * (1 - 1e-12)):
        raise NumericsError("the weights of the scenarios do not cover the tail; draw more")
    spacing = (found.begin - found.end) * n / (found.through - found.before)
    return Measured(
        found.at,
        found.at + np.cumsum(found.excess, axis=1)[:, -1] / n_tail,
        found.in_tail * (spacing * n_replicates / n)[:, None],
        found.excess * (n_replicates / n_tail),
    )


class Found(NamedTuple):
    """What the measures of rows of losses are made of."""

    begin: Float[np.ndarray, " row"]
    """Loss where the band around the VaR begins."""
    at: Float[np.ndarray, " row"]
    """The VaR."""
    end: Float[np.ndarray, " row"]
    """Loss where the band ends."""
    mass: Float[np.ndarray, " row"]
    """Weight of all that was looked at: more than the band's end, or all there is."""
    before: Float[np.ndarray, " row"]
    """Weight of what is worse than where the band begins."""
    through: Float[np.ndarray, " row"]
    """Weight through its end."""
    in_tail: Float[np.ndarray, "row replicate"]
    """Weight beyond the VaR."""
    excess: Float[np.ndarray, "row replicate"]
    """The same times the excess over the VaR."""


@cache
def has_numba() -> bool:
    """Whether tails are found in compiled loops, which takes less time and gives the same bits."""
    return find_spec("numba") is not None


def in_loops(loss: np.ndarray, weight: np.ndarray, replicate: np.ndarray, n_replicates: int, n_tail: float) -> Found:
    """By `pmvar.kernels.tail_loops`, row by row."""
    from pmvar.kernels.tail_loops import places

    step = max(1, loss.shape[1] // SAMPLE)
    return Found(*places(np.ascontiguousarray(loss), weight, replicate, n_replicates, n_tail, BAND, step))


def by_bins(loss: np.ndarray, weight: np.ndarray, replicate: np.ndarray, n_replicates: int, n_tail: float) -> Found:
    """By NumPy, all rows at once."""
    n_rows = len(loss)
    kept = _keep(loss, weight, n_tail)
    first, at, last = _places(kept, n_tail)
    worse = np.flatnonzero(kept.loss > np.repeat(at.loss.astype(loss.dtype), kept.count))
    row, held = kept.bin.take(worse) // BINS, kept.weight.take(worse)
    group = row * n_replicates + replicate.take(kept.scenario.take(worse))
    in_tail, excess = (
        # Of nothing at all it makes integers.
        np.bincount(group, x, minlength=n_rows * n_replicates).astype(float).reshape(n_rows, -1)
        for x in (held, held * (kept.loss.take(worse) - at.loss.take(row)))
    )
    mass = kept.mass.sum(axis=1)
    return Found(first.loss, at.loss, last.loss, mass, first.before, last.through, in_tail, excess)


class _Kept(NamedTuple):
    """The largest losses, row by row, in the order of scenarios."""

    loss: Float[np.ndarray, " kept"]
    weight: Float[np.ndarray, " kept"]
    scenario: Int[np.ndarray, " kept"]
    bin: Int[np.ndarray, " kept"]
    """Bins of a row stand together, the worst first."""
    count: Int[np.ndarray, " row"]
    mass: Float[np.ndarray, "row bin"]
    """Weight of each bin."""


def _keep(loss: np.ndarray, weight: np.ndarray, n_tail: float) -> _Kept:
    """Losses through the end of the band, in bins."""
    n_rows, n = loss.shape
    least, begin, end = loss.min(axis=1), (1 - BAND) * n_tail, (1 + BAND) * n_tail
    sample, rows = Sample.of(loss, weight, SAMPLE), np.arange(n_rows)
    low, short = least, np.ones(n_rows, bool)
    for guess in (sample.beyond(end, errors=3.0), sample.beyond(end, errors=9.0), least):
        low = np.where(short, np.maximum(guess, least), low)
        place = np.flatnonzero(loss >= low[:, None])
        start = np.searchsorted(place, rows * n)
        count = np.diff(start, append=len(place))
        scenario = place - np.repeat(rows * n, count)
        held = weight.take(scenario)
        mass = np.add.reduceat(held, start)
        short = mass <= end
        if not short.any():
            break
    found = loss.reshape(-1).take(place)
    with np.errstate(all="ignore"):
        depth = found - np.repeat(low, count)
        # The excess over a high threshold is about exponential.
        width = np.add.reduceat(held * depth, start) / mass * (np.log(mass / begin) + 0.5)
        depth *= np.repeat((BINS / width).astype(loss.dtype), count)
        np.subtract(BINS, depth, out=depth)
    # A NaN (no width, or one beyond the largest float) goes into the first bin: the order of bins is that of losses.
    np.fmin(np.fmax(depth, 0, out=depth), BINS - 1, out=depth)
    bins = depth.astype(np.int64)
    bins += np.repeat(rows * BINS, count)
    mass = np.bincount(bins, held, minlength=n_rows * BINS).reshape(n_rows, BINS)
    return _Kept(found, held, scenario, bins, count, mass)


class _Place(NamedTuple):
    """A place in the order of each row's losses, worst first, of equals the lower scenario first."""

    loss: Float[np.ndarray, " row"]
    before: Float[np.ndarray, " row"]
    """Weight of all before it."""
    through: Float[np.ndarray, " row"]
    """And its own."""


def _places(kept: _Kept, n_tail: float) -> list[_Place]:
    """Where the band around the VaR begins, the VaR, and where the band ends: the bins of each, then in those."""
    sums = np.zeros((len(kept.count), BINS + 1))
    np.cumsum(kept.mass, axis=1, out=sums[:, 1:])
    held, starts = kept.mass > 0, np.arange(len(kept.count)) * BINS
    bins = [starts + search(sums, held, n_tail) for search in SEARCHES]
    used = np.unique(bins)
    group = np.zeros(kept.mass.size, np.int32)
    group[used] = np.arange(1, len(used) + 1)
    group = group.take(kept.bin)
    chosen = np.flatnonzero(group)
    group = group.take(chosen) - 1
    chosen = chosen.take(np.argsort(group, kind="stable"))
    size = np.bincount(group)
    held = np.arange(size.max()) < size[:, None]
    loss, weight = np.full(held.shape, -np.inf), np.zeros(held.shape)
    loss[held], weight[held] = kept.loss.take(chosen), kept.weight.take(chosen)
    order = np.argsort(-loss, axis=1, kind="stable")
    loss, weight = (np.take_along_axis(x, order, 1) for x in (loss, weight))
    sums = np.cumsum(np.concatenate([sums[:, :-1].reshape(-1, 1)[used], weight], axis=1), axis=1)
    out = []
    for search, where in zip(SEARCHES, bins, strict=True):
        own = np.searchsorted(used, where)
        rank = search(sums[own], held[own], n_tail)
        out.append(_Place(loss[own, rank], sums[own, rank], sums[own, rank + 1]))
    return out


def _begin(sums: np.ndarray, held: np.ndarray, n_tail: float) -> np.ndarray:
    """Where the band begins among sorted pieces of weight, given their sums from 0 on."""
    return np.argmax(held & (sums[:, 1:] > (1 - BAND) * n_tail), axis=1)


def _at(sums: np.ndarray, held: np.ndarray, n_tail: float) -> np.ndarray:
    """Where the VaR is: at the last before which lies at most the tail; 1e-9 forgives rounding."""
    return _last(held & (sums[:, :-1] <= n_tail * (1 + 1e-9)))


def _end(sums: np.ndarray, held: np.ndarray, n_tail: float) -> np.ndarray:
    """Where the band ends."""
    return _last(held & (sums[:, :-1] < (1 + BAND) * n_tail))


SEARCHES = (_begin, _at, _end)


def _last(where: np.ndarray) -> np.ndarray:
    return where.shape[1] - 1 - np.argmax(where[:, ::-1], axis=1)
