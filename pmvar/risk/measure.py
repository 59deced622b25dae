"""Tail measures and Euler components of blocks of accounts."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from pmvar.risk.accounts import AccountBlock, LossStrips, block_loss, position_losses
from pmvar.risk.quantiles import ROWS, Measured, measure_rows
from pmvar.risk.selection import in_threads, refuse_not_finite, tail_ids
from pmvar.risk.tail import Tail, conditional_mean, standard_errors, tail
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import Measure
from pmvar.valuation.store import TileStore

N_WORST = 5
"""Worst scenarios kept of each account."""


PIECE = 1 << 17
"""Tail losses in one piece of work: a megabyte, so that it stays in a core's cache."""


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


def measure_block(
    block: AccountBlock, store: TileStore, level: float, *, names: np.ndarray | None = None
) -> BlockMeasure:
    """Value-at-risk, expected shortfall, their errors and components of every account of a block.

    The tail is found at the store's precision and aggregated again in float64, where the ES is the sum of its
    components. Raises NumericsError on a loss that is not finite, naming its account by the portfolio's `names`.
    """
    own = names[block.account] if names is not None else None
    ids = tail_ids(block_loss(block, store), store.pnl.scenarios.weight, level, names=own)
    each = max(1, ids.shape[1] * int(block.count.max(initial=1)))
    pieces = in_threads(
        lambda part: _measure_piece(block.take(part), ids[part], store, level), len(ids), max(1, PIECE // each)
    )

    def joined(name: str) -> np.ndarray:
        return np.concatenate([getattr(p, name) for p in pieces])

    return BlockMeasure(
        block,
        ids,
        Tail(*(np.concatenate([p.tail[i] for p in pieces]) for i in range(len(Tail._fields)))),
        *(
            joined(n)
            for n in ("excess", "var_error", "es_error", "component", "component_error", "worst", "worst_loss")
        ),
    )


def _measure_piece(
    block: AccountBlock, ids: Int[np.ndarray, "account kept"], store: TileStore, level: float
) -> BlockMeasure:
    scenarios = store.pnl.scenarios
    spread = {"level": level, "n_scenarios": scenarios.n_scenarios, "n_replicates": scenarios.n_replicates}
    position_loss = position_losses(block, ids, store)
    loss = np.zeros(ids.shape)
    for part in position_loss:
        loss += part
    found = tail(loss, scenarios.weight[ids], n_scenarios=scenarios.n_scenarios, level=level)
    component, error = np.zeros(block.quantity.shape), np.zeros(block.quantity.shape)
    some = slice(len(position_loss))
    mean, deviation = conditional_mean(position_loss, ids, found, **spread)
    component[:, some], error[:, some] = mean.T, deviation.T
    # The sum over positions, in their order, is the published ES: the identity is exact, not to rounding.
    found = found._replace(expected_shortfall=component.cumsum(axis=1)[:, -1])
    order = np.argsort(-loss, axis=1, kind="stable")[:, :N_WORST]
    return BlockMeasure(
        block,
        ids,
        found,
        np.maximum(loss - found.value_at_risk[:, None], 0.0),
        *standard_errors(loss, ids, found, **spread),
        component,
        error,
        np.take_along_axis(ids, order, 1),
        np.take_along_axis(loss, order, 1),
    )


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


def isolated_measure(
    store: TileStore,
    instruments: Int[np.ndarray, " instrument"],
    level: float,
    *,
    measure: Measure = Measure.EXPECTED_SHORTFALL,
    rows_at_once: int = 256,
) -> tuple[Float[np.ndarray, " instrument"], Float[np.ndarray, " instrument"]]:
    """Tail measure of one contract long, and of one short, of each instrument alone; never below zero."""
    sides = []
    for sign in (-1.0, 1.0):
        out = np.zeros(len(instruments))
        for start in range(0, len(instruments), rows_at_once):
            part = slice(start, start + rows_at_once)
            loss = sign * store.rows(store.pnl.row[instruments[part]])
            found = measure_losses(loss, store.pnl.scenarios, level)
            out[part] = found.expected_shortfall if measure is Measure.EXPECTED_SHORTFALL else found.value_at_risk
        sides.append(np.maximum(out, 0.0))
    return sides[0], sides[1]
