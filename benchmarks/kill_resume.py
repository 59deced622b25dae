"""Kill −9 at random moments: does a run that is resumed, however often, publish the bytes of an undisturbed one?

A book of 30 accounts is margined in blocks of one account each, in a process that is killed at a moment drawn uniformly
over the length of a run, its start included; the next one resumes, and may be killed in turn. One attempt in four is
left alone. After each kill there is no run, or a whole one; each run that is published is compared byte by byte with
the undisturbed one (but for `created` and `digest` in the manifest), and the next begins anew. Processes are forked
from a server that has imported everything and computed nothing, so that kills fall into the run and not into imports.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import shutil
import tempfile
import time
from collections import Counter
from multiprocessing.process import BaseProcess
from pathlib import Path

import numpy as np
from bulk_scale import write_e2
from common import Figures, benchmark

UNDERLYINGS, OPTIONS_EACH, SCENARIOS = 4, 16, 4_096
FULL, QUICK = (30, 1_000), (10, 2)
"""Accounts, kills."""
SPARED = 0.25
"""Share of attempts that nobody kills."""
SEED = 1


def attempt(book: str, out: str) -> None:
    """Begin the run, or resume it."""
    from pmvar.bulk import plan
    from pmvar.bulk import run as bulk
    from pmvar.cli.run import keep_compiled
    from pmvar.io.book import load_book
    from pmvar.types import Detail

    keep_compiled()
    for detail in Detail:
        plan.BLOCK_SECONDS[detail] = 1e-9
    # Drawing takes half of so small a run.
    bulk.render = lambda result: "<p>no report</p>"
    loaded = load_book(book, overrides={"scenarios": SCENARIOS})
    bulk.run(bulk.Request(loaded, Path(out), Detail.COMPONENTS, resume=True))


def content(out: Path) -> dict[str, bytes]:
    """The files of a run, the manifest without the time that it was written at and what that changes."""
    files = {item.name: item.read_bytes() for item in out.iterdir()}
    manifest = json.loads(files["manifest.json"])
    del manifest["created"], manifest["digest"]
    return files | {"manifest.json": json.dumps(manifest).encode()}


def landed(out: Path) -> str:
    """Where a kill found the run."""
    work = out.with_name(f".{out.name}.work")
    journal = work / "journal.jsonl"
    if out.exists():
        return "published"
    if (work / "publish").exists():
        return "publishing"
    return "blocks" if journal.is_file() and journal.stat().st_size else "before"


def check(out: Path, expected: dict[str, bytes]) -> None:
    """Raise RuntimeError naming the files that differ."""
    found = content(out)
    differing = sorted(n for n in {*found, *expected} if found.get(n) != expected.get(n))
    if differing:
        raise RuntimeError(f"{out}: {', '.join(differing)} differ from the run that nothing disturbed")


def measure(arguments: argparse.Namespace) -> Figures:
    """Kill, resume and compare until so many kills are done and the last run is whole."""
    accounts, wanted = QUICK if arguments.quick else FULL
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["pmvar.bulk.run", "pmvar.cli.run", "pmvar.io.book"])
    rng = np.random.default_rng(SEED)
    where: Counter[str] = Counter()
    runs, begun = 0, time.perf_counter()

    with tempfile.TemporaryDirectory(prefix="pmvar-kill-") as folder:
        os.environ["XDG_CACHE_HOME"] = str(Path(folder) / "cache")
        book, out = Path(folder) / "book", Path(folder) / "run"
        write_e2(book, accounts, UNDERLYINGS, OPTIONS_EACH)

        def start() -> BaseProcess:
            process = context.Process(target=attempt, args=(str(book), str(out)))
            process.start()
            return process

        def whole() -> float:
            """An attempt to its end; seconds."""
            since = time.perf_counter()
            process = start()
            process.join()
            if process.exitcode:
                raise RuntimeError(f"a run ended with {process.exitcode}")
            return time.perf_counter() - since

        # The first one compiles.
        whole()
        expected = content(out)
        shutil.rmtree(out)
        length = whole()
        check(out, expected)
        shutil.rmtree(out)
        while True:
            process = start()
            spared = where.total() >= wanted or rng.random() < SPARED
            process.join(None if spared else rng.uniform(0, length))
            if process.is_alive():
                process.kill()
                process.join()
                where[landed(out)] += 1
                if where.total() % 100 == 0:
                    print(f"{where.total():,} kills, {runs:,} runs published", flush=True)
                if out.exists():
                    check(out, expected)
                continue
            if process.exitcode:
                raise RuntimeError(f"a run ended with {process.exitcode} after {where.total()} kills")
            check(out, expected)
            shutil.rmtree(out)
            runs += 1
            if where.total() >= wanted:
                break
    print(f"{where.total():,} kills, {runs:,} runs published, all of them to the same bytes")
    print("  ".join(f"{name} {where[name]:,}" for name in ("before", "blocks", "publishing", "published")))
    return {
        "kills": where.total(),
        "runs_compared": runs,
        "kills_before_a_block": where["before"],
        "kills_in_blocks": where["blocks"],
        "kills_while_publishing": where["publishing"],
        "kills_once_published": where["published"],
        "undisturbed_s": length,
        "seed": SEED,
        "wall_s": time.perf_counter() - begun,
    }


if __name__ == "__main__":
    benchmark(__doc__ or "", measure)
