"""Pairs of an account and one of its tail scenarios: what tiles of instruments say of them, position after position.

Positions stand in a flat table, `width` for each account. XLA gathers as fast as memory gives; NumPy, which makes a
pass of each operation, takes ten times as long.
"""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

PAIRS = 16_384
"""Pairs in one call."""


@partial(jax.jit, static_argnames=("fields", "n_columns"))
def adjoint(
    slopes: tuple[Float[Array, "row scenario"], ...],
    row: Int[Array, " position"],
    weight: Float[Array, "slot position"],
    column: Int[Array, "slot position"],
    width: Int[Array, ""],
    first: Int[Array, " pair"],
    scenario: Int[Array, " pair"],
    *,
    fields: tuple[int, ...],
    n_columns: int,
) -> Float[Array, "column pair"]:
    """Σ over positions p and slots s of weight[s, p]·slopes[fields[s]][row[p], scenario], each into its own column.

    `first` is where the positions of a pair's account begin. Float64; positions add up in their order.
    """
    names = jnp.arange(n_columns, dtype=column.dtype)[:, None]

    def add(lane: Array, out: Array) -> Array:
        position = first + lane
        place = row[position] * slopes[0].shape[1] + scenario
        for s, field in enumerate(fields):
            value = slopes[field].reshape(-1)[place].astype(out.dtype) * weight[s][position]
            out = out + jnp.where(column[s][position][None] == names, value[None], 0.0)
        return out

    return jax.lax.fori_loop(0, width, add, jnp.zeros((n_columns, first.shape[0])))


@partial(jax.jit, static_argnames="lanes")
def values(
    tile: Float[Array, "row scenario"],
    row: Int[Array, " position"],
    first: Int[Array, " pair"],
    scenario: Int[Array, " pair"],
    *,
    lanes: int,
) -> Float[Array, "lane pair"]:
    """`tile` at the first `lanes` positions of each pair; beyond an account's width they are those of others."""
    return tile[row[first[None] + jnp.arange(lanes, dtype=first.dtype)[:, None]], scenario[None]]
