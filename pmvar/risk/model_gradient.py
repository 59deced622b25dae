"""The margin's derivatives by the parameters of the scenario model: a tail-only adjoint through the paths.

Each account's tail scenarios, and they alone, are drawn again from their ids, and the derivative of the account's loss
by each factor's shock is pulled back through the model (Glasserman 2003, section 7.2; expected shortfall by the
envelope theorem). What a parameter changes by jumps, an intensity, goes by the likelihood ratio N/λ − h besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmvar.instruments import Instruments
from pmvar.kernels.tail_sums import product_sums
from pmvar.models.base import RiskFactorModel
from pmvar.risk.measure import BlockTail
from pmvar.risk.tail_sums import Reach, Slot, TailWeights, centred_error
from pmvar.scenarios.slopes import Leaf, ParameterSlopes
from pmvar.types import OPTION_KINDS, PATH_TILE, FactorKind, Kind, Measure, factor_name
from pmvar.valuation.cash_flows import curve_factors
from pmvar.valuation.exposure import first_row
from pmvar.valuation.plan import slice_of
from pmvar.valuation.reprice import ProfitAndLoss
from pmvar.valuation.store import STRIP


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


def shock_slots(instruments: Instruments, pnl: ProfitAndLoss) -> tuple[tuple[float, ...], list[list[Slot]]]:
    """How shocks reach instruments: the times at which prices count, and the slots of each (time, factor) column.

    Column m·n_factors + f is factor f at time m; the horizon is the last.
    """
    layout, market, scenarios, n = pnl.plan.layout, pnl.market, pnl.scenarios, len(instruments)
    inside = {s.expiry for s in layout.slices if layout.settles_inside(s)}
    times = (*sorted(inside - {scenarios.horizon_end}), scenarios.horizon_end)
    n_factors = len(scenarios.factors)
    reach: list[dict[int, np.ndarray]] = [{} for _ in range(len(times) * n_factors)]

    def add(i: int, field: str, name: str, time: float, scale: float) -> None:
        if name in scenarios.factors and scale:
            column = times.index(time) * n_factors + scenarios.factors.index(name)
            reach[column].setdefault(first_row(pnl, field), np.zeros(n))[i] += scale

    end = scenarios.horizon_end
    for i in range(n):
        underlying, kind = instruments.underlying[i], instruments.kind[i]
        for column in market.chain(instruments.settlement_currency[i]):
            add(i, "log_base", factor_name(market.asset[column], FactorKind.SPOT), end, 1.0)
        for name in curve_factors(instruments, i, layout.curve) if kind == Kind.BOND else ():
            add(i, name, name, end, 1.0)
        if kind in (Kind.CASH, Kind.BOND) or underlying == market.base_currency:
            continue
        own = slice_of(instruments, i)
        if own not in layout.slice_row:
            continue  # it cannot be valued
        settled = layout.settles_inside(own)
        add(i, "log_forward", factor_name(underlying, FactorKind.SPOT), own.expiry if settled else end, 1.0)
        for name, weight in layout.basis_weights(own).items():
            add(i, FactorKind.BASIS, name, end, weight)
        if kind in OPTION_KINDS and not settled:
            add(i, "log_vol", factor_name(underlying, FactorKind.VOL), end, layout.term_scale(own))
    return times, [[Slot(*slot) for slot in sorted(slots.items())] for slots in reach]


class TileSlopes(NamedTuple):
    """What the model says of one tile's paths, in strips."""

    column: tuple[Float[Array, "colour strip path"], ...]
    """∂shock/∂θ of each (time, factor)."""
    score: Float[Array, "rate strip path"]
    """N/λ − h of each intensity."""


