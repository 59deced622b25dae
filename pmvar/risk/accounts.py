"""Accounts in blocks: their losses under all scenarios, and the P&L of their positions in the tail."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from pmvar.errors import NumericsError
from pmvar.kernels.aggregate import ACCOUNT_BLOCK, ACCOUNT_HEIGHTS, LANES, MOST_LANES, add_positions
from pmvar.risk.tail import largest, n_kept
from pmvar.types import PATH_TILE
from pmvar.valuation.store import STRIP, TileStore

PIECE = 16_000_000
"""Numbers in one piece of tail P&L [position, account, kept]: 128 MB."""


@dataclass(frozen=True)
class AccountBlock:
    """Up to `ACCOUNT_BLOCK` accounts with similar numbers of positions, padded with zero quantities."""

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


def account_blocks(quantity: sparse.csr_array, accounts: Int[np.ndarray, " account"]) -> Iterator[AccountBlock]:
    """The given rows of a positions matrix in blocks, accounts with few positions first."""
    count = np.diff(quantity.indptr)
    ordered = accounts[np.argsort(count[accounts], kind="stable")]
    # Accounts of one block have up to twice as many positions as each other: 8, 16, 32, …
    bucket = np.ceil(np.log2(np.maximum(count[ordered], LANES) / LANES))
    for _, members in groupby(zip(bucket, ordered, strict=True), key=lambda pair: pair[0]):
        same = np.array([account for _, account in members])
        for start in range(0, len(same), ACCOUNT_BLOCK):
            yield _block(quantity, same[start : start + ACCOUNT_BLOCK], count)


def _block(quantity: sparse.csr_array, chosen: np.ndarray, count: np.ndarray) -> AccountBlock:
    width = max(LANES, int(-(-count[chosen].max() // LANES) * LANES))
    filled = np.arange(width) < count[chosen, None]
    instrument = np.zeros((len(chosen), width), dtype=np.int64)
    amount = np.zeros((len(chosen), width))
    start = np.asarray(quantity.indptr)
    entries = np.concatenate([np.arange(int(start[a]), int(start[a + 1])) for a in chosen])
    instrument[filled] = quantity.indices[entries]
    amount[filled] = quantity.data[entries]
    return AccountBlock(chosen, instrument, amount, count[chosen])


def block_loss(block: AccountBlock, store: TileStore) -> Float[np.ndarray, "account scenario"]:
    """Losses of a block under every scenario, in the store's precision; positions add up in instrument order."""
    n = len(block.account)
    height = next(h for h in ACCOUNT_HEIGHTS if h >= n)
    pad = ((0, height - n), (0, 0))
    row = np.pad(store.pnl.row[block.instrument], pad).astype(np.int32)
    with np.errstate(over="ignore"):  # an infinite quantity makes infinite losses, which `tail_ids` refuses by name
        quantity = np.pad(block.quantity, pad).astype(store.dtype)
    lanes = [slice(i, i + MOST_LANES) for i in range(0, row.shape[1], MOST_LANES)]
    chunks = [(jnp.asarray(row[:, s]), jnp.asarray(quantity[:, s])) for s in lanes]
    strips = PATH_TILE // STRIP
    out = np.empty((n, store.n_tiles, strips, STRIP), store.dtype)
    zero = jnp.zeros((strips, height, STRIP), store.dtype)
    for i in range(store.n_tiles):
        tile, loss = store.device(i), zero
        for columns, amounts in chunks:
            loss = add_positions(loss, tile, columns, amounts)
        out[:, i] = np.asarray(loss)[:, :n].transpose(1, 0, 2)
    return out.reshape(n, -1)[:, : store.n_scenarios]


def tail_ids(
    loss: Float[np.ndarray, "account scenario"],
    weight: Float[np.ndarray, " scenario"],
    level: float,
    *,
    names: np.ndarray | None = None,
) -> Int[np.ndarray, "account kept"]:
    """Scenarios that hold the tail of each account and the losses just below it.

    Raises NumericsError on a loss that is not finite, naming the first account by `names`, one for each row of `loss`.
    """
    n = loss.shape[1]
    with np.errstate(over="ignore", invalid="ignore"):
        finite = np.isfinite(loss.sum(axis=1))
    if not finite.all():
        who = f"account {names[~finite][0]}" if names is not None else "a position"
        raise NumericsError(
            f"the loss of {who} is not finite at the precision of the run; "
            "reduce its quantities or use --precision float64"
        )
    equal = bool(np.all(weight == 1))
    keep = n_kept(n, level) if equal else min(n, int(0.15 * n) + 1)
    while True:
        ids = largest(loss, keep)
        if equal or keep == n or np.all(weight[ids].sum(axis=1) > 1.4 * n * (1 - level)):
            return ids
        keep = min(n, 2 * keep)


def tail_pieces(
    block: AccountBlock, ids: Int[np.ndarray, "account kept"], store: TileStore
) -> Iterator[tuple[slice, Float[np.ndarray, "position account kept"]]]:
    """Loss of each position in the kept scenarios, float64, a few accounts at a time."""
    step = max(1, PIECE // (block.instrument.shape[1] * ids.shape[1]))
    for start in range(0, len(block.account), step):
        part = slice(start, min(start + step, len(block.account)))
        width = int(block.count[part].max(initial=0))
        row = store.pnl.row[block.instrument[part]]
        out = np.empty((width, part.stop - part.start, ids.shape[1]))
        for p in range(width):
            out[p] = store.gather(row[:, p, None], ids[part])
            out[p] *= -block.quantity[part, p, None]
        yield part, out
