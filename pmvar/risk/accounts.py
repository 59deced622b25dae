"""Accounts in blocks, and their losses under all scenarios."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from pmvar.kernels.aggregate import ACCOUNT_HEIGHTS, LANES, MOST_LANES, add_positions
from pmvar.types import PATH_TILE
from pmvar.valuation.reprice import tile_device
from pmvar.valuation.store import STRIP, TileStore

READS = 32
"""Times: a block reads the P&L of all instruments once more."""

LOSS_BYTES = 2.0**29
"""Losses of one block where nothing asks for less."""


@dataclass(frozen=True)
class AccountBlock:
    """Accounts with similar numbers of positions, padded with zero quantities."""

    account: Int[np.ndarray, " account"]
    """Row of each account in the portfolio."""
    instrument: Int[np.ndarray, "account position"]
    """Column of each position in the portfolio's table, increasing; padding repeats column 0."""
    quantity: Float[np.ndarray, "account position"]
    count: Int[np.ndarray, " account"]
    """Positions of each account, padding not counted."""

    def take(self, rows: slice) -> AccountBlock:
        """Some of the accounts."""
        return AccountBlock(self.account[rows], self.instrument[rows], self.quantity[rows], self.count[rows])


def block_height(n_scenarios: int, memory_bytes: float = LOSS_BYTES) -> int:
    """Accounts of a block whose losses, in float64, take so much memory: one of the kernel's heights."""
    each = 8 * PATH_TILE * -(-n_scenarios // PATH_TILE)
    return max((h for h in ACCOUNT_HEIGHTS if h * each <= memory_bytes), default=ACCOUNT_HEIGHTS[0])


def account_blocks(
    quantity: sparse.csr_array, accounts: Int[np.ndarray, " account"], height: int
) -> Iterator[AccountBlock]:
    """The given rows of a positions matrix in blocks of up to `height`, accounts with few positions first.

    Blocks are no taller than it takes to read the scenarios of an instrument `READS` times while they are in cache.
    """
    assert quantity.shape is not None
    count, n_instruments = np.diff(quantity.indptr), quantity.shape[1]
    ordered = accounts[np.argsort(count[accounts], kind="stable")]
    # Accounts of one block have up to twice as many positions as each other: 4, 8, 16, …
    bucket = np.ceil(np.log2(np.maximum(count[ordered], LANES) / LANES))
    powers, firsts = np.unique(bucket, return_index=True)
    for power, same in zip(powers, np.split(ordered, firsts[1:]), strict=False):
        wanted = READS * n_instruments / (LANES * 2**power)
        tall = min(height, next((h for h in ACCOUNT_HEIGHTS if h >= wanted), height))
        for start in range(0, len(same), tall):
            yield _block(quantity, same[start : start + tall], count)


def _block(quantity: sparse.csr_array, chosen: np.ndarray, count: np.ndarray) -> AccountBlock:
    width = max(LANES, int(-(-count[chosen].max() // LANES) * LANES))
    filled = np.arange(width) < count[chosen, None]
    instrument = np.zeros((len(chosen), width), dtype=np.int64)
    amount = np.zeros((len(chosen), width))
    each = count[chosen]
    first = np.asarray(quantity.indptr)[chosen]
    entries = np.repeat(first - (np.cumsum(each) - each), each) + np.arange(each.sum())
    instrument[filled] = quantity.indices[entries]
    amount[filled] = quantity.data[entries]
    return AccountBlock(chosen, instrument, amount, count[chosen])


@dataclass(frozen=True)
class LossStrips:
    """Losses of a block under every scenario as the kernel leaves them; a slice of accounts is an array of its own."""

    tiles: tuple[Float[np.ndarray, "strip height path"], ...]
    shape: tuple[int, int]
    """Accounts and scenarios."""

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Float[np.ndarray, "account scenario"]:
        n_rows = len(range(*rows.indices(len(self))))
        out = np.empty((n_rows, len(self.tiles) * PATH_TILE), self.tiles[0].dtype)
        for i, tile in enumerate(self.tiles):
            strips = out[:, i * PATH_TILE : (i + 1) * PATH_TILE].reshape(n_rows, len(tile), tile.shape[2])
            np.copyto(strips, tile[:, : len(self)][:, rows].transpose(1, 0, 2))
        return out[:, : self.shape[1]]


def block_loss(block: AccountBlock, store: TileStore, *, dtype: np.dtype | None = None) -> LossStrips:
    """Losses of a block under every scenario; positions add up in instrument order, in `dtype` (else the store's).

    They take the memory of the last block of the store, if nobody holds its losses any more.
    """
    n = len(block.account)
    height = next(h for h in ACCOUNT_HEIGHTS if h >= n)
    pad = ((0, height - n), (0, 0))
    row = np.pad(store.pnl.row[block.instrument], pad).astype(np.int32)
    with np.errstate(over="ignore"):  # an infinite quantity makes infinite losses, which the selection refuses by name
        quantity = np.pad(block.quantity, pad).astype(dtype or store.dtype)
    lanes = [slice(i, i + MOST_LANES) for i in range(0, row.shape[1], MOST_LANES)]
    chunks = [(jnp.asarray(row[:, s]), jnp.asarray(quantity[:, s])) for s in lanes]

    losses = store.spare.pop((height, quantity.dtype), None) or [
        jnp.zeros((PATH_TILE // STRIP, height, STRIP), quantity.dtype, device=tile_device(i))
        for i in range(store.n_tiles)
    ]
    for i in range(store.n_tiles):
        tile = store.device(i)
        for k, (columns, amounts) in enumerate(chunks):
            losses[i] = add_positions(losses[i], tile, columns, amounts, first=k == 0)
    store.spare[height, quantity.dtype] = losses
    return LossStrips(tuple(np.asarray(loss) for loss in losses), (n, store.n_scenarios))
