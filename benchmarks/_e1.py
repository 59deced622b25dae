"""E1: 1,000 options × 10,000 scenarios → 10,000 accounts × 20 positions → 99% VaR and ES, through pmvar's layers.

E1 full is the same on 16,384 weighted Sobol' paths. Either gives the standard errors of both measures.
"""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
from _books import Book, make_book

import pmvar
from pmvar.risk.accounts import account_blocks, block_height, block_loss
from pmvar.risk.measure import Measured, measure_losses
from pmvar.types import Precision, Sampling
from pmvar.valuation.store import TileStore

LEVEL = 0.99
POSITIONS = 20


class Size(NamedTuple):
    """How much of E1."""

    underlyings: int
    options_each: int
    accounts: int
    scenarios: int
    """Of plain Monte Carlo."""
    weighted: int
    """Of E1 full."""


FULL = Size(50, 20, 10_000, 10_000, 16_384)
QUICK = Size(8, 20, 256, 4_096, 4_096)


class Outcome(NamedTuple):
    """Measures in base currency, and the seconds that each stage took."""

    value_at_risk: np.ndarray
    expected_shortfall: np.ndarray
    seconds: dict[str, float]


def e1_book(size: Size) -> Book:
    """The book of one size."""
    return make_book(size.underlyings, size.options_each, n_accounts=size.accounts, positions=POSITIONS)


def run_e1(
    book: Book, n_scenarios: int, precision: Precision = Precision.FLOAT32, sampling: Sampling = Sampling.MC
) -> Outcome:
    """VaR and ES of every account, everything after the book is in memory included."""
    seconds: dict[str, float] = dict.fromkeys(("scenarios", "plan", "reprice", "aggregate", "tail"), 0.0)
    last = time.perf_counter()

    def lap(stage: str) -> None:
        nonlocal last
        now = time.perf_counter()
        seconds[stage] += now - last
        last = now

    scenarios = pmvar.simulate(book.model, book.market, seed=1, n_scenarios=n_scenarios, sampling=sampling)
    scenarios.shock.block_until_ready()
    lap("scenarios")
    pnl = pmvar.reprice(book.portfolio, book.market, scenarios, precision=precision)
    lap("plan")
    store = TileStore(pnl, memory_bytes=8e9)
    lap("reprice")
    found: list[Measured] = []
    everyone = np.arange(book.portfolio.n_accounts)
    blocks = list(account_blocks(book.portfolio.quantity, everyone, block_height(n_scenarios)))
    for block in blocks:
        loss = block_loss(block, store)
        lap("aggregate")
        found.append(measure_losses(loss, scenarios, LEVEL))
        del loss  # the next block is written over it
        lap("tail")
    order = np.argsort(np.concatenate([b.account for b in blocks]))
    var, es = (np.concatenate([f[i] for f in found])[order] for i in range(2))
    lap("tail")
    return Outcome(var, es, seconds)
