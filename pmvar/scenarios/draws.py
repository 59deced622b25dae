"""Draws: the normals of each path and its weight, pure functions of (run key, path id), by each way of sampling."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.scipy.special import ndtri
from jaxtyping import Array, Float, Key, UInt32

from pmvar.errors import UsageError
from pmvar.kernels.importance import mean_rotation
from pmvar.kernels.random import Stream, stream, uniforms
from pmvar.kernels.sobol import scramble_seeds, sobol_uniforms
from pmvar.models.base import RiskFactorModel
from pmvar.models.sampling import SamplingParameters, leaning
from pmvar.types import Sampling

MONTE_CARLO_REPLICATES = 64
"""Plain Monte Carlo is split into this many replicates for its standard errors."""

SOBOL_REPLICATES = 16
"""Independent scramblings: fewer would leave no degrees of freedom for an error, more would spoil the nets."""

LEAST_SOBOL = SOBOL_REPLICATES * 2**7

Normals = tuple[Float[Array, "step dimension"], Float[Array, ""]]
"""The normals of one path, and its weight."""


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


def draws(
    law: RiskFactorModel,
    n_steps: int,
    key: Key[Array, ""],
    sampling: Sampling,
    parameters: SamplingParameters,
) -> Callable[[UInt32[Array, ""]], Normals]:
    """The function from a path id to the path's normals and weight, to be mapped over ids.

    Coordinate 0 of the steps is the mean over them (a rotation), so that low-discrepancy points and importance sampling
    spend themselves on the whole path's move, and weights stay bounded however many steps there are.
    """
    size = law.dimension()
    rotation = jnp.asarray(mean_rotation(n_steps))
    coordinates = law.coordinates()
    seeds = None
    if sampling is not Sampling.MC:
        keys = [stream(key, Stream.SCRAMBLE, r) for r in range(SOBOL_REPLICATES)]
        seeds = jax.vmap(lambda k: scramble_seeds(k, n_steps * size))(jnp.stack(keys))

    def draw(path_id: UInt32[Array, ""]) -> Normals:
        if seeds is None:
            u = uniforms(stream(key, Stream.PATH, path_id), n_steps * size)
        else:
            u = sobol_uniforms(path_id // SOBOL_REPLICATES, seeds[path_id % SOBOL_REPLICATES])
        z, weight = ndtri(u).reshape(n_steps, size), jnp.ones(())
        if sampling is Sampling.SOBOL_IS:
            z, weight = leaning(z, coordinates, parameters)
        return rotation @ z, weight

    return draw
