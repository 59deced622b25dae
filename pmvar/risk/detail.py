"""What the report draws of the largest accounts: loss distribution and convergence of the margin."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int

from pmvar.portfolio import Portfolio
from pmvar.risk.result import AccountDetail, Columns
from pmvar.risk.tail import standard_errors, tail
from pmvar.types import Status
from pmvar.valuation.store import TileStore

N_DETAILS = 12
"""Accounts drawn, those with the largest expected shortfalls."""

BINS = 80
FEWEST = 1024
"""Scenarios at the first point of the convergence plot."""


def largest_accounts(margins: Columns) -> Int[np.ndarray, " some"]:
    """Rows of the accounts with the largest expected shortfalls, largest first; withheld ones have none."""
    live = np.flatnonzero(margins["status"] != Status.WITHHELD)
    return live[np.lexsort((live, -margins["expected_shortfall"][live]))][:N_DETAILS]


def account_details(
    portfolio: Portfolio, rows: Int[np.ndarray, " some"], store: TileStore, level: float
) -> tuple[AccountDetail, ...]:
    """Details of the accounts at `rows`, in their order."""
    return tuple(_detail(portfolio, int(row), store, level) for row in rows)


def _detail(portfolio: Portfolio, account: int, store: TileStore, level: float) -> AccountDetail:
    quantity = portfolio.quantity
    part = slice(quantity.indptr[account], quantity.indptr[account + 1])
    loss = np.zeros(store.n_scenarios)
    for column, amount in zip(quantity.indices[part], quantity.data[part], strict=True):
        loss -= amount * store.rows(store.pnl.row[[column]])[0]
    weight = store.pnl.scenarios.weight
    low, high = np.quantile(loss, [0.0005, 0.9995])
    margin = 0.05 * (high - low) or 1.0
    # The outermost bins take what lies beyond them, so that counts add up to all scenarios.
    edges = np.linspace(low - margin, high + margin, BINS + 1)
    count, _ = np.histogram(np.clip(loss, edges[0], edges[-1]), edges, weights=weight)
    counts = [FEWEST << i for i in range(32) if FEWEST << i < store.n_scenarios] + [store.n_scenarios]
    points = [_prefix(loss[:n], weight[:n], store.pnl.scenarios.n_replicates, level) for n in counts]
    return AccountDetail(
        account_id=str(portfolio.account_id[account]),
        histogram_edges=edges,
        histogram_count=count,
        path_counts=np.array(counts),
        expected_shortfall=np.array([p[0] for p in points]),
        standard_error=np.array([p[1] for p in points]),
    )


def _prefix(
    loss: Float[np.ndarray, " scenario"], weight: Float[np.ndarray, " scenario"], n_replicates: int, level: float
) -> tuple[float, float]:
    """Expected shortfall and standard error from the first scenarios alone."""
    n, ids = len(loss), np.arange(len(loss))[None]
    found = tail(loss[None], weight[None], n_scenarios=n, level=level)
    _, error = standard_errors(loss[None], ids, found, level=level, n_scenarios=n, n_replicates=n_replicates)
    return float(found.expected_shortfall[0]), float(error[0])
