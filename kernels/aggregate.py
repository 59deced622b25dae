"""Accounts = positions × P&L tile, as padded rows: up to 32 positions a call, always in the same order."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jax.lax import bitcast_convert_type
from jaxtyping import Array, Float, Int

LANES = 4
"""Positions are padded to a multiple of this."""

MOST_LANES = 32
"""Positions added per call, unrolled; accounts with more loop over calls, so that bits do not depend on the width."""

ACCOUNT_HEIGHTS = (32, 128, 512, 2048, 4096)
"""Accounts in one call: the canonical heights of the kernel."""


@partial(jax.jit, static_argnames="first", donate_argnames="loss", keep_unused=True)
def add_positions(
    loss: Float[Array, "strip account path"],
    pnl: Float[Array, "strip instrument path"],
    column: Int[Array, "account lane"],
    quantity: Float[Array, "account lane"],
    *,
    first: bool,
) -> Float[Array, "strip account path"]:
    """`loss` (nothing, if these are the first) minus the P&L of each account's next positions; padding has quantity 0
    and any valid column.

    A strip is some neighbouring scenarios of all instruments, few enough to stay in cache while all accounts read it:
    the more accounts, the less often it comes from memory. The result takes the place of `loss`, which is gone: the
    pages of fresh memory cost more than the sums.
    """
    if first:
        loss = jnp.zeros_like(loss)
    integer = jnp.int32 if loss.dtype == jnp.float32 else jnp.int64
    nothing = (column[0, 0] >> 31).astype(integer)
    for lane in range(column.shape[1]):
        product = quantity[None, :, lane, None] * pnl[:, column[:, lane]].astype(loss.dtype)
        # Product and sum are two roundings: fused into one, what hedges exactly would leave a residue. A compiler does
        # not fuse through bits that something changes, and it cannot know that no column is negative.
        bits = bitcast_convert_type(product, integer) ^ nothing
        loss = loss - bitcast_convert_type(bits, loss.dtype)
    return loss
