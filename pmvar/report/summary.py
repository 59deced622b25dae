"""What the report says of all accounts together: tiles, ranking, accounts that need attention, the model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pmvar.models.factor_points import kind_and_point
from pmvar.report.account import column
from pmvar.report.format import ABSENT, compact, fixed, horizon, level, percent, significant
from pmvar.risk.result import Columns, MarginResult
from pmvar.types import Status

RANKED = 25
"""Accounts in the ranking."""
UNFOLDED = 12
"""Accounts of each status but OK that are in view; more are folded away."""
LISTED = 250
"""Accounts of each status but OK that are listed at all; the table `margins` holds every one."""
URGENCY = (Status.LIQUIDATION, Status.MARGIN_CALL, Status.WITHHELD)
MEANING = {
    Status.LIQUIDATION: "equity is below the maintenance margin",
    Status.MARGIN_CALL: "equity is below the initial margin, not below the maintenance margin",
    Status.WITHHELD: "no margin came out of the simulation; a substitute stands in its place",
}


def tiles(result: MarginResult) -> list[dict[str, Any]]:
    """Label, value and remark of each summary tile."""
    margins, settings = result.tables["margins"], result.settings
    currency = str(settings.get("base_currency", ""))
    total, alone, saved = (
        float(np.nansum(amounts(margins, n))) for n in ("initial_margin", "isolated_margin", "diversification_benefit")
    )
    status = column(margins, "status")
    counts = {name: int(np.sum(status == name)) for name in Status}
    short = [f"{counts[name]} {name.replace('_', ' ').lower()}" for name in URGENCY if counts[name]]
    benefit = percent(saved / alone if alone > 0 else math.nan)
    tail = f"{level(settings.get('level', math.nan))} level"
    error, remark = _largest_error(margins)
    return [
        _tile("Accounts", fixed(len(status)), f"{fixed(counts[Status.OK])} ok"),
        _tile(
            "Need attention",
            fixed(len(status) - counts[Status.OK]),
            ", ".join(short) or "all hold their margin",
            alarm=bool(short),
        ),
        _tile(f"Initial margin, {currency}", compact(total, 4), "sum over accounts"),
        _tile("Diversification benefit", benefit, f"of {compact(alone, 4)} if each position stood alone"),
        _tile("Largest standard error", error, remark),
        _tile(
            "Scenarios",
            fixed(settings.get("n_scenarios", math.nan)),
            f"over {horizon(settings.get('horizon', ABSENT))}, {tail}",
        ),
    ]


def synthetic(notes: Sequence[str]) -> str:
    """What of the book is made up, by its notes: all of it, or the accounts alone; empty if nothing is."""
    if any(note.lower().startswith("a synthetic book") for note in notes):
        return "Synthetic book"
    return "Synthetic accounts" if any("synthetic" in note.lower() for note in notes) else ""


def _largest_error(margins: Columns) -> tuple[str, str]:
    """The largest standard error of expected shortfall relative to it, and whose it is."""
    es, error = amounts(margins, "expected_shortfall"), amounts(margins, "es_standard_error")
    # Not of withheld accounts, whose margin does not come from the simulation.
    drawn = np.flatnonzero((es > 0) & np.isfinite(error) & (column(margins, "status") != Status.WITHHELD))
    if not len(drawn):
        return ABSENT, "no account was simulated"
    relative = error[drawn] / es[drawn]
    name = str(column(margins, "account_id")[drawn[np.argmax(relative)]])
    return percent(relative.max()), f"of ES, account {name}; median {percent(np.median(relative))}"


def _tile(label: str, value: str, remark: str, *, alarm: bool = False) -> dict[str, Any]:
    return {"label": label, "value": value, "remark": remark, "alarm": alarm}


def amounts(table: Columns, name: str) -> np.ndarray:
    """A numeric column as float64, empty where the table has none."""
    return np.asarray(column(table, name), dtype=np.float64)


def ranking(margins: Columns, count: int = RANKED) -> list[dict[str, Any]]:
    """The accounts with the largest initial margins; `bar` and `ghost` are widths in % of the widest bar."""
    initial = amounts(margins, "initial_margin")
    chosen = np.argsort(-np.nan_to_num(initial, nan=-np.inf), kind="stable")[:count]
    rows = [_row(margins, int(i)) for i in chosen]
    widest = max((x for row in rows for x in (row["initial_margin"], row["isolated_margin"]) if x > 0), default=1.0)
    for row in rows:
        row["bar"], row["ghost"] = (
            100 * max(0.0, float(np.nan_to_num(row[name]))) / widest for name in ("initial_margin", "isolated_margin")
        )
    return rows


def attention(margins: Columns) -> list[dict[str, Any]]:
    """For each status but OK: its accounts, the largest shortfall first; `rest` is to be folded away."""
    status, excess = column(margins, "status"), amounts(margins, "excess")
    groups = []
    for name in URGENCY:
        found = np.flatnonzero(status == name)
        found = found[np.argsort(excess[found], kind="stable")]
        rows = [_row(margins, int(i)) for i in found[:LISTED]]
        if rows:
            groups.append(
                {
                    "status": str(name),
                    "meaning": MEANING[name],
                    "count": len(found),
                    "rows": rows[:UNFOLDED],
                    "rest": rows[UNFOLDED:],
                    "left": len(found) - len(rows),
                }
            )
    return groups


def _row(margins: Columns, i: int) -> dict[str, Any]:
    row = {name: values[i] for name, values in margins.items()}
    es = row["expected_shortfall"]
    row["relative_error"] = row["es_standard_error"] / es if es > 0 else math.nan
    row["coverage"] = row["equity"] / row["initial_margin"] if row["initial_margin"] > 0 else math.nan
    return row


MOVES = {
    "spot": "price", "vol": "implied vol (its logarithm)", "basis": "forward over spot (its logarithm)",
    "rate": "zero rate", "spread": "spread over the zero rates",
}  # fmt: skip
"""What a factor moves, in words."""


def model_rows(model: Mapping[str, Any]) -> list[dict[str, str]]:
    """The factor table: yearly volatility, degrees of freedom, source; tolerant of what a manifest lacks."""
    factors = model.get("factors", ())
    steps = model.get("steps_per_year", 365)
    rows = []
    for factor in factors:
        # A list of bare names is a model whose parameters the run did not record.
        entry = factor if isinstance(factor, Mapping) else {"name": factor}
        name, volatility = str(entry.get("name", "")), entry.get("volatility", math.nan)
        dof = entry.get("degrees_of_freedom")
        gaussian = "Gaussian" if "degrees_of_freedom" in entry else ABSENT
        rows.append({
            "name": name,
            "moves": MOVES.get(kind_and_point(name)[0], ""),
            "step": percent(volatility, 2),
            "year": percent(float(volatility) * math.sqrt(steps), 1),
            "dof": significant(dof, 3) if dof is not None else gaussian,
            "source": source_text(entry.get("source", "")),
            "n_obs": fixed(entry["n_obs"]) if entry.get("n_obs") else ABSENT,
        })  # fmt: skip
    return rows


def source_text(source: Any) -> str:
    """Where parameters come from, in words: a name, or the file and the start of its hash."""
    if isinstance(source, Mapping):
        file, digest = str(source.get("file", "")), str(source.get("sha256", ""))
        return " ".join(part for part in (file, digest and f"sha256 {digest[:12]}…") if part)
    return str(source or "")


def origin(model: Mapping[str, Any]) -> str:
    """`assumed`, `partly assumed` or `calibrated`, from the sources of the factors."""
    sources = [f.get("source", "") for f in model.get("factors", ()) if isinstance(f, Mapping)]
    sources = [str(s) for s in sources if s] or [source_text(model.get("source", ""))]
    assumed = ["assumed" in s for s in sources]
    return "assumed" if all(assumed) else "partly assumed" if any(assumed) else "calibrated" if any(sources) else ""


def flatten(settings: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Settings as (name, text), nested names joined by dots; the factors have a table of their own."""
    rows: list[tuple[str, str]] = []
    for name, value in settings.items():
        path = f"{prefix}{name}"
        if path in ("model.factors", "model.correlation"):
            continue
        if isinstance(value, Mapping):
            rows += flatten(value, f"{path}.")
        elif isinstance(value, (list, tuple)):
            rows.append((path, ", ".join(map(str, value))))
        else:
            rows.append((path, "" if value is None else str(value)))
    return rows
