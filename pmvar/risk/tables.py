"""From measured blocks to the columns of a run's tables, sorted by account."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int

from pmvar.errors import NumericsError
from pmvar.market.snapshot import MarketSnapshot
from pmvar.portfolio import Portfolio
from pmvar.risk.anti_procyclicality import Protected
from pmvar.risk.gradient import BlockGradient, MarketFactor
from pmvar.risk.measure import N_WORST, BlockMeasure, BlockTail
from pmvar.risk.model_gradient import ModelGradient
from pmvar.risk.result import TABLES, Columns
from pmvar.risk.rules import MarginRules
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import FactorKind, Kind, Measure, Status
from pmvar.valuation.today import Sensitivity


def _text(values: object) -> np.ndarray:
    return np.array(values, dtype=object)


def _scatter(
    portfolio: Portfolio, measured: Sequence[BlockMeasure | BlockTail], values: Sequence[np.ndarray]
) -> np.ndarray:
    """Per-block rows laid out by account; accounts in no block get zeros."""
    out = np.zeros((portfolio.n_accounts, *values[0].shape[1:])) if values else np.zeros(portfolio.n_accounts)
    for block, part in zip(measured, values, strict=True):
        out[block.block.account] = part
    return out


def equity(portfolio: Portfolio, market: MarketSnapshot, value: Float[np.ndarray, " instrument"]) -> np.ndarray:
    """Σ (balances·(1 − haircut) + value)·price of each account in base currency; what has no value counts nothing.

    A haircut lowers what is owned, never what is owed.
    """
    known = np.nan_to_num(value, nan=0.0)
    table = portfolio.instruments
    credit = known.copy()
    for i in np.flatnonzero(table.kind == Kind.CASH):
        if table.underlying[i] != market.base_currency:
            credit[i] *= 1 - market.haircut[market.column(table.underlying[i])]
    quantity = portfolio.quantity
    return np.asarray(quantity.maximum(0) @ credit - (-quantity).maximum(0) @ known)


def margin_table(
    portfolio: Portfolio,
    market: MarketSnapshot,
    rules: MarginRules,
    measured: Sequence[BlockMeasure],
    *,
    value: Float[np.ndarray, " instrument"],
    isolated: Float[np.ndarray, " account"],
    isolated_error: Float[np.ndarray, " account"],
    withheld: Mapping[str, str],
    fallback: Float[np.ndarray, " account"],
    protected: Protected,
    added: Float[np.ndarray, " account"],
) -> tuple[Columns, Columns]:
    """The tables `margins`, withheld accounts at their fallback and `added` to the margins of the others, and
    `anti_procyclicality`. Raises NumericsError naming an account that is not finite."""
    n = portfolio.n_accounts
    names = [str(a) for a in portfolio.account_id]
    out = np.array([a in withheld for a in names], dtype=bool)
    var = _scatter(portfolio, measured, [m.value_at_risk for m in measured])
    shortfall = _scatter(portfolio, measured, [m.expected_shortfall for m in measured])
    var_error = _scatter(portfolio, measured, [m.var_error for m in measured])
    es_error = _scatter(portfolio, measured, [m.es_error for m in measured])
    tail = shortfall if rules.measure is Measure.EXPECTED_SHORTFALL else var
    current = rules.multiplier * np.maximum(tail, rules.floor)
    initial = np.where(out, fallback, protected.initial(current) + added)
    maintenance = rules.maintenance_ratio * initial
    worth = equity(portfolio, market, value)
    status = np.full(n, Status.OK, dtype=object)
    # Written so that a NaN would fail, too.
    status[~(worth >= initial)] = Status.MARGIN_CALL
    status[~(worth >= maintenance)] = Status.LIQUIDATION
    status[out] = Status.WITHHELD
    alone = np.where(out, fallback, isolated)
    columns: dict[str, np.ndarray] = {
        "account_id": portfolio.account_id,
        "level": np.full(n, rules.level),
        "value_at_risk": np.where(out, fallback, var),
        "var_standard_error": var_error,
        "expected_shortfall": np.where(out, fallback, shortfall),
        "es_standard_error": es_error,
        "initial_margin": initial,
        "maintenance_margin": maintenance,
        "equity": worth,
        "excess": worth - initial,
        "isolated_margin": alone,
        "isolated_standard_error": np.where(out, 0.0, isolated_error),
        # Of the margin without what protects it: isolated margins have none of that.
        "diversification_benefit": alone - np.where(out, fallback, current),
        "status": _text([str(s) for s in status]),
        "reason": _text([withheld.get(a, "") for a in names]),
    }
    for name, column in columns.items():
        if column.dtype == np.float64 and not np.all(np.isfinite(column)):
            bad = names[int(np.flatnonzero(~np.isfinite(column))[0])]
            raise NumericsError(f"{name} of account {bad} is not finite")
    return columns, protected.table(portfolio.account_id, current, np.flatnonzero(~out))


def _positions(measured: Sequence[BlockTail]) -> list[tuple[int, int, int, int]]:
    """(account, block, row in block, position) of every position, by account and instrument."""
    return sorted(
        (int(m.block.account[r]), b, r, p)
        for b, m in enumerate(measured)
        for r in range(len(m.block.account))
        for p in range(int(m.block.count[r]))
    )


def _pick(rows: Sequence[tuple[int, int, int, int]], parts: Sequence[np.ndarray]) -> np.ndarray:
    return np.array([parts[b][r, p] for _, b, r, p in rows], dtype=np.float64)


def component_table(portfolio: Portfolio, measured: Sequence[BlockTail], found: Sequence[BlockGradient]) -> Columns:
    """The table `components`; without gradients the split by kind of factor is all in `spot_es`."""
    rows = _positions(measured)
    column = np.array([measured[b].block.instrument[r, p] for _, b, r, p in rows], dtype=np.int64)
    component = _pick(rows, [m.component for m in measured])
    zero = np.zeros(len(rows))
    return {
        "account_id": portfolio.account_id[[a for a, *_ in rows]],
        "instrument_id": portfolio.instruments.instrument_id[column],
        "underlying": portfolio.instruments.underlying[column],
        "quantity": _pick(rows, [m.block.quantity for m in measured]),
        "component_es": component,
        "standard_error": _pick(rows, [m.component_error for m in measured]),
        "spot_es": _pick(rows, [g.spot for g in found]) if found else component,
        "vol_es": _pick(rows, [g.vol for g in found]) if found else zero,
        "time_es": _pick(rows, [g.time for g in found]) if found else zero,
    }


def greek_table(
    portfolio: Portfolio,
    measured: Sequence[BlockTail],
    found: Sequence[BlockGradient],
    factors: Sequence[MarketFactor],
    sensitivities: Sequence[Sensitivity],
    rules: MarginRules,
    margins: Columns,
) -> Columns:
    """The table `greeks`: of each position today, and of each account's initial margin."""
    parts: list[dict[str, np.ndarray]] = []
    matrix = portfolio.quantity
    account = np.repeat(np.arange(portfolio.n_accounts), np.diff(matrix.indptr))
    for s in sensitivities:
        has = s.value[matrix.indices] != 0
        n = int(has.sum())
        parts.append(
            {
                "account_id": portfolio.account_id[account[has]],
                "of": np.full(n, "position", dtype=object),
                "instrument_id": portfolio.instruments.instrument_id[matrix.indices[has]],
                "factor": np.full(n, s.factor, dtype=object),
                "greek": np.full(n, str(s.greek), dtype=object),
                "value": matrix.data[has] * s.value[matrix.indices[has]],
                "standard_error": np.zeros(n),
            }
        )
    if found:
        moves = _moves(rules, margins)
        value = _scatter(portfolio, measured, [g.gradient for g in found]) * moves[:, None]
        error = _scatter(portfolio, measured, [g.error for g in found]) * moves[:, None]
        for f, (name, greek, _) in enumerate(factors):
            has = (value[:, f] != 0) | (error[:, f] != 0)
            n = int(has.sum())
            parts.append(
                {
                    "account_id": portfolio.account_id[has],
                    "of": np.full(n, "margin", dtype=object),
                    "instrument_id": np.full(n, "", dtype=object),
                    "factor": np.full(n, name, dtype=object),
                    "greek": np.full(n, str(greek), dtype=object),
                    "value": value[has, f],
                    "standard_error": error[has, f],
                }
            )
    empty = {
        c: np.array([], dtype=np.float64 if c in ("value", "standard_error") else object) for c in TABLES["greeks"]
    }
    columns = {c: np.concatenate([empty[c], *(p[c] for p in parts)]) for c in TABLES["greeks"]}
    keys = [columns[c].astype(str) for c in ("greek", "factor", "instrument_id", "of", "account_id")]
    order = np.lexsort(keys)
    return {c: v[order] for c, v in columns.items()}


