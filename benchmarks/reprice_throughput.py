"""European options revalued under scenarios: P&L per second of pmvar and of its peers, paired in one process.

1,000 options × 12,288 scenarios, each option with its own forward and volatility in every scenario: expiries from one
day after the horizon to two years, Student-t moves (4 degrees of freedom) and 32 extreme ones (prices ÷7 to ×7, vols ÷2
to ×2). Peers get forwards and volatilities as arrays; pmvar its world, of log moves of forwards and of vols.
American options, those on dividends, bonds and other payoffs have tasks of their own, see `_american`, `_dividends`,
`_bonds` and `_payoffs`; Bachelier prices and implied vols are arrays alone, see `_formulas`.
"""

from __future__ import annotations

import argparse
from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from _american import american_accuracy, american_task, quantlib_american, shared_boundary
from _bonds import bond_accuracy, bond_profit, bond_scenarios, bonds, moved, quantlib_bonds
from _books import AS_OF, RATE, Book, make_book
from _dividends import DividendTask, dividend_calls, dividend_difference, quantlib_dividend
from _formulas import formula_calls, quotes
from _payoffs import payoff_calls, payoff_quantlib, payoff_task
from _peers import Task, jax_vmap, numba_parallel, numpy_scipy, quantlib_engine, quantlib_formula, torch_chunks
from common import Figures, Timing, benchmark, paired

import pmvar
from pmvar.kernels.black import black, normalised_black
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import PATH_TILE, SECONDS_PER_YEAR, Precision, Sampling
from pmvar.valuation.blocks import block_pnl
from pmvar.valuation.plan import slice_of
from pmvar.valuation.reprice import ProfitAndLoss

N_EXTREME = 32


def scenarios(book: Book, n: int) -> ScenarioSet:
    """Drawn scenarios, of which the first few are replaced by extreme ones."""
    drawn = pmvar.simulate(book.model, book.market, seed=1, n_scenarios=n, sampling=Sampling.MC)
    is_price = np.array([name.endswith(":spot") for name in drawn.factors])
    size = np.linspace(-1.0, 1.0, N_EXTREME)[:, None]
    extreme = np.where(is_price, 1.95 * size, 0.7 * np.where(np.arange(N_EXTREME) % 2, 1.0, -1.0)[:, None])
    return replace(drawn, shock=drawn.shock.at[:N_EXTREME, 0].set(extreme))


def task_of(pnl: ProfitAndLoss, book: Book) -> Task:
    """The same options and scenarios as plain arrays, for peers; a flat smile."""
    table, layout, market = book.portfolio.instruments, pnl.plan.layout, book.market
    worlds = [layout.world(i) for i in range(pnl.scenarios.n_tiles)]
    forward = np.array([float(market.forwards[u].at(t)) for u, t in zip(table.underlying, table.expiry, strict=True)])
    vol = np.array(
        [float(market.vols[u].vol(np.zeros(1), t)[0]) for u, t in zip(table.underlying, table.expiry, strict=True)]
    )
    rows = [layout.slice_row[slice_of(table, i)] for i in range(len(table))]
    log_forward = np.concatenate([np.asarray(w.log_forward)[rows] for w in worlds], axis=1)
    multiplier = np.concatenate([np.asarray(w.vol_multiplier)[rows] for w in worlds], axis=1)
    sign = np.where(table.put_call == "call", 1.0, -1.0)
    end = pnl.scenarios.horizon_end
    year = (table.expiry - AS_OF) / SECONDS_PER_YEAR
    today = np.exp(-RATE * year) * np.asarray(
        black(*(jnp.asarray(x) for x in (forward, table.strike, vol * np.sqrt(year), sign)))
    )
    then = (table.expiry - end) / SECONDS_PER_YEAR
    moved = forward[:, None] * np.exp(log_forward)
    return Task(moved, vol[:, None] * multiplier, table.strike, then, np.exp(-RATE * then), sign, today)


