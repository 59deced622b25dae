"""Dividends of shares, as American options on them see them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Float

from pmvar.instruments import Instruments
from pmvar.market.snapshot import MarketSnapshot
from pmvar.types import SECONDS_PER_YEAR, Deliverable, Exercise

NEVER = 1e3
"""Years to an ex-date that is none."""


def drops(instruments: Instruments, i: int, market: MarketSnapshot) -> Float[np.ndarray, "dividend 2"]:
    """Years from `as_of` to each ex-date in the life of American option `i`, ascending, and ln of the price before
    over the price after; no rows for other instruments.

    A dividend is the share of the price that its amount is of the forward to its ex-date: it moves with the price.
    """
    paid = market.dividends.get(str(instruments.underlying[i]))
    if paid is None or instruments.exercise[i] != Exercise.AMERICAN or instruments.deliverable[i] == Deliverable.FUTURE:
        return np.zeros((0, 2))
    alive = (paid.ex_date > market.as_of) & (paid.ex_date < instruments.expiry[i]) & (paid.amount > 0)
    when, amount = paid.ex_date[alive], paid.amount[alive]
    share = amount / market.forwards[str(instruments.underlying[i])].at(when)
    return np.stack([(when - market.as_of) / SECONDS_PER_YEAR, -np.log1p(-share)], axis=1)


def all_drops(instruments: Instruments, market: MarketSnapshot) -> Float[np.ndarray, "instrument dividend 2"]:
    """`drops` of every instrument, filled up with none to a power of two: books of similar size share kernels."""
    found = [drops(instruments, i, market) for i in range(len(instruments))]
    most = max(map(len, found), default=0)
    table = np.zeros((len(found), 1 << max(most - 1, 0).bit_length(), 2))
    table[..., 0] = NEVER
    for row, own in zip(table, found, strict=True):
        row[: len(own)] = own
    return table


def paying(instruments: Instruments, market: MarketSnapshot) -> Bool[np.ndarray, " instrument"]:
    """American options with an ex-date in their life."""
    return np.array([len(drops(instruments, i, market)) > 0 for i in range(len(instruments))], bool)
