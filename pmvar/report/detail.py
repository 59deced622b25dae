"""What the report says of one account: its tail drawn, its margin taken apart, its worst scenarios."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from pmvar.report import figures
from pmvar.report.account import Account, Component
from pmvar.report.format import fixed, held_factors, money
from pmvar.risk.result import AccountDetail

PARAMETERS = 8
"""Parameters of the model shown, those with the largest effect."""
POSITIONS = 10
"""Positions drawn for each account; the rest are summed into one bar."""
FACTORS = 8
"""Factors shown for each scenario: more columns than that do not fit a printed page."""
SCENARIOS = 5
"""Worst scenarios shown."""


def detail_view(account: Account, detail: AccountDetail, *, place: int, currency: str) -> dict[str, Any]:
    """Everything that the template needs for an account's card; `place` is its rank by margin."""
    es = float(account.margin["expected_shortfall"])
    factors = _factors(account)
    shown = account.worst[:SCENARIOS]
    n_factors = len({name for scenario in shown for name in scenario.shocks})
    return {
        "account": account,
        "place": place,
        "facts": _facts(account),
        "loss_figure": _loss_figure(account, detail, place=place, currency=currency),
        "convergence_figure": figures.convergence(
            detail, half_width=account.half_width, name=f"path{place}", currency=currency
        )
        if len(detail.path_counts)
        else "",
        "split": _bars([("spot moves", account.total.spot), ("vol moves", account.total.vol),
                        ("time passing", account.total.time)], es),
        "underlyings": _bars([(c.name, c.expected_shortfall) for c in account.underlyings[:POSITIONS]], es,
                             more=account.underlyings[POSITIONS:], noun="underlyings"),
        "positions": _bars([(c.name, c.expected_shortfall) for c in account.components[:POSITIONS]], es,
                           more=account.components[POSITIONS:], noun="positions"),
        "sum": account.total.expected_shortfall,
        "es": es,
        "parameters": account.parameters[:PARAMETERS],
        "parameters_left": len(account.parameters[PARAMETERS:]),
        "factors": factors,
        "factors_left": n_factors - len(factors),
        "worst": shown,
    }  # fmt: skip


def _loss_figure(account: Account, detail: AccountDetail, *, place: int, currency: str) -> str:
    """The loss distribution, or nothing for an account that was not simulated."""
    if not np.sum(detail.histogram_count) > 0:
        return ""
    return figures.loss_distribution(
        detail,
        name=f"loss{place}",
        value_at_risk=float(account.margin["value_at_risk"]),
        expected_shortfall=float(account.margin["expected_shortfall"]),
        currency=currency,
    )


def _facts(account: Account) -> list[tuple[str, str, str]]:
    """Label, value, remark of the account's figures."""
    m = account.margin
    shortfall, var, alone = (
        f"± {money(account.half_width * float(m[name]))} (95 %)"
        for name in ("es_standard_error", "var_standard_error", "isolated_standard_error")
    )
    return [
        ("Initial margin", money(m["initial_margin"]), _raised(account)),
        ("Maintenance margin", money(m["maintenance_margin"]), ""),
        ("Equity", money(m["equity"]), ""),
        ("Excess", money(m["excess"], sign=True), "equity − initial margin"),
        ("Expected shortfall", money(m["expected_shortfall"]), shortfall),
        ("Value at risk", money(m["value_at_risk"]), var),
        ("Isolated margins", money(m["isolated_margin"]), alone),
    ]


def _raised(account: Account) -> str:
    """What tools against procyclicality and add-ons make of the margin, in words."""
    p, parts = account.protection, []
    if p:
        said = {"current_margin": "current", "stressed_margin": "stressed", "long_run_margin": "ten-year",
                "calculated_margin": "before the buffer"}  # fmt: skip
        parts = [f"{word} {money(p[key])}" for key, word in said.items() if p[key] > 0 or key == "current_margin"]
    if account.add_ons:
        parts.append(f"add-ons {money(sum(a.amount for a in account.add_ons))}")
    return ", ".join(parts)


def _factors(account: Account) -> list[str]:
    """Factors to show, those of the account's largest underlyings first, in pairs of spot and vol."""
    known = list(dict.fromkeys(name for scenario in account.worst for name in scenario.shocks))
    order = {c.name: place for place, c in enumerate(account.underlyings)}
    held = held_factors(known, order)
    # An account of balances alone names no underlying: then the model's first factors are the best guess.
    return sorted(held or known, key=lambda name: order.get(name.rpartition(":")[0], 0))[:FACTORS]


def _bars(
    values: list[tuple[str, float]], whole: float, *, more: tuple[Component, ...] = (), noun: str = ""
) -> list[dict[str, Any]]:
    """Bars about a common zero: left and width in % of the axis, share of `whole` as a fraction."""
    # A balance in base currency loses nothing: it is no part of anything.
    rows = [(name, value) for name, value in values if value] or list(values)
    if more:
        rows.append((f"{fixed(len(more))} more {noun}", sum(c.expected_shortfall for c in more)))
    low = min([0.0, *(v for _, v in rows)])
    high = max([0.0, *(v for _, v in rows)])
    span = (high - low) or 1.0
    return [
        {
            "name": name,
            "value": value,
            "share": value / whole if whole > 0 else math.nan,
            "left": 100 * (min(value, 0.0) - low) / span,
            "width": 100 * abs(value) / span,
            "zero": -100 * low / span,
        }
        for name, value in rows
    ]
