"""Counter-based draws: each number is a pure function of (key, path id, dimension), however paths are tiled."""

from __future__ import annotations

from enum import IntEnum

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, Key, UInt32


class Stream(IntEnum):
    """Names of the independent streams of one run key; a value, once released, never changes."""

    PATH = 0
    BRIDGE = 1
    SCRAMBLE = 2
    JUMP = 3


def run_key(seed: int) -> Key[Array, ""]:
    """The key of a run. The generator is named, so that a change of JAX's default cannot change results."""
    return jax.random.key(seed, impl="threefry2x32")


def stream(key: Key[Array, ""], *labels: int | UInt32[Array, ""]) -> Key[Array, ""]:
    """The sub-stream of `key` under `labels`, each an integer in [0, 2³²)."""
    for label in labels:
        key = jax.random.fold_in(key, jnp.asarray(label, jnp.uint32))
    return key


def uniforms(key: Key[Array, ""], n: int) -> Float[Array, " n"]:
    """`n` uniforms (bits + ½)·2⁻³², symmetric about ½ and never 0 or 1; float64."""
    # Pinned like the generator: JAX_THREEFRY_PARTITIONABLE=0 would give other bits, which depend on n besides.
    with jax.threefry_partitionable(True):
        bits = jax.random.bits(key, (n,), jnp.uint32)
    return (bits.astype(jnp.float64) + 0.5) * 2.0**-32


def normals(key: Key[Array, ""], n: int) -> Float[Array, " n"]:
    """`n` standard normals by inversion, |z| ≤ 6.34; float64."""
    return ndtri(uniforms(key, n))
