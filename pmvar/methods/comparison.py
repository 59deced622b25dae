"""Margin methods side by side: each account under each method, against the tail of its Monte Carlo loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

import numpy as np
from jaxtyping import Float
from scipy import stats

from pmvar.methods.result import MethodMargin, Origin, Step
from pmvar.risk.exceedance import Exceedance
from pmvar.risk.result import Columns, MarginResult
from pmvar.types import Status

MONTE_CARLO, GROSS = "mc", "gross"
"""The yardstick, and the sum of what it asks of each position alone."""

TABLES: Mapping[str, tuple[str, ...]] = {
    "comparison": (
        "account_id", "method", "initial_margin", "maintenance_margin", "expected_shortfall", "ratio",
        "breach_probability", "uncovered", "verdict", "driver",
    ),
    "methods": (
        "method", "source", "total_margin", "ratio_p10", "ratio_median", "ratio_p90", "rank_correlation", "distance",
        "breach_probability", "n_under", "n_fair", "n_over", "level", "origin", "notes",
    ),
    "steps": ("account_id", "method", "group", "name", "label", "amount"),
    "strategies": (
        "strategy", "underlying", "method", "initial_margin", "isolated_margin", "saving", "ratio", "verdict",
    ),
}  # fmt: skip
"""Tables of a comparison and their columns, in order."""

COVERAGE_TABLES: Mapping[str, tuple[str, ...]] = {
    "coverage": (
        "account_id", "method", "level", "periods", "breaches", "expected_breaches", "coverage", "kupiec_p", "zone",
        "mean_shortfall", "largest_shortfall", "left_out",
    ),
    "method_coverage": (
        "method", "level", "accounts", "periods", "after_fit", "total_margin", "coverage", "least_coverage", "n_held",
        "kupiec_too_many", "kupiec_too_few", "n_green", "n_yellow", "n_red", "mean_shortfall", "largest_shortfall",
    ),
}  # fmt: skip
"""Further tables of a comparison with a history, and their columns."""

OVER = 1.5
"""Beyond this multiple of the expected shortfall a margin is more than the tail asks for."""


class Verdict(StrEnum):
    """What the Monte Carlo tail says of a margin."""

    UNDER = "UNDER"
    """The loss exceeds it more often than the level allows: it is below the VaR."""
    FAIR = "FAIR"
    OVER = "OVER"
    """More than `OVER` times the expected shortfall."""
    WITHHELD = "WITHHELD"
    """The account could not be simulated: nothing to compare with."""


def monte_carlo(result: MarginResult) -> MethodMargin:
    """The Monte Carlo margin as one method among the others: components by underlying, then what the rules add."""
    margins, parts = result.tables["margins"], result.tables["components"]
    row = {str(a): i for i, a in enumerate(margins["account_id"])}
    sums: dict[tuple[int, str], float] = {}
    for account, underlying, amount in zip(
        parts["account_id"], parts["underlying"], parts["component_es"], strict=True
    ):
        key = row[str(account)], str(underlying)
        sums[key] = sums.get(key, 0.0) + float(amount)
    level = f"ES {float(result.settings['level']):.4g} share"
    steps = [Step(i, underlying, "component", level, amount) for (i, underlying), amount in sorted(sums.items())]
    whole = np.zeros(len(row))
    np.add.at(whole, [s.account for s in steps], [s.amount for s in steps])
    rules = margins["initial_margin"] - whole
    steps += [
        Step(i, "", "rules", "measure, multiplier, floor or substitute", float(x)) for i, x in enumerate(rules) if x
    ]
    model = result.settings.get("model", {}).get("name", "")
    return MethodMargin(
        MONTE_CARLO,
        f"Monte Carlo, model {model}, {result.settings['n_scenarios']:,} scenarios over {result.settings['horizon']}",
        margins["initial_margin"],
        margins["maintenance_margin"],
        tuple(sorted(steps, key=lambda s: (s.account, s.group))),
        level=float(result.settings["level"]),
        origin=Origin.MODEL,
    )


def gross(result: MarginResult) -> MethodMargin:
    """Every position alone under the Monte Carlo: what no netting at all would ask."""
    margins = result.tables["margins"]
    alone = margins["isolated_margin"]
    ratio = float(result.settings["maintenance_ratio"])
    steps = tuple(Step(int(a), "", "positions", "each alone", float(alone[a])) for a in np.flatnonzero(alone))
    return MethodMargin(
        GROSS, "Monte Carlo, every position and balance alone", alone, ratio * alone, steps,
        level=float(result.settings["level"]), origin=Origin.MODEL,
    )  # fmt: skip


def comparison_tables(
    methods: Sequence[MethodMargin], result: MarginResult, beyond: Exceedance, *, level: float
) -> dict[str, Columns]:
    """The tables `comparison`, `methods` and `steps`; rows of `beyond` in the order of `methods`.

    A ratio is the initial margin over the ES, 0 where the ES is not positive; statistics leave such accounts out, and
    those withheld.
    """
    margins = result.tables["margins"]
    account, es = margins["account_id"], margins["expected_shortfall"]
    withheld = margins["status"] == Status.WITHHELD
    risky = ~withheld & (es > 0)
    ratios = [np.where(risky, m.initial / np.where(risky, es, 1.0), 0.0) for m in methods]
    verdicts = [
        verdict(m.initial, es, p, level=level, withheld=withheld)
        for m, p in zip(methods, beyond.probability, strict=True)
    ]
    n = len(account)

    def stacked(parts: Sequence[np.ndarray]) -> np.ndarray:
        # By account, then by method.
        return np.stack(parts, axis=1).ravel()

    comparison = {
        "account_id": np.repeat(account, len(methods)),
        "method": np.tile(_text([m.method for m in methods]), n),
        "initial_margin": stacked([m.initial for m in methods]),
        "maintenance_margin": stacked([m.maintenance for m in methods]),
        "expected_shortfall": np.repeat(es, len(methods)),
        "ratio": stacked(ratios),
        "breach_probability": stacked(list(beyond.probability)),
        "uncovered": stacked(list(beyond.uncovered)),
        "verdict": stacked([_text([str(v) for v in found]) for found in verdicts]),
        "driver": stacked([_text(drivers(m, n)) for m in methods]),
    }
    rows = [
        _summary(m, es, ratio, p, found, risky)
        for m, ratio, p, found in zip(methods, ratios, beyond.probability, verdicts, strict=True)
    ]
    summary = {name: _column([row[i] for row in rows]) for i, name in enumerate(TABLES["methods"])}
    flat = sorted(((account[s.account], m.method, *s[1:]) for m in methods for s in m.steps), key=lambda r: r[:2])
    steps = {name: _column([row[i] for row in flat]) for i, name in enumerate(TABLES["steps"])}
    return {"comparison": comparison, "methods": summary, "steps": steps}


def verdict(
    margin: Float[np.ndarray, " account"],
    es: Float[np.ndarray, " account"],
    probability: Float[np.ndarray, " account"],
    *,
    level: float,
    withheld: np.ndarray,
) -> list[Verdict]:
    """What the tail says of each margin."""
    # 1e-9: a margin that is the VaR itself is not below it.
    under, over = probability > (1 - level) * (1 + 1e-9), margin > OVER * np.maximum(es, 0.0)
    return [
        Verdict.WITHHELD if w else Verdict.UNDER if u else Verdict.OVER if o else Verdict.FAIR
        for w, u, o in zip(withheld, under, over, strict=True)
    ]


def drivers(method: MethodMargin, n_accounts: int) -> list[str]:
    """The largest step of each account in words: what its margin comes from."""
    largest: dict[int, Step] = {}
    for step in method.steps:
        if step.account not in largest or step.amount > largest[step.account].amount:
            largest[step.account] = step
    return [" ".join(filter(None, largest[i][1:4])) if i in largest else "" for i in range(n_accounts)]


def _summary(
    method: MethodMargin,
    es: np.ndarray,
    ratio: np.ndarray,
    probability: np.ndarray,
    found: list[Verdict],
    risky: np.ndarray,
) -> tuple:
    """One row of the table `methods`."""
    low = middle = high = correlation = distance = mean = 0.0
    if risky.any():
        low, middle, high = np.percentile(ratio[risky], [10, 50, 90])
        distance = float(np.abs(method.initial - es)[risky].sum() / es[risky].sum())
        mean = float(probability[risky].mean())
        if np.ptp(method.initial[risky]) > 0 and np.ptp(es[risky]) > 0:
            correlation = float(np.corrcoef(stats.rankdata(method.initial[risky]), stats.rankdata(es[risky]))[0, 1])
    counts = (found.count(v) for v in (Verdict.UNDER, Verdict.FAIR, Verdict.OVER))
    total = float(method.initial.sum())
    return (method.method, method.source, total, low, middle, high, correlation, distance, mean, *map(float, counts),
            method.level or 0.0, str(method.origin), " ".join(method.notes))  # fmt: skip


def strategy_table(
    methods: Sequence[MethodMargin], result: MarginResult, beyond: Exceedance, *, level: float
) -> Columns:
    """The table `strategies`: as `comparison`, of accounts named `strategy · underlying`.

    `saving` is 1 − margin/isolated margin: what the method grants for holding the legs together, against the
    Monte Carlo margin of each leg alone.
    """
    flat = comparison_tables(methods, result, beyond, level=level)["comparison"]
    names = [str(a).split(" · ") for a in flat["account_id"]]
    alone = np.repeat(result.tables["margins"]["isolated_margin"], len(methods))
    return {
        "strategy": _text([n[0] for n in names]),
        "underlying": _text([n[1] for n in names]),
        "method": flat["method"],
        "initial_margin": flat["initial_margin"],
        "isolated_margin": alone,
        "saving": np.where(alone > 0, 1 - flat["initial_margin"] / np.where(alone > 0, alone, 1.0), 0.0),
        "ratio": flat["ratio"],
        "verdict": flat["verdict"],
    }


def _text(values: Sequence[str]) -> np.ndarray:
    return np.array(values, dtype=object)


def _column(values: Sequence[object]) -> np.ndarray:
    return np.array(values, dtype=object if not values or isinstance(values[0], str) else np.float64)
