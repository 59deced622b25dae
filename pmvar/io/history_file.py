"""The table of past steps beside model.json, which fhs and historical draw from, and its hash."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Float

from pmvar.errors import Problem, UsageError
from pmvar.io.problems import Problems
from pmvar.io.source import Source
from pmvar.io.table_files import TableFormat, write_table_file
from pmvar.io.tables import Column, Schema, Table, Type, read_table
from pmvar.io.times import format_time, parse_day
from pmvar.models.specification import LEAST_HISTORY, ModelSpecification

MODEL = "model.json"
LARGEST = 1e3
"""Largest |x| of one step believed."""

_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\.(csv|parquet)", re.ASCII)


def read_history(
    given: Mapping[str, Any], factors: Sequence[str], *, source: Source, problems: Problems
) -> Float[np.ndarray, "observation factor"] | None:
    """x of each factor on past steps, oldest first, in the order of `factors`, from the table that `given` ({file,
    sha256}) names in the folder of `source`: `time` (RFC 3339 or a date, increasing) and one column for each factor.

    What is wrong goes to `problems`, and None comes back. Raises SecurityError for input that looks like an attack and
    StateError for a file that changes meanwhile.
    """
    before = len(problems)
    if set(given) != {"file", "sha256"} or not all(isinstance(v, str) for v in given.values()):
        rule = "history is {file, sha256}"
        problems.add(Problem(rule, "write both as text", file=MODEL, column="history", value=str(given)[:100]))
        return None
    file = given["file"]
    if not _FILE.fullmatch(file):
        rule = "must name a .csv or .parquet file beside model.json"
        problems.add(Problem(rule, "rename it", file=MODEL, column="history.file", value=file[:100]))
        return None
    kind = Type.TIME if _holds_timestamps(source.folder / file) else Type.TEXT
    columns = (Column("time", kind), *(Column(f, Type.NUMBER, low=-LARGEST, high=LARGEST) for f in factors))
    table = read_table(Schema(file.rpartition(".")[0], columns), source, problems=problems)
    found = source.hashes.get(file)
    if found is not None and found != given["sha256"]:
        rule, fix = f"{file} is not the file that the model was made with", "restore it, or calibrate again"
        problems.add(Problem(rule, fix, file=MODEL, column="history.sha256", value=given["sha256"][:100]))
    if table is not None and table.file != file:
        rule = f"the file beside model.json is {table.file}"
        problems.add(Problem(rule, "name that, or supply the other", file=MODEL, column="history.file", value=file))
    if table is None or len(problems) > before:
        return None
    _check_times(table, problems=problems)
    if len(table) < LEAST_HISTORY:
        rule = f"a history needs {LEAST_HISTORY} past steps, this has {len(table)}"
        problems.add(Problem(rule, "supply a longer one", file=file))
    return None if len(problems) > before else np.stack([table[f] for f in factors], axis=1)


def _holds_timestamps(path: Path) -> bool:
    if path.suffix != ".parquet":
        return False
    try:
        schema = pq.read_schema(path)
    except (OSError, pa.ArrowException):
        # What is wrong is said when it is read as a table.
        return False
    return "time" in schema.names and pa.types.is_timestamp(schema.field("time").type)


def _check_times(table: Table, *, problems: Problems) -> None:
    """Each row later than the one before it: a filter runs through them in order."""
    latest = -np.inf
    for i, entry in enumerate(table["time"].tolist()):
        where = {"file": table.file, "row": int(table.row[i]), "column": "time"}
        try:
            now = entry if isinstance(entry, float) else parse_day(entry)
        except (ValueError, OverflowError) as error:
            problems.add(Problem(str(error), "write it as in 2025-01-31T08:00:00Z or 2025-01-31", **where))
            continue
        if not now > latest:
            shown = format_time(now)
            problems.add(
                Problem("must be later than the row before", "sort the rows, oldest first", value=shown, **where)
            )
        latest = max(latest, now)


def write_history(
    folder: Path, model: ModelSpecification, time: Sequence[str | float] | np.ndarray, *, table_format: TableFormat
) -> dict[str, str]:
    """Write the history of `model` as the table `history` of `folder`, its rows at `time` (RFC 3339 text, dates or
    epoch seconds); returns the {file, sha256} that `model.json` names. Raises UsageError where there is not one time a
    row."""
    if model.history is None or len(time) != len(model.history):
        rows = 0 if model.history is None else len(model.history)
        raise UsageError(f"a history of {rows} rows needs as many times, not {len(time)}")
    said = [entry if isinstance(entry, str) else format_time(float(entry)) for entry in time]
    columns = {"time": pa.array(said, pa.string())}
    columns |= {f: pa.array(x) for f, x in zip(model.factor_names, model.history.T, strict=True)}
    written = write_table_file(folder / "history", pa.table(columns), table_format=table_format)
    return {"file": written.name, "sha256": hashlib.sha256(written.read_bytes()).hexdigest()}
