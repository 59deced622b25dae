"""What a run will need, before anything of it is allocated: blocks, memory, disk and time."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from pmvar.engine import Progress, protecting
from pmvar.errors import ResourceError
from pmvar.io.book import Book
from pmvar.risk.accounts import LOSS_BYTES, block_height
from pmvar.risk.selection import ROWS
from pmvar.risk.tail import BAND
from pmvar.types import PATH_TILE, Detail, Precision, Sampling
from pmvar.valuation.plan import BLOCK

GIB = 2.0**30
COMPONENTS_UP_TO = 100_000
"""Accounts of a run that says by itself what each position adds."""
GREEKS_UP_TO = 10_000
"""Accounts of a run that has gradients by itself."""

BASE = 0.9 * GIB
"""The interpreter, JAX, compiled kernels and what they keep."""
POSITION = 250.0
"""Bytes of a row of positions while the book is read; measured on ten million rows."""
KEPT = 200.0
"""Bytes of a scenario that an account keeps for its gradients; measured."""
ROW = {Detail.MARGINS: 2e3, Detail.COMPONENTS: 5e3, Detail.GREEKS: 3e4}
"""Bytes of an account's results, with what it takes to make tables of them."""
WEIGHTED_TAIL = 0.16
"""Share of the scenarios that a weighted 99% tail keeps, for each 1% of the tail."""
BLOCK_SECONDS = {Detail.MARGINS: 5.0, Detail.COMPONENTS: 5.0, Detail.GREEKS: 120.0}
"""Rough length of a block: what a kill costs. Gradients price every tile again for each block."""
SUM, SELECT, TAIL, GRADIENT = 2e-10, 3e-9, 4e-9, 1.2e-8
"""Seconds for each scenario: of a position added up; of an account measured; of a position in a tail; of its gradient.
On two cores, measured; rough."""
PRICE = 7e-8
"""Seconds of a price, compilation and the stand-alone margins included."""


@dataclass(frozen=True)
class Plan:
    """How a run is done, and what it is expected to take."""

    detail: Detail
    n_accounts: int
    n_positions: int
    n_scenarios: int
    starts: Int[np.ndarray, " block"]
    """First account of each block."""
    in_memory: bool
    """Whether the P&L of all instruments stays in memory; else it goes to a scratch file."""
    store_bytes: float
    loss_bytes: float
    """Of the losses that are added up at once."""
    peak_bytes: float
    budget_bytes: float
    disk_bytes: float
    """Of working files and results, beside the scratch file."""
    seconds: float

    def __str__(self) -> str:
        where = "memory" if self.in_memory else "a scratch file"
        return "\n".join(
            (
                f"{self.n_accounts:,} accounts with {self.n_positions:,} positions in {len(self.starts):,} blocks, "
                f"{self.n_scenarios:,} scenarios in {-(-self.n_scenarios // PATH_TILE):,} tiles",
                f"results: {self.detail}",
                f"P&L of all instruments: {self.store_bytes / GIB:.2f} GiB in {where}",
                f"peak memory: about {self.peak_bytes / GIB:.1f} GiB of {self.budget_bytes / GIB:.1f} GiB",
                f"disk: about {self.disk_bytes / GIB:.2f} GiB",
                f"time: about {self.seconds:,.0f} s",
            )
        )

    def block(self, index: int) -> Int[np.ndarray, " account"]:
        """Accounts of a block, by row of the portfolio."""
        return np.arange(*np.append(self.starts, self.n_accounts)[index : index + 2])

    def of_all(self, progress: Progress, index: int) -> Progress:
        """Progress of one block as part of all."""

        def advance(stage: str, done: int, total: int) -> None:
            if stage == "accounts":
                progress(stage, int(self.starts[index]) + done, self.n_accounts)
            else:
                progress(stage, index * total + done, len(self.starts) * total)

        return advance


def detail_for(n_accounts: int) -> Detail:
    """How much a run says of each account where nobody asks for more or less."""
    if n_accounts <= GREEKS_UP_TO:
        return Detail.GREEKS
    return Detail.COMPONENTS if n_accounts <= COMPONENTS_UP_TO else Detail.MARGINS


