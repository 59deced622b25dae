"""`pmvar diff`: what changed the margins from one run to the next."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pmvar.cli.progress import progress
from pmvar.cli.run import keep_compiled

if TYPE_CHECKING:
    from pmvar.audit.difference import DifferenceReport

SHOWN = 10
"""Accounts printed."""


def diff_runs(
    before: Path,
    after: Path,
    *,
    before_book: Path | None,
    after_book: Path | None,
    account: str | None,
    out: Path | None,
    log_json: bool,
) -> str:
    """Attribute the change of margins, publish it in `out` if that is given, and return what to print."""
    from pmvar.audit.difference import difference, inputs_of
    from pmvar.io.run import check_writable

    if out is not None:
        check_writable(out)
    keep_compiled()
    with progress(log_json=log_json) as advance:
        found = difference(before, after, before_book=before_book, after_book=after_book, progress=advance)
    if out is not None:
        found.write(out, inputs=inputs_of(before, after))
    text = _summary(found) if account is None else _account(found, account)
    return text + (f"\nreport: {out / 'report.html'}" if out is not None else "")


def _summary(found: DifferenceReport) -> str:
    from pmvar.audit.difference import State, largest, shown_steps, total

    table, settings = found.tables["differences"], found.settings
    steps, rows = shown_steps(table), largest(table, SHOWN)
    counts = {state: int((table["state"] == state).sum()) // 2 for state in State}
    said = ", ".join(f"{n:,} {state.lower()}" for state, n in counts.items() if n)
    lines = [
        f"initial margin in {settings['base_currency']}, {settings['as_of_before']} to {settings['as_of']}; "
        f"accounts: {said}",
        *(f"note: {note}" for note in found.notes),
    ]
    cells: list[tuple[str, ...]] = [("account", "before", *steps, "after")]
    for name, row in (("all", total(table)), *((_name(row), row) for row in rows)):
        cells.append((name, f"{row['before']:,.2f}", *(f"{row[s]:+,.2f}" for s in steps), f"{row['after']:,.2f}"))
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for first, *others in cells:
        padded = (f"{c:>{w}}" for c, w in zip(others, widths[1:], strict=True))
        lines.append("  ".join([f"{first:<{widths[0]}}", *padded]))
    return "\n".join(lines)


def _name(row: dict) -> str:
    return row["account_id"] + ("" if row["state"] == "KEPT" else f" ({row['state'].lower()})")


def _account(found: DifferenceReport, account: str) -> str:
    """One account, step by step, in both measures."""
    import numpy as np

    from pmvar.audit.difference import MEASURES, Step
    from pmvar.report.explain import unknown_account

    table = found.tables["differences"]
    rows = np.flatnonzero(table["account_id"] == account)
    if not len(rows):
        raise unknown_account(account, list(dict.fromkeys(table["account_id"].tolist())))
    lines = [f"{account}: {str(table['state'][rows[0]]).lower()}, in {found.settings['base_currency']}",
             f"{'':<10}" + "".join(f"{m.replace('_', ' '):>22}" for m in MEASURES)]  # fmt: skip
    for name in ("before", *Step, "after"):
        sign = "" if name in ("before", "after") else "+"
        lines.append(f"{name:<10}" + "".join(f"{x:>{sign}22,.2f}" for x in table[name][rows]))
    return "\n".join([*lines, *(f"note: {note}" for note in found.notes)])
