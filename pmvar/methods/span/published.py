"""SPAN by a file's own risk arrays: margins of positions in the contracts that the file lists."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from pmvar.errors import UsageError
from pmvar.market.snapshot import MarketSnapshot
from pmvar.methods.fallback import at_least_standard, debt_margin, unpriceable, value_today
from pmvar.methods.result import Method, MethodMargin, Step
from pmvar.methods.span.aggregate import span_margin
from pmvar.methods.span.arrays import SpanArrays
from pmvar.methods.span.parameters import SpanParameters
from pmvar.portfolio import Portfolio
from pmvar.types import Kind


def published_span(
    contract_id: np.ndarray, arrays: SpanArrays, parameters: SpanParameters, market: MarketSnapshot
) -> Method:
    """SPAN with published arrays; positions are matched by instrument id, and amounts are in base currency.

    What the file does not list counts as what cannot be valued: at least the standard margin. Raises UsageError if a
    commodity's currency is not the base currency.
    """
    other = sorted({c.currency for c in parameters.commodities} - {market.base_currency})
    if other:
        raise UsageError(f"the SPAN file is in {', '.join(other)}, the book in {market.base_currency}")
    place = {str(name): i for i, name in enumerate(contract_id)}

    def margin(portfolio: Portfolio) -> MethodMargin:
        table = portfolio.instruments
        row = np.array([place.get(str(name), -1) for name in table.instrument_id], dtype=np.int64)
        held = sparse.csr_array(portfolio.quantity[:, row >= 0])
        found = span_margin(held, arrays.take(row[row >= 0]), parameters)
        unknown = unpriceable(table, market)
        value = value_today(table, market, unknown)
        missing = {
            i: unknown.get(i, f"{table.instrument_id[i]} is not in the SPAN file")
            for i in np.flatnonzero((row < 0) & (table.kind != Kind.CASH)).tolist()
        }
        debt = debt_margin(portfolio, market, value, table.kind != Kind.CASH)
        (extra, kept), notes = at_least_standard(
            portfolio, market, value, missing, found.initial + debt, found.maintenance + debt
        )
        steps = [
            Step(int(a), "", name, label, float(amount[a]))
            for name, label, amount in (("debt", "balances below zero", debt), ("fallback", "standard margin", extra))
            for a in np.flatnonzero(amount)
        ]
        return MethodMargin(
            "span", parameters.source, found.initial + debt + extra, found.maintenance + debt + kept,
            tuple(sorted((*found.steps, *steps), key=lambda s: (s.account, s.group))),
            (*parameters.notes, "balances above zero are not scanned", *notes),
        )  # fmt: skip

    return margin
