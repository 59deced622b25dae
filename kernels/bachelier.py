"""Bachelier (1900) in normalised form: a price per unit of a price scale, for prices at and below zero."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from pmvar.kernels.black import SMALLEST_DEVIATION, normal_cdf


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
    time_value = s * (jnp.exp(-0.5 * d**2) * (1 / math.sqrt(2 * math.pi)) - otm * d * normal_cdf(-otm * d))
    time_value = jnp.where(time_value < 0, 0.0, time_value)
    intrinsic = jnp.where(sign == otm, 0.0, -sign * k).astype(dtype)
    return time_value + intrinsic
