"""Importance sampling of single coordinates: normals in, normals and a bounded likelihood ratio out.

The mixing uniform of a t model is drawn from g(u) = η + (1 − η)·c·u^(c−1), which favours heavy tails and never weighs
a path by more than 1/(η + (1 − η)c); principal components are drawn wider.
"""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr, ndtri
from jaxtyping import Array, Float

NEWTON_STEPS = 8

TINY = 1e-300
"""Least uniform: Φ⁻¹ of it is −37."""


def heavy_mixing_normal(
    z: Float[Array, ""], *, share: float, exponent: float
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """Φ⁻¹(U) for U of density g with η = `share` and c = `exponent`, from a standard normal; and the weight 1/g(U).

    v = Φ(z) = ηu + (1 − η)u^c is solved for t = ln u. Negate on the way in and out to favour the upper tail.
    """
    if share == 1 or exponent == 1:
        return z, jnp.ones(())
    log_v = log_ndtr(z)
    rest = 1 - share

    # ln(η·eᵗ + (1−η)·e^(ct)) is convex and increasing in t with slopes between c and 1. Newton from the left of the
    # root lands right of it and then falls to it without passing; both starts are exact far down and at u = 1.
    t = (log_v - np.log(rest)) / exponent
    t = jnp.minimum(jnp.maximum(t, log_v / exponent), log_v)
    for _ in range(NEWTON_STEPS):
        value = share * jnp.exp(t) + rest * jnp.exp(exponent * t)
        slope = (share * jnp.exp(t) + rest * exponent * jnp.exp(exponent * t)) / value
        t = jnp.minimum(t - (jnp.log(value) - log_v) / slope, 0.0)
    u = jnp.maximum(jnp.exp(t), TINY)
    # Above the middle the complement keeps its digits: 1 − v = η(1−u) + (1−η)(1−u^c), and 1 − u = −expm1(t).
    upper = -jnp.expm1(t)
    for _ in range(2):
        gap = share * upper - rest * jnp.expm1(exponent * jnp.log1p(-jnp.minimum(upper, 0.9)))
        density = share + rest * exponent * (1 - jnp.minimum(upper, 0.9)) ** (exponent - 1)
        upper = jnp.clip(upper - (gap - jnp.exp(log_ndtr(-z))) / density, TINY, 0.9)
    high = u > 0.5
    moved = jnp.where(high, -ndtri(upper), ndtri(u))
    weight = 1 / (share + rest * exponent * jnp.where(high, 1 - upper, u) ** (exponent - 1))
    return moved, weight


def inflated(z: Float[Array, ""], scale: float) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """N(0, s²) from a standard normal z, and the weight φ(sz)·s/φ(z) = s·exp(−z²(s² − 1)/2), at most s."""
    return scale * z, scale * jnp.exp(-0.5 * (scale**2 - 1) * z * z)


def mean_rotation(n_steps: int) -> Float[np.ndarray, "step coordinate"]:
    """An orthogonal matrix whose first column is 1/√n: coordinate 0 is the scaled mean over the steps (Helmert)."""
    rotation = np.zeros((n_steps, n_steps))
    rotation[:, 0] = 1 / np.sqrt(n_steps)
    for j in range(1, n_steps):
        rotation[:j, j] = 1 / np.sqrt(j * (j + 1))
        rotation[j, j] = -j / np.sqrt(j * (j + 1))
    return rotation
