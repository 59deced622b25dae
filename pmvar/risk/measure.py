"""Tail measures and Euler components of blocks of accounts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from pmvar.risk.accounts import AccountBlock, block_loss
from pmvar.risk.quantiles import Measured, measure_rows
from pmvar.risk.selection import ROWS, in_threads, refuse_not_finite, tail_ids
from pmvar.risk.tail import Tail, tail
from pmvar.risk.tail_sums import PIECE, PositionSums, TailWeights, centred_error
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import Detail
from pmvar.valuation.store import TileStore

N_WORST = 5
"""Worst scenarios kept of each account."""


@runtime_checkable
class Rows(Protocol):
    """Losses [row scenario], of which a slice of rows is an array."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: slice, /) -> np.ndarray: ...


@dataclass(frozen=True)
class BlockTail:
    """Which scenarios make one block's tail, and what each position adds. Amounts in base currency, losses positive."""

    block: AccountBlock
    ids: Int[np.ndarray, "account kept"]
    tail: Tail
    excess: Float[np.ndarray, "account kept"]
    """(L − VaR)⁺."""
    component: Float[np.ndarray, "account position"]
    """Sums to the expected shortfall over positions."""
    component_error: Float[np.ndarray, "account position"]
    worst: Int[np.ndarray, "account rank"]
    worst_loss: Float[np.ndarray, "account rank"]

    def take(self, rows: slice) -> BlockTail:
        """Some of the accounts."""
        return BlockTail(
            self.block.take(rows),
            self.ids[rows],
            Tail(*(x[rows] for x in self.tail)),
            *(getattr(self, f.name)[rows] for f in fields(self)[3:]),
        )

    def without_scenarios(self) -> BlockTail:
        """Without what gradients alone need, and what needs most memory."""
        none = np.zeros((len(self.ids), 0))
        nothing = Tail(self.tail.value_at_risk, self.tail.expected_shortfall, none, none, none, self.tail.spacing)
        return replace(self, ids=none.astype(np.int64), tail=nothing, excess=none)


@dataclass(frozen=True)
class BlockMeasure:
    """The measures of one block's accounts and, where asked for, their tails."""

    block: AccountBlock
    value_at_risk: Float[np.ndarray, " account"]
    expected_shortfall: Float[np.ndarray, " account"]
    var_error: Float[np.ndarray, " account"]
    es_error: Float[np.ndarray, " account"]
    tail: BlockTail | None


def measure_block(
    block: AccountBlock,
    store: TileStore,
    level: float,
    *,
    detail: Detail = Detail.GREEKS,
    names: np.ndarray | None = None,
) -> BlockMeasure:
    """Value-at-risk, expected shortfall and their errors of every account of a block, and their tails.

    Losses are added up in float64. No bit of a measure depends on `detail`. Raises NumericsError on a loss that is not
    finite, naming its account by the portfolio's `names`.
    """
    own = names[block.account] if names is not None else None
    scenarios = store.pnl.scenarios
    loss = block_loss(block, store, dtype=np.dtype(np.float64))
    found = measure_losses(loss, scenarios, level, names=own)
    grain = _grain(block, store)
    # Rounded up, so that it stays above the VaR.
    shortfall = np.ceil(found.expected_shortfall / grain) * grain
    out = BlockMeasure(block, found.value_at_risk, shortfall, found.var_error, found.es_error, None)
    if detail is Detail.MARGINS:
        return out
    ids = tail_ids(loss, scenarios.weight, level, names=own)
    pieces = in_threads(
        lambda some: _measure_tail(block.take(some), loss[some], ids[some], store, level, shortfall[some], grain[some]),
        len(ids),
        PIECE,
    )
    tails = BlockTail(block, ids, *(joined([getattr(p, f.name) for p in pieces]) for f in fields(BlockTail)[2:]))
    return replace(out, tail=tails if detail is Detail.GREEKS else tails.without_scenarios())


def _grain(block: AccountBlock, store: TileStore) -> Float[np.ndarray, " account"]:
    """A power of two of which the ES and its components are multiples, so that every sum of them is exact.

    It is the rounding of float64 at the size of all positions together, which no sum of components exceeds.
    """
    gross = (np.abs(block.quantity) * store.largest[store.pnl.row[block.instrument]]).cumsum(axis=1)[:, -1]
    return np.ldexp(1.0, np.frexp(gross)[1] - 52)


def joined(parts: Sequence[Any]) -> Any:
    """Arrays, or tuples of arrays, one after the other."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    return type(parts[0])(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _measure_tail(
    block: AccountBlock,
    loss: Float[np.ndarray, "account scenario"],
    ids: Int[np.ndarray, "account kept"],
    store: TileStore,
    level: float,
    shortfall: Float[np.ndarray, " account"],
    grain: Float[np.ndarray, " account"],
) -> BlockTail:
    scenarios = store.pnl.scenarios
    kept = np.take_along_axis(loss, ids, 1)
    found = tail(kept, scenarios.weight[ids], n_scenarios=scenarios.n_scenarios, level=level)
    component, error = _components(block, ids, found, store)
    component = _to_sum(component, shortfall, grain)
    order = np.argsort(-kept, axis=1, kind="stable")[:, :N_WORST]
    return BlockTail(
        block,
        ids,
        found._replace(expected_shortfall=shortfall),
        np.maximum(kept - found.value_at_risk[:, None], 0.0),
        component,
        error,
        np.take_along_axis(ids, order, 1),
        np.take_along_axis(kept, order, 1),
    )


def _to_sum(
    component: Float[np.ndarray, "account position"],
    shortfall: Float[np.ndarray, " account"],
    grain: Float[np.ndarray, " account"],
) -> Float[np.ndarray, "account position"]:
    """Components in grains, whose sum in any order is the published ES: the identity is exact, not to rounding."""
    out = np.round(component / grain[:, None]) * grain[:, None]
    # The losses were added up in another order: some grains are left, and the largest bears them.
    largest = np.argmax(np.abs(out), axis=1)
    out[np.arange(len(out)), largest] += shortfall - out.sum(axis=1)
    return out


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
    loss: Rows,
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
