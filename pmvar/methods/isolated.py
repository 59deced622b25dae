"""Isolated baselines: every position alone under a grid, and Derive's standard margin, expiry by expiry.

Both are requirements against equity that holds the options' value, like all of `MethodMargin`. Derive states its
standard margin against cash: a requirement here is its margin plus the value held.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import sparse

from pmvar.errors import NumericsError
from pmvar.market.snapshot import MarketSnapshot
from pmvar.methods.grid import grid_margin
from pmvar.methods.grid_rules import GridRules
from pmvar.methods.grid_values import VenueState
from pmvar.methods.result import MethodMargin, Step
from pmvar.methods.standard import LEAST, PUT_MAINTENANCE, RANGE, standard_margin, unit_requirements
from pmvar.portfolio import Portfolio
from pmvar.types import Kind, PutCall, Settlement
from pmvar.valuation.plan import missing_today
from pmvar.valuation.today import values_and_greeks

CALL_MAINTENANCE = 0.09
"""Of spot, for a short call."""

PUT_SCALE = 1.05
"""The initial margin of a short put is at least this times its maintenance margin."""


class Rates(NamedTuple):
    """What differs between the initial and the maintenance margin."""

    unpaired: float
    """Of the forward for every net short call, where a loss has no bound."""
    major: float
    """Of the notional of futures and perpetuals on `MAJORS`."""
    other: float


INITIAL, MAINTENANCE = Rates(1.2, 0.1, 0.2), Rates(1.1, 0.065, 0.1)
MAJORS = ("BTC", "ETH")
SOURCE = "Derive, StandardManager.sol and config-mainnet.sol, derivexyz/v2-core (2025)"


def gross_margin(
    portfolio: Portfolio, market: MarketSnapshot, rules: GridRules, *, state: VenueState | None = None
) -> MethodMargin:
    """Sum over positions and balances of the grid margin that each would need as an account of its own."""
    entries = portfolio.quantity.tocoo()
    n = len(entries.data)
    strangers = [i for i, a in enumerate(portfolio.account_id) if str(a) in portfolio.unknown]
    owner = np.concatenate([entries.row, np.array(strangers, dtype=entries.row.dtype)])
    names = np.array([f"{i:012d}" for i in range(len(owner))], dtype=object)
    unknown = {names[n + j]: portfolio.unknown[str(portfolio.account_id[i])] for j, i in enumerate(strangers)}
    alone = Portfolio(
        names,
        portfolio.instruments,
        sparse.csr_array((entries.data, (np.arange(n), entries.col)), shape=(len(owner), len(portfolio.instruments))),
        {name: f"unknown instrument {held[0][0]}" for name, held in unknown.items()},
        unknown,
    )
    each = grid_margin(alone, market, rules, state=state)
    table = portfolio.instruments
    steps = []
    for i in np.flatnonzero(each.initial).tolist():
        group, label = ("", "unknown instruments")
        if i < n:
            group, label = str(table.underlying[entries.col[i]]), str(table.instrument_id[entries.col[i]])
        steps.append(Step(int(owner[i]), group, "position", label, float(each.initial[i])))
    accounts = portfolio.n_accounts
    doubtful = sorted({str(table.instrument_id[i]) for i in range(len(table)) if missing_today(table, i, market)})
    notes = (f"positions in {', '.join(doubtful[:20])} have their standard margin",) if doubtful else ()
    return MethodMargin(
        f"{rules.name}-gross",
        f"each position alone: {each.source}",
        np.bincount(owner, each.initial, minlength=accounts),
        np.bincount(owner, each.maintenance, minlength=accounts),
        tuple(sorted(steps, key=lambda s: (s.account, s.group, s.label))),
        rules.notes + notes,
    )


def derive_standard_margin(portfolio: Portfolio, market: MarketSnapshot) -> MethodMargin:
    """Derive's standard margin of every account, base currency; source: `SOURCE`.

    Per underlying and expiry of options, the smaller of two: short options one by one, long ones worth nothing; or the
    largest loss at expiry, over all strikes and a price of 0, plus 120% (maintenance 110%) of the forward for every net
    short call. Futures and perpetuals need a rate of their notional. Spots and balances below zero, and accounts that
    hold what cannot be valued, need what `standard_margin` says. Raises NumericsError if a margin is not finite.
    """
    if not np.isfinite(portfolio.quantity.data).all():
        raise NumericsError("a position has a quantity that is not finite; correct positions and balances")
    table = portfolio.instruments
    missing = {i: reason for i in range(len(table)) if (reason := missing_today(table, i, market))}
    priced = np.array([i for i in range(len(table)) if i not in missing], dtype=np.int64)
    value = np.full(len(table), np.nan)
    if len(priced):
        value[priced], _ = values_and_greeks(table.take(priced), market)
    margins, steps = [], []
    for rates in (INITIAL, MAINTENANCE):
        parts = list(_parts(portfolio, market, value, priced, rates))
        total = sum((amount for _, _, _, amount in parts), np.zeros(portfolio.n_accounts))
        lift = _lift(portfolio, market, value, missing, total)
        parts.append(("", "fallback", "standard margin", lift))
        margins.append(total + lift)
        if rates is INITIAL:
            steps = [
                Step(account, group, name, label, float(amount[account]))
                for group, name, label, amount in parts
                for account in np.flatnonzero(amount).tolist()
            ]
    if not np.isfinite(margins).all():
        raise NumericsError("a standard margin is not finite; correct positions and the market's prices")
    reasons = sorted(set(missing.values()) | set(portfolio.withheld.values()))
    notes = tuple(f"{reason}: at least the standard margin" for reason in reasons[:20])
    ordered = tuple(sorted(steps, key=lambda s: (s.account, s.group)))
    return MethodMargin("standard", SOURCE, margins[0], margins[1], ordered, notes)


Part = tuple[str, str, str, Float[np.ndarray, " account"]]
"""Group, name, label and amount of a step, for all accounts."""


def _parts(
    portfolio: Portfolio, market: MarketSnapshot, value: np.ndarray, priced: np.ndarray, rates: Rates
) -> list[Part]:
    table, quantity = portfolio.instruments, portfolio.quantity
    found: list[Part] = []
    options = priced[table.kind[priced] == Kind.OPTION]
    # A strike in dollars and one in another currency bound no common loss.
    keys = {i: (str(table.underlying[i]), float(table.expiry[i]), str(table.quote_currency[i])) for i in options}
    for key in sorted(set(keys.values())):
        own = np.array([i for i in options if keys[i] == key], dtype=np.int64)
        underlying, expiry, quote = key
        held, unit = quantity[:, own], market.base_price(quote)
        size, strike = table.contract_size[own] * unit, table.strike[own]
        sign = np.where(table.put_call[own] == PutCall.CALL, 1.0, -1.0)
        short = _short_unit(strike, sign, float(market.spot[market.column(underlying)]), value[own] / size, rates)
        alone = np.asarray((-held).maximum(0) @ (size * short))
        ends = np.unique(np.append(strike, 0.0))
        payoff = size[:, None] * np.maximum(sign[:, None] * (ends - strike[:, None]), 0.0)
        worst = np.minimum(np.asarray(held @ payoff).min(axis=1), 0.0)
        net_calls = np.asarray(held @ (size * (sign > 0)))
        forward = float(market.forwards[underlying].at(expiry))
        bound = -worst + rates.unpaired * forward * np.maximum(-net_calls, 0.0)
        label = np.where(bound < alone, "largest loss", "each alone")
        need = np.maximum(np.minimum(alone, bound) + np.asarray(held @ value[own]), 0.0)
        days = f"{(expiry - market.as_of) / 86_400:.4g}d"
        for text in ("each alone", "largest loss"):
            found.append((underlying, "options", f"{days} {text}", np.where(label == text, need, 0.0)))
    for i in priced[np.isin(table.kind[priced], [Kind.FUTURE, Kind.PERPETUAL])]:
        underlying = str(table.underlying[i])
        inverse = table.settlement[i] == Settlement.INVERSE
        notional = table.contract_size[i] * market.base_price(str(table.quote_currency[i]) if inverse else underlying)
        rate = rates.major if underlying in MAJORS else rates.other
        amount = np.asarray(abs(quantity[:, [int(i)]]).sum(axis=1)).reshape(-1) * notional * rate
        found.append((underlying, "notional", str(table.instrument_id[i]), amount))
    others = np.isin(table.kind, [Kind.SPOT, Kind.CASH])
    unit_short = np.where(others, unit_requirements(table, market, value).short, 0.0)
    found.append(("", "debt", "spots and balances below zero", np.asarray((-quantity).maximum(0) @ unit_short)))
    return found


def _short_unit(
    strike: np.ndarray, sign: np.ndarray, spot: float, mark: np.ndarray, rates: Rates
) -> Float[np.ndarray, " option"]:
    """Cash that one short option per unit of the underlying needs alone, in its quote currency."""
    put_maintenance = PUT_MAINTENANCE * np.maximum(spot, mark) + mark
    if rates is MAINTENANCE:
        return np.where(sign > 0, CALL_MAINTENANCE * spot + mark, put_maintenance)
    out_of_money = np.maximum(sign * (strike - spot) / spot, 0.0)
    initial = np.maximum(RANGE - out_of_money, LEAST) * spot + mark
    return np.where(sign > 0, initial, np.maximum(initial, PUT_SCALE * put_maintenance))


def _lift(
    portfolio: Portfolio, market: MarketSnapshot, value: np.ndarray, missing: dict[int, str], total: np.ndarray
) -> Float[np.ndarray, " account"]:
    """What accounts with unknown or unpriceable positions lack to the standard margin."""
    held = np.asarray(abs(portfolio.quantity[:, sorted(missing)]).sum(axis=1)).reshape(-1) > 0
    affected = held | np.array([str(a) in portfolio.withheld for a in portfolio.account_id], dtype=bool)
    return np.where(affected, np.maximum(standard_margin(portfolio, market, value) - total, 0.0), 0.0)
