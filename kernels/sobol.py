"""Scrambled Sobol' points by direct index: each is a pure function of (seed, index, dimension).

Joe and Kuo (2008) direction numbers, XORed over the bits of the index, so that there is no state and any point comes
alone; Owen scrambling by a hash of the digits above each digit: Laine and Karras (2011), Burley (2020), "Practical
hash-based Owen scrambling", JCGT 9(4), with the constants of Vegdahl (2021), "Building a better LK hash".
"""

from __future__ import annotations

from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Key, UInt32

from pmvar.kernels.random import stream

BITS = 32

BLOCK = 1024
"""Dimensions of one net; later ones use the same numbers at indices shuffled anew for each block, since direction
numbers of high dimensions fill the square badly and there are only so many."""


@lru_cache(maxsize=1)
def direction_numbers() -> UInt32[np.ndarray, "dimension bit"]:
    """Joe–Kuo direction numbers of the first `BLOCK` dimensions, the most significant digit first; from SciPy."""
    from scipy.stats import qmc

    return np.asarray(qmc.Sobol(BLOCK, scramble=False, bits=BITS)._sv, dtype=np.uint32)


def scramble_seeds(key: Key[Array, ""], n: int) -> UInt32[Array, "hash n"]:
    """Seeds of `n` dimensions, a longer list starting with the shorter one: of digits, and of indices by block."""
    with jax.threefry_partitionable(True):
        digits, indices = (jax.random.bits(stream(key, label), (n,), jnp.uint32) for label in range(2))
    block = np.arange(n) // BLOCK
    # The first block keeps its indices, so that few dimensions make the plain net.
    return jnp.stack([digits, jnp.where(jnp.asarray(block == 0), jnp.uint32(0), indices[block * BLOCK])])


def sobol_uniforms(index: UInt32[Array, ""], seed: UInt32[Array, "hash n"]) -> Float[Array, " n"]:
    """Point number `index` of the scrambled net, (bits + ½)·2⁻³² in each dimension; `seed` from `scramble_seeds`.

    The first 2^m points are a net of 2^m points in base 2, m ≤ 32, under any seed.
    """
    n = seed.shape[1]
    block = np.arange(n) // BLOCK
    heads = np.arange(0, n, BLOCK)
    # A nested shuffle maps the first 2^m indices to 2^m indices that stand together: still a net.
    shuffled = jnp.where(
        jnp.asarray(heads == 0), index, _scramble(jnp.broadcast_to(index, heads.shape), seed[1, heads])
    )
    place = shuffled[block]
    numbers = direction_numbers()[np.arange(n) % BLOCK]
    point = jnp.zeros(n, jnp.uint32)
    for bit in range(BITS):
        digit = (place >> bit) & 1
        point = point ^ (digit * jnp.asarray(numbers[:, bit]))
    return (_scramble(point, seed[0]).astype(jnp.float64) + 0.5) * 2.0**-BITS


def _scramble(x: UInt32[Array, " n"], seed: UInt32[Array, " n"]) -> UInt32[Array, " n"]:
    """Owen's nested uniform scrambling of binary digits: each flips by a hash of the digits above it."""
    return _reversed(_hash(_reversed(x), seed))


def _hash(x: UInt32[Array, " n"], seed: UInt32[Array, " n"]) -> UInt32[Array, " n"]:
    """A permutation in which every bit depends on the lower bits alone: only multiplications by even numbers XORed in,
    by odd numbers, and additions."""
    x = x ^ (x * np.uint32(0x3D20ADEA))
    x = x + seed
    x = x * ((seed >> 16) | 1)
    x = x ^ (x * np.uint32(0x05526C56))
    return x ^ (x * np.uint32(0x53A22864))


def _reversed(x: UInt32[Array, " n"]) -> UInt32[Array, " n"]:
    """Bits from last to first, by halves."""
    for width, mask in ((1, 0x55555555), (2, 0x33333333), (4, 0x0F0F0F0F), (8, 0x00FF00FF), (16, 0x0000FFFF)):
        low = np.uint32(mask)
        x = ((x >> width) & low) | ((x & low) << width)
    return x
