"""From a book to margins: E1 stage by stage, against the naive JAX pipeline; and `pmvar run` at three sizes.

E1: 1,000 options × 10,000 scenarios → 10,000 accounts × 20 positions → 99% VaR and ES of each and their standard
errors, float32; E1 full: on 16,384 weighted Sobol' paths. The clock starts with the book in memory and stops with the
measures; kernels are compiled, which the first call shows.
`pmvar run` is the command as a user has it, compilation, reading and the report included, on the synthetic demo book.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _e1 import FULL, QUICK, Outcome, e1_book, run_e1
from common import HERE, Figures, Timing, benchmark, fresh, paired, peak_gib

from pmvar.types import Precision, Sampling

RUNS = ((100, 16_384), (1_000, 65_536), (10_000, 16_384))
"""(accounts, scenarios) of `pmvar run`."""
QUICK_RUN = (20, 4_096)

CHILDREN = {"full": "e1_full", "pmvar": "e1", "naive": "e1_naive_jax"}
"""What runs in a process of its own, and its figures' name."""


def e1(arguments: argparse.Namespace, rounds: int) -> Figures:
    """E1 and its stages, the naive pipeline beside it."""
    size = QUICK if arguments.quick else FULL
    book = e1_book(size)
    outcomes: dict[str, list[Outcome]] = {"e1": [], "e1_full": []}
    calls = {
        "e1": lambda: outcomes["e1"].append(run_e1(book, size.scenarios)),
        "e1_full": lambda: outcomes["e1_full"].append(run_e1(book, size.weighted, sampling=Sampling.SOBOL_IS)),
        "e1_f64": lambda: run_e1(book, size.scenarios, Precision.FLOAT64) and None,
    }
    timings = paired(calls, rounds=rounds)
    n_options = size.underlyings * size.options_each
    figures: Figures = {
        "options": n_options,
        "accounts": size.accounts,
        "scenarios": size.scenarios,
        "weighted_scenarios": size.weighted,
    }
    print(
        f"E1: {n_options:,} options, {size.accounts:,} accounts, {size.scenarios:,} scenarios; "
        f"full: {size.weighted:,} weighted"
    )
    for name, timing in timings.items():
        print(f"{name:>24}  {timing}, first call {timing.first:.2f} s")
        figures |= _spread(name, timing)
    for name, found in outcomes.items():
        middle = sorted(found[1:], key=lambda o: sum(o.seconds.values()))[len(found[1:]) // 2]
        for stage, seconds in middle.seconds.items():
            print(f"{name + ' ' + stage:>24}  {seconds:.3f} s")
            figures[f"{name}_{stage}_s"] = seconds
    # The naive pipeline takes minutes and much memory: two calls in a process of its own, one of ours before and after.
    found = {which: fresh("end_to_end.py", "--alone", f"{which},{arguments.quick:d}") for which in CHILDREN}
    after = fresh("end_to_end.py", "--alone", f"pmvar,{arguments.quick:d}")
    for which, name in CHILDREN.items():
        figures[f"{name}_peak_gib"] = found[which]["gib"]
    figures["e1_naive_jax_s"], figures["e1_naive_jax_first_call_s"] = (found["naive"][n] for n in ("s", "first_s"))
    beside = (found["pmvar"]["s"] + after["s"]) / 2
    figures["e1_beside_naive_s"], figures["naive_over_e1"] = beside, figures["e1_naive_jax_s"] / beside
    for name in ("e1_naive_jax_s", "e1_beside_naive_s", "naive_over_e1", *(f"{n}_peak_gib" for n in CHILDREN.values())):
        print(f"{name:>24}  {figures[name]:.3g}")
    return figures


def _spread(name: str, timing: Timing) -> Figures:
    return {
        f"{name}_s": timing.median,
        f"{name}_low_s": timing.low,
        f"{name}_high_s": timing.high,
        f"{name}_first_call_s": timing.first,
    }


def alone(which: str, quick: str) -> Figures:
    """Time and peak memory of one pipeline in this process alone; naive: one call, else the median of three."""
    size = QUICK if int(quick) else FULL
    book = e1_book(size)
    if which == "naive":
        from _naive import Naive

        timing = paired({"naive": Naive(book, size.scenarios)}, rounds=1)["naive"]
    else:
        n, sampling = (size.weighted, Sampling.SOBOL_IS) if which == "full" else (size.scenarios, Sampling.MC)
        timing = paired({"e1": lambda: run_e1(book, n, sampling=sampling) and None}, rounds=3)["e1"]
    return {"first_s": timing.first, "s": timing.median, "gib": peak_gib()}


def runs(cold: tuple[int, int], warm: tuple[tuple[int, int], ...]) -> Figures:
    """`pmvar run` in processes of its own: one size with nothing compiled, then others with what that left behind."""
    figures: Figures = {}
    print(f"\n{'pmvar run':>24}  {'wall s':>8}  {'peak GiB':>8}")
    with tempfile.TemporaryDirectory() as folder:
        environment = {n: v for n, v in os.environ.items() if not n.startswith("JAX_")}
        environment |= {"PYTHONPATH": str(HERE.parent), "XDG_CACHE_HOME": f"{folder}/cache"}
        labels = [f"{accounts}x{scenarios}" for accounts, scenarios in warm]
        for label, (accounts, scenarios) in zip(["cold", *labels], [cold, *warm], strict=True):
            book = f"{folder}/book{accounts}"
            if not Path(book).exists():
                demo = [sys.executable, "-m", "pmvar", "demo", "--out", book, "--accounts", str(accounts)]
                subprocess.run(demo, env=environment, check=True, stdout=subprocess.DEVNULL)
            out = ["--out", f"{folder}/run-{label}", "--paths", str(scenarios)]
            wall, peak = _watched([sys.executable, "-m", "pmvar", "run", book, *out], environment)
            figures |= {f"run_{label}_s": wall, f"run_{label}_peak_gib": peak}
            text = f"{accounts:,} × {scenarios:,}" + (" (compiling)" if label == "cold" else "")
            print(f"{text:>24}  {wall:>8.1f}  {peak:>8.2f}")
    return figures


def _watched(command: list[str], environment: dict[str, str]) -> tuple[float, float]:
    """Wall time in seconds and peak memory in GiB of a command that must succeed."""
    begun, peak = time.perf_counter(), 0.0
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        # Not ru_maxrss of the child, which starts at this process's own.
        while process.poll() is None:
            peak = max(peak, peak_gib(process.pid))
            time.sleep(0.02)
    if process.returncode not in (0, 4):
        raise RuntimeError(f"{' '.join(command[2:])} exited with {process.returncode}")
    return time.perf_counter() - begun, peak


def measure(arguments: argparse.Namespace) -> Figures:
    """Everything, or (in a child process) one pipeline alone."""
    if arguments.alone:
        return alone(*arguments.alone.split(","))
    if arguments.quick:
        return e1(arguments, rounds=1) | runs(QUICK_RUN, ())
    return e1(arguments, rounds=7) | runs(RUNS[0], RUNS)


if __name__ == "__main__":
    benchmark(__doc__ or "", measure, "--alone")
