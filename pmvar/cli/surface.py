"""`pmvar surface`: smiles fitted to a book's quotes, how far the quotes are from them, and a picture."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from pmvar.errors import UsageError
from pmvar.types import DAY, SurfaceKind

if TYPE_CHECKING:
    from pmvar.market.fit_surface import SurfaceFit

PARAMETERS = ("a", "b", "rho", "m", "s")
COLUMNS = (
    "underlying", "expiry", "days", *PARAMETERS, "quotes", "inside", "worst_strike", "worst_vol", "raised_vol", "room"
)  # fmt: skip


def surface_book(book: Path, out: Path | None, *, surface: SurfaceKind) -> str:
    """Fit the surfaces of `book`; with `out`, write `surface.csv` and a figure of each underlying there. Returns what
    to print."""
    from pmvar.io.book import load_book

    if surface is SurfaceKind.RAW:
        raise UsageError("a raw surface is not fitted; choose svi or ssvi")
    fits = load_book(book, overrides={"surface": surface}).surface_fits
    rows = [row for fit in fits for row in _rows(fit)]
    said = [note for fit in fits for note in fit.notes()]
    if out is not None:
        from pmvar.report.surface_figure import smiles

        out.mkdir(parents=True, exist_ok=True)
        with (out / "surface.csv").open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *rows])
        for fit in fits:
            figure = smiles(fit).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1)
            (out / f"surface-{fit.underlying}.svg").write_text(figure)
        said.append(f"{out}: surface.csv and {len(fits)} figures")
    shown = [("underlying", "expiry", "days", "quotes", "inside", "worst", "at strike")]
    for row in rows:
        r = dict(zip(COLUMNS, row, strict=True))
        shown.append(
            (r["underlying"], r["expiry"][:16], f"{r['days']:.1f}", f"{r['quotes']}", f"{r['inside']}",
             f"{r['worst_vol'] * 100:+.2f}", f"{r['worst_strike']:g}")
        )  # fmt: skip
    width = [max(map(len, column)) for column in zip(*shown, strict=True)]
    table = ["  ".join(cell.rjust(w) for cell, w in zip(row, width, strict=True)) for row in shown]
    return "\n".join([*table, *said])


def _rows(fit: SurfaceFit) -> Iterator[tuple]:
    import numpy as np

    from pmvar.io.times import format_time
    from pmvar.market.fit_smile import room

    for e in fit.expiries:
        inside, quotes = e.inside
        out = np.nan_to_num(e.outside)
        worst = int(np.argmax(np.abs(out)))
        days = (e.slice.expiry - fit.surface.as_of) / DAY
        yield (
            fit.underlying, format_time(e.slice.expiry), days, *e.slice.svi, quotes, inside, float(e.strike[worst]),
            float(out[worst]), e.raised, room(e.slice.svi),
        )  # fmt: skip
