"""The standard margin: each position alone, by formula; the fallback for accounts that cannot be simulated.

Options as Derive's standard margin: a short call needs max(15% − OTM, 13%) of spot plus its mark, a short put the
larger of that and 9% of the larger of spot and mark, plus its mark; long options nothing. Derive (2024),
StandardManager, percentages as recalled. Futures, perpetuals, bonds and debts need `LINEAR_RATE` of their notional.
Where nothing prices, the full notional.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from pmvar.instruments import Instruments
from pmvar.market.snapshot import MarketSnapshot
from pmvar.portfolio import Portfolio
from pmvar.types import OPTION_KINDS, Kind, Payoff, Settlement

LINEAR_RATE = 0.15
"""Of notional, for what has no optionality: the option rule's rate at the money."""

RANGE, LEAST, PUT_MAINTENANCE = 0.15, 0.13, 0.09


def _usable(market: MarketSnapshot, name: str) -> float:
    """Base price of an asset, stale ones included; NaN where a link of its chain has none. Of one whose price may be
    zero or less, the size of its moves: price + shift, or shift."""
    price = market.base_unit(name)
    return price if price > 0 else float("nan")


class UnitRequirement(NamedTuple):
    """Of one contract of each instrument, in base currency, finite and ≥ 0."""

    long: Float[np.ndarray, " instrument"]
    short: Float[np.ndarray, " instrument"]
    notional: Float[np.ndarray, " instrument"]
    """Where no price is usable, the largest of the book."""


def unit_requirements(
    instruments: Instruments, market: MarketSnapshot, value: Float[np.ndarray, " instrument"]
) -> UnitRequirement:
    """Requirement of one contract of each instrument, held alone.

    `value` is one contract's value in base currency, NaN where nothing prices it.
    """
    n = len(instruments)
    long, short, notional = np.zeros(n), np.zeros(n), np.full(n, np.nan)
    for i in range(n):
        kind, size = instruments.kind[i], float(instruments.contract_size[i])
        # A bond's contract is an amount of its currency; its issuer has no price.
        of = instruments.quote_currency[i] if kind == Kind.BOND else instruments.underlying[i]
        price = _usable(market, of)
        if kind in (Kind.FUTURE, Kind.PERPETUAL) and instruments.settlement[i] == Settlement.INVERSE:
            price = _usable(market, instruments.quote_currency[i])
        quote = _usable(market, instruments.quote_currency[i])
        if instruments.settlement[i] == Settlement.QUANTO:
            # Both as if the settlement currency at its fixed rate were the quote currency.
            paid = instruments.fx_rate[i] * _usable(market, instruments.settlement_currency[i])
            price, quote = price / quote * paid, paid
        notional[i] = size * price
        if kind == Kind.DIGITAL:
            # All that it may pay.
            cash = instruments.payoff[i] == Payoff.CASH_OR_NOTHING
            notional[i] = short[i] = size * (quote if cash else np.fmax(price, instruments.strike[i] * quote))
        elif kind in OPTION_KINDS:
            # Both in base currency per unit of the underlying.
            strike = instruments.strike[i] * quote
            if instruments.underlying[i] in market.scales:
                spot = market.spot[market.column(instruments.underlying[i])]
                strike = price + (instruments.strike[i] - spot) * quote
            notional[i] = size * np.fmax(price, strike)
            call = instruments.put_call[i] == "call"
            out_of_money = max((strike - price if call else price - strike) / price, 0.0)
            mark = value[i] / size
            need = max(RANGE - out_of_money, LEAST) * price + mark
            short[i] = size * (need if call else max(need, PUT_MAINTENANCE * max(price, mark) + mark))
            short[i] += size * quote * float(np.nan_to_num(instruments.rebate[i], nan=0.0))
        elif kind in (Kind.FUTURE, Kind.PERPETUAL, Kind.BOND):
            long[i] = short[i] = LINEAR_RATE * notional[i]
        elif instruments.underlying[i] != market.base_currency:
            # A debt counts against equity already; what it needs is room for its price to rise.
            short[i] = LINEAR_RATE * notional[i]
    known = notional[np.isfinite(notional)]
    largest = float(known.max()) if known.size else 0.0
    full = np.where(np.isfinite(notional), notional, largest)
    unpriced = ~np.isfinite(value)
    long = np.where(unpriced | ~np.isfinite(long), full, long)
    short = np.where(unpriced | ~np.isfinite(short), full, short)
    return UnitRequirement(long, short, full)


def standard_margin(
    portfolio: Portfolio, market: MarketSnapshot, value: Float[np.ndarray, " instrument"]
) -> Float[np.ndarray, " account"]:
    """Standard margin of every account in base currency; unknown instruments at the largest notional of the book."""
    unit = unit_requirements(portfolio.instruments, market, value)
    matrix = portfolio.quantity
    margin = matrix.maximum(0) @ unit.long + (-matrix).maximum(0) @ unit.short
    largest = float(unit.notional.max(initial=0.0))
    place = {str(a): i for i, a in enumerate(portfolio.account_id)}
    for account, positions in portfolio.unknown.items():
        margin[place[account]] += sum(abs(q) for _, q in positions) * largest
    return np.asarray(margin)
