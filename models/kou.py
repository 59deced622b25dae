"""Kou's jump: double exponential in x, with tails of their own up and down."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float

from pmvar.models.jumps import JumpSize, own_sizes, refused, required
from pmvar.models.specification import ModelSpecification

KEYS = ("up_probability", "up_rate", "down_rate")


class DoubleExponentialJump(JumpSize):
    """Up with probability p, exponential of rate η₁; down else, of rate η₂.

    Kou (2002), "A jump-diffusion model for option pricing", Management Science 48.
    """

    p: Float[Array, "*factor"]
    up: Float[Array, "*factor"]
    """η₁."""
    down: Float[Array, "*factor"]
    """η₂."""

    def dimension(self, most: int) -> int:
        """One for each jump that can be."""
        return most

    def total(self, count: Float[Array, ""], normal: Float[Array, " dimension"]) -> Float[Array, ""]:
        """See the base."""
        below, above = log_ndtr(normal), log_ndtr(-normal)
        # The quantile of one uniform decides direction and size: both logarithms are ≤ 0 on their own side.
        log_p, log_q = _log(self.p), _log(1 - self.p)
        jump = jnp.where(above < log_p, (log_p - above) / self.up, jnp.minimum(below - log_q, 0.0) / self.down)
        return jnp.sum(jnp.where(jnp.arange(float(normal.shape[0])) < count, jump, 0.0))

    def mean(self) -> Float[Array, "*factor"]:
        """p/η₁ − (1 − p)/η₂."""
        return self.p / self.up - (1 - self.p) / self.down

    def second_moment(self) -> Float[Array, "*factor"]:
        """2p/η₁² + 2(1 − p)/η₂²."""
        return 2 * self.p / self.up**2 + 2 * (1 - self.p) / self.down**2

    def normal(self) -> None:
        """It is not."""
        return


def _log(x: Float[Array, ""]) -> Float[Array, ""]:
    """ln x, and −1000 with derivative 0 at 0: a side that never happens must make NaN neither here nor backwards."""
    return jnp.where(x > 0, jnp.log(jnp.where(x > 0, x, 1.0)), -1000.0)


def double_exponential_jump(specification: ModelSpecification) -> DoubleExponentialJump:
    """From `parameters.jumps`: up_probability p, up_rate η₁ and down_rate η₂ (a mean jump is 1/rate)."""
    return _sound("", *map(np.asarray, required(specification, KEYS)))


def own_double_exponential_jumps(specification: ModelSpecification) -> DoubleExponentialJump:
    """The same of `parameters.jumps.own`, by factor."""
    return _sound("own.", *own_sizes(specification, KEYS, blank=1.0))


def _sound(column: str, p: np.ndarray, up: np.ndarray, down: np.ndarray) -> DoubleExponentialJump:
    if not np.all((p >= 0) & (p <= 1)):
        raise refused("must be a probability", "correct it", f"{column}up_probability", p)
    for key, rate in (("up_rate", up), ("down_rate", down)):
        if not np.all(rate > 0):
            raise refused("must be positive: a mean jump is 1/rate", "correct it", column + key, rate)
    return DoubleExponentialJump(jnp.asarray(p), jnp.asarray(up), jnp.asarray(down))
