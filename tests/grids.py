"""Books and formulas for tests of grid margins: Black's price and the closed forms in plain NumPy."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.stats import norm

from pmvar.market.curves import DiscountCurve, ForwardCurve
from pmvar.market.snapshot import MarketSnapshot
from pmvar.methods.grid import grid_margin
from pmvar.methods.grid_file import load_rules
from pmvar.methods.grid_rules import GridRules
from pmvar.methods.grid_values import VenueState
from pmvar.methods.result import MethodMargin
from pmvar.portfolio import Portfolio
from tests.markets import AS_OF, YEAR, flat_vol, portfolio, snapshot, table

MINIMAL = """
format = 1
name = "venue"
date = 2025-01-31
source = "a test"
coin = "moves"
balances = "outside"
[[classes]]
name = "all"
underlyings = ["*"]
[[classes.grid]]
moves = [-0.1, 0.0, 0.2]
vols = ["flat"]
"""
"""A venue file with nothing but moves of the price."""


def black(
    forward: float, strike: float, sigma: float, time: float, *, put_call: str = "call", rate: float = 0.0
) -> float:
    """Black (1976), discounted at `rate`; `time` in years."""
    s = max(sigma, 1e-12) * np.sqrt(time)
    d1, sign = np.log(forward / strike) / s + s / 2, 1.0 if put_call == "call" else -1.0
    value = sign * (forward * norm.cdf(sign * d1) - strike * norm.cdf(sign * (d1 - s)))
    return float(np.exp(-rate * time) * value)


def one_expiry(
    underlying: str,
    *,
    spot: float,
    forward: float,
    time: float,
    vol: float,
    rate: float | None = None,
) -> MarketSnapshot:
    """One underlying in dollars with one expiry `time` years away, a flat smile and, if given, a flat rate."""
    expiry = np.array([AS_OF + time * YEAR])
    return snapshot(
        {underlying: (spot, "USD")},
        forwards={underlying: ForwardCurve(AS_OF, spot, expiry, np.array([forward]))},
        discounts={} if rate is None else {"USD": DiscountCurve(AS_OF, expiry, np.array([rate]))},
        vols={underlying: flat_vol(vol)},
    )


def book(rows: Sequence[Mapping[str, Any]], positions: Mapping[str, float]) -> Portfolio:
    """One account `a` over a table of instruments."""
    return portfolio(table(rows), {"a": positions})


def margin(
    held: Portfolio, market: MarketSnapshot, rules: str | GridRules, state: VenueState | None = None
) -> MethodMargin:
    """Grid margin by rules or by the name of a venue."""
    return grid_margin(held, market, load_rules(rules) if isinstance(rules, str) else rules, state=state)


def steps(found: MethodMargin, account: int = 0) -> dict[str, tuple[str, float]]:
    """Step name -> (label, amount) of an account with one underlying."""
    return {s.name: (s.label, s.amount) for s in found.steps if s.account == account}


def with_values(text: str, **changes: str) -> str:
    """A venue file's text with the lines of some keys replaced; a key that is not there is put on top."""
    lines = text.strip().splitlines()
    for key, value in changes.items():
        at = [i for i, line in enumerate(lines) if line.startswith(f"{key} =")]
        if at:
            lines[at[0]] = f"{key} = {value}"
        else:
            lines.insert(0, f"{key} = {value}")
    return "\n".join(lines) + "\n"
