"""Blocks of option payoffs beside the plain one, and how they are built from what a plan knows of their options."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pmvar.instruments import Instruments
from pmvar.kernels.black import moved_black
from pmvar.kernels.digital import normalised_digital
from pmvar.kernels.european import Bump
from pmvar.kernels.quanto import quanto_drift
from pmvar.kernels.smile import NODES
from pmvar.market.slope import WIDTH, smile_slope
from pmvar.market.snapshot import MarketSnapshot
from pmvar.types import SECONDS_PER_YEAR, Payoff, PutCall, Settlement, Stickiness
from pmvar.valuation.blocks import Block, Smile, cast
from pmvar.valuation.fitted_smile import FittedSmile
from pmvar.valuation.world import World


class Listed(NamedTuple):
    """The options of a block, by row, and what its plan knows of them."""

    instruments: Instruments
    market: MarketSnapshot
    end: float
    """Of the horizon, epoch seconds."""
    forward: Float[np.ndarray, " option"]
    """Today's, for the expiry."""
    settlement_price: Float[np.ndarray, " option"]
    """Today's price in base currency of what is settled in."""
    carry: Float[np.ndarray, " option"]
    """ln of what a standing spot makes of the forward at the horizon or expiry, see `Layout.carry`."""
    discount: Float[np.ndarray, " option"]
    """Factor to expiry; 1 for inverse options."""
    log_discount_then: Float[np.ndarray, " option"]
    """ln of the forward discount factor over `discount`."""
    vol_today: Float[np.ndarray, " option"]
    vol_slope: Float[np.ndarray, " option"]
    """Of `vol_today` by the log forward."""
    smile: Smile | FittedSmile
    base_row: Int[Array, " option"]

    @property
    def linear(self) -> Float[np.ndarray, " option"]:
        """0 of what settles in its underlying, else 1."""
        return (self.instruments.settlement != Settlement.INVERSE).astype(float)

    @property
    def sign(self) -> Float[Array, " option"]:
        """+1 call, −1 put."""
        return jnp.asarray(np.where(self.instruments.put_call == PutCall.CALL, 1.0, -1.0))

    @property
    def log_moneyness(self) -> Float[Array, " option"]:
        """ln(K/F) today."""
        return jnp.asarray(np.log(self.instruments.strike / self.forward))

    @property
    def time_today(self) -> Float[Array, " option"]:
        """Years to expiry today."""
        return jnp.asarray((self.instruments.expiry - self.market.as_of) / SECONDS_PER_YEAR)

    @property
    def time_then(self) -> Float[Array, " option"]:
        """Years to expiry at the horizon, 0 if settled before."""
        return jnp.asarray(np.maximum(self.instruments.expiry - self.end, 0.0) / SECONDS_PER_YEAR)

    def moment(self, scale: np.ndarray) -> tuple[Moment, Moment]:
        """Today and the horizon, of options that are worth `scale` in base currency per unit of their payoff."""
        none = jnp.zeros(len(scale))
        return (
            Moment(jnp.asarray(scale), self.time_today, none),
            Moment(jnp.asarray(scale), self.time_then, jnp.asarray(self.log_discount_then)),
        )


class Moment(NamedTuple):
    """Today or the horizon, as the options of a block see it."""

    scale: Float[Array, " option"]
    """Base currency per unit of payoff today."""
    time: Float[Array, " option"]
    """Years to expiry, 0 when settled."""
    log_discount: Float[Array, " option"]
    """ln of the discount factor to expiry over today's."""

    def money(self, price: Float[Array, "option scenario"], base: Array, bump: Bump) -> Array:
        """A price in units of payoff, not discounted, in base currency; `base` the settlement price over today's."""
        growth = jnp.exp(self.log_discount - bump.rate * self.time + bump.log_settlement)
        return (self.scale * growth)[:, None] * (base * price)


class PayoffBlock(Block):
    """Options whose value today and at the horizon are one formula's. Abstract; each payoff's is final."""

    @abstractmethod
    def values(self, world: World, bump: Bump, wide: Bump) -> tuple[Array, Array]:
        """Value at the horizon [option, scenario], and today [option, 1] in float64 from `wide`, the same bump."""

    def pnl(self, world: World, bump: Bump) -> Float[Array, "instrument scenario"]:
        """See the base."""
        # Today's value is cheap, one column: float64 keeps its rounding out of every scenario.
        then, today = self.values(world, bump, cast(bump, jnp.dtype(jnp.float64)))
        return then - today.astype(then.dtype)


class DigitalBlock(PayoffBlock):
    """Digital options, paid in cash or in the asset."""

    smile: Smile | FittedSmile
    slope: Smile | None
    """∂σ/∂k at the strikes, tabulated like the vols, so that it is continuous in the move; None: the fitted smile's."""
    today: Moment
    then: Moment
    log_moneyness: Float[Array, " option"]
    sign: Float[Array, " option"]
    asset: Float[Array, " option"]
    """1 pays the asset, 0 cash."""
    power: Float[Array, " option"]
    """Of the forward in the value in settlement currency: 1 asset, 0 cash; inverse, 0 asset, −1 cash."""
    vol_today: Float[Array, "smile option"]
    """Volatility, its slope by the log forward, ∂σ/∂k, and its slope by the log forward."""
    base_row: Int[Array, " option"]

    def values(self, world: World, bump: Bump, wide: Bump) -> tuple[Array, Array]:
        """See the base."""
        base, move = world.base[self.base_row], world.log_forward[self.smile.slice_row]
        vol, unbumped = self.smile.vol(world, bump), bump._replace(vol=jnp.zeros_like(bump.vol))
        if isinstance(self.smile, FittedSmile):
            slope = self.smile.slope(world, unbumped)
        else:
            assert self.slope is not None, "a tabulated smile has a table of slopes"
            slope = self.slope.vol(world, unbumped)
        then = self._value(cast(self.then, move.dtype), move, vol, slope, base, bump)
        vol, by_log, slope, slope_by_log = self.vol_today[:, :, None]
        vol, slope = vol + by_log * wide.log_spot + wide.vol, slope + slope_by_log * wide.log_spot
        still = jnp.zeros_like(vol)
        return then, self._value(self.today, still, vol, slope, still + 1, wide)

    def _value(self, moment: Moment, move: Array, vol: Array, slope: Array, base: Array, bump: Bump) -> Array:
        k, sign, asset, power = (
            x.astype(move.dtype)[:, None] for x in (self.log_moneyness, self.sign, self.asset, self.power)
        )
        move, root = move + bump.log_spot, jnp.sqrt(moment.time)[:, None]
        price = normalised_digital(k - move, vol * root, slope * root, sign, asset)
        return moment.money(price * jnp.exp(power * move), base, bump)


