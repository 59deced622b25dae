"""Reproduce: a published run made again from its manifest alone, and compared number by number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from pmvar.audit.rerun import TOLERANCE, Recorded, environment_of, gross_notional, priced_again, recorded
from pmvar.bulk.plan import Plan, make_plan
from pmvar.engine import Progress, account_tables, half_of_memory, quiet
from pmvar.errors import AuditError
from pmvar.io.run import machine
from pmvar.risk.result import Columns
from pmvar.risk.tables import shock_table
from pmvar.types import Detail

ACROSS = ("margins", "components", "stress")
"""Tables that are compared where the environment differs: the others are derivatives or single scenarios."""


@dataclass(frozen=True)
class Reproduced:
    """What was compared, and how."""

    n_accounts: int
    tables: tuple[str, ...]
    differs: Mapping[str, tuple[str, str]]
    """What of the environment differs -> (then, now); where nothing does, bits were compared."""
    largest: float
    """Largest difference over the account's gross notional."""

    def __str__(self) -> str:
        what = f"{self.n_accounts:,} accounts, tables {', '.join(self.tables)}"
        if not self.differs:
            return f"reproduced to the bit: {what}; code, lock, versions, device and processor are those of the run"
        changed = "; ".join(f"{name} was {then[:40]}, is {now[:40]}" for name, (then, now) in self.differs.items())
        return (
            f"reproduced within {TOLERANCE:g} of gross notional, at most {self.largest:.1e} apart: {what}\n"
            f"bits are promised for an equal environment only: {changed}"
        )


def reproduce(
    path: str | Path,
    *,
    book: str | Path | None = None,
    memory_bytes: float | None = None,
    progress: Progress = quiet,
) -> Reproduced:
    """Make the run at `path` (its folder or manifest) again from the settings of its manifest and compare.

    Where code, lock, versions, device and processor agree every number of every table must have equal bits; elsewhere
    money must agree within `TOLERANCE` of the account's gross notional. Raises AuditError naming the first account that
    differs, the number and by how much, ResourceError where `memory_bytes` is too little, and what `recorded` raises.
    """
    published = recorded(path, book=book)
    then, now = environment_of(published.run.manifest), environment_of(machine(jax.devices()[0].device_kind))
    differs = {k: (then.get(k, ""), now.get(k, "")) for k in sorted(then | now) if then.get(k, "") != now.get(k, "")}
    tables = published.run.tables
    own, detail = published.book, Detail.GREEKS if len(tables["greeks"]["value"]) else Detail.COMPONENTS
    plan = make_plan(own, detail=detail, budget_bytes=memory_bytes or half_of_memory())
    priced = priced_again(
        own.portfolio, own.market, own.model, own.rules, published.settings,
        stress=own.stress, charged=published.charged, detail=detail, memory_bytes=memory_bytes,
        loss_bytes=plan.loss_bytes, progress=progress,
    )  # fmt: skip
    compared = tuple(
        name
        for name, columns in tables.items()
        # A run of many accounts may leave out details, never accounts.
        if (not differs or name in ACROSS) and (name == "margins" or len(next(iter(columns.values()))))
    )
    gross = _gross(published)
    largest = 0.0
    worst = [np.zeros(0, np.int64)]

    def check(name: str, before: Columns, again: Columns) -> None:
        nonlocal largest
        if differs:
            largest = max(largest, _check_close(name, before, again, gross))
        else:
            _check_bits(name, before, again, gross)

    by_account = [name for name in compared if "account_id" in tables[name]]
    for index, part in enumerate(_parts(plan, own.portfolio.account_id, {name: tables[name] for name in by_account})):
        again = account_tables(priced, plan.block(index), detail=detail, progress=plan.of_all(progress, index))
        worst.append(again["worst"]["scenario"].astype(np.int64))
        for name, before in part.items():
            check(name, before, again[name])
    if "shocks" in compared:
        check("shocks", tables["shocks"], shock_table(np.concatenate(worst), priced.pnl.scenarios))
    return Reproduced(len(tables["margins"]["account_id"]), compared, differs, largest)


