"""The margin's derivatives by the parameters of the scenario model: a tail-only adjoint through the paths.

Each account's tail scenarios, and they alone, are drawn again from their ids, and the derivative of the account's loss
by each factor's shock is pulled back through the model (Glasserman 2003, section 7.2; expected shortfall by the
envelope theorem). What a parameter changes by jumps, an intensity, goes by the likelihood ratio N/λ − h besides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import equinox as eqx
import jax
import numpy as np
from jaxtyping import Array, Float, Int, PyTree

from pmvar.instruments import Instruments
from pmvar.market.snapshot import MarketSnapshot
from pmvar.models.base import RiskFactorModel
from pmvar.risk.measure import BlockMeasure
from pmvar.risk.pairs import Pairs, Slot, add_slopes, pairs_in
from pmvar.scenarios.paths import Paths
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import PATH_TILE, FactorKind, Kind, Measure, factor_name
from pmvar.valuation.exposure import Exposure
from pmvar.valuation.plan import slice_of
from pmvar.valuation.world import Layout

ROWS, WIDTH = 256, 32
"""Canonical shape of one adjoint call: rows of up to `WIDTH` paths of one account and replicate."""

MOST_FACTORS = 64
"""Correlations of larger models are not differentiated by: their number grows with the square."""


class Label(NamedTuple):
    """One parameter of a model, as the table `model_greeks` names it."""

    parameter: str
    factor: str = ""
    other_factor: str = ""


@dataclass(frozen=True)
class ModelGradient:
    """Derivatives of the margin's measure of one block of accounts, in base currency per unit of each parameter."""

    labels: tuple[Label, ...]
    gradient: Float[np.ndarray, "account parameter"]
    error: Float[np.ndarray, "account parameter"]


def shock_slots(
    instruments: Instruments, market: MarketSnapshot, layout: Layout
) -> tuple[tuple[float, ...], list[Slot]]:
    """How shocks reach instruments: the times at which prices count, and a slot for each field of `Exposure`.

    Column m·n_factors + f is factor f at time m; the horizon is the last.
    """
    scenarios, n = layout.scenarios, len(instruments)
    inside = {s.expiry for s in layout.slices if layout.settles_inside(s)}
    times = (*sorted(inside - {scenarios.horizon_end}), scenarios.horizon_end)
    n_factors = len(scenarios.factors)
    reach: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def add(i: int, field: str, link: int, name: str, time: float, scale: float) -> None:
        if name in scenarios.factors and scale:
            factor, per_unit = reach.setdefault(
                (Exposure._fields.index(field), link), (np.zeros(n, dtype=np.int64), np.zeros(n))
            )
            factor[i] = times.index(time) * n_factors + scenarios.factors.index(name)
            per_unit[i] = scale

    end = scenarios.horizon_end
    for i in range(n):
        underlying, kind = instruments.underlying[i], instruments.kind[i]
        for link, column in enumerate(market.chain(instruments.settlement_currency[i])):
            add(i, "log_base", link, factor_name(market.asset[column], FactorKind.SPOT), end, 1.0)
        if kind == Kind.CASH or underlying == market.base_currency:
            continue
        own = slice_of(instruments, i)
        if own not in layout.slice_row:
            continue  # it cannot be valued
        settled = layout.settles_inside(own)
        add(i, "log_forward", 0, factor_name(underlying, FactorKind.SPOT), own.expiry if settled else end, 1.0)
        if kind == Kind.OPTION and not settled:
            add(i, "log_vol", 0, factor_name(underlying, FactorKind.VOL), end, layout.term_scale(own))
    return times, [Slot(field, *found) for (field, _), found in sorted(reach.items())]


