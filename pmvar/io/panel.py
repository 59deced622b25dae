"""Panels of daily prices or vols from files and Arrow streams, wide (a column an asset) or long (a row a value)."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from pmvar.calibration.panel import Panel
from pmvar.errors import InputError, Problem, UsageError
from pmvar.io.chain_file import MAX_CHAIN
from pmvar.io.problems import Problems
from pmvar.io.source import Source, unpacked
from pmvar.io.tables import Column, Schema, Table, Type, parse_table, read_stream
from pmvar.io.times import format_day, parse_day
from pmvar.models.factor_points import is_level
from pmvar.types import DAY

TIME = ("time", "date", "timestamp", "day")
ASSET = ("asset", "symbol", "name", "underlying")
VALUE = ("price", "close", "value", "implied_vol", "vol")
"""Names of columns, in any case; a table with one of each and nothing else is long."""


LEVEL = {"low": -10.0, "high": 10.0, "fix": "write rates and spreads per year as fractions, a basis as ln(F/S)"}
"""Of columns named as factors that move by differences."""


class _Bound(NamedTuple):
    high: float
    fix: str


class Quantity(Enum):
    """What a panel holds."""

    PRICE = _Bound(1e15, "correct it, or leave the asset out; moves of prices at or below zero have no logarithm")
    VOL = _Bound(10.0, "write vols as fractions per √year: 0.65, not 65")


def read_panel(
    path: str | Path, quantity: Quantity, *, assets: Sequence[str] | None = None
) -> tuple[Panel, dict[str, str]]:
    """The panel in the file at `path` (.csv, .csv.gz, .parquet), and its `{file, sha256}`.

    The column of times holds RFC 3339 times or dates; of several rows in one UTC day the last counts. A blank cell is a
    value that there is not. A column of prices named as a factor is (`USD:rate.1y`) holds its levels, which may be zero
    or below. `assets` keeps these alone, in this order. Raises InputError with every bad cell,
    UsageError for an asset that is not there.
    """
    file = Path(path)
    source, problems = Source(file.parent), Problems()
    content = unpacked(source.read(file.name), file=file.name, most=MAX_CHAIN)
    name = file.name.removesuffix(".gz")
    table = parse_table(content, file=name, schema_of=lambda t: _kept(t, quantity, assets, name), problems=problems)
    problems.raise_any()
    assert table is not None, "a table that cannot be read is a problem"
    return _panel(table, assets), {"file": file.name, "sha256": source.hashes[file.name]}


def panel_of(stream: Any, quantity: Quantity, *, assets: Sequence[str] | None = None) -> Panel:
    """As `read_panel`, from any object with `__arrow_c_stream__` (pyarrow, pandas, polars, duckdb)."""
    problems = Problems()
    kept, schema = _kept(pa.table(stream), quantity, assets, "panel (stream)")
    table = read_stream(schema, kept, source=Source(Path()), problems=problems)
    problems.raise_any()
    assert table is not None, "a table that cannot be read is a problem"
    return _panel(table, assets)


def _kept(table: pa.Table, quantity: Quantity, assets: Sequence[str] | None, file: str) -> tuple[pa.Table, Schema]:
    """What of a table is read, its columns in order of meaning, and how it is checked."""
    names = table.column_names
    times = [n for n in names if n.lower() in TIME]
    if len(times) != 1:
        rule, fix = f"one column holds the times, and is called {', '.join(TIME)}", "name it so"
        raise InputError(Problem(rule, fix, file=file, row=1, value=",".join(names)[:200]))
    high, fix = quantity.value
    number = {"low": 0.0, "high": high, "exclusive": True, "fix": fix}
    time = table[times[0]]
    if pa.types.is_date(time.type) or (pa.types.is_timestamp(time.type) and time.type.tz is None):
        # A day without a zone is the UTC day; a time of day without a zone stays refused.
        time = time.cast(pa.date32()).cast(pa.string())
    kind = Type.TIME if pa.types.is_timestamp(time.type) else Type.TEXT
    labels, values = ([n for n in names if n.lower() in known] for known in (ASSET, VALUE))
    if len(names) == 3 and len(labels) == len(values) == 1:
        columns = (Column("time", kind), Column("asset", Type.NAME), Column("value", Type.NUMBER, **number))
        long = pa.table([time, table[labels[0]], table[values[0]]], [c.name for c in columns])
        return long, Schema("panel", columns, ("time", "asset"))
    _check_there(assets, [n for n in names if n != times[0]], file)
    wide = [n for n in names if n != times[0] and (assets is None or n in assets)]
    bounds = (LEVEL if is_level(n) and quantity is Quantity.PRICE else number for n in wide)
    found = (Column(n, Type.NUMBER, optional=True, **b) for n, b in zip(wide, bounds, strict=True))
    columns = (Column("time", kind), *found)
    return pa.table([time, *(table[n] for n in wide)], ["time", *wide]), Schema("panel", columns, ("time",))


def _panel(table: Table, assets: Sequence[str] | None) -> Panel:
    """Rows by day, assets as columns."""
    time = _time(table)
    day = np.floor(time / DAY) * DAY
    if set(table.columns) == {"time", "asset", "value"}:
        found = tuple(dict.fromkeys(table["asset"].tolist()))
        column = np.array([found.index(a) for a in table["asset"]], np.int64)
        entries = table["value"]
        row = np.arange(len(day))
    else:
        found = tuple(c for c in table.columns if c != "time")
        entries = np.stack([table[c] for c in found], axis=1).ravel() if found else np.zeros(0)
        row, column = np.divmod(np.arange(len(day) * len(found)), max(len(found), 1))
    wanted = found if assets is None else tuple(assets)
    _check_there(wanted, found, table.file)
    days = np.unique(day)
    if len(days) < 2:
        rule = f"a panel has a row for each of at least two days; this one has {format_day(float(days[0]))} alone"
        raise InputError(Problem(rule, "supply a longer history", file=table.file))
    value = np.full((len(days), len(found)), np.nan)
    # In the order of time, so that the last value of a day stays.
    order = np.argsort(time[row], kind="stable")
    order = order[~np.isnan(entries[order])]
    value[np.searchsorted(days, day[row[order]]), column[order]] = entries[order]
    return Panel(days, wanted, value[:, [found.index(a) for a in wanted]])


def _check_there(wanted: Sequence[str] | None, found: Sequence[str], file: str) -> None:
    missing = [a for a in wanted or () if a not in found]
    if missing or not found:
        raise UsageError(f"{file} has no asset {', '.join(missing)}; it has {', '.join(found)[:500]}")


def _time(table: Table) -> np.ndarray:
    """Epoch seconds of each row. Raises InputError for every row whose time is none."""
    if table["time"].dtype == np.float64:
        return table["time"]
    problems, out = Problems(), np.zeros(len(table))
    for i, text in enumerate(table["time"].tolist()):
        try:
            out[i] = parse_day(text)
        except (ValueError, OverflowError) as error:
            fix = "write it as in 2025-01-31 or 2025-01-31T08:00:00Z"
            problems.add(Problem(str(error), fix, file=table.file, row=int(table.row[i]), column="time", value=text))
    problems.raise_any()
    return out
