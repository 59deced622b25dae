"""Grid margins: the worst of a venue's scenarios and its charges, underlying by underlying, for all accounts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from pmvar.errors import NumericsError
from pmvar.market.snapshot import MarketSnapshot
from pmvar.methods.fallback import at_least_standard, debt_margin, unpriceable
from pmvar.methods.grid_accounts import UnderlyingRisk, underlying_risk
from pmvar.methods.grid_rules import Balances, GridRules
from pmvar.methods.grid_scenarios import Role
from pmvar.methods.grid_values import GridValues, VenueState, grid_values
from pmvar.methods.result import MethodMargin, Step
from pmvar.portfolio import Portfolio
from pmvar.types import Kind

TIE = 1e-12
"""Relative difference of losses that counts as none."""

BASIS = "basis"
"""Label of a scan that the basis charge drives."""


class _Line(NamedTuple):
    """One kind of step of all accounts."""

    group: str
    name: str
    label: str | np.ndarray
    initial: Float[np.ndarray, " account"]
    maintenance: Float[np.ndarray, " account"]


def grid_margin(
    portfolio: Portfolio, market: MarketSnapshot, rules: GridRules, *, state: VenueState | None = None
) -> MethodMargin:
    """Margin of every account by a venue's `rules` (see `load_rules`), in base currency.

    Per underlying: max(scan + added + roll, alternative, minimum) × factor + contingencies; underlyings add up, except
    that product groups offset point by point. Margins are requirements against equity, the options' value in it.
    An account that holds what is unknown or cannot be valued gets at least its standard margin, and a note.
    Raises NumericsError if a value is not finite, or if such an account has no price for a standard margin.
    """
    if not np.isfinite(portfolio.quantity.data).all():
        raise NumericsError("a position has a quantity that is not finite; correct positions and balances")
    state = state or VenueState()
    table = portfolio.instruments
    missing = unpriceable(table, market)
    value = np.full(len(table), np.nan)
    risks: dict[str, UnderlyingRisk] = {}
    scanned = scanned_rows(portfolio, rules, market)
    for underlying, rows, values in _valued(portfolio, market, rules, state, missing):
        value[rows] = values.today
        inside = scanned[rows]
        if inside.any():
            risks[underlying] = underlying_risk(
                portfolio.quantity[:, rows[inside]],
                _take(values, np.flatnonzero(inside)),
                rules.class_of(underlying),
                confidence=state.confidence.get(underlying, 1.0),
            )
    lines = [line for name, members in _groups(rules, risks) for line in _group_lines(name, members, rules, state)]
    debt = debt_margin(portfolio, market, value, scanned)
    lines.append(_Line("", "debt", "balances below zero", debt, debt))
    lifts, notes = at_least_standard(portfolio, market, value, missing, *_totals(lines))
    lines.append(_Line("", "fallback", "standard margin", *lifts))
    initial, maintenance = _totals(lines)
    if not (np.isfinite(initial).all() and np.isfinite(maintenance).all()):
        raise NumericsError(f"a margin by {rules.name} is not finite; correct the quantities of the positions")
    return MethodMargin(
        rules.name,
        f"{rules.source} ({rules.date})",
        np.maximum(initial, 0.0),
        np.maximum(maintenance, 0.0),
        _steps(lines),
        rules.notes + notes,
    )


def group_initial(
    name: str, members: dict[str, UnderlyingRisk], rules: GridRules, state: VenueState
) -> Float[np.ndarray, " account"]:
    """Initial margin of underlyings that are margined together."""
    return _totals(_group_lines(name, members, rules, state))[0]


def _totals(lines: list[_Line]) -> tuple[Float[np.ndarray, " account"], Float[np.ndarray, " account"]]:
    """Initial and maintenance margin, line after line."""
    return np.sum([line.initial for line in lines], axis=0), np.sum([line.maintenance for line in lines], axis=0)


Valued = tuple[str, Int[np.ndarray, " instrument"], GridValues]
"""An underlying, its instruments' columns in the portfolio's table, and their values."""


def _valued(
    portfolio: Portfolio, market: MarketSnapshot, rules: GridRules, state: VenueState, missing: Mapping[int, str]
) -> Iterator[Valued]:
    """Values of all instruments that can be valued, held or not, so that no account's depend on what others hold."""
    table = portfolio.instruments
    for underlying in sorted({str(u) for u in table.underlying}):
        rows = np.array([i for i in np.flatnonzero(table.underlying == underlying) if i not in missing], dtype=np.int64)
        if rows.size:
            yield underlying, rows, grid_values(table.take(rows), market, rules, state)


