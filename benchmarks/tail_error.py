"""How far a tail is from the truth: standard error against paths, by every way of sampling.

(a) The four option portfolios of Glasserman, Heidelberger and Shahabuddin under a normal and a t law, whose VaR and ES
are known: errors, and whether the 95% interval covers the exact values 95 times in 100, pooled over independent
(portfolio, replication) pairs. (b) A mixed book of 120 accounts over 12 underlyings: the variance of independent
replications against plain Monte Carlo at as many paths, and the reported standard error against the number of paths;
other models by their reported errors. `--figure FILE` draws the standard errors.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from _books import Book
from _laws import other_laws
from _mixed import GHS, GHS_EXACT, HORIZON_DAYS, SEED, UNDERLYINGS, ghs_book, mixed_book
from common import Figures, benchmark

import pmvar
from pmvar.risk.accounts import account_blocks, block_height
from pmvar.risk.measure import measure_block
from pmvar.risk.tail import interval_half_width
from pmvar.scenarios.draws import n_replicates
from pmvar.types import Detail, Drift, Sampling
from pmvar.valuation.store import TileStore

MODES = (Sampling.MC, Sampling.SOBOL, Sampling.SOBOL_IS)
LEVELS = (0.975, 0.99)
NAMES = [(f"{m}{str(level)[2:]}", i, row) for i, level in enumerate(LEVELS) for row, m in ((0, "var"), (1, "es"))]
"""Of a measure, its place among the levels and among the rows of `measured`."""
CELLS = [(name, law) for name in GHS for law in (0, 1)]
"""Portfolios of the literature; 0: normal, 1: t with five degrees of freedom."""

Run = Callable[[int], np.ndarray]
"""From a seed to measures."""
Curve = dict[int, float]
"""Relative standard error of the ES99 by number of paths, of the median account."""


def measured(
    book: Book, n: int, *, seed: int, sampling: Sampling, horizon: str, drift: Drift, levels: tuple[float, ...] = LEVELS
) -> np.ndarray:
    """One run's VaR and ES and their reported standard errors, [level, 4, account]."""
    scenarios = pmvar.simulate(
        book.model, book.market, seed=seed, n_scenarios=n, horizon=horizon, sampling=sampling, drift=drift
    )
    store = TileStore(pmvar.reprice(book.portfolio, book.market, scenarios), memory_bytes=8e9)
    blocks = list(account_blocks(book.portfolio.quantity, np.arange(book.portfolio.n_accounts), block_height(n)))
    out = np.zeros((len(levels), 4, book.portfolio.n_accounts))
    for found, level in zip(out, levels, strict=True):
        for block in blocks:
            m = measure_block(block, store, level, detail=Detail.MARGINS)
            found[:, block.account] = m.value_at_risk, m.expected_shortfall, m.var_error, m.es_error
    return out


def replications(run: Run, count: int) -> np.ndarray:
    """Measures of independent seeds, [seed, level, 4, account]."""
    return np.array([run(seed) for seed in range(count)])


def relative(found: np.ndarray, i: int, row: int) -> np.ndarray:
    """Root mean square of the reported standard error over the mean estimate, by account."""
    return np.sqrt(np.mean(found[:, i, 2 + row] ** 2, axis=0)) / np.abs(found[:, i, row].mean(axis=0))


def ratio_figures(prefix: str, ratio: np.ndarray) -> Figures:
    """Geometric mean and 10th percentile over accounts."""
    return {f"{prefix}_variance_ratio_geomean": float(np.exp(np.mean(np.log(ratio)))),
            f"{prefix}_variance_ratio_p10": float(np.percentile(ratio, 10))}  # fmt: skip


def known_run(cell: tuple[str, int], n: int, sampling: Sampling, first_seed: int) -> Run:
    """VaR99 and ES99 of a portfolio of the literature."""
    name, law = cell
    book = ghs_book(name, degrees_of_freedom=(None, 5.0)[law])
    return lambda seed: measured(
        book, n, seed=first_seed + seed, sampling=sampling, levels=(0.99,), horizon=f"{HORIZON_DAYS}d", drift=Drift.NONE
    )


