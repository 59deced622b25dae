"""One run at a time on one output: a lock that the system lets go of when its holder dies, however it dies."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pmvar.errors import StateError

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@contextmanager
def exclusive(path: Path) -> Iterator[bool]:
    """Hold the lock file `path`; yields whether a holder died before it let go.

    Raises StateError, naming the holder, while another process holds it.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                held = os.pread(handle, 4096, 0).decode(errors="replace").strip() or "another process"
                raise StateError(f"{path.parent} is being written by {held}; wait until it ends") from None
            # The holder before may have removed the file that was opened here.
            if not path.exists() or os.fstat(handle).st_ino != path.stat().st_ino:
                continue
            stale = os.fstat(handle).st_size > 0
            os.ftruncate(handle, 0)
            boot = BOOT_ID.read_text().strip() if BOOT_ID.exists() else ""
            os.pwrite(handle, json.dumps({"pid": os.getpid(), "boot": boot}).encode(), 0)
            yield stale
            return
        finally:
            os.close(handle)
