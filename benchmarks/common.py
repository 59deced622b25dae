"""What every benchmark shares: the machine in words, paired timing, peak memory, `--quick` and `--json FILE`.

Importing it sets glibc's malloc thresholds for the whole process, so for every peer alike: freed blocks are kept and
not returned to the system, else page faults on fresh outputs cost more than the arithmetic. `--no-mallopt` leaves them.
Run alone it prints the header that every benchmark prints.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).resolve().parent
if str(HERE.parent) not in sys.path:
    # The checkout that the benchmark lies in, installed or not.
    sys.path.insert(0, str(HERE.parent))

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
PACKAGES = ("jax", "jaxlib", "numpy", "scipy", "numba", "torch", "QuantLib")
Figures = dict[str, Any]


def _keep_freed_memory() -> str:
    """Set the thresholds; returns what to print."""
    if "--no-mallopt" in sys.argv:
        return "as the system has it"
    try:
        libc = ctypes.CDLL("libc.so.6")
        wanted = {M_MMAP_THRESHOLD: 1 << 30, M_TRIM_THRESHOLD: (1 << 31) - 1, M_ARENA_MAX: 2}
        done = all(libc.mallopt(*each) for each in wanted.items())
    except (OSError, AttributeError):
        done = 0
    return "mmap threshold 1 GiB, trim threshold 2 GiB, two arenas, for all peers" if done else "as the system has it"


MALLOC = _keep_freed_memory()


class Timing(NamedTuple):
    """Seconds of one call: the first, which compiles, and the spread of those that follow."""

    first: float
    median: float
    low: float
    """Lower quartile."""
    high: float
    """Upper quartile."""

    def __str__(self) -> str:
        return f"{self.median:.4g} s ({self.low:.4g}–{self.high:.4g})"


def paired(calls: Mapping[str, Callable[[], object]], *, rounds: int) -> dict[str, Timing]:
    """Time every call once a round, in turn, so that a busy moment meets all of them; JAX results are waited for."""
    import jax

    def seconds(call: Callable[[], object]) -> float:
        begun = time.perf_counter()
        jax.block_until_ready(call())
        return time.perf_counter() - begun

    first = {name: seconds(call) for name, call in calls.items()}
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            taken[name].append(seconds(call))
    return {n: Timing(first[n], *np.percentile(t, [50, 25, 75]).tolist()) for n, t in taken.items()}


def peak_gib(pid: int | str = "self") -> float:
    """Most memory that a running process has held since it was started, in GiB; 0 where the system does not say."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) / 2**20
    except (OSError, IndexError):
        return 0.0


def fresh(script: str, *arguments: str) -> Figures:
    """Figures of a benchmark script run in a process of its own; its last line of output is a JSON object."""
    command = [sys.executable, str(HERE / script), *arguments]
    if "--no-mallopt" in sys.argv:
        command.append("--no-mallopt")
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def header() -> Figures:
    """The machine and the versions, as figures."""
    import jax

    versions = {}
    for name in PACKAGES:
        try:
            versions[f"{name.lower()}_version"] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[f"{name.lower()}_version"] = ""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load_average": round(os.getloadavg()[0], 2),
        "device": jax.devices()[0].device_kind,
        "malloc": MALLOC,
        "python_version": platform.python_version(),
        **versions,
    }


def benchmark(
    description: str, measure: Callable[[argparse.Namespace], Figures], *more: str, figure: bool = False
) -> None:
    """Run a benchmark as a script: `--quick`, `--json FILE`, `--figure FILE` where it draws one, and internal options
    `more`, each taking a value."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--quick", action="store_true", help="small sizes: a smoke test, not a measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures as one flat object")
    parser.add_argument("--no-mallopt", action="store_true", help="leave malloc's thresholds alone")
    if figure:
        parser.add_argument("--figure", type=Path, metavar="FILE", help="draw it, as .svg or .png")
    for name in more:
        parser.add_argument(name, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if any(getattr(arguments, name.lstrip("-").replace("-", "_")) for name in more):
        print(json.dumps(measure(arguments)))
        return
    figures = header()
    print("\n".join(f"{name:>20}  {value}" for name, value in figures.items() if value != ""))
    print()
    figures |= {"quick": arguments.quick, **measure(arguments)}
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    benchmark(__doc__ or "", lambda _: {})
