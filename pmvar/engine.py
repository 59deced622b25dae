"""The engine: from repriced scenarios to a margin report. It takes loaded objects and reads no files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import jax
import numpy as np

from pmvar.errors import NumericsError, UsageError
from pmvar.market.snapshot import MarketSnapshot
from pmvar.methods.standard import standard_margin
from pmvar.portfolio import Portfolio
from pmvar.report.margin_report import MarginReport
from pmvar.risk.accounts import AccountBlock, account_blocks, block_loss
from pmvar.risk.detail import account_details
from pmvar.risk.gradient import BlockGradient, MarketFactor, gradients, market_factors
from pmvar.risk.measure import BlockMeasure, isolated_measure, measure_block, measure_losses
from pmvar.risk.model_gradient import ModelGradient
from pmvar.risk.quantiles import spread
from pmvar.risk.rules import MarginRules
from pmvar.risk.tables import (
    component_table,
    greek_table,
    margin_table,
    model_greek_table,
    shock_table,
    stress_table,
    worst_table,
)
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import Measure
from pmvar.valuation.reprice import ProfitAndLoss, reprice
from pmvar.valuation.store import TileStore
from pmvar.valuation.today import values_and_greeks

Progress = Callable[[str, int, int], None]
"""(stage, done, total), called as work goes on."""


DECORRELATION = "decorrelation"
"""Its name in the table `stress`."""

LEAST_TAIL = 10
"""Scenarios that must lie beyond the level: fewer say nothing of a tail, nor of their own error."""


def quiet(stage: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


def margin_report(
    pnl: ProfitAndLoss,
    portfolio: Portfolio,
    rules: MarginRules,
    *,
    stress: ScenarioSet | None = None,
    decorrelated: ProfitAndLoss | None = None,
    last_good: Mapping[str, float] | None = None,
    greeks: bool = True,
    memory_bytes: float | None = None,
    notes: tuple[str, ...] = (),
    settings: Mapping[str, Any] | None = None,
    progress: Progress = quiet,
) -> MarginReport:
    """Margin of every account of `portfolio` from its P&L under the scenarios of `pnl`.

    Accounts that hold something which cannot be valued are withheld: their margin is the largest of `last_good` and the
    standard margin, never zero in silence. `decorrelated`, the P&L under `ModelSpecification.decorrelated`, adds each
    account's measure under it to the table `stress`. `greeks=False` leaves out gradients and the spot–vol–time split.
    Raises UsageError if the tail holds too few scenarios and NumericsError if any number is not finite.
    """
    market, scenarios = pnl.market, pnl.scenarios
    if scenarios.n_scenarios * (1 - rules.level) < LEAST_TAIL:
        least = int(np.ceil(LEAST_TAIL / (1 - rules.level)))
        raise UsageError(
            f"{scenarios.n_scenarios:,} scenarios leave fewer than {LEAST_TAIL} beyond level {rules.level}; "
            f"use at least {least:,}"
        )
    withheld = _withheld(portfolio, pnl)
    value, sensitivities = _values(portfolio, pnl)
    live = np.array([i for i, a in enumerate(portfolio.account_id) if str(a) not in withheld], dtype=np.int64)

    n_tiles = scenarios.n_tiles
    store = TileStore(
        pnl, memory_bytes=memory_bytes or half_of_memory(), advance=counter(progress, "revaluation", n_tiles)
    )
    blocks = list(account_blocks(portfolio.quantity, live))
    advance = counter(progress, "accounts", len(live))
    measured: list[BlockMeasure] = []
    for block in blocks:
        measured.append(measure_block(block, store, rules.level, names=portfolio.account_id))
        advance(len(block.account))
    held = np.unique(portfolio.quantity[live].indices) if len(live) else np.array([], dtype=np.int64)
    isolated, isolated_error = _isolated(portfolio, store, held, rules)
    details = account_details(portfolio, measured, store, rules.level)
    del store

    factors: Sequence[MarketFactor] = ()
    found: list[BlockGradient] = []
    by_model: list[ModelGradient] = []
    if greeks and measured:
        factors = market_factors(portfolio.instruments, pnl)
        found, by_model = gradients(
            pnl, measured, portfolio.instruments, factors,
            measure=rules.measure, level=rules.level, names=portfolio.account_id,
            advance=counter(progress, "gradients", n_tiles),
        )  # fmt: skip

    stressed = _stress(portfolio, pnl, stress, live)
    if decorrelated is not None:
        if DECORRELATION in stressed:
            raise UsageError(
                f"the stress list has an entry {DECORRELATION!r}, which is the name of a stress of the model"
            )
        advance = counter(progress, "decorrelation", decorrelated.scenarios.n_tiles)
        with_less = TileStore(decorrelated, memory_bytes=memory_bytes or half_of_memory(), advance=advance)
        stressed[DECORRELATION] = _measures(blocks, with_less, rules, portfolio)[live]

    margins = margin_table(
        portfolio, market, rules, measured,
        value=value, isolated=isolated, isolated_error=isolated_error, withheld=withheld,
        fallback=_fallback(portfolio, market, rules, value, withheld, last_good or {}),
    )  # fmt: skip
    tables = {
        "margins": margins,
        "components": component_table(portfolio, measured, found),
        "greeks": greek_table(portfolio, measured, found, factors, sensitivities if greeks else [], rules, margins),
        "model_greeks": model_greek_table(portfolio, measured, by_model, rules, margins),
        "worst": worst_table(portfolio, measured, scenarios),
        "shocks": shock_table(measured, scenarios),
        "stress": stress_table(portfolio, live, stressed),
    }
    return MarginReport(
        tables=tables,
        details=details,
        settings={
            **_settings(pnl, rules),
            # What a later run needs to know of accounts that this one could not value.
            "last_good": {a: m for a, m in sorted((last_good or {}).items()) if a in withheld},
            **(settings or {}),
        },
        notes=notes + tuple(f"{a} is withheld: {reason}" for a, reason in sorted(withheld.items())[:20]),
    )


def counter(progress: Progress, stage: str, total: int) -> Callable[..., None]:
    """A function that tells `progress` of steps done."""
    done = 0

    def advance(step: int = 1) -> None:
        nonlocal done
        done += step
        progress(stage, done, total)

    progress(stage, 0, total)
    return advance


def half_of_memory() -> float:
    """Bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2