class ModelSlopes:
    """What all pieces of accounts share: the slopes of scenarios, and how shocks reach instruments."""

    def __init__(self, slopes: ParameterSlopes, instruments: Instruments, pnl: ProfitAndLoss):
        self.slopes = slopes
        self.times, self.columns = shock_slots(instruments, pnl)
        self._dtype = jnp.dtype(str(pnl.precision))
        self.rates = [leaf for leaf in self.slopes.leaves if leaf.name in ("intensity", "own_intensity")]

    def of_tile(self, index: int) -> TileSlopes:
        """The slopes of tile `index`."""
        normals = self.slopes.paths.normals(index).normal
        found = self.slopes.of_tile(index, normals, self.times).astype(self._dtype)
        column = found.reshape(*found.shape[:2], -1, STRIP)
        return TileSlopes(tuple(column), self._score(normals))

    def _score(self, normals: Array) -> Float[Array, "rate strip path"]:
        paths = self.slopes.paths
        count = np.asarray(paths.counts(normals)) if self.rates else np.zeros((PATH_TILE, 0))
        years = paths.steps / paths.steps_per_year
        parts = [np.zeros((0, PATH_TILE))]
        for leaf in self.rates:
            source = 0 if leaf.name == "intensity" else 1
            rate = leaf.value.ravel()
            jumps = count[:, source : source + rate.size]
            # Where nothing jumps nothing can be learnt of how often it might.
            parts.append(np.where(rate > 0, jumps / np.where(rate > 0, rate, 1.0) - years, 0.0).T)
        return jnp.asarray(np.concatenate(parts).reshape(-1, PATH_TILE // STRIP, STRIP))


class ModelPiece:
    """Running tail sums of some accounts over tiles."""

    def __init__(
        self,
        model: ModelSlopes,
        pnl: ProfitAndLoss,
        measured: BlockTail,
        weights: TailWeights,
        measure: Measure,
        level: float,
    ):
        self.model, self.n = model, len(measured.block.account)
        self.factors, self.replicates = pnl.scenarios.factors, pnl.scenarios.n_replicates
        dtype = np.dtype(str(pnl.precision))
        self.reach = [
            Reach(measured.block, pnl.row, slots, dtype, self.replicates) if slots else None for slots in model.columns
        ]
        is_es, tail = measure is Measure.EXPECTED_SHORTFALL, measured.tail
        self.kind = 0 if is_es else 1
        self.mass = weights.mass(self.replicates)[self.kind, : self.n]
        # What the likelihood ratio's score is multiplied by: ∂ES = E[w(L−v)⁺s]/(1−α), ∂VaR = E[w·1{L>v}s]/f(v).
        per_tail = measured.excess / (1 - level) if is_es else tail.spacing[:, None]
        self.score_weights = TailWeights(measured.ids, (tail.in_tail * per_tail / pnl.scenarios.n_scenarios,))
        self.score: Float[np.ndarray, "account rate replicate"] | float = 0.0

    def add(
        self,
        index: int,
        weight: Float[Array, "kind strip account path"],
        exposed: Float[Array, "strip row path"],
        slopes: TileSlopes,
    ) -> None:
        """Add one tile."""
        for reach, slope in zip(self.reach, slopes.column, strict=True):
            if reach is not None and len(reach.account):
                reach.add(weight, exposed, slope)
        if self.model.rates:
            weight = self.score_weights.tile(index)
            everyone = jnp.arange(weight.shape[2], dtype=jnp.int32)
            found = product_sums(weight, everyone, jnp.ones_like(weight[0]), slopes.score, n_replicates=self.replicates)
            self.score = self.score + np.asarray(found)[0, : self.n]

    def result(self) -> ModelGradient:
        """The gradient and errors, by named parameters."""
        slopes = self.model.slopes
        total = np.zeros((self.n, self.replicates + 1, slopes.n_parameters))
        for column, reach in enumerate(self.reach):
            owner = slopes.owner[:, column % len(self.factors)]
            colour = np.flatnonzero(owner >= 0)
            if reach is not None and len(reach.account) and len(colour):
                sums = reach.result()[:, :, colour]
                place = np.ix_(reach.account, np.arange(self.replicates), owner[colour])
                total[place] += sums[self.kind].transpose(0, 2, 1)
                total[reach.account[:, None], -1, owner[colour]] += sums[1].sum(axis=-1)
        first = 0
        for leaf in self.model.rates:
            some = slice(first, first + leaf.value.size)
            assert isinstance(self.score, np.ndarray)
            total[:, :-1, leaf.start : leaf.start + leaf.value.size] += self.score[:, some].transpose(0, 2, 1)
            first += leaf.value.size
        labels, total = _named(slopes.leaves, slopes.paths.law, self.factors, total)
        by_replicate = total[:, :-1].transpose(0, 2, 1)
        return ModelGradient(
            labels=labels,
            gradient=by_replicate.sum(axis=-1),
            error=centred_error(by_replicate, total[:, -1], self.mass[:, None]),
        )


def joined(parts: Sequence[ModelGradient]) -> ModelGradient:
    """Accounts one after the other."""
    return ModelGradient(
        parts[0].labels, np.concatenate([p.gradient for p in parts]), np.concatenate([p.error for p in parts])
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
