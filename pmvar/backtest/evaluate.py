"""What a backtest's days say of its models: tests, scores and metrics of every account, and a verdict."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from itertools import combinations
from typing import Any

import numpy as np
from jaxtyping import Float

from pmvar.backtest.coverage import conditional_coverage, kupiec, kupiec_power, traffic_light
from pmvar.backtest.days import Days
from pmvar.backtest.metrics import RISE_DAYS, margin_metrics
from pmvar.backtest.rolling import Schedule
from pmvar.backtest.score import diebold_mariano, fz0_score
from pmvar.backtest.shortfall import first_statistic, second_statistic, simulated_p_value, tail_sums
from pmvar.backtest.step import STEP_DAYS, step_response
from pmvar.io.times import format_day
from pmvar.risk.result import Columns

SIZE = 0.05
"""Of each test."""

TABLES: Mapping[str, tuple[str, ...]] = {
    "accounts": (
        "account_id", "model", "account_class", "periods", "breaches", "expected_breaches", "kupiec_p", "conditional_p",
        "zone", "z1", "z1_p", "z2", "z2_p", "coverage", "mean_shortfall", "mean_shortfall_share", "average_margin",
        "peak_to_trough", "max_rise_1", "max_rise_5", "max_rise_20", "score", "rejected_by",
    ),
    "models": (
        "model", "verdict", "rejected_classes", "breach_rate", "kupiec_rejected", "conditional_rejected", "z2_rejected",
        "coverage", "mean_shortfall_share", "average_margin", "peak_to_trough", "max_rise_20", "step_1", "step_5",
        "step_20", "score", "power",
    ),
    "classes": (
        "model", "account_class", "accounts", "breach_rate", "kupiec_rejected", "z2_rejected", "coverage",
        "mean_shortfall_share", "average_margin", "verdict",
    ),
    "tools": (
        "model", "tools", "coverage", "mean_shortfall_share", "average_margin", "peak_to_trough", "max_rise_1",
        "max_rise_5", "max_rise_20", "step_1", "step_5", "step_20",
    ),
    "comparisons": ("model", "other", "score_difference", "statistic", "p_value"),
    "days": ("account_id", "model", "day", "loss", "value_at_risk", "expected_shortfall", "probability"),
}  # fmt: skip
"""Tables of a backtest and their columns, in order. The margin is the expected shortfall; a breach is a loss above the
VaR. Shares and rates are of accounts or of periods."""


class Verdict(StrEnum):
    """What the tests say of a model on one class of accounts."""

    REJECTED = "REJECTED"
    """Coverage or shortfall rejects more than half of its accounts."""
    KEPT = "KEPT"


def evaluate(
    days: Sequence[Days], account_class: Mapping[str, str], schedule: Schedule, *, level: float
) -> dict[str, Columns]:
    """All tables but `days`, whose rows `day_table` gives."""
    accounts = [row for d in days for row in _accounts(d, account_class, level)]
    classes = [row for d in days for row in _classes([r for r in accounts if r["model"] == d.model])]
    models = []
    for d in days:
        own = [r for r in accounts if r["model"] == d.model]
        rejected = [r["account_class"] for r in classes if r["model"] == d.model and r["verdict"] == Verdict.REJECTED]
        steps = step_response(d.first, window=schedule.window, recalibrate=schedule.recalibrate)
        models.append({
            "model": d.model,
            "verdict": Verdict.REJECTED if rejected else Verdict.KEPT,
            "rejected_classes": ", ".join(rejected),
            **_summary(own),
            "conditional_rejected": _share(own, "conditional_p"),
            "max_rise_20": _mean(own, "max_rise_20"),
            "peak_to_trough": _mean(own, "peak_to_trough"),
            **{f"step_{n}": s for n, s in zip(STEP_DAYS, steps, strict=True)},
            "score": _mean(own, "score"),
            "power": kupiec_power(2 * (1 - level), len(d.day), level=level, size=SIZE),
        })  # fmt: skip
    tools = []
    for d, m in zip(days, models, strict=True):
        if d.protected:
            plain = tuple(m[f"step_{n}"] for n in STEP_DAYS)
            tools.append(_protected(d, "none", d.expected_shortfall, plain))
            tools += [_protected(d, name, margin, d.steps[name]) for name, margin in d.protected.items()]
    score = {d.model: _scores(d, level).mean(axis=1) for d in days}
    versus = []
    for one, other in combinations(score, 2):
        statistic, p = diebold_mariano(score[one], score[other])
        difference = float(np.mean(score[one] - score[other]))
        same = not np.isfinite(statistic)
        versus.append({"model": one, "other": other, "score_difference": difference,
                       "statistic": 0.0 if same else statistic, "p_value": 1.0 if same else p})  # fmt: skip
    rows = {"accounts": accounts, "models": models, "classes": classes, "tools": tools, "comparisons": versus}
    return {name: _columns(rows[name], TABLES[name]) for name in rows}


def day_table(days: Sequence[Days]) -> Columns:
    """The table `days`: every account and period of every model."""
    parts = []
    for d in days:
        n, k = d.loss.shape
        parts.append({
            "account_id": np.tile(d.account_id, n),
            "model": np.full(n * k, d.model, dtype=object),
            "day": np.repeat(np.array([format_day(float(t)) for t in d.day], dtype=object), k),
            "loss": d.loss.ravel(),
            "value_at_risk": d.value_at_risk.ravel(),
            "expected_shortfall": d.expected_shortfall.ravel(),
            "probability": d.probability.ravel(),
        })  # fmt: skip
    return {c: np.concatenate([p[c] for p in parts]) for c in TABLES["days"]}


def _accounts(d: Days, account_class: Mapping[str, str], level: float) -> list[dict[str, Any]]:
    n = len(d.day)
    breach = d.loss > d.value_at_risk
    score = _scores(d, level)
    rows = []
    for i, account in enumerate(d.account_id):
        count = int(breach[:, i].sum())
        found = margin_metrics(d.loss[:, i], d.expected_shortfall[:, i])
        total, _ = tail_sums(d.loss[:, i], d.value_at_risk[:, i], d.expected_shortfall[:, i])
        z2 = float(second_statistic(total, n, level))
        z2_p = simulated_p_value(z2, second_statistic(d.tail_sum[i], n, level))
        # Without a breach nothing can be said of their size, and nothing is held against it.
        z1 = float(first_statistic(total, np.asarray(count))) if count else 0.0
        z1_p = simulated_p_value(z1, first_statistic(d.tail_sum[i], d.tail_count[i])) if count else 1.0
        p = {
            "kupiec_p": kupiec(count, n, level=level).p_value,
            "conditional_p": conditional_coverage(breach[:, i], level=level).p_value,
            "z2_p": z2_p,
        }
        rows.append({
            "account_id": account, "model": d.model, "account_class": account_class.get(str(account), "book"),
            "periods": n, "breaches": count, "expected_breaches": n * (1 - level),
            **p, "z1": z1, "z1_p": z1_p, "z2": z2, "zone": str(traffic_light(count, n, level=level)[0]),
            "coverage": found.coverage, "mean_shortfall": found.mean_shortfall,
            "mean_shortfall_share": found.mean_shortfall_share, "average_margin": found.average_cost,
            "peak_to_trough": found.peak_to_trough, **{f"max_rise_{k}": found.max_rise[k] for k in RISE_DAYS},
            "score": float(score[:, i].mean()),
            "rejected_by": ", ".join(name.removesuffix("_p") for name, value in p.items() if value < SIZE),
        })  # fmt: skip
    return rows


def _protected(
    d: Days, tools: str, margin: Float[np.ndarray, "period account"], steps: tuple[float, ...]
) -> dict[str, Any]:
    """Metrics of the margins under some tools, the mean over accounts."""
    found = [margin_metrics(loss, own) for loss, own in zip(d.loss.T, margin.T, strict=True)]
    short = [m.mean_shortfall_share for m in found if m.mean_shortfall_share > 0]
    return {
        "model": d.model,
        "tools": tools,
        "coverage": float(np.mean([m.coverage for m in found])),
        "mean_shortfall_share": float(np.mean(short)) if short else 0.0,
        "average_margin": float(np.mean([m.average_cost for m in found])),
        "peak_to_trough": float(np.mean([m.peak_to_trough for m in found])),
        **{f"max_rise_{k}": float(np.mean([m.max_rise[k] for m in found])) for k in RISE_DAYS},
        **{f"step_{k}": s for k, s in zip(STEP_DAYS, steps, strict=True)},
    }


def _classes(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    out = []
    for name in dict.fromkeys(r["account_class"] for r in rows):
        own = [r for r in rows if r["account_class"] == name]
        summary = _summary(own)
        rejected = max(summary["kupiec_rejected"], summary["z2_rejected"]) > 0.5
        verdict = Verdict.REJECTED if rejected else Verdict.KEPT
        out.append(
            {"model": own[0]["model"], "account_class": name, "accounts": len(own), **summary, "verdict": verdict}
        )
    return out


def _summary(rows: list[dict[str, Any]]) -> dict[str, float]:
    short = [r["mean_shortfall_share"] for r in rows if r["mean_shortfall_share"] > 0]
    return {
        "breach_rate": sum(r["breaches"] for r in rows) / sum(r["periods"] for r in rows),
        "kupiec_rejected": _share(rows, "kupiec_p"),
        "z2_rejected": _share(rows, "z2_p"),
        "coverage": _mean(rows, "coverage"),
        "mean_shortfall_share": float(np.mean(short)) if short else 0.0,
        "average_margin": _mean(rows, "average_margin"),
    }


def _share(rows: list[dict[str, Any]], p_value: str) -> float:
    """Of accounts that a test rejects."""
    return float(np.mean([r[p_value] < SIZE for r in rows]))


def _mean(rows: list[dict[str, Any]], column: str) -> float:
    return float(np.mean([r[column] for r in rows]))


def _scores(d: Days, level: float) -> Float[np.ndarray, "period account"]:
    columns = [
        fz0_score(d.loss[:, i], d.value_at_risk[:, i], d.expected_shortfall[:, i], level=level)
        for i in range(len(d.account_id))
    ]
    return np.stack(columns, axis=1)


def _columns(rows: list[dict[str, Any]], names: tuple[str, ...]) -> Columns:
    def column(name: str) -> np.ndarray:
        values = [r[name] for r in rows]
        return np.array(values, dtype=object if values and isinstance(values[0], str) else float)

    return {name: column(name) for name in names}
