"""Environment: what beside code and inputs can move a bit, for the manifest."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def environment() -> dict[str, str]:
    """Kind of processor, its features as the system lists them, and flags given to XLA."""
    return {
        "machine": platform.machine(),
        "cpu_features": _features(),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
    }


def _features(file: Path = Path("/proc/cpuinfo")) -> str:
    """`flags` on x86, `Features` on ARM, sorted; where there is no such file, the processor's name."""
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.processor()
    found = (line.partition(":")[2] for line in lines if line.partition(":")[0].strip() in ("flags", "Features"))
    return " ".join(sorted(next(found, "").split())) or platform.processor()
