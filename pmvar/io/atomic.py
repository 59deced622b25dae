"""Folders and files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pmvar.errors import ResourceError, UsageError


def check_writable(path: str | Path) -> None:
    """Raise UsageError unless the folder `path` can be created or replaced: its parent must take a new
    folder."""
    target = Path(path)
    if target.exists() and not target.is_dir():
        raise UsageError(f"{target} exists and is not a folder")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rmdir(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror or error}") from error


def sync(path: Path) -> None:
    """Flush a file or folder to disk; raises OSError if that fails."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A temporary sibling of `path` to write into; it takes the place of `path` once the block ends without
    error.

    What was at `path` stays until then, and stays if anything fails. Raises UsageError where nothing can be
    written, ResourceError if the disk is full or does not take the bytes.
    """
    target = Path(path)
    check_writable(target)
    temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        temporary.chmod(0o755)
        yield temporary
        for item in sorted(temporary.rglob("*"), reverse=True):
            sync(item)
        sync(temporary)
        _replace(temporary, target)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EIO):
            raise ResourceError(f"{target} could not be written: {error.strerror}") from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _replace(temporary: Path, target: Path) -> None:
    if not target.exists():
        os.rename(temporary, target)
    else:
        # A folder that is not empty cannot be renamed over, so the old one steps aside first.
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
        os.rename(target, aside)
        try:
            os.rename(temporary, target)
        except OSError:
            os.rename(aside, target)
            raise
        shutil.rmtree(aside, ignore_errors=True)
    sync(target.parent)
