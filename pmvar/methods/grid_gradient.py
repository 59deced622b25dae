"""Derivatives of a grid margin by spot and volatility, account by account."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from pmvar.market.snapshot import MarketSnapshot
from pmvar.methods.fallback import unpriceable
from pmvar.methods.grid import group_initial, held_values, scanned_rows
from pmvar.methods.grid_accounts import UnderlyingRisk, underlying_risk
from pmvar.methods.grid_rules import GridRules
from pmvar.methods.grid_values import GridValues, VenueState, grid_slopes
from pmvar.methods.standard import unit_requirements
from pmvar.portfolio import Portfolio

STEP = 1e-6
"""Along the derivative of the values. A margin is made of them piecewise by sums and products of two, of which a
central difference is the derivative itself."""


class GridGradient(NamedTuple):
    """Of the initial margin by one underlying; NaN for accounts that hold what is unknown or cannot be valued."""

    underlying: str
    log_spot: Float[np.ndarray, " account"]
    """Base currency per unit of ln S: forwards and the settlement coin move along, strikes keep their volatility."""
    vol: Float[np.ndarray, " account"]
    """Base currency per 1.00 of volatility, all strikes and expiries alike."""


def grid_gradient(
    portfolio: Portfolio, market: MarketSnapshot, rules: GridRules, *, state: VenueState | None = None
) -> list[GridGradient]:
    """Derivatives of each account's initial margin by a grid, underlying by underlying: of the worst scenario and its
    charges, whichever of them binds, the minimum, contingencies, factors, and balances below zero.

    It is the derivative wherever the worst is unique (Danskin 1966); where two are equally bad, the mean of both sides.
    """
    state = state or VenueState()
    held = {underlying: (rows, values) for underlying, rows, values in held_values(portfolio, market, rules, state)}

    def risk(underlying: str, values: GridValues) -> UnderlyingRisk:
        quantity = portfolio.quantity[:, held[underlying][0]]
        confidence = state.confidence.get(underlying, 1.0)
        return underlying_risk(quantity, values, rules.class_of(underlying), confidence=confidence)

    risks = {underlying: risk(underlying, values) for underlying, (_, values) in held.items()}
    unknown = _unknown(portfolio, market)
    found = []
    for underlying in sorted({*held, *map(str, portfolio.instruments.underlying)} - {market.base_currency}):
        by_spot, by_vol = _debt_by_log_spot(portfolio, market, rules, underlying), np.zeros(portfolio.n_accounts)
        if underlying in held:
            values = held[underlying][1]
            group = rules.group_of(underlying)
            members = {u: r for u, r in risks.items() if u == underlying or (group and rules.group_of(u) is group)}
            slopes = []
            for slope in grid_slopes(values, market, rules, state):
                up, down = (
                    group_initial(
                        underlying, {**members, underlying: risk(underlying, _moved(values, slope, h))}, rules, state
                    )
                    for h in (STEP, -STEP)
                )
                slopes.append((up - down) / (2 * STEP))
            by_spot, by_vol = by_spot + slopes[0], by_vol + slopes[1]
        found.append(GridGradient(underlying, *(np.where(unknown, np.nan, x) for x in (by_spot, by_vol))))
    return found


def _moved(values: GridValues, slope: GridValues, step: float) -> GridValues:
    moving = ("today", "value", "basis", "delta", "price")
    return replace(values, **{name: getattr(values, name) + step * getattr(slope, name) for name in moving})


def _debt_by_log_spot(
    portfolio: Portfolio, market: MarketSnapshot, rules: GridRules, underlying: str
) -> Float[np.ndarray, " account"]:
    """Of the standard margin of balances below zero outside the scan, a rate of their price."""
    table = portfolio.instruments
    outside = ~scanned_rows(portfolio, rules, market)
    hangs = np.array([underlying in {market.asset[c] for c in market.chain(str(u))} if o else False
                      for u, o in zip(table.underlying, outside, strict=True)], dtype=bool)  # fmt: skip
    short = unit_requirements(table, market, np.zeros(len(table))).short
    return np.asarray((-portfolio.quantity).maximum(0) @ np.where(hangs, short, 0.0))


def _unknown(portfolio: Portfolio, market: MarketSnapshot) -> np.ndarray:
    """Accounts whose margin is the standard margin at least, which has no derivative here."""
    missing = sorted(unpriceable(portfolio.instruments, market))
    lost = np.asarray(abs(portfolio.quantity[:, missing]).sum(axis=1)).ravel() > 0
    return lost | np.isin(portfolio.account_id.astype(str), list(portfolio.withheld))
