"""verify_run: a published run against its manifest, with the first account of every table that differs."""

# pyarrow.compute makes its functions at import, where no type checker sees them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import hmac
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pcsv
import pyarrow.parquet as pq

from pmvar.errors import AuditError, UsageError
from pmvar.io.chain import CHAIN_SCHEMA, Chain, chain_of, first_difference, head_of, seal
from pmvar.io.run import CHAIN, MANIFEST, SEAL, hash_file, read_manifest, table_schema
from pmvar.io.table_files import TableFormat


def verify_run(path: str | Path, *, key: Path | None = None) -> str:
    """What was verified of the run, or comparison, at `path`, in words.

    With `key`, the file of a secret, the manifest must carry the seal that `seal_run` made with it: whoever can
    rewrite a run whole can rewrite its manifest too. Raises AuditError naming every file that differs, for a table with
    the first account that does, and UsageError where there is no run or no key.
    """
    folder, manifest = Path(path), read_manifest(path)
    if key is not None:
        _check_seal(folder, manifest["digest"], key)
    outputs: Mapping[str, str] = manifest["hashes"]["outputs"]
    chains: Mapping[str, Mapping[str, Any]] = manifest["hashes"].get("chains", {})
    if not chains:
        raise AuditError(f"{folder / MANIFEST} has no chains: the run was written by an older version; run again")
    stems = {Path(name).stem for name in outputs}
    found = [
        f"{folder / item.name} is not in the manifest"
        for item in sorted(folder.iterdir())
        if item.name not in (*outputs, MANIFEST, SEAL) and item.stem in stems
    ]
    rows = 0
    for name, digest in sorted(outputs.items(), key=lambda entry: Path(entry[0]).stem == CHAIN):
        file = folder / name
        if not file.is_file():
            found.append(f"{file} is missing")
            continue
        changed = hash_file(file) != digest
        if file.stem in chains:
            rows += chains[file.stem]["rows"]
            difference = _table_difference(file, chains[file.stem], changed=changed)
            found += [f"{file} was changed: {difference}"] if difference else []
        elif changed:
            found.append(f"{file} was changed: its hash is not the manifest's")
    if found:
        raise AuditError("\n".join(found))
    sealed = f", and its seal is that of {key}" if key is not None else ""
    return (
        f"{folder}: {len(outputs)} files and the chains of {rows:,} rows are as published{sealed}\n"
        f"digest of the manifest: {manifest['digest']}"
    )


def seal_run(path: str | Path, *, key: Path) -> Path:
    """Write the seal of the run's manifest under the secret in the file `key` beside it, and return where.

    Raises what `read_manifest` raises, and UsageError where the key is none or nothing can be written.
    """
    target = Path(path) / SEAL
    text = seal(read_manifest(path)["digest"], key) + "\n"
    try:
        target.write_text(text, encoding="ascii")
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror}") from error
    return target


def _check_seal(folder: Path, digest: str, key: Path) -> None:
    expected = seal(digest, key)
    try:
        found = (folder / SEAL).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise AuditError(
            f"{folder / SEAL} cannot be read: the run was never sealed, or its seal was removed"
        ) from error
    if not hmac.compare_digest(found, expected):
        raise AuditError(f"{folder / MANIFEST} was changed, or sealed with another key: {SEAL} does not match")


def _table_difference(file: Path, published: Mapping[str, Any], *, changed: bool) -> str:
    """Where the table first differs from what the manifest says, "" where it does not."""
    try:
        schema = _schema_of(file)
        now = chain_of(file, schema, per_block=published["rows_per_block"])
    except AuditError as error:
        return str(error).removeprefix(f"{file} ")
    if now.head == published["head"]:
        return "its rows are the same, its bytes are not" if changed else ""
    before = _stored_chain(file, schema, published)
    if before is None:
        return "its rows are not those of its chain, which cannot be read any more"
    return first_difference(before, now)


def _schema_of(file: Path) -> pa.Schema:
    """Types of a published table by the names of its columns."""
    try:
        if file.suffix == ".parquet":
            names = pq.read_schema(file).names
        else:
            with pcsv.open_csv(file, parse_options=pcsv.ParseOptions(newlines_in_values=True)) as stream:
                names = stream.schema.names
    except (pa.ArrowException, OSError) as error:
        raise AuditError(f"{file} cannot be read: {str(error).splitlines()[0]}") from error
    return table_schema(file.stem, tuple(names))


def _stored_chain(file: Path, schema: pa.Schema, published: Mapping[str, Any]) -> Chain | None:
    """The chain that was written beside the table, None where it does not lead to the manifest's head."""
    stored = file.with_name(f"{CHAIN}{file.suffix}")
    try:
        if stored.suffix == f".{TableFormat.PARQUET}":
            table = pq.read_table(stored, page_checksum_verification=True)
        else:
            convert = pcsv.ConvertOptions(column_types=CHAIN_SCHEMA, strings_can_be_null=False)
            table = pcsv.read_csv(stored, convert_options=convert)
        mine = table.filter(pc.equal(table["table"], file.stem))
        first, digest = (tuple(mine[name].to_pylist()) for name in ("first", "digest"))
        if head_of(file.stem, schema.names, digest) != published["head"]:
            return None
    except (pa.ArrowException, OSError, KeyError, ValueError):
        return None
    return Chain(published["rows"], published["rows_per_block"], first, digest, published["head"])
