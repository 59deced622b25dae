"""Paths: the tiles of a simulation, each a pure function of its key, and the derivatives of what they feed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from pmvar.kernels.random import Stream, run_key, stream, uniforms
from pmvar.models.base import RiskFactorModel
from pmvar.models.bridge import bridge, bridge_noise
from pmvar.models.price_map import NormalMixture, log_price_ratio, mean_shift
from pmvar.models.sampling import SamplingParameters
from pmvar.scenarios.clock import elapsed_steps
from pmvar.scenarios.draws import TileNormals, tile_normals
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


class Inside(NamedTuple):
    """What a path takes to a moment inside a step; over many paths `noise` and `uniform` have one more axis."""

    moment: Moment
    noise: Float[Array, "*scenario level component"]
    uniform: Float[Array, "*scenario"]
    """Says when in the step a jump arrives."""


class Draw(NamedTuple):
    """How paths are drawn."""

    n_steps: int
    sampling: Sampling
    parameters: SamplingParameters
    key: Key[Array, ""]
    steps: Float[Array, ""]

    def normals(self, law: RiskFactorModel, index: int) -> TileNormals:
        """What the paths of tile `index` are made of."""
        start = jnp.uint32(index * PATH_TILE)
        return tile_normals(law, self.n_steps, self.key, self.sampling, self.parameters, start)


@dataclass(frozen=True)
class Paths:
    """All paths of a simulation over a horizon of `steps` model steps."""

    law: RiskFactorModel
    price_map: PriceMap
    is_price: Bool[np.ndarray, " factor"]
    """Prices that `price_map` makes from x."""
    is_linear: Bool[np.ndarray, " factor"]
    """Prices that move by x itself, see `pmvar.market.price_scale`."""
    growth: Callable[[float], Float[np.ndarray, " factor"]] | None
    """Where each price goes on average by an epoch second, forward over spot; of those that are linear the x from spot
    to forward. None: x is taken as it is."""
    as_of: float
    end: float
    """Epoch seconds of the horizon."""
    steps: float
    steps_per_year: int
    draw: Draw
    calendar: str = ""
    """See `ModelSpecification`."""

    def tile(self, index: int, time: float) -> tuple[Float[Array, "scenario factor"], Float[Array, " scenario"]]:
        """Log changes from `as_of` to `time` (epoch seconds, at most the horizon) of tile `index`, and the weights."""
        made = self.normals(index)
        x = _x(self.law, self.draw.steps, made.normal, self.inside(self.draw, index, time))
        return _mapped(self.price_map, jnp.asarray(self.is_price), x, jnp.asarray(self.shift(time))), made.weight

    def moment(self, time: float) -> Moment | None:
        """Where a time stands among the model's steps; None at the horizon."""
        if time >= self.end:
            return None
        n_steps = self.draw.n_steps
        elapsed = self._elapsed(time) * n_steps / self.steps
        step = max(int(np.ceil(elapsed)) - 1, 0)
        # Named by the model's clock: two expiries of one weekend are one moment to a session clock.
        seconds = round((elapsed - step) * self.steps / n_steps * DAY)
        return Moment(jnp.asarray(step), jnp.float64(elapsed - step), jnp.uint32(seconds))

    def _elapsed(self, time: float) -> float:
        return elapsed_steps(self.as_of, time, self.steps_per_year, self.calendar)

    def shift(self, time: float) -> Float[np.ndarray, " factor"]:
        """The drift c of each factor at `time`: E[g(x + c)] is the growth to the forward, g = x of linear prices."""
        if time not in self._shifts:
            self._shifts[time] = self._solve(time)
        return self._shifts[time]

    @cached_property
    def _shifts(self) -> dict[float, np.ndarray]:
        return {}

    def _solve(self, time: float) -> np.ndarray:
        out = np.zeros(len(self.is_price))
        if self.growth is not None:
            elapsed = self.steps if time >= self.end else self._elapsed(time)
            marginal = self.law.marginal(elapsed) or self._reference(time)
            out = drifts(self.price_map, self.is_price, self.is_linear, marginal, self.growth(time))
        return out

    @property
    def reference_draw(self) -> Draw:
        """A fixed Sobol' sample of the law, the same in every run."""
        return self.draw._replace(sampling=Sampling.SOBOL, parameters=SamplingParameters(), key=run_key(REFERENCE_SEED))

    def _reference(self, time: float) -> NormalMixture:
        """The marginal law as a fixed sample."""
        draw, x = self.reference_draw, np.zeros((len(self.is_price), REFERENCE_TILES * PATH_TILE))
        for i in range(REFERENCE_TILES):
            made = draw.normals(self.law, i).normal
            x[:, i * PATH_TILE : (i + 1) * PATH_TILE] = _x(self.law, draw.steps, made, self.inside(draw, i, time)).T
        return NormalMixture(x, np.zeros_like(x), np.full_like(x, 1 / x.shape[1]))

    def counts(self, normals: Float[Array, "scenario step dimension"]) -> Float[Array, "scenario source"]:
        """Jumps of each Poisson source on paths made of `normals`."""
        return _counts(self.law, normals, self.draw.steps)

    def normals(self, index: int) -> TileNormals:
        """What the paths of a tile are made of."""
        return self.draw.normals(self.law, index)

    def inside(self, draw: Draw, index: int, time: float) -> Inside | None:
        """What takes the paths of tile `index` of `draw` to `time`; None at the horizon."""
        moment = self.moment(time)
        if moment is None:
            return None
        return _inside(draw.key, jnp.uint32(index * PATH_TILE), moment, self.law.bridge_loading().shape[1])


