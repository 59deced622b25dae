"""Bonds under scenarios: fixed cash flows, discounted at zero rates that move pillar by pillar and at a spread."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


class BondFlows(NamedTuple):
    """Cash flows of bonds, one column each; padding pays nothing."""

    value: Float[Array, "flow bond"]
    """At the horizon, base currency, if rates and spreads stand still."""
    time: Float[Array, "flow bond"]
    """Years from the horizon; 0 for what is paid before."""
    low: Int[Array, "flow bond"]
    """Row of the rate factor before the flow; of the first where there is none before."""
    high: Int[Array, "flow bond"]
    """Row of the one after; of the last where there is none after."""
    weight: Float[Array, "flow bond"]
    """Of `high`, the rest being that of `low`."""
    spread: Int[Array, " bond"]
    """Row of the spread factor."""
    n: Int[Array, ""]
    """Flows of the bond that has most."""


def bond_gain(flows: BondFlows, curve: Float[Array, "row scenario"]) -> Float[Array, "bond scenario"]:
    """What moves of rates and spreads add to the values at the horizon, Σ v·(e^(−(Δz + Δs)·τ) − 1), base currency.

    `curve` holds absolute moves of zero rates and spreads, per year; Δz is linear in time between two pillars.
    """

    def add(j: Int[Array, ""], total: Float[Array, "bond scenario"]) -> Float[Array, "bond scenario"]:
        low, high, spread = curve[flows.low[j]], curve[flows.high[j]], curve[flows.spread]
        move = low + flows.weight[j][:, None] * (high - low) + spread
        # Not a difference of values: in float32 that would round at the size of the face.
        return total + flows.value[j][:, None] * jnp.expm1(-flows.time[j][:, None] * move)

    start = jnp.zeros((flows.value.shape[1], curve.shape[1]), curve.dtype)
    return jax.lax.fori_loop(jnp.zeros((), flows.n.dtype), flows.n, add, start)
