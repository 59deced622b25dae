"""Runs on disk: whole or absent, finite, hashed, verified, gated."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmvar.errors import AuditError, NumericsError, ResourceError, UsageError
from pmvar.io import run as run_module
from pmvar.io.run import check_writable, read_manifest, read_run, write_run
from pmvar.risk.result import TABLES, MarginResult

INPUTS = {"book.toml": "ab" * 32, "model.json": "cd" * 32}
SETTINGS = {"seed": 7, "precision": "float32", "device": "cpu", "level": 0.99, "versions": {"jax": "0"}}


def small_result(n: int = 3, **changes: np.ndarray) -> MarginResult:
    """A result of `n` accounts whose numbers are recognisable; `changes` replaces columns of margins."""
    names = np.array([f"00{i}" for i in range(n)], dtype=object)
    tables: dict[str, dict[str, np.ndarray]] = {}
    for name, columns in TABLES.items():
        tables[name] = {c: np.arange(n) / 3 for c in columns}
        for c in columns:
            if c in run_module.TEXT or (name, c) == ("stress", "scenario"):
                tables[name][c] = np.array([f'{c} "{i}"' for i in range(n)], dtype=object)
        if "account_id" in columns:
            tables[name]["account_id"] = names
    tables["worst"]["rank"] = np.arange(1, n + 1)
    tables["margins"]["reason"] = np.array([""] * n, dtype=object)
    tables["margins"] |= changes
    return MarginResult(tables, (), SETTINGS, ("parameters are assumed",))


def write(path: Path, result: MarginResult | None = None, **options: Any) -> Path:
    """Write `result`, or the small one, at `path`."""
    return write_run(path, result or small_result(), report_html="<p>report</p>", inputs=INPUTS, **options)


@pytest.mark.parametrize("table_format", ["parquet", "csv"])
def test_a_run_reads_back_equal(tmp_path: Path, table_format: str) -> None:
    result = small_result()
    run = read_run(write(tmp_path / "run", result, table_format=table_format))
    for name, columns in TABLES.items():
        assert tuple(run.tables[name]) == columns
        for column in columns:
            np.testing.assert_array_equal(run.tables[name][column], result.tables[name][column])
    assert {p.name for p in (tmp_path / "run").iterdir()} == {
        *(f"{name}.{table_format}" for name in TABLES), f"chain.{table_format}", "manifest.json", "report.html",
    }  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_the_manifest_holds_what_a_reproduction_needs(tmp_path: Path) -> None:
    (tmp_path / "book").mkdir()
    manifest = read_manifest(write(tmp_path / "out" / "run", book=tmp_path / "book"))
    assert manifest["format"] == 1
    assert manifest["book"] == "../../book"
    assert manifest["hashes"]["inputs"] == INPUTS
    assert manifest["hashes"]["model"] == INPUTS["model.json"]
    assert manifest["hashes"]["code"] == run_module.code_hash()
    assert set(manifest["hashes"]["outputs"]) == {
        *(f"{name}.parquet" for name in (*TABLES, "chain")), "report.html",
    }  # fmt: skip
    assert (manifest["seed"], manifest["dtype"], manifest["device"]) == (7, "float32", "cpu")
    assert {"jax", "jaxlib", "numpy", "scipy", "pmvar", "python"} <= set(manifest["versions"])
    assert manifest["notes"] == ["parameters are assumed"]
    assert not [v for v in json.dumps(manifest).split('"') if v.startswith(str(tmp_path))]


def test_the_code_hash_covers_the_linked_folders_and_moves_with_a_byte(tmp_path: Path) -> None:
    (tmp_path / "package").mkdir()
    (tmp_path / "models").mkdir()
    (tmp_path / "package" / "a.py").write_text("1\n")
    (tmp_path / "models" / "b.py").write_text("2\n")
    (tmp_path / "package" / "models").symlink_to("../models")
    before = run_module.code_hash(tmp_path / "package")
    (tmp_path / "models" / "b.py").write_text("3\n")
    assert run_module.code_hash(tmp_path / "package") != before


@pytest.mark.parametrize("table_format", ["parquet", "csv"])
def test_tables_without_rows_are_written_all_the_same(tmp_path: Path, table_format: str) -> None:
    result = small_result()
    fewer = MarginResult({"margins": result.tables["margins"]}, (), SETTINGS)
    run = read_run(write(tmp_path / "run", fewer, table_format=table_format))
    assert len(run.tables["stress"]["loss"]) == 0
    assert len(run.tables["margins"]["level"]) == 3


def test_csv_quotes_every_text_and_no_number(tmp_path: Path) -> None:
    write(tmp_path / "run", table_format="csv")
    row = (tmp_path / "run" / "margins.csv").read_text().splitlines()[1]
    assert row.startswith('"000",0,0,') and row.endswith('""')


def test_parquet_has_no_nulls_and_checks_its_pages(tmp_path: Path) -> None:
    write(tmp_path / "run")
    file = tmp_path / "run" / "margins.parquet"
    schema = run_module.pq.read_schema(file)
    assert not any(field.nullable for field in schema)
    assert {str(field.type) for field in schema} == {"string", "double"}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_number_that_is_not_finite_is_never_published(tmp_path: Path, value: float) -> None:
    write(tmp_path / "run")
    before = (tmp_path / "run" / "manifest.json").read_bytes()
    bad = small_result(initial_margin=np.array([1.0, value, 2.0]))
    with pytest.raises(NumericsError, match="margins, account 001.*initial_margin"):
        write(tmp_path / "run", bad)
    assert (tmp_path / "run" / "manifest.json").read_bytes() == before


def test_an_old_run_stays_until_the_new_one_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "run")
    before = read_run(tmp_path / "run").manifest

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_module, "_manifest", full)
    with pytest.raises(ResourceError, match="No space left"):
        write(tmp_path / "run", small_result(2))
    assert read_run(tmp_path / "run").manifest == before
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("exchange", ["atomic", "by renaming"])
def test_a_new_run_replaces_the_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, exchange: str) -> None:
    if exchange == "by renaming":
        monkeypatch.setattr("pmvar.io.atomic._exchange", lambda *_: False)
    write(tmp_path / "run", table_format="csv")
    write(tmp_path / "run", small_result(2))
    assert len(read_run(tmp_path / "run").tables["margins"]["account_id"]) == 2
    assert not list((tmp_path / "run").glob("*.csv"))
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_a_place_that_cannot_be_written_fails_before_anything_is_computed(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for target in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/run")):
        with pytest.raises(UsageError) as caught:
            check_writable(target)
        assert caught.value.exit_code == 2
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(UsageError, match="cannot be written"):
            check_writable(tmp_path / "closed" / "run")


def test_a_folder_that_is_no_run_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="manifest.json"):
        write(tmp_path / "home")
    assert (tmp_path / "home" / "thesis.tex").exists()
    (tmp_path / "empty").mkdir()
    assert read_run(write(tmp_path / "empty")).manifest["n_accounts"] == 3


def test_a_changed_run_does_not_verify(tmp_path: Path) -> None:
    file = write(tmp_path / "run") / "components.parquet"
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    file.write_bytes(content)
    with pytest.raises(AuditError, match="components.parquet was changed"):
        read_run(tmp_path / "run")
    file.unlink()
    with pytest.raises(AuditError, match="components.parquet is missing"):
        read_run(tmp_path / "run")


def test_a_foreign_table_or_an_edited_manifest_does_not_verify(tmp_path: Path) -> None:
    run = write(tmp_path / "run")
    (run / "margins.csv").write_text("account_id\n")
    with pytest.raises(AuditError, match="margins.csv is not in the manifest"):
        read_run(run)
    (run / "margins.csv").unlink()
    manifest = json.loads((run / "manifest.json").read_text())
    (run / "manifest.json").write_text(json.dumps(manifest | {"seed": 8}))
    with pytest.raises(AuditError, match="digest"):
        read_run(run)
    (run / "manifest.json").write_text("{")
    with pytest.raises(AuditError, match="cannot be read"):
        read_run(run)
    with pytest.raises(UsageError, match="is not a run"):
        read_run(tmp_path)
