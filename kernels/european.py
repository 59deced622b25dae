"""European options revalued under scenarios: one kernel for linear and inverse settlement, alive or expired.

Options come in groups that share expiry, underlying and settlement ("slices"), so everything that depends on the slice
and the scenario only is computed once per slice. Axes: slice, option, scenario (minor).
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax.lax import Precision
from jaxtyping import Array, Float

from pmvar.kernels.black import normalised_black
from pmvar.kernels.smile import NODES, hats


class EuropeanTerms(NamedTuple):
    """Options in groups; one expiry, underlying and settlement a group. Padding has zero scale and valid terms."""

    scale: Float[Array, "slice option"]
    """Base currency: contract size × forward × discount factor × settlement price (inverse: without the forward)."""
    log_moneyness: Float[Array, "slice option"]
    """ln(K/F) today."""
    sign: Float[Array, "slice option"]
    """+1 call, −1 put."""
    vol: Float[Array, "slice option node"]
    """Volatility after a move of the log-forward by each of `NODES`; a single node means a flat smile."""
    linear: Float[Array, " slice"]
    """1 settled in the quote currency, 0 settled in the coin (inverse)."""


class EuropeanState(NamedTuple):
    """The state of the world that values the slices."""

    log_forward: Float[Array, "slice scenario"]
    """ln(F₁/F₀)."""
    vol_multiplier: Float[Array, "slice scenario"]
    """σ₁/σ₀."""
    log_settlement: Float[Array, "slice scenario"]
    """ln of the base price of the settlement currency over today's."""
    log_discount: Float[Array, " slice"]
    """ln of the discount factor to expiry over today's."""
    time: Float[Array, " slice"]
    """Years to expiry, 0 when settled."""


class Bump(NamedTuple):
    """Displacements of today's market that revaluation is differentiated by; all zero otherwise."""

    log_spot: Float[Array, ""]
    """Of the underlying."""
    vol: Float[Array, ""]
    """Parallel, absolute."""
    rate: Float[Array, ""]
    """Zero rate of the quote currency, forwards held."""
    log_settlement: Float[Array, ""]
    """Of the base price of the settlement currency."""


def european_value(
    terms: EuropeanTerms, state: EuropeanState, bump: Bump
) -> Float[Array, "slice option scenario"]:
    """Value in base currency, per contract, in the dtype of `terms`.

    Linear: D·F·b(k, σ√τ)·X; inverse: b(k, σ√τ)·X with b the normalised Black price, k = ln(K/F₁) and X the base price of
    the settlement currency. The smile is sticky in k. Expired options have τ = 0 and pay their intrinsic value.
    """
    move = state.log_forward + bump.log_spot
    if terms.vol.shape[-1] == 1:
        vol = terms.vol
    else:
        weight = hats(move, jnp.asarray(NODES, move.dtype))
        vol = jnp.einsum("gnj,gsj->gns", terms.vol, weight, precision=Precision.HIGHEST)
    deviation = (vol + bump.vol) * (state.vol_multiplier * jnp.sqrt(state.time)[:, None])[:, None, :]
    price = normalised_black(
        terms.log_moneyness[:, :, None] - move[:, None, :], deviation, terms.sign[:, :, None]
    )
    carry = (state.log_discount - bump.rate * state.time)[:, None] + terms.linear[:, None] * move
    growth = jnp.exp(state.log_settlement + bump.log_settlement + carry)
    return terms.scale[:, :, None] * (growth[:, None, :] * price)
