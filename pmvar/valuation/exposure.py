"""Derivatives of P&L tile by tile: by today's market, and by the state of the world itself."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pmvar.kernels.european import Bump
from pmvar.types import FactorKind
from pmvar.valuation.blocks import Block
from pmvar.valuation.reprice import ProfitAndLoss
from pmvar.valuation.store import in_strips
from pmvar.valuation.world import Layout, World


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
    further: tuple[Float[Array, "*shape"], ...] = ()
    """Of the scenario's move of each of `further_fields`."""


def further_fields(layout: Layout) -> tuple[str, ...]:
    """Rows of `World.curve`, and where the model moves bases, all of these together."""
    return (*layout.curve, *((FactorKind.BASIS,) if layout.has_basis else ()))


@partial(jax.jit, static_argnames="vol_cap")
def block_exposure(block: Block, world: World, vol_cap: float, dated: Float[Array, " slice"] | None = None) -> Exposure:
    """Derivatives of the P&L of a block; each [instrument, scenario]. `dated` is 1 for slices that a basis moves."""
    dtype = world.log_base.dtype
    zero, one = jnp.zeros((), dtype), jnp.ones((), dtype)
    # y = B·tanh(x/B) has the slope 1 − (y/B)².
    slope = 1 - (jnp.log(world.vol_multiplier) / vol_cap) ** 2
    names = Exposure._fields[:-1]
    still = Exposure(zero, zero, zero, zero, zero, zero, zero)

    def pnl(moved: Exposure, basis: Array = zero, curve: Array = world.curve) -> Array:
        forward = world.log_forward + moved.log_forward
        state = world._replace(
            log_forward=forward if dated is None else forward + basis * dated.astype(dtype)[:, None],
            vol_multiplier=world.vol_multiplier * (1 + moved.log_vol * slope),
            log_base=world.log_base + moved.log_base,
            base=world.base * jnp.exp(moved.log_base),
            curve=curve,
        )
        return block.pnl(state, Bump(moved.log_spot, moved.vol, moved.rate, moved.log_settlement))

    def along(name: str) -> Array:
        # One direction at a time: what a direction does not touch is not differentiated.
        return jax.jvp(lambda x: pnl(still._replace(**{name: x})), (zero,), (one,))[1]

    def along_curve(row: Array) -> Array:
        return jax.jvp(lambda x: pnl(still, curve=world.curve.at[row].add(x)), (zero,), (one,))[1]

    found = [along(name) for name in names]
    if block.on_curve:
        further = tuple(jax.lax.map(along_curve, jnp.arange(len(world.curve))))
    else:
        further = (jnp.zeros_like(found[0]),) * len(world.curve)
    if dated is not None:
        further += (jax.jvp(lambda x: pnl(still, basis=x), (zero,), (one,))[1],)
    return Exposure(*found, further=further)


def exposure(pnl: ProfitAndLoss, index: int) -> Float[Array, "strip field_row path"]:
    """The exposures of all instruments in tile `index`, in strips: one field after the other, see `first_row`."""
    layout, vol_cap = pnl.plan.layout, pnl.scenarios.vol_cap
    world = layout.world(index)
    dated = jnp.asarray(layout.with_basis) if layout.has_basis else None
    found = [block_exposure(block.tangent(world), world, vol_cap, dated) for _, block in pnl.plan.blocks]
    flat = [(*each[:-1], *each.further) for each in found]
    return in_strips(jnp.concatenate([pnl.stacked(parts) for parts in zip(*flat, strict=True)]))


def first_row(pnl: ProfitAndLoss, field: str) -> int:
    """Where the rows of a field of `Exposure`, or of its `further_fields`, begin."""
    fields = (*Exposure._fields[:-1], *further_fields(pnl.plan.layout))
    return fields.index(field) * pnl.n_rows
