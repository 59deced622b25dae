"""Columns to table files: CSV with every text quoted, Parquet with page checksums; never a null in a
number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

Columns = Mapping[str, Sequence[Any] | np.ndarray]
"""A table: name -> one value per row."""


class TableFormat(StrEnum):
    """How tables are written."""

    CSV = "csv"
    PARQUET = "parquet"


def write_table_file(path: Path, table: pa.Table, *, table_format: TableFormat) -> Path:
    """Write `table` at `path` with the extension of its format, and return where. Nulls of a CSV are blank
    cells."""
    target = path.with_name(f"{path.name}.{table_format}")
    target.parent.mkdir(parents=True, exist_ok=True)
    if table_format is TableFormat.PARQUET:
        pq.write_table(table, target, compression="zstd", write_page_checksum=True, version="2.6")
    else:
        # "needed" quotes every text and no number.
        pcsv.write_csv(table, target, pcsv.WriteOptions(quoting_style="needed"))
    return target
