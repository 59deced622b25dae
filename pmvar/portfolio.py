"""Portfolio: who holds how much of what, as one sparse matrix; balances are columns like any other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import repeat

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


def _positions_in(names: list[str], values: np.ndarray) -> np.ndarray:
    """Index in `names` of each of `values`, −1 where it is not there."""
    index = {name: i for i, name in enumerate(names)}
    return np.fromiter(map(index.get, values.tolist(), repeat(-1)), np.int64, len(values))


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
    # Dictionaries: sorting millions of strings costs several times as much.
    names = sorted(set(account.tolist()))
    row = _positions_in(names, account)
    column = _positions_in(table.instrument_id.tolist(), instrument)
    known = column >= 0

    unknown: dict[str, list[tuple[str, float]]] = {}
    for i in np.flatnonzero(~known & (quantity != 0)):
        unknown.setdefault(str(account[i]), []).append((str(instrument[i]), float(quantity[i])))
    # Sums of duplicates run in the order of value, so that the order of rows cannot reach the last bit.
    row, column, quantity = row[known], column[known], quantity[known]
    if np.any(np.diff(np.sort(row * len(table) + column)) == 0):
        order = np.lexsort((quantity, column, row))
        row, column, quantity = row[order], column[order], quantity[order]
    matrix = sparse.coo_array((quantity, (row, column)), shape=(len(names), len(table))).tocsr()
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return Portfolio(
        np.array(names, dtype=object),
        table,
        matrix,
        {a: f"unknown instrument {p[0][0]}" for a, p in unknown.items()},
        {a: tuple(sorted(p)) for a, p in unknown.items()},
    )
