"""Likelihood of stochastic variance with jumps, given returns: the unseen variance is integrated out on a grid.

A day's return is r = μ + √v·ε + jump, and its variance moves on by one step of κ(θ − v) + ξ√v·ε', corr(ε, ε') = ρ, or,
on a day of a jump, by that jump: the discretisation of Eraker, Johannes and Polson (2003), "The impact of jumps in
volatility and returns", Journal of Finance 58, section II, written for √v, whose noise is the same everywhere. One
unseen number a day makes the exact filter a sum over cells (Kitagawa 1987, "Non-Gaussian state-space modeling of
nonstationary time series", JASA 82): no particles, no noise, no path to sample.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Float32

RESOLVED = 0.6
"""Deviation of √v that cells resolve, in their width: a normal density summed over them is 1 to a thousandth."""


class Law(NamedTuple):
    """Parameters a day, for returns counted in units in which their variance is about 1."""

    mean: Float[Array, ""]
    kappa: Float[Array, ""]
    theta: Float[Array, ""]
    vol_of_variance: Float[Array, ""]
    """ξ."""
    rho: Float[Array, ""]
    jump: Jump | None = None
    """None is Heston's model."""


class Jump(NamedTuple):
    """A day has a jump with probability λ: J_v is exponential, J_s = μ_s + ρ_J·J_v + σ_s·ζ."""

    probability: Float[Array, ""]
    """λ."""
    price_mean: Float[Array, ""]
    price_deviation: Float[Array, ""]
    variance_mean: Float[Array, ""]
    correlation: Float[Array, ""]


class Seen(NamedTuple):
    """Returns seen through a law."""

    log_density: Float[Array, " day"]
    """Of each return given those before it."""
    weight: Float[Array, "later cell"]
    """Of each cell of √v at the start of each day, and of tomorrow, given the returns before."""


def cells(top: Float[Array, ""], n_cells: int) -> Float[Array, " cell"]:
    """√v at the middle of each cell between 0 and `top`."""
    return jnp.arange(0.5, n_cells) * (top / n_cells)


@partial(jax.jit, static_argnames="n_cells")
def seen(law: Law, returns: Float[Array, " day"], top: Float[Array, ""], *, n_cells: int) -> Seen:
    """What `law` says of `returns`, √v being kept on `n_cells` cells up to `top`.

    Cells are to be no wider than the daily deviation of √v, ξ√(1 − ρ²)/2. The first variance is lognormal around 1.
    """
    u = cells(top, n_cells)
    quiet, jumping = _quiet(law, u), None if law.jump is None else _jumping(law, law.jump, u)
    start = jnp.exp(-0.5 * jnp.log(u**2) ** 2) / u

    # Backwards the matrices are worked out again: to keep them would cost more.
    @jax.checkpoint
    def step(weight: Float32[Array, " cell"], move: Float32[Array, ""]) -> tuple[Array, tuple[Array, Array]]:
        after = weight @ _at(quiet, move)
        if jumping is not None:
            after += weight @ _at(jumping, move)
        density = after.sum()
        return after / density, (density, weight)

    # Single precision halves the time: its error in the sum of logarithms is below 1e-3.
    move = (returns - law.mean).astype(jnp.float32)
    last, (density, weight) = jax.lax.scan(step, (start / start.sum()).astype(jnp.float32), move)
    density, weight = (x.astype(returns.dtype) for x in (density, jnp.concatenate([weight, last[None]])))
    return Seen(jnp.log(density), weight)


class _Exponent(NamedTuple):
    """ln of the joint density of a return and the next cell, given the cell: a square in the return's move."""

    constant: Float32[Array, "cell next"]
    slope: Float32[Array, "cell next"]
    square: Float32[Array, " cell"]


def _at(exponent: _Exponent, move: Float32[Array, ""]) -> Float32[Array, "cell next"]:
    return jnp.exp(exponent.constant + move * exponent.slope + move**2 * exponent.square[:, None])


def _expected(law: Law, u: Float[Array, " cell"]) -> Float[Array, " cell"]:
    """The next variance, but for jumps."""
    return u**2 + law.kappa * (law.theta - u**2)


def _quiet(law: Law, u: Float[Array, " cell"]) -> _Exponent:
    """No jump: √v' given the return is normal; (√v')² has the mean of v' and, nearly, its variance ξ²v."""
    noise, width = law.vol_of_variance**2 / 4, u[1] - u[0]
    # Noise that no cell resolves would have a density above 1 in one of them: it counts as what the cells resolve.
    left = jnp.maximum(noise * (1 - law.rho**2), (RESOLVED * width) ** 2)
    reached = jnp.sqrt(jnp.maximum(_expected(law, u) - noise, noise / 4))
    pull = law.rho * law.vol_of_variance / (2 * u)
    e = u[None] - reached[:, None]
    chance = 0.0 if law.jump is None else jnp.log1p(-law.jump.probability)
    scale = chance + jnp.log(width) - jnp.log(2 * jnp.pi) - 0.5 * jnp.log(left) - jnp.log(u)
    return _single(-0.5 * e**2 / left + scale[:, None], e * pull[:, None] / left, -0.5 * (pull**2 / left + u**-2))


def _jumping(law: Law, jump: Jump, u: Float[Array, " cell"]) -> _Exponent:
    """A jump: v' is the expected variance and J_v, summed over each cell; what lies above is in the last."""
    half, before = (u[1] - u[0]) / 2, _expected(law, u)[:, None]
    low, high = (jnp.maximum((u + side)[None] ** 2 - before, 0.0) for side in (-half, half))
    beyond = jnp.exp(-high / jump.variance_mean).at[:, -1].set(0.0)
    mass = jnp.exp(-low / jump.variance_mean) - beyond
    spread = u**2 + jump.price_deviation**2
    mean = jump.price_mean + jump.correlation * (low + high) / 2
    scale = jnp.log(jump.probability) - 0.5 * jnp.log(2 * jnp.pi * spread)
    constant = jnp.log(jnp.maximum(mass, 1e-30)) + (scale[:, None] - 0.5 * mean**2 / spread[:, None])
    return _single(constant, mean / spread[:, None], -0.5 / spread)


def _single(*parts: Float[Array, "..."]) -> _Exponent:
    return _Exponent(*(part.astype(jnp.float32) for part in parts))
