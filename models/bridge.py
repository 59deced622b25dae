"""Where a path stands inside a step: a Brownian bridge given the step's mixing variables.

Lévy's midpoint construction to a fixed depth, each midpoint's normals keyed by its place, the last stretch keyed by the
moment: what happens at one expiry never depends on which other expiries exist.
"""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key, UInt32

from pmvar.kernels.random import normals, stream

DEPTH = 6
"""Halvings before the leaf: two expiries closer than 1/64 of a step are conditionally independent given its ends."""

LEAF = 1 << DEPTH
"""Label of the leaves, above all labels of midpoints."""


def bridge(
    key: Key[Array, ""],
    end: Float[Array, " factor"],
    deviation: Float[Array, " factor"],
    loading: Float[Array, "factor component"],
    fraction: Float[Array, ""],
    moment: UInt32[Array, ""],
) -> Float[Array, " factor"]:
    """x at `fraction` ∈ (0, 1] of a step that starts at 0 and ends at `end`.

    `key` is the path's own in the stream `BRIDGE`; `deviation` the conditional standard deviation over the whole step;
    `moment` (seconds of the model's clock since the step began) names the leaf.
    """

    def noise(scale: Float[Array, ""], *labels: int | Int[Array, ""] | UInt32[Array, ""]) -> Float[Array, " factor"]:
        z = normals(stream(key, *labels), loading.shape[1])
        return scale * deviation * (loading @ z)

    left, right = jnp.zeros(()), jnp.ones(())
    at_left, at_right = jnp.zeros_like(end), end
    node = jnp.ones((), jnp.uint32)
    for _ in range(DEPTH):
        middle = (left + right) / 2
        at_middle = (at_left + at_right) / 2 + noise(jnp.sqrt((right - left) / 4), node)
        go_left = fraction <= middle
        left, right = jnp.where(go_left, left, middle), jnp.where(go_left, middle, right)
        at_left, at_right = jnp.where(go_left, at_left, at_middle), jnp.where(go_left, at_middle, at_right)
        node = 2 * node + jnp.where(go_left, 0, 1).astype(jnp.uint32)
    share = (fraction - left) / (right - left)
    spread = jnp.sqrt(jnp.maximum((fraction - left) * (right - fraction) / (right - left), 0.0))
    return at_left + share * (at_right - at_left) + noise(spread, LEAF, moment)
