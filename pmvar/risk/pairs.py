"""Pairs of an account and one of its tail scenarios: where tiles of instruments meet tails of accounts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int
from scipy import sparse

from pmvar.kernels.tail_pairs import PAIRS, adjoint, values
from pmvar.risk.measure import BlockMeasure
from pmvar.types import PATH_TILE


@dataclass(frozen=True)
class Slot:
    """One way in which a displacement reaches instruments: one field of slopes, as one factor for each instrument."""

    field: int
    """Which field."""
    factor: Int[np.ndarray, " instrument"]
    """What the slope is a derivative by."""
    per_unit: Float[np.ndarray, " instrument"]
    """d(field)/d(factor), 0 where it does not reach."""


@dataclass(frozen=True)
class Pairs:
    """The pairs of one block that lie in one tile, by account and path."""

    where: tuple[Int[np.ndarray, " pair"], Int[np.ndarray, " pair"]]
    """Account of the block and place among its kept scenarios."""
    path: Int[np.ndarray, " pair"]

    @property
    def account(self) -> Int[np.ndarray, " pair"]:
        """Account of the block."""
        return self.where[0]

    @property
    def column(self) -> Int[np.ndarray, " pair"]:
        """Column of the tile."""
        return self.path % PATH_TILE

    def sums(
        self, group: Int[np.ndarray, " entry"], weight: Float[np.ndarray, " entry"], n_groups: int
    ) -> sparse.csr_array:
        """The matrix that adds up pairs into groups; an entry for each pair, or several times all pairs."""
        pair = np.tile(np.arange(len(self.path)), len(group) // max(1, len(self.path)))
        return sparse.csr_array((weight, (group, pair)), shape=(n_groups, len(self.path)))


class TailPairs:
    """All pairs of one block, tile by tile, and what reaches their accounts through their positions."""

    def __init__(
        self, measured: BlockMeasure, row: Int[np.ndarray, " instrument"], slots: Sequence[Slot], n_factors: int
    ):
        """`row` is that of each instrument in a tile."""
        block, tail = measured.block, measured.tail
        self.measured, self.width = measured, int(block.count.max(initial=0))
        shape = (len(block.account), self.width)
        instrument, quantity = (x[:, : self.width] for x in (block.instrument, block.quantity))
        size = max(PAD, 1 << int(np.prod(shape)).bit_length())
        flat = np.zeros(size, np.int32)
        flat[: np.prod(shape)] = row[instrument].ravel()
        self._row = jnp.asarray(flat)
        used = (tail.weight > 0) | (tail.at_var > 0)
        self._tile = np.where(used, measured.ids // PATH_TILE, -1).astype(np.int32)
        # A column of its own for each factor that reaches an account, in the order of factors.
        weight = np.stack([-quantity * slot.per_unit[instrument] for slot in slots])
        factor = np.stack([slot.factor[instrument] for slot in slots])
        account = np.broadcast_to(np.arange(shape[0])[:, None], shape)
        reached = weight != 0
        keys, inverse = np.unique((account * n_factors + factor)[reached], return_inverse=True)
        owner = keys // n_factors
        local = np.arange(len(keys)) - np.searchsorted(owner, owner)
        self.factor = np.full((shape[0], 1 << max(0, int(local.max(initial=0))).bit_length()), -1)
        """Of each account's columns; −1 pads. Axes: account, column."""
        self.factor[owner, local] = keys % n_factors
        column = np.zeros(weight.shape, np.int32)
        column[reached] = local[inverse]
        pad = [(0, 0), (0, size - int(np.prod(shape)))]
        self._weight = jnp.asarray(np.pad(weight.reshape(len(slots), -1), pad))
        self._column = jnp.asarray(np.pad(column.reshape(len(slots), -1), pad))
        self._fields = tuple(slot.field for slot in slots)

    def of_tile(self, index: int) -> Pairs:
        """Pairs that lie in tile `index` and have a part in the tail or around the VaR."""
        where = np.divmod(np.flatnonzero(self._tile == index), self._tile.shape[1])
        return Pairs(where, self.measured.ids[where])

    def derivative(self, pairs: Pairs, slopes: tuple[Array, ...]) -> Float[np.ndarray, "pair column"]:
        """Of the loss of each pair by its account's factors, given the slopes of all instruments in the tile."""
        out = np.empty((len(pairs.path), self.factor.shape[1]))
        for some, first, scenario in self._calls(pairs):
            found = adjoint(
                slopes, self._row, self._weight, self._column, jnp.int32(self.width), first, scenario,
                fields=self._fields, n_columns=out.shape[1],
            )  # fmt: skip
            out[some] = np.asarray(found).T[: some.stop - some.start]
        return out

    def values(self, pairs: Pairs, tile: Array) -> Float[np.ndarray, "pair position"]:
        """P&L of one contract of each position in each pair."""
        lanes = 1 << max(0, self.width - 1).bit_length()
        out = np.empty((len(pairs.path), self.width))
        for some, first, scenario in self._calls(pairs):
            found = values(tile, self._row, first, scenario, lanes=lanes)
            out[some] = np.asarray(found)[: self.width].T[: some.stop - some.start]
        return out

    def _calls(self, pairs: Pairs) -> Iterator[tuple[slice, Array, Array]]:
        """Pairs, `PAIRS` at a time: (which, where the positions begin, column of the tile), padded."""
        for start in range(0, len(pairs.path), PAIRS):
            some = slice(start, min(start + PAIRS, len(pairs.path)))
            pad = (0, PAIRS - (some.stop - some.start))

            def padded(x: np.ndarray, pad: tuple[int, int] = pad) -> Array:
                return jnp.asarray(np.pad(x, pad).astype(np.int32))

            yield some, padded(pairs.account[some] * self.width), padded(pairs.column[some])

    @cached_property
    def columns(self) -> tuple[Int[np.ndarray, " reached"], Int[np.ndarray, " reached"]]:
        """(account, column) of all that is not padding."""
        account, column = np.nonzero(self.factor >= 0)
        return account, column


PAD = 1024
"""Least length of the table of positions, whose lengths are powers of two: few shapes to compile."""