def digital_block(listed: Listed) -> DigitalBlock:
    """Of digital options."""
    table, linear = listed.instruments, listed.linear
    asset = (table.payoff == Payoff.ASSET_OR_NOTHING).astype(float)
    power = asset + linear - 1
    units = table.amount * listed.settlement_price * listed.discount
    today, then = listed.moment(units * listed.forward**power)
    slope, bend, at_node = _slopes(listed)
    smile, table_of_slopes = listed.smile, None
    if isinstance(smile, Smile):
        shape = smile.vol_at_node.shape
        # A flat smile, which has one node, has no slope.
        nodes = at_node if shape[-1] > 1 else np.zeros(shape)
        table_of_slopes = replace(smile, vol_at_node=jnp.asarray(nodes))
    return DigitalBlock(
        smile=smile,
        slope=table_of_slopes,
        today=today,
        then=then,
        log_moneyness=listed.log_moneyness,
        sign=listed.sign,
        asset=jnp.asarray(asset),
        power=jnp.asarray(power),
        vol_today=jnp.asarray(np.stack([listed.vol_today, listed.vol_slope, slope, bend])),
        base_row=listed.base_row,
    )


def _slopes(listed: Listed) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """∂σ/∂k today, its derivative by the log forward, and ∂σ/∂k after each of the moves `NODES`."""
    table = listed.instruments
    at_node = np.zeros((len(table), len(NODES)))
    slope, bend = np.zeros(len(table)), np.zeros(len(table))
    k = np.log(table.strike / listed.forward)
    pairs = list(zip(table.underlying.tolist(), table.expiry.tolist(), strict=True))
    for underlying, expiry in dict.fromkeys(pairs):
        own = np.array([i for i, pair in enumerate(pairs) if pair == (underlying, expiry)])
        surface = listed.market.vols[underlying]
        slope[own] = smile_slope(surface, k[own], expiry)
        if surface.stickiness is Stickiness.STRIKE:
            at_node[own] = slope[own, None]
            continue
        at_node[own] = smile_slope(surface, k[own, None] - NODES + listed.carry[own, None], expiry)
        bend[own] = (smile_slope(surface, k[own] - WIDTH, expiry) - smile_slope(surface, k[own] + WIDTH, expiry)) / (
            2 * WIDTH
        )
    return slope, bend, at_node


class QuantoBlock(PayoffBlock):
    """European options paid at a fixed rate of exchange."""

    smile: Smile | FittedSmile
    today: Moment
    then: Moment
    log_moneyness: Float[Array, " option"]
    sign: Float[Array, " option"]
    covariance: Float[Array, " option"]
    """See `quanto_drift`."""
    vol_today: Float[Array, " option"]
    vol_slope: Float[Array, " option"]
    base_row: Int[Array, " option"]

    def values(self, world: World, bump: Bump, wide: Bump) -> tuple[Array, Array]:
        """See the base."""
        base, move = world.base[self.base_row], world.log_forward[self.smile.slice_row]
        then = self._value(cast(self.then, move.dtype), move, self.smile.vol(world, bump), base, bump)
        vol = (self.vol_today + self.vol_slope * wide.log_spot + wide.vol)[:, None]
        still = jnp.zeros_like(vol)
        return then, self._value(self.today, still, vol, still + 1, wide)

    def _value(self, moment: Moment, move: Array, vol: Array, base: Array, bump: Bump) -> Array:
        k, sign, covariance = (x.astype(move.dtype)[:, None] for x in (self.log_moneyness, self.sign, self.covariance))
        time = moment.time[:, None]
        move = move + bump.log_spot + quanto_drift(vol, time, covariance)
        return moment.money(moved_black(k, move, vol * jnp.sqrt(time), sign), base, bump)


def quanto_block(listed: Listed) -> QuantoBlock:
    """Of quanto options."""
    table, known = listed.instruments, listed.market.quanto
    pairs = zip(table.underlying.tolist(), table.settlement_currency.tolist(), strict=True)
    today, then = listed.moment(table.amount * listed.settlement_price * listed.discount * listed.forward)
    return QuantoBlock(
        smile=listed.smile,
        today=today,
        then=then,
        log_moneyness=listed.log_moneyness,
        sign=listed.sign,
        covariance=jnp.asarray(np.array([known[pair].correlation * known[pair].fx_vol for pair in pairs])),
        vol_today=jnp.asarray(listed.vol_today),
        vol_slope=jnp.asarray(listed.vol_slope),
        base_row=listed.base_row,
    )
