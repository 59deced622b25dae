"""Derivatives of P&L tile by tile: by today's market, and by the state of the world itself."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pmvar.kernels.european import Bump
from pmvar.valuation.blocks import Block
from pmvar.valuation.reprice import ProfitAndLoss
from pmvar.valuation.store import in_strips
from pmvar.valuation.world import World


class Exposure(NamedTuple):
    """Base currency per unit; each [instrument, scenario]."""

    log_spot: Float[Array, "*shape"]
    """Of today's log price of the underlying, and with it the scenario's; likewise the next three, see `Bump`."""
    vol: Float[Array, "*shape"]
    rate: Float[Array, "*shape"]
    log_settlement: Float[Array, "*shape"]
    log_forward: Float[Array, "*shape"]
    """Of the scenario's log price of the underlying alone, its forward and smile moving with it."""
    log_vol: Float[Array, "*shape"]
    """Of the scenario's shock of ln σ, before its cap."""
    log_base: Float[Array, "*shape"]
    """Of the scenario's log base price of the settlement currency."""


@eqx.filter_jit
def block_exposure(block: Block, world: World, vol_cap: float) -> Exposure:
    """Derivatives of the P&L of a block; each [instrument, scenario]."""
    dtype = world.log_base.dtype
    zero, one = jnp.zeros((), dtype), jnp.ones((), dtype)
    # y = B·tanh(x/B) has the slope 1 − (y/B)².
    slope = 1 - (jnp.log(world.vol_multiplier) / vol_cap) ** 2

    def pnl(moved: Exposure) -> Array:
        state = world._replace(
            log_forward=world.log_forward + moved.log_forward,
            vol_multiplier=world.vol_multiplier * (1 + moved.log_vol * slope),
            log_base=world.log_base + moved.log_base,
        )
        return block.pnl(state, Bump(moved.log_spot, moved.vol, moved.rate, moved.log_settlement))

    still = Exposure(*(zero for _ in Exposure._fields))

    def along(name: str) -> Array:
        # One direction at a time: what a direction does not touch is not differentiated.
        return jax.jvp(lambda x: pnl(still._replace(**{name: x})), (zero,), (one,))[1]

    return Exposure(*(along(name) for name in Exposure._fields))


def exposure(pnl: ProfitAndLoss, index: int) -> Float[Array, "strip field_row path"]:
    """The exposures of all instruments in tile `index`, in strips: one field after the other, see `first_row`."""
    world, vol_cap = pnl.plan.layout.world(index), pnl.scenarios.vol_cap
    found = [block_exposure(block.tangent(world), world, vol_cap) for _, block in pnl.plan.blocks]
    return in_strips(jnp.concatenate([pnl.stacked(parts) for parts in zip(*found, strict=True)]))


def first_row(pnl: ProfitAndLoss, field: str) -> int:
    """Where the rows of a field of `Exposure` begin."""
    return Exposure._fields.index(field) * pnl.n_rows
