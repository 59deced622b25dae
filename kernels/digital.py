"""Digital options in normalised form: the probability of being paid, corrected for the slope of the smile."""

from __future__ import annotations

import math

import jax.numpy as jnp
from jaxtyping import Array, Float

from pmvar.kernels.black import SMALLEST_DEVIATION, normal_cdf


def normalised_digital(
    log_moneyness: Float[Array, "*#shape"],
    total_deviation: Float[Array, "*#shape"],
    slope: Float[Array, "*#shape"],
    sign: Float[Array, "*#shape"],
    asset: Float[Array, "*#shape"],
) -> Float[Array, "*#shape"]:
    """Undiscounted price of a digital option, in units of what it pays: Φ(±d) ∓ φ(d)·∂s/∂k.

    `log_moneyness` k = ln(K/F); `total_deviation` s = σ√τ ≥ 0, zero giving what is paid (half of it at K = F); `slope`
    ∂s/∂k of the smile at the strike; `sign` +1 call, −1 put; `asset` 1 pays the asset (d = d₁, in units of F), 0 cash
    (d = d₂, in units of cash). Within [0, 1], where a smile with arbitrage would leave it.
    Source: the limit of call spreads −∂C(K, σ(K))/∂K, with vega = K φ(d₂) √τ (Reiner and Rubinstein 1991; Gatheral
    2006, "The Volatility Surface", ch. 8); asset or nothing is a call and K of cash.
    """
    k, s = log_moneyness, total_deviation
    alive = s > SMALLEST_DEVIATION
    safe = jnp.where(alive, s, 1.0)
    d = -k / safe + (asset - 0.5) * safe
    density = jnp.exp(-0.5 * d * d) / math.sqrt(2 * math.pi)
    price = jnp.clip(normal_cdf(sign * d) - sign * density * slope, 0.0, 1.0)
    return jnp.where(alive, price, 0.5 * (1 - jnp.sign(sign * k)))
