"""Weighted sums over scenarios of what instruments say, for many accounts: tail means and their replicates.

Weights are dense, zero outside a tail: under importance sampling a fifth of all scenarios weighs, and reading the
others costs less than picking. Scenario i belongs to replicate i mod R. Sums go strip by strip, then path by path, so
that an account's bits do not depend on its neighbours.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


@partial(jax.jit, static_argnames="n_replicates")
def position_sums(
    weight: Float[Array, "kind strip account path"],
    tile: Float[Array, "strip row path"],
    row: Int[Array, "account lane"],
    *,
    n_replicates: int,
) -> Float[Array, "kind account lane replicate"]:
    """Σ over the scenarios of each replicate of weight·tile[row], in the dtype of `weight`."""

    def add(strip: Array, total: Array) -> Array:
        return total + weight[:, strip, :, None] * tile[strip][row].astype(weight.dtype)[None]

    shape = (weight.shape[0], *row.shape, tile.shape[2])
    return _by_replicate(jax.lax.fori_loop(0, tile.shape[0], add, jnp.zeros(shape, weight.dtype)), n_replicates)


@partial(jax.jit, static_argnames="n_replicates")
def product_sums(
    weight: Float[Array, "kind strip all path"],
    account: Int[Array, " account"],
    value: Float[Array, "strip account path"],
    slope: Float[Array, "colour strip path"],
    *,
    n_replicates: int,
) -> Float[Array, "kind account colour replicate"]:
    """Σ over the scenarios of each replicate of weight·value·slope; `account` says whose weight goes with a value."""

    def add(strip: Array, total: Array) -> Array:
        weighed = weight[:, strip][:, account] * value[strip][None]
        return total + weighed[:, :, None] * slope[:, strip][None, None]

    shape = (weight.shape[0], value.shape[1], slope.shape[0], value.shape[2])
    return _by_replicate(jax.lax.fori_loop(0, value.shape[0], add, jnp.zeros(shape, weight.dtype)), n_replicates)


def _by_replicate(total: Float[Array, "*batch path"], n_replicates: int) -> Float[Array, "*batch replicate"]:
    return total.reshape(*total.shape[:-1], -1, n_replicates).sum(axis=-2)
