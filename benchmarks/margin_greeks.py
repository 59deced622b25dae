"""Cost of all Greeks of the margin over one forward pass: the derivative of every account's expected shortfall by every
price, vol level and rate, with standard errors, against pricing all tiles and measuring all accounts once.
"""

from __future__ import annotations

import argparse

import numpy as np
from _books import make_book
from common import Figures, benchmark, paired

import pmvar
from pmvar.risk.accounts import account_blocks, block_height
from pmvar.risk.gradient import gradients, market_factors
from pmvar.risk.measure import BlockTail, measure_block
from pmvar.types import Measure
from pmvar.valuation.store import TileStore

LEVEL = 0.99


def measure(arguments: argparse.Namespace) -> Figures:
    """Forward pass and gradients, paired."""
    underlyings, accounts, scenarios = (4, 64, 4_096) if arguments.quick else (10, 2_000, 16_384)
    book = make_book(underlyings, 50, n_accounts=accounts)
    pnl = pmvar.reprice(
        book.portfolio,
        book.market,
        pmvar.simulate(book.model, book.market, seed=1, n_scenarios=scenarios),
    )
    blocks = list(account_blocks(book.portfolio.quantity, np.arange(accounts), block_height(scenarios)))
    factors = market_factors(book.portfolio.instruments, pnl)

    def forward() -> list[BlockTail]:
        store = TileStore(pnl, memory_bytes=8e9)
        measured = [measure_block(block, store, LEVEL) for block in blocks]
        return [m.tail for m in measured if m.tail is not None]

    tails = forward()

    def greeks() -> None:
        gradients(pnl, tails, book.portfolio.instruments, factors, measure=Measure.EXPECTED_SHORTFALL, level=LEVEL)

    timings = paired({"forward": lambda: forward() and None, "greeks": greeks}, rounds=3 if arguments.quick else 7)
    ratio = timings["greeks"].median / timings["forward"].median
    print(f"{accounts:,} accounts, {underlyings * 50:,} options, {scenarios:,} scenarios, {len(factors)} inputs")
    for name, timing in timings.items():
        print(f"{name:>24}  {timing}, first call {timing.first:.2f} s")
    print(f"{'greeks / forward':>24}  {ratio:.2f}")
    return {
        "greeks_over_forward": ratio,
        **{f"{name}_s": t.median for name, t in timings.items()},
        **{f"{name}_low_s": t.low for name, t in timings.items()},
        **{f"{name}_high_s": t.high for name, t in timings.items()},
        "inputs": len(factors),
        "accounts": accounts,
        "options": underlyings * 50,
        "scenarios": scenarios,
    }


if __name__ == "__main__":
    benchmark(__doc__ or "", measure)
