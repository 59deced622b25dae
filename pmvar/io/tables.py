"""One strict reader of tables, for CSV, Parquet and anything with an Arrow C stream alike."""

# pyarrow.compute makes its functions at import, where no type checker sees them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pmvar.errors import InputError, Problem, SecurityError
from pmvar.io.csv_text import decodable, read_csv
from pmvar.io.database import read_query
from pmvar.io.problems import SHOWN, Problems
from pmvar.io.source import MAX_BYTES, Source
from pmvar.io.times import format_time, parse_time

MAX_ID = 256
"""Longest name accepted, in characters."""
# RE2: \d is ASCII alone, so Arabic digits, 1_000 and 1,234 fail, as do nan and inf.
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
# Controls, invisible format characters (bidi overrides, zero widths) and line separators.
_HIDDEN = r"\p{Cc}\p{Cf}\p{Zl}\p{Zp}"
_NAME = rf"^[^=+\-@{_HIDDEN}][^{_HIDDEN}]*$"
_PLAIN = rf"^[^{_HIDDEN}]*$"


class Type(StrEnum):
    """What the cells of a column hold."""

    NAME = "name"
    """An id, kept verbatim: `007`, `NA` and `nan` are names."""
    TEXT = "text"
    """Free text without control characters."""
    NUMBER = "number"
    TIME = "time"


@dataclass(frozen=True)
class Column:
    """One column of a table and what its cells may hold."""

    name: str
    type: Type
    optional: bool = False
    """The column may be absent and its cells blank; they read as `default`."""
    default: float | str | None = None
    """Of a blank cell; by itself `""` for text and NaN for numbers and times."""
    low: float = -1e15
    high: float = 1e15
    exclusive: bool = False
    """The bounds themselves are out of bounds."""
    choices: tuple[str, ...] = ()
    reserved: str = ""
    """A prefix that names of this column may not have."""
    fix: str = ""


ENDS = (".csv", ".parquet", ".sql")
"""Of the files that a table may stand in."""

ROWS = " (rows)"
"""After the name of a query: its answer, among the hashes."""

TIMES = frozenset({"time", "expiry", "maturity", "ex_date", "averaging_start"})
"""Columns that hold times, shown in errors as they are written."""


@dataclass(frozen=True)
class Schema:
    """The columns of a table, and those that together identify a row (empty: any number of equal rows)."""

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """The sound rows of a table that was read. Names and text are object arrays of str, the rest float64;
    times are epoch seconds."""

    file: str
    columns: Mapping[str, np.ndarray]
    codes: Mapping[str, np.ndarray] = field(repr=False)
    """Of text columns: int64 codes, equal where the texts are."""
    row: np.ndarray = field(repr=False)
    """Line of the file, the header being line 1; in Parquet and streams, the row counted from 1."""
    complete: bool = True
    """False where rows were left out because something is wrong with them."""

    def __len__(self) -> int:
        return len(self.row)

    def __getitem__(self, column: str) -> np.ndarray:
        return self.columns[column]

    def reject(self, problems: Problems, mask: np.ndarray, *, column: str, rule: str, fix: str) -> None:
        """Add a problem for each row where `mask` holds."""
        at = np.flatnonzero(mask)
        if len(at):
            values = self.columns[column][at[:SHOWN]].tolist()
            if column in TIMES:
                values = [format_time(v) if isinstance(v, float) and math.isfinite(v) else v for v in values]
            problems.rows(file=self.file, rows=self.row[at], column=column, values=values, rule=rule, fix=fix)

    def _without(self, bad: np.ndarray) -> Table:
        """The rows where `bad` does not hold, marked as incomplete."""
        columns, codes = ({name: a[~bad] for name, a in part.items()} for part in (self.columns, self.codes))
        return Table(self.file, columns, codes, self.row[~bad], complete=False)

    def duplicates(self, key: tuple[str, ...]) -> list[tuple[int, int]]:
        """Pairs (earlier, later) of indices of rows that agree in all columns of `key`, in the order of
        `later`."""
        code = np.zeros(len(self), np.int64)
        for name in key:
            part = self.codes.get(name)
            if part is None:
                part = np.unique(self.columns[name], return_inverse=True)[1]
            code = code * (int(part.max(initial=0)) + 1) + part
        if not np.any(np.diff(np.sort(code)) == 0):
            return []
        order = np.argsort(code, kind="stable")
        later = np.flatnonzero(np.diff(code[order]) == 0) + 1
        return sorted(zip(order[later - 1].tolist(), order[later].tolist(), strict=True), key=lambda pair: pair[1])


