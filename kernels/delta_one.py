"""Spot, cash, futures and perpetuals under scenarios: closed forms in the move of one price and one currency."""

from __future__ import annotations

import jax.numpy as jnp
from jaxtyping import Array, Float

from pmvar.kernels.european import Bump


def carried_pnl(
    scale: Float[Array, " instrument"],
    log_price: Float[Array, "instrument scenario"],
    log_settlement: Float[Array, "instrument scenario"],
    bump: Bump,
) -> Float[Array, "instrument scenario"]:
    """P&L in base currency of what is carried at value (spot, cash): V₁X₁ − V₀X₀; `scale` = V₀X₀ per contract."""
    today = scale * jnp.exp(bump.log_spot + bump.log_settlement)
    return today[:, None] * jnp.expm1(log_price + log_settlement)


def margined_pnl(
    scale: Float[Array, " instrument"],
    power: Float[Array, " instrument"],
    log_price: Float[Array, "instrument scenario"],
    log_settlement: Float[Array, "instrument scenario"],
    funding: Float[Array, " instrument"],
    bump: Bump,
) -> Float[Array, "instrument scenario"]:
    """P&L in base currency of what pays variation margin, ΠX₁: futures and perpetuals.

    `power` +1, linear: Π = n(F₁ − F₀), `scale` = nF₀X₀. `power` −1, inverse: Π = n(1/F₀ − 1/F₁) in coin,
    `scale` = nX₀/F₀. `funding` is the fraction of today's notional that a long pays over the horizon.
    """
    today = scale * jnp.exp(power * bump.log_spot + bump.log_settlement)
    move = jnp.expm1(power[:, None] * log_price)
    return today[:, None] * ((power[:, None] * move - funding[:, None]) * jnp.exp(log_settlement))
