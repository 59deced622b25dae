"""American options: European value, early-exercise premium by quadrature along the exercise boundary, intrinsic value.

A call on S struck at K is a put on K struck at S with rate and yield exchanged (McDonald and Schroder 1998), so puts
alone are priced here, per unit of strike and as a function of m = ln(S/K); see `as_put`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmvar.kernels.black import normal_cdf, normalised_black
from pmvar.kernels.exercise_boundary import (
    SMALLEST_DEVIATION,
    depth,
    exercised_early,
    has_two_boundaries,
    interpolated,
    interpolation,
    log_limit_at_expiry,
    quadrature,
)

POINTS = 32
"""Points of the premium's quadrature."""

FARTHEST = 50.0
"""Moneyness beyond ±this is this: a price of 0, or of the intrinsic value, to 2e-22 of the strike."""


class PutTerms(NamedTuple):
    """What the value of a put needs beside moneyness, deviation and boundary; a row per point of the quadrature."""

    interest: Float[Array, "point option"]
    """Weight × R e^(−Rt), the interest won on the strike; 0 where the put is never exercised early."""
    carry: Float[Array, "point option"]
    """Weight × Q e^(−Qt), the yield forgone on the price; 0 likewise."""
    drift: Float[Array, "point option"]
    """(R − Q)t − ln X."""
    log_limit: Float[Array, " option"]
    """ln X; −∞ where the put is never exercised early."""
    log_forward: Float[Array, " option"]
    """R − Q = ln(F/S)."""
    discount: Float[Array, " option"]
    """e^(−R)."""


class PutProblem(NamedTuple):
    """An American option as a put, each [option]."""

    log_moneyness: Float[Array, " option"]
    """ln(S/K) of a put, ln(K/S) of a call."""
    rate: Float[Array, " option"]
    dividend_yield: Float[Array, " option"]
    scale: Float[Array, " option"]
    """What the put's value per unit of strike is multiplied by: K, of a call S."""


def as_put(
    spot: Float[Array, " option"],
    strike: Float[Array, " option"],
    rate: Float[Array, " option"],
    dividend_yield: Float[Array, " option"],
    sign: Float[Array, " option"],
) -> PutProblem:
    """Put–call symmetry C(S, K, r, q) = P(K, S, q, r); `sign` +1 call, −1 put. Source: McDonald and Schroder (1998)."""
    call = sign > 0
    return PutProblem(
        -sign * jnp.log(jnp.maximum(spot / strike, math.exp(-FARTHEST))),
        jnp.where(call, dividend_yield, rate),
        jnp.where(call, rate, dividend_yield),
        jnp.where(call, spot, strike),
    )


def put_terms(total_rate: Float[Array, " option"], total_yield: Float[Array, " option"], points: int) -> PutTerms:
    """Terms of puts with total rate R = rT and total yield Q = qT, for a quadrature of `points`."""
    sine, cosine, weight = quadrature(points)
    t, share = (sine**2)[:, None], (2 * sine * cosine * weight)[:, None]
    rate, held = total_rate[None], total_yield[None]
    early = exercised_early(total_rate, total_yield)
    limit = log_limit_at_expiry(total_rate, total_yield)
    return PutTerms(
        interest=jnp.where(early, share * rate * jnp.exp(-rate * t), 0.0),
        carry=jnp.where(early, share * held * jnp.exp(-held * t), 0.0),
        drift=(rate - held) * t - limit[None],
        log_limit=jnp.where(early, limit, -jnp.inf),
        log_forward=total_rate - total_yield,
        discount=jnp.exp(-total_rate),
    )


def put_value(
    terms: PutTerms,
    log_moneyness: Float[Array, "option scenario"],
    total_deviation: Float[Array, "option scenario"],
    depth_at: Callable[[Array | int], Float[Array, "option scenario"]],
    root: Float[Array, " point"],
    *,
    unroll: bool,
) -> Float[Array, "option scenario"]:
    """Value of American puts per unit of strike, at least the intrinsic value.

    `log_moneyness` m = ln(S/K); `total_deviation` σ√T; `depth_at(j)` is ln(X/B) at point j of the quadrature whose
    √t are `sine`, and after the last of them the depth today. In float32 the error of rounding is 1e-6.
    Source: Kim (1990), "The analytic valuation of American options": the premium is what exercise wins at each moment,
    ∫ R e^(−Rt) Φ(−d₋) − Q e^(m−Qt) Φ(−d₊) dt with d± of m − ln B(τ − t).
    """
    m = jnp.clip(log_moneyness, -FARTHEST, FARTHEST)
    a = jnp.maximum(total_deviation, SMALLEST_DEVIATION)
    spot, per_deviation = jnp.exp(m), 1 / a

    def add(j: Array | int, sums: tuple[Array, Array]) -> tuple[Array, Array]:
        interest, carry = sums
        middle = (m + depth_at(j) + terms.drift[j, :, None]) * (per_deviation / root[j])
        half = a * (root[j] / 2)
        interest = interest + terms.interest[j, :, None] * normal_cdf(half - middle)
        return interest, carry + terms.carry[j, :, None] * normal_cdf(-half - middle)

    interest, carry = jax.lax.fori_loop(0, len(root), add, (jnp.zeros_like(m), jnp.zeros_like(m)), unroll=unroll)
    k = -m - terms.log_forward[:, None]
    european = terms.discount[:, None] * jnp.exp(-k) * normalised_black(k, total_deviation, -jnp.ones_like(m))
    held = european + (interest - spot * carry)
    # Not max(·, 0) and max(·, ·), which at a tie halve the derivative.
    intrinsic = jnp.where(m < 0, -jnp.expm1(m), 0.0)
    exercised = (m <= terms.log_limit[:, None] - depth_at(len(root))) | (held < intrinsic)
    return jnp.where(exercised, intrinsic, held)


def american(
    spot: Float[Array, " option"],
    strike: Float[Array, " option"],
    vol: Float[Array, " option"],
    time: Float[Array, " option"],
    rate: Float[Array, " option"],
    dividend_yield: Float[Array, " option"],
    sign: Float[Array, " option"],
) -> Float[Array, " option"]:
    """Price of American options in the currency of `spot`; float64. `sign` +1 call, −1 put.

    `vol` per √year ≥ 0, `time` in years ≥ 0, `rate` and `dividend_yield` continuously compounded per year; of an option
    on a future `spot` is the futures price and `dividend_yield` = `rate`. Within 1e-6 of max(S, K) up to three years,
    3e-6 up to ten, for vols of 3% and more. Slopes are those of the price, the move of the boundary included: Kim's
    integral is not stationary in it, and a vega with the boundary held is wrong by up to half.
    NaN where `has_two_boundaries`: q < r < 0 of a put, r < q < 0 of a call.
    """
    put = as_put(spot, strike, rate, dividend_yield, sign)
    total_rate, total_yield = put.rate * time, put.dividend_yield * time
    alive = time > 0
    deviation = vol * jnp.where(alive, jnp.sqrt(jnp.where(alive, time, 1.0)), 0.0)
    sine, cosine, _ = quadrature(POINTS)
    at = interpolated(depth(deviation, total_rate, total_yield), interpolation(np.append(cosine, 1.0)))
    value = put_value(
        put_terms(total_rate, total_yield, POINTS),
        put.log_moneyness[:, None],
        deviation[:, None],
        lambda j: at[:, j, None],
        jnp.asarray(sine),
        unroll=False,
    )[:, 0]
    return jnp.where(has_two_boundaries(put.rate, put.dividend_yield), jnp.nan, put.scale * value)
