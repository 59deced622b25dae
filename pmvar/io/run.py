"""write_run and read_run: a result as a folder that is whole, hashed and verifiable."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from pmvar.errors import AuditError, NumericsError, UsageError
from pmvar.io import atomic
from pmvar.io.chain import Chain, chain_of, chain_table
from pmvar.io.environment import environment
from pmvar.io.table_files import TableFormat, write_table_file, write_table_parts
from pmvar.risk.result import TABLES, Columns, MarginResult

MANIFEST = "manifest.json"
REPORT = "report.html"
CHAIN = "chain"
"""Table of the digests of the blocks of all tables; see `pmvar.io.chain`."""
SEAL = "manifest.seal"
"""HMAC of the manifest's digest, where somebody with a key wrote one."""
TEXT = {
    "account_id", "status", "reason", "instrument_id", "underlying", "of", "factor", "other_factor", "greek",
    "parameter", "method", "source", "verdict", "driver", "notes", "group", "name", "label", "strategy",
    "model", "other", "account_class", "rejected_classes", "rejected_by", "zone", "day", "origin", "left_out",
    "add_on", "absent", "tools", "measure", "state",
}  # fmt: skip
"""Columns of text, but for `EXCEPT`."""
EXCEPT = {("stress", "scenario"): True, ("differences", "model"): False}
"""Table and column -> whether it is text: there a name, elsewhere a number, and the other way round."""
PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "pyarrow", "pmvar")
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, eq=False)
class Run:
    """A run read back: its tables (text as object arrays, numbers float64) and its manifest."""

    path: Path
    tables: Mapping[str, Columns]
    manifest: Mapping[str, Any]


def _is_text(table: str, column: str) -> bool:
    return EXCEPT.get((table, column), column in TEXT)


def table_schema(name: str, columns: tuple[str, ...]) -> pa.Schema:
    """Types of the columns of a table."""
    kinds = ((c, pa.string() if _is_text(name, c) else pa.float64()) for c in columns)
    return pa.schema([pa.field(column, kind, nullable=False) for column, kind in kinds])


def arrow_table(name: str, columns: Columns, wanted: tuple[str, ...]) -> pa.Table:
    """The table, every number finite; raises NumericsError naming table, account and column, ValueError for a
    table whose columns are not those that are wanted."""
    if columns and set(columns) != set(wanted):
        raise ValueError(f"{name} must have the columns {wanted}, not {tuple(columns)}")
    arrays, schema = [], table_schema(name, wanted)
    for field in schema:
        values = columns[field.name] if columns else np.array([])
        if pa.types.is_string(field.type):
            texts = pa.array(np.asarray(values, dtype=object), pa.string())
            if texts.null_count:
                raise ValueError(f"{name}.{field.name} must not hold None")
            arrays.append(texts)
            continue
        number = np.asarray(values, dtype=np.float64)
        bad = np.flatnonzero(~np.isfinite(number))
        if len(bad):
            where = f", account {columns['account_id'][bad[0]]}" if "account_id" in columns else f", row {bad[0]}"
            more = f" and {len(bad) - 1} more rows" if len(bad) > 1 else ""
            raise NumericsError(f"{name}{where}{more}: {field.name} is {number[bad[0]]}; nothing was written")
        arrays.append(pa.array(number, pa.float64()))
    return pa.Table.from_arrays(arrays, schema=schema)


def hash_file(path: Path) -> str:
    """SHA-256 of the bytes of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def code_hash(root: Path = _ROOT) -> str:
    """SHA-256 over the names and bytes of all `.py` files of the package, in order."""
    files: dict[str, Path] = {}
    for folder, _, names in os.walk(root, followlinks=True):
        paths = (Path(folder) / name for name in names if name.endswith(".py"))
        files |= {path.relative_to(root).as_posix(): path for path in paths}
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{hash_file(files[name])}\n".encode())
    return digest.hexdigest()


def versions() -> dict[str, str]:
    """Of Python and of the packages that bits depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def machine(device: str) -> dict[str, Any]:
    """What beside inputs and settings bits depend on, as a manifest holds it: code, lock, versions, processor."""
    lock = _ROOT.parent / "requirements" / "run.lock"
    return {
        "hashes": {"code": code_hash(), "lock": hash_file(lock) if lock.is_file() else ""},
        "device": device,
        "environment": environment(),
        "versions": versions(),
    }


