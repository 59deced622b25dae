"""Tail measures and Euler components of blocks of accounts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from pmvar.risk.accounts import AccountBlock, LossStrips, block_loss
from pmvar.risk.quantiles import Measured, measure_rows
from pmvar.risk.selection import ROWS, in_threads, refuse_not_finite, tail_ids
from pmvar.risk.tail import Tail, standard_errors, tail
from pmvar.risk.tail_sums import PIECE, PositionSums, TailWeights, centred_error
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.valuation.store import TileStore

N_WORST = 5
"""Worst scenarios kept of each account."""


@dataclass(frozen=True)
class BlockMeasure:
    """What one block's tail says. Amounts in base currency, losses positive."""

    block: AccountBlock
    ids: Int[np.ndarray, "account kept"]
    tail: Tail
    excess: Float[np.ndarray, "account kept"]
    """(L − VaR)⁺."""
    var_error: Float[np.ndarray, " account"]
    es_error: Float[np.ndarray, " account"]
    component: Float[np.ndarray, "account position"]
    """Sums to the expected shortfall over positions."""
    component_error: Float[np.ndarray, "account position"]
    worst: Int[np.ndarray, "account rank"]
    worst_loss: Float[np.ndarray, "account rank"]

    def take(self, rows: slice) -> BlockMeasure:
        """Some of the accounts."""
        return BlockMeasure(
            self.block.take(rows),
            self.ids[rows],
            Tail(*(x[rows] for x in self.tail)),
            *(getattr(self, f.name)[rows] for f in fields(self)[3:]),
        )


def measure_block(
    block: AccountBlock, store: TileStore, level: float, *, names: np.ndarray | None = None
) -> BlockMeasure:
    """Value-at-risk, expected shortfall, their errors and components of every account of a block.

    Losses are added up in float64, and the ES is the sum of its components. Raises NumericsError on a loss that is not
    finite, naming its account by the portfolio's `names`.
    """
    own = names[block.account] if names is not None else None
    loss = block_loss(block, store, dtype=np.dtype(np.float64))
    ids = tail_ids(loss, store.pnl.scenarios.weight, level, names=own)
    pieces = in_threads(
        lambda some: _measure_piece(block.take(some), loss[some], ids[some], store, level), len(ids), PIECE
    )
    return BlockMeasure(block, ids, *(joined([getattr(p, f.name) for p in pieces]) for f in fields(BlockMeasure)[2:]))


def joined(parts: Sequence[Any]) -> Any:
    """Arrays, or tuples of arrays, one after the other."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return type(parts[0])(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _measure_piece(
    block: AccountBlock,
    loss: Float[np.ndarray, "account scenario"],
    ids: Int[np.ndarray, "account kept"],
    store: TileStore,
    level: float,
) -> BlockMeasure:
    scenarios = store.pnl.scenarios
    spread = {"level": level, "n_scenarios": scenarios.n_scenarios, "n_replicates": scenarios.n_replicates}
    kept = np.take_along_axis(loss, ids, 1)
    found = tail(kept, scenarios.weight[ids], n_scenarios=scenarios.n_scenarios, level=level)
    component, error = _components(block, ids, found, store)
    # The sum over positions, in their order, is the published ES: the identity is exact, not to rounding.
    found = found._replace(expected_shortfall=component.cumsum(axis=1)[:, -1])
    order = np.argsort(-kept, axis=1, kind="stable")[:, :N_WORST]
    return BlockMeasure(
        block,
        ids,
        found,
        np.maximum(kept - found.value_at_risk[:, None], 0.0),
        *standard_errors(kept, ids, found, **spread),
        component,
        error,
        np.take_along_axis(ids, order, 1),
        np.take_along_axis(kept, order, 1),
    )


def _components(
    block: AccountBlock, ids: Int[np.ndarray, "account kept"], found: Tail, store: TileStore
) -> tuple[Float[np.ndarray, "account position"], Float[np.ndarray, "account position"]]:
    """Euler components of the ES, E[loss of a position | tail], and their standard errors."""
    n_replicates = store.pnl.scenarios.n_replicates
    weights = TailWeights(ids, (found.weight, found.at_var))
    sums = PositionSums(block, store.pnl.row, weights.height, n_replicates)
    for index in range(store.n_tiles):
        sums.add(weights.tile(index), store.device(index))
    in_tail, at_var = sums.result()
    mass = weights.mass(n_replicates)[0, : len(ids), None]
    error = centred_error(in_tail, at_var.sum(axis=-1), mass)
    return -block.quantity * in_tail.sum(axis=-1), np.abs(block.quantity) * error


def measure_losses(
    loss: Float[np.ndarray, "row scenario"] | LossStrips,
    scenarios: ScenarioSet,
    level: float,
    *,
    names: np.ndarray | None = None,
) -> Measured:
    """Value-at-risk, expected shortfall and their errors of each row of losses as they are, at their own precision.

    Raises NumericsError on a loss that is not finite, naming the row by `names`.
    """

    def measure(rows: slice) -> Measured:
        own = loss[rows]
        refuse_not_finite(own, names[rows] if names is not None else None)
        return measure_rows(own, scenarios.weight, level=level, n_replicates=scenarios.n_replicates)

    parts = in_threads(measure, len(loss), ROWS)
    return Measured(*(np.concatenate(part) for part in zip(*parts, strict=True)))
