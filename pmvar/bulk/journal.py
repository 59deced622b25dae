"""The working folder of a run: finished blocks in files of their own, and a journal that says which are whole."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pmvar.errors import ResourceError, StateError
from pmvar.io.atomic import DISK, sync, whole_file
from pmvar.io.run import hash_file
from pmvar.io.table_files import TableFormat, write_table_file

Log = Callable[[str], None]
"""Told of what a person should know of."""

HEAD, LINES = "job.json", "journal.jsonl"


def work_folder(out: str | Path) -> Path:
    """Where the run that is to be published at `out` is put together."""
    target = Path(out).resolve()
    return target.with_name(f".{target.name}.work")


@dataclass(frozen=True)
class Entry:
    """A finished block."""

    tables: Mapping[str, str]
    """Name -> SHA-256 of its file."""
    withheld: Mapping[str, str]
    """Account -> reason, of accounts that failed where others did not."""


def _digest(line: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(line, sort_keys=True).encode()).hexdigest()


@contextmanager
def _disk(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in DISK:
            raise ResourceError(f"{folder} could not be written: {error.strerror}; make room and --resume") from error
        raise


class Journal:
    """Blocks of a run as they are finished; a line counts once it and the files that it names are on disk."""

    def __init__(self, folder: Path, head: Mapping[str, Any]):
        """`head` says what the blocks are blocks of; see `begin` and `resume`."""
        self.folder, self.head = folder, head
        self.entries: dict[int, Entry] = {}
        self.published: str | None = None
        """Digest of the manifest that was about to take its place."""

    @classmethod
    def begin(cls, folder: Path, head: Mapping[str, Any]) -> Journal:
        """A new journal in a folder without one. Raises ResourceError if the disk is full."""
        with _disk(folder):
            (folder / LINES).unlink(missing_ok=True)
            with whole_file(folder / HEAD) as file:
                file.write_text(json.dumps(head, indent=1), encoding="utf-8")
        return cls(folder, head)

    @classmethod
    def resume(cls, folder: Path, *, log: Log) -> Journal | None:
        """The journal in `folder`, or None where none was begun; a block whose files are not as they were written is
        left out, and `log` told of it."""
        try:
            journal = cls(folder, json.loads((folder / HEAD).read_bytes()))
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise StateError(f"{folder / HEAD} cannot be read ({error}); run without --resume to begin anew") from error
        path = folder / LINES
        content = path.read_bytes() if path.is_file() else b""
        whole = content[: content.rfind(b"\n") + 1]
        if len(whole) < len(content):
            # Cut off while it was written: the block counts as not finished, and the next line must not follow it.
            os.truncate(path, len(whole))
        for number, text in enumerate(whole.splitlines(), start=1):
            try:
                line = json.loads(text)
                sound = line.pop("digest") == _digest(line)
            except (ValueError, KeyError, AttributeError):
                sound, line = False, {}
            if not sound:
                log(f"line {number} of {path} is damaged; its block is computed again")
            elif "publish" in line:
                journal.published = line["publish"]
            else:
                journal._take(line, log)
        return journal

    def _take(self, line: Mapping[str, Any], log: Log) -> None:
        for name, expected in line["tables"].items():
            file = self.file(line["block"], name)
            if not file.is_file() or hash_file(file) != expected:
                log(f"{file} is not as it was written; block {line['block']} is computed again")
                self.entries.pop(line["block"], None)
                return
        self.entries[line["block"]] = Entry(line["tables"], line["withheld"])

    def file(self, block: int, table: str) -> Path:
        """Where a block's table lies."""
        return self.folder / f"{block:06d}.{table}.parquet"

    def put(self, block: int, tables: Mapping[str, pa.Table], withheld: Mapping[str, str]) -> None:
        """Keep a block's tables. Raises ResourceError if the disk is full; the block then counts as not finished."""
        hashes = {}
        with _disk(self.folder):
            for name, table in tables.items():
                if len(table):
                    with whole_file(self.file(block, name)) as temporary:
                        written = write_table_file(temporary, table, table_format=TableFormat.PARQUET)
                        os.replace(written, temporary)
                    hashes[name] = hash_file(self.file(block, name))
            self._append({"block": block, "tables": hashes, "withheld": dict(withheld)})
        self.entries[block] = Entry(hashes, withheld)

    def publishing(self, digest: str) -> None:
        """Note the digest of the manifest that is about to take its place."""
        with _disk(self.folder):
            self._append({"publish": digest})
        self.published = digest

    def _append(self, line: dict[str, Any]) -> None:
        text = json.dumps(line | {"digest": _digest(line)}) + "\n"
        with open(self.folder / LINES, "a", encoding="utf-8") as stream:
            begun = stream.tell()
            try:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            except OSError:
                # What the disk took of the line must not stand before the next one.
                os.ftruncate(stream.fileno(), begun)
                raise
        sync(self.folder)

    def parts(
        self, table: str, *, blocks: Sequence[int] | None = None, columns: list[str] | None = None
    ) -> Iterator[pa.Table]:
        """A table block by block, in order; blocks without rows of it are left out. Raises StateError on damage."""
        for block in sorted(self.entries) if blocks is None else blocks:
            if table in self.entries[block].tables:
                file = self.file(block, table)
                try:
                    yield pq.read_table(file, columns=columns, page_checksum_verification=True)
                except (OSError, pa.ArrowException) as error:
                    raise StateError(f"{file} is damaged ({error}); --resume computes it again") from error
