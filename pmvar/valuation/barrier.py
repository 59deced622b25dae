"""Blocks of barrier options."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pmvar.kernels.barrier import BarrierTerms, barrier_price, hit_probability
from pmvar.kernels.european import Bump
from pmvar.types import SECONDS_PER_YEAR
from pmvar.valuation.blocks import Smile, cast
from pmvar.valuation.fitted_smile import FittedSmile
from pmvar.valuation.payoffs import Listed, Moment, PayoffBlock
from pmvar.valuation.today import terms_today
from pmvar.valuation.world import World


class BarrierState(NamedTuple):
    """Today or the horizon, as barriers see it."""

    carry: Float[Array, " option"]
    """ln(F/S)."""
    rate: Float[Array, " option"]
    """−ln of the discount factor to expiry."""
    passed: Float[Array, " option"]
    """Years since today."""


class BarrierBlock(PayoffBlock):
    """Barrier options, monitored continuously, between today and the horizon too."""

    smile: Smile | FittedSmile
    today: Moment
    then: Moment
    state_today: BarrierState
    state_then: BarrierState
    terms: BarrierTerms
    log_moneyness: Float[Array, " option"]
    log_barrier: Float[Array, " option"]
    """ln(H/F) today."""
    rebate: Float[Array, " option"]
    """Over today's forward."""
    linear: Float[Array, " option"]
    vol_today: Float[Array, " option"]
    vol_slope: Float[Array, " option"]
    base_row: Int[Array, " option"]

    def values(self, world: World, bump: Bump, wide: Bump) -> tuple[Array, Array]:
        """See the base."""
        base, move = world.base[self.base_row], world.log_forward[self.smile.slice_row]
        before = (self.vol_today + self.vol_slope * wide.log_spot + wide.vol)[:, None]
        still = jnp.zeros_like(before)
        moments = cast((self.then, self.state_then), move.dtype)
        vol = self.smile.vol(world, bump)
        then = self._value(*moments, move, vol, before.astype(move.dtype), base, bump)
        return then, self._value(self.today, self.state_today, still, before, before, still + 1, wide)

    def _value(
        self, moment: Moment, state: BarrierState, move: Array, vol: Array, before: Array, base: Array, bump: Bump
    ) -> Array:
        dtype = move.dtype
        k, barrier, rebate, linear = (
            x.astype(dtype)[:, None] for x in (self.log_moneyness, self.log_barrier, self.rebate, self.linear)
        )
        terms = BarrierTerms(*(x.astype(dtype)[:, None] for x in self.terms))
        carry, rate, passed = (x[:, None] for x in state)
        move, rate = move + bump.log_spot, rate + linear * bump.rate * moment.time[:, None]
        h = barrier - move + carry
        start = barrier + self.state_today.carry.astype(dtype)[:, None] - bump.log_spot
        hit = hit_probability(terms.up * start, terms.up * h, before**2 * passed)
        deviation, ratio = vol * jnp.sqrt(moment.time)[:, None], jnp.exp(move)
        price = barrier_price(terms, k - move, h, carry, deviation, rate, rebate / ratio, hit)
        return moment.money(price * jnp.where(linear > 0, ratio, 1.0), base, bump)


def barrier_block(listed: Listed) -> BarrierBlock:
    """Of barrier options."""
    table, linear = listed.instruments, listed.linear
    terms = terms_today(table, listed.market)
    carry = np.log(listed.forward / np.asarray(terms.spot))
    rate, as_of = -np.log(listed.discount), listed.market.as_of
    passed = np.maximum(np.minimum(listed.end, table.expiry) - as_of, 0.0) / SECONDS_PER_YEAR
    today, then = listed.moment(
        table.amount * listed.settlement_price * np.where(linear > 0, listed.discount * listed.forward, 1.0)
    )

    def state(carry: np.ndarray, rate: np.ndarray, passed: np.ndarray) -> BarrierState:
        return BarrierState(jnp.asarray(carry), jnp.asarray(rate), jnp.asarray(passed))

    return BarrierBlock(
        smile=listed.smile,
        today=today,
        then=then,
        state_today=state(carry, rate, np.zeros_like(passed)),
        state_then=state(carry - listed.carry, rate - listed.log_discount_then, passed),
        terms=BarrierTerms(terms.sign, terms.up, terms.knock_in),
        log_moneyness=listed.log_moneyness,
        log_barrier=jnp.asarray(np.log(table.barrier / listed.forward)),
        rebate=jnp.asarray(np.asarray(terms.rebate) / listed.forward),
        linear=jnp.asarray(linear),
        vol_today=jnp.asarray(listed.vol_today),
        vol_slope=jnp.asarray(listed.vol_slope),
        base_row=listed.base_row,
    )