def _parts(plan: Plan, names: np.ndarray, tables: Mapping[str, Columns]) -> Iterator[dict[str, Columns]]:
    """The rows of each block of the plan in tables that are sorted by account: from its first account to the next's."""
    firsts = names[plan.starts[1:]]
    cuts = {name: np.searchsorted(table["account_id"], firsts) for name, table in tables.items()}
    for index in range(len(plan.starts)):
        rows = {name: slice(*[0, *cut, None][index : index + 2]) for name, cut in cuts.items()}
        yield {name: {c: values[rows[name]] for c, values in table.items()} for name, table in tables.items()}


def _gross(published: Recorded) -> dict[str, float]:
    """Account -> gross notional; 1 where it is less, the least that a relative difference is taken of."""
    portfolio = published.book.portfolio
    gross = np.maximum(gross_notional(portfolio, published.book.market), 1.0)
    return dict(zip(portfolio.account_id.tolist(), gross.tolist(), strict=True))


def _check_bits(name: str, published: Columns, again: Columns, gross: Mapping[str, float]) -> None:
    """Raise AuditError for the first row in which any cell differs, be it in the last bit."""
    n = _same_rows(name, published, again)
    differing = np.zeros(n, bool)
    for column, values in published.items():
        differing |= _unequal(values, again[column])
    if not differing.any():
        return
    row = int(np.argmax(differing))
    column = next(c for c in published if _unequal(published[c][row : row + 1], again[c][row : row + 1])[0])
    raise AuditError(_difference(name, row, column, published, again, gross) + "; equal bits were expected")


def _unequal(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    if one.dtype == object:
        return one != other.astype(object)
    return one.astype(np.float64) != other.astype(np.float64)


def _check_close(name: str, published: Columns, again: Columns, gross: Mapping[str, float]) -> float:
    """The largest difference over gross notional; raises AuditError for the first row that exceeds `TOLERANCE`."""
    n = _same_rows(name, published, again)
    scale = np.array([gross.get(str(a), 1.0) for a in published["account_id"]])
    relative = np.zeros(n)
    worst = np.full(n, "", dtype=object)
    for column, values in published.items():
        if values.dtype == object:
            # A status may turn where the account stands on the line between two.
            free = np.abs(published["excess"]) <= TOLERANCE * scale if column in ("status", "reason") else False
            size = np.where((values != again[column].astype(object)) & ~np.asarray(free), np.inf, 0.0)
        else:
            size = np.abs(values - again[column].astype(np.float64)) / scale
        worst = np.where(size > relative, column, worst)
        relative = np.maximum(relative, size)
    if n and not relative.max() <= TOLERANCE:
        row = int(np.argmax(~(relative <= TOLERANCE)))
        raise AuditError(_difference(name, row, str(worst[row]), published, again, gross))
    return float(relative.max(initial=0.0))


def _same_rows(name: str, published: Columns, again: Columns) -> int:
    """Number of rows; raises AuditError where the two have different ones."""
    keys = [c for c in ("account_id", "instrument_id") if c in published]
    n = len(next(iter(published.values())))
    rows = [list(zip(*(t[c].tolist() for c in keys), strict=True)) for t in (published, again)]
    if rows[0] != rows[1] or len(next(iter(again.values()))) != n:
        first = next((a for a, b in zip(*rows, strict=False) if a != b), None)
        where = f" from {', '.join(first)} on" if first else ""
        raise AuditError(f"{name}: the run made again has other rows{where}: {len(rows[1]):,} for {n:,}")
    return n


def _difference(
    name: str, row: int, column: str, published: Columns, again: Columns, gross: Mapping[str, float]
) -> str:
    before, now = published[column][row], again[column][row]
    who = f"account {published['account_id'][row]}" if "account_id" in published else f"row {row + 1}"
    told = f"{name}: {who}, {column}: published {before}, made again {now}"
    if isinstance(before, str):
        return told
    size = abs(float(before) - float(now))
    scale = gross.get(str(published["account_id"][row])) if "account_id" in published else None
    return told + f", {size:.3g} apart" + (f", {size / scale:.1e} of gross notional" if scale else "")
