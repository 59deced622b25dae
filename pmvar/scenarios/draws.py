"""Draws: the normals of each path and its weight, pure functions of (run key, path id), by each way of sampling."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, Key, UInt32

from pmvar.errors import UsageError
from pmvar.kernels.importance import mean_rotation
from pmvar.kernels.random import Stream, stream, uniforms
from pmvar.kernels.sobol import scramble_seeds, sobol_uniforms
from pmvar.models.base import RiskFactorModel
from pmvar.models.sampling import SamplingParameters, leaned
from pmvar.types import PATH_TILE, Sampling

MONTE_CARLO_REPLICATES = 64
"""Plain Monte Carlo is split into this many replicates for its standard errors."""

SOBOL_REPLICATES = 16
"""Independent scramblings: fewer would leave no degrees of freedom for an error, more would spoil the nets."""

LEAST_SOBOL = SOBOL_REPLICATES * 2**7


def n_replicates(sampling: Sampling) -> int:
    """Scenario i belongs to replicate i modulo this."""
    return MONTE_CARLO_REPLICATES if sampling is Sampling.MC else SOBOL_REPLICATES


def check_count(n_scenarios: int, sampling: Sampling) -> None:
    """Refuse a number of Sobol' points that is not 16·2^m, m ≥ 7: a net is whole at powers of two only."""
    if sampling is Sampling.MC:
        return
    ratio = n_scenarios / SOBOL_REPLICATES
    below = max(LEAST_SOBOL, SOBOL_REPLICATES << (max(int(ratio), 1).bit_length() - 1))
    if n_scenarios != below:
        near = f"{below:,}" if n_scenarios < LEAST_SOBOL else f"{below:,} or {2 * below:,}"
        raise UsageError(f"{sampling} sampling takes 16·2^m scenarios, m ≥ 7: {near}, not {n_scenarios:,}")


class TileNormals(NamedTuple):
    """What the paths of one tile are made of."""

    normal: Float[Array, "scenario step dimension"]
    weight: Float[Array, " scenario"]
    """Likelihood ratio of each path."""


def tile_normals(
    law: RiskFactorModel,
    n_steps: int,
    key: Key[Array, ""],
    sampling: Sampling,
    parameters: SamplingParameters,
    start: UInt32[Array, ""],
) -> TileNormals:
    """The normals of paths `start` and on, one tile of them.

    Coordinate 0 of the steps is the mean over them (a rotation), so that low-discrepancy points and importance sampling
    spend themselves on the whole path's move, and weights stay bounded however many steps there are.
    """
    n = n_steps * law.dimension()
    # Kernels of their own: fused into one, XLA works out the quantiles again for each of their readers, and takes
    # several times as long to compile.
    u = _plain(key, start, n) if sampling is Sampling.MC else _net(_seeds(key, n), start)
    z = _quantiles(u, n_steps)
    if sampling is Sampling.SOBOL_IS:
        return TileNormals(*leaned(z, law.coordinates(), parameters))
    return TileNormals(_rotated(z), jnp.ones(PATH_TILE))


def _ids(start: UInt32[Array, ""]) -> UInt32[Array, " scenario"]:
    return start + jnp.arange(PATH_TILE, dtype=jnp.uint32)


@partial(jax.jit, static_argnames="n")
def _plain(key: Key[Array, ""], start: UInt32[Array, ""], n: int) -> Float[Array, "scenario n"]:
    return jax.vmap(lambda i: uniforms(stream(key, Stream.PATH, i), n))(_ids(start))


@partial(jax.jit, static_argnames="n")
def _seeds(key: Key[Array, ""], n: int) -> UInt32[Array, "replicate hash n"]:
    replicates = jnp.arange(SOBOL_REPLICATES, dtype=jnp.uint32)
    return jax.vmap(lambda r: scramble_seeds(stream(key, Stream.SCRAMBLE, r), n))(replicates)


@jax.jit
def _net(seeds: UInt32[Array, "replicate hash n"], start: UInt32[Array, ""]) -> Float[Array, "scenario n"]:
    return jax.vmap(lambda i: sobol_uniforms(i // SOBOL_REPLICATES, seeds[i % SOBOL_REPLICATES]))(_ids(start))


@partial(jax.jit, static_argnames="n_steps")
def _quantiles(u: Float[Array, "scenario n"], n_steps: int) -> Float[Array, "scenario step dimension"]:
    return ndtri(u).reshape(len(u), n_steps, -1)


@jax.jit
def _rotated(z: Float[Array, "scenario step dimension"]) -> Float[Array, "scenario step dimension"]:
    return jnp.asarray(mean_rotation(z.shape[1])) @ z