class ModelAccumulator:
    """Running tail sums of one block over tiles."""

    def __init__(
        self,
        row: Int[np.ndarray, " instrument"],
        measured: BlockMeasure,
        scenarios: ScenarioSet,
        times: tuple[float, ...],
        slots: list[Slot],
        measure: Measure,
        level: float,
    ):
        assert scenarios.paths is not None
        self.paths: Paths = scenarios.paths
        self.measured, self.scenarios, self.times, self.slots = measured, scenarios, times, slots
        self.row = row[measured.block.instrument]
        is_es = measure is Measure.EXPECTED_SHORTFALL
        self.weight = measured.tail.weight if is_es else measured.tail.at_var
        # What the likelihood ratio's score is multiplied by: ∂ES = E[w(L−v)⁺s]/(1−α), ∂VaR = E[w·1{L>v}s]/f(v).
        tail = measured.tail
        per_tail = measured.excess / (1 - level) if is_es else tail.spacing[:, None]
        self.score_weight = tail.in_tail * per_tail / scenarios.n_scenarios
        self.leaves = _leaves(self.paths.law)
        self.groups = len(measured.block.account) * (scenarios.n_replicates + 1)
        self.total = np.zeros((self.groups, sum(leaf.size for _, leaf in self.leaves)))
        self.mass = np.zeros(self.groups)

    def add(self, index: int, normals: Array, slopes: list[np.ndarray]) -> None:
        """Add the kept scenarios that lie in tile `index`, given its normals and exposures."""
        pairs = pairs_in(self.measured, self.row, index)
        if not len(pairs.path):
            return
        n_columns = len(self.times) * len(self.scenarios.factors)
        adjoint = np.zeros((len(pairs.path), n_columns))
        for position in pairs.positions():
            add_slopes(adjoint, position, self.slots, slopes)
        replicates = self.scenarios.n_replicates
        own = pairs.account * (replicates + 1)
        adjoint = adjoint.reshape(len(own), len(self.times), -1)
        tail, near = self.weight[pairs.where], self.measured.tail.at_var[pairs.where]
        # Each account has a group for each replicate, and one for the mean given L = VaR.
        group = np.concatenate([own + pairs.path % replicates, own + replicates])
        weight, path = np.concatenate([tail, near]), np.tile(pairs.path, 2)
        used = np.flatnonzero(weight)
        used = used[np.argsort(group[used], kind="stable")]
        self.mass += np.bincount(group[used], weight[used], minlength=self.groups)
        for rows, place, inside in _rows(group[used]):
            shape = (len(self.times), ROWS, WIDTH, adjoint.shape[2])
            ids, part = np.zeros((ROWS, WIDTH), dtype=np.int64), np.zeros(shape)
            pick = used[inside]
            ids[place] = path[pick] % PATH_TILE
            part[:, place[0], place[1]] = (weight[pick, None, None] * adjoint[pick % len(own)]).transpose(1, 0, 2)
            found = self.paths.parameter_gradient(index, normals, ids, part, self.times)
            flat = np.concatenate([np.asarray(leaf).reshape(ROWS, -1) for _, leaf in _leaves(found)], axis=1)
            np.add.at(self.total, rows, flat[: len(rows)])
        self._add_scores(normals, pairs)

    def _add_scores(self, normals: Array, pairs: Pairs) -> None:
        years = self.paths.steps / self.paths.steps_per_year
        names = [name for name, _ in self.leaves]
        if "intensity" not in names:
            return
        count = np.asarray(self.paths.counts(normals))[pairs.column]
        weight = self.score_weight[pairs.where]
        group = pairs.account * (self.scenarios.n_replicates + 1) + pairs.path % self.scenarios.n_replicates
        start = 0
        for name, leaf in self.leaves:
            if name in ("intensity", "own_intensity"):
                source = 0 if name == "intensity" else 1
                rate = np.asarray(leaf).ravel()
                jumps = count[:, source : source + rate.size]
                # Where nothing jumps nothing can be learnt of how often it might.
                score = np.where(rate > 0, jumps / np.where(rate > 0, rate, 1.0) - years, 0.0)
                for i in range(jumps.shape[1]):
                    self.total[:, start + i] += np.bincount(group, weight * score[:, i], minlength=self.groups)
            start += leaf.size

    def result(self) -> ModelGradient:
        """The block's gradient and errors, by named parameters."""
        replicates = self.scenarios.n_replicates
        total = self.total.reshape(-1, replicates + 1, self.total.shape[1])
        mass = self.mass.reshape(-1, replicates + 1, 1)
        labels, total = _named(self.paths.law, self.scenarios.factors, self.leaves, total)
        by_replicate, at_var = total[:, :replicates], total[:, replicates:]
        centred = by_replicate - mass[:, :replicates] * at_var
        return ModelGradient(
            labels=labels,
            gradient=by_replicate.sum(axis=1),
            error=np.std(centred * replicates, axis=1, ddof=1) / np.sqrt(replicates),
        )


