"""European options revalued under scenarios: one kernel for linear and inverse settlement, alive or expired."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from pmvar.kernels.bachelier import normalised_bachelier
from pmvar.kernels.black import moved_black, normalised_black


class EuropeanTerms(NamedTuple):
    """Options, one entry each. Padding has zero scale and valid terms."""

    scale: Float[Array, " option"]
    """Base currency: contract size × forward × discount factor × settlement price (inverse: without the first two;
    of a shifted price its forward + shift, of a Bachelier price its shift, for the forward)."""
    log_moneyness: Float[Array, " option"]
    """ln(K/F) today; on another scale than the lognormal x from F to K, see `pmvar.market.price_scale`."""
    sign: Float[Array, " option"]
    """+1 call, −1 put."""


class EuropeanState(NamedTuple):
    """The state of the world that the options are valued in."""

    log_forward: Float[Array, "option scenario"]
    """ln(F₁/F₀), or x on another scale."""
    vol: Float[Array, "option scenario"]
    """Implied volatility at the option's moneyness in the scenario."""
    settlement: Float[Array, "option scenario"]
    """Base price of the settlement currency over today's."""
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


class Formula(StrEnum):
    """What an option is worth over its `scale`, not discounted, in what it settles in; k = ln(K/F), x the log move of
    its forward, b the normalised price of Black, or of Bachelier."""

    LINEAR = "linear"
    """e^x b(k − x, σ√τ)"""
    INVERSE = "inverse"
    """b(k − x, σ√τ): in the coin that the underlying is."""
    BACHELIER = "bachelier"
    """b(k − x, σ√τ), k = (K − F)/A, x = (F₁ − F)/A."""

    def price(
        self, k: Float[Array, "*#shape"], x: Float[Array, "*#shape"], deviation: Float[Array, "*#shape"], sign: Array
    ) -> Float[Array, "*#shape"]:
        """The above, of options with this `sign`."""
        if self is Formula.LINEAR:
            return moved_black(k, x, deviation, sign)
        return (normalised_bachelier if self is Formula.BACHELIER else normalised_black)(k - x, deviation, sign)


def european_value(
    terms: EuropeanTerms, state: EuropeanState, bump: Bump, formula: Formula
) -> Float[Array, "option scenario"]:
    """Value in base currency, per contract, in the dtype of `terms`: scale·D·X·price, with D and X the discount factor
    and the base price of the settlement currency, over today's. Expired options have τ = 0: their intrinsic value."""
    move = state.log_forward + bump.log_spot
    deviation = state.vol * jnp.sqrt(state.time)[:, None]
    price = formula.price(terms.log_moneyness[:, None], move, deviation, terms.sign[:, None])
    growth = jnp.exp(state.log_discount - bump.rate * state.time + bump.log_settlement)
    return (terms.scale * growth)[:, None] * (state.settlement * price)