def _moves(rules: MarginRules, margins: Columns) -> Float[np.ndarray, " account"]:
    """d(current margin)/d(measure), the tools against procyclicality aside: where the floor binds it does not move."""
    tail = margins["expected_shortfall" if rules.measure is Measure.EXPECTED_SHORTFALL else "value_at_risk"]
    return rules.multiplier * (tail > rules.floor)


def model_greek_table(
    portfolio: Portfolio,
    measured: Sequence[BlockTail],
    found: Sequence[ModelGradient],
    rules: MarginRules,
    margins: Columns,
) -> Columns:
    """The table `model_greeks`: each account's initial margin by the parameters of the model that it depends on."""
    if not found:
        text = {c: _text([]) for c in TABLES["model_greeks"][:4]}
        return {**text, "value": np.array([]), "standard_error": np.array([])}
    labels, moves = found[0].labels, _moves(rules, margins)[:, None]
    value = _scatter(portfolio, measured, [g.gradient for g in found]) * moves
    error = _scatter(portfolio, measured, [g.error for g in found]) * moves
    account, column = np.nonzero((value != 0) | (error != 0))
    names = {part: _text([label[i] for label in labels])[column] for i, part in enumerate(labels[0]._fields)}
    return {
        "account_id": portfolio.account_id[account],
        **names,
        "value": value[account, column],
        "standard_error": error[account, column],
    }


