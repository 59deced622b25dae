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

from pmvar.errors import NumericsError, UsageError, some_of
from pmvar.market.snapshot import MarketSnapshot
from pmvar.methods.standard import standard_margin, unit_requirements
from pmvar.models.at_volatility import VOLATILITY, under
from pmvar.models.specification import ModelSpecification
from pmvar.portfolio import Portfolio
from pmvar.report.margin_report import MarginReport
from pmvar.risk.accounts import LOSS_BYTES, AccountBlock, account_blocks, block_height, block_loss
from pmvar.risk.add_ons import NO_LIST, AddOn, add_on_table, close_out_add_ons, stress_add_on
from pmvar.risk.anti_procyclicality import STRESSED_WEIGHT, Protected, Protection, protection
from pmvar.risk.close_out import CloseOut, close_out, cost
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
from pmvar.types import ApcTool, Detail, Liquidity, Measure, StressOf
from pmvar.valuation.fitted_smile import projection_notes
from pmvar.valuation.reprice import ProfitAndLoss, reprice
from pmvar.valuation.store import TileStore
from pmvar.valuation.today import Sensitivity, values_and_greeks

Progress = Callable[[str, int, int], None]
"""(stage, done, total), called as work goes on."""


DECORRELATION, PLUG_IN = "decorrelation", "plug-in"
"""Names in the table `stress` of the measure under another model: without correlation, without uncertainty of the
parameters."""

LEAST_TAIL = 10
"""Scenarios that must lie beyond the level: fewer say nothing of a tail, nor of their own error."""


Charged = Mapping[str, tuple[float, float]]
"""Account -> the initial margin that was charged before, and how many days ago."""


def quiet(stage: str, done: int, total: int) -> None:
    """Progress that nobody looks at."""


@dataclass(frozen=True, eq=False)
class Priced:
    """What all accounts of a portfolio have in common: every instrument under every scenario, priced once."""

    pnl: ProfitAndLoss
    portfolio: Portfolio
    rules: MarginRules
    store: TileStore
    beside: Mapping[str, TileStore]
    """P&L under other models, by their names in the table `stress`."""
    protective: Mapping[ApcTool, TileStore]
    """Under the other volatility that a tool against procyclicality asks for."""
    value: Float[np.ndarray, " instrument"]
    """Of one contract in base currency, NaN where nothing prices it."""
    sensitivities: Sequence[Sensitivity]
    close_out: CloseOut | None
    isolated: tuple[Alone, Alone]
    """One contract of each instrument, long and short."""
    stress: tuple[str, ...]
    """Entries of the stress list."""
    stress_profit: Float[np.ndarray, "instrument entry"]
    """Of one contract."""
    factors: Sequence[MarketFactor]
    height: int
    """Accounts of a block."""
    withheld: Mapping[str, str]
    """Account -> reason."""
    last_good: Mapping[str, float]
    charged: Charged


