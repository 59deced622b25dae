"""Isolated margin: each position by formula, options of one expiry capped by the most they can lose. No netting else.

Short options as Derive's standard margin: initial max(15% − OTM, 13%) of spot, a put at least `PUT_SCALE` times its
maintenance; maintenance 9% of spot, a put 9% of the larger of spot and mark (OTM: the out-of-the-money amount over
spot). Per expiry the smaller of that and the max-loss margin: what the options of the expiry can lose at most by then.
Derive (2024), StandardManager; percentages as recalled. The rule asks for the mark on top, and gives a long option's
value no credit: equity counts both here, so the mark is left out of shorts, and longs need their value.
Futures and perpetuals need `LINEAR_RATE` of their notional.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import sparse

from pmvar.instruments import Instruments
from pmvar.market.snapshot import MarketSnapshot
from pmvar.methods.fallback import at_least_standard, unpriceable, value_today
from pmvar.methods.result import MethodMargin, Step
from pmvar.methods.standard import LEAST, LINEAR_RATE, PUT_MAINTENANCE, RANGE, unit_requirements
from pmvar.portfolio import Portfolio
from pmvar.types import Kind

MAINTENANCE = 0.09
"""Of spot, for a short option."""
PUT_SCALE = 1.0
"""Initial over maintenance margin that a short put needs at least."""
LINEAR_MAINTENANCE = 0.1
"""Of notional."""


class _Line(NamedTuple):
    """One kind of step of all accounts."""

    group: str
    name: str
    label: str
    initial: Float[np.ndarray, " account"]
    maintenance: Float[np.ndarray, " account"]


def isolated_margin(portfolio: Portfolio, market: MarketSnapshot) -> MethodMargin:
    """Margin of every account, position by position, in base currency.

    Accounts that hold what cannot be valued get at least the standard margin. Raises NumericsError if they cannot.
    """
    table, quantity = portfolio.instruments, portfolio.quantity
    missing = unpriceable(table, market)
    value = value_today(table, market, missing)
    unit = _units(table, market, value)
    is_option = table.kind == Kind.OPTION
    linear = np.isin(table.kind, [Kind.FUTURE, Kind.PERPETUAL])
    lines = [
        _Line("", name, "each", *(_sum(quantity, side.long * rows, side.short * rows) for side in unit))
        for name, rows in (("futures", linear), ("balances", ~linear & ~is_option))
    ]
    priced = np.flatnonzero(is_option & np.isfinite(value))
    for underlying, expiry in sorted(set(zip(table.underlying[priced], table.expiry[priced], strict=True))):
        rows = priced[(table.underlying[priced] == underlying) & (table.expiry[priced] == expiry)]
        held = sparse.csr_array(quantity[:, rows])
        worst = _most(held, value[rows], table.take(rows), market)
        initial, maintenance = (_sum(held, side.long[rows], side.short[rows]) for side in unit)
        capped = worst < initial
        for label, own in (("each option", ~capped), ("max loss", capped)):
            amounts = (np.where(own, np.minimum(x, worst), 0.0) for x in (initial, maintenance))
            lines.append(_Line(str(underlying), "options", label, *amounts))
    totals = (np.sum([getattr(line, m) for line in lines], axis=0) for m in ("initial", "maintenance"))
    lifts, notes = at_least_standard(portfolio, market, value, missing, *totals)
    lines.append(_Line("", "fallback", "standard margin", *lifts))
    steps = [
        Step(int(a), line.group, line.name, line.label, float(line.initial[a]))
        for line in lines
        for a in np.flatnonzero(line.initial)
    ]
    return MethodMargin(
        "isolated",
        "Derive's standard margin (2024, percentages as recalled), position by position",
        np.sum([line.initial for line in lines], axis=0),
        np.sum([line.maintenance for line in lines], axis=0),
        tuple(sorted(steps, key=lambda s: (s.account, s.group))),
        notes,
    )


class _Side(NamedTuple):
    """Requirement of one contract in base currency."""

    long: Float[np.ndarray, " instrument"]
    short: Float[np.ndarray, " instrument"]


def _sum(quantity: sparse.csr_array, long: np.ndarray, short: np.ndarray) -> Float[np.ndarray, " account"]:
    """Σ of the requirement on each position's own side; what cannot be valued counts nothing here."""
    one, other = (np.nan_to_num(x, nan=0.0) for x in (long, short))
    return np.asarray(quantity.maximum(0) @ one + (-quantity).maximum(0) @ other)


def _units(
    instruments: Instruments, market: MarketSnapshot, value: Float[np.ndarray, " instrument"]
) -> tuple[_Side, _Side]:
    """Initial and maintenance requirement of one contract, NaN where nothing prices it."""
    standard = unit_requirements(instruments, market, value)
    is_option, is_call = instruments.kind == Kind.OPTION, instruments.put_call == "call"
    size = instruments.contract_size
    spot, strike = (
        np.array([x * market.base_price(a) if o else np.nan for a, o, x in zip(assets, is_option, factor, strict=True)])
        for assets, factor in (
            (instruments.underlying, np.ones(len(instruments))),
            (instruments.quote_currency, instruments.strike),
        )
    )
    mark = value / size
    out = np.maximum(np.where(is_call, strike - spot, spot - strike), 0.0) / spot
    asked = np.maximum(RANGE - out, LEAST) * spot
    kept = np.where(is_call, MAINTENANCE * spot, PUT_MAINTENANCE * np.maximum(spot, mark))
    asked = np.where(is_call, asked, np.maximum(asked, PUT_SCALE * (kept + mark) - mark))
    lower = LINEAR_MAINTENANCE / LINEAR_RATE
    return (
        _Side(np.where(is_option, value, standard.long), np.where(is_option, size * asked, standard.short)),
        _Side(np.where(is_option, value, lower * standard.long),
              np.where(is_option, size * kept, lower * standard.short)),
    )  # fmt: skip


def _most(
    held: sparse.csr_array, value: Float[np.ndarray, " option"], options: Instruments, market: MarketSnapshot
) -> Float[np.ndarray, " account"]:
    """Value today less the least payoff at expiry over all prices; infinite where calls are net short.

    Payoffs are piecewise linear in the price: their least lies at 0, at a strike, or at infinity.
    """
    strike, is_call = options.strike, options.put_call == "call"
    size = options.contract_size * np.array([market.base_price(q) for q in options.quote_currency])
    prices = np.concatenate([[0.0], np.unique(strike)])
    payoff = np.where(is_call[:, None], prices - strike[:, None], strike[:, None] - prices)
    least = np.asarray(held @ (size[:, None] * np.maximum(payoff, 0.0))).min(axis=1)
    slope, gross = np.asarray(held @ (size * is_call)), np.asarray(abs(held) @ (size * is_call))
    return np.where(slope < -1e-12 * gross, np.inf, np.maximum(np.asarray(held @ value) - least, 0.0))
