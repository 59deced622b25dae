"""Portfolio: who holds how much of what, as one sparse matrix; balances are columns like any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from scipy import sparse

from pmvar.instruments import Instruments, cash
from pmvar.types import Kind


@dataclass(frozen=True)
class Portfolio:
    """Accounts × instruments, in contracts (balances: units of their asset)."""

    account_id: np.ndarray
    """Strings, sorted."""
    instruments: Instruments
    """Sorted by id; balances are instruments of kind `cash`."""
    quantity: sparse.csr_array
    """float64 [account, instrument], sorted indices, no explicit zeros."""
    withheld: Mapping[str, str] = field(default_factory=dict)
    """Account -> reason, known before anything is priced (an unknown instrument, say)."""
    unknown: Mapping[str, tuple[tuple[str, float], ...]] = field(default_factory=dict)
    """Account -> its positions (instrument_id, quantity) in instruments that the book does not define."""

    @property
    def n_accounts(self) -> int:
        """Number of accounts."""
        return len(self.account_id)

    def accounts(self, rows: np.ndarray) -> Portfolio:
        """The accounts at `rows` alone, over the same instruments."""
        rows = np.sort(np.asarray(rows))
        names = set(self.account_id[rows].tolist())
        return Portfolio(
            self.account_id[rows],
            self.instruments,
            sparse.csr_array(self.quantity[rows]),
            {a: r for a, r in self.withheld.items() if a in names},
            {a: p for a, p in self.unknown.items() if a in names},
        )


def build_portfolio(
    instruments: Instruments,
    *,
    position_account: np.ndarray,
    position_instrument: np.ndarray,
    position_quantity: np.ndarray,
    balance_account: np.ndarray | None = None,
    balance_asset: np.ndarray | None = None,
    balance_amount: np.ndarray | None = None,
) -> Portfolio:
    """The portfolio of long-form positions and balances; duplicates are summed, the order of rows never matters.

    Positions in instruments that `instruments` does not hold withhold their account; nothing is dropped.
    """
    empty = np.array([], dtype=object)
    balance_account = empty if balance_account is None else np.asarray(balance_account, dtype=object)
    balance_asset = empty if balance_asset is None else np.asarray(balance_asset, dtype=object)
    balance_amount = np.array([]) if balance_amount is None else np.asarray(balance_amount, float)
    account = np.concatenate([np.asarray(position_account, dtype=object), balance_account])
    instrument = np.concatenate(
        [np.asarray(position_instrument, dtype=object), np.array([f"CASH:{a}" for a in balance_asset], dtype=object)]
    )
    quantity = np.concatenate([np.asarray(position_quantity, float), balance_amount])

    held = instruments.take(instruments.kind != Kind.CASH)
    table = held.join(cash(np.unique(balance_asset.astype(str)).astype(object)))
    table = table.take(np.argsort(table.instrument_id.astype(str), kind="stable"))
    names, row = np.unique(account.astype(str), return_inverse=True)
    ids = table.instrument_id.astype(str)
    column = np.searchsorted(ids, instrument.astype(str)) if len(ids) else np.zeros(len(instrument), int)
    known = np.zeros(len(instrument), bool)
    inside = column < len(ids)
    known[inside] = ids[column[inside]] == instrument.astype(str)[inside]

    unknown: dict[str, list[tuple[str, float]]] = {}
    for i in np.flatnonzero(~known):
        unknown.setdefault(str(account[i]), []).append((str(instrument[i]), float(quantity[i])))
    # Sums of duplicates run in the order of value, so that the order of rows cannot reach the last bit.
    order = np.lexsort((quantity[known], column[known], row[known]))
    matrix = sparse.coo_array(
        (quantity[known][order], (row[known][order], column[known][order])), shape=(len(names), len(table))
    ).tocsr()
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return Portfolio(
        names.astype(object),
        table,
        matrix,
        {a: f"unknown instrument {p[0][0]}" for a, p in unknown.items()},
        {a: tuple(sorted(p)) for a, p in unknown.items()},
    )
