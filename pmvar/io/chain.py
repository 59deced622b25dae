"""Chain: the rows of a table, hashed in order, so that none can be changed, taken out or moved unseen."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from pmvar.errors import AuditError, UsageError

MAX_BLOCKS = 16_384
"""Of a table: below this each row is a block of its own, above it a block holds a power of two of rows."""
BATCH = 1 << 18
"""Rows read at once."""
LEAST_KEY = 16
"""Bytes."""


@dataclass(frozen=True)
class Chain:
    """The digests of a table's blocks and what they chain to."""

    rows: int
    rows_per_block: int
    first: tuple[str, ...]
    """Account of the first row of each block, or `row N`, counted from 1, in a table without accounts."""
    digest: tuple[str, ...]
    """SHA-256 of each block, hexadecimal."""
    head: str


def head_of(table: str, columns: Sequence[str], digests: Iterable[str]) -> str:
    """link₀ = SHA-256(table, newline, columns with commas); linkᵢ = SHA-256(linkᵢ₋₁ ‖ digestᵢ), of raw bytes."""
    link = hashlib.sha256(f"{table}\n{','.join(columns)}".encode()).digest()
    for digest in digests:
        link = hashlib.sha256(link + bytes.fromhex(digest)).digest()
    return link.hex()


def rows_per_block(n_rows: int) -> int:
    """The least power of two that cuts `n_rows` into at most `MAX_BLOCKS` blocks."""
    return 1 << max(0, (-(-n_rows // MAX_BLOCKS) - 1).bit_length())


def chain_of(file: Path, schema: pa.Schema, *, per_block: int | None = None) -> Chain:
    """The chain of a published table, the same for CSV and Parquet.

    `per_block` is the number of rows of a block, else that of `rows_per_block`. Raises AuditError where the file
    cannot be read as a table of `schema`.
    """
    try:
        size = per_block or rows_per_block(_count(file, schema))
        first: list[str] = []
        digest: list[str] = []
        rows = 0
        for part in _in_blocks(batches(file, schema), size, schema):
            names = part["account_id"].take(np.arange(0, len(part), size)).to_pylist() if _has_accounts(schema) else []
            first += names or [f"row {rows + i + 1}" for i in range(0, len(part), size)]
            digest += _digests(part, size)
            rows += len(part)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise AuditError(f"{file} cannot be read: {str(error).splitlines()[0]}") from error
    return Chain(rows, size, tuple(first), tuple(digest), head_of(file.stem, schema.names, digest))


CHAIN_SCHEMA = pa.schema([pa.field(name, pa.string(), nullable=False) for name in ("table", "first", "digest")])


def chain_table(chains: Mapping[str, Chain]) -> pa.Table:
    """The blocks of all tables as a table of their own."""
    columns = [
        [name for name, chain in chains.items() for _ in chain.digest],
        [first for chain in chains.values() for first in chain.first],
        [digest for chain in chains.values() for digest in chain.digest],
    ]
    return pa.Table.from_arrays([pa.array(c, pa.string()) for c in columns], schema=CHAIN_SCHEMA)


def _has_accounts(schema: pa.Schema) -> bool:
    return "account_id" in schema.names


def batches(file: Path, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """A published table, CSV or Parquet, some rows at a time. Raises ValueError where its columns are others."""
    if file.suffix == ".parquet":
        with pq.ParquetFile(file, page_checksum_verification=True) as stored:
            if stored.schema_arrow.names != schema.names or stored.schema_arrow.types != schema.types:
                raise ValueError(f"its columns are {stored.schema_arrow.names}, not {schema.names}")
            yield from stored.iter_batches(BATCH)
        return
    convert = pcsv.ConvertOptions(column_types=schema, strings_can_be_null=False)
    with pcsv.open_csv(
        file, convert_options=convert, parse_options=pcsv.ParseOptions(newlines_in_values=True)
    ) as stream:
        if stream.schema.names != schema.names:
            raise ValueError(f"its columns are {stream.schema.names}, not {schema.names}")
        yield from stream


def _count(file: Path, schema: pa.Schema) -> int:
    if file.suffix == ".parquet":
        return pq.read_metadata(file).num_rows
    return sum(len(batch) for batch in batches(file, schema))


def _in_blocks(parts: Iterable[pa.RecordBatch], size: int, schema: pa.Schema) -> Iterator[pa.Table]:
    """The same rows in tables of whole blocks, of which only the last of all may be short."""
    held = schema.empty_table()
    for batch in parts:
        held = pa.concat_tables([held, pa.Table.from_batches([batch]).cast(schema)])
        whole = len(held) // size * size
        if whole >= BATCH or (whole and size == 1):
            yield held.slice(0, whole).combine_chunks()
            held = held.slice(whole)
    if len(held):
        yield held.combine_chunks()


def _digests(table: pa.Table, size: int) -> list[str]:
    """SHA-256 of each block: of each column in turn, its numbers as little-endian float64 (−0 as 0), its texts as
    their lengths in bytes, little-endian uint32, and then their UTF-8."""
    parts: list[tuple[memoryview, np.ndarray]] = []
    edges = np.append(np.arange(0, len(table), size), len(table))
    for column in table.columns:
        array = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
        if array.null_count:
            raise ValueError("a cell is empty")
        if not pa.types.is_string(array.type):
            parts.append((memoryview((array.to_numpy() + 0.0).astype("<f8")).cast("B"), edges * 8))
            continue
        offsets = np.frombuffer(array.buffers()[1], np.int32, len(array) + 1, array.offset * 4)
        texts = array.buffers()[2]
        parts.append((memoryview(np.diff(offsets).astype("<u4").tobytes()), edges * 4))
        parts.append((memoryview(texts if texts is not None else b""), offsets[edges].astype(np.int64)))
    ranges = [(view, at.tolist()) for view, at in parts]
    found = []
    for i in range(len(edges) - 1):
        block = hashlib.sha256()
        for view, at in ranges:
            block.update(view[at[i] : at[i + 1]])
        found.append(block.hexdigest())
    return found


def first_difference(published: Chain, found: Chain) -> str:
    """Where a table first differs from what was published, in words; "" where it does not."""
    if published.head == found.head:
        return ""
    many = f" or one of the {published.rows_per_block - 1} rows after it" if published.rows_per_block > 1 else ""
    for was, now, before, after in zip(published.first, found.first, published.digest, found.digest, strict=False):
        if before == after:
            continue
        if was == now:
            return f"the row of {_named(was)}{many} was changed"
        return f"the row of {_named(was)}{many} is missing or was moved: {_named(now)} stands there"
    n = min(len(published.digest), len(found.digest))
    if len(found.digest) < len(published.digest):
        return f"the row of {_named(published.first[n])}{many} is missing, and all after it"
    if len(found.digest) > len(published.digest):
        return f"the row of {_named(found.first[n])} was added"
    return "its columns or its chain were changed"


def _named(first: str) -> str:
    return first if first.startswith("row ") else f"account {first}"


def seal(digest: str, key: Path) -> str:
    """HMAC-SHA-256 of a manifest's digest under the key in a file, hexadecimal.

    Raises UsageError where the key cannot be read or is shorter than `LEAST_KEY` bytes.
    """
    try:
        secret = key.read_bytes()
    except OSError as error:
        raise UsageError(f"the key {key} cannot be read: {error.strerror}") from error
    if len(secret) < LEAST_KEY:
        raise UsageError(f"the key {key} has {len(secret)} bytes; use at least {LEAST_KEY} random ones")
    return hmac.new(secret, digest.encode(), hashlib.sha256).hexdigest()