def _withheld(portfolio: Portfolio, pnl: ProfitAndLoss) -> dict[str, str]:
    """Account -> reason, for accounts that hold what cannot be valued."""
    reasons = dict(portfolio.withheld)
    for column, reason in pnl.plan.unpriced.items():
        for row in portfolio.quantity[:, [column]].nonzero()[0]:
            reasons.setdefault(str(portfolio.account_id[row]), reason)
    return reasons


def _values(portfolio: Portfolio, pnl: ProfitAndLoss) -> tuple[np.ndarray, list]:
    """Value per contract (NaN where nothing prices) and Greeks of all instruments."""
    n = len(portfolio.instruments)
    priced = np.array([i for i in range(n) if i not in pnl.plan.unpriced], dtype=np.int64)
    value = np.full(n, np.nan)
    if not len(priced):
        return value, []
    value[priced], sensitivities = values_and_greeks(portfolio.instruments.take(priced), pnl.market)
    for i, s in enumerate(sensitivities):
        full = np.zeros(n)
        full[priced] = s.value
        sensitivities[i] = s._replace(value=full)
    return value, sensitivities


def _fallback(
    portfolio: Portfolio,
    market: MarketSnapshot,
    rules: MarginRules,
    value: np.ndarray,
    withheld: Mapping[str, str],
    last_good: Mapping[str, float],
) -> np.ndarray:
    """Margin of each account if it is withheld: the standard margin under the rules, at least the last good margin.

    Raises NumericsError where even that would be zero: a margin of nothing must not come from a lack of data.
    """
    standard = rules.multiplier * np.maximum(standard_margin(portfolio, market, value), rules.floor)
    # The last good margin is an initial margin: the rules are in it already.
    fallback = np.maximum(standard, [last_good.get(str(a), 0.0) for a in portfolio.account_id])
    for account, margin in zip(portfolio.account_id, fallback, strict=True):
        if str(account) in withheld and not margin > 0:
            raise NumericsError(
                f"account {account} is withheld ({withheld[str(account)]}) and the book has no price for a fallback "
                "margin from; correct market/spots and instruments"
            )
    return fallback


def _isolated(
    portfolio: Portfolio, store: TileStore, held: np.ndarray, rules: MarginRules
) -> tuple[np.ndarray, np.ndarray]:
    """Margin of each account if every position and balance stood alone, and its standard error."""
    if not len(held):
        return np.full(portfolio.n_accounts, rules.multiplier * rules.floor), np.zeros(portfolio.n_accounts)
    long, short = isolated_measure(store, held, rules.level, measure=rules.measure)
    quantity = portfolio.quantity[:, held]
    total, parts = (
        quantity.maximum(0) @ one + (-quantity).maximum(0) @ other for one, other in zip(long, short, strict=True)
    )
    # Positions share their scenarios: errors are those of sums over replicates. Where the floor binds nothing is drawn.
    error = np.where(total > rules.floor, spread(parts), 0.0)
    return rules.multiplier * np.maximum(total, rules.floor), rules.multiplier * error


def _stress(
    portfolio: Portfolio, pnl: ProfitAndLoss, stress: ScenarioSet | None, live: np.ndarray
) -> dict[str, np.ndarray]:
    """Losses of the accounts under each entry of the stress list, through the same revaluation."""
    if stress is None or stress.n_scenarios == 0:
        return {}
    shocked = reprice(portfolio, pnl.market, stress, precision=pnl.precision)
    tiles = [np.asarray(tile, dtype=np.float64)[shocked.row] for tile in shocked]
    profit = np.concatenate(tiles, axis=1)[:, : stress.n_scenarios]
    return dict(zip(stress.labels, -(portfolio.quantity[live] @ profit).T, strict=True))


def _measures(blocks: Sequence[AccountBlock], store: TileStore, rules: MarginRules, portfolio: Portfolio) -> np.ndarray:
    """The rules' measure of every account that is in a block, NaN of the others."""
    out = np.full(portfolio.n_accounts, np.nan)
    for block in blocks:
        loss = block_loss(block, store, dtype=np.dtype(np.float64))
        found = measure_losses(loss, store.pnl.scenarios, rules.level, names=portfolio.account_id[block.account])
        expected = rules.measure is Measure.EXPECTED_SHORTFALL
        out[block.account] = found.expected_shortfall if expected else found.value_at_risk
    return out


def _settings(pnl: ProfitAndLoss, rules: MarginRules) -> dict[str, Any]:
    return {
        "as_of": datetime.fromtimestamp(pnl.market.as_of, UTC).isoformat().replace("+00:00", "Z"),
        "base_currency": pnl.market.base_currency,
        "spots": dict(zip(pnl.market.asset, pnl.market.spot.tolist(), strict=True)),
        "level": rules.level,
        "measure": str(rules.measure),
        "multiplier": rules.multiplier,
        "floor": rules.floor,
        "maintenance_ratio": rules.maintenance_ratio,
        "precision": str(pnl.precision),
        "device": jax.devices()[0].device_kind,
        **pnl.scenarios.provenance,
    }


__all__ = ["MarginReport", "margin_report"]
