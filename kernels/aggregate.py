"""Accounts = positions × P&L tile, as padded rows: eight positions at a time, always in the same order."""

from __future__ import annotations

import jax
from jaxtyping import Array, Float, Int

LANES = 8
"""Positions added per call; accounts with more loop over calls, so that bits do not depend on the size bucket."""

ACCOUNT_HEIGHTS = (32, 128, 512)
"""Accounts in one call: the canonical heights of the kernel."""

ACCOUNT_BLOCK = ACCOUNT_HEIGHTS[-1]
"""Most accounts in one call."""


@jax.jit
def add_positions(
    loss: Float[Array, "account scenario"],
    pnl: Float[Array, "instrument scenario"],
    column: Int[Array, "account lane"],
    quantity: Float[Array, "account lane"],
) -> Float[Array, "account scenario"]:
    """`loss` minus the P&L of each account's next positions; padding has quantity 0 and any valid column."""
    for lane in range(column.shape[1]):
        loss = loss - quantity[:, lane, None] * pnl[column[:, lane]]
    return loss
