"""The margin's derivatives by the parameters of the scenario model: a tail-only adjoint through the paths.

Each account's tail scenarios, and they alone, are drawn again from their ids, and the derivative of the account's loss
by each factor's shock is pulled back through the model (Glasserman 2003, section 7.2; expected shortfall by the
envelope theorem). What a parameter changes by jumps, an intensity, goes by the likelihood ratio N/λ − h besides.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Array, Float, Int

from pmvar.instruments import Instruments
from pmvar.market.snapshot import MarketSnapshot
from pmvar.models.base import RiskFactorModel
from pmvar.risk.measure import BlockMeasure
from pmvar.risk.pairs import Pairs, Slot, TailPairs
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.scenarios.slopes import Leaf, ParameterSlopes
from pmvar.types import FactorKind, Kind, Measure, factor_name
from pmvar.valuation.exposure import Exposure
from pmvar.valuation.plan import slice_of
from pmvar.valuation.world import Layout


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
        slopes: ParameterSlopes,
        times: tuple[float, ...],
        slots: list[Slot],
        measure: Measure,
        level: float,
    ):
        self.measured, self.scenarios, self.slopes = measured, scenarios, slopes
        self.pairs = TailPairs(measured, row, slots, len(times) * len(scenarios.factors))
        is_es, tail = measure is Measure.EXPECTED_SHORTFALL, measured.tail
        self.weight = tail.weight if is_es else tail.at_var
        # What the likelihood ratio's score is multiplied by: ∂ES = E[w(L−v)⁺s]/(1−α), ∂VaR = E[w·1{L>v}s]/f(v).
        per_tail = measured.excess / (1 - level) if is_es else tail.spacing[:, None]
        self.score_weight = tail.in_tail * per_tail / scenarios.n_scenarios
        # Each account has a row for each replicate, and one for the mean given L = VaR.
        self.rows = scenarios.n_replicates + 1
        n = len(measured.block.account)
        self.by_colour = np.zeros((len(slopes.owner), n * self.rows, self.pairs.factor.shape[1]))
        self.score = np.zeros((n * self.rows, slopes.n_parameters))
        self.mass = np.zeros(n * self.rows)

    def add(
        self,
        index: int,
        normals: Array,
        of_paths: Float[np.ndarray, "colour scenario column"],
        exposed: tuple[Array, ...],
    ) -> None:
        """Add the kept scenarios that lie in tile `index`, given its normals, their slopes, and its exposures."""
        pairs = self.pairs.of_tile(index)
        own = pairs.account * self.rows
        group = np.concatenate([own + pairs.path % self.scenarios.n_replicates, own + self.scenarios.n_replicates])
        weight = np.concatenate([w[pairs.where] for w in (self.weight, self.measured.tail.at_var)])
        sums = pairs.sums(group, weight, len(self.mass))
        self.mass += sums @ np.ones(len(pairs.path))
        by_shock = self.pairs.derivative(pairs, exposed)
        # Padding has no derivative, so that any column does.
        place = pairs.column[:, None] * of_paths.shape[2] + np.maximum(self.pairs.factor, 0)[pairs.account]
        for total, slope in zip(self.by_colour, of_paths, strict=True):
            total += sums @ (by_shock * slope.take(place))
        self._add_scores(normals, pairs)

    def _add_scores(self, normals: Array, pairs: Pairs) -> None:
        paths = self.slopes.paths
        rates = [leaf for leaf in self.slopes.leaves if leaf.name in ("intensity", "own_intensity")]
        if not rates:
            return
        count = np.asarray(paths.counts(normals))[pairs.column]
        group = pairs.account * self.rows + pairs.path % self.scenarios.n_replicates
        sums = pairs.sums(group, self.score_weight[pairs.where], len(self.mass))
        for leaf in rates:
            source = 0 if leaf.name == "intensity" else 1
            rate = leaf.value.ravel()
            jumps = count[:, source : source + rate.size]
            # Where nothing jumps nothing can be learnt of how often it might.
            score = np.where(rate > 0, jumps / np.where(rate > 0, rate, 1.0) - paths.steps / paths.steps_per_year, 0.0)
            self.score[:, leaf.start : leaf.start + score.shape[1]] += sums @ score

    def result(self) -> ModelGradient:
        """The block's gradient and errors, by named parameters."""
        factors, replicates = self.scenarios.factors, self.scenarios.n_replicates
        n = len(self.measured.block.account)
        total = self.score.reshape(n, self.rows, -1)
        account, column = self.pairs.columns
        for owner, found in zip(
            self.slopes.owner, self.by_colour.reshape(len(self.by_colour), n, self.rows, -1), strict=True
        ):
            parameter = owner[self.pairs.factor[account, column] % len(factors)]
            some = parameter >= 0
            rows = np.arange(self.rows)
            place = account[some, None], rows, parameter[some, None]
            np.add.at(total, place, found[account[some, None], rows, column[some, None]])
        mass = self.mass.reshape(n, self.rows, 1)
        labels, total = _named(self.slopes.leaves, self.slopes.paths.law, factors, total)
        by_replicate, at_var = total[:, :replicates], total[:, replicates:]
        centred = by_replicate - mass[:, :replicates] * at_var
        return ModelGradient(
            labels=labels,
            gradient=by_replicate.sum(axis=1),
            error=np.std(centred * replicates, axis=1, ddof=1) / np.sqrt(replicates),
        )


def _named(
    leaves: tuple[Leaf, ...], law: RiskFactorModel, factors: tuple[str, ...], total: np.ndarray
) -> tuple[tuple[Label, ...], Float[np.ndarray, "account group parameter"]]:
    """Columns of parameters from those of arrays: ν from 1/ν, correlations from their loading."""
    labels: list[Label] = []
    columns: list[np.ndarray] = []
    for name, value, start in leaves:
        part = total[..., start : start + value.size]
        if name == "loading" and value.ndim == 2:
            pairs, part = _by_correlation(value, part)
            labels += [Label("correlation", factors[i], factors[j]) for i, j in pairs]
        else:
            owners = [factors[i] for i in law.owners(name)] if value.ndim else []
            if name == "inverse_dof":
                name, part = "degrees_of_freedom", -part * value**2
            labels += [Label(name, f) for f in owners or ("",)]
        columns.append(part)
    return tuple(labels), np.concatenate(columns, axis=-1)


def _by_correlation(loading: np.ndarray, part: np.ndarray) -> tuple[list[tuple[int, int]], np.ndarray]:
    """From derivatives by L to those by each pair's correlation, both entries moving: dL = ½·dC·L⁺ᵀ keeps LLᵀ = C."""
    n = len(loading)
    pairs = [(i, j) for i in range(n) for j in range(i + 1, n)]
    moved = part.reshape(*part.shape[:-1], *loading.shape) @ np.linalg.pinv(loading)
    i, j = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
    return pairs, 0.5 * (moved[..., i, j] + moved[..., j, i])
