"""Paths: the tiles of a simulation, each a pure function of its key, and the derivatives of what they feed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from pmvar.kernels.random import Stream, run_key, stream, uniforms
from pmvar.models.base import RiskFactorModel
from pmvar.models.bridge import bridge
from pmvar.models.price_map import NormalMixture, log_price_ratio, mean_shift
from pmvar.models.sampling import SamplingParameters
from pmvar.scenarios.clock import elapsed_steps
from pmvar.scenarios.draws import draws
from pmvar.types import DAY, PATH_TILE, PriceMap, Sampling

REFERENCE_SEED = 0x9E3779B9
REFERENCE_TILES = 16
"""The drift of a model whose law has no closed form comes from this many tiles of Sobol' points of their own, so that
no path of a run depends on how many others there are."""


class Moment(NamedTuple):
    """A time inside the horizon, by the model's clock."""

    step: Int[Array, ""]
    fraction: Float[Array, ""]
    """Of that step, in (0, 1]."""
    seconds: UInt32[Array, ""]
    """Since the step began: names the moment to the bridge."""


class Draw(NamedTuple):
    """How paths are drawn; leaves that are not arrays are static."""

    n_steps: int
    sampling: Sampling
    parameters: SamplingParameters
    key: Key[Array, ""]
    steps: Float[Array, ""]


@dataclass(frozen=True)
class Paths:
    """All paths of a simulation over a horizon of `steps` model steps."""

    law: RiskFactorModel
    price_map: PriceMap
    is_price: Bool[np.ndarray, " factor"]
    growth: Callable[[float], Float[np.ndarray, " price"]] | None
    """Forward over spot of each price factor at an epoch second; None: x is taken as it is."""
    as_of: float
    end: float
    """Epoch seconds of the horizon."""
    steps: float
    steps_per_year: int
    draw: Draw

    def tile(self, index: int, time: float) -> tuple[Float[Array, "scenario factor"], Float[Array, " scenario"]]:
        """Log changes from `as_of` to `time` (epoch seconds, at most the horizon) of tile `index`, and the weights."""
        return _tile(
            self.law, self.draw, self.price_map, jnp.asarray(self.is_price), jnp.uint32(index * PATH_TILE),
            jnp.asarray(self.shift(time)), self.moment(time),
        )  # fmt: skip

    def moment(self, time: float) -> Moment | None:
        """Where a time stands among the model's steps; None at the horizon."""
        if time >= self.end:
            return None
        n_steps = self.draw.n_steps
        elapsed = elapsed_steps(self.as_of, time, self.steps_per_year) * n_steps / self.steps
        step = max(int(np.ceil(elapsed)) - 1, 0)
        # Named by the model's clock: two expiries of one weekend are one moment to a session clock.
        seconds = round((elapsed - step) * self.steps / n_steps * DAY)
        return Moment(jnp.asarray(step), jnp.float64(elapsed - step), jnp.uint32(seconds))

    def shift(self, time: float) -> Float[np.ndarray, " factor"]:
        """The drift c of each factor at `time`: E[g(x + c)] is the growth to the forward."""
        if time not in self._shifts:
            self._shifts[time] = self._solve(time)
        return self._shifts[time]

    @cached_property
    def _shifts(self) -> dict[float, np.ndarray]:
        return {}

    def _solve(self, time: float) -> np.ndarray:
        out = np.zeros(len(self.is_price))
        if self.growth is not None:
            elapsed = self.steps if time >= self.end else elapsed_steps(self.as_of, time, self.steps_per_year)
            marginal = self.law.marginal(elapsed) or self._reference(time)
            prices = NormalMixture(*(part[self.is_price] for part in marginal))
            out[self.is_price] = mean_shift(self.price_map, prices, self.growth(time))
        return out

    @property
    def reference_draw(self) -> Draw:
        """A fixed Sobol' sample of the law, the same in every run."""
        return self.draw._replace(sampling=Sampling.SOBOL, parameters=SamplingParameters(), key=run_key(REFERENCE_SEED))

    def _reference(self, time: float) -> NormalMixture:
        """The marginal law as a fixed sample."""
        starts = range(0, REFERENCE_TILES * PATH_TILE, PATH_TILE)
        parts = [_x(self.law, self.reference_draw, jnp.uint32(i), self.moment(time))[0] for i in starts]
        x = np.concatenate(parts).T
        return NormalMixture(x, np.zeros_like(x), np.full_like(x, 1 / x.shape[1]))

    def counts(self, normals: Float[Array, "scenario step dimension"]) -> Float[Array, "scenario source"]:
        """Jumps of each Poisson source on paths made of `normals`."""
        return _counts(self.law, normals, self.draw.steps)

    def normals(self, index: int) -> Float[Array, "scenario step dimension"]:
        """What the paths of a tile are made of."""
        return _normals(self.law, self.draw, jnp.uint32(index * PATH_TILE))


