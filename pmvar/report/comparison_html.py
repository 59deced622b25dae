"""report.html of a comparison: which method asks how much, whom it asks too little, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from pmvar.methods.comparison import MONTE_CARLO, OVER, Verdict
from pmvar.report import comparison_figures as figures
from pmvar.report import summary
from pmvar.report.page import page
from pmvar.risk.result import Columns

if TYPE_CHECKING:
    from pmvar.report.comparison_report import ComparisonReport

LISTED = 8
"""Accounts listed for each method that asks too little, and too much."""


def render(result: ComparisonReport) -> str:
    """The whole report as HTML, without scripts or references elsewhere. Equal results give equal text."""
    return page("comparison.html.j2", **_context(result))


def _context(result: ComparisonReport) -> dict[str, Any]:
    settings, table = result.settings, result.tables["methods"]
    currency = str(settings.get("base_currency", ""))
    flat = result.tables["comparison"]
    of = {str(m): {c: v[flat["method"] == m] for c, v in flat.items()} for m in table["method"]}
    others = [m for m in of if m != MONTE_CARLO]
    return {
        "settings": settings,
        "currency": currency,
        "synthetic": summary.synthetic(result.notes),
        "notes": result.notes,
        "over": OVER,
        "methods": _rows(table),
        "coverage": _rows(result.tables.get("method_coverage", {})),
        "n_accounts": len(of[MONTE_CARLO]["account_id"]),
        "ratios": figures.ratios({m: t["ratio"] for m, t in of.items()}),
        "scatters": [
            figures.scatter(
                of[m]["expected_shortfall"], of[m]["initial_margin"], of[m]["verdict"] == Verdict.UNDER,
                method=m, currency=currency,
            )
            for m in others
        ],
        "apart": [(m, _extremes(of[m], Verdict.UNDER, 1), _extremes(of[m], Verdict.OVER, -1)) for m in others],
        "strategies": _strategies(result),
        "grids": [(g, figures.grid(g, currency=currency), figures.cloud(g)) for g in result.grids],
        "flat_settings": summary.flatten(settings),
    }  # fmt: skip


def _rows(table: Columns) -> list[dict[str, Any]]:
    return [dict(zip(table, row, strict=True)) for row in zip(*table.values(), strict=True)]


def _extremes(table: dict[str, np.ndarray], verdict: Verdict, sign: int) -> list[dict[str, Any]]:
    """Accounts of a verdict: with the largest uncovered mean loss, or the largest excess over the ES."""
    amount = table["uncovered"] if sign > 0 else table["initial_margin"] - table["expected_shortfall"]
    chosen = np.flatnonzero(table["verdict"] == verdict)
    chosen = chosen[np.argsort(-amount[chosen], kind="stable")][:LISTED]
    return [{name: values[i] for name, values in table.items()} for i in chosen]


def _strategies(result: ComparisonReport) -> dict[str, Any]:
    """Strategies as rows, methods as columns: margin over the sum of isolated legs, and the verdict."""
    table = result.tables.get("strategies", {})
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for row in zip(*table.values(), strict=True):
        entry = dict(zip(table, row, strict=True))
        rows.setdefault((entry["strategy"], entry["underlying"]), {})[entry["method"]] = entry
    methods = list(dict.fromkeys(map(str, table.get("method", ()))))
    return {"methods": methods, "rows": [{"name": n, "underlying": u, "by": by} for (n, u), by in rows.items()]}
