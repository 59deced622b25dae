"""Would today's margin by each method have held under the moves of the past? Nothing is calibrated again.

Accounts and market are as they are today: every method is judged by the same losses. An account that holds what the
history cannot move is left out by name, never counted as covered.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cache

import numpy as np
from jaxtyping import Bool, Float

from pmvar.backtest.coverage import Zone, kupiec, traffic_light
from pmvar.backtest.evaluate import SIZE
from pmvar.backtest.realised import account_losses, realised_scenarios
from pmvar.calibration.panel import Moves
from pmvar.engine import unvalued_accounts
from pmvar.errors import UsageError
from pmvar.io.times import format_day
from pmvar.market.snapshot import MarketSnapshot
from pmvar.methods.fallback import NAMED
from pmvar.methods.result import Origin
from pmvar.models.specification import ModelSpecification
from pmvar.portfolio import Portfolio
from pmvar.report.comparison_report import ComparisonReport
from pmvar.risk.exceedance import ROUNDING
from pmvar.risk.result import Columns
from pmvar.scenarios.clock import horizon_steps
from pmvar.types import Precision
from pmvar.valuation.reprice import reprice


def with_history(
    report: ComparisonReport,
    portfolio: Portfolio,
    market: MarketSnapshot,
    model: ModelSpecification,
    moves: Moves,
    *,
    first: float | None = None,
    precision: Precision = Precision.FLOAT32,
) -> ComparisonReport:
    """`report` with the tables `COVERAGE_TABLES`: each account's initial margin by each method against its losses over
    the periods of the run's horizon in `moves`, which do not overlap.

    They begin with the first move that ends on or after the day `first` (epoch seconds); without it, with the first
    from which on every factor of the model that the history has until its end has all its moves. Factors that lack one
    are left out and named, with the accounts that need them. Raises UsageError where no period or no account is left,
    or where the horizon is not whole days.
    """
    text = str(report.settings["horizon"])
    steps = horizon_steps(text)
    if steps != round(steps):
        raise UsageError(f"a history has whole days, the horizon is {text}; set it in days")
    horizon = int(steps)
    kept, gone = _complete(moves, model.factor_names, first)
    starts = range(0, len(kept.day) - horizon + 1, horizon)
    if not (starts and kept.name):
        raise UsageError(f"the history has no whole period of {text} from that day on; start earlier, or supply more")
    scenarios = realised_scenarios(kept, starts, horizon, market, model)
    pnl = reprice(portfolio, market, scenarios, precision=precision)
    reason = {a: r.replace("the model has", "the history has") for a, r in unvalued_accounts(portfolio, pnl).items()}
    judged = np.array([str(a) not in reason for a in portfolio.account_id], dtype=bool)
    if not judged.any():
        raise UsageError(f"no account can be revalued under the history: it lacks {', '.join(gone[:10])}")
    loss = account_losses(pnl, np.flatnonzero(judged))

    methods = report.tables["methods"]
    margin = report.tables["comparison"]["initial_margin"].reshape(portfolio.n_accounts, -1)
    fitted = np.flatnonzero(kept.day[np.array(starts)] <= _fitted_until(model))
    after = np.where(methods["origin"] == Origin.MODEL, len(starts) - len(fitted), len(starts))
    coverage = _coverage(loss, margin, judged, methods, portfolio.account_id, reason)
    history = {
        "first_day": format_day(float(kept.day[0])),
        "last_day": format_day(float(kept.day[starts[-1] + horizon - 1])),
        "periods": len(starts),
        "accounts": int(judged.sum()),
        "factors": list(kept.name),
        "missing_factors": gone,
        "steps_per_year": kept.steps_per_year,
    }
    return replace(
        report,
        tables={**report.tables, "coverage": coverage, "method_coverage": _by_method(coverage, margin, judged, after)},
        settings={**report.settings, "history": history},
        notes=report.notes + tuple(_notes(reason, len(fitted), len(starts), kept, model)),
    )


def _complete(moves: Moves, factors: Sequence[str], first: float | None) -> tuple[Moves, list[str]]:
    """The moves of `factors` from `first` on, of those that have them all, and the names of the others."""
    there = [f for f in factors if f in moves.name]
    blank = np.isnan(moves.part(slice(None), there).ratio)
    if first is None:
        lasting = blank[:, ~blank[-1]].any(axis=1)
        begin = int(np.flatnonzero(lasting)[-1]) + 1 if lasting.any() else 0
    else:
        begin = int(np.searchsorted(moves.day, first))
    whole = np.asarray(~blank[begin:].any(axis=0)).tolist()
    kept = [f for f, w in zip(there, whole, strict=True) if w]
    return moves.part(slice(begin, None), kept), [f for f in factors if f not in kept]


def _fitted_until(model: ModelSpecification) -> float:
    """Epoch seconds of the last move that the model's parameters may know; −inf if they are assumed."""
    fitted = model.history is not None or any(f.n_obs for f in model.factors)
    return model.as_of if fitted else -np.inf


