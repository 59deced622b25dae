"""Blocks: instruments of one product in canonical shapes, with their P&L in a world and its derivatives."""

from __future__ import annotations

from abc import abstractmethod
from functools import partial
from typing import ClassVar, TypeVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from pmvar.kernels.american_dividends import DividendTable
from pmvar.kernels.delta_one import carried_pnl, displaced_pnl, margined_pnl
from pmvar.kernels.european import Bump, EuropeanState, EuropeanTerms, Formula, european_value
from pmvar.kernels.exercise_table import ExerciseTable
from pmvar.kernels.smile import Place, smile_vol
from pmvar.valuation.fitted_smile import FittedSmile
from pmvar.valuation.world import World

T = TypeVar("T")


class Block(eqx.Module):
    """Instruments that one compiled kernel values together. Abstract; each product's is final."""

    on_curve: ClassVar[bool] = False
    """Whether P&L depends on `World.curve`."""

    @abstractmethod
    def pnl(self, world: World, bump: Bump) -> Float[Array, "instrument scenario"]:
        """P&L per contract in base currency from today's market displaced by `bump` to `world` displaced alike."""

    def tangent(self, world: World) -> Block:
        """What has the P&L of this block and its first derivatives near `world`: itself, where that is cheap."""
        return self


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
    funding: Float[Array, " instrument"]
    """Of perpetuals: fraction of today's notional that a long pays over the horizon."""
    slice_row: Int[Array, " instrument"]
    base_row: Int[Array, " instrument"]

    def pnl(self, world: World, bump: Bump) -> Float[Array, "instrument scenario"]:
        """See the base."""
        dtype = world.log_base.dtype
        move, money = world.log_forward[self.slice_row], world.log_base[self.base_row]
        scale, power, funding = (x.astype(dtype) for x in (self.scale, self.power, self.funding))
        return margined_pnl(scale, power, move, money, funding, bump)


class DisplacedBlock(Block):
    """Spots, futures and perpetuals whose price may fall below zero: shifted, or Bachelier's."""

    unit: Float[Array, " instrument"]
    """Base currency that x = 1 moves a contract by, at first."""
    level: Float[Array, " instrument"]
    """Value of a contract in base currency."""
    carried: Float[Array, " instrument"]
    """1 at value (spot), 0 by variation margin."""
    linear: Float[Array, " instrument"]
    """1 where the price moves by differences (Bachelier)."""
    slice_row: Int[Array, " instrument"]
    base_row: Int[Array, " instrument"]

    def pnl(self, world: World, bump: Bump) -> Float[Array, "instrument scenario"]:
        """See the base."""
        dtype = world.log_base.dtype
        unit, level, carried, linear = (x.astype(dtype) for x in (self.unit, self.level, self.carried, self.linear))
        move, money = world.log_forward[self.slice_row], world.log_base[self.base_row]
        return displaced_pnl(unit, level, carried, linear, move, money, bump)


class Smile(eqx.Module):
    """Vols of a block of options in a world."""

    vol_at_node: Float[Array, "option node"]
    """Volatility after moves `NODES` of the log spot; a single node is a flat smile."""
    slice_row: Int[Array, " option"]
    spot_row: Int[Array, " option"]
    """Slice of the underlying's spot."""
    place_row: Int[Array, " option"]
    """Row of `World.place`."""

    def vol(self, world: World, bump: Bump) -> Float[Array, "option scenario"]:
        """Per √year. A bump of today's vols is scaled by the scenario like the vols themselves."""
        vol = self.vol_at_node.astype(world.log_base.dtype)
        if vol.shape[-1] > 1:
            at = Place(*(x[self.place_row] for x in world.place))
            vol = smile_vol(vol, at, world.log_forward[self.spot_row] + bump.log_spot)
        return (vol + bump.vol) * world.vol_multiplier[self.slice_row]


class EuropeanBlock(Block):
    """European options of one formula."""

    terms: EuropeanTerms
    smile: Smile | FittedSmile
    vol_today: Float[Array, " option"]
    vol_slope: Float[Array, " option"]
    """Derivative of `vol_today` by the log forward, the smile held in moneyness."""
    time_today: Float[Array, " option"]
    """Years to expiry today."""
    time_then: Float[Array, " option"]
    """Years to expiry at the horizon, 0 if settled before."""
    log_discount_then: Float[Array, " option"]
    """ln of the discount factor at the horizon over today's."""
    base_row: Int[Array, " option"]
    formula: Formula = eqx.field(static=True)

    def pnl(self, world: World, bump: Bump) -> Float[Array, "instrument scenario"]:
        """See the base."""
        dtype = world.log_base.dtype
        then = EuropeanState(
            world.log_forward[self.smile.slice_row],
            self.smile.vol(world, bump),
            world.base[self.base_row],
            self.log_discount_then.astype(dtype),
            self.time_then.astype(dtype),
        )
        # Today's value is cheap, one column: float64 keeps its rounding out of every scenario.
        wide = cast(bump, jnp.dtype(jnp.float64))
        still = jnp.zeros((len(self.time_today), 1))
        vol_today = (self.vol_today + self.vol_slope * wide.log_spot + wide.vol)[:, None]
        today = EuropeanState(still, vol_today, jnp.ones_like(still), still[:, 0], self.time_today)
        before = european_value(self.terms, today, wide, self.formula).astype(dtype)
        after = european_value(cast(self.terms, dtype), then, bump, self.formula)
        return after - before


