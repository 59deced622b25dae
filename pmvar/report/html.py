"""report.html: a run on one self-contained page, made for a risk officer and for a newcomer."""

from __future__ import annotations

from typing import Any

import numpy as np

from pmvar.report import detail, figures, summary
from pmvar.report.account import Account, build_account, column
from pmvar.report.page import page
from pmvar.report.stress import stress_table
from pmvar.risk.result import MarginResult

FEWEST_POINTS = 3
"""Accounts below which a scatter says nothing that the ranking does not."""


def render(result: MarginResult) -> str:
    """The whole report as HTML: styles and figures inside, no script, no reference to anything elsewhere.

    Cards are drawn for the accounts of `result.details`. Equal results give equal text.
    """
    return page("report.html.j2", **_context(result))


def _context(result: MarginResult) -> dict[str, Any]:
    margins, settings = result.tables["margins"], result.settings
    model = settings.get("model", {})
    currency = str(settings.get("base_currency", ""))
    accounts: list[Account] = [build_account(result.tables, d.account_id, settings) for d in result.details]
    return {
        "settings": settings,
        "currency": currency,
        "model": model,
        "origin": summary.origin(model),
        "warnings": [note for note in result.notes if "synthetic" in note.lower()],
        "notes": [note for note in result.notes if "synthetic" not in note.lower()],
        "synthetic": summary.synthetic(result.notes),
        "tiles": summary.tiles(result),
        "ranked": summary.ranking(margins),
        "n_accounts": len(column(margins, "account_id")),
        "attention": summary.attention(margins),
        "scatter": _scatter(result, currency),
        "detailed": {d.account_id: place for place, d in enumerate(result.details, start=1)},
        "accounts": [
            detail.detail_view(account, d, place=place, currency=currency)
            for place, (account, d) in enumerate(zip(accounts, result.details, strict=True), start=1)
        ],
        "stress": stress_table(accounts),
        "factors": summary.model_rows(model),
        "flat_settings": summary.flatten(settings),
    }


def _scatter(result: MarginResult, currency: str) -> str:
    """The figure of all accounts, or nothing where too few have a margin to draw."""
    margins = result.tables["margins"]
    isolated, margin = (summary.amounts(margins, name) for name in ("isolated_margin", "initial_margin"))
    # A log axis has no zero; NaN fails both comparisons.
    drawn = np.flatnonzero((isolated > 0) & (margin > 0) & np.isfinite(isolated) & np.isfinite(margin))
    if len(drawn) < FEWEST_POINTS:
        return ""
    return figures.margin_against_isolated(
        isolated[drawn], margin[drawn], column(margins, "status")[drawn], currency=currency
    )
