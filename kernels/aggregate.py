"""Accounts = positions × P&L tile, as padded rows: up to 32 positions a call, always in the same order."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

LANES = 8
"""Positions are padded to a multiple of this."""

MOST_LANES = 32
"""Positions added per call, unrolled; accounts with more loop over calls, so that bits do not depend on the width."""

ACCOUNT_HEIGHTS = (32, 128, 512)
"""Accounts in one call: the canonical heights of the kernel."""

ACCOUNT_BLOCK = ACCOUNT_HEIGHTS[-1]
"""Most accounts in one call."""


@jax.jit
def add_positions(
    loss: Float[Array, "strip account path"],
    pnl: Float[Array, "strip instrument path"],
    column: Int[Array, "account lane"],
    quantity: Float[Array, "account lane"],
) -> Float[Array, "strip account path"]:
    """`loss` minus the P&L of each account's next positions; padding has quantity 0 and any valid column.

    A strip is some neighbouring scenarios of all instruments, few enough to stay in cache while all accounts read it.
    """
    for lane in range(column.shape[1]):
        held = quantity[None, :, lane, None]
        # The choice keeps product and sum two roundings: a fused one would leave a residue of what hedges exactly.
        loss = loss - jnp.where(held == 0, 0.0, held * pnl[:, column[:, lane]].astype(loss.dtype))
    return loss