class AmericanBlock(Block):
    """American options on a spot or a future, settled in their quote currency, each as a put: see `as_put`.

    With dividends on given days all are on the forward, see `american_dividends`.
    """

    smile: Smile | FittedSmile
    table: ExerciseTable | DividendTable
    """Early exercise in the time left at the horizon."""
    table_by_rate: ExerciseTable | DividendTable
    """Derivative of `table` by the zero rate, forwards held: rate and yield move alike."""
    scale: Float[Array, " option"]
    """Base currency: contract size × settlement price × strike of puts, × price of what calls are on at the horizon
    if nothing moves."""
    log_moneyness: Float[Array, " option"]
    """ln(S/K), on the forward ln(F/K), at the horizon if nothing moves."""
    sign: Float[Array, " option"]
    """+1 call, −1 put."""
    today: Float[Array, " option"]
    """Value in base currency."""
    today_by: Float[Array, "bump option"]
    """Its derivatives, by the fields of `Bump`."""
    base_row: Int[Array, " option"]

    def pnl(self, world: World, bump: Bump) -> Float[Array, "instrument scenario"]:
        """See the base."""
        return self.profit(self.put_value(bump.rate, *self.state(world, bump)), world, bump)

    def tangent(self, world: World) -> Block:
        """See the base."""
        at = _state(self, world)
        # Compiled one by one: together, one's quadrature would be summed again for each of the others.
        by = tuple(_put_slope(self, *at, along=i) for i in range(3))
        return TangentBlock(self, at, _put(self, *at), by)

    def state(
        self, world: World, bump: Bump
    ) -> tuple[Float[Array, "option scenario"], Float[Array, "option scenario"]]:
        """Log-moneyness as a put, and volatility."""
        still = self.log_moneyness.astype(world.log_base.dtype)[:, None]
        sign = self.sign.astype(still.dtype)[:, None]
        return -sign * (still + self._move(world, bump)), self.smile.vol(world, bump)

    def put_value(
        self, rate: Float[Array, ""], m: Float[Array, "option scenario"], vol: Float[Array, "option scenario"]
    ) -> Float[Array, "option scenario"]:
        """Per unit of strike, at log-moneyness `m` and a zero rate `rate` above today's."""
        shifted = jax.tree.map(lambda x, slope: x + rate.astype(x.dtype) * slope, self.table, self.table_by_rate)
        return cast(shifted, m.dtype).value(m, vol)

    def profit(
        self, put: Float[Array, "option scenario"], world: World, bump: Bump
    ) -> Float[Array, "option scenario"]:
        """P&L from the value of the puts per unit of strike."""
        dtype = put.dtype
        call = (self.sign > 0).astype(dtype)[:, None]
        growth = world.log_base[self.base_row] + bump.log_settlement + call * self._move(world, bump)
        before = self.today + jnp.stack(cast(bump, jnp.dtype(jnp.float64))) @ self.today_by
        return self.scale.astype(dtype)[:, None] * (jnp.exp(growth) * put) - before.astype(dtype)[:, None]

    def _move(self, world: World, bump: Bump) -> Float[Array, "option scenario"]:
        return world.log_forward[self.smile.slice_row] + bump.log_spot


class TangentBlock(Block):
    """American options near one world: a derivative of the premium's quadrature counts for all directions."""

    block: AmericanBlock
    at: tuple[Float[Array, "option scenario"], ...]
    """Log-moneyness and volatility there."""
    put: Float[Array, "option scenario"]
    by: tuple[Float[Array, "option scenario"], ...]
    """Derivative of `put` by the zero rate, log-moneyness and volatility."""

    def pnl(self, world: World, bump: Bump) -> Float[Array, "instrument scenario"]:
        """See the base."""
        m, vol = self.block.state(world, bump)
        moves = bump.rate, m - self.at[0], vol - self.at[1]
        put = self.put + sum(slope * x for slope, x in zip(self.by, moves, strict=True))
        return self.block.profit(put, world, bump)


@jax.jit
def _state(block: AmericanBlock, world: World) -> tuple[Float[Array, "option scenario"], ...]:
    return block.state(world, no_bump(world.log_base.dtype))


@jax.jit
def _put(
    block: AmericanBlock, m: Float[Array, "option scenario"], vol: Float[Array, "option scenario"]
) -> Float[Array, "option scenario"]:
    return block.put_value(jnp.zeros((), m.dtype), m, vol)


@partial(jax.jit, static_argnames="along")
def _put_slope(
    block: AmericanBlock, m: Float[Array, "option scenario"], vol: Float[Array, "option scenario"], *, along: int
) -> Float[Array, "option scenario"]:
    """Derivative by the zero rate (0), log-moneyness (1) or volatility (2)."""
    at = (jnp.zeros((), m.dtype), m, vol)
    return jax.jvp(block.put_value, at, tuple(jnp.full_like(x, float(i == along)) for i, x in enumerate(at)))[1]


def cast(tree: T, dtype: jnp.dtype) -> T:
    """Every array in `dtype`."""
    return jax.tree.map(lambda x: x.astype(dtype), tree)


def no_bump(dtype: jnp.dtype) -> Bump:
    """Today's market as it is."""
    return Bump(*(jnp.zeros((), dtype) for _ in Bump._fields))


@jax.jit
def block_pnl(block: Block, world: World) -> Float[Array, "instrument scenario"]:
    """P&L of a block per contract, in base currency."""
    return block.pnl(world, no_bump(world.log_base.dtype))