# ---- cells ----

Fault = tuple[np.ndarray, str, str]
"""Mask of bad rows, rule, fix."""


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _coded(cells: pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """Codes and distinct texts of a text column, null being `""`; raises ArrowInvalid for invalid UTF-8."""
    if not pa.types.is_dictionary(cells.type):
        cells = cells.cast(pa.string()).dictionary_encode()
    whole = cells.unify_dictionaries().combine_chunks()
    array = whole if isinstance(whole, pa.Array) else pa.concat_arrays(whole.chunks)
    array.dictionary.validate(full=True)
    index: dict[str, int] = {"": 0}
    remap = [index.setdefault(text or "", len(index)) for text in array.dictionary.to_pylist()]
    codes = np.asarray(array.indices.fill_null(len(remap)).to_numpy(zero_copy_only=False), np.int64)
    return np.array([*remap, 0], np.int64)[codes], list(index)


def _matches(texts: list[str], pattern: str) -> np.ndarray:
    return pc.match_substring_regex(pa.array(texts, pa.string()), pattern).to_numpy(zero_copy_only=False)


def _text_faults(column: Column, codes: np.ndarray, texts: list[str]) -> Iterator[Fault]:
    blank = np.array([text == "" for text in texts])
    if not column.optional:
        yield blank[codes], "must not be blank", "supply it"
    if column.choices:
        wrong = ~(blank | np.isin(texts, column.choices))
        yield wrong[codes], f"must be one of {', '.join(column.choices)}", "correct it"
    elif column.type is Type.NAME:
        sound = blank | _matches(texts, _NAME)
        rule = "must not begin with = + - @ (a spreadsheet runs it) nor hold control characters"
        yield ~sound[codes], rule, "rename it"
        reserved = np.array([bool(column.reserved) and text.startswith(column.reserved) for text in texts])
        yield reserved[codes], f"must not begin with {column.reserved}, which names balances", "rename it"
    else:
        yield ~_matches(texts, _PLAIN)[codes], "must not hold control characters", "remove them"
    long = np.array([len(text) > MAX_ID for text in texts])
    yield long[codes], f"must have at most {MAX_ID} characters", "shorten it"


def _read_text(column: Column, cells: pa.ChunkedArray) -> tuple[np.ndarray, np.ndarray, list[Fault]]:
    kind = cells.type.value_type if pa.types.is_dictionary(cells.type) else cells.type
    n = len(cells)
    if pa.types.is_null(kind):
        cells, kind = pa.chunked_array([pa.nulls(n, pa.string())]), pa.string()
    if not _is_text(kind):
        fault = (np.ones(n, bool), f"must hold text, not {cells.type}", "write the column as text")
        return np.full(n, "", object), np.zeros(n, np.int64), [fault]
    codes, texts = _coded(cells)
    default = column.default if isinstance(column.default, str) else ""
    values = np.array([text or default for text in texts], dtype=object)
    return values[codes], codes, list(_text_faults(column, codes, texts))


def _read_number(column: Column, cells: pa.ChunkedArray, *, text: bool) -> tuple[np.ndarray, list[Fault]]:
    faults: list[Fault] = []
    n = len(cells)
    if text:
        blank = pc.equal(cells, "").to_numpy()
        plain = pc.match_substring_regex(cells, _NUMBER)
        rule = "must be a plain decimal number, such as 1234.5 or 1.2e-3"
        faults.append((~(plain.to_numpy() | blank), rule, "write it without separators, units or words"))
        if not pc.all(plain).as_py():
            cells = pc.if_else(plain, cells, None)
        number = cells.cast(pa.float64())
    elif pa.types.is_integer(cells.type) or pa.types.is_floating(cells.type) or pa.types.is_decimal(cells.type):
        blank = cells.is_null().to_numpy()
        number = cells.cast(pa.float64(), safe=False)
    elif pa.types.is_null(cells.type):
        blank, number = np.ones(n, bool), cells.cast(pa.float64())
    else:
        fault = (np.ones(n, bool), f"must hold numbers, not {cells.type}", "write the column as float64")
        return np.full(n, np.nan), [fault]
    wrong = faults[0][0] if faults else np.zeros(n, bool)
    value = number.to_numpy().astype(np.float64)
    low, high = column.low, column.high
    inside = ((value > low) & (value < high)) if column.exclusive else ((value >= low) & (value <= high))
    finite, filled = np.isfinite(value), ~(blank | wrong)
    if not column.optional:
        faults.append((blank, "must not be blank", "supply it"))
    faults.append((filled & ~finite, "must be finite and within the range of a float64", "correct it"))
    rule = f"must be {'strictly ' if column.exclusive else ''}between {low:g} and {high:g}"
    faults.append((filled & finite & ~inside, rule, column.fix or "correct it"))
    default = column.default if isinstance(column.default, float) else np.nan
    return np.where(blank, default, value), faults


def _read_time(column: Column, cells: pa.ChunkedArray) -> tuple[np.ndarray, list[Fault]]:
    n, fix = len(cells), "write it as in 2025-01-31T08:00:00Z"
    default = column.default if isinstance(column.default, float) else np.nan
    kind = cells.type
    if pa.types.is_timestamp(kind) and kind.tz is not None:
        blank = cells.is_null().to_numpy()
        utc = cells.cast(pa.timestamp("us", "UTC"), safe=False).cast(pa.int64()).fill_null(0)
        value, faults = utc.to_numpy() / 1e6, []
    elif pa.types.is_null(kind):
        blank, value, faults = np.ones(n, bool), np.zeros(n), []
    elif _is_text(kind.value_type if pa.types.is_dictionary(kind) else kind):
        # A table has few distinct times, so each is parsed once.
        codes, texts = _coded(cells)
        parsed = np.zeros(len(texts))
        sound = np.ones(len(texts), bool)
        for i, entry in enumerate(texts):
            try:
                parsed[i] = parse_time(entry) if entry else 0.0
            except (ValueError, OverflowError):
                sound[i] = False
        blank, value = np.array([entry == "" for entry in texts])[codes], parsed[codes]
        faults = [(~sound[codes], "must be an RFC 3339 time with its offset; times without a zone are refused", fix)]
    else:
        fault = (np.ones(n, bool), f"must hold times with a zone, not {kind}", fix)
        return np.full(n, np.nan), [fault]
    if not column.optional:
        faults.append((blank, "must not be blank", "supply it"))
    return np.where(blank, default, value), faults


# ---- tables ----


def _check_columns(schema: Schema, names: list[str], *, file: str, row: int | None, problems: Problems) -> bool:
    """Add a problem for each unknown, missing or repeated column; whether the rows can be read all the
    same."""
    known = {column.name for column in schema.columns}
    required = {column.name for column in schema.columns if not column.optional}
    offered = ", ".join(column.name for column in schema.columns)
    for name in sorted(set(names) - known):
        problems.add(Problem("unknown column", f"the columns are {offered}", file=file, row=row, column=name))
    for name in sorted(required - set(names)):
        problems.add(Problem("the column is missing", "add it", file=file, row=row, column=name))
    twice = sorted({name for name in names if names.count(name) > 1})
    for name in twice:
        problems.add(Problem("a column must appear once", "remove the duplicate", file=file, row=row, column=name))
    return not twice and required <= set(names)


def _build(
    schema: Schema, table: pa.Table, row: np.ndarray, *, file: str, text: bool, problems: Problems
) -> Table | None:
    """Every cell checked; the sound rows."""
    header = 1 if text else None
    if not _check_columns(schema, table.column_names, file=file, row=header, problems=problems):
        return None
    n = len(table)
    if n == 0:
        fix = "supply rows, or remove the file if it is optional"
        problems.add(Problem("must have at least one row", fix, file=file))
        return None
    columns: dict[str, np.ndarray] = {}
    codes: dict[str, np.ndarray] = {}
    bad = np.zeros(n, bool)
    for column in schema.columns:
        if column.name not in table.column_names:
            textual = column.type not in (Type.NUMBER, Type.TIME)
            default = ("" if textual else np.nan) if column.default is None else column.default
            columns[column.name] = np.full(n, default, object if textual else np.float64)
            if textual:
                codes[column.name] = np.zeros(n, np.int64)
            continue
        cells = table[column.name]
        if column.type is Type.NUMBER:
            columns[column.name], faults = _read_number(column, cells, text=text)
        elif column.type is Type.TIME:
            columns[column.name], faults = _read_time(column, cells)
        else:
            columns[column.name], codes[column.name], faults = _read_text(column, cells)
        for mask, rule, fix in faults:
            at = np.flatnonzero(mask)
            if len(at):
                values = (cells[int(i)].as_py() for i in at[:SHOWN])
                shown = ["" if value is None else str(value)[:100] for value in values]
                problems.rows(file=file, rows=row[at], column=column.name, values=shown, rule=rule, fix=fix)
                bad |= mask
    result = Table(file, columns, codes, row)
    if bad.any():
        result = result._without(bad)
    repeated = np.zeros(len(result), bool)
    for earlier, later in result.duplicates(schema.key) if schema.key else ():
        repeated[later] = True
        shown = ", ".join(str(result[name][later]) for name in schema.key)
        rule = f"({', '.join(schema.key)}) must be unique; row {result.row[earlier]} has the same"
        where = {"file": file, "row": int(result.row[later]), "column": schema.key[0], "value": shown}
        problems.add(Problem(rule, "remove one of the rows", **where))
    return result._without(repeated) if repeated.any() else result


def _read_parquet(content: bytes, *, file: str) -> pa.Table:
    """All columns; text stays dictionary-coded, so that a small file cannot unfold into a huge table."""
    try:
        metadata = pq.read_metadata(pa.BufferReader(content))
        size = sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
        if size > MAX_BYTES or metadata.num_rows > MAX_BYTES // 8:
            raise SecurityError(
                f"{file}: its footer announces {metadata.num_rows} rows and {size} bytes, above the cap"
            )
        texts = [f.name for f in metadata.schema.to_arrow_schema() if _is_text(f.type)]
        reader = pq.ParquetFile(pa.BufferReader(content), read_dictionary=texts, page_checksum_verification=True)
        table = reader.read()
        table.validate(full=True)
        return table
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        rule = f"is not sound Parquet: {str(error)[:200]}"
        raise InputError(Problem(rule, "write the file anew", file=file)) from error


def _read_parts(source: Source, file: str) -> pa.Table:
    """A Parquet file, or all in a folder, one after the other."""
    folder = source.folder / file
    if not folder.is_dir():
        return _read_parquet(source.read(file), file=file)
    names = sorted(p.relative_to(source.folder).as_posix() for p in folder.rglob("*.parquet"))
    parts = [_read_parquet(source.read(name), file=name) for name in names]
    if sum(part.nbytes for part in parts) > MAX_BYTES:
        raise SecurityError(f"{file}: its parts together are above the cap of {MAX_BYTES} bytes")
    for name, part in zip(names, parts, strict=True):
        if part.schema.names != parts[0].schema.names:
            rule = f"has other columns than {names[0]}: {', '.join(part.schema.names)}"
            raise InputError(Problem(rule, "write the parts alike", file=name))
    if not parts:
        raise InputError(Problem("holds no .parquet file", "supply some, or remove the folder", file=file))
    try:
        return pa.concat_tables(parts, promote_options="permissive")
    except pa.ArrowException as error:
        rule = f"its parts have columns of different types: {str(error)[:200]}"
        raise InputError(Problem(rule, "write the parts alike", file=file)) from error


def read_stream(schema: Schema, stream: Any, *, source: Source, problems: Problems) -> Table | None:
    """The table in any object with `__arrow_c_stream__` (pyarrow, pandas, polars, duckdb), checked like a
    file.

    Its SHA-256, over the Arrow IPC form, is added to the hashes of `source`.
    """
    file = f"{schema.name} (stream)"
    try:
        table = pa.table(stream).combine_chunks()
        table.validate(full=True)
    except (pa.ArrowException, TypeError) as error:
        problems.add(Problem(f"is not an Arrow table: {error}", "pass an object with __arrow_c_stream__", file=file))
        return None
    source.hashes[file] = _hash(table)
    return _build(schema, table, np.arange(1, 1 + len(table)), file=file, text=False, problems=problems)


def _hash(table: pa.Table) -> str:
    """SHA-256 of the Arrow IPC form."""
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return hashlib.sha256(sink.getvalue()).hexdigest()


def parse_csv(schema: Schema, content: bytes, *, file: str, problems: Problems) -> Table | None:
    """The table in the bytes of a CSV file; what is wrong with its rows goes to `problems`.

    Raises InputError where the bytes cannot be read as a table, SecurityError for input that looks like an
    attack.
    """
    found = len(problems)
    table, row = read_csv(content, file=file, problems=problems)
    result = _build(schema, table, row, file=file, text=True, problems=problems)
    return replace(result, complete=False) if result and len(problems) > found else result


def parse_table(
    content: bytes, *, file: str, schema_of: Callable[[pa.Table], tuple[pa.Table, Schema]], problems: Problems
) -> Table | None:
    """The table in the bytes of a CSV or Parquet `file` whose columns only its header tells: `schema_of` gives what to
    keep of it, and how to check that. Raises as `parse_csv`."""
    text = not file.endswith(".parquet")
    table, row = read_csv(content, file=file, problems=problems) if text else (_read_parquet(content, file=file), None)
    table, schema = schema_of(table)
    row = np.arange(1, 1 + len(table)) if row is None else row
    return _build(schema, table, row, file=file, text=text, problems=problems)


def read_table(schema: Schema, source: Source, *, problems: Problems, optional: bool = False) -> Table | None:
    """The table `schema.name` of the folder of `source`, from its `.csv`, its `.parquet` (a file, or a folder of files,
    in the order of their names) or the query in its `.sql`.

    All that is wrong goes to `problems`; the sound rows come back, or None where there is no table to speak
    of. Raises SecurityError for input that looks like an attack and StateError for a file that changes
    meanwhile.
    """
    present = [schema.name + end for end in ENDS if (source.folder / (schema.name + end)).exists()]
    if len(present) != 1:
        if present or not optional:
            first, last = [schema.name + end for end in ENDS[:-1]], schema.name + ENDS[-1]
            rule = f"exactly one of {', '.join(first)} and {last} must exist"
            fix = "remove all but one of them" if present else "supply one of them"
            problems.add(Problem(rule, fix, file=schema.name))
        return None
    file = present[0]
    try:
        if file.endswith(".csv"):
            return parse_csv(schema, source.read(file), file=file, problems=problems)
        if file.endswith(".sql"):
            table = read_query(decodable(source.read(file), file=file).decode(), file=file, folder=source.folder)
            source.hashes[file + ROWS] = _hash(table)
        else:
            table = _read_parts(source, file)
        return _build(schema, table, np.arange(1, 1 + len(table)), file=file, text=False, problems=problems)
    except InputError as error:
        problems.extend(error, file=file)
        return None
