"""Derivatives of scenarios by the parameters of their model, a whole tile at once.

A factor's shock depends on few parameters: its own volatility, its own row of the loading, a common intensity. So
parameters that no factor shares are moved together, as one colour, and one forward derivative serves them all (Curtis,
Powell and Reid 1974, "On the estimation of sparse Jacobian matrices").
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PyTree

from pmvar.models.base import RiskFactorModel
from pmvar.scenarios.paths import Inside, Paths, mapped, one_x, over_paths
from pmvar.types import PriceMap

MOST_FACTORS = 64
"""Correlations of larger models are not differentiated by: their number grows with the square."""

CONSTANTS = frozenset({"log_mixing", "log_mixing_slope"})
"""Arrays of a model that are functions of its others."""


class Leaf(NamedTuple):
    """One array of parameters; its numbers stand one after the other in the flat vector of all parameters."""

    name: str
    value: Float[np.ndarray, "..."]
    start: int
    """Of its first number."""


class ParameterSlopes:
    """Derivatives of a simulation's shocks by every parameter of its law, the drift moving along."""

    def __init__(self, paths: Paths):
        self.paths = paths
        self._arrays, self._rest = eqx.partition(paths.law, _is_parameter(paths.law))
        self._drift: dict[float, tuple[np.ndarray, np.ndarray]] = {}
        self.leaves = tuple(_leaves(self._arrays))
        """Of the law, in the order of its tree."""
        self.n_parameters = sum(leaf.value.size for leaf in self.leaves)
        reached, _ = self._drift_at(paths.end)
        self.owner = _colours(reached != 0)
        """The parameter that moves a factor in each colour; −1: none does. Axes: colour, factor."""

    def of_tile(
        self, index: int, normals: Float[Array, "scenario step dimension"], times: tuple[float, ...]
    ) -> Float[Array, "column colour scenario"]:
        """∂shock/∂θ on the paths of tile `index`, made of `normals`; column m·n_factors + f is factor f at times[m]."""
        tangents = self._tangents
        found = []
        for time in times:
            _, shift = self._drift_at(time)
            own = np.where(self.owner >= 0, shift[np.arange(len(shift)), self.owner], 0.0)
            p = self.paths
            found.append(
                _path_slopes(
                    self._arrays,
                    self._rest,
                    p.draw.steps,
                    p.price_map,
                    jnp.asarray(p.is_price),
                    normals,
                    p.inside(p.draw, index, time),
                    jnp.asarray(p.shift(time)),
                    tangents,
                    jnp.asarray(own),
                )  # fmt: skip
            )
        return jnp.concatenate(found)

    @property
    def _tangents(self) -> PyTree:
        """Each colour's direction, as the arrays of the law with `colour` in front."""
        flat = np.zeros((len(self.owner), self.n_parameters))
        colour, factor = np.nonzero(self.owner >= 0)
        flat[colour, self.owner[colour, factor]] = 1.0
        parts = [
            jnp.asarray(flat[:, leaf.start : leaf.start + leaf.value.size].reshape(-1, *leaf.value.shape))
            for leaf in self.leaves
        ]
        return jax.tree.unflatten(jax.tree.structure(self._arrays), parts)

    def _drift_at(self, time: float) -> tuple[np.ndarray, np.ndarray]:
        """∂E[e^shock]/∂θ, which is 0 only where a factor does not depend on a parameter, and ∂c/∂θ of the drift c."""
        if time not in self._drift:
            p = self.paths
            draw = p.reference_draw
            by_law, by_shift = _mean_slopes(
                self._arrays, self._rest, p.draw.steps, p.price_map, jnp.asarray(p.is_price), jnp.asarray(p.is_linear),
                draw.normals(p.law, 0).normal, p.inside(draw, 0, time), jnp.asarray(p.shift(time)),
            )  # fmt: skip
            n = len(p.is_price)
            reached = np.concatenate([np.asarray(x).reshape(n, -1) for x in jax.tree.leaves(by_law)], axis=1)
            slope = np.zeros_like(reached)
            if p.growth is not None:
                drifting = p.is_price | p.is_linear
                slope[drifting] = -reached[drifting] / np.asarray(by_shift)[drifting, None]
            for leaf in self.leaves:
                if leaf.name == "loading" and leaf.value.ndim == 2 and not p.law.correlation_moves_marginals():
                    slope[:, leaf.start : leaf.start + leaf.value.size] = 0.0
            self._drift[time] = reached, slope
        return self._drift[time]


