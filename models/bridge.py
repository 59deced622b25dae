"""Where a path stands inside a step: a Brownian bridge given the step's mixing variables.

Lévy's midpoint construction to a fixed depth, each midpoint's normals keyed by its place, the last stretch keyed by the
moment: what happens at one expiry never depends on which other expiries exist.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt32

from pmvar.kernels.random import normals, stream

DEPTH = 6
"""Halvings before the leaf: two expiries closer than 1/64 of a step are conditionally independent given its ends."""

LEAF = 1 << DEPTH
"""Label of the leaves, above all labels of midpoints."""


def bridge_noise(
    key: Key[Array, ""], fraction: Float[Array, ""], moment: UInt32[Array, ""], n: int
) -> Float[Array, "level component"]:
    """Normals of the midpoints on the way to `fraction`, and of the leaf.

    `key` is the path's own in the stream `BRIDGE`; `moment` (seconds of the model's clock since the step began) names
    the leaf.
    """
    width = 2.0 ** jnp.arange(float(DEPTH))
    node = (width + jnp.ceil(fraction * width) - 1).astype(jnp.uint32)
    middles = jax.vmap(lambda label: normals(stream(key, label), n))(node)
    return jnp.concatenate([middles, normals(stream(key, LEAF, moment), n)[None]])


def bridge(
    noise: Float[Array, "level component"],
    end: Float[Array, " factor"],
    deviation: Float[Array, " factor"],
    loading: Float[Array, "factor component"],
    fraction: Float[Array, ""],
) -> Float[Array, " factor"]:
    """x at `fraction` ∈ (0, 1] of a step that starts at 0 and ends at `end`, given what `bridge_noise` drew for it;
    `deviation` is the conditional standard deviation over the whole step."""
    moved = deviation[None] * (noise @ loading.T)
    left, right = jnp.zeros(()), jnp.ones(())
    at_left, at_right = jnp.zeros_like(end), end
    for z in moved[:-1]:
        middle = (left + right) / 2
        at_middle = (at_left + at_right) / 2 + jnp.sqrt((right - left) / 4) * z
        go_left = fraction <= middle
        left, right = jnp.where(go_left, left, middle), jnp.where(go_left, middle, right)
        at_left, at_right = jnp.where(go_left, at_left, at_middle), jnp.where(go_left, at_middle, at_right)
    share = (fraction - left) / (right - left)
    spread = jnp.sqrt(jnp.maximum((fraction - left) * (right - fraction) / (right - left), 0.0))
    return at_left + share * (at_right - at_left) + spread * moved[-1]