def make_plan(book: Book, *, detail: Detail, budget_bytes: float) -> Plan:
    """The plan of a run of `book` within a budget of memory.

    Raises ResourceError, naming the least that would do, for a budget that holds not even the smallest block.
    """
    s, portfolio = book.settings, book.portfolio
    n, count = s.scenarios, np.diff(portfolio.quantity.indptr).astype(np.float64)
    tiles = -(-n // PATH_TILE)
    # Options stand in groups of 16 of one underlying, all instruments in blocks: padding included.
    rows = len(portfolio.instruments) + 16 * len(book.market.asset) + 2 * BLOCK
    worlds = 1 + bool(s.decorrelation) + s.plug_in_stress + len(protecting(book.model, book.rules))
    store = float(tiles * PATH_TILE * rows * (4 if s.precision is Precision.FLOAT32 else 8))
    read = POSITION * portfolio.quantity.nnz
    fixed = BASE + read + worlds * n * len(book.model.factors) * 16.0 + ROW[Detail.MARGINS] * portfolio.n_accounts / 4

    threads = n * 8.0 * 4 * ROWS * (os.cpu_count() or 1)

    def losses(most: float) -> float:
        """What is kept for blocks of all heights, in every world."""
        return worlds * 2 * n * 8.0 * block_height(n, most)

    tail = min(1.0, (WEIGHTED_TAIL * 100 if s.sampling is Sampling.SOBOL_IS else 1 + BAND) * (1 - book.rules.level))
    each = ROW[detail] + count * (ROW[detail] / 10) + (KEPT * tail * n if detail is Detail.GREEKS else 0.0)
    largest = float(each.max(initial=0.0))
    least = fixed + threads + losses(0.0) + largest
    if budget_bytes < least:
        raise ResourceError(
            f"--memory {budget_bytes / GIB:.2f}GiB is too little for this book; the least that would do is "
            f"{np.ceil(least / GIB * 10) / 10:.1f}GiB"
        )
    loss = min(LOSS_BYTES, (budget_bytes - least) / 8 / worlds)
    held = fixed + threads + losses(loss)
    in_memory = worlds * store <= budget_bytes / 2 and held + worlds * store < budget_bytes
    held += worlds * store if in_memory else 0.0
    seconds = _seconds(count, n, detail)
    starts = _starts(each / max(0.7 * (budget_bytes - held), largest), seconds / BLOCK_SECONDS[detail])
    size = float(np.max(np.add.reduceat(each, starts), initial=0.0)) if len(starts) else 0.0
    gradients = len(starts) if detail is Detail.GREEKS else 0
    return Plan(
        detail=detail,
        n_accounts=portfolio.n_accounts,
        n_positions=int(portfolio.quantity.nnz),
        n_scenarios=n,
        starts=starts,
        in_memory=in_memory,
        store_bytes=worlds * store,
        loss_bytes=loss,
        peak_bytes=held + size,
        budget_bytes=budget_bytes,
        disk_bytes=float(each.sum()) / 10 if detail is Detail.MARGINS else float((count * ROW[detail]).sum()) / 40,
        seconds=5.0 + 1e-6 * portfolio.quantity.nnz + PRICE * rows * n * (worlds + 3 * gradients) + seconds.sum(),
    )


def _seconds(count: Float[np.ndarray, " account"], n: int, detail: Detail) -> Float[np.ndarray, " account"]:
    """Rough time of each account."""
    each = {Detail.MARGINS: 0.0, Detail.COMPONENTS: TAIL, Detail.GREEKS: TAIL + GRADIENT}[detail]
    return n * (SELECT + count * (SUM + each))


def _starts(memory: Float[np.ndarray, " account"], time: Float[np.ndarray, " account"]) -> Int[np.ndarray, " block"]:
    """First account of each block, given the share of a block that each account takes of its memory and its time."""
    starts, memory_held, time_held = [], np.inf, np.inf
    for i, (own_memory, own_time) in enumerate(zip(memory.tolist(), time.tolist(), strict=True)):
        memory_held, time_held = memory_held + own_memory, time_held + own_time
        if memory_held > 1 or time_held > 1:
            starts.append(i)
            memory_held, time_held = own_memory, own_time
    return np.array(starts, dtype=np.int64)


def check_disk(plan: Plan, out: Path) -> None:
    """Raise ResourceError, before anything is computed, where the disk surely has no room for the results."""
    folder = out if out.is_dir() else out.parent
    free = shutil.disk_usage(folder).free
    if free < plan.disk_bytes:
        raise ResourceError(
            f"{folder} has {free / GIB:.2f} GiB free and the run needs about {plan.disk_bytes / GIB:.2f} GiB; make room"
        )
