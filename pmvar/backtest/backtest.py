"""`backtest`: models that were known the day before, against what came."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pmvar.backtest.accounts import textbook_accounts, unit_market
from pmvar.backtest.days import Days, forecast_days
from pmvar.backtest.evaluate import day_table, evaluate
from pmvar.backtest.rolling import Past, Schedule, complete
from pmvar.calibration.panel import Moves
from pmvar.errors import UsageError
from pmvar.io.times import format_day
from pmvar.market.snapshot import MarketSnapshot
from pmvar.portfolio import Portfolio
from pmvar.risk.result import Columns
from pmvar.types import ApcTool, FactorKind, factor_name

USUAL_VOL = 0.5
"""Per √year, of textbook options whose vol has no level given."""


@dataclass(frozen=True)
class Accounts:
    """What is margined, in which market, and the class of each account."""

    portfolio: Portfolio
    market: MarketSnapshot
    account_class: dict[str, str]


@dataclass(frozen=True)
class Backtest:
    """Days and tables of a backtest."""

    days: tuple[Days, ...]
    tables: dict[str, Columns]
    settings: dict[str, Any]
    notes: tuple[str, ...]


def backtest(
    moves: Moves,
    models: Sequence[str],
    *,
    first: float,
    level: float = 0.99,
    horizon: int = 1,
    window: int = 1_000,
    recalibrate: int = 20,
    accounts: Accounts | None = None,
    vol_level: dict[str, float] | None = None,
    n_scenarios: int = 16_384,
    seed: int = 1,
    tools: Sequence[ApcTool] = (),
    progress: Callable[[str, int, int], None] = lambda stage, done, total: None,
) -> Backtest:
    """Backtest `models` on every period of `horizon` steps from `first` (epoch seconds) on.

    Parameters are fitted on the `window` moves before, every `recalibrate` steps; volatility is filtered every day.
    `evt` is filtered history with a Pareto tail; a filter's name may follow a model's, as in `fhs:ewma`. With `tools`
    the margins under each of them, and under all, are measured, too. The `accounts` are margined as they are today, on
    every day; without any, textbook ones over all factors with a complete history (vols at `vol_level`, else at
    `USUAL_VOL`). Raises UsageError where the history is too short, and what `reprice` raises.
    """
    begin = int(np.searchsorted(moves.day, first))
    kept, left = complete(moves, Schedule(begin, horizon, window, recalibrate))
    schedule = Schedule(window, horizon, window, recalibrate)
    chosen = _textbook(kept, vol_level or {}) if accounts is None else accounts
    earlier = moves.part(slice(0, begin - window), kept.name)
    past, n = Past(kept, earlier), len(schedule.starts(len(kept.day)))
    found = []
    for model in models:
        done = 0

        def advance(model: str = model) -> None:
            nonlocal done
            done += 1
            progress(model, done, n)

        found.append(
            forecast_days(
                past, schedule, chosen.portfolio, chosen.market, model=model, level=level,
                n_scenarios=n_scenarios, seed=seed, tools=tools, advance=advance,
            )
        )  # fmt: skip
    days, notes = _sound(found)
    if left:
        notes.append(f"left out, without a move on every day from the first window on: {', '.join(left)}")
    settings = {
        "models": list(models), "level": level, "horizon": f"{horizon}d", "window": window, "recalibrate": recalibrate,
        "first_day": format_day(float(kept.day[window])), "last_day": format_day(float(kept.day[-1])), "periods": n,
        "n_scenarios": n_scenarios, "seed": seed, "apc": ",".join(tools), "base_currency": chosen.market.base_currency,
        "factors": list(kept.name), "steps_per_year": kept.steps_per_year,
    }  # fmt: skip
    tables = evaluate(days, chosen.account_class, schedule, level=level) | {"days": day_table(days)}
    return Backtest(tuple(days), tables, settings, tuple(notes))


def _textbook(moves: Moves, vol_level: dict[str, float]) -> Accounts:
    prices = [n.rpartition(":")[0] for n in moves.name if n.endswith(f":{FactorKind.SPOT}")]
    vols = [a for a in prices if factor_name(a, FactorKind.VOL) in moves.name]
    as_of = float(moves.day[-1])
    portfolio, account_class = textbook_accounts(prices, vols, as_of=as_of)
    market = unit_market(prices, {a: vol_level.get(a, USUAL_VOL) for a in vols}, as_of=as_of)
    return Accounts(portfolio, market, account_class)


def _sound(found: list[Days]) -> tuple[list[Days], list[str]]:
    """Without the accounts whose VaR was not positive on some day under some model, of which no score can speak."""
    sound = np.all([(d.value_at_risk > 0).all(axis=0) for d in found], axis=0)
    if not sound.any():
        raise UsageError("no account has a positive VaR on every day: there is nothing to test")
    notes = []
    if not sound.all():
        names = ", ".join(map(str, found[0].account_id[~sound][:10]))
        notes.append(f"{int((~sound).sum())} accounts are left out, their VaR was not positive on every day: {names}")
    kept = {"loss", "value_at_risk", "expected_shortfall", "probability"}
    return [
        replace(
            d, account_id=d.account_id[sound], tail_sum=d.tail_sum[sound], tail_count=d.tail_count[sound],
            protected={tools: margin[:, sound] for tools, margin in d.protected.items()},
            **{name: getattr(d, name)[:, sound] for name in kept},
        )
        for d in found
    ], notes  # fmt: skip
