"""What every maker of books shares: its summary, rows to columns, and the venue's way of writing a date."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

MONTHS = ("JAN", "FEB", "MAR", "APR", "MAY", "JUN", "JUL", "AUG", "SEP", "OCT", "NOV", "DEC")
"""As venues write them, whatever the locale."""


@dataclass(frozen=True)
class ImportSummary:
    """What was written, for the command line to print."""

    path: Path
    counts: Mapping[str, int]
    """Table or thing -> number of rows or things, in the order to print."""
    notes: tuple[str, ...] = ()
    """Sentences a reader must see: what was dropped, assumed or invented."""


def columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows as columns, in the order of first appearance; None where a row lacks one."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def expiry_label(expiry: float) -> str:
    """`5JUN26`, the day of `expiry` (epoch seconds, UTC) as coin venues name instruments."""
    day = datetime.fromtimestamp(expiry, UTC)
    return f"{day.day}{MONTHS[day.month - 1]}{day:%y}"


def book_head(as_of: float) -> dict[str, Any]:
    """`book.toml` of a new book in USD, every setting that a user may want to change written out."""
    return {
        "as_of": as_of,
        "base_currency": "USD",
        "surface": "raw",
        "run": {"horizon": "2d", "level": 0.99, "scenarios": 65_536, "seed": 1},
        "margin": {"measure": "expected_shortfall", "multiplier": 1.0, "floor": 0.0, "maintenance_ratio": 0.8},
    }
