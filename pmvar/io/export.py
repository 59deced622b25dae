"""A published run put elsewhere: into a database, or under the address of an object store."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
from pyarrow import fs

from pmvar.errors import ResourceError, UsageError
from pmvar.io.chain import batches
from pmvar.io.database import DATABASES, write_tables
from pmvar.io.run import MANIFEST, read_manifest, table_schema
from pmvar.io.verify import verify_run
from pmvar.risk.result import TABLES

CHUNK = 8 << 20


def export_run(run: str | Path, target: str, *, prefix: str = "pmvar_") -> str:
    """Put the run at `run`, once it is verified, to `target`, and say so.

    A database (`postgresql://…`, `duckdb:FILE`) gets the rows of all tables and one in `<prefix>runs`, each with the
    manifest's digest as `run_id`, in one transaction. Any other address (`s3://bucket/run`, `gs://…`, `file:///…`) gets
    the files, the manifest last: where it stands, the run is whole. Doing it again changes nothing.

    Raises AuditError where the run was changed, UsageError for a target of no known kind, ResourceError where the
    target does not take it.
    """
    verify_run(run)
    folder, manifest = Path(run), read_manifest(run)
    files = list(manifest["hashes"]["outputs"])
    if not target.startswith(DATABASES):
        _copy(folder, [*files, MANIFEST], target)
        return f"{len(files) + 1} files: {target}"
    if not any(Path(name).stem == "margins" for name in files):
        raise UsageError(f"{run} has no margins: a database takes runs; give its files an address such as file:///…")
    said = {"created": manifest["created"], "book": manifest["book"], "as_of": manifest["settings"].get("as_of", ""),
            "base_currency": manifest["settings"].get("base_currency", "")}  # fmt: skip
    runs = pa.table({name: pa.array([value], pa.string()) for name, value in said.items()})
    tables = {
        Path(name).stem: (
            pa.Table.from_batches([b])
            for b in batches(folder / name, table_schema(Path(name).stem, TABLES[Path(name).stem]))
        )
        for name in files
        if Path(name).stem in TABLES
    }
    write_tables(target, manifest["digest"], {**tables, "runs": [runs]}, prefix=prefix)
    return f"{len(tables) + 1} tables with run_id {manifest['digest']}: {target.partition('?')[0]}"


def _copy(folder: Path, names: list[str], target: str) -> None:
    try:
        store, root = fs.FileSystem.from_uri(target)
    except (pa.ArrowException, ValueError) as error:
        raise UsageError(f"{target} is no address; one is like s3://bucket/run or {DATABASES[0]}host/db") from error
    try:
        store.create_dir(root)
        old = f"{root}/{MANIFEST}"
        if store.get_file_info(old).type is fs.FileType.File:
            store.delete_file(old)
        for name in names:
            with store.open_output_stream(f"{root}/{name}") as sink, open(folder / name, "rb") as source:
                while chunk := source.read(CHUNK):
                    sink.write(chunk)
    except OSError as error:
        raise ResourceError(f"{target} did not take the run: {error}") from error