def _digest(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of the manifest's content but for this digest itself."""
    content = {key: value for key, value in manifest.items() if key != "digest"}
    return hashlib.sha256(json.dumps(content, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _manifest(
    result: MarginResult,
    *,
    inputs: Mapping[str, str],
    outputs: Mapping[str, str],
    chains: Mapping[str, Chain],
    n_accounts: int,
    book: str,
) -> dict[str, Any]:
    settings = dict(result.settings)
    here = machine(settings.get("device", ""))
    manifest = {
        "format": 1,
        "created": datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z"),
        "book": book,
        "n_accounts": n_accounts,
        "hashes": {
            "inputs": dict(sorted(inputs.items())),
            "model": inputs.get("model.json", ""),
            **here["hashes"],
            "outputs": dict(sorted(outputs.items())),
            "chains": {
                name: {"head": chain.head, "rows": chain.rows, "rows_per_block": chain.rows_per_block}
                for name, chain in chains.items()
            },
        },
        "seed": settings.get("seed"),
        "settings": settings,
        "dtype": str(settings.get("precision", "")),
        "device": here["device"],
        "environment": here["environment"],
        "versions": {**here["versions"], **settings.get("versions", {})},
        "notes": list(result.notes),
    }
    return manifest | {"digest": _digest(manifest)}


def check_writable(path: str | Path) -> None:
    """Raise UsageError, before anything is computed, unless a run can be written at `path`."""
    atomic.check_writable(path, marker=MANIFEST)


def write_run(
    path: str | Path,
    result: MarginResult,
    *,
    report_html: str,
    inputs: Mapping[str, str],
    book: str | Path | None = None,
    table_format: TableFormat | str = TableFormat.PARQUET,
    columns: Mapping[str, tuple[str, ...]] = TABLES,
) -> Path:
    """Write all tables of `result`, `report.html` and `manifest.json` into the folder `path`, all or nothing.

    A run that is there is replaced once the new one is complete. `inputs` maps file names relative to the
    book to their SHA-256 (`Book.input_hashes`); `book` is where they lie, kept relative to the run. A table of
    `columns` (else those of a run) that `result` lacks is written without rows; the first holds the accounts.

    Raises NumericsError for a number that is not finite, UsageError where nothing can be written or the
    folder holds something else than a run, ResourceError if the disk is full.
    """
    tables = {name: arrow_table(name, result.tables.get(name, {}), wanted) for name, wanted in columns.items()}
    return publish(
        path,
        {name: [table] for name, table in tables.items()},
        result,
        report_html=report_html,
        inputs=inputs,
        n_accounts=len(next(iter(tables.values()))["account_id"].unique()),
        book=book,
        table_format=table_format,
        columns=columns,
    )


def publish(
    path: str | Path,
    tables: Mapping[str, Iterable[pa.Table]],
    result: MarginResult,
    *,
    report_html: str,
    inputs: Mapping[str, str],
    n_accounts: int,
    book: str | Path | None = None,
    table_format: TableFormat | str = TableFormat.PARQUET,
    columns: Mapping[str, tuple[str, ...]] = TABLES,
    temporary: Path | None = None,
    committing: Callable[[Mapping[str, Any]], None] = lambda manifest: None,
) -> Path:
    """Like `write_run`, with the tables in parts, one after the other, that need not be in memory together.

    `temporary` is where the folder is written before it takes its place, `committing` is called with the manifest
    just before it does. Raises UsageError and ResourceError as `write_run` does.
    """
    relative = os.path.relpath(Path(book).resolve(), Path(path).resolve()) if book is not None else ""
    with atomic.whole_folder(path, marker=MANIFEST, temporary=temporary) as folder:
        written = [
            write_table_parts(
                folder / name, parts, schema=table_schema(name, columns[name]), table_format=TableFormat(table_format)
            )
            for name, parts in tables.items()
        ]
        (folder / REPORT).write_text(report_html, encoding="utf-8")
        chains = {file.stem: chain_of(file, table_schema(file.stem, columns[file.stem])) for file in written}
        written.append(write_table_file(folder / CHAIN, chain_table(chains), table_format=TableFormat(table_format)))
        manifest = _manifest(
            result,
            inputs=inputs,
            outputs={file.name: hash_file(file) for file in (*written, folder / REPORT)},
            chains=chains,
            n_accounts=n_accounts,
            book=Path(relative).as_posix() if relative else "",
        )
        text = json.dumps(manifest, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
        (folder / MANIFEST).write_text(text, encoding="utf-8")
        committing(manifest)
    return Path(path)


def read_manifest(path: str | Path) -> dict[str, Any]:
    """The manifest of the run at `path`. Raises UsageError where there is none, AuditError if it was
    changed."""
    file = Path(path) / MANIFEST
    if not file.is_file():
        raise UsageError(f"{path} is not a run: it has no {MANIFEST}")
    try:
        manifest = json.loads(file.read_bytes())
        sound = manifest["digest"] == _digest(manifest)
    except (ValueError, KeyError, TypeError) as error:
        raise AuditError(f"{file} cannot be read: {error!r}") from error
    if not sound:
        raise AuditError(f"{file} was changed: its content does not match its digest")
    return manifest


def read_run(path: str | Path) -> Run:
    """The run at `path`, every file verified against the manifest.

    Raises UsageError where there is no run, AuditError naming the first file that is changed, missing or not
    listed.
    """
    folder, manifest = Path(path), read_manifest(path)
    outputs: Mapping[str, str] = manifest["hashes"]["outputs"]
    present = {item.name for item in folder.iterdir() if item.stem in (*TABLES, CHAIN) or item.name == REPORT}
    for name in sorted(present | set(outputs)):
        if name not in present:
            raise AuditError(f"{folder / name} is missing")
        if name not in outputs:
            raise AuditError(f"{folder / name} is not in the manifest")
        if hash_file(folder / name) != outputs[name]:
            raise AuditError(f"{folder / name} was changed: its hash is not the manifest's")
    tables = {Path(name).stem: _columns(folder / name) for name in outputs if Path(name).stem in TABLES}
    # A run of an earlier version may lack a table that there was no call for.
    return Run(folder, {name: tables.get(name) or _none_of(name) for name in TABLES}, manifest)


MARGINS = ("margins", "anti_procyclicality")


def read_margins(path: str | Path) -> Run:
    """The run at `path` with the tables of its margins alone, verified. Raises what `read_run` raises."""
    folder, manifest = Path(path), read_manifest(path)
    tables = {name: _none_of(name) for name in MARGINS}
    for name in (name for name in manifest["hashes"]["outputs"] if Path(name).stem in MARGINS):
        if not (folder / name).is_file():
            raise AuditError(f"{folder / name} is missing")
        if hash_file(folder / name) != manifest["hashes"]["outputs"][name]:
            raise AuditError(f"{folder / name} was changed: its hash is not the manifest's")
        tables[Path(name).stem] = _columns(folder / name)
    return Run(folder, tables, manifest)


def _none_of(name: str) -> Columns:
    return {column: np.array([]) for column in TABLES[name]}


def _columns(file: Path) -> Columns:
    schema = table_schema(file.stem, TABLES[file.stem])
    if file.suffix == ".parquet":
        table = pq.read_table(file, page_checksum_verification=True)
    else:
        convert = pcsv.ConvertOptions(column_types=schema, strings_can_be_null=False)
        parse = pcsv.ParseOptions(newlines_in_values=True)
        table = pcsv.read_csv(file, convert_options=convert, parse_options=parse)
    if table.column_names != schema.names:
        raise AuditError(f"{file} has the columns {table.column_names}, not {schema.names}")
    return {name: table[name].to_numpy() for name in schema.names}
