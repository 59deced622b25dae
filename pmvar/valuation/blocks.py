"""Blocks: instruments of one product in canonical shapes, with their P&L in a world and its derivatives."""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pmvar.kernels.delta_one import carried_pnl, margined_pnl
from pmvar.kernels.european import Bump, EuropeanState, EuropeanTerms, european_value
from pmvar.types import DAY, SECONDS_PER_YEAR
from pmvar.valuation.world import World


T = TypeVar("T", Bump, EuropeanTerms, EuropeanState)


class Block(eqx.Module):
    """Instruments that one compiled kernel values together. Abstract; each product's is final."""

    dtype: eqx.AbstractVar[jnp.dtype]
    """Of the tile, float32 or float64; worlds and terms are float64."""

    @abstractmethod
    def pnl(self, world: World, bump: Bump) -> Float[Array, "instrument scenario"]:
        """P&L per contract in base currency from today's market displaced by `bump` to `world` displaced alike."""


class CarriedBlock(Block):
    """Spot and cash."""

    dtype: jnp.dtype = eqx.field(static=True)
    scale: Float[Array, " instrument"]
    price_row: Int[Array, " instrument"]
    settlement_row: Int[Array, " instrument"]

    def pnl(self, world: World, bump: Bump) -> Float[Array, "instrument scenario"]:
        """See the base."""
        move, money = world.log_price[self.price_row], world.log_base[self.settlement_row]
        return carried_pnl(
            self.scale.astype(self.dtype), move.astype(self.dtype), money.astype(self.dtype), bump
        )


class MarginedBlock(Block):
    """Futures and perpetuals, linear and inverse."""

    dtype: jnp.dtype = eqx.field(static=True)
    scale: Float[Array, " instrument"]
    power: Float[Array, " instrument"]
    """+1 linear, −1 inverse."""
    carry: Float[Array, " instrument"]
    """ln of the forward move that a standing spot would make: F₁/F₀ = S₁/S₀·e^−carry."""
    price_row: Int[Array, " instrument"]
    settlement_row: Int[Array, " instrument"]

    def pnl(self, world: World, bump: Bump) -> Float[Array, "instrument scenario"]:
        """See the base."""
        move = world.log_price[self.price_row] - self.carry[:, None]
        money = world.log_base[self.settlement_row]
        return margined_pnl(
            self.scale.astype(self.dtype), self.power.astype(self.dtype), move.astype(self.dtype),
            money.astype(self.dtype), bump,
        )  # fmt: skip


class EuropeanBlock(Block):
    """European options in slices that share expiry, underlying and settlement."""

    dtype: jnp.dtype = eqx.field(static=True)
    terms: EuropeanTerms
    time_today: Float[Array, " slice"]
    """Years to expiry today."""
    time_then: Float[Array, " slice"]
    """Years to expiry at the horizon, 0 if settled before."""
    log_discount_then: Float[Array, " slice"]
    """ln of the discount factor at the horizon over today's."""
    carry: Float[Array, " slice"]
    price_row: Int[Array, " slice"]
    settlement_row: Int[Array, " slice"]
    vol_row: Int[Array, " slice"]
    term_scale: Float[Array, " slice"]
    """(reference tenor / time to expiry)^exponent: what a slice makes of the shock of ln σ."""
    vol_cap: float = eqx.field(static=True)

    def pnl(self, world: World, bump: Bump) -> Float[Array, "instrument scenario"]:
        """See the base."""
        shock = world.log_vol[self.vol_row] * self.term_scale[:, None]
        capped = shock if np.isinf(self.vol_cap) else self.vol_cap * jnp.tanh(shock / self.vol_cap)
        then = EuropeanState(
            world.log_price[self.price_row] - self.carry[:, None],
            jnp.exp(capped),
            world.log_base[self.settlement_row],
            self.log_discount_then,
            self.time_then,
        )
        still = jnp.zeros((len(self.carry), 1))
        today = EuropeanState(still, still + 1, still, still[:, 0], self.time_today)
        # Today's value is cheap, one column: float64 keeps its rounding out of every scenario.
        before = european_value(self.terms, today, _cast(bump, jnp.float64)).astype(self.dtype)
        after = european_value(_cast(self.terms, self.dtype), _cast(then, self.dtype), bump)
        return (after - before).reshape(-1, after.shape[-1])


def _cast(tree: T, dtype: jnp.dtype) -> T:
    return jax.tree.map(lambda x: x.astype(dtype), tree)


def _no_bump(dtype: jnp.dtype) -> Bump:
    return Bump(*(jnp.zeros((), dtype) for _ in Bump._fields))


@eqx.filter_jit
def block_pnl(block: Block, world: World) -> Float[Array, "instrument scenario"]:
    """P&L of a block per contract, in base currency."""
    return block.pnl(world, _no_bump(block.dtype))


@eqx.filter_jit
def block_sensitivity(block: Block, world: World) -> Bump:
    """Derivatives of the P&L of a block by each field of `Bump`; each [instrument, scenario]."""
    return jax.jacfwd(lambda bump: block.pnl(world, bump))(_no_bump(block.dtype))


def years(start: float, end: float) -> float:
    """Act/365 years between two instants in epoch seconds, never negative."""
    return max(end - start, 0.0) / SECONDS_PER_YEAR


def term_scale(tenor_days: float, exponent: float, seconds: float) -> float:
    """(tenor/τ)^exponent, τ in seconds and at least a day: shorter options would move without bound."""
    return (tenor_days * DAY / max(seconds, DAY)) ** exponent