def mapped(
    price_map: PriceMap, is_price: Bool[Array, " factor"], x: Float[Array, " factor"], shift: Float[Array, " factor"]
) -> Float[Array, " factor"]:
    """Log changes of the factors from their x and the drift of the prices among them."""
    return jnp.where(is_price, log_price_ratio(price_map, x + shift), x)


def one_x(
    law: RiskFactorModel,
    draw: Draw,
    normal: Float[Array, "step dimension"],
    path_id: UInt32[Array, ""],
    moment: Moment | None,
) -> Float[Array, " factor"]:
    """x of one path, at the horizon or at a moment inside it."""
    path = law.path(normal, draw.steps)
    move = path.diffusion + path.jump
    if moment is None:
        return move.sum(axis=0)
    place = path_id, moment.step.astype(jnp.uint32)
    before = jnp.sum(jnp.where(jnp.arange(draw.n_steps)[:, None] < moment.step, move, 0.0), axis=0)
    inside = bridge(
        stream(draw.key, Stream.BRIDGE, *place), path.diffusion[moment.step], path.deviation[moment.step],
        law.bridge_loading(), moment.fraction, moment.seconds,
    )  # fmt: skip
    jumped = uniforms(stream(draw.key, Stream.JUMP, *place), 1)[0] <= moment.fraction
    return before + inside + jnp.where(jumped, path.jump[moment.step], 0.0)


@eqx.filter_jit
def _x(
    law: RiskFactorModel, draw: Draw, start: UInt32[Array, ""], moment: Moment | None
) -> tuple[Float[Array, "scenario factor"], Float[Array, " scenario"]]:
    """x of one tile of paths and their weights."""
    normals = draws(law, draw.n_steps, draw.key, draw.sampling, draw.parameters)

    def one_path(path_id: UInt32[Array, ""]) -> tuple[Float[Array, " factor"], Float[Array, ""]]:
        normal, weight = normals(path_id)
        return one_x(law, draw, normal, path_id, moment), weight

    return jax.vmap(one_path)(start + jnp.arange(PATH_TILE, dtype=jnp.uint32))


@eqx.filter_jit
def _tile(
    law: RiskFactorModel,
    draw: Draw,
    price_map: PriceMap,
    is_price: Bool[Array, " factor"],
    start: UInt32[Array, ""],
    shift: Float[Array, " factor"],
    moment: Moment | None,
) -> tuple[Float[Array, "scenario factor"], Float[Array, " scenario"]]:
    x, weight = _x(law, draw, start, moment)
    return jax.vmap(lambda one: mapped(price_map, is_price, one, shift))(x), weight


@eqx.filter_jit
def _counts(
    law: RiskFactorModel, normals: Float[Array, "scenario step dimension"], steps: Float[Array, ""]
) -> Float[Array, "scenario source"]:
    return jax.vmap(lambda normal: law.path(normal, steps).count)(normals)


@eqx.filter_jit
def _normals(law: RiskFactorModel, draw: Draw, start: UInt32[Array, ""]) -> Float[Array, "scenario step dimension"]:
    normals = draws(law, draw.n_steps, draw.key, draw.sampling, draw.parameters)
    return jax.vmap(lambda i: normals(i)[0])(start + jnp.arange(PATH_TILE, dtype=jnp.uint32))