def worst_table(portfolio: Portfolio, measured: Sequence[BlockTail], scenarios: ScenarioSet) -> Columns:
    """The table `worst`: the worst scenarios of each account, rank 1 the worst."""
    rows = sorted((int(a), b, r) for b, m in enumerate(measured) for r, a in enumerate(m.block.account))
    ids = np.array([measured[b].worst[r] for _, b, r in rows], dtype=np.int64).reshape(-1, N_WORST)
    loss = np.array([measured[b].worst_loss[r] for _, b, r in rows], dtype=np.float64).reshape(-1, N_WORST)
    account = np.repeat(np.array([a for a, *_ in rows], dtype=np.int64), N_WORST)
    return {
        "account_id": portfolio.account_id[account],
        "rank": np.tile(np.arange(1, N_WORST + 1), len(rows)),
        "scenario": ids.ravel(),
        "weight": scenarios.weight[ids.ravel()],
        "loss": loss.ravel(),
    }


def shock_table(worst: Int[np.ndarray, " some"], scenarios: ScenarioSet) -> Columns:
    """The table `shocks`: x of all factors over the horizon in the scenarios of `worst`, log changes of prices and
    absolute moves of bases, rates and spreads.

    Vols at their reference tenor and capped, as revaluation takes them.
    """
    ids = np.unique(worst)
    shock = np.asarray(scenarios.shock[ids].sum(axis=1)) if len(ids) else np.zeros((0, len(scenarios.factors)))
    is_vol = np.array([name.endswith(f":{FactorKind.VOL}") for name in scenarios.factors])
    if np.isfinite(scenarios.vol_cap):
        shock = np.where(is_vol, scenarios.vol_cap * np.tanh(shock / scenarios.vol_cap), shock)
    return {
        "scenario": np.repeat(ids, len(scenarios.factors)),
        "factor": np.tile(_text(scenarios.factors), len(ids)),
        "shock": shock.ravel(),
    }


def stress_table(
    portfolio: Portfolio, live: Int[np.ndarray, " account"], loss: Mapping[str, Float[np.ndarray, " account"]]
) -> Columns:
    """The table `stress`: losses by scenario of the accounts `live`, those that are not withheld."""
    return {
        "account_id": np.repeat(portfolio.account_id[live], len(loss)),
        "scenario": np.tile(_text(list(loss)), len(live)) if loss else _text([]),
        "loss": np.array(list(loss.values()), dtype=np.float64).T.ravel(),
    }