def block_path(pnl: ProfitAndLoss) -> tuple[object, int]:
    """pmvar's own path, tile by tile, block by block; and the number of prices that count, padding not among them."""
    worlds = jax.block_until_ready([pnl.plan.layout.world(i) for i in range(pnl.scenarios.n_tiles)])
    blocks = [placed.block for placed in pnl.plan.blocks]
    return (lambda: [block_pnl(b, w) for w in worlds for b in blocks]), pnl.n_instruments * len(worlds) * PATH_TILE


def raw_kernel(task: Task) -> object:
    """The kernel alone, from log-moneyness and deviation, one call over a cache-sized tile after another."""
    k = jnp.asarray(np.log(task.strike[:, None] / task.forward))
    s = jnp.asarray(task.vol * np.sqrt(task.time)[:, None])
    sign = jnp.asarray(task.sign[:, None])
    kernel = jax.jit(normalised_black)
    parts = [(k[i : i + 250], s[i : i + 250], sign[i : i + 250]) for i in range(0, len(k), 250)]
    return lambda: [kernel(*part) for part in parts]


def measure(arguments: argparse.Namespace) -> Figures:
    """All peers that are installed."""
    tiles = 1 if arguments.quick else 3
    underlyings, each = (8, 20) if arguments.quick else (50, 20)
    rounds = 3 if arguments.quick else 11
    book, smiling = make_book(underlyings, each, smile=False), make_book(max(1, underlyings // 12), 250)
    drawn, drawn_smile = (scenarios(b, tiles * PATH_TILE) for b in (book, smiling))
    calls, sizes = {}, {}

    def add(name: str, call: object, size: int) -> None:
        calls[name], sizes[name] = call, size

    task = None
    for precision in Precision:
        short = "f32" if precision is Precision.FLOAT32 else "f64"
        pnl = pmvar.reprice(book.portfolio, book.market, drawn, precision=precision)
        add(f"european_{short}", *block_path(pnl))
        add(
            f"european_{short}_smile",
            *block_path(pmvar.reprice(smiling.portfolio, smiling.market, drawn_smile, precision=precision)),
        )
        task = task_of(pnl, book) if task is None or precision is Precision.FLOAT64 else task
    assert task is not None
    n = task.forward.size
    for short, dtype in (("f32", np.float32), ("f64", np.float64)):
        cast = task.cast(dtype)
        suffix = "" if short == "f64" else "_f32"
        add(f"kernel_{short}", raw_kernel(cast), n)
        add(f"jax_vmap{suffix}", jax_vmap(cast), n)
        for name, make in (("numpy", numpy_scipy), ("numba", numba_parallel), ("torch", torch_chunks)):
            try:
                add(f"{name}{suffix}", make(cast), n)
            except ImportError:
                print(f"{name} is not installed: left out")
    for name, make in (("quantlib", quantlib_engine), ("quantlib_formula", quantlib_formula)):
        try:
            add(name, *make(task, 1_000 if arguments.quick else 10_000))
        except ImportError:
            print("QuantLib is not installed: left out")
    early = american_task(underlyings * each // 250 * 250 or 250, tiles * PATH_TILE)
    bulk, with_tables = shared_boundary(early)
    add("american", bulk, early.spot.size)
    add("american_with_tables", with_tables, early.spot.size)
    n_early = 1_000 if arguments.quick else 10_000
    try:
        call, size, _ = quantlib_american(early, n_early)
        add("quantlib_american", call, size)
    except ImportError:
        print("QuantLib is not installed: left out")
    paying, n_paying = DividendTask(tiles * PATH_TILE), n_early // 20
    for name, call in dividend_calls(paying).items():
        add(name, call, paying.spot.size)
    try:
        call, size, _ = quantlib_dividend(paying, n_paying)
        add("quantlib_dividend", call, size)
    except ImportError:
        print("QuantLib is not installed: left out")
    fixed = bonds(underlyings * each)
    add("bond", *block_path(bond_profit(fixed, bond_scenarios(tiles * PATH_TILE), Precision.FLOAT32)))
    try:
        add("quantlib_bond", *quantlib_bonds(fixed, moved(2 if arguments.quick else 10)))
    except ImportError:
        print("QuantLib is not installed: left out")
    other = payoff_task(tiles * PATH_TILE)
    for name, call in payoff_calls(other).items():
        add(name, call, other.spot.size)
    try:
        for name, (call, size) in payoff_quantlib(other, n_early).items():
            add(name, call, size)
    except ImportError:
        print("QuantLib is not installed: left out")
    for name, (call, size) in formula_calls(quotes(1 << (18 if arguments.quick else 21))).items():
        add(name, call, size)
    timings = paired(calls, rounds=rounds)
    figures = _table(timings, sizes)
    figures |= accuracy(book, drawn, task)
    if "quantlib_american" in calls:
        figures |= american_accuracy(early, n_early)
    if "quantlib_dividend" in calls:
        figures |= dividend_difference(paying, n_paying)
    if "quantlib_bond" in calls:
        figures |= bond_accuracy(fixed)
    return figures | {"options": len(task.strike), "scenarios": tiles * PATH_TILE, "rounds": rounds}


def accuracy(book: Book, drawn: ScenarioSet, task: Task) -> Figures:
    """Errors of pmvar's P&L against NumPy's in float64, per unit of spot notional."""
    exact = numpy_scipy(task)()
    spot = np.array([book.market.spot[book.market.column(u)] for u in book.portfolio.instruments.underlying])
    out: Figures = {}
    for precision in Precision:
        pnl = pmvar.reprice(book.portfolio, book.market, drawn, precision=precision)
        found = np.concatenate([np.asarray(tile)[pnl.row] for tile in pnl], axis=1)
        error = (found - exact) / np.maximum(spot[:, None], np.maximum(task.forward, task.strike[:, None]))
        out[f"{precision}_rms_error"] = float(np.sqrt(np.mean(error**2)))
        out[f"{precision}_max_error"] = float(np.max(np.abs(error)))
    print("\nerror of P&L over max(spot, forward, strike), against NumPy in float64")
    print("\n".join(f"{name:>24}  {value:.2e}" for name, value in out.items()))
    return out


def _table(timings: dict[str, Timing], sizes: dict[str, int]) -> Figures:
    figures: Figures = {}
    per = {name: sizes[name] / t.median for name, t in timings.items()}
    print(f"{'':>24}  {'M/s':>9}  {'quartiles':>19}  {'first call s':>12}  {'pmvar f32 is':>12}  {'pmvar f64 is':>12}")
    for name, t in timings.items():
        low, high = sizes[name] / t.high / 1e6, sizes[name] / t.low / 1e6
        ratios = "".join(f"  {per[f'european_{p}'] / per[name]:>11.1f}×" for p in ("f32", "f64"))
        print(f"{name:>24}  {per[name] / 1e6:>9.3g}  {low:>9.3g}–{high:<9.3g}  {t.first:>12.2f}{ratios}")
        figures[f"{name}_per_s"] = per[name]
        figures[f"{name}_per_s_low"], figures[f"{name}_per_s_high"] = low * 1e6, high * 1e6
        figures[f"{name}_first_call_s"] = t.first
    for name in ("numpy", "numba", "torch"):
        if f"{name}_f32" in per:
            figures[f"f32_over_{name}_f32"] = per["european_f32"] / per[f"{name}_f32"]
    if "quantlib" in per:
        figures["f32_over_quantlib"] = per["european_f32"] / per["quantlib"]
    for name in ("american", "dividend", "digital", "asian", "quanto", "barrier", "bond", "bachelier", "implied_vol"):
        if f"quantlib_{name}" in per:
            figures[f"{name}_over_quantlib"] = per[name] / per[f"quantlib_{name}"]
    return figures


if __name__ == "__main__":
    benchmark(__doc__ or "", measure)
