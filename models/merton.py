"""Merton's jump: normal in x."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmvar.models.jumps import JumpSize, own_sizes, refused, required
from pmvar.models.specification import ModelSpecification


class NormalJump(JumpSize):
    """J ~ N(m, δ²); Merton (1976), "Option pricing when underlying stock returns are discontinuous"."""

    m: Float[Array, "*factor"]
    delta: Float[Array, "*factor"]

    def dimension(self, most: int) -> int:
        """One: the sum of normals is normal."""
        return 1

    def total(self, count: Float[Array, ""], normal: Float[Array, " dimension"]) -> Float[Array, ""]:
        """See the base."""
        return count * self.m + jnp.sqrt(count) * self.delta * normal[0]

    def mean(self) -> Float[Array, "*factor"]:
        """m."""
        return self.m

    def second_moment(self) -> Float[Array, "*factor"]:
        """m² + δ²."""
        return self.m**2 + self.delta**2

    def normal(self) -> tuple[Float[np.ndarray, "*factor"], Float[np.ndarray, "*factor"]]:
        """See the base."""
        return np.asarray(self.m), np.asarray(self.delta)


def normal_jump(specification: ModelSpecification) -> NormalJump:
    """From `parameters.jumps`: mean m and deviation δ of x."""
    m, delta = required(specification, ("mean", "deviation"))
    if delta < 0:
        raise refused("must be ≥ 0", "correct the sign", "deviation", delta)
    return NormalJump(jnp.asarray(m), jnp.asarray(delta))


def own_normal_jumps(specification: ModelSpecification) -> NormalJump:
    """The same of `parameters.jumps.own`, by factor."""
    m, delta = own_sizes(specification, ("mean", "deviation"), blank=0.0)
    if min(delta) < 0:
        raise refused("deviations must be ≥ 0", "correct the sign", "own", delta)
    return NormalJump(jnp.asarray(m), jnp.asarray(delta))