def _is_parameter(law: RiskFactorModel) -> PyTree:
    def one(path: tuple, leaf: object) -> bool:
        name = _name(path)
        large = name == "loading" and np.ndim(leaf) == 2 and len(leaf) > MOST_FACTORS  # type: ignore[arg-type]
        return eqx.is_inexact_array(leaf) and name not in CONSTANTS and not large

    return jax.tree_util.tree_map_with_path(one, law)


def _leaves(arrays: PyTree) -> Iterator[Leaf]:
    start = 0
    for path, leaf in jax.tree_util.tree_leaves_with_path(arrays):
        yield Leaf(_name(path), np.asarray(leaf), start)
        start += leaf.size


def _name(path: tuple) -> str:
    return jax.tree_util.keystr(path[-1:]).lstrip(".")


def _colours(reached: Bool[np.ndarray, "factor parameter"]) -> Int[np.ndarray, "colour factor"]:
    """Parameters in as few groups as come by themselves, each in the first whose others reach no factor of its own."""
    groups: list[np.ndarray] = []
    for parameter in np.flatnonzero(reached.any(axis=0)):
        own = reached[:, parameter]
        group = next((g for g in groups if not np.any(g[own] >= 0)), None)
        if group is None:
            group = np.full(len(reached), -1)
            groups.append(group)
        group[own] = parameter
    return np.stack(groups) if groups else np.zeros((0, len(reached)), dtype=np.int64)


@eqx.filter_jit
def _path_slopes(
    arrays: PyTree,
    rest: PyTree,
    steps: Float[Array, ""],
    price_map: PriceMap,
    is_price: Bool[Array, " factor"],
    normals: Float[Array, "scenario step dimension"],
    inside: Inside | None,
    shift: Float[Array, " factor"],
    tangents: PyTree,
    shift_tangents: Float[Array, "colour factor"],
) -> Float[Array, "factor colour scenario"]:
    def one(normal: Array, inside: Inside | None) -> Array:
        def shock(arrays: PyTree, shift: Array) -> Array:
            return mapped(price_map, is_price, one_x(eqx.combine(arrays, rest), steps, normal, inside), shift)

        _, along = jax.linearize(shock, arrays, shift)
        return jax.vmap(along, out_axes=-1)(tangents, shift_tangents)

    return over_paths(one, normals, inside, out_axis=-1)


@eqx.filter_jit
def _mean_slopes(
    arrays: PyTree,
    rest: PyTree,
    steps: Float[Array, ""],
    price_map: PriceMap,
    is_price: Bool[Array, " factor"],
    is_linear: Bool[Array, " factor"],
    normals: Float[Array, "scenario step dimension"],
    inside: Inside | None,
    shift: Float[Array, " factor"],
) -> tuple[PyTree, Float[Array, " factor"]]:
    """∂E[e^shock]/∂θ of each factor, of linear prices ∂E[shock]/∂θ, `factor` leading, and by its shift, over one tile
    of the reference sample: the drift's derivative is a small part of any gradient."""

    def x(arrays: PyTree) -> Float[Array, "scenario factor"]:
        law = eqx.combine(arrays, rest)
        return over_paths(lambda *path: one_x(law, steps, *path), normals, inside)

    def growth(x: Array) -> Array:
        shock = mapped(price_map, is_price, x, shift)
        return jnp.where(is_linear, shock, jnp.exp(shock))

    moved, back = jax.vjp(x, arrays)
    by_x = jax.vmap(lambda one: jax.jvp(growth, (one,), (jnp.ones_like(one),))[1])(moved) / len(normals)
    by_law = jax.vmap(lambda row: back(by_x * row[None])[0])(jnp.eye(len(shift)))
    # A shift moves every x alike.
    return by_law, by_x.sum(axis=0)
