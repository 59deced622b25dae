"""The scenarios that hold the tail of each account, found without sorting the others."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
from jaxtyping import Float, Int

from pmvar.errors import NumericsError
from pmvar.risk.accounts import LossStrips
from pmvar.risk.tail import BAND

T = TypeVar("T")

ROWS = 32
"""Accounts selected at once: what they keep fits a core's cache."""

SAMPLE = 1024
"""Least scenarios that tell where an account's tail begins; a guess, which only costs time when it is wrong."""

SPARE = 16
"""Scenarios kept beyond the band around the VaR: single precision may order neighbours otherwise than double."""


def in_threads(work: Callable[[slice], T], n: int, size: int) -> list[T]:
    """`work` on slices of `size` of n rows, in order. NumPy lets go of the interpreter's lock in all that takes
    time here."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(work, (slice(i, min(i + size, n)) for i in range(0, n, size))))


def tail_ids(
    loss: Float[np.ndarray, "account scenario"] | LossStrips,
    weight: Float[np.ndarray, " scenario"],
    level: float,
    *,
    names: np.ndarray | None = None,
) -> Int[np.ndarray, "account kept"]:
    """Scenarios that hold the tail of each account and the losses around its VaR, worst first, of equals the lower id.

    Losses are compared in single precision. How many are kept is up to the account that needs most; what comes after
    an account's own may repeat its last. Raises NumericsError on a loss that is not finite, naming the first account
    by `names`, one for each row of `loss`.
    """
    need = (1 + BAND) * loss.shape[1] * (1 - level)

    def select(rows: slice) -> _Selected:
        own = loss[rows]
        refuse_not_finite(own, names[rows] if names is not None else None)
        return _select(own, weight, need)

    found = in_threads(select, len(loss), ROWS)
    width = max((f.needed for f in found), default=0)
    return np.concatenate([_widened(f.ids, width) for f in found]) if found else np.zeros((0, 0), np.int64)


def refuse_not_finite(loss: Float[np.ndarray, "account scenario"], names: np.ndarray | None) -> None:
    """Raise NumericsError where a loss is not finite, naming the first account by `names`."""
    finite = np.isfinite(loss).all(axis=1)
    if not finite.all():
        who = f"account {names[~finite][0]}" if names is not None else "a position"
        raise NumericsError(
            f"the loss of {who} is not finite at the precision of the run; "
            "reduce its quantities or use --precision float64"
        )


def _widened(ids: np.ndarray, width: int) -> np.ndarray:
    return np.pad(ids[:, :width], ((0, 0), (0, max(0, width - ids.shape[1]))), mode="edge")


class _Selected(NamedTuple):
    ids: Int[np.ndarray, "account some"]
    """Worst first; where an account has fewer its last is repeated."""
    needed: int
    """How many of them the account that needs most does."""


def _select(loss: np.ndarray, weight: np.ndarray, need: float) -> _Selected:
    """Scenarios of the largest losses, more than `need` of weight (or all there are)."""
    n_rows, n = loss.shape
    keep = np.zeros(loss.shape, dtype=bool)
    short = np.arange(n_rows)
    for threshold in _thresholds(loss, weight, need):
        keep[short] = loss[short] >= threshold[short, None]
        kept = _kept(keep)
        short = np.flatnonzero(np.add.reduceat(weight.take(kept.scenario), kept.start) <= need)
        if not len(short):
            break
    found = loss.reshape(-1).take(kept.place)
    same = found == np.repeat(np.minimum.reduceat(found, kept.start), kept.count)
    tied = np.flatnonzero(np.add.reduceat(same, kept.start, dtype=np.int64) > SPARE)
    if len(tied):
        for row in tied:
            keep[row] = _without_spare_ties(loss[row], keep[row], weight, need)
        kept = _kept(keep)
        found = loss.reshape(-1).take(kept.place)
    inside = np.arange(kept.count.max()) < kept.count[:, None]
    key = np.full(inside.shape, np.iinfo(np.int64).max)
    key[inside] = _key(found, kept.scenario)
    key.sort(axis=1)
    ids = key & 0xFFFFFFFF
    ids = np.where(inside, ids, np.take_along_axis(ids, kept.count[:, None] - 1, 1))
    through = np.cumsum(np.where(inside, weight.take(ids), 0.0), axis=1)
    enough = np.count_nonzero(through <= need, axis=1) + 1 + SPARE
    return _Selected(ids, min(int(enough.max()), n))


class _Kept(NamedTuple):
    """What a mask is true for, row by row."""

    place: Int[np.ndarray, " kept"]
    """In the flat array."""
    scenario: Int[np.ndarray, " kept"]
    count: Int[np.ndarray, " account"]
    start: Int[np.ndarray, " account"]


def _kept(keep: np.ndarray) -> _Kept:
    place, count = np.flatnonzero(keep), np.count_nonzero(keep, axis=1)
    scenario = place - np.repeat(np.arange(len(keep)) * keep.shape[1], count)
    return _Kept(place, scenario, count, np.cumsum(count) - count)


def _thresholds(loss: np.ndarray, weight: np.ndarray, need: float) -> Iterator[np.ndarray]:
    """Losses that few exceed and the tail does, one for each account, lower and lower."""
    sample = Sample.of(loss, weight, SAMPLE)
    for errors in (3.0, 5.0, 9.0):
        yield sample.beyond(need, errors=errors)
    yield sample.beyond(np.inf)


class Sample(NamedTuple):
    """Every so many scenarios of each account, worst first: guesses of where its tail begins."""

    loss: Float[np.ndarray, "account scenario"]
    """Of all scenarios."""
    ids: Int[np.ndarray, "account some"]
    through: Float[np.ndarray, "account some"]
    """Weight of a scenario and those before it, of all scenarios that they stand for."""
    error: Float[np.ndarray, "account some"]
    """Standard error of `through`."""

    @classmethod
    def of(
        cls, loss: Float[np.ndarray, "account scenario"], weight: Float[np.ndarray, " scenario"], least: int
    ) -> Sample:
        """At least `least` scenarios, or none where that is more than half of all."""
        step = loss.shape[1] // least
        if step <= 1:
            return cls(loss, np.zeros((len(loss), 0), np.int64), *np.zeros((2, len(loss), 0)))
        key = _key(loss[:, ::step], np.arange(0, loss.shape[1], step))
        key.sort(axis=1)
        key &= 0xFFFFFFFF
        held = step * weight.take(key)
        through = np.cumsum(held, axis=1)
        held *= held
        return cls(loss, key, through, np.sqrt(np.cumsum(held, axis=1)))

    def beyond(self, mass: float, *, errors: float = 0.0) -> Float[np.ndarray, " account"]:
        """The loss of each account through which there is more weight than `mass`, so many errors surely; else −∞."""
        n_rows, n = self.ids.shape
        if n == 0:
            return np.full(n_rows, -np.inf)
        rank, each = np.count_nonzero(self.through <= mass + errors * self.error, axis=1), np.arange(n_rows)
        return np.where(rank < n, self.loss[each, self.ids[each, np.minimum(rank, n - 1)]], -np.inf)


def _without_spare_ties(loss: np.ndarray, keep: np.ndarray, weight: np.ndarray, need: float) -> np.ndarray:
    """`keep` of one account without the higher ids of the equal losses at its end that nobody needs."""
    last = loss[keep].min()
    kept = keep & (loss > last)
    ties = np.flatnonzero(keep & (loss == last))
    room = np.searchsorted(np.cumsum(weight[ties]), need - weight[kept].sum(), side="right") + 1 + SPARE
    kept[ties[:room]] = True
    return kept


def _key(loss: np.ndarray, scenario: np.ndarray) -> np.ndarray:
    """Integers that increase where losses fall and, among equals, with the scenario, which is their lower half."""
    with np.errstate(over="ignore"):
        bits = (loss.astype(np.float32) + np.float32(0)).view(np.int32)  # −0 becomes +0
    ascending = np.where(bits < 0, bits ^ np.int32(0x7FFFFFFF), bits)
    return (~ascending).astype(np.int64) << 32 | scenario
