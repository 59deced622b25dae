"""Posterior of GARCH(1,1)-t and GJR-GARCH(1,1)-t, per asset, by the no-U-turn sampler: draws, and what judges them.

The likelihood is that of the maximum-likelihood fit; the sampler is NumPyro's (Hoffman and Gelman 2014, "The No-U-Turn
Sampler", JMLR 15). It walks in coordinates without bounds, moved to the posterior's mode and scaled by its curvature,
in which the posterior is close to a standard normal.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key
from scipy import special

from pmvar.calibration.box_newton import minimise
from pmvar.calibration.garch import FitStatus, screened
from pmvar.calibration.priors import bounded, free_start
from pmvar.calibration.volatility_likelihood import (
    Natural,
    Volatility,
    backcast,
    conditional_log_likelihoods,
    log_density,
    variances,
)

PERCENT = 0.01
FARTHEST = 30.0
"""Free coordinates of a mode: beyond, a logarithm or logit is a bound reached."""
LEAST_CURVATURE = 0.05
"""Of −ln posterior, believed in any direction: the prior's own is more, and a step no longer than this allows."""

BATCH = 200
"""Draws whose variances are worked out together."""


class Sampler(NamedTuple):
    """How long to sample, and how carefully."""

    chains: int = 4
    warmup: int = 500
    draws: int = 1000
    """Of each chain, after the warm-up."""
    acceptance: float = 0.9
    """Aimed at: higher takes smaller steps."""
    max_tree_depth: int = 8


SAMPLER = Sampler()


class Draws(NamedTuple):
    """Draws of one asset or many, per day, in the units of the returns."""

    mean: Float[np.ndarray, "*asset chain draw"]
    omega: Float[np.ndarray, "*asset chain draw"]
    alpha: Float[np.ndarray, "*asset chain draw"]
    gamma: Float[np.ndarray, "*asset chain draw"]
    """0 throughout for GARCH."""
    beta: Float[np.ndarray, "*asset chain draw"]
    degrees_of_freedom: Float[np.ndarray, "*asset chain draw"]
    variance: Float[np.ndarray, "*asset chain draw"]
    """Of the day after the last."""


class Course(NamedTuple):
    """What the sampler met on its way."""

    energy: Float[np.ndarray, "*asset chain draw"]
    diverging: Bool[np.ndarray, "*asset chain draw"]
    n_steps: Int[np.ndarray, "*asset chain draw"]
    """Gradients taken."""


@dataclass(frozen=True)
class VolatilityPosterior:
    """Posteriors of many assets; NaN, and no divergence, for an asset that could not be fitted."""

    volatility: Volatility
    status: tuple[FitStatus, ...]
    n_obs: Int[np.ndarray, " asset"]
    unit: float
    draws: Draws
    course: Course

    @property
    def usable(self) -> Bool[np.ndarray, " asset"]:
        """Which assets have draws."""
        return np.array([s.usable for s in self.status])


class Seen(NamedTuple):
    """An asset's returns as its posterior sees them."""

    log_likelihood: Float[np.ndarray, "chain draw day"]
    """ln density of each return given those before it, in the units of the returns."""
    pit: Float[np.ndarray, " day"]
    """P(return ≤ the one that came), over the draws: uniform if the law is right."""


def sample_posterior(
    returns: Float[np.ndarray, "day asset"],
    *,
    seed: int,
    volatility: Volatility = Volatility.GJR,
    unit: float = PERCENT,
    sampler: Sampler = SAMPLER,
    progress: Callable[[int], None] | None = None,
) -> VolatilityPosterior:
    """Draws from each asset's posterior under the priors of `priors`, which hold for returns counted in `unit`s.

    `returns` are x per day, oldest first, as fractions (`unit` = .01 makes them per cent); NaN where there is none, and
    such a day is passed over. `progress` is called with the number of assets done. An asset that cannot be fitted
    has a status that says why. The draws of an asset depend on the seed, its column and the longest history.
    """
    n = np.sum(~np.isnan(returns), axis=0)
    status = tuple(screened(y[~np.isnan(y)]) for y in returns.T)
    sound = [i for i, s in enumerate(status) if s is FitStatus.FITTED]
    length = int(n[sound].max(initial=0))

    def sampled(i: int) -> tuple[np.ndarray, ...]:
        y = returns[~np.isnan(returns[:, i]), i] / unit
        padded, n_days = jnp.asarray(np.pad(y, (0, length - len(y)))), jnp.asarray(len(y))
        key, before = jax.random.fold_in(jax.random.key(seed), i), backcast(padded, n_days)
        return jax.device_get(sample_series(key, padded, n_days, before, volatility=volatility, sampler=sampler))

    shape = (len(status), sampler.chains, sampler.draws)
    draws = Draws(*(np.full(shape, np.nan) for _ in Draws._fields))
    course = Course(np.full(shape, np.nan), np.zeros(shape, bool), np.zeros(shape, np.int64))
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, (i, parts) in enumerate(zip(sound, pool.map(sampled, sound), strict=True), start=1):
            for whole, part in zip((*draws, *course), parts, strict=True):
                whole[i] = part
            if progress is not None:
                progress(done)
    scaled = draws._replace(mean=draws.mean * unit, omega=draws.omega * unit**2, variance=draws.variance * unit**2)
    return VolatilityPosterior(volatility, status, n, unit, scaled, course)


