"""E2: bulk margin of 10,000, 100,000 and 1,000,000 accounts, from a book on disk to a published run.

Each account holds 10 of 5,000 options on 50 underlyings, a tenth of them American, every option with an expiry, a
forward and a smile of its own; 16,384 weighted Sobol' scenarios, 99% VaR and ES with standard errors, no components;
Parquet in, Parquet out. Each size runs in a process of its own through `pmvar.bulk.run`, as `pmvar run` does; the clock
starts before the book is read and stops when the run is published, compilation included (the persistent cache is shared
by the sizes, the first fills it). Stages are timed where they are called; what remains is `other_s`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from _books import AS_OF, RATE, make_book
from common import HERE, Figures, benchmark, peak_gib

from pmvar.io.table_files import TableFormat, write_table_file
from pmvar.io.write_book import write_book
from pmvar.types import DAY

SIZES = (10_000, 100_000, 1_000_000)
POSITIONS, SCENARIOS = 10, 16_384
UNDERLYINGS, OPTIONS_EACH = 50, 100
QUICK = (200, 4_096, 4, 16)
"""Accounts, scenarios, underlyings, options of each."""
MEMORY = 8.0
"""GiB."""
STAGES = ("read", "scenarios", "reprice", "aggregate", "tail", "write")


def write_e2(folder: Path, accounts: int, underlyings: int, options_each: int) -> None:
    """The book, positions as Parquet."""
    book = make_book(underlyings, options_each)
    market, table = book.market, book.portfolio.instruments
    forwards: dict[str, list] = {"underlying": [], "expiry": [], "forward": []}
    vols: dict[str, list] = {"underlying": [], "expiry": [], "strike": [], "implied_vol": []}
    for name, surface in market.vols.items():
        for part in surface.slices:
            forward = float(market.forwards[name].at(np.array([part.expiry]))[0])
            forwards["underlying"].append(name)
            forwards["expiry"].append(part.expiry)
            forwards["forward"].append(forward)
            n = len(part.log_moneyness)
            vols["underlying"] += [name] * n
            vols["expiry"] += [part.expiry] * n
            vols["strike"] += (forward * np.exp(part.log_moneyness)).tolist()
            vols["implied_vol"] += part.implied_vol.tolist()
    columns = ("instrument_id", "kind", "underlying", "settlement", "quote_currency", "settlement_currency",
               "contract_size", "expiry", "strike", "put_call")  # fmt: skip
    n = len(market.asset)
    exercise = np.where(np.arange(len(table)) % 10 == 0, "american", "european")
    tables = {
        "instruments": {name: getattr(table, name) for name in columns} | {"exercise": exercise},
        "market/spots": {"name": market.asset, "price": market.spot, "currency": ["USD"] * n, "time": [AS_OF] * n},
        "market/forwards": forwards,
        "market/rates": {"currency": ["USD"], "maturity": [AS_OF + 3650 * DAY], "zero_rate": [RATE]},
        "market/vols": vols,
    }
    head = {"as_of": AS_OF, "base_currency": "USD", "surface": "raw", "run": {"seed": 1}}
    write_book(folder, book_toml=head, tables=tables, model=book.model, table_format=TableFormat.PARQUET)
    rng = np.random.default_rng(2)
    n = len(table)
    # Ten different ones: a start and a step that is prime to the number of instruments.
    step = rng.choice([k for k in range(1, n) if np.gcd(k, n) == 1], accounts)
    held = (rng.integers(0, n, accounts)[:, None] + np.arange(POSITIONS) * step[:, None]) % n
    quantity = rng.integers(1, 51, held.size) * rng.choice([-1.0, 1.0], held.size)
    names = pa.array([f"A{i:07d}" for i in range(accounts)])
    rows = {
        "account_id": names.take(pa.array(np.repeat(np.arange(accounts), POSITIONS))),
        "instrument_id": pa.array(table.instrument_id.tolist()).take(pa.array(held.ravel())),
        "quantity": pa.array(quantity),
    }
    write_table_file(folder / "positions", pa.table(rows), table_format=TableFormat.PARQUET)


class Clock:
    """Seconds by stage; what a stage calls counts for the inner one alone."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self._open: list[str] = []
        self._last = time.perf_counter()

    def _switch(self) -> None:
        now = time.perf_counter()
        if self._open:
            self.seconds[self._open[-1]] += now - self._last
        self._last = now

    def timed(self, stage: str, call: Callable) -> Callable:
        """`call` counted to `stage`."""

        def counted(*arguments: Any, **options: Any) -> Any:
            self._switch()
            self._open.append(stage)
            try:
                return call(*arguments, **options)
            finally:
                self._switch()
                self._open.pop()

        return counted


