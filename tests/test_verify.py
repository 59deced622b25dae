"""A published run that was tampered with: what is named, and the chain recomputed from its definition alone."""

from __future__ import annotations

import csv
import hashlib
import json
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pmvar.errors import AuditError, UsageError
from pmvar.io import chain
from pmvar.io.run import MANIFEST, _digest, read_manifest
from pmvar.io.verify import seal_run, verify_run
from pmvar.risk.result import TABLES
from tests.test_io_run import small_result, write

FORMATS = ["csv", "parquet"]


def rewrite(file: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    """Change the rows of a Parquet file and write it as well as any attacker could."""
    pq.write_table(change(pq.read_table(file)), file)


def swapped(table: pa.Table, i: int, j: int) -> pa.Table:
    order = np.arange(len(table))
    order[[i, j]] = j, i
    return table.take(order)


def edited(table: pa.Table, i: int, column: str) -> pa.Table:
    values = table[column].to_numpy().copy()
    values[i] += 1e-9
    return table.set_column(table.column_names.index(column), table.schema.field(column), pa.array(values))


def recomputed(file: Path, columns: tuple[str, ...], n: int) -> str:
    """The head of a CSV table's chain, as docs/audit.md defines it, without pmvar; `n` rows a block."""
    with open(file, newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    # A text is a cell in quotes.
    text = dict(zip(columns, (c.startswith('"') for c in file.read_text().splitlines()[1].split(",")), strict=True))
    link = hashlib.sha256(f"{file.stem}\n{','.join(columns)}".encode()).digest()
    for start in range(0, len(rows), n):
        block = hashlib.sha256()
        for column in columns:
            cells = [row[column] for row in rows[start : start + n]]
            if text[column]:
                utf8 = [cell.encode() for cell in cells]
                block.update(b"".join(struct.pack("<I", len(b)) for b in utf8) + b"".join(utf8))
            else:
                block.update(b"".join(struct.pack("<d", float(cell) + 0.0) for cell in cells))
        link = hashlib.sha256(link + block.digest()).digest()
    return link.hex()


@pytest.mark.parametrize("table_format", FORMATS)
def test_an_untouched_run_verifies(tmp_path: Path, table_format: str) -> None:
    said = verify_run(write(tmp_path / "run", table_format=table_format))
    assert "11 files and the chains of 27 rows" in said
    assert read_manifest(tmp_path / "run")["digest"] in said


@pytest.mark.parametrize("max_blocks", [1, 2, 16_384])
def test_heads_follow_their_definition_and_not_the_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, max_blocks: int
) -> None:
    monkeypatch.setattr(chain, "MAX_BLOCKS", max_blocks)
    minus_zero = small_result(5, equity=np.array([-0.0, 1.0, -2.5, 1e300, 5e-324]))
    heads = [read_manifest(write(tmp_path / f, minus_zero, table_format=f))["hashes"]["chains"] for f in FORMATS]
    assert heads[0] == heads[1]
    for name, columns in TABLES.items():
        entry = heads[0][name]
        assert entry["rows"] == 5 and -(-5 // entry["rows_per_block"]) <= max_blocks
        assert recomputed(tmp_path / "csv" / f"{name}.csv", columns, entry["rows_per_block"]) == entry["head"]
    assert verify_run(tmp_path / "csv") and verify_run(tmp_path / "parquet")


@pytest.mark.parametrize(
    ("table", "change", "told"),
    [
        ("margins", lambda t: edited(t, 1, "initial_margin"), "margins.parquet was changed: the row of account 001"),
        ("greeks", lambda t: edited(t, 2, "value"), "greeks.parquet was changed: the row of account 002 was changed"),
        ("margins", lambda t: t.take([0, 2]), "account 001 is missing or was moved: account 002 stands there"),
        ("margins", lambda t: t.slice(0, 2), "margins.parquet was changed: the row of account 002 is missing"),
        ("components", lambda t: swapped(t, 0, 2), "account 000 is missing or was moved: account 002 stands there"),
        ("stress", lambda t: pa.concat_tables([t, t.slice(2)]), "stress.parquet was changed: the row of account 002"),
        ("shocks", lambda t: edited(t, 1, "shock"), "shocks.parquet was changed: the row of row 2 was changed"),
        ("margins", lambda t: t, "its rows are the same, its bytes are not"),
        ("margins", lambda t: t.drop(["reason"]), "margins.parquet was changed: "),
    ],
)  # fmt: skip
def test_what_was_changed_is_named(
    tmp_path: Path, table: str, change: Callable[[pa.Table], pa.Table], told: str
) -> None:
    run = write(tmp_path / "run")
    rewrite(run / f"{table}.parquet", change)
    with pytest.raises(AuditError) as caught:
        verify_run(run)
    assert told in str(caught.value) and caught.value.exit_code == 9


def test_a_changed_block_of_many_rows_names_its_first_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain, "MAX_BLOCKS", 4)
    run = write(tmp_path / "run", small_result(10))
    rewrite(run / "margins.parquet", lambda t: edited(t, 5, "equity"))
    with pytest.raises(AuditError, match="the row of account 004 or one of the 3 rows after it was changed"):
        verify_run(run)


@pytest.mark.parametrize("table_format", FORMATS)
def test_any_flipped_byte_is_noticed(tmp_path: Path, table_format: str) -> None:
    run = write(tmp_path / "run", table_format=table_format)
    rng = np.random.default_rng(3)
    for file in sorted(run.iterdir()):
        content = file.read_bytes()
        for at in rng.integers(0, len(content), 4):
            flipped = bytearray(content)
            flipped[at] ^= 1
            file.write_bytes(flipped)
            with pytest.raises(AuditError) as caught:
                verify_run(run)
            assert str(file) in str(caught.value)
        file.write_bytes(content)
    assert verify_run(run)


def test_missing_and_foreign_files_are_all_named(tmp_path: Path) -> None:
    run = write(tmp_path / "run")
    (run / "report.html").unlink()
    (run / "greeks.parquet").unlink()
    (run / "margins.csv").write_text("account_id\n")
    with pytest.raises(AuditError) as caught:
        verify_run(run)
    told = str(caught.value)
    assert "report.html is missing" in told and "greeks.parquet is missing" in told
    assert "margins.csv is not in the manifest" in told


def test_a_rewritten_chain_does_not_hide_a_change(tmp_path: Path) -> None:
    run = write(tmp_path / "run")
    rewrite(run / "margins.parquet", lambda t: edited(t, 0, "equity"))
    rewrite(run / "chain.parquet", lambda t: t.slice(1))
    with pytest.raises(AuditError) as caught:
        verify_run(run)
    assert "margins.parquet was changed" in str(caught.value) and "chain.parquet was changed" in str(caught.value)


def test_only_a_key_catches_who_rewrites_everything(tmp_path: Path) -> None:
    """A run replaced whole by another verifies by itself, and does not under the seal of the first."""
    key, other = tmp_path / "key", tmp_path / "other"
    key.write_bytes(b"k" * 32)
    other.write_bytes(b"o" * 32)
    run = write(tmp_path / "run")
    with pytest.raises(AuditError, match="never sealed"):
        verify_run(run, key=key)
    seal_run(run, key=key)
    assert "its seal is that of" in verify_run(run, key=key) and verify_run(run)
    with pytest.raises(AuditError, match="sealed with another key"):
        verify_run(run, key=other)
    manifest = json.loads((run / MANIFEST).read_text()) | {"seed": 8}
    (run / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(AuditError, match="was changed"):
        verify_run(run)
    (run / MANIFEST).write_text(json.dumps(manifest | {"digest": _digest(manifest)}))
    assert verify_run(run)
    with pytest.raises(AuditError, match="manifest.json was changed"):
        verify_run(run, key=key)
    key.write_bytes(b"short")
    with pytest.raises(UsageError, match="at least 16"):
        verify_run(run, key=key)
