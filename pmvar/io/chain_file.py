"""A venue's chain file, `.csv` or `.csv.gz`, read as strictly as a book's own tables."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from pmvar.errors import InputError, Problem
from pmvar.io.csv_text import decodable
from pmvar.io.problems import Problems
from pmvar.io.source import Source, unpacked
from pmvar.io.tables import Schema, Table, parse_csv

MAX_CHAIN = 256 << 20
"""Largest chain in bytes, unpacked: a month of daily snapshots of all coins is 15 MB."""


def read_chain(path: str | Path, schema: Schema, *, layout: str) -> tuple[Table, dict[str, str]]:
    """The rows of the chain file at `path`, and its `{file, sha256}`.

    Raises InputError with every bad row, or one problem where the columns are not those of `layout` (a venue and
    product, in words); SecurityError for a file that unpacks to more than `MAX_CHAIN`.
    """
    file = Path(path)
    source = Source(file.parent)
    content = source.read(file.name)
    content = decodable(unpacked(content, file=file.name, most=MAX_CHAIN), file=file.name)
    header = next(csv.reader(io.StringIO(content[: content.find(b"\n") + 1].decode())), [])
    missing = sorted({column.name for column in schema.columns if not column.optional} - set(header))
    if missing:
        rule = f"the columns are not those of {layout}: {', '.join(missing)} missing"
        fix = f"supply a file with the columns {', '.join(column.name for column in schema.columns)}"
        raise InputError(Problem(rule, fix, file=file.name, row=1, value=",".join(header)[:200]))
    problems = Problems()
    table = parse_csv(schema, content, file=file.name, problems=problems)
    problems.raise_any()
    assert table is not None, "a table that cannot be read is a problem"
    return table, {"file": file.name, "sha256": source.hashes[file.name]}
