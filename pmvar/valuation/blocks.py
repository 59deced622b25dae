"""Blocks: instruments of one product in canonical shapes, with their P&L in a world and its derivatives."""

from __future__ import annotations

from abc import abstractmethod
from typing import TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pmvar.kernels.delta_one import carried_pnl, margined_pnl
from pmvar.kernels.european import Bump, EuropeanState, EuropeanTerms, european_value, smile_vol
from pmvar.kernels.smile import hats
from pmvar.valuation.world import World

T = TypeVar("T", Bump, EuropeanTerms, EuropeanState)


class Block(eqx.Module):
    """Instruments that one compiled kernel values together. Abstract; each product's is final."""

    @abstractmethod
    def pnl(self, world: World, bump: Bump) -> Float[Array, "instrument scenario"]:
        """P&L per contract in base currency from today's market displaced by `bump` to `world` displaced alike."""


class CarriedBlock(Block):
    """Spot and cash."""

    scale: Float[Array, " instrument"]
    is_cash: Float[Array, " instrument"]
    """1 for cash, whose price moves with its settlement currency already; else 0."""
    slice_row: Int[Array, " instrument"]
    base_row: Int[Array, " instrument"]

    def pnl(self, world: World, bump: Bump) -> Float[Array, "instrument scenario"]:
        """See the base."""
        dtype = world.log_base.dtype
        own = (1 - self.is_cash).astype(dtype)[:, None]
        move, money = own * world.log_forward[self.slice_row], world.log_base[self.base_row]
        return carried_pnl(self.scale.astype(dtype), move, money, bump)


class MarginedBlock(Block):
    """Futures and perpetuals, linear and inverse."""

    scale: Float[Array, " instrument"]
    power: Float[Array, " instrument"]
    """+1 linear, −1 inverse."""
    slice_row: Int[Array, " instrument"]
    base_row: Int[Array, " instrument"]

    def pnl(self, world: World, bump: Bump) -> Float[Array, "instrument scenario"]:
        """See the base."""
        dtype = world.log_base.dtype
        move, money = world.log_forward[self.slice_row], world.log_base[self.base_row]
        return margined_pnl(self.scale.astype(dtype), self.power.astype(dtype), move, money, bump)


class EuropeanBlock(Block):
    """European options; those on one underlying stand together where they have a smile."""

    terms: EuropeanTerms
    vol_today: Float[Array, " option"]
    vol_slope: Float[Array, " option"]
    """Derivative of `vol_today` by the log forward, the smile held in moneyness."""
    vol_at_node: Float[Array, "piece width node"]
    """Volatility after moves `NODES` of the log spot; a single node is a flat smile."""
    time_today: Float[Array, " option"]
    """Years to expiry today."""
    time_then: Float[Array, " option"]
    """Years to expiry at the horizon, 0 if settled before."""
    log_discount_then: Float[Array, " option"]
    """ln of the discount factor at the horizon over today's."""
    slice_row: Int[Array, " option"]
    base_row: Int[Array, " option"]
    spot_row: Int[Array, " group"]
    """Slice of each group's spot."""

    def pnl(self, world: World, bump: Bump) -> Float[Array, "instrument scenario"]:
        """See the base."""
        dtype = world.log_base.dtype
        # A bump of today's vols is scaled by the scenario like the vols themselves.
        vol = self._vol(world, bump) * world.vol_multiplier[self.slice_row]
        then = EuropeanState(
            world.log_forward[self.slice_row],
            vol,
            world.log_base[self.base_row],
            self.log_discount_then.astype(dtype),
            self.time_then.astype(dtype),
        )
        # Today's value is cheap, one column: float64 keeps its rounding out of every scenario.
        wide = _cast(bump, jnp.dtype(jnp.float64))
        still = jnp.zeros((len(self.time_today), 1))
        vol_today = (self.vol_today + self.vol_slope * wide.log_spot + wide.vol)[:, None]
        today = EuropeanState(still, vol_today, still, still[:, 0], self.time_today)
        before = european_value(self.terms, today, wide).astype(dtype)
        after = european_value(_cast(self.terms, dtype), then, bump)
        return after - before

    def _vol(self, world: World, bump: Bump) -> Float[Array, "option scenario"]:
        dtype = world.log_base.dtype
        table = self.vol_at_node.astype(dtype)
        if table.shape[-1] == 1:
            return table.reshape(-1, 1) + bump.vol
        return smile_vol(table, hats(world.log_forward[self.spot_row] + bump.log_spot)) + bump.vol


def _cast(tree: T, dtype: jnp.dtype) -> T:
    return jax.tree.map(lambda x: x.astype(dtype), tree)


def no_bump(dtype: jnp.dtype) -> Bump:
    """Today's market as it is."""
    return Bump(*(jnp.zeros((), dtype) for _ in Bump._fields))


@eqx.filter_jit
def block_pnl(block: Block, world: World) -> Float[Array, "instrument scenario"]:
    """P&L of a block per contract, in base currency."""
    return block.pnl(world, no_bump(world.log_base.dtype))
