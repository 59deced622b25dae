"""Isolated margin: each position by formula, options of one expiry capped by the most they can lose. No netting else.

Derive's standard margin: a short option needs max(15% − OTM, 13%) of spot, a put at least `PUT_SCALE` times its
maintenance; maintenance 9% of spot, a put 9% of the larger of spot and mark (OTM: the out-of-the-money amount over
spot). Per expiry the smaller of that and the max-loss margin: the largest loss at expiry over all strikes and a price
of 0, and `UNPAIRED` of the forward for every net short call. Futures and perpetuals need a rate of their notional.
The rule asks for a short option's mark on top, and gives a long one's value no credit: equity counts both here, so the
mark is left out of shorts, and longs need their value.
Source: derivexyz/v2-core, StandardManager.sol and config-mainnet.sol (2025).
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
from pmvar.methods.standard import LEAST, PUT_MAINTENANCE, RANGE, unit_requirements
from pmvar.portfolio import Portfolio
from pmvar.types import OPTION_KINDS, Kind


class Rates(NamedTuple):
    """What differs between initial and maintenance margin."""

    unpaired: float
    """Of the forward, for every net short call."""
    major: float
    """Of the notional of futures and perpetuals on `MAJORS`."""
    other: float


INITIAL, MAINTENANCE = Rates(1.2, 0.1, 0.2), Rates(1.1, 0.065, 0.1)
MAJORS = ("BTC", "ETH")
OPTION_MAINTENANCE = 0.09
"""Of spot, for a short option."""
PUT_SCALE = 1.05
"""Initial over maintenance margin, mark included, that a short put needs at least."""


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
    is_option, other = table.kind == Kind.OPTION, np.isin(table.kind, OPTION_KINDS[1:])
    linear = np.isin(table.kind, [Kind.FUTURE, Kind.PERPETUAL])
    lines = [
        _Line("", name, "each", *(_sum(quantity, side.long * rows, side.short * rows) for side in unit))
        for name, rows in (("futures", linear), ("other options", other), ("balances", ~linear & ~is_option & ~other))
    ]
    priced = np.flatnonzero(is_option & np.isfinite(value))
    # A strike in dollars and one in another currency bound no common loss.
    keys = list(zip(table.underlying, table.expiry, table.quote_currency, strict=True))
    for key in sorted({keys[i] for i in priced}):
        rows = np.array([i for i in priced if keys[i] == key], dtype=np.int64)
        held = sparse.csr_array(quantity[:, rows])
        each = [_sum(held, side.long[rows], side.short[rows]) for side in unit]
        most = [_most(held, value[rows], table.take(rows), market, rates.unpaired) for rates in (INITIAL, MAINTENANCE)]
        capped = most[0] < each[0]
        for label, own in (("each option", ~capped), ("max loss", capped)):
            amounts = (np.where(own, np.minimum(one, other), 0.0) for one, other in zip(each, most, strict=True))
            lines.append(_Line(str(key[0]), "options", label, *amounts))
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
        "Derive, StandardManager.sol and config-mainnet.sol (2025): position by position",
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
    beyond = strike - spot
    for i in np.flatnonzero(is_option & np.isin(instruments.underlying.astype(str), list(market.scales))):
        # The size of the price's moves stands for the price.
        name, quote = str(instruments.underlying[i]), market.base_price(str(instruments.quote_currency[i]))
        spot[i], beyond[i] = market.base_unit(name), (strike[i] / quote - market.spot[market.column(name)]) * quote
    mark = value / size
    out = np.maximum(np.where(is_call, beyond, -beyond), 0.0) / spot
    asked = np.maximum(RANGE - out, LEAST) * spot
    kept = np.where(is_call, OPTION_MAINTENANCE * spot, PUT_MAINTENANCE * np.maximum(spot, mark))
    asked = np.where(is_call, asked, np.maximum(asked, PUT_SCALE * (kept + mark) - mark))
    margined, carried = (np.isin(instruments.kind, kinds) for kinds in ((Kind.FUTURE, Kind.PERPETUAL), OPTION_KINDS))
    is_major = np.isin(instruments.underlying, MAJORS)

    def side(rates: Rates, short: np.ndarray) -> _Side:
        linear = standard.notional * np.where(is_major, rates.major, rates.other)
        return _Side(
            np.where(carried, value, np.where(margined, linear, standard.long)),
            np.where(is_option, size * short, np.where(margined, linear, standard.short)),
        )

    return side(INITIAL, asked), side(MAINTENANCE, kept)


def _most(
    held: sparse.csr_array,
    value: Float[np.ndarray, " option"],
    options: Instruments,
    market: MarketSnapshot,
    unpaired: float,
) -> Float[np.ndarray, " account"]:
    """Value today less the least payoff at expiry over a price of 0 and all strikes, and a share of the forward for
    every net short call, where a loss has no bound; a shifted price ends at −shift, a Bachelier one falls without."""
    strike, is_call = options.strike, options.put_call == "call"
    size = options.contract_size * np.array([market.base_price(q) for q in options.quote_currency])
    scale = market.scale(str(options.underlying[0]))
    prices = np.unique(strike) if scale.is_linear else np.concatenate([[-scale.shift], np.unique(strike)])
    payoff = np.where(is_call[:, None], prices - strike[:, None], strike[:, None] - prices)
    least = np.asarray(held @ (size[:, None] * np.maximum(payoff, 0.0))).min(axis=1)
    forward = float(market.forwards[options.underlying[0]].at(float(options.expiry[0])))
    naked = np.maximum(-np.asarray(held @ (size * is_call)), 0.0)
    if scale.is_linear:
        naked += np.maximum(-np.asarray(held @ (size * ~is_call)), 0.0)
    return np.maximum(np.asarray(held @ value) - least + unpaired * float(scale.unit(forward)) * naked, 0.0)
