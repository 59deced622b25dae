"""Derivatives of a grid's scan by spot and volatility, account by account."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from pmvar.market.snapshot import MarketSnapshot
from pmvar.methods.grid import held_values
from pmvar.methods.grid_accounts import scenario_pnl
from pmvar.methods.grid_rules import GridRules
from pmvar.methods.grid_scenarios import Role
from pmvar.methods.grid_values import VenueState, grid_slopes
from pmvar.portfolio import Portfolio

STEP = 1e-6
"""Along the derivative of the values: their weighted sum is piecewise linear, so that the step cancels."""


class GridGradient(NamedTuple):
    """Of the scan of one underlying; 0 where an account has none."""

    underlying: str
    log_spot: Float[np.ndarray, " account"]
    """Base currency per unit of ln S: forwards and the settlement coin move along, strikes keep their volatility."""
    vol: Float[np.ndarray, " account"]
    """Base currency per 1.00 of volatility, all strikes and expiries alike."""


def grid_gradient(
    portfolio: Portfolio, market: MarketSnapshot, rules: GridRules, *, state: VenueState | None = None
) -> list[GridGradient]:
    """Derivatives of each account's worst loss by scenario, before charges and factors, underlying by underlying.

    The active scenario is held, which makes it the derivative wherever the worst is unique (Danskin 1966). Values are
    differentiated automatically. Left out: what cannot be valued, offsets within product groups, the basis charge.
    """
    state = state or VenueState()
    found = []
    for underlying, rows, values in held_values(portfolio, market, rules, state):
        cls, quantity = rules.class_of(underlying), portfolio.quantity[:, rows]
        scanned = np.array([s.role is Role.SCAN for s in cls.scenarios()])
        pnl, _ = scenario_pnl(quantity, values, cls)
        at = np.argmin(np.where(scanned, pnl, np.inf), axis=1)[:, None]
        active = np.take_along_axis(pnl, at, axis=1)
        slopes = []
        for slope in grid_slopes(values, market, rules, state):
            moved = replace(values, today=values.today + STEP * slope.today, value=values.value + STEP * slope.value)
            change = np.take_along_axis(scenario_pnl(quantity, moved, cls)[0], at, axis=1) - active
            slopes.append(np.where(active < 0, -change / STEP, 0.0)[:, 0])
        found.append(GridGradient(underlying, *slopes))
    return found
