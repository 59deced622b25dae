"""European options revalued under scenarios: one kernel for linear and inverse settlement, alive or expired."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jax.lax import Precision
from jaxtyping import Array, Float

from pmvar.kernels.black import normalised_black


class EuropeanTerms(NamedTuple):
    """Options, one entry each. Padding has zero scale and valid terms."""

    scale: Float[Array, " option"]
    """Base currency: contract size × forward × discount factor × settlement price (inverse: without the first two;
    of a shifted price its forward + shift, of a Bachelier price its shift, for the forward)."""
    log_moneyness: Float[Array, " option"]
    """ln(K/F) today; on another scale than the lognormal x from F to K, see `pmvar.market.price_scale`."""
    sign: Float[Array, " option"]
    """+1 call, −1 put."""
    linear: Float[Array, " option"]
    """1 settled in the quote currency, 0 settled in the coin (inverse), or where `scale` does not move with the
    forward (Bachelier)."""


class EuropeanState(NamedTuple):
    """The state of the world that the options are valued in."""

    log_forward: Float[Array, "option scenario"]
    """ln(F₁/F₀), or x on another scale."""
    vol: Float[Array, "option scenario"]
    """Implied volatility at the option's moneyness in the scenario."""
    log_settlement: Float[Array, "option scenario"]
    """ln of the base price of the settlement currency over today's."""
    log_discount: Float[Array, " option"]
    """ln of the discount factor to expiry over today's."""
    time: Float[Array, " option"]
    """Years to expiry, 0 when settled."""


class Bump(NamedTuple):
    """Displacements of today's market that revaluation is differentiated by; all zero otherwise."""

    log_spot: Float[Array, ""]
    """Of the underlying."""
    vol: Float[Array, ""]
    """Of today's vols, parallel and absolute; whoever makes a state's vols applies it."""
    rate: Float[Array, ""]
    """Zero rate of the quote currency, forwards held."""
    log_settlement: Float[Array, ""]
    """Of the base price of the settlement currency."""


def smile_vol(
    vol_at_node: Float[Array, "group option node"], hat: Float[Array, "group node scenario"]
) -> Float[Array, "options scenario"]:
    """Volatility of each option from its table and the interpolation weights that its group shares."""
    vol = jnp.einsum("gnj,gjs->gns", vol_at_node, hat, precision=Precision.HIGHEST)
    return vol.reshape(-1, hat.shape[-1])


def european_value(
    terms: EuropeanTerms, state: EuropeanState, bump: Bump, normalised: Callable[..., Array] = normalised_black
) -> Float[Array, "option scenario"]:
    """Value in base currency, per contract, in the dtype of `terms`.

    Linear: D·F·b(k, σ√τ)·X; inverse: b(k, σ√τ)·X with b the normalised Black price, k = ln(K/F₁) and X the base
    price of the settlement currency. Expired options have τ = 0 and pay their intrinsic value. With
    `normalised_bachelier` as `normalised`: D·A·b(k, σ√τ)·X, k = (K − F₁)/A.
    """
    move = state.log_forward + bump.log_spot
    deviation = state.vol * jnp.sqrt(state.time)[:, None]
    price = normalised(terms.log_moneyness[:, None] - move, deviation, terms.sign[:, None])
    carry = (state.log_discount - bump.rate * state.time)[:, None] + terms.linear[:, None] * move
    growth = jnp.exp(state.log_settlement + bump.log_settlement + carry)
    return terms.scale[:, None] * (growth * price)
