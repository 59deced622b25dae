"""Source: reads each file of a folder once, so that what was hashed is what was parsed."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import zlib
from pathlib import Path

from pmvar.errors import InputError, Problem, SecurityError, StateError

MAX_BYTES = 8 << 30
"""Largest file read, and largest uncompressed table that a Parquet footer may announce."""

_GZIP = b"\x1f\x8b"


def unpacked(content: bytes, *, file: str, most: int) -> bytes:
    """`content` without its gzip coat, if it has one.

    Raises InputError for a coat that is not sound, SecurityError for more than `most` bytes.
    """
    if content.startswith(_GZIP):
        try:
            content = gzip.GzipFile(fileobj=io.BytesIO(content)).read(most + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise InputError(Problem(f"is not sound gzip: {error}", "supply the whole file", file=file)) from error
    if len(content) > most:
        raise SecurityError(f"{file}: unpacks to more than the cap of {most} bytes")
    return content


def _identity(stat: os.stat_result) -> tuple[int, ...]:
    return stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns


class Source:
    """The files of one folder, each read once; `hashes` maps relative path to SHA-256."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.hashes: dict[str, str] = {}
        self._seen: dict[str, tuple[int, ...]] = {}

    def read(self, name: str) -> bytes:
        """The bytes of the file `name`, a path relative to the folder.

        Raises InputError if it cannot be read, SecurityError beyond `MAX_BYTES`, StateError if it changes
        meanwhile.
        """
        try:
            with open(self.folder / name, "rb") as stream:
                before = os.fstat(stream.fileno())
                if before.st_size > MAX_BYTES:
                    raise SecurityError(f"{name}: {before.st_size} bytes are more than the cap of {MAX_BYTES}")
                content = stream.read()
                after = os.fstat(stream.fileno())
        except OSError as error:
            reason = error.strerror or str(error)
            raise InputError(Problem(f"cannot be read: {reason}", "supply the file", file=name)) from error
        if _identity(before) != _identity(after) or len(content) != after.st_size:
            raise StateError(f"{name} changed while it was read; run again once its writer has finished")
        self._seen[name] = _identity(after)
        self.hashes[name] = hashlib.sha256(content).hexdigest()
        return content

    def verify(self) -> None:
        """Raise StateError if any file read was changed or replaced since: the tables may not fit each
        other."""
        for name, identity in self._seen.items():
            path = self.folder / name
            if not path.exists() or _identity(path.stat()) != identity:
                raise StateError(f"{name} changed while the folder was read; run again once its writer has finished")