def known_errors(sizes: list[int], count: int) -> tuple[Figures, dict[Sampling, Curve]]:
    """Relative root mean square error of the ES99 against the exact value, and reported, by mode and paths."""
    figures: Figures = {}
    curves: dict[Sampling, Curve] = {mode: {} for mode in MODES}
    print("(a) known portfolios, ES 99, median of eight, per cent: reported standard error (distance from the truth)")
    for mode in MODES:
        line = f"{mode:>12}"
        for n in sizes:
            reported, actual = [], []
            for c, cell in enumerate(CELLS):
                found = replications(known_run(cell, n, mode, 10_000_000 + 1000 * c), count)[:, 0, :, 0]
                exact = GHS_EXACT[cell[0]][cell[1]][1]
                reported.append(np.sqrt(np.mean(found[:, 3] ** 2)) / exact)
                actual.append(np.sqrt(np.mean((found[:, 1] - exact) ** 2)) / exact)
            curves[mode][n] = float(np.median(reported))
            prefix = f"ghs_{str(mode).replace('-', '_')}_{n}"
            figures |= {f"{prefix}_rel_se_es99": curves[mode][n], f"{prefix}_rel_rmse_es99": float(np.median(actual))}
            line += f"  {n:,} {100 * curves[mode][n]:.3f} ({100 * np.median(actual):.3f})"
        print(line, flush=True)
    return figures, curves


