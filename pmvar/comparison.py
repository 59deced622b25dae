"""Compare: any margin methods on the same book, beside the Monte Carlo margin and judged by its tail."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pmvar.engine import Progress, counter, half_of_memory, margin_report, quiet
from pmvar.methods.comparison import comparison_tables, gross, monte_carlo, strategy_table
from pmvar.methods.result import Method, MethodMargin
from pmvar.methods.span.default import weighted_quantile
from pmvar.methods.strategies import strategies
from pmvar.portfolio import Portfolio
from pmvar.report.comparison_report import AccountGrid, ComparisonReport
from pmvar.risk.accounts import AccountBlock, account_blocks, block_height, block_loss
from pmvar.risk.exceedance import exceedance
from pmvar.risk.result import MarginResult
from pmvar.risk.rules import MarginRules
from pmvar.scenarios.stress import instantaneous
from pmvar.types import FactorKind, Status, factor_name
from pmvar.valuation.reprice import ProfitAndLoss, reprice
from pmvar.valuation.store import TileStore

GRID = np.linspace(-1.0, 1.0, 7), np.array([1.0, 0.0, -1.0])
"""Price and vol moves of the grid drawn, in 99% quantiles of the sizes of their logarithms: the steps of SPAN."""
CLOUD = 1_200
"""Scenarios drawn of the tail, and as many of the others."""
DRAWN = 2
"""Accounts whose grids are drawn."""


def compare(
    pnl: ProfitAndLoss,
    portfolio: Portfolio,
    rules: MarginRules,
    methods: Sequence[Method],
    *,
    memory_bytes: float | None = None,
    notes: tuple[str, ...] = (),
    progress: Progress = quiet,
) -> ComparisonReport:
    """The Monte Carlo margin and `methods` for every account, for textbook strategies, and what drives them apart.

    Methods are compared as they calculate: the rules' tools against procyclicality are left out, and a note says so.
    Raises what `margin_report` and the methods raise.
    """
    memory = memory_bytes or half_of_memory()
    if rules.stress_share:
        rules = replace(rules, stress_share=0.0)
        notes = (*notes, "mc: its margin stands here without its stress add-on")
    if rules.apc:
        notes = (*notes, f"compared before the tools against procyclicality ({', '.join(rules.apc)})")
        rules = replace(rules, apc=())
    report, found, store, blocks = _measured(pnl, portfolio, rules, methods, memory, progress)
    beyond = exceedance(blocks, store, np.array([m.initial for m in found]))
    tables = comparison_tables(found, report, beyond, level=rules.level)
    grids = tuple(_grid(account, report, pnl, store, blocks, portfolio) for account in _drawn(report, found))

    textbook = strategies(portfolio.instruments, pnl.market)
    if textbook.n_accounts:
        theirs = reprice(textbook, pnl.market, pnl.scenarios, precision=pnl.precision)
        own, margins, kept, parts = _measured(theirs, textbook, rules, methods, memory, quiet)
        past = exceedance(parts, kept, np.array([m.initial for m in margins]))
        tables["strategies"] = strategy_table(margins, own, past, level=rules.level)
    said = tuple(f"{m.method}: {note}" for m in found for note in m.notes)
    return ComparisonReport(tables, (), report.settings, notes + said, grids)


def _measured(
    pnl: ProfitAndLoss,
    portfolio: Portfolio,
    rules: MarginRules,
    methods: Sequence[Method],
    memory: float,
    progress: Progress,
) -> tuple[MarginResult, list[MethodMargin], TileStore, list[AccountBlock]]:
    """The Monte Carlo margins, all methods with them first, and what their losses are read from."""
    report = margin_report(pnl, portfolio, rules, greeks=False, memory_bytes=memory, progress=progress)
    live = np.flatnonzero(report.tables["margins"]["status"] != Status.WITHHELD)
    store = TileStore(pnl, memory_bytes=memory)
    found, advance = [monte_carlo(report), gross(report)], counter(progress, "methods", len(methods))
    for method in methods:
        found.append(method(portfolio))
        advance()
    height = block_height(store.n_scenarios)
    return report, found, store, list(account_blocks(portfolio.quantity, live, height))


def _drawn(report: MarginResult, found: Sequence[MethodMargin]) -> list[int]:
    """Accounts that the report draws: among the larger half of margins those whose methods differ most."""
    margins = report.tables["margins"]
    es = np.where(margins["status"] == Status.WITHHELD, 0.0, margins["expected_shortfall"])
    large = es >= max(np.median(es), 1e-9)
    ratio = np.array([m.initial for m in found]) / np.maximum(es, 1e-9)
    spread = np.where(large, np.ptp(np.log(np.maximum(ratio, 1e-3)), axis=0), -1.0)
    order = np.argsort(-spread, kind="stable")[:DRAWN]
    return [int(i) for i in order if spread[i] >= 0]


def _grid(
    account: int,
    report: MarginResult,
    pnl: ProfitAndLoss,
    store: TileStore,
    blocks: Sequence[AccountBlock],
    portfolio: Portfolio,
) -> AccountGrid:
    """The account's loss over moves of the underlying that its expected shortfall comes from most."""
    scenarios, underlying = pnl.scenarios, _largest(report, str(portfolio.account_id[account]))
    shock = np.asarray(scenarios.shock.sum(axis=1))
    spot, vol = (
        scenarios.factors.index(name) if (name := factor_name(underlying, kind)) in scenarios.factors else None
        for kind in (FactorKind.SPOT, FactorKind.VOL)
    )
    spots, vols = (
        steps * (0.0 if column is None else weighted_quantile(np.abs(shock[:, column]), scenarios.weight, 0.99))
        for steps, column in zip(GRID, (spot, vol), strict=True)
    )
    moved = np.zeros((len(vols), len(spots), len(scenarios.factors)))
    for column, values in ((spot, spots[None, :]), (vol, vols[:, None])):
        if column is not None:
            moved[..., column] = values
    flat = moved.reshape(-1, len(scenarios.factors))
    grid = instantaneous(scenarios.factors, scenarios.as_of, flat, tuple(map(str, range(len(flat)))))
    shocked = reprice(portfolio, pnl.market, grid, precision=pnl.precision)
    [tile] = (np.asarray(t, dtype=np.float64)[shocked.row] for t in shocked)
    on_grid = -(portfolio.quantity[[account]] @ tile[:, : len(flat)])[0]

    block = next(b for b in blocks if account in b.account)
    row = int(np.flatnonzero(block.account == account)[0])
    loss = block_loss(block, store)[row : row + 1][0]
    beyond = loss > report.tables["margins"]["value_at_risk"][account]
    shown = np.concatenate([some[:: max(1, len(some) // CLOUD)] for some in map(np.flatnonzero, (~beyond, beyond))])
    linear = pnl.market.scale(underlying).is_linear
    cloud = [np.expm1(shock[shown, c]) if c is not None else np.zeros(len(shown)) for c in (spot, vol)]
    if linear and spot is not None:
        cloud[0] = np.asarray(shock[shown, spot])
    return AccountGrid(
        account_id=str(portfolio.account_id[account]),
        underlying=underlying,
        spot_move=spots if linear else np.expm1(spots),
        vol_move=np.expm1(vols),
        loss=on_grid.reshape(len(vols), len(spots)),
        cloud_spot=cloud[0],
        cloud_vol=cloud[1],
        is_tail=beyond[shown],
    )


def _largest(report: MarginResult, account_id: str) -> str:
    """The underlying that the account's expected shortfall comes from most."""
    parts = report.tables["components"]
    mine = parts["account_id"] == account_id
    names, place = np.unique(parts["underlying"][mine].astype(str), return_inverse=True)
    return str(names[np.argmax(np.bincount(place, parts["component_es"][mine]))])
