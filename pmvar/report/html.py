"""report.html: a run on one self-contained page, made for a risk officer and for a newcomer."""

from __future__ import annotations

from importlib import resources
from typing import Any

import numpy as np

from pmvar.report import detail, figures, format, summary
from pmvar.report.account import Account, build_account, column
from pmvar.report.stress import stress_table
from pmvar.risk.result import MarginResult

FEWEST_POINTS = 3
"""Accounts below which a scatter says nothing that the ranking does not."""


def render(result: MarginResult) -> str:
    """The whole report as HTML: styles and figures inside, no script, no reference to anything elsewhere.

    Cards are drawn for the accounts of `result.details`. Equal results give equal text.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    # A str from a table is escaped; only our own style sheet and figures are marked as safe.
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    for name in ("fixed", "significant", "money", "compact", "percent", "level", "move", "moment", "horizon"):
        environment.filters[name] = getattr(format, name)
    environment.filters["safe_figure"] = Markup
    folder = resources.files("pmvar.report")
    template = environment.from_string((folder / "report.html.j2").read_text(encoding="utf-8"))
    style = (folder / "report.css").read_text(encoding="utf-8")
    return template.render(style=Markup(style), **_context(result))


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
