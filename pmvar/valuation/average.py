"""Blocks of options on averages."""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pmvar.kernels.average import average_price, earlier_share, exponential_mean, window_variance
from pmvar.kernels.european import Bump
from pmvar.types import SECONDS_PER_YEAR
from pmvar.valuation.blocks import Smile, cast
from pmvar.valuation.fitted_smile import FittedSmile
from pmvar.valuation.payoffs import Listed, Moment, PayoffBlock
from pmvar.valuation.today import terms_today
from pmvar.valuation.world import World


class AverageState(NamedTuple):
    """An average at one moment, in units of today's forward."""

    ahead: Float[Array, " option"]
    """What the rest of the window adds, on average, if nothing moves."""
    passed: Float[Array, " option"]
    """What the time between today and then adds, if nothing moves."""
    path_start: Float[Array, " option"]
    """Fraction of the time between today and then at which the window begins."""
    before: Float[Array, " option"]
    """Years to the window."""
    left: Float[Array, " option"]
    """Years of it that are left."""
    share: Float[Array, "node option"]
    """See `earlier_share`."""


class AverageBlock(PayoffBlock):
    """Options on an arithmetic average."""

    smile: Smile | FittedSmile
    today: Moment
    then: Moment
    average_today: AverageState
    average_then: AverageState
    strike: Float[Array, " option"]
    """Less what is known of the average today; in units of today's forward, like all that follows."""
    known: Float[Array, " option"]
    sign: Float[Array, " option"]
    linear: Float[Array, " option"]
    carry: Float[Array, " option"]
    vol_today: Float[Array, " option"]
    vol_slope: Float[Array, " option"]
    base_row: Int[Array, " option"]

    def values(self, world: World, bump: Bump, wide: Bump) -> tuple[Array, Array]:
        """See the base."""
        base, move = world.base[self.base_row], world.log_forward[self.smile.slice_row]
        moments = cast((self.then, self.average_then), move.dtype)
        then = self._value(*moments, move, self.smile.vol(world, bump), base, bump)
        vol = (self.vol_today + self.vol_slope * wide.log_spot + wide.vol)[:, None]
        still = jnp.zeros_like(vol)
        return then, self._value(self.today, self.average_today, still, vol, still + 1, wide)

    def _value(
        self, moment: Moment, state: AverageState, move: Array, vol: Array, base: Array, bump: Bump
    ) -> Array:
        strike, known, sign, linear, carry = (
            x.astype(move.dtype)[:, None] for x in (self.strike, self.known, self.sign, self.linear, self.carry)
        )
        ahead, passed, start, before, left = (x[:, None] for x in state[:-1])
        # Between today and then the price runs straight, in its logarithm.
        walk = move + carry
        mean = jnp.exp(start * walk) * exponential_mean((1 - start) * walk)
        spot = jnp.exp(bump.log_spot)
        realised, ahead = passed * spot * mean, ahead * spot * jnp.exp(move)
        variance = vol**2 * before + window_variance(vol**2 * left, state.share[:, :, None])
        price = average_price(ahead, strike - realised, variance, sign)
        price = price * jnp.where(linear > 0, 1.0, 1 / (known + realised + ahead))
        return moment.money(price, base, bump)


def average_block(listed: Listed) -> AverageBlock:
    """Of options on an arithmetic average; each settles on it."""
    table, linear = listed.instruments, listed.linear
    terms = terms_today(table, listed.market)
    start, expiry, as_of = table.averaging_start, table.expiry, listed.market.as_of
    spot = np.asarray(terms.spot) / listed.forward

    def state(now: np.ndarray) -> AverageState:
        window, begun = expiry - start, np.maximum(start, as_of)
        left, passed = expiry - np.maximum(start, now), np.maximum(now - begun, 0.0)
        path = np.where(now > as_of, (begun - as_of) / np.maximum(now - as_of, 1.0), 0.0)
        growth = jnp.asarray(np.asarray(terms.growth) * left / SECONDS_PER_YEAR)
        return AverageState(
            ahead=jnp.asarray(left / window) * exponential_mean(-growth),
            passed=jnp.asarray(passed / window * spot),
            path_start=jnp.asarray(np.minimum(path, 1.0)),
            before=jnp.asarray(np.maximum(start - now, 0.0) / SECONDS_PER_YEAR),
            left=jnp.asarray(left / SECONDS_PER_YEAR),
            share=earlier_share(growth),
        )

    today, then = listed.moment(
        table.amount * listed.settlement_price * np.where(linear > 0, listed.discount * listed.forward, 1.0)
    )
    known = np.asarray(terms.known) / listed.forward
    return AverageBlock(
        smile=listed.smile,
        today=today,
        then=then,
        average_today=state(np.full(len(table), as_of)),
        average_then=state(np.minimum(listed.end, expiry)),
        strike=jnp.asarray(table.strike / listed.forward - known),
        known=jnp.asarray(known),
        sign=listed.sign,
        linear=jnp.asarray(linear),
        carry=jnp.asarray(listed.carry),
        vol_today=jnp.asarray(listed.vol_today),
        vol_slope=jnp.asarray(listed.vol_slope),
        base_row=listed.base_row,
    )