def _coverage(
    loss: Float[np.ndarray, "judged period"],
    margin: Float[np.ndarray, "account method"],
    judged: Bool[np.ndarray, " account"],
    methods: Columns,
    account_id: np.ndarray,
    reason: Mapping[str, str],
) -> dict[str, np.ndarray]:
    """The table `coverage`: by account, then by method. What is left out has no periods."""
    breaches, total, largest = (np.zeros(margin.shape) for _ in range(3))
    for m, limit in enumerate(margin[judged].T[:, :, None]):
        # A bounded loss that is the margin does not exceed it by its rounding.
        over = np.where(loss > limit + ROUNDING * np.abs(limit), loss - limit, 0.0)
        breaches[judged, m], total[judged, m] = (over > 0).sum(axis=1), over.sum(axis=1)
        largest[judged, m] = over.max(axis=1)
    periods = np.broadcast_to(np.where(judged, loss.shape[1], 0)[:, None], margin.shape)
    level = np.broadcast_to(methods["level"], margin.shape)
    tested = [_tested(*map(float, row)) for row in zip(breaches.flat, periods.flat, level.flat, strict=True)]
    return {
        "account_id": np.repeat(account_id, margin.shape[1]),
        "method": np.tile(methods["method"], len(margin)),
        "level": level.ravel(),
        "periods": periods.ravel().astype(float),
        "breaches": breaches.ravel(),
        "expected_breaches": np.where(level > 0, periods * (1 - level), 0.0).ravel(),
        "coverage": (np.where(periods > 0, periods - breaches, 0.0) / np.maximum(periods, 1)).ravel(),
        "kupiec_p": np.array([p for p, _ in tested]),
        "zone": np.array([zone for _, zone in tested], dtype=object),
        "mean_shortfall": (total / np.maximum(breaches, 1)).ravel(),
        "largest_shortfall": largest.ravel(),
        "left_out": np.repeat(np.array([reason.get(str(a), "") for a in account_id], dtype=object), margin.shape[1]),
    }


@cache
def _tested(breaches: float, periods: float, level: float) -> tuple[float, str]:
    """p of Kupiec's test and the Basel zone; 1 and nothing where no level is claimed or nothing was seen."""
    if not (periods and level):
        return 1.0, ""
    zone, _ = traffic_light(int(breaches), int(periods), level=level)
    return kupiec(int(breaches), int(periods), level=level).p_value, str(zone)


def _by_method(
    coverage: Columns,
    margin: Float[np.ndarray, "account method"],
    judged: Bool[np.ndarray, " account"],
    after_fit: Float[np.ndarray, " method"] | np.ndarray,
) -> dict[str, np.ndarray]:
    """The table `method_coverage`, over the accounts judged."""
    own = {name: values.reshape(margin.shape)[judged] for name, values in coverage.items()}
    broken = own["breaches"].sum(axis=0)
    # No test rejects where none was made: its p is 1.
    rejected, many = own["kupiec_p"] < SIZE, own["breaches"] > own["expected_breaches"]
    return {
        "method": own["method"][0],
        "level": own["level"][0],
        "accounts": np.full(len(broken), float(judged.sum())),
        "periods": own["periods"][0],
        "after_fit": after_fit.astype(float),
        "total_margin": margin[judged].sum(axis=0),
        "coverage": own["coverage"].mean(axis=0),
        "least_coverage": own["coverage"].min(axis=0),
        "n_held": (own["breaches"] == 0).sum(axis=0).astype(float),
        "kupiec_too_many": (rejected & many).mean(axis=0),
        "kupiec_too_few": (rejected & ~many).mean(axis=0),
        **{f"n_{zone}": (own["zone"] == zone).sum(axis=0).astype(float) for zone in Zone},
        "mean_shortfall": (own["mean_shortfall"] * own["breaches"]).sum(axis=0) / np.maximum(broken, 1),
        "largest_shortfall": own["largest_shortfall"].max(axis=0),
    }


def _notes(
    reason: Mapping[str, str], fitted: int, periods: int, kept: Moves, model: ModelSpecification
) -> list[str]:
    """What a reader of the coverage must know."""
    notes = []
    if fitted:
        notes.append(
            f"coverage: the model was fitted up to {format_day(model.as_of)}; {fitted:,} of {periods:,} periods may be "
            "in its sample, the others are the column after_fit"
        )
    if kept.steps_per_year != model.steps_per_year:
        notes.append(
            f"coverage: the history has {kept.steps_per_year} steps a year, the model {model.steps_per_year}"
        )
    by_reason: dict[str, list[str]] = {}
    for account, why in sorted(reason.items()):
        by_reason.setdefault(why, []).append(account)
    for why, accounts in sorted(by_reason.items()):
        more = f" and {len(accounts) - NAMED:,} more" if len(accounts) > NAMED else ""
        notes.append(f"coverage: left out, {why}: {', '.join(accounts[:NAMED])}{more}")
    return notes
