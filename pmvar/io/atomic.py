"""Folders and files that appear whole or not at all."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pmvar.errors import ResourceError, UsageError

DISK = (errno.ENOSPC, errno.EDQUOT, errno.EIO)
"""What the system says of a disk that is full or fails."""


def check_writable(path: str | Path, *, marker: str) -> Path:
    """The absolute path of a folder that can be created or replaced.

    Raises UsageError where its parent takes no new folder, and where something is there that is neither empty
    nor marked as ours by a file named `marker`: it would be replaced.
    """
    target = Path(path).resolve()
    try:
        if target.exists() and (not target.is_dir() or (any(target.iterdir()) and not (target / marker).is_file())):
            raise UsageError(f"{target} exists and holds no {marker}; name another folder")
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rmdir(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as error:
        raise UsageError(f"{target} cannot be written: {error.strerror or error}") from error
    return target


def sync(path: Path) -> None:
    """Flush a file or folder to disk; raises OSError if that fails."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def whole_folder(path: str | Path, *, marker: str, temporary: Path | None = None) -> Iterator[Path]:
    """A temporary folder (a new sibling of `path`, by itself) to write into; it takes the place of `path` once
    the block ends without error.

    What was at `path` stays until then, and stays if anything fails. Raises what `check_writable` raises, and
    ResourceError if the disk is full or fails.
    """
    target = check_writable(path, marker=marker)
    if temporary is None:
        temporary = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    else:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
    try:
        temporary.chmod(0o755)
        yield temporary
        for item in (*temporary.rglob("*"), temporary):
            sync(item)
        _put(temporary, target)
        sync(target.parent)
    except OSError as error:
        if error.errno in DISK:
            raise ResourceError(f"{target} could not be written: {error.strerror}") from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """A temporary sibling of the file `path`, which takes its place once the block ends without error.

    Raises UsageError where nothing can be written, ResourceError if the disk is full or fails.
    """
    target = Path(path).resolve()
    temporary = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        sync(temporary)
        os.replace(temporary, target)
        sync(target.parent)
    except OSError as error:
        if error.errno in DISK:
            raise ResourceError(f"{target} could not be written: {error.strerror}") from error
        raise UsageError(f"{target} cannot be written: {error.strerror or error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _put(temporary: Path, target: Path) -> None:
    """Make `temporary` the new `target`; an old one ends up at `temporary`."""
    if not target.exists():
        os.rename(temporary, target)
    elif not _exchange(temporary, target):
        # Without an atomic exchange the old folder steps aside, and comes back if the new one cannot take its place.
        aside = Path(tempfile.mkdtemp(prefix=f".{target.name}.old.", dir=target.parent))
        os.rename(target, aside)
        try:
            os.rename(temporary, target)
        except OSError:
            os.rename(aside, target)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two folders in one step, so that a reader sees the old or the new; False where the system cannot
    (Linux can)."""
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError, TypeError):
        return False
    here, exchange = -100, 2
    return renameat2(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0