def held_values(portfolio: Portfolio, market: MarketSnapshot, rules: GridRules, state: VenueState) -> Iterator[Valued]:
    """By underlying, the values of what the scan covers; what cannot be valued is left out."""
    table = portfolio.instruments
    missing = unpriceable(table, market)
    scanned = scanned_rows(portfolio, rules, market)
    for underlying, rows, values in _valued(portfolio, market, rules, state, missing):
        inside = np.flatnonzero(scanned[rows])
        if inside.size:
            yield underlying, rows[inside], _take(values, inside)


def scanned_rows(portfolio: Portfolio, rules: GridRules, market: MarketSnapshot) -> np.ndarray:
    """Which instruments the scan covers: all but balances, and those of a derivative's underlying if rules say so."""
    table = portfolio.instruments
    is_cash = table.kind == Kind.CASH
    if rules.balances is Balances.OUTSIDE:
        return ~is_cash
    underlyings = set(table.underlying[~is_cash].tolist()) - {market.base_currency}
    return ~is_cash | np.array([u in underlyings for u in table.underlying.tolist()], dtype=bool)


def _take(values: GridValues, rows: Int[np.ndarray, " instrument"]) -> GridValues:
    """Of the instruments at `rows`."""
    return GridValues(
        values.instruments.take(rows), values.today[rows], values.value[rows], values.basis[rows], values.delta[rows],
        values.time[rows], values.rate[rows], values.price,
    )  # fmt: skip


def _groups(rules: GridRules, risks: dict[str, UnderlyingRisk]) -> list[tuple[str, dict[str, UnderlyingRisk]]]:
    """Underlyings that are margined together, by the name of their group."""
    found: dict[str, dict[str, UnderlyingRisk]] = {}
    for underlying, risk in risks.items():
        group = rules.group_of(underlying)
        found.setdefault(group.name if group else underlying, {})[underlying] = risk
    return sorted(found.items())


def _group_lines(name: str, members: dict[str, UnderlyingRisk], rules: GridRules, state: VenueState) -> list[_Line]:
    """The lines of one group, from the scan to its contingencies."""
    first = next(iter(members))
    columns = rules.class_of(first).scenarios()
    group = rules.group_of(first)
    offset = group.offset if group else 1.0
    # Another class's gain offsets a share of a loss at the same point; a class's own gains and losses net in full.
    net = sum((np.where(r.pnl < 0, r.pnl, offset * r.pnl) for r in members.values()), np.zeros(()))

    def worst(role: Role) -> tuple[np.ndarray, np.ndarray]:
        own = np.array([i for i, s in enumerate(columns) if s.role is role], dtype=np.int64)
        if not own.size:
            return np.zeros(len(net)), np.full(len(net), "", dtype=object)
        least = net[:, own].min(axis=1, keepdims=True)
        # Equal losses up to rounding, as of a future in scaled moves, are named after the first.
        at = own[np.argmax(net[:, own] <= least + TIE * np.abs(least), axis=1)]
        return np.maximum(-least[:, 0], 0.0), np.array([s.label for s in columns], dtype=object)[at]

    def total(field: str) -> np.ndarray:
        return sum((getattr(r, field) for r in members.values()), np.zeros(len(net)))

    scan, label = worst(Role.SCAN)
    basis = total("basis")
    label = np.where(basis > scan, BASIS, label)
    scan = np.maximum(scan, basis)
    (added, added_label), roll = worst(Role.ADDED), total("roll")
    (other, other_label) = worst(Role.ALTERNATIVE)
    before = scan + added + roll
    higher = np.maximum(before, other)
    required = np.maximum(higher, total("minimum"))
    f = rules.factors
    peg = f.peg_scale * max(f.peg_threshold - state.stable, 0.0)
    raised, kept = f.initial + peg, f.maintenance

    def line(step: str, text: str | np.ndarray, amount: np.ndarray) -> _Line:
        return _Line(name, step, text, amount, kept * amount)

    return [
        line("scan", label, scan),
        line("added", added_label, added),
        line("roll", "", roll),
        line("alternative", other_label, higher - before),
        line("minimum", "", required - higher),
        _Line(name, "factor", f"× {raised:g}", (raised - 1) * required, np.zeros(len(net))),
        _Line(name, "contingency", "", total("contingency_initial"), total("contingency_maintenance")),
        _Line(name, "oracle", "", total("oracle"), np.zeros(len(net))),
    ]


def _steps(lines: list[_Line]) -> tuple[Step, ...]:
    """The lines' amounts that are not zero, by account, then in the order of the lines."""
    found: list[tuple[int, str, int, Step]] = []
    for order, line in enumerate(lines):
        for account in np.flatnonzero(line.initial).tolist():
            label = line.label if isinstance(line.label, str) else str(line.label[account])
            step = Step(account, line.group, line.name, label, float(line.initial[account]))
            found.append((account, line.group, order, step))
    return tuple(item[-1] for item in sorted(found, key=lambda item: item[:3]))
