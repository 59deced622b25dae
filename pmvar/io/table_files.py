"""Columns to table files: CSV with every text quoted, Parquet with page checksums; never a null in a
number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

Columns = Mapping[str, Sequence[Any] | np.ndarray]
"""A table: name -> one value per row."""


ROW_GROUP = 1 << 20
"""Rows that a Parquet writer holds at once: bytes do not depend on the parts in which a table came."""


class TableFormat(StrEnum):
    """How tables are written."""

    CSV = "csv"
    PARQUET = "parquet"


def write_table_file(path: Path, table: pa.Table, *, table_format: TableFormat) -> Path:
    """Write `table` at `path` with the extension of its format, and return where. Nulls of a CSV are blank
    cells."""
    return write_table_parts(path, [table], schema=table.schema, table_format=table_format)


def write_table_parts(path: Path, parts: Iterable[pa.Table], *, schema: pa.Schema, table_format: TableFormat) -> Path:
    """Write a table that comes in parts, one after the other, as `write_table_file` writes it whole."""
    target = path.with_name(f"{path.name}.{table_format}")
    target.parent.mkdir(parents=True, exist_ok=True)
    if table_format is TableFormat.PARQUET:
        options = {"compression": "zstd", "write_page_checksum": True, "version": "2.6"}
        with pq.ParquetWriter(target, schema, **options) as writer:
            for group in _groups(parts, schema):
                writer.write_table(group, row_group_size=ROW_GROUP)
    else:
        # "needed" quotes every text and no number.
        with pcsv.CSVWriter(target, schema, write_options=pcsv.WriteOptions(quoting_style="needed")) as writer:
            for part in parts:
                writer.write_table(part)
    return target


def _groups(parts: Iterable[pa.Table], schema: pa.Schema) -> Iterator[pa.Table]:
    """The rows in groups of `ROW_GROUP`, the last one smaller; a table without rows has one without any."""
    held, first = schema.empty_table(), True
    for part in parts:
        held = pa.concat_tables([held, part])
        while len(held) >= ROW_GROUP:
            yield held.slice(0, ROW_GROUP).combine_chunks()
            held, first = held.slice(ROW_GROUP), False
    if len(held) or first:
        yield held.combine_chunks()
