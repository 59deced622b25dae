"""How far given margins reach into the Monte Carlo distribution of each account's loss."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from pmvar.risk.accounts import AccountBlock, block_loss
from pmvar.risk.selection import ROWS, in_threads
from pmvar.valuation.store import TileStore

ROUNDING = 1e-9
"""Of a margin: losses are added up in double precision, and ES in another order."""


class Exceedance(NamedTuple):
    """Of each margin of each account; zero for accounts in no block."""

    probability: Float[np.ndarray, "method account"]
    """P(L > margin) over the horizon."""
    uncovered: Float[np.ndarray, "method account"]
    """E[(L − margin)⁺] in base currency."""


def exceedance(
    blocks: Sequence[AccountBlock], store: TileStore, margin: Float[np.ndarray, "method account"]
) -> Exceedance:
    """Weighted shares N⁻¹ Σ w·1{L > m} and means N⁻¹ Σ w·(L − m)⁺ of the losses of all accounts in `blocks`."""
    weight, n = store.pnl.scenarios.weight, store.n_scenarios
    found = Exceedance(np.zeros(margin.shape), np.zeros(margin.shape))
    for block in blocks:
        loss = block_loss(block, store, dtype=np.dtype(np.float64))

        def beyond(rows: slice, block: AccountBlock = block, loss=loss) -> None:
            own, account = loss[rows], block.account[rows]
            for method, limits in enumerate(margin[:, account]):
                # A bounded loss that is the margin does not exceed it by its rounding.
                over = np.maximum(own - (limits + ROUNDING * np.abs(limits))[:, None], 0.0)
                # One product for all rows would round a row by how many others stand beside it.
                found.probability[method, account] = [(weight * (o > 0)).sum() / n for o in over]
                found.uncovered[method, account] = [(weight * o).sum() / n for o in over]

        in_threads(beyond, len(block.account), ROWS)
        # The next block is written over it.
        del loss, beyond
    return found
