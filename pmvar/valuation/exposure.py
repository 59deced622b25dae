"""Derivatives of P&L by the state of the world itself, where `block_sensitivity` is by today's market."""

from __future__ import annotations

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pmvar.valuation.blocks import Block, no_bump
from pmvar.valuation.reprice import ProfitAndLoss
from pmvar.valuation.world import World


class Exposure(NamedTuple):
    """Each [instrument, scenario], base currency per unit."""

    log_forward: Float[Array, "*rows scenario"]
    """Of the log price of the instrument's underlying, its forward and smile moving with it."""
    log_vol: Float[Array, "*rows scenario"]
    """Of the log vol before its cap."""
    log_base: Float[Array, "*rows scenario"]
    """Of the log base price of the settlement currency."""


@eqx.filter_jit
def block_exposure(block: Block, world: World, vol_cap: float) -> Exposure:
    """Derivatives of the P&L of a block by the logarithms of the world's prices and vols."""
    dtype = world.log_base.dtype
    # y = B·tanh(x/B) has the slope 1 − (y/B)².
    slope = 1 - (jnp.log(world.vol_multiplier) / vol_cap) ** 2

    def moved(forward: Array, vol: Array, base: Array) -> Array:
        state = World(world.log_forward + forward, world.vol_multiplier * (1 + vol * slope), world.log_base + base)
        return block.pnl(state, no_bump(dtype))

    zero, one = jnp.zeros((), dtype), jnp.ones((), dtype)

    def along(i: int) -> Array:
        return jax.jvp(lambda x: moved(*(x if i == j else zero for j in range(3))), (zero,), (one,))[1]

    return Exposure(*(along(i) for i in range(3)))


def exposure(pnl: ProfitAndLoss, index: int) -> Exposure:
    """The exposures of all instruments in tile `index`."""
    world, vol_cap = pnl.plan.layout.world(index), pnl.scenarios.vol_cap
    found = [block_exposure(block, world, vol_cap) for _, block in pnl.plan.blocks]
    return Exposure(*(pnl.stacked(parts) for parts in zip(*found, strict=True)))
