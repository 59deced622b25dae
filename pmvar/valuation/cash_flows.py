"""Cash flows of bonds: when they pay and how much, and how factors of a curve reach the times between them."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from pmvar.instruments import Instruments
from pmvar.market.snapshot import MarketSnapshot
from pmvar.models.factor_points import kind_and_point, point_time
from pmvar.types import DAY, SECONDS_PER_YEAR, DayCount, FactorKind, factor_name

MOST_FLOWS = 384
"""Thirty years of monthly coupons, and some."""

FREQUENCIES = (0, 1, 2, 4, 12)

_BASIS = {DayCount.ACTUAL_365: 365.0, DayCount.ACTUAL_360: 360.0}
"""Days of a year, where the coupon grows by the days that pass."""


class CashFlows(NamedTuple):
    """What one bond pays after `as_of`."""

    time: Float[np.ndarray, " flow"]
    """Epoch seconds, increasing; the last is the maturity."""
    amount: Float[np.ndarray, " flow"]
    """Quote currency per contract."""


def cash_flows(instruments: Instruments, i: int, as_of: float) -> CashFlows:
    """Payments of bond `i` after `as_of` (epoch seconds).

    Coupons fall on the maturity's day of the month, or the last of a shorter month, counted back from it; no day is
    moved by a weekend. Each pays its whole period: `30/360` and `act/act` (ICMA Rule 251) the same share of a year.
    """
    face, maturity = float(instruments.contract_size[i]), float(instruments.expiry[i])
    frequency = int(instruments.frequency[i])
    if frequency == 0:
        return CashFlows(np.array([maturity]), np.array([face]))
    end = datetime.fromtimestamp(maturity, UTC)
    dates = [maturity]
    while dates[-1] > as_of:
        dates.append(_months_before(end, len(dates) * 12 // frequency))
    time = np.array(dates[::-1])
    basis = _BASIS.get(DayCount(instruments.day_count[i]))
    year = np.full(len(time) - 1, 1 / frequency) if basis is None else np.diff(time) / DAY / basis
    amount = face * float(instruments.coupon[i]) * year
    amount[-1] += face
    return CashFlows(time[1:], amount)


def _months_before(end: datetime, months: int) -> float:
    year, month = divmod(end.year * 12 + end.month - 1 - months, 12)
    day = min(end.day, monthrange(year, month + 1)[1])
    return end.replace(year=year, month=month + 1, day=day).timestamp()


def rate_factors(currency: str, factors: Sequence[str]) -> list[str]:
    """Those of `factors` that move the zero rates of `currency`, by tenor."""
    found = [f for f in factors if f.rpartition(":")[0] == currency and kind_and_point(f)[0] == FactorKind.RATE]
    return sorted(found, key=lambda f: point_time(kind_and_point(f)[1], 0.0))


def curve_factors(instruments: Instruments, i: int, factors: Sequence[str]) -> list[str]:
    """Those of `factors` that bond `i` is valued by: its currency's rates, and last its issuer's spread."""
    spread = factor_name(instruments.underlying[i], FactorKind.SPREAD)
    return rate_factors(instruments.quote_currency[i], factors) + [spread] * (spread in factors)


def between(
    seconds: Float[np.ndarray, "*flow"], rates: Sequence[str]
) -> tuple[Int[np.ndarray, "*flow"], Int[np.ndarray, "*flow"], Float[np.ndarray, "*flow"]]:
    """The factors of `rates` before and after times (seconds from when they move), and the weight of the later one.

    Moves are linear in time between tenors and flat beyond the first and the last.
    """
    at = np.array([point_time(kind_and_point(f)[1], 0.0) for f in rates])
    high = np.clip(np.searchsorted(at, seconds), 0, len(at) - 1)
    low = np.where(seconds >= at[-1], high, np.maximum(high - 1, 0))
    width = at[high] - at[low]
    return low, high, np.where(width > 0, (seconds - at[low]) / np.where(width > 0, width, 1.0), 0.0)


def pad(flows: Sequence[CashFlows], width: int) -> tuple[np.ndarray, np.ndarray]:
    """Times and amounts [bond, flow] filled up to `width` with the last time and nothing paid."""
    time = np.stack([np.pad(f.time, (0, width - len(f.time)), mode="edge") for f in flows])
    return time, np.stack([np.pad(f.amount, (0, width - len(f.amount))) for f in flows])


def bond_terms(instruments: Instruments, market: MarketSnapshot) -> Float[np.ndarray, "bond flow 3"]:
    """Amount (quote currency), years from `as_of` and zero rate with the issuer's spread (per year) of each flow."""
    flows = [cash_flows(instruments, i, market.as_of) for i in range(len(instruments))]
    time, amount = pad(flows, max(len(f.time) for f in flows))
    year = (time - market.as_of) / SECONDS_PER_YEAR
    rate = np.zeros_like(year)
    for i in range(len(instruments)):
        discount = market.discounts[instruments.quote_currency[i]].discount_factor(time[i])
        rate[i] = -np.log(discount) / year[i] + market.spread[instruments.underlying[i]]
    return np.stack([amount, year, rate], axis=-1)


def key_rates(
    instruments: Instruments, market: MarketSnapshot, factors: Sequence[str]
) -> dict[str, Float[np.ndarray, " bond"]]:
    """Derivative of each bond's value, base currency, by each of `factors` that it is valued by, per 1.00.

    Where none of them is a rate of its currency, by all its zero rates together, as `<currency>:rate`.
    """
    terms, out = bond_terms(instruments, market), {}
    amount, year, rate = terms[..., 0], terms[..., 1], terms[..., 2]
    settled = np.array([market.base_price(c) for c in instruments.settlement_currency])
    slope = -settled[:, None] * amount * year * np.exp(-rate * year)

    def put(name: str, i: int, value: float) -> None:
        out.setdefault(name, np.zeros(len(instruments)))[i] += value

    for i in range(len(instruments)):
        currency = instruments.quote_currency[i]
        rates = rate_factors(currency, factors)
        put(factor_name(instruments.underlying[i], FactorKind.SPREAD), i, float(slope[i].sum()))
        if not rates:
            put(f"{currency}:rate", i, float(slope[i].sum()))
            continue
        low, high, weight = between(year[i] * SECONDS_PER_YEAR, rates)
        for j in range(len(year[i])):
            put(rates[low[j]], i, float(slope[i, j] * (1 - weight[j])))
            put(rates[high[j]], i, float(slope[i, j] * weight[j]))
    return out
