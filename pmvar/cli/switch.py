"""`pmvar switch`: an underlying under another price model, and what that does to every margin."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pmvar.types import PriceModel

if TYPE_CHECKING:
    from pmvar.io.book import Book

SHOWN = 10
"""Accounts printed, those that change most first."""


def switch_text(book: Path, underlying: str, *, to: PriceModel, out: Path, shift: float | None) -> str:
    """Write the switched book and return what the command prints. Raises what `switch_book` and `margin_report`
    raise."""
    import numpy as np

    from pmvar.cli.run import keep_compiled
    from pmvar.io.switch import switch_book

    keep_compiled()
    found = switch_book(book, underlying, to=to, out=out, shift=shift)
    (accounts, before, error), (_, after, _) = _margins(found.before), _margins(found.after)
    scale = f"price_model {to}" + (f", shift {found.scale.shift:g}" if found.scale.shift else "")
    lines = [
        f"{out}: {underlying} under {scale}; {found.n_vols:,} vols converted",
        f"options at quoted strikes keep their price to {found.quoted:.1e} of the price's unit"
        + (f", those between quotes to {found.unquoted:.1e}" if found.unquoted else ""),
        *(f"note: {note}" for note in found.notes),
        f"initial margin in {found.before.market.base_currency} without add-ons, both under the same seed",
    ]
    order = np.argsort(-np.abs(after - before), kind="stable")[:SHOWN]
    rows = [("account", "before", "std error", "after", "change", "")]
    for name, one, two, spread in (
        ("all", before.sum(), after.sum(), None),
        *((str(accounts[i]), before[i], after[i], error[i]) for i in order),
    ):
        share = f"{two / one - 1:+.2%}" if one > 0 else ""
        own = "" if spread is None else f"{spread:,.2f}"
        rows.append((name, f"{one:,.2f}", own, f"{two:,.2f}", f"{two - one:+,.2f}", share))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *others in rows:
        cells = (f"{cell:>{w}}" for cell, w in zip(others, widths[1:], strict=True))
        lines.append("  ".join([f"{first:<{widths[0]}}", *cells]).rstrip())
    return "\n".join(lines)


def _margins(book: Book) -> tuple:
    """Account ids, initial margins before add-ons and tools, and the standard errors of their expected shortfalls."""
    from dataclasses import replace

    import pmvar
    from pmvar.types import Liquidity

    rules = replace(book.rules, apc=(), stress_share=0.0, liquidity=Liquidity.NONE)
    s = book.settings
    drawn = pmvar.simulate(
        book.model, book.market, seed=s.seed, n_scenarios=s.scenarios, horizon=s.horizon, sampling=s.sampling,
        parameters=s.parameters,
    )  # fmt: skip
    pnl = pmvar.reprice(book.portfolio, book.market, drawn, precision=s.precision)
    table = pmvar.margin_report(pnl, book.portfolio, rules, greeks=False).tables["margins"]
    return table["account_id"], table["initial_margin"], table["es_standard_error"]
