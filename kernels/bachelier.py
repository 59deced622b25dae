"""Bachelier (1900) in normalised form: a price per unit of a price scale, for prices at and below zero."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from pmvar.kernels.black import SMALLEST_DEVIATION, normal_cdf

NEWTON = 8
"""Steps of the implied deviation; 6 suffice."""


def normalised_bachelier(
    moneyness: Float[Array, "*#shape"], total_deviation: Float[Array, "*#shape"], sign: Float[Array, "*#shape"]
) -> Float[Array, "*#shape"]:
    """Undiscounted European price over the scale A: s·φ(d) − sign·k·Φ(−sign·d), d = k/s.

    `moneyness` k = (K − F)/A; `total_deviation` s = σ√τ ≥ 0, the normal volatility being σA, zero giving the intrinsic
    value; `sign` +1 call, −1 put. The out-of-the-money leg is priced and the intrinsic value added. Absolute error
    4e-16·max(1, |k|, s) in float64, 2e-7 of it in float32. Source: Bachelier (1900), "Théorie de la spéculation".
    """
    k, dtype = moneyness, moneyness.dtype
    s = jnp.maximum(total_deviation, SMALLEST_DEVIATION)
    # One leg at the money, as in `normalised_black`.
    otm = jnp.where(k >= -1e-12, 1.0, -1.0).astype(dtype)
    # Beyond 40 deviations nothing is left; clipped before it is divided, or the slope would overflow.
    d = jnp.clip(k, -40 * s, 40 * s) / s
    time_value = s * (_density(d) - otm * d * normal_cdf(-otm * d))
    time_value = jnp.where(time_value < 0, 0.0, time_value)
    intrinsic = jnp.where(sign == otm, 0.0, -sign * k).astype(dtype)
    return time_value + intrinsic


def implied_bachelier_deviation(
    otm_price: Float[Array, "*shape"], moneyness: Float[Array, "*shape"]
) -> tuple[Float[Array, "*shape"], Bool[Array, "*shape"]]:
    """Total standard deviation s = σ√τ of the out-of-the-money Bachelier price, and where there is one.

    `otm_price` is undiscounted and per unit of the scale: of the call where `moneyness` k = (K − F)/A ≥ 0, else of the
    put. A price that is not positive, or not finite, gives NaN and False. With y = |k|/s the price over |k| is
    g(y) = φ(y)/y − Φ(−y), a convex function that falls; ln g is concave in ln y and below ln(φ(0)/y) and
    −ln(e^(y²/2) − 1), so that Newton's steps from the smaller of the two bounds fall towards y and never pass it.
    Slopes are those of the equation solved: 1/φ(y) by the price.
    """
    x = jnp.abs(moneyness)
    ok = (otm_price > 0) & jnp.isfinite(otm_price) & jnp.isfinite(moneyness)
    s = _solved(jnp.where(ok, otm_price, 1.0), jnp.where(ok, x, 1.0))
    return jnp.where(ok, s, jnp.nan), ok


@jax.custom_jvp
def _solved(price: Float[Array, "*shape"], x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """s of the call at moneyness x ≥ 0."""
    at_money = x <= 1e-10 * price
    x = jnp.where(at_money, 1.0, x)
    # Beyond 1e-290 of |k| nothing of g is left in float64.
    target = jnp.log(jnp.maximum(price / x, 1e-290))

    def step(_: Array | int, v: Array) -> Array:
        y = jnp.exp(v)
        density = _density(y)
        g = jnp.maximum(density / y - normal_cdf(-y), 1e-300)
        return v + (jnp.log(g) - target) * (y * g) / density

    least = jnp.log(1 / math.sqrt(2 * math.pi)) - target
    wing = 0.5 * jnp.log(2 * jnp.logaddexp(0.0, -target))
    v = jax.lax.fori_loop(0, NEWTON, step, jnp.minimum(least, wing))
    return jnp.where(at_money, price * math.sqrt(2 * math.pi), x * jnp.exp(-v))


@_solved.defjvp
def _solved_slope(given: tuple[Array, Array], along: tuple[Array, Array]) -> tuple[Array, Array]:
    """∂s/∂c = 1/φ(d), ∂s/∂x = Φ(−d)/φ(d)."""
    s = _solved(*given)
    d = given[1] / s
    return s, (along[0] + normal_cdf(-d) * along[1]) / jnp.maximum(_density(d), 1e-300)


def _density(x: Array) -> Array:
    return jnp.exp(-0.5 * x**2) * (1 / math.sqrt(2 * math.pi))
