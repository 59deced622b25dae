"""CPU and GPU agree: instrument P&L, account losses and expected shortfalls of one book on both, and E1 on both.

Each device simulates, prices and aggregates for itself. Without a GPU there is nothing to compare: it says so, runs E1
on the CPU and exits 0. With one it exits 1 where they differ by more than rounding explains.
"""

from __future__ import annotations

import argparse
import sys
from typing import Any, NamedTuple

import jax
import numpy as np
from _books import Book
from _e1 import FULL, LEVEL, QUICK, e1_book, run_e1
from common import Figures, benchmark, paired

import pmvar
from pmvar.risk.accounts import account_blocks, block_height, block_loss
from pmvar.risk.measure import measure_losses
from pmvar.types import Precision, Sampling
from pmvar.valuation.store import TileStore

TOLERANCE = {Precision.FLOAT32: 2e-6, Precision.FLOAT64: 1e-11}
"""Largest difference allowed: of P&L per unit of max(spot, strike), of losses per unit of gross notional."""


class Results(NamedTuple):
    """What one device makes of a book."""

    pnl: np.ndarray
    """[instrument, scenario], per contract, as priced."""
    loss: np.ndarray
    """[account, scenario]."""
    expected_shortfall: np.ndarray
    """[account]."""


class Difference(NamedTuple):
    """How far two devices are apart. The first three are relative to notionals."""

    pnl_max: float
    pnl_rms: float
    loss_max: float
    es_max: float
    identical: bool
    """Whether every bit of P&L, losses and shortfalls is equal."""

    def within(self, tolerance: float) -> bool:
        """Whether all are small; a NaN is not."""
        return all(x <= tolerance for x in (self.pnl_max, self.loss_max, self.es_max))


def results_on(device: Any, book: Book, n_scenarios: int, precision: Precision) -> Results:
    """Run a book on one device, from the draws to the expected shortfalls."""
    with jax.default_device(device):
        scenarios = pmvar.simulate(book.model, book.market, seed=1, n_scenarios=n_scenarios, sampling=Sampling.MC)
        pnl = pmvar.reprice(book.portfolio, book.market, scenarios, precision=precision)
        tiles = [np.asarray(tile)[pnl.row] for tile in pnl]
        store = TileStore(pnl, memory_bytes=8e9)
        everyone = np.arange(book.portfolio.n_accounts)
        blocks = list(account_blocks(book.portfolio.quantity, everyone, block_height(n_scenarios)))
        losses = [block_loss(block, store)[:] for block in blocks]
    shortfalls = []
    for loss in losses:
        shortfalls.append(measure_losses(loss, scenarios, LEVEL).expected_shortfall)
    order = np.argsort(np.concatenate([block.account for block in blocks]))
    return Results(
        np.concatenate(tiles, axis=1)[:, :n_scenarios], np.concatenate(losses)[order], np.concatenate(shortfalls)[order]
    )


def compare(book: Book, ours: Results, theirs: Results) -> Difference:
    """Two devices' results for the same book."""
    table, market = book.portfolio.instruments, book.market
    unit = np.maximum([market.spot[market.column(u)] for u in table.underlying], table.strike)
    gross = abs(book.portfolio.quantity) @ unit
    pnl = (ours.pnl.astype(np.float64) - theirs.pnl) / unit[:, None]
    loss = (ours.loss.astype(np.float64) - theirs.loss) / gross[:, None]
    return Difference(
        pnl_max=float(np.max(np.abs(pnl))),
        pnl_rms=float(np.sqrt(np.mean(pnl**2))),
        loss_max=float(np.max(np.abs(loss))),
        es_max=float(np.max(np.abs(ours.expected_shortfall - theirs.expected_shortfall) / gross)),
        identical=all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)),
    )


def measure(arguments: argparse.Namespace) -> Figures:
    """E1 on every kind of device there is, and how far they are apart."""
    size = QUICK if arguments.quick else FULL
    devices = {"cpu": jax.devices("cpu")[0]}
    try:
        devices["gpu"] = jax.devices("gpu")[0]
    except RuntimeError:
        print("no GPU: nothing to compare; E1 on the CPU alone")
    book, figures = e1_book(size), {"has_gpu": "gpu" in devices}

    def e1(device: Any) -> None:
        with jax.default_device(device):
            run_e1(book, size.scenarios)

    timings = paired({n: lambda d=d: e1(d) for n, d in devices.items()}, rounds=3 if arguments.quick else 7)
    for name, timing in timings.items():
        print(f"E1 on {name} ({devices[name].device_kind}): {timing}, first call {timing.first:.2f} s")
        figures |= {f"e1_{name}_s": timing.median, f"e1_{name}_low_s": timing.low, f"e1_{name}_high_s": timing.high}
    apart = []
    if "gpu" in devices:
        small = e1_book(size._replace(accounts=min(size.accounts, 1_000)))
        for precision, tolerance in TOLERANCE.items():
            found = [results_on(device, small, size.scenarios, precision) for device in devices.values()]
            difference = compare(small, found[0], found[1])
            agree = difference.within(tolerance)
            apart += [] if agree else [str(precision)]
            print(f"{precision}: {'agree' if agree else 'DIFFER'} within {tolerance:g}: {difference}")
            figures |= {f"{precision}_{name}": value for name, value in difference._asdict().items()}
        figures["agree"] = not apart
    if apart:
        print(f"CPU and GPU differ in {', '.join(apart)}", file=sys.stderr)
        raise SystemExit(1)
    return figures


if __name__ == "__main__":
    benchmark(__doc__ or "", measure)
