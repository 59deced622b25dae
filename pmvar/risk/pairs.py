"""Pairs of an account and one of its tail scenarios: where tiles of instruments meet tails of accounts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from pmvar.risk.accounts import AccountBlock
from pmvar.risk.measure import BlockMeasure
from pmvar.types import PATH_TILE


@dataclass(frozen=True)
class Slot:
    """One way in which a displacement reaches instruments: one buffer of slopes, as one factor for each instrument."""

    field: int
    """Which buffer."""
    factor: Int[np.ndarray, " instrument"]
    """Column of the derivative that the slope belongs to."""
    per_unit: Float[np.ndarray, " instrument"]
    """d(field)/d(factor), 0 where it does not reach."""


class Position(NamedTuple):
    """The p-th position of the accounts that have one, in their tail scenarios of one tile."""

    number: int
    some: slice
    """The pairs concerned."""
    loss_per_pnl: Float[np.ndarray, " pair"]
    """Minus the quantity."""
    instrument: Int[np.ndarray, " pair"]
    place: Int[np.ndarray, " pair"]
    """Of the instrument and scenario in a flat buffer."""


@dataclass(frozen=True)
class Pairs:
    """The pairs of one block that lie in one tile, by account and path."""

    block: AccountBlock
    row: Int[np.ndarray, "account position"]
    """Row of each position's instrument in a tile."""
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

    def positions(self) -> Iterator[Position]:
        """Position after position of every account."""
        count = self.block.count[self.account]
        for p in range(int(self.block.count.max(initial=0))):
            # Accounts stand in the order of their number of positions: those that have a p-th come last.
            some = slice(int(np.searchsorted(count, p, side="right")), None)
            who = self.account[some]
            place = self.row[who, p].astype(np.int64) * PATH_TILE + self.column[some]
            yield Position(p, some, -self.block.quantity[who, p], self.block.instrument[who, p], place)


def add_slopes(
    derivative: Float[np.ndarray, "pair column"],
    position: Position,
    slots: Sequence[Slot],
    slopes: Sequence[Float[np.ndarray, "row scenario"]],
) -> None:
    """Add the derivative of a position's loss by each slot's factors."""
    flat, n_columns = derivative.reshape(-1), derivative.shape[1]
    start = np.arange(len(derivative))[position.some] * n_columns
    for slot in slots:
        reach = slot.per_unit[position.instrument]
        if np.any(reach):
            change = position.loss_per_pnl * reach * slopes[slot.field].take(position.place)
            flat[start + slot.factor[position.instrument]] += change


def pairs_in(measured: BlockMeasure, row: Int[np.ndarray, "account position"], index: int) -> Pairs:
    """Pairs that lie in tile `index` and have a part in the tail or around the VaR."""
    tail = measured.tail
    account, kept = np.nonzero((measured.ids // PATH_TILE == index) & ((tail.weight > 0) | (tail.at_var > 0)))
    return Pairs(measured.block, row, (account, kept), measured.ids[account, kept])