def price_all(
    pnl: ProfitAndLoss,
    portfolio: Portfolio,
    rules: MarginRules,
    *,
    stress: ScenarioSet | None = None,
    beside: Mapping[str, ProfitAndLoss] | None = None,
    protective: Mapping[ApcTool, ProfitAndLoss] | None = None,
    last_good: Mapping[str, float] | None = None,
    charged: Charged | None = None,
    detail: Detail = Detail.GREEKS,
    memory_bytes: float | None = None,
    loss_bytes: float = LOSS_BYTES,
    progress: Progress = quiet,
    log: Callable[[str], None] = lambda text: None,
) -> Priced:
    """All that `account_tables` needs, computed once; arguments and errors are those of `margin_report`. `beside` is
    P&L under other models, by name; `loss_bytes` may be taken by the losses of accounts; `log` is told where a device's
    memory made it go in smaller steps."""
    scenarios = pnl.scenarios
    if scenarios.n_scenarios * rules.least_tail < LEAST_TAIL:
        least = int(np.ceil(LEAST_TAIL / rules.least_tail))
        level = f"{1 - rules.least_tail:.6g}"
        raise UsageError(
            f"{scenarios.n_scenarios:,} scenarios leave fewer than {LEAST_TAIL} beyond level {level}; "
            f"use at least {least:,}"
        )
    entries, others = stress.labels if stress is not None else (), beside or {}
    for name in others:
        if name in entries:
            raise UsageError(f"the stress list has an entry {name!r}, which is the name of a stress of the model")
    protective = protective or {}
    for tool in set(VOLATILITY) & set(rules.apc) - set(protective):
        raise UsageError(f"the rules ask for {tool}: supply the P&L under that volatility, or leave it out")
    withheld = unvalued_accounts(portfolio, pnl)
    value, sensitivities = _values(portfolio, pnl)
    memory = (memory_bytes or half_of_memory()) / (1 + len(others) + len(protective))

    def store_of(world: ProfitAndLoss, stage: str) -> TileStore:
        advance = counter(progress, stage, world.scenarios.n_tiles)
        return TileStore(world, memory_bytes=memory, advance=advance, log=log)

    return Priced(
        pnl,
        portfolio,
        rules,
        store := store_of(pnl, "revaluation"),
        {name: store_of(world, name) for name, world in others.items()},
        {tool: store_of(world, tool) for tool, world in protective.items()},
        value,
        sensitivities,
        _close_out(portfolio, pnl, sensitivities) if rules.liquidity is Liquidity.CHARGE else None,
        each_alone(store, portfolio.quantity[_live(portfolio, withheld)], rules),
        entries,
        _stress_profit(portfolio, pnl, stress, log),
        market_factors(portfolio.instruments, pnl) if detail is Detail.GREEKS else (),
        block_height(scenarios.n_scenarios, loss_bytes),
        withheld,
        last_good or {},
        charged or {},
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
    blocks = list(account_blocks(portfolio.quantity, live, priced.height))
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
    for name, other in priced.beside.items():
        stressed[name] = _measures(blocks, other, rules, portfolio, level=rules.level)[live]
    add_ons = _add_ons(priced, portfolio, live, blocks, measured, stressed)
    added = np.zeros(portfolio.n_accounts)
    added[live] = sum((one.amount for one in add_ons), np.zeros(len(live)))
    isolated, isolated_error = held_alone(portfolio.quantity, priced.isolated, rules)
    margins, protected = margin_table(
        portfolio, pnl.market, rules, measured,
        value=priced.value, isolated=isolated, isolated_error=isolated_error, withheld=out,
        fallback=_fallback(portfolio, pnl.market, rules, priced.value, out, priced.last_good),
        protected=_protected(priced, portfolio, blocks), added=added,
    )  # fmt: skip
    greeks = priced.sensitivities if detail is Detail.GREEKS else []
    return {
        "margins": margins,
        "components": component_table(portfolio, tails, found),
        "greeks": greek_table(portfolio, tails, found, priced.factors, greeks, rules, margins),
        "model_greeks": model_greek_table(portfolio, tails, by_model, rules, margins),
        "worst": worst_table(portfolio, tails, pnl.scenarios),
        "stress": stress_table(portfolio, live, stressed),
        "add_ons": add_on_table(portfolio.account_id, live, add_ons),
        "anti_procyclicality": protected,
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
        notes=notes
        + _absent(priced)
        + projection_notes(priced.pnl.plan.layout)
        + tuple(f"{a} is withheld: {reason}" for a, reason in sorted(out.items())[:20]),
    )


def protecting(model: ModelSpecification, rules: MarginRules) -> dict[ApcTool, ModelSpecification]:
    """The laws that tools of the rules ask for beside today's; `margin_report` takes the P&L under them.

    Raises InputError for a model that has none of the volatility.
    """
    return {tool: under(model, volatility) for tool, volatility in VOLATILITY.items() if tool in rules.apc}


def margin_report(
    pnl: ProfitAndLoss,
    portfolio: Portfolio,
    rules: MarginRules,
    *,
    stress: ScenarioSet | None = None,
    decorrelated: ProfitAndLoss | None = None,
    plug_in: ProfitAndLoss | None = None,
    protective: Mapping[ApcTool, ProfitAndLoss] | None = None,
    last_good: Mapping[str, float] | None = None,
    charged: Charged | None = None,
    greeks: bool = True,
    memory_bytes: float | None = None,
    notes: tuple[str, ...] = (),
    settings: Mapping[str, Any] | None = None,
    progress: Progress = quiet,
) -> MarginReport:
    """Margin of every account of `portfolio` from its P&L under the scenarios of `pnl`.

    Accounts that hold something which cannot be valued are withheld: their margin is the largest of `last_good` and the
    standard margin, never zero in silence. `decorrelated`, the P&L under `ModelSpecification.decorrelated`, adds each
    account's measure under it to the table `stress`; so does `plug_in`, the P&L under `Parameters.PLUG_IN`. The tools
    of `rules.apc` need `protective`, the P&L under the laws that `protecting` gives, of as many scenarios, and take the
    margins `charged` before. `greeks=False` leaves out gradients and the spot–vol–time split. Raises UsageError if the
    tail holds too few scenarios or a P&L is missing, and NumericsError if any number is not finite.
    """
    detail = Detail.GREEKS if greeks else Detail.COMPONENTS
    priced = price_all(
        pnl, portfolio, rules,
        stress=stress, beside=model_stresses(decorrelated, plug_in), protective=protective, last_good=last_good,
        charged=charged, detail=detail, memory_bytes=memory_bytes, progress=progress,
    )  # fmt: skip
    tables = account_tables(priced, detail=detail, progress=progress)
    tables["shocks"] = shock_table(tables["worst"]["scenario"], pnl.scenarios)
    return finish(priced, tables, notes=notes, settings=settings)


def model_stresses(decorrelated: ProfitAndLoss | None, plug_in: ProfitAndLoss | None) -> dict[str, ProfitAndLoss]:
    """P&L under other models, under their names in the table `stress`."""
    both = {DECORRELATION: decorrelated, PLUG_IN: plug_in}
    return {name: pnl for name, pnl in both.items() if pnl is not None}


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


def unvalued_accounts(portfolio: Portfolio, pnl: ProfitAndLoss) -> dict[str, str]:
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
    value[priced], sensitivities = values_and_greeks(
        portfolio.instruments.take(priced), pnl.market, pnl.scenarios.factors
    )
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


def _close_out(portfolio: Portfolio, pnl: ProfitAndLoss, sensitivities: Sequence[Sensitivity]) -> CloseOut:
    table = portfolio.instruments
    priced = np.array([i for i in range(len(table)) if i not in pnl.plan.unpriced], dtype=np.int64)
    return close_out(table, pnl.market, pnl.scenarios, sensitivities, priced)


def _add_ons(
    priced: Priced,
    portfolio: Portfolio,
    live: Int[np.ndarray, " live"],
    blocks: Sequence[AccountBlock],
    measured: Sequence[BlockMeasure],
    stressed: Mapping[str, Float[np.ndarray, " live"]],
) -> list[AddOn]:
    """What the rules add to the margins of the accounts `live`."""
    rules, found = priced.rules, []
    if rules.stress_share:
        base = np.zeros(portfolio.n_accounts)
        for m in measured:
            expected = rules.measure is Measure.EXPECTED_SHORTFALL
            base[m.block.account] = m.expected_shortfall if expected else m.value_at_risk
        if rules.stress_of is StressOf.DEPENDENCE:
            stores = filter(None, (priced.store, priced.beside.get(DECORRELATION)))
            worlds = [_measures(blocks, s, rules, portfolio, level=1 - rules.least_tail)[live] for s in stores]
        else:
            worlds = [stressed[name] for name in priced.stress]
        found.append(stress_add_on(base[live], np.max(worlds, axis=0) if worlds else None, rules))
    if priced.close_out is not None:
        asked = cost(portfolio.quantity[live], priced.close_out, portfolio.instruments.instrument_id)
        found += close_out_add_ons(asked, priced.close_out.factors)
    return found


def _absent(priced: Priced) -> tuple[str, ...]:
    """Notes on add-ons that the rules ask for and the inputs do not tell."""
    rules, unit, said = priced.rules, priced.close_out, []
    if rules.stress_share and rules.stress_of is StressOf.LIST and not priced.stress:
        said.append(f"add-on stress is absent: {NO_LIST}; supply market/stress")
    if unit is not None:
        held = np.unique(priced.portfolio.quantity.indices)
        unquoted = held[np.isnan(unit.half_spread[held])]
        if len(unquoted):
            names = some_of(priced.portfolio.instruments.instrument_id[unquoted])
            said.append(
                f"add-on spread is absent for {len(unquoted):,} of {len(held):,} instruments held, without half_spread "
                f"in market/liquidity: {names}"
            )
        untraded = [f for f, v in zip(unit.factors, unit.volume, strict=True) if not v]
        if untraded:
            said.append(f"add-on impact is absent for {some_of(untraded)}: no daily_volume in market/liquidity")
    return tuple(said)


def _measures(
    blocks: Sequence[AccountBlock], store: TileStore, rules: MarginRules, portfolio: Portfolio, *, level: float
) -> np.ndarray:
    """The rules' measure of every account that is in a block, NaN of the others."""
    out = np.full(portfolio.n_accounts, np.nan)
    for block in blocks:
        found = measure_losses(
            block_loss(block, store, dtype=np.dtype(np.float64)), store.pnl.scenarios, level,
            names=portfolio.account_id[block.account],
        )  # fmt: skip
        expected = rules.measure is Measure.EXPECTED_SHORTFALL
        out[block.account] = found.expected_shortfall if expected else found.value_at_risk
    return out


def _protected(priced: Priced, portfolio: Portfolio, blocks: Sequence[AccountBlock]) -> Protected:
    """What the tools against procyclicality say of each account; zeros of those that are in no block."""
    n, rules = portfolio.n_accounts, priced.rules
    found = {tool: Protection(np.zeros(n), np.zeros(n)) for tool in VOLATILITY}
    for tool, out in found.items():
        for block in blocks if tool in rules.apc else ():
            stores, shares = [priced.protective[tool]], [1.0]
            if tool is ApcTool.STRESSED:
                stores, shares = [priced.store, *stores], [1 - STRESSED_WEIGHT, STRESSED_WEIGHT]
            own = protection(
                [block_loss(block, s, dtype=np.dtype(np.float64)) for s in stores],
                [s.pnl.scenarios for s in stores],
                rules,
                shares=shares,
                names=portfolio.account_id[block.account],
            )
            for whole, part in zip(out, own, strict=True):
                whole[block.account] = part
    charged = np.array([priced.charged.get(str(a), (0.0, 0.0)) for a in portfolio.account_id]).reshape(-1, 2)
    return Protected(rules, found[ApcTool.STRESSED], found[ApcTool.FLOOR], *charged.T)


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
        "stress_share": rules.stress_share,
        "stress_of": str(rules.stress_of),
        "liquidity": str(rules.liquidity),
        "apc": ",".join(rules.apc),
        "precision": str(pnl.precision),
        "device": jax.devices()[0].device_kind,
        **pnl.scenarios.provenance,
    }


__all__ = ["MarginReport", "margin_report"]
