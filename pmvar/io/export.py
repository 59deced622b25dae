"""A published run put elsewhere: into a database, or under the address of an object store."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa

from pmvar.errors import UsageError
from pmvar.io.chain import batches
from pmvar.io.database import DATABASES, write_tables
from pmvar.io.object_store import put_files
from pmvar.io.run import MANIFEST, read_manifest, table_schema
from pmvar.io.verify import verify_run
from pmvar.risk.result import TABLES


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
        put_files(folder, [*files, MANIFEST], target)
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