def coverage(pairs: int, n: int, sampling: Sampling) -> Figures:
    """Share of 95% intervals that hold the exact VaR99 and ES99, and the largest distance of a mean, in its errors."""
    hits: list[bool] = []
    worst, count = 0.0, -(-pairs // len(CELLS))
    half = interval_half_width(n_replicates(sampling))
    print(f"coverage of the 95% interval, known portfolios, {n:,} paths, {sampling}:")
    for c, (name, law) in enumerate(CELLS):
        found = replications(known_run((name, law), n, sampling, 1 + 100_000 * c), count)[:, 0, :, 0]
        for i, exact in enumerate(GHS_EXACT[name][law]):
            hits += list(np.abs(found[:, i] - exact) <= half * found[:, 2 + i])
            worst = max(worst, abs(found[:, i].mean() - exact) / (found[:, i].std(ddof=1) / np.sqrt(count)))
        print(f"    {name:>10} {('normal', 't5')[law]:>7}  so far {np.mean(hits):.2%}", flush=True)
    print(f"{np.mean(hits):.2%} of VaR99 and ES99 over {count * len(CELLS):,} pairs; largest distance of a mean "
          f"{worst:.1f} errors")  # fmt: skip
    return {"coverage95": float(np.mean(hits)), "coverage_pairs": count * len(CELLS), "coverage_paths": n,
            "ghs_worst_z": worst}  # fmt: skip


def mixed_errors(book: Book, sizes: list[int], count: int) -> tuple[Figures, dict[Sampling, Curve]]:
    """Variance ratios at the largest size from independent replications; reported errors at every size."""
    figures: Figures = {}
    curves: dict[Sampling, Curve] = {mode: {} for mode in MODES}
    largest: dict[Sampling, np.ndarray] = {}
    print("(b) mixed book, relative standard error, median account (90th percentile), per cent:")
    for mode in MODES:
        for n in sizes:
            found = replications(_run(book, mode, n), count if n == sizes[-1] else min(count, 4))
            line = f"{mode:>12}{n:>9,}"
            for name, i, row in NAMES:
                error = relative(found, i, row)
                line += f"  {name} {100 * np.median(error):.3f} ({100 * np.percentile(error, 90):.3f})"
                if mode is Sampling.SOBOL_IS and n == sizes[-1]:
                    figures[f"rel_se_{name}_median"] = float(np.median(error))
            curves[mode][n] = float(np.median(relative(found, 1, 1)))
            figures[f"mixed_{str(mode).replace('-', '_')}_{n}_rel_se_es99"] = curves[mode][n]
            largest[mode] = found
            print(line, flush=True)
    print(f"variance of {count} independent replications of {sizes[-1]:,} paths, plain Monte Carlo over each mode:")
    for mode in MODES[1:]:
        line = f"{mode:>12}"
        for name, i, row in NAMES:
            ratio = largest[Sampling.MC][:, i, row].var(axis=0) / largest[mode][:, i, row].var(axis=0)
            prefix = name if mode is Sampling.SOBOL_IS else f"sobol_{name}"
            found = ratio_figures(prefix, ratio)
            line += f"  {name} {found[f'{prefix}_variance_ratio_geomean']:.1f}"
            line += f" (p10 {found[f'{prefix}_variance_ratio_p10']:.1f})"
            figures |= found
        print(line)
    leaning = largest[Sampling.SOBOL_IS]
    honest = [
        float(np.sqrt(np.mean(leaning[:, i, 2 + row] ** 2) / leaning[:, i, row].var(axis=0, ddof=1).mean()))
        for _, i, row in NAMES
    ]
    print(f"reported over actual standard error, sobol-is: {', '.join(f'{h:.2f}' for h in honest)}")
    return {**figures, "reported_over_actual_es99": honest[3], "paths": sizes[-1], "replications": count}, curves


def other_errors(book: Book, names: list[str], n: int, count: int) -> Figures:
    """Reported variance of the ES99 under other models, plain Monte Carlo over `sobol-is`."""
    figures: Figures = {}
    print(f"other models at {n:,} paths, not gated: variance ratio of ES 99, geometric mean and 10th percentile")
    for name in names:
        other = replace(book, model=other_laws(book.model)[name])
        plain, leaning = (
            np.mean(replications(_run(other, mode, n), count)[:, 1, 3] ** 2, axis=0)
            for mode in (Sampling.MC, Sampling.SOBOL_IS)
        )
        found = ratio_figures(f"{name.replace('-', '_')}_es99", plain / leaning)
        print(f"{name:>14}" + "".join(f"{value:8.1f}" for value in found.values()), flush=True)
        figures |= found
    return figures


def _run(book: Book, sampling: Sampling, n: int) -> Run:
    return lambda seed: measured(book, n, seed=seed, sampling=sampling, horizon="2d", drift=Drift.FORWARD)


def draw(file: Path, panels: dict[str, dict[Sampling, Curve]]) -> None:
    """Standard error against paths, one panel for each book."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "pmvar"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, len(panels), figsize=(8, 3.4), sharey=True, layout="constrained")
    for axis, (title, curves) in zip(axes, panels.items(), strict=True):
        for (mode, curve), marker in zip(curves.items(), "os^", strict=True):
            axis.loglog(list(curve), [100 * e for e in curve.values()], marker=marker, label=str(mode))
        axis.set(title=title, xlabel="paths")
        axis.grid(True, which="both", alpha=0.3)
    axes[0].set_ylabel("standard error of ES 99, % of it")
    axes[0].legend()
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


def measure(arguments: argparse.Namespace) -> Figures:
    """Every table of the benchmark."""
    quick = arguments.quick
    book = mixed_book(24 if quick else 120)
    print(f"mixed book: {book.portfolio.n_accounts} accounts, {UNDERLYINGS} underlyings, {len(book.model.factors)} "
          f"factors, {len(book.portfolio.instruments)} instruments")  # fmt: skip
    sizes = [2048, 4096] if quick else [4096, 16_384, 65_536]
    mixed, mixed_curves = mixed_errors(book, sizes, 3 if quick else 24)
    known, known_curves = known_errors([2048] if quick else [2048, 8192, 32_768], 1 if quick else 8)
    if arguments.figure:
        draw(arguments.figure, {"mixed book, median account": mixed_curves,
                                "known portfolios, median of eight": known_curves})  # fmt: skip
    names = ["gaussian"] if quick else list(other_laws(book.model))
    others = other_errors(book, names, sizes[-1] // 4 if not quick else 2048, 2 if quick else 8)
    covered = coverage(16 if quick else 2048, 2048 if quick else 8192, Sampling.SOBOL_IS)
    name = f"benchmarks/_mixed.py mixed_book({book.portfolio.n_accounts}), seed {SEED}"
    return {"book": name, **mixed, **known, **others, **covered}


if __name__ == "__main__":
    benchmark(__doc__ or "", measure, figure=True)
