"""What a method asks of accounts that it cannot value: their standard margin at least, and a note."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float

from pmvar.errors import NumericsError
from pmvar.instruments import Instruments
from pmvar.market.snapshot import MarketSnapshot
from pmvar.methods.standard import standard_margin, unit_requirements
from pmvar.portfolio import Portfolio
from pmvar.types import Kind
from pmvar.valuation.missing import missing_today
from pmvar.valuation.today import STILL, terms_today, values_under

NAMED = 20
"""Accounts that a note names; the others are counted."""


def unpriceable(instruments: Instruments, market: MarketSnapshot) -> dict[int, str]:
    """Row -> reason, of instruments that the market cannot value today, and of bonds, which no venue moves."""
    bonds = {
        int(i): f"{instruments.instrument_id[i]} is a bond, which no scenario of a venue moves"
        for i in np.flatnonzero(instruments.kind == Kind.BOND)
    }
    return bonds | {i: reason for i in range(len(instruments)) if (reason := missing_today(instruments, i, market))}


def value_today(
    instruments: Instruments, market: MarketSnapshot, missing: Mapping[int, str]
) -> Float[np.ndarray, " instrument"]:
    """Value of one contract in base currency, NaN for those in `missing`."""
    sound = np.array([i for i in range(len(instruments)) if i not in missing], dtype=np.int64)
    value = np.full(len(instruments), np.nan)
    if len(sound):
        some = instruments.take(sound)
        value[sound] = values_under(some, terms_today(some, market), STILL)[:, 0]
    return value


def debt_margin(
    portfolio: Portfolio,
    market: MarketSnapshot,
    value: Float[np.ndarray, " instrument"],
    scanned: Bool[np.ndarray, " instrument"],
) -> Float[np.ndarray, " account"]:
    """Standard margin of what is owed and not `scanned`: equity counts the debt, this its price's rise."""
    short = unit_requirements(portfolio.instruments, market, value).short
    return np.asarray((-portfolio.quantity).maximum(0) @ np.where(scanned, 0.0, short))


def at_least_standard(
    portfolio: Portfolio,
    market: MarketSnapshot,
    value: Float[np.ndarray, " instrument"],
    missing: Mapping[int, str],
    *margins: Float[np.ndarray, " account"],
) -> tuple[list[Float[np.ndarray, " account"]], tuple[str, ...]]:
    """What to add to each of `margins` of accounts that hold what is unknown or in `missing`, and notes that say so.

    `value` is one contract's in base currency, NaN where nothing prices it. Raises NumericsError if the book has no
    price for a standard margin either.
    """
    reasons = dict(portfolio.withheld)
    for column, reason in missing.items():
        for row in portfolio.quantity[:, [column]].nonzero()[0]:
            reasons.setdefault(str(portfolio.account_id[row]), reason)
    if not reasons:
        return [np.zeros(portfolio.n_accounts) for _ in margins], ()
    affected = np.array([str(a) in reasons for a in portfolio.account_id], dtype=bool)
    standard = standard_margin(portfolio, market, value)
    without = affected & ~(standard > 0)
    if without.any():
        account = str(portfolio.account_id[int(np.argmax(without))])
        raise NumericsError(
            f"account {account} cannot be valued ({reasons[account]}) and the book has no price for a standard margin; "
            "correct market/spots and instruments"
        )
    notes = [f"{a} holds what cannot be valued ({r}): at least the standard margin" for a, r in sorted(reasons.items())]
    more = [f"{len(notes) - NAMED} more accounts hold what cannot be valued"] if len(notes) > NAMED else []
    lifts = [np.where(affected, np.maximum(standard - m, 0.0), 0.0) for m in margins]
    return lifts, (*notes[:NAMED], *more)
