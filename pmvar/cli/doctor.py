"""`pmvar doctor`: what is here, what is missing, and whether numbers can be trusted on this machine."""

from __future__ import annotations

import os
import platform
from importlib import metadata

EXTRAS = {
    "calibration diagnostics (core)": ("arviz", "numpyro"),
    "fast": ("numba",),
    "calendars": ("exchange-calendars",),
    "cluster": ("ray",),
    "sql": ("duckdb", "adbc-driver-postgresql"),
    "service": ("fastapi", "uvicorn", "pydantic", "prometheus-client"),
    "test": ("pytest", "hypothesis", "QuantLib"),
}
CORE = ("jax", "jaxlib", "numpy", "scipy", "equinox", "jaxtyping", "pyarrow", "typer", "rich", "jinja2", "matplotlib")


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def report() -> str:
    """The text that the command prints."""
    import pmvar

    lines = [f"pmvar {pmvar.__version__}, Python {platform.python_version()}, {platform.platform()}"]
    lines += [f"  {name:<12} {_version(name) or 'MISSING'}" for name in CORE]
    import jax
    import jax.numpy as jnp

    wide = jnp.asarray(2**40).dtype == jnp.int64
    lines.append("devices")
    lines += [f"  {d.platform} {d.id}: {d.device_kind}" for d in jax.devices()]
    lines.append(f"precision: 64-bit {'on' if wide else 'OFF: results would be wrong; do not run'}")
    page = os.sysconf("SC_PAGE_SIZE")
    total, free = (page * os.sysconf(k) / 2**30 for k in ("SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    lines.append(f"memory: {total:.1f} GiB, {free:.1f} GiB free; {os.cpu_count()} cores")
    lines.append("extras")
    for extra, packages in EXTRAS.items():
        missing = [p for p in packages if not _version(p)]
        name = extra.partition(" ")[0] if "core" not in extra else ""
        fix = (
            f"missing {', '.join(missing)}" + (f": pip install 'pmvar[{name}]'" if name else "")
            if missing
            else "complete"
        )
        lines.append(f"  {extra:<30} {fix}")
    return "\n".join(lines)