def _rows(group: Int[np.ndarray, " entry"]) -> Iterator[tuple[np.ndarray, tuple[np.ndarray, np.ndarray], slice]]:
    """Entries sorted by group laid out in rows of one group and at most `WIDTH` entries, `ROWS` rows at a time.

    Yields the group of each row, the (row, column) of each entry, and which entries they are. What stands in a row
    depends on its own group alone, so that sums do not depend on which other accounts there are.
    """
    if not len(group):
        return
    first = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    rank = np.arange(len(group)) - np.repeat(first, np.diff(np.r_[first, len(group)]))
    row = np.cumsum(rank % WIDTH == 0) - 1
    for start in range(0, int(row[-1]) + 1, ROWS):
        some = slice(int(np.searchsorted(row, start)), int(np.searchsorted(row, start + ROWS)))
        heads = some.start + np.flatnonzero(rank[some] % WIDTH == 0)
        yield group[heads], (row[some] - start, rank[some] % WIDTH), some


def _leaves(law: PyTree) -> list[tuple[str, Array]]:
    """Differentiable arrays of a model by name, in the order of its tree."""
    flat, _ = jax.tree_util.tree_flatten_with_path(eqx.filter(law, eqx.is_inexact_array))
    return [(jax.tree_util.keystr(path[-1:]).lstrip("."), leaf) for path, leaf in flat]


CONSTANTS = frozenset({"log_mixing", "log_mixing_slope"})
"""Arrays that are functions of others."""


def _named(
    law: RiskFactorModel, factors: tuple[str, ...], leaves: list[tuple[str, Array]], total: np.ndarray
) -> tuple[tuple[Label, ...], Float[np.ndarray, "account group parameter"]]:
    """Columns of parameters from those of arrays: ν from 1/ν, correlations from their loading."""
    labels: list[Label] = []
    columns: list[np.ndarray] = []
    start = 0
    for name, leaf in leaves:
        part, value = total[..., start : start + leaf.size], np.asarray(leaf)
        start += leaf.size
        if name in CONSTANTS:
            continue
        if name == "loading" and value.ndim == 2:
            pairs, part = _by_correlation(value, part)
            labels += [Label("correlation", factors[i], factors[j]) for i, j in pairs]
        elif name == "inverse_dof":
            part = -part * value**2
            labels += [Label("degrees_of_freedom", f) for f in (factors if value.size == len(factors) > 1 else ("",))]
        else:
            owners = ("",) if value.ndim == 0 else factors
            labels += [Label(name, f) for f in owners]
        columns.append(part)
    return tuple(labels), np.concatenate(columns, axis=-1)


def _by_correlation(loading: np.ndarray, part: np.ndarray) -> tuple[list[tuple[int, int]], np.ndarray]:
    """From derivatives by L to those by each pair's correlation, both entries moving: dL = ½·dC·L⁺ᵀ keeps LLᵀ = C."""
    n = len(loading)
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)] if n <= MOST_FACTORS else []
    moved = part.reshape(*part.shape[:-1], *loading.shape) @ np.linalg.pinv(loading)
    i, j = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return pairs, 0.5 * (moved[..., i, j] + moved[..., j, i])
