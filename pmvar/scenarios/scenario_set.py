"""ScenarioSet: joint moves of all factors with weights; Monte Carlo, stress lists and grids alike."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmvar.scenarios.paths import Paths
from pmvar.scenarios.slopes import ParameterSlopes
from pmvar.types import PATH_TILE

GRAIN = 2.0**-28
"""Weights are multiples of it: sums of those of up to 2²⁵ scenarios are exact, in whatever order they are added."""


class ScenarioTile(NamedTuple):
    """`PATH_TILE` scenarios at the horizon; beyond the last scenario the shocks are zero."""

    index: int
    shock: Float[Array, "scenario factor"]
    """Log changes from `as_of` to the horizon."""


@dataclass(frozen=True)
class ScenarioSet:
    """Scenarios of all factors: log changes of prices (x on another `PriceScale`), and of vols at their tenor, over
    each step."""

    factors: tuple[str, ...]
    as_of: float
    """Epoch seconds."""
    horizon_end: float
    """Epoch seconds; equal to `as_of` for an instantaneous shock."""
    shock: Float[Array, "scenario step factor"]
    weight: Float[np.ndarray, " scenario"]
    """Likelihood ratios, rounded to `GRAIN`; 1 for plain Monte Carlo."""
    n_replicates: int
    """Scenario i belongs to replicate i mod n_replicates; replicates are independent and identically distributed."""
    term_exponent: Float[np.ndarray, " factor"]
    """Vol factors: Δ ln σ(τ) = shock·(tenor/τ)^term_exponent."""
    tenor: Float[np.ndarray, " factor"]
    """Vol factors: reference tenor in days."""
    vol_cap: float
    """Shocks of ln σ are capped at B·tanh(·/B)."""
    paths: Paths | None = None
    """What draws them again, at the horizon or inside it; None: a move gets to its end at once."""
    labels: tuple[str, ...] = ()
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "weight", np.round(self.weight / GRAIN) * GRAIN)

    @property
    def n_scenarios(self) -> int:
        """Number of scenarios."""
        return self.shock.shape[0]

    @property
    def n_tiles(self) -> int:
        """Number of tiles, the last one padded."""
        return -(-self.n_scenarios // PATH_TILE)

    @cached_property
    def slopes(self) -> ParameterSlopes | None:
        """By the parameters of the model, with what they keep: the drift's cost more than a tile of paths."""
        return None if self.paths is None else ParameterSlopes(self.paths)

    def tile(self, index: int) -> ScenarioTile:
        """Scenarios index·PATH_TILE and on, at the horizon."""
        part = self.shock[index * PATH_TILE : (index + 1) * PATH_TILE].sum(axis=1)
        return ScenarioTile(index, _pad(part))

    def at(self, index: int, time: float) -> Float[Array, "scenario factor"]:
        """Log changes of tile `index` at `time` (epoch seconds) at or before the horizon."""
        if self.paths is None or time >= self.horizon_end:
            return self.tile(index).shock
        inside = jnp.arange(PATH_TILE)[:, None] + index * PATH_TILE < self.n_scenarios
        return jnp.where(inside, self.paths.tile(index, time)[0], 0.0)


def union(sets: Sequence[ScenarioSet], shares: Sequence[float]) -> ScenarioSet:
    """All scenarios of `sets`, of equal numbers and replicates, one after the other: set k is drawn from with
    probability `shares[k]`. At the horizon only: it has no paths."""
    first, n = sets[0], sum(s.n_scenarios for s in sets)
    weight = [s.weight * (share * n / s.n_scenarios) for s, share in zip(sets, shares, strict=True)]
    shock = jnp.concatenate([s.shock for s in sets])
    return replace(first, shock=shock, weight=np.concatenate(weight), paths=None, provenance={})


@jax.jit
def _pad(part: Float[Array, "scenario factor"]) -> Float[Array, "tile factor"]:
    return jnp.pad(part, ((0, PATH_TILE - part.shape[0]), (0, 0)))
