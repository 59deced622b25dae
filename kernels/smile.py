"""A smile under scenarios as a matrix product: vol[option, scenario] = table[option, node] · hat[node, scenario].

All options on one underlying see the same move x of its log price, so each tabulates its volatility at a few fixed
moves, and the interpolation weights (hat functions, two non-zero per scenario) are shared. A product instead of a
gather keeps the kernel free of indices: differentiable, and as fast on a GPU as on a CPU.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def _nodes() -> np.ndarray:
    """Moves of the log price: a sinh-spaced grid to ±2 (−86%, ×7), .003 apart at 0 and then a tenth of the move."""
    half = np.sinh(np.linspace(0.0, 5.0, 49)) / np.sinh(5.0) * 2.0
    return np.concatenate([-half[:0:-1], half])


NODES: Float[np.ndarray, " node"] = _nodes()


def hats(move: Float[Array, "*batch scenario"]) -> Float[Array, "*batch node scenario"]:
    """Linear interpolation weights of `move` over `NODES`; they sum to 1, and beyond the outermost node are flat."""
    nodes = jnp.asarray(NODES, move.dtype).reshape((1,) * (move.ndim - 1) + (-1, 1))
    gap = jnp.diff(nodes, axis=-2)
    # Clipped before it is divided: at a node both clips are exact ties, and the derivative is the mean of both slopes.
    ramp = jnp.clip(move[..., None, :] - nodes[..., :-1, :], 0, gap) / gap
    one = jnp.ones_like(ramp[..., :1, :])
    return jnp.concatenate([one, ramp], -2) - jnp.concatenate([ramp, 0 * one], -2)
