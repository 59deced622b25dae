"""The isolated margin: what each position would need if it stood alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import sparse

from pmvar.risk.measure import joined, measure_losses
from pmvar.risk.quantiles import spread
from pmvar.risk.rules import MarginRules
from pmvar.types import Measure
from pmvar.valuation.store import TileStore


class Alone(NamedTuple):
    """A measure of one contract of each instrument, held alone."""

    value: Float[np.ndarray, " instrument"]
    parts: Float[np.ndarray, "instrument replicate"]
    """As in `Measured`."""


def isolated_measure(
    store: TileStore,
    instruments: Int[np.ndarray, " instrument"],
    level: float,
    *,
    measure: Measure = Measure.EXPECTED_SHORTFALL,
    rows_at_once: int = 256,
) -> tuple[Alone, Alone]:
    """Tail measure of one contract long, and of one short, of each instrument alone; never below zero."""

    def side(sign: float, rows: np.ndarray) -> Alone:
        found = measure_losses(sign * store.rows(rows), store.pnl.scenarios, level)
        value, parts = (
            (found.expected_shortfall, found.es_parts)
            if measure is Measure.EXPECTED_SHORTFALL
            else (found.value_at_risk, found.var_parts)
        )
        return Alone(np.maximum(value, 0.0), np.where(value[:, None] > 0, parts, 0.0))

    rows = store.pnl.row[instruments]
    pieces = [rows[start : start + rows_at_once] for start in range(0, len(rows), rows_at_once)]
    long, short = (joined([side(sign, piece) for piece in pieces]) for sign in (-1.0, 1.0))
    return long, short


def each_alone(store: TileStore, quantity: sparse.csr_array, rules: MarginRules) -> tuple[Alone, Alone]:
    """Measures of one contract of each instrument that `quantity` holds, long and short; zeros of the others."""
    n, held = store.pnl.n_instruments, np.unique(quantity.indices)
    nothing = Alone(np.zeros(n), np.zeros((n, store.pnl.scenarios.n_replicates)))
    if not len(held):
        return nothing, nothing

    def laid_out(side: Alone) -> Alone:
        full = Alone(*(np.zeros_like(part) for part in nothing))
        for whole, part in zip(full, side, strict=True):
            whole[held] = part
        return full

    long, short = isolated_measure(store, held, rules.level, measure=rules.measure)
    return laid_out(long), laid_out(short)


def held_alone(
    quantity: sparse.csr_array, alone: tuple[Alone, Alone], rules: MarginRules
) -> tuple[Float[np.ndarray, " account"], Float[np.ndarray, " account"]]:
    """Margin of each account if every position and balance stood alone, and its standard error."""
    total, parts = (
        quantity.maximum(0) @ one + (-quantity).maximum(0) @ other for one, other in zip(*alone, strict=True)
    )
    # Positions share their scenarios: errors are those of sums over replicates. Where the floor binds nothing is drawn.
    error = np.where(total > rules.floor, spread(parts), 0.0)
    return rules.multiplier * np.maximum(total, rules.floor), rules.multiplier * error