def mapped(
    price_map: PriceMap, is_price: Bool[Array, " factor"], x: Float[Array, " factor"], shift: Float[Array, " factor"]
) -> Float[Array, " factor"]:
    """Log changes of the factors from their x and the drift of the prices among them; 0 of the others."""
    return jnp.where(is_price, log_price_ratio(price_map, x + shift), x + shift)


def drifts(
    price_map: PriceMap,
    is_price: Bool[np.ndarray, " factor"],
    is_linear: Bool[np.ndarray, " factor"],
    law: NormalMixture,
    growth: Float[np.ndarray, " factor"],
) -> Float[np.ndarray, " factor"]:
    """The drift of each factor of marginal `law`, see `Paths.growth`; 0 of those that are no price."""
    out = np.where(is_linear, growth - np.sum(law.weight * law.mean, axis=1), 0.0)
    prices = NormalMixture(*(part[is_price] for part in law))
    out[is_price] = mean_shift(price_map, prices, growth[is_price])
    return out


def one_x(
    law: RiskFactorModel,
    steps: Float[Array, ""],
    normal: Float[Array, "step dimension"],
    inside: Inside | None,
) -> Float[Array, " factor"]:
    """x of one path, at the horizon or at a moment inside it."""
    path = law.path(normal, steps)
    move = path.diffusion + path.jump
    if inside is None:
        return move.sum(axis=0)
    step = inside.moment.step
    before = jnp.sum(jnp.where(jnp.arange(len(normal))[:, None] < step, move, 0.0), axis=0)
    moved = bridge(
        inside.noise, path.diffusion[step], path.deviation[step], law.bridge_loading(), inside.moment.fraction
    )
    jumped = inside.uniform <= inside.moment.fraction
    return before + moved + jnp.where(jumped, path.jump[step], 0.0)


def over_paths(
    one: Callable[..., Array],
    normal: Float[Array, "scenario step dimension"],
    inside: Inside | None,
    *,
    out_axis: int = 0,
) -> Array:
    """A function of one path's normals and `Inside`, over a tile."""
    axes = None if inside is None else inside._replace(moment=None, noise=0, uniform=0)
    return jax.vmap(one, in_axes=(0, axes), out_axes=out_axis)(normal, inside)


@eqx.filter_jit
def _x(
    law: RiskFactorModel,
    steps: Float[Array, ""],
    normal: Float[Array, "scenario step dimension"],
    inside: Inside | None,
) -> Float[Array, "scenario factor"]:
    """x of one tile of paths."""
    return over_paths(lambda *path: one_x(law, steps, *path), normal, inside)


@partial(jax.jit, static_argnames="n")
def _inside(key: Key[Array, ""], start: UInt32[Array, ""], moment: Moment, n: int) -> Inside:
    """What happens to a tile of paths inside a step, for `n` components."""

    def one(path_id: UInt32[Array, ""]) -> tuple[Float[Array, "level component"], Float[Array, ""]]:
        place = path_id, moment.step.astype(jnp.uint32)
        noise = bridge_noise(stream(key, Stream.BRIDGE, *place), moment.fraction, moment.seconds, n)
        return noise, uniforms(stream(key, Stream.JUMP, *place), 1)[0]

    return Inside(moment, *jax.vmap(one)(start + jnp.arange(PATH_TILE, dtype=jnp.uint32)))


@partial(jax.jit, static_argnames="price_map")
def _mapped(
    price_map: PriceMap,
    is_price: Bool[Array, " factor"],
    x: Float[Array, "scenario factor"],
    shift: Float[Array, " factor"],
) -> Float[Array, "scenario factor"]:
    return jax.vmap(lambda one: mapped(price_map, is_price, one, shift))(x)


@eqx.filter_jit
def _counts(
    law: RiskFactorModel, normals: Float[Array, "scenario step dimension"], steps: Float[Array, ""]
) -> Float[Array, "scenario source"]:
    return jax.vmap(lambda normal: law.path(normal, steps).count)(normals)