def alone(folder: str, scenarios: str) -> Figures:
    """One run of the book in `folder`, in this process."""
    from pmvar.bulk import blocks, job
    from pmvar.bulk import run as bulk
    from pmvar.bulk.journal import Journal
    from pmvar.cli.run import keep_compiled
    from pmvar.io.book import load_book
    from pmvar.risk import measure
    from pmvar.types import Detail

    keep_compiled()
    clock = Clock()
    job._profit = clock.timed("scenarios", job._profit)
    job.price_all = clock.timed("reprice", job.price_all)
    bulk.Blocks.result = clock.timed("tail", bulk.Blocks.result)
    measure.block_loss = clock.timed("aggregate", measure.block_loss)
    Journal.put = clock.timed("write", Journal.put)
    blocks.arrow_table = clock.timed("write", blocks.arrow_table)
    for name in ("publish", "finish", "render", "_whole"):
        setattr(bulk, name, clock.timed("write", getattr(bulk, name)))
    begun = time.perf_counter()
    book = clock.timed("read", load_book)(folder, overrides={"scenarios": int(scenarios)})
    read_gib = peak_gib()
    request = bulk.Request(book, Path(folder).with_name("run"), Detail.MARGINS, memory_bytes=MEMORY * 2**30)
    plan = request.plan
    bulk.run(request)
    wall = time.perf_counter() - begun
    seconds = {f"{stage}_s": clock.seconds[stage] for stage in STAGES}
    return {
        "accounts": book.portfolio.n_accounts,
        "positions": int(book.portfolio.quantity.nnz),
        "instruments": len(book.portfolio.instruments),
        "scenarios": book.settings.scenarios,
        "blocks": len(plan.starts),
        "wall_s": wall,
        "peak_gib": peak_gib(),
        "read_gib": read_gib,
        "planned_gib": plan.peak_bytes / 2**30,
        "planned_s": plan.seconds,
        **seconds,
        "other_s": wall - sum(seconds.values()),
    }


def one_size(accounts: int, scenarios: int, underlyings: int, options_each: int, cache: str) -> Figures:
    """Figures of a run in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="pmvar-e2-") as folder:
        book = Path(folder) / "book"
        write_e2(book, accounts, underlyings, options_each)
        command = [sys.executable, str(HERE / "bulk_scale.py"), "--alone", f"{book},{scenarios}"]
        environment = os.environ | {"XDG_CACHE_HOME": cache}
        load = os.getloadavg()[0]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
        return json.loads(done.stdout.splitlines()[-1]) | {"load_average": round(load, 2)}


def measure(arguments: argparse.Namespace) -> Figures:
    """All sizes, or (in a child process) one."""
    if arguments.alone:
        return alone(*arguments.alone.split(","))
    cases = [QUICK] if arguments.quick else [(n, SCENARIOS, UNDERLYINGS, OPTIONS_EACH) for n in SIZES]
    names = ("accounts", "wall_s", "peak_gib", *(f"{stage}_s" for stage in STAGES), "other_s")
    print("  ".join(f"{name:>11}" for name in names))
    runs = []
    with tempfile.TemporaryDirectory(prefix="pmvar-cache-") as cache:
        for case in cases:
            runs.append(one_size(*case, cache))
            print("  ".join(f"{runs[-1][name]:>11,.{0 if name == 'accounts' else 2}f}" for name in names), flush=True)
    return {"runs": runs, "memory_gib": MEMORY}


if __name__ == "__main__":
    benchmark(__doc__ or "", measure, "--alone")
