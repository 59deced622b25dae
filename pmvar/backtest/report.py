"""BacktestReport: which models would have held, which can publish itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pmvar.backtest import figures
from pmvar.backtest.evaluate import SIZE, TABLES
from pmvar.io.run import write_run
from pmvar.report import summary
from pmvar.report.page import page
from pmvar.risk.result import MarginResult

DRAWN = ("all long", "all short")
"""Accounts drawn where they are there; else the first ones."""


@dataclass(frozen=True)
class BacktestReport(MarginResult):
    """Tables of a backtest (see `TABLES`); `write` publishes them."""

    def write(
        self, path: str | Path, *, inputs: Mapping[str, str] | None = None, table_format: str = "parquet"
    ) -> Path:
        """Publish tables, manifest.json and report.html as the folder `path`, all or nothing, as a run does."""
        return write_run(
            path, self, report_html=render(self), inputs=inputs or {}, table_format=table_format, columns=TABLES
        )


def render(result: MarginResult) -> str:
    """The whole report as HTML, without scripts or references elsewhere. Equal results give equal text."""
    return page("backtest.html.j2", **_context(result))


def _context(result: MarginResult) -> dict[str, Any]:
    tables, settings = result.tables, result.settings
    rows = {name: [dict(zip(t, r, strict=True)) for r in zip(*t.values(), strict=True)] for name, t in tables.items()
            if name != "days"}  # fmt: skip
    models = [str(m["model"]) for m in rows["models"]]
    names = [str(a) for a in dict.fromkeys(tables["accounts"]["account_id"].tolist())]
    shown = [a for a in DRAWN if a in names] or names[:2]
    of = {m: _rows(tables["days"], tables["days"]["model"] == m) for m in models}
    currency = str(settings.get("base_currency", ""))
    return {
        "settings": settings,
        "currency": currency,
        "size": SIZE,
        "notes": result.notes,
        "models": rows["models"],
        "classes": list(dict.fromkeys(r["account_class"] for r in rows["classes"])),
        "by_class": {(r["model"], r["account_class"]): r for r in rows["classes"]},
        "tools": rows["tools"],
        "comparisons": rows["comparisons"],
        "uniform": figures.probabilities({m: t["probability"] for m, t in of.items()}, level=settings["level"]),
        "over_time": [
            (
                a,
                figures.over_time(
                    {m: _rows(t, t["account_id"] == a) for m, t in of.items()}, name=a, currency=currency
                ),
            )
            for a in shown
        ],
        "worst": sorted(rows["accounts"], key=lambda r: (r["z2_p"], r["kupiec_p"], r["account_id"]))[:20],
        "flat_settings": summary.flatten(settings),
    }


def _rows(table: Mapping[str, np.ndarray], mask: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[mask] for name, values in table.items()}
