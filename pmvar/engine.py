"""The engine: from repriced scenarios to a margin report. It takes loaded objects and reads no files."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import jax
import numpy as np
from jaxtyping import Float, Int

from pmvar.errors import NumericsError, UsageError
from pmvar.market.snapshot import MarketSnapshot
from pmvar.methods.standard import standard_margin, unit_requirements
from pmvar.portfolio import Portfolio
from pmvar.report.margin_report import MarginReport
from pmvar.risk.accounts import AccountBlock, account_blocks, block_loss
from pmvar.risk.detail import account_details, largest_accounts
from pmvar.risk.gradient import BlockGradient, MarketFactor, gradients, market_factors
from pmvar.risk.isolated import Alone, each_alone, held_alone
from pmvar.risk.measure import BlockMeasure, measure_block, measure_losses
from pmvar.risk.model_gradient import ModelGradient
from pmvar.risk.result import Columns
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
from pmvar.types import Detail, Measure
from pmvar.valuation.reprice import ProfitAndLoss, reprice
from pmvar.valuation.store import TileStore
from pmvar.valuation.today import Sensitivity, values_and_greeks

Progress = Callable[[str, int, int], None]
"""(stage, done, total), called as work goes on."""


DECORRELATION = "decorrelation"
"""Its name in the table `stress`."""

LEAST_TAIL = 10
"""Scenarios that must lie beyond the level: fewer say nothing of a tail, nor of their own error."""


def quiet(stage: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


@dataclass(frozen=True, eq=False)
class Priced:
    """What all accounts of a portfolio have in common: every instrument under every scenario, priced once."""

    pnl: ProfitAndLoss
    portfolio: Portfolio
    rules: MarginRules
    store: TileStore
    decorrelated: TileStore | None
    value: Float[np.ndarray, " instrument"]
    """Of one contract in base currency, NaN where nothing prices it."""
    sensitivities: Sequence[Sensitivity]
    isolated: tuple[Alone, Alone]
    """One contract of each instrument, long and short."""
    stress: tuple[str, ...]
    """Entries of the stress list."""
    stress_profit: Float[np.ndarray, "instrument entry"]
    """Of one contract."""
    factors: Sequence[MarketFactor]
    withheld: Mapping[str, str]
    """Account -> reason."""
    last_good: Mapping[str, float]


def price_all(
    pnl: ProfitAndLoss,
    portfolio: Portfolio,
    rules: MarginRules,
    *,
    stress: ScenarioSet | None = None,
    decorrelated: ProfitAndLoss | None = None,
    last_good: Mapping[str, float] | None = None,
    detail: Detail = Detail.GREEKS,
    memory_bytes: float | None = None,
    progress: Progress = quiet,
    log: Callable[[str], None] = lambda text: None,
) -> Priced:
    """All that `account_tables` needs, computed once; arguments and errors are those of `margin_report`.

    `log` is told where a device's memory made it go in smaller steps.
    """
    scenarios = pnl.scenarios
    if scenarios.n_scenarios * (1 - rules.level) < LEAST_TAIL:
        least = int(np.ceil(LEAST_TAIL / (1 - rules.level)))
        raise UsageError(
            f"{scenarios.n_scenarios:,} scenarios leave fewer than {LEAST_TAIL} beyond level {rules.level}; "
            f"use at least {least:,}"
        )
    entries = stress.labels if stress is not None else ()
    if decorrelated is not None and DECORRELATION in entries:
        raise UsageError(f"the stress list has an entry {DECORRELATION!r}, which is the name of a stress of the model")
    withheld = _withheld(portfolio, pnl)
    value, sensitivities = _values(portfolio, pnl)
    memory = (memory_bytes or half_of_memory()) / (1 if decorrelated is None else 2)
    advance = counter(progress, "revaluation", scenarios.n_tiles)
    store = TileStore(pnl, memory_bytes=memory, advance=advance, log=log)
    less = None
    if decorrelated is not None:
        advance = counter(progress, "decorrelation", decorrelated.scenarios.n_tiles)
        less = TileStore(decorrelated, memory_bytes=memory, advance=advance, log=log)
    return Priced(
        pnl,
        portfolio,
        rules,
        store,
        less,
        value,
        sensitivities,
        each_alone(store, portfolio.quantity[_live(portfolio, withheld)], rules),
        entries,
        _stress_profit(portfolio, pnl, stress, log),
        market_factors(portfolio.instruments, pnl) if detail is Detail.GREEKS else (),
        withheld,
        last_good or {},
    )


def account_tables(
    priced: Priced,
    rows: Int[np.ndarray, " account"] | None = None,
    *,
    detail: Detail = Detail.GREEKS,
    withheld: Mapping[str, str] | None = None,
    progress: Progress = quiet,
) -> dict[str, Columns]:
    """The tables of a run for the accounts at `rows` (None: all), sorted by account; all but `shocks`.

    Nothing of an account depends on the others: tables of parts, one after the other, are the tables of the whole.
    `withheld` (account -> reason) adds to those that cannot be valued. Raises NumericsError if a number is not finite.
    """
    pnl, rules, store = priced.pnl, priced.rules, priced.store
    portfolio = priced.portfolio if rows is None else priced.portfolio.accounts(rows)
    out = {**priced.withheld, **(withheld or {})}
    live = _live(portfolio, out)
    blocks = list(account_blocks(portfolio.quantity, live))
    advance = counter(progress, "accounts", len(live))
    measured: list[BlockMeasure] = []
    for block in blocks:
        measured.append(measure_block(block, store, rules.level, detail=detail, names=portfolio.account_id))
        advance(len(block.account))
    tails = [m.tail for m in measured if m.tail is not None]
    found: list[BlockGradient] = []
    by_model: list[ModelGradient] = []
    if detail is Detail.GREEKS and measured:
        found, by_model = gradients(
            pnl, tails, portfolio.instruments, priced.factors,
            measure=rules.measure, level=rules.level, names=portfolio.account_id,
            advance=counter(progress, "gradients", pnl.scenarios.n_tiles),
        )  # fmt: skip
    stressed = dict(zip(priced.stress, -(portfolio.quantity[live] @ priced.stress_profit).T, strict=True))
    if priced.decorrelated is not None:
        stressed[DECORRELATION] = _measures(blocks, priced.decorrelated, rules, portfolio)[live]
    isolated, isolated_error = held_alone(portfolio.quantity, priced.isolated, rules)
    margins = margin_table(
        portfolio, pnl.market, rules, measured,
        value=priced.value, isolated=isolated, isolated_error=isolated_error, withheld=out,
        fallback=_fallback(portfolio, pnl.market, rules, priced.value, out, priced.last_good),
    )  # fmt: skip
    greeks = priced.sensitivities if detail is Detail.GREEKS else []
    return {
        "margins": margins,
        "components": component_table(portfolio, tails, found),
        "greeks": greek_table(portfolio, tails, found, priced.factors, greeks, rules, margins),
        "model_greeks": model_greek_table(portfolio, tails, by_model, rules, margins),
        "worst": worst_table(portfolio, tails, pnl.scenarios),
        "stress": stress_table(portfolio, live, stressed),
    }


def finish(
    priced: Priced,
    tables: Mapping[str, Columns],
    *,
    withheld: Mapping[str, str] | None = None,
    notes: tuple[str, ...] = (),
    settings: Mapping[str, Any] | None = None,
) -> MarginReport:
    """The report of the accounts of `tables["margins"]`; other tables may lack those that no page is drawn of."""
    out = {**priced.withheld, **(withheld or {})}
    worst = tables["worst"]["scenario"] if "worst" in tables else np.array([], dtype=np.int64)
    return MarginReport(
        tables={**tables, "shocks": shock_table(worst.astype(np.int64), priced.pnl.scenarios)},
        details=account_details(
            priced.portfolio, largest_accounts(tables["margins"]), priced.store, priced.rules.level
        ),
        settings={
            **_settings(priced.pnl, priced.rules),
            # What a later run needs to know of accounts that this one could not value.
            "last_good": {a: m for a, m in sorted(priced.last_good.items()) if a in out},
            **(settings or {}),
        },
        notes=notes + tuple(f"{a} is withheld: {reason}" for a, reason in sorted(out.items())[:20]),
    )


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
    detail = Detail.GREEKS if greeks else Detail.COMPONENTS
    priced = price_all(
        pnl, portfolio, rules,
        stress=stress, decorrelated=decorrelated, last_good=last_good, detail=detail, memory_bytes=memory_bytes,
        progress=progress,
    )  # fmt: skip
    tables = account_tables(priced, detail=detail, progress=progress)
    tables["shocks"] = shock_table(tables["worst"]["scenario"], pnl.scenarios)
    return finish(priced, tables, notes=notes, settings=settings)


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
    """Margin of each account if it is withheld: the standard margin under the rules, at least the last good margin;
    where the standard margin is nothing, the full notional.

    Raises NumericsError where even that would be zero: a margin of nothing must not come from a lack of data.
    """
    standard = standard_margin(portfolio, market, value)
    nothing = np.isin(portfolio.account_id.astype(str), list(withheld)) & ~(standard > 0)
    if nothing.any():
        notional = unit_requirements(portfolio.instruments, market, value).notional
        standard = np.where(nothing, abs(portfolio.quantity) @ notional, standard)
    standard = rules.multiplier * np.maximum(standard, rules.floor)
    # The last good margin is an initial margin: the rules are in it already.
    fallback = np.maximum(standard, [last_good.get(str(a), 0.0) for a in portfolio.account_id])
    for account, margin in zip(portfolio.account_id, fallback, strict=True):
        if str(account) in withheld and not margin > 0:
            raise NumericsError(
                f"account {account} is withheld ({withheld[str(account)]}) and the book has no price for a fallback "
                "margin from; correct market/spots and instruments"
            )
    return fallback


def _live(portfolio: Portfolio, withheld: Mapping[str, str]) -> Int[np.ndarray, " account"]:
    """Rows of the accounts that are not withheld."""
    return np.array([i for i, a in enumerate(portfolio.account_id) if str(a) not in withheld], dtype=np.int64)


def _stress_profit(
    portfolio: Portfolio, pnl: ProfitAndLoss, stress: ScenarioSet | None, log: Callable[[str], None]
) -> Float[np.ndarray, "instrument entry"]:
    """Profit of one contract of each instrument under the stress list, through the same revaluation."""
    if stress is None or stress.n_scenarios == 0:
        return np.zeros((len(portfolio.instruments), 0))
    shocked = reprice(portfolio, pnl.market, stress, precision=pnl.precision)
    return TileStore(shocked, memory_bytes=np.inf, log=log).rows(shocked.row).astype(np.float64)


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
