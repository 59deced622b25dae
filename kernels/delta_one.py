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


def displaced_pnl(
    unit: Float[Array, " instrument"],
    level: Float[Array, " instrument"],
    carried: Float[Array, " instrument"],
    linear: Float[Array, " instrument"],
    move: Float[Array, "instrument scenario"],
    log_settlement: Float[Array, "instrument scenario"],
    bump: Bump,
) -> Float[Array, "instrument scenario"]:
    """P&L in base currency of spots, futures and perpetuals whose price may fall below zero: ΔP·X₁ + P₀(X₁ − X₀).

    ΔP = `unit`·(eˣ − 1), or `unit`·x where `linear` is 1, per contract and times X₀; `level` = nP₀X₀. The second term
    is only of what is `carried` at value (1, spot), not of what pays variation margin (0). See
    `pmvar.market.price_scale`.
    """

    def moved(x: Array, is_linear: Array) -> Array:
        return jnp.where(is_linear > 0, x, jnp.expm1(x))

    today = jnp.exp(bump.log_settlement)
    grown = 1 + (1 - linear) * jnp.expm1(bump.log_spot)
    base = carried * (level + unit * moved(bump.log_spot, linear))
    gain = (unit * grown)[:, None] * moved(move, linear[:, None]) * jnp.exp(log_settlement)
    return today * (gain + base[:, None] * jnp.expm1(log_settlement))
