"""Barrier options in closed form, continuously monitored, and the chance of a hit between two known prices."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float

from pmvar.kernels.black import normal_cdf, normalised_black

LEAST_DEVIATION = 1e-6
"""Total standard deviations below this are this, whose square float32 still holds."""


class BarrierTerms(NamedTuple):
    """Barrier options, arrays that broadcast with each other."""

    sign: Float[Array, "*#shape"]
    """+1 call, −1 put."""
    up: Float[Array, "*#shape"]
    """+1 hit from below, −1 from above."""
    knock_in: Float[Array, "*#shape"]
    """1 comes to life at the barrier, 0 ends there."""


def barrier_price(
    terms: BarrierTerms,
    log_moneyness: Float[Array, "*#shape"],
    log_barrier: Float[Array, "*#shape"],
    carry: Float[Array, "*#shape"],
    total_deviation: Float[Array, "*#shape"],
    total_rate: Float[Array, "*#shape"],
    rebate: Float[Array, "*#shape"],
    hit: Float[Array, "*#shape"],
) -> Float[Array, "*#shape"]:
    """Price over forward and discount factor, of an option that has been hit with probability `hit` already.

    `log_moneyness` ln(K/F), `log_barrier` ln(H/S), `carry` ln(F/S), `total_deviation` σ√τ ≥ 0, `total_rate` rτ (≥ 0
    where a rebate is paid at the hit), `rebate` R/F: paid at the hit by what ends there, at expiry by what never came
    to life. At or beyond the barrier it is hit. Source: Reiner and Rubinstein (1991), as Haug (2007), section 4.17.
    """
    alive = terms.up * log_barrier > 0
    h = jnp.where(alive, log_barrier, terms.up)
    k, s, eta, phi = log_moneyness, jnp.maximum(total_deviation, LEAST_DEVIATION), -terms.up, terms.sign
    # Of the asset (+) and of cash (−): the drift of ln S under the measure that each is the unit of.
    plus, minus = carry + s * s / 2, carry - s * s / 2
    ratio = jnp.exp(k)

    def reflected(power: Array, d: Array) -> Array:
        # (H/S)^power Φ(ηd): a probability, of which the two factors are out of range where their product is not.
        return jnp.exp(jnp.minimum(power * h + log_ndtr(eta * d), 0.0))

    def pair(asset: Array, cash: Array) -> Array:
        return phi * (asset - ratio * cash)

    beyond = h - carry  # ln(H/F)
    powers = 2 * plus / (s * s), 2 * minus / (s * s)
    b = pair(normal_cdf(phi * (s / 2 - beyond / s)), normal_cdf(phi * (-s / 2 - beyond / s)))
    y1, y2 = (2 * h - k) / s + s / 2, (h + plus) / s
    c = pair(reflected(powers[0], y1), reflected(powers[1], y1 - s))
    touched = reflected(powers[1], y2 - s)
    d = pair(reflected(powers[0], y2), touched)
    plain = normalised_black(k, s, phi)
    same, inside = phi * eta > 0, eta * (k - beyond) > 0
    knocked_in = jnp.where(same, jnp.where(inside, c, plain - b + d), jnp.where(inside, b - c + d, plain))
    knocked_in = jnp.clip(knocked_in, 0.0, plain)
    untouched = jnp.clip(normal_cdf(eta * (-s / 2 - beyond / s)) - touched, 0.0, 1.0)
    # E[e^(−rt)] at the hit.
    square = minus * minus + 2 * total_rate * s * s
    root = jnp.sqrt(jnp.where(square > 0, square, s * s))
    at_hit = reflected((minus + root) / (s * s), (h + root) / s) + reflected((minus - root) / (s * s), (h - root) / s)
    growth = jnp.exp(total_rate)
    is_in = terms.knock_in > 0
    living = jnp.where(is_in, knocked_in + rebate * untouched, plain - knocked_in + rebate * growth * at_hit)
    dead = jnp.where(is_in, plain, rebate * growth)
    return jnp.where(alive, dead * hit + living * (1 - hit), dead)


def hit_probability(
    log_barrier_before: Float[Array, "*#shape"],
    log_barrier_after: Float[Array, "*#shape"],
    variance: Float[Array, "*#shape"],
) -> Float[Array, "*#shape"]:
    """Probability that a Brownian bridge touches a barrier at signed distances before and after; 1 beyond it.

    exp(−2ab/v) of distances a, b > 0 on the living side, `variance` v of the log price between. Source: Karatzas and
    Shreve (1991), 4.3.40.
    """
    a, b = log_barrier_before, log_barrier_after
    apart = (a > 0) & (b > 0)
    product = jnp.where(apart, a, 0.0) * jnp.where(apart, b, 0.0)
    return jnp.exp(-2 * product / jnp.maximum(variance, LEAST_DEVIATION**2))