def sample_series(
    key: Key[Array, ""],
    y: Float[Array, " day"],
    n: Int[Array, ""],
    before: Float[Array, ""],
    *,
    volatility: Volatility,
    sampler: Sampler,
) -> tuple[Array, ...]:
    """Draws and course of one series of `n` days, then padding; `before` is the variance of the day before its first.

    In the order of `Draws` and `Course`; to be vmapped over many.
    """
    free, course = _walk(key, y, n, before, volatility=volatility, sampler=sampler)
    return (*_drawn(free, y, n, before, volatility=volatility), *course)


@partial(jax.jit, static_argnames=("volatility", "sampler"))
def _walk(
    key: Key[Array, ""],
    y: Float[Array, " day"],
    n: Int[Array, ""],
    before: Float[Array, ""],
    *,
    volatility: Volatility,
    sampler: Sampler,
) -> tuple[Float[Array, "chain draw parameter"], tuple[Array, ...]]:
    """Free coordinates of the draws, and their course."""

    def potential(x: Float[Array, " parameter"]) -> Float[Array, ""]:
        at, prior = bounded(x, volatility=volatility)
        return -prior - jnp.sum(conditional_log_likelihoods(at, y, n, before))

    start = free_start(before, volatility=volatility)
    mode = minimise(potential, start, lower=start * 0 - FARTHEST, upper=start * 0 + FARTHEST)
    curvature, axis = jnp.linalg.eigh(mode.hessian)
    spread = axis / jnp.sqrt(jnp.maximum(curvature, LEAST_CURVATURE))[None]

    def chain(key: Key[Array, ""]) -> tuple[Array, tuple[Array, ...]]:
        return _chain(key, lambda u: potential(mode.x + spread @ u), len(start), sampler)

    u, course = jax.vmap(chain)(jax.random.split(key, sampler.chains))
    return mode.x[None, None] + u @ spread.T, course


def _chain(
    key: Key[Array, ""], potential: Callable[[Array], Array], size: int, sampler: Sampler
) -> tuple[Float[Array, "draw parameter"], tuple[Array, ...]]:
    """One chain, started where a normal approximation would put it, so that chains that agree have forgotten where."""
    from numpyro.infer import NUTS

    nuts = NUTS(
        potential_fn=potential,
        dense_mass=True,
        target_accept_prob=sampler.acceptance,
        max_tree_depth=sampler.max_tree_depth,
    )

    def step(state: Any, _: None) -> tuple[Any, tuple[Any, ...]]:
        state = nuts.sample(state, (), {})
        return state, (state.z, (state.energy, state.diverging, state.num_steps))

    first, then = jax.random.split(key)
    start = 1.5 * jax.random.normal(first, (size,))
    # NumPyro divides floats by integers.
    with jax.numpy_dtype_promotion("standard"):
        state = nuts.init(then, sampler.warmup, start, (), {})
        # One loop, so that the sampler is compiled once.
        course = jax.lax.scan(step, state, None, length=sampler.warmup + sampler.draws)[1]
    return jax.tree.map(lambda part: part[sampler.warmup :], course)


@partial(jax.jit, static_argnames="volatility")
def _drawn(
    free: Float[Array, "chain draw parameter"],
    y: Float[Array, " day"],
    n: Int[Array, ""],
    before: Float[Array, ""],
    *,
    volatility: Volatility,
) -> tuple[Float[Array, "chain draw"], ...]:
    """The draws in the order of `Draws`."""

    def one(x: Float[Array, " parameter"]) -> tuple[Array, ...]:
        at, _ = bounded(x, volatility=volatility)
        # A day more: its variance depends on the returns before it alone.
        forecast = variances(at, jnp.pad(y, (0, 1)), before)[n]
        return *at[:5], 1 / at.inverse_dof, forecast

    draws = free.reshape(-1, free.shape[-1])
    return tuple(part.reshape(free.shape[:2]) for part in jax.lax.map(one, draws, batch_size=BATCH))


def seen(
    posterior: VolatilityPosterior, returns: Float[np.ndarray, "day asset"], asset: int, *, every: int = 4
) -> Seen:
    """The returns of `asset`, those that the posterior came from, under every `every`-th of its draws."""
    y = returns[~np.isnan(returns[:, asset]), asset]
    d = Draws(*(part[asset, :, ::every] for part in posterior.draws))
    parameters = Natural(*map(jnp.asarray, (*d[:5], 1 / d.degrees_of_freedom)))
    variance, density = map(np.asarray, _densities(parameters, jnp.asarray(y)))
    nu = d.degrees_of_freedom[..., None]
    unit_t = (y - d.mean[..., None]) / np.sqrt(variance * (nu - 2) / nu)
    return Seen(density, special.stdtr(nu, unit_t).mean(axis=(0, 1)))


@jax.jit
def _densities(
    parameters: Natural, y: Float[Array, " day"]
) -> tuple[Float[Array, "chain draw day"], Float[Array, "chain draw day"]]:
    """σ² and ln density of each day under each draw."""
    before = backcast(y, jnp.asarray(len(y)))

    def one(at: Natural) -> tuple[Array, Array]:
        variance = variances(at, y, before)
        return variance, log_density(y - at.mean, variance, at.inverse_dof)

    return jax.vmap(jax.vmap(one))(parameters)
