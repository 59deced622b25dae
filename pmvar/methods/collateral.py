"""Collateral factors: every asset counts at a share of its value that its volatility decides, and nothing hedges.

As lending protocols do it: what an account holds in one asset is netted, and then needs haircut × |exposure|, the
haircut being the 99% quantile of the size of the asset's move over the horizon, by the model of the run. Futures and
perpetuals count by their notional, a short option by that of its underlying, a long option by its whole value.
"""

from __future__ import annotations

import numpy as np

from pmvar.market.snapshot import MarketSnapshot
from pmvar.methods.fallback import at_least_standard, unpriceable, value_today
from pmvar.methods.result import MethodMargin, Origin, Step
from pmvar.methods.span.default import scan_ranges
from pmvar.methods.standard import unit_requirements
from pmvar.portfolio import Portfolio
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import OPTION_KINDS, FactorKind, factor_name

QUANTILE = 0.99
MAINTENANCE = 0.8
"""Maintenance over initial margin."""


def collateral_margin(portfolio: Portfolio, market: MarketSnapshot, scenarios: ScenarioSet) -> MethodMargin:
    """Margin of every account with haircuts from `scenarios`, in base currency.

    Accounts that hold what cannot be valued, or what no factor moves, get at least the standard margin.
    """
    table, quantity = portfolio.instruments, portfolio.quantity
    missing = unpriceable(table, market)
    for i in range(len(table)):
        factor = factor_name(table.underlying[i], FactorKind.SPOT)
        if table.underlying[i] != market.base_currency and factor not in scenarios.factors:
            missing.setdefault(i, f"the model has no factor {factor}")
    value = value_today(table, market, missing)
    notional = unit_requirements(table, market, value).notional
    is_option = np.isin(table.kind, OPTION_KINDS)
    sound = np.array([i not in missing for i in range(len(table))], dtype=bool)
    steps: list[Step] = []
    total, cuts = np.zeros(portfolio.n_accounts), []
    for underlying in sorted(set(map(str, table.underlying[sound])) - {market.base_currency}):
        rows = np.flatnonzero(sound & (table.underlying == underlying))
        held, own = quantity[:, rows], is_option[rows]
        haircut = min(scan_ranges(scenarios, underlying, QUANTILE).price, 1.0)
        cuts.append(f"{underlying} {haircut:.1%}")
        for name, label, amount in (
            ("net exposure", f"haircut {haircut:.1%}", haircut * np.abs(held @ np.where(own, 0.0, notional[rows]))),
            ("short options", f"haircut {haircut:.1%}", haircut * ((-held).maximum(0) @ (notional[rows] * own))),
            ("long options", "value", held.maximum(0) @ (value[rows] * own)),
        ):
            total = total + amount
            steps += [Step(int(a), underlying, name, label, float(amount[a])) for a in np.flatnonzero(amount)]
    (extra, kept), notes = at_least_standard(portfolio, market, value, missing, total, MAINTENANCE * total)
    steps += [Step(int(a), "", "fallback", "standard margin", float(extra[a])) for a in np.flatnonzero(extra)]
    return MethodMargin(
        "collateral",
        f"haircut by volatility, the model's 99% move: {', '.join(cuts)}",
        total + extra,
        MAINTENANCE * total + kept,
        tuple(sorted(steps, key=lambda s: (s.account, s.group))),
        notes,
        QUANTILE,
        Origin.MODEL,
    )
