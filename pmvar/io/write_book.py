"""write_book: the folder that load_book reads, written whole or not at all."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pmvar.errors import UsageError
from pmvar.io.atomic import whole_folder
from pmvar.io.history_file import write_history
from pmvar.io.model_file import model_json
from pmvar.io.schemas import SCHEMAS
from pmvar.io.table_files import Columns, TableFormat, write_table_file
from pmvar.io.tables import Column, Type
from pmvar.io.times import format_time
from pmvar.models.specification import ModelSpecification


def write_book(
    path: str | Path,
    *,
    book_toml: Mapping[str, Any],
    tables: Mapping[str, Columns],
    model: ModelSpecification,
    source: Mapping[str, str] | None = None,
    model_extra: Mapping[str, Any] | None = None,
    history_time: Sequence[str | float] | np.ndarray | None = None,
    table_format: TableFormat | str = TableFormat.CSV,
) -> Path:
    """Write a book into the folder `path`, replacing one that is there once the new one is complete.

    `book_toml` nests as the file does; `as_of` may be RFC 3339 text or epoch seconds. `tables` maps names of
    formats.md (`positions`, `market/spots`, …) to columns: times as RFC 3339 text or epoch seconds, None or
    NaN for a blank cell. Tables without rows are left out. `source` is the `{file, sha256}` that the model
    came from, `model_extra` any of its `posterior`, `gates`, `overrides`, `history_time` the times of the rows
    of its history, which goes to the table `history`.

    Nothing is checked but names: that is `load_book`'s part. Raises UsageError for an unknown table or column
    and where nothing can be written, ResourceError if the disk is full.
    """
    unknown = sorted(set(tables) - set(SCHEMAS))
    if unknown:
        raise UsageError(f"unknown tables {unknown}; the tables are {', '.join(SCHEMAS)}")
    arrow = {name: arrow_table(name, columns) for name, columns in tables.items()}
    head = _toml(book_toml)
    with whole_folder(path, marker="book.toml") as folder:
        (folder / "book.toml").write_text(head, encoding="utf-8")
        history = None
        if model.history is not None:
            if history_time is None:
                raise UsageError("history_time: the rows of a model's history need their times")
            history = write_history(folder, model, history_time, table_format=TableFormat(table_format))
        document = model_json(model, source=source, history=history, extra=model_extra)
        (folder / "model.json").write_text(document, encoding="utf-8")
        for name, table in arrow.items():
            if len(table):
                write_table_file(folder / name, table, table_format=TableFormat(table_format))
    return Path(path)


def arrow_table(name: str, columns: Columns) -> pa.Table:
    """The table `name` of a book from its columns, as `write_book` writes it; raises UsageError for unknown ones."""
    schema = {column.name: column for column in SCHEMAS[name].columns}
    unknown = sorted(set(columns) - set(schema))
    if unknown:
        raise UsageError(f"unknown columns {unknown} of {name}; they are {', '.join(schema)}")
    return pa.table({key: _cells(schema[key], columns[key]) for key in schema if key in columns})


def _cells(column: Column, values: Sequence[Any] | np.ndarray) -> pa.Array:
    if column.type is Type.NUMBER:
        numbers = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
        return pa.array(numbers, pa.float64(), from_pandas=True)
    if column.type is Type.TIME:
        return pa.array([_time(v) for v in values], pa.string())
    return pa.array(["" if v is None else str(v) for v in values], pa.string())


def _time(value: Any) -> str:
    if value is None or value == "":
        return ""
    if isinstance(value, str):
        return value
    return format_time(float(value)) if math.isfinite(value) else ""


def _toml(document: Mapping[str, Any]) -> str:
    """TOML of a flat document with sections, which is all that a book has."""
    plain = {key: value for key, value in document.items() if not isinstance(value, Mapping)}
    lines = [f"{key} = {_value(key, value)}" for key, value in ({"format": 1} | plain).items()]
    for section, entries in document.items():
        if isinstance(entries, Mapping):
            lines += [
                "",
                f"[{section}]",
                *(f"{key} = {_value(key, value)}" for key, value in entries.items()),
            ]
    return "\n".join(lines) + "\n"


def _value(key: str, value: Any) -> str:
    if isinstance(value, datetime):
        value = format_time(value.timestamp())
    elif key == "as_of" and isinstance(value, int | float):
        value = format_time(value)
    if isinstance(value, str):
        return json.dumps(str(value), ensure_ascii=False)
    if isinstance(value, bool | int | float | np.integer | np.floating):
        return repr(
            value if isinstance(value, bool) else value.item() if isinstance(value, np.generic) else value
        ).lower()
    raise UsageError(f"{key} = {value!r} cannot be written to book.toml")
