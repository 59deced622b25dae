"""A smile under scenarios: each option tabulates its volatility at a few fixed moves of its underlying's log price.

Where a move stands among them is found once for all options on one underlying; an option then reads two entries of its
table. Linear between the nodes, flat beyond the outermost.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float, Int


def _nodes() -> np.ndarray:
    """Moves of the log price: a sinh-spaced grid to ±2 (−86%, ×7), .003 apart at 0 and then a tenth of the move."""
    half = np.sinh(np.linspace(0.0, 5.0, 49)) / np.sinh(5.0) * 2.0
    return np.concatenate([-half[:0:-1], half])


NODES: Float[np.ndarray, " node"] = _nodes()


class Place(NamedTuple):
    """Where moves stand among `NODES`."""

    node: Int[Array, "*shape"]
    """The last node at or below, the first at least, the last but one at most."""
    share: Float[Array, "*shape"]
    """Of the way to the next node, in [0, 1]."""


def place(move: Float[Array, "*shape"]) -> Place:
    """Of moves of the log price; NaN has a NaN share."""
    nodes = jnp.asarray(NODES, move.dtype)
    found = jnp.searchsorted(nodes, move, side="right", method="scan_unrolled").astype(jnp.int32)
    node = jnp.clip(found - 1, 0, len(NODES) - 2)
    low, high = nodes[node], nodes[node + 1]
    return Place(node, jnp.clip((move - low) / (high - low), 0, 1))


@jax.custom_jvp
def smile_vol(
    table: Float[Array, "option node"], at: Place, move: Float[Array, "option scenario"]
) -> Float[Array, "option scenario"]:
    """Volatility of each option from its `table` at `at`, the place of `move`, by which alone it has a derivative.

    That is the slope between two nodes and at a node the mean of both: none favours a side of the standing market.
    """
    del move
    # The table as it is: differences of it are taken again for every scenario where all becomes one loop.
    low, high = _taken(table, at.node), _taken(table, at.node + 1)
    return low + at.share * (high - low)


def _smile_vol_jvp(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    table, at, move = primals
    by_table, _, by_move = tangents
    vol = smile_vol(table, at, move)
    along = jnp.zeros_like(vol)
    if not isinstance(by_move, SymbolicZero):
        gap, before = jnp.asarray(np.diff(NODES), move.dtype), jnp.maximum(at.node - 1, 0)
        above, below = ((_taken(table, n + 1) - _taken(table, n)) / gap[n] for n in (at.node, before))
        slope = jnp.where(at.share == 0, (below + above) / 2, above)
        along += jnp.where(jnp.abs(move) > float(NODES[-1]), 0, slope) * by_move
    if not isinstance(by_table, SymbolicZero):
        along += smile_vol(by_table, at, move)
    return vol, along


smile_vol.defjvp(_smile_vol_jvp, symbolic_zeros=True)


def _taken(table: Float[Array, "option node"], node: Int[Array, "option scenario"]) -> Float[Array, "option scenario"]:
    # In bounds by construction, see `place`.
    return jnp.take_along_axis(table, node, axis=1, mode="promise_in_bounds")
