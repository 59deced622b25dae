"""How far the stages of a bulk run are from what the machine can do: memory, arithmetic in cache, plain decoding.

Shapes are E2's: 10 positions an account in 5,000 instruments, 16,384 weighted scenarios. The limit of aggregation is
the same kernel where every strip of P&L stays in a core's first cache; that of a tail, reading its losses once; that of
reading a book, pyarrow's decoding of its positions. Memory is read and written by NumPy, a thread a core.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
from bulk_scale import POSITIONS, SCENARIOS, write_e2
from common import Figures, benchmark, paired

from pmvar.io.book import load_book
from pmvar.kernels.aggregate import add_positions
from pmvar.risk.quantiles import measure_rows
from pmvar.risk.selection import ROWS, in_threads
from pmvar.scenarios.scenario_set import GRAIN
from pmvar.types import PATH_TILE
from pmvar.valuation.store import STRIP

FULL, QUICK = (4_096, 5_000, 100_000), (32, 200, 500)
"""Accounts of a block, instruments, accounts of the book that is read."""
IN_CACHE = 64
"""Instruments whose strip stays in a first cache."""
REPLICATES = 16


def aggregation(accounts: int, instruments: int) -> Callable[[], object]:
    """One tile for one block, the losses written over the last ones."""
    rng = np.random.default_rng(1)
    pnl = jnp.asarray(rng.standard_normal((PATH_TILE // STRIP, instruments, STRIP), dtype=np.float32))
    column = jnp.asarray(rng.integers(0, instruments, (accounts, POSITIONS)).astype(np.int32))
    quantity = jnp.asarray(rng.standard_normal((accounts, POSITIONS)))
    held = [jnp.zeros((PATH_TILE // STRIP, accounts, STRIP))]

    def call() -> object:
        held[0] = add_positions(held[0], pnl, column, quantity, first=True)
        return held[0]

    return call


def measure(arguments: argparse.Namespace) -> Figures:
    """Rates, each beside its limit."""
    accounts, instruments, listed = QUICK if arguments.quick else FULL
    rng = np.random.default_rng(2)
    loss = rng.standard_normal((accounts, SCENARIOS))
    # Half of the scenarios spread over the tail, as importance sampling has it.
    weight = np.round(np.exp(0.5 * loss[0] - 0.125) / GRAIN) * GRAIN
    sink = np.empty_like(loss)

    def tails() -> object:
        def some(rows: slice) -> object:
            return measure_rows(loss[rows], weight, level=0.99, n_replicates=REPLICATES)

        return in_threads(some, accounts, ROWS)

    with tempfile.TemporaryDirectory(prefix="pmvar-limits-") as folder:
        book = Path(folder) / "book"
        write_e2(book, listed, 4, 16)
        rows = pq.read_metadata(book / "positions.parquet").num_rows
        timings = paired(
            {
                "memory_read": lambda: in_threads(lambda rows: loss[rows].sum(), accounts, ROWS),
                "memory_write": lambda: in_threads(lambda rows: sink[rows].fill(1.0), accounts, ROWS),
                "aggregate": aggregation(accounts, instruments),
                "aggregate_in_cache": aggregation(accounts, IN_CACHE),
                "tail": tails,
                "read": lambda: load_book(book) and None,
                "decode": lambda: pq.read_table(book / "positions.parquet").num_rows,
            },
            rounds=3 if arguments.quick else 9,
        )
    adds, losses = accounts * POSITIONS * PATH_TILE, accounts * SCENARIOS
    amounts = {
        "memory_read": ("bytes", loss.nbytes), "memory_write": ("bytes", sink.nbytes),
        "aggregate": ("adds", adds), "aggregate_in_cache": ("adds", adds), "tail": ("losses", losses),
        "read": ("rows", rows), "decode": ("rows", rows),
    }  # fmt: skip
    rates = {name: amount / timings[name].median for name, (_, amount) in amounts.items()}
    figures: Figures = {f"{name}_{unit}_per_s": rates[name] for name, (unit, _) in amounts.items()}
    figures |= {
        "aggregate_share": rates["aggregate"] / rates["aggregate_in_cache"],
        "aggregate_write_share": rates["aggregate"] / POSITIONS * 8 / rates["memory_write"],
        "tail_share": rates["tail"] * 8 / rates["memory_read"],
        "read_share": rates["read"] / rates["decode"],
    }
    for name, value in figures.items():
        print(f"{name:>36}  {value:.3g}")
    return figures


if __name__ == "__main__":
    benchmark(__doc__ or "", measure)
