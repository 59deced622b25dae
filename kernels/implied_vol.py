"""Implied total standard deviation of a normalised out-of-the-money Black price, batched, without
branches."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from pmvar.kernels.black import normal_cdf

ITERATIONS = 40
"""At most: enough to bisect the bracket to 3e-11 where Newton never helps; 6 to 8 suffice elsewhere."""
SMALL_STEP = 1e-10
"""Of ln s: the error left after such a step of Newton is its square."""
BRACKET = (1e-10, 50.0)
"""Total standard deviations searched: beyond the upper one every price is 1 in float64."""
_TINY = 1e-300


def implied_total_deviation(
    otm_price: Float[Array, "*shape"], log_moneyness: Float[Array, "*shape"]
) -> tuple[Float[Array, "*shape"], Bool[Array, "*shape"]]:
    """Total standard deviation s = σ√τ of the out-of-the-money Black price, and where there is one.

    `otm_price` is undiscounted and per unit of forward: of the call where `log_moneyness` k = ln(K/F) ≥ 0,
    else of the put. A price not strictly between 0 and min(1, e^k), or not finite, gives NaN and False. The
    error in s is that of the price over its vega, 1e-12 of s for ordinary quotes. Its slopes are those of the
    equation that it solves: 1/vega by the price.

    A put at k is e^k calls at −k, so one problem is solved: x = |k|, c = Φ(d₁) − e^x Φ(d₂). Newton runs on
    ln(−ln c) as a function of ln s, nearly a straight line in the wings, where −ln c ≈ x²/2s² (after Jäckel
    2006, "By implication"), within a bracket that is bisected whenever a step would leave it.
    """
    x = jnp.abs(log_moneyness)
    call = otm_price * jnp.exp(jnp.maximum(-log_moneyness, 0.0))
    ok = (call > 0) & (call < 1) & jnp.isfinite(log_moneyness)
    # Where there is none, a neighbour's slope must not become NaN by way of this one's.
    s = _solved(jnp.where(ok, call, 0.5), jnp.where(ok, x, 0.0))
    return jnp.where(ok, s, jnp.nan), ok


@jax.custom_jvp
def _solved(call: Float[Array, "*shape"], x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """s of the call at log-moneyness x ≥ 0."""
    target = jnp.log(_minus_log(call, 1 - call))

    def step(state: tuple[Array, ...]) -> tuple[Array, ...]:
        count, y, low, high, done = state
        value, slope = _objective(x, y)
        # The objective falls with s: above the target, s is too small.
        low, high = jnp.where(value > target, y, low), jnp.where(value > target, high, y)
        newton = y + (target - value) / slope
        inside = (newton >= low) & (newton <= high)
        moved = jnp.where(inside, newton, (low + high) / 2)
        # What has arrived stays: no number depends on what else is in the batch.
        return count + 1, jnp.where(done, y, moved), low, high, done | (inside & (jnp.abs(moved - y) <= SMALL_STEP))

    low, high = (jnp.full_like(x, math.log(bound)) for bound in BRACKET)
    # The inflection of the price in s, √2x, or the at-the-money law c ≈ s/√2π, whichever is larger.
    start = jnp.log(jnp.clip(jnp.maximum(jnp.sqrt(2 * x), call * math.sqrt(2 * math.pi)), *BRACKET))
    state = (jnp.zeros((), jnp.int32), start, low, high, jnp.zeros(x.shape, bool))
    return jnp.exp(jax.lax.while_loop(_is_going, step, state)[1])


def _is_going(state: tuple[Array, ...]) -> Array:
    return (state[0] < ITERATIONS) & ~jnp.all(state[-1])


@_solved.defjvp
def _solved_slope(given: tuple[Array, Array], along: tuple[Array, Array]) -> tuple[Array, Array]:
    """∂s/∂c = 1/φ(d₁), ∂s/∂x = e^x Φ(d₂)/φ(d₁)."""
    x = given[1]
    s = _solved(*given)
    d1 = -x / s + s / 2
    vega = jnp.maximum(jnp.exp(-0.5 * d1**2) / math.sqrt(2 * math.pi), _TINY)
    return s, (along[0] + jnp.exp(x) * normal_cdf(d1 - s) * along[1]) / vega


def _minus_log(call: Array, rest: Array) -> Array:
    """−ln c from c and 1 − c, whichever carries more digits; positive."""
    exact = jnp.where(call < 0.5, -jnp.log(jnp.maximum(call, _TINY)), -jnp.log1p(-jnp.minimum(rest, 0.5)))
    return jnp.maximum(exact, _TINY)


def _objective(x: Array, y: Array) -> tuple[Array, Array]:
    """ln(−ln c) of the call at log-moneyness x ≥ 0 and s = e^y, and its derivative in y (negative)."""
    s = jnp.exp(y)
    d1 = -x / s + s / 2
    second = jnp.exp(x) * normal_cdf(d1 - s)
    call = jnp.maximum(normal_cdf(d1) - second, _TINY)
    minus_log = _minus_log(call, normal_cdf(-d1) + second)
    vega = jnp.exp(-0.5 * d1**2) / math.sqrt(2 * math.pi)
    return jnp.log(minus_log), -s * vega / (call * minus_log)
