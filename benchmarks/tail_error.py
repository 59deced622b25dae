"""How far a tail is from the truth: standard error against paths, by every way of sampling.

(a) The four option portfolios of Glasserman, Heidelberger and Shahabuddin, whose VaR and ES are known: does the 95%
interval cover them 95 times in 100, pooled over independent (portfolio, replication) pairs? (b) A mixed book of 120
accounts over 12 underlyings: the variance of independent replications against plain Monte Carlo at as many paths, and
the reported standard error against the number of paths.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from _books import Book
from _mixed import GHS, GHS_EXACT, HORIZON_DAYS, SEED, UNDERLYINGS, ghs_book, mixed_book
from common import Figures, benchmark

import pmvar
from pmvar.models.specification import ModelSpecification
from pmvar.risk.accounts import account_blocks
from pmvar.risk.measure import measure_block
from pmvar.risk.tail import interval_half_width
from pmvar.types import Drift, Sampling
from pmvar.valuation.store import TileStore

Measures = np.ndarray
"""[4, account]: VaR and ES and their reported standard errors."""

MODES = (Sampling.MC, Sampling.SOBOL, Sampling.SOBOL_IS)


def measured(
    book: Book, n: int, *, seed: int, sampling: Sampling, levels: tuple[float, ...], horizon: str, drift: Drift
) -> list[Measures]:
    """One run's measures at each level."""
    scenarios = pmvar.simulate(
        book.model, book.market, seed=seed, n_scenarios=n, horizon=horizon, sampling=sampling, drift=drift
    )
    pnl = pmvar.reprice(book.portfolio, book.market, scenarios)
    store = TileStore(pnl, memory_bytes=8e9)
    blocks = list(account_blocks(book.portfolio.quantity, np.arange(book.portfolio.n_accounts)))
    out = []
    for level in levels:
        found = np.zeros((4, book.portfolio.n_accounts))
        for block in blocks:
            m = measure_block(block, store, level)
            values = (m.tail.value_at_risk, m.tail.expected_shortfall, m.var_error, m.es_error)
            for column, value in zip(found, values, strict=True):
                column[block.account] = value
        out.append(found)
    return out


def replications(run: Callable[[int], list[Measures]], count: int) -> list[np.ndarray]:
    """Measures of independent seeds, one array [seed, 4, account] for each level."""
    runs = [run(seed) for seed in range(count)]
    return [np.array([r[i] for r in runs]) for i in range(len(runs[0]))]


def coverage(pairs: int, n: int, sampling: Sampling) -> tuple[float, float, float]:
    """Share of 95% intervals that hold the exact VaR99 and ES99, and the largest distance of a mean, in its errors."""
    hits: list[bool] = []
    worst = 0.0
    cells = [(name, law) for name in GHS for law in (0, 1)]
    for c, (name, law) in enumerate(cells):
        book = ghs_book(name, degrees_of_freedom=(None, 5.0)[law])
        count = -(-pairs // len(cells))
        found = replications(
            lambda seed, book=book, c=c: measured(
                book,
                n,
                seed=1 + 100_000 * c + seed,
                sampling=sampling,
                levels=(0.99,),
                horizon=f"{HORIZON_DAYS}d",
                drift=Drift.NONE,
            ),  # fmt: skip
            count,
        )[0][:, :, 0]
        half = interval_half_width(64 if sampling is Sampling.MC else 16)
        for i, exact in enumerate(GHS_EXACT[name][law]):
            hits += list(np.abs(found[:, i] - exact) <= half * found[:, 2 + i])
            worst = max(worst, abs(found[:, i].mean() - exact) / (found[:, i].std(ddof=1) / np.sqrt(count)))
        print(f"    {name:>10} {('normal', 't5')[law]:>7}  coverage so far {np.mean(hits):.1%}", flush=True)
    return float(np.mean(hits)), worst, len(hits) / 2


def relative(found: np.ndarray, row: int) -> np.ndarray:
    """Root mean square of the reported standard error over the mean estimate, by account."""
    return np.sqrt(np.mean(found[:, 2 + row] ** 2, axis=0)) / np.abs(found[:, row].mean(axis=0))


def measure(arguments: argparse.Namespace) -> Figures:
    """Every table of the benchmark."""
    quick = arguments.quick
    book = mixed_book(24 if quick else 120)
    levels = (0.975, 0.99)
    count, n_small, n_large = (8, 4096, 8192) if quick else (24, 65_536, 65_536)
    figures: Figures = {"book": f"benchmarks/_mixed.py mixed_book({book.portfolio.n_accounts}), seed {SEED}"}

    def run(sampling: Sampling, n: int, model: ModelSpecification = book.model) -> Callable[[int], list[Measures]]:
        other = replace(book, model=model)
        return lambda seed: measured(
            other, n, seed=seed, sampling=sampling, levels=levels, horizon="2d", drift=Drift.FORWARD
        )

    print(f"mixed book: {book.portfolio.n_accounts} accounts, {UNDERLYINGS} underlyings, {len(book.model.factors)} "
          f"factors, {len(book.portfolio.instruments)} instruments")  # fmt: skip
    print(f"variance of {count} independent replications of {n_small:,} paths, plain Monte Carlo over each mode:")
    spread = {mode: replications(run(mode, n_small), count) for mode in MODES}
    names = [(f"{m}{str(level)[2:]}", i, row) for i, level in enumerate(levels) for row, m in ((0, "var"), (1, "es"))]
    print(f"{'':>12}" + "".join(f"{name + ' geo':>12}{'p10':>8}" for name, *_ in names))
    for mode in MODES[1:]:
        line = f"{mode:>12}"
        for name, i, row in names:
            ratio = spread[Sampling.MC][i][:, row].var(axis=0) / spread[mode][i][:, row].var(axis=0)
            geo, low = float(np.exp(np.mean(np.log(ratio)))), float(np.percentile(ratio, 10))
            line += f"{geo:12.1f}{low:8.1f}"
            if mode is Sampling.SOBOL_IS:
                figures |= {f"{name}_variance_ratio_geomean": geo, f"{name}_variance_ratio_p10": low}
        print(line)
    # Reported errors against the spread that they claim to be.
    honest = [
        np.sqrt(
            np.mean(spread[Sampling.SOBOL_IS][i][:, 2 + row] ** 2)
            / spread[Sampling.SOBOL_IS][i][:, row].var(axis=0).mean()
        )
        for _, i, row in names
    ]
    print(f"reported over actual standard error, sobol-is: {', '.join(f'{h:.2f}' for h in honest)}")

    print("relative standard error, median account (90th percentile), per cent:")
    sizes = [2**k for k in range(12, n_large.bit_length())][::2]
    for mode in MODES:
        for n in sizes:
            found = replications(run(mode, n), 4)
            line = f"{mode:>12}{n:>9,}"
            for name, i, row in names:
                error = 100 * relative(found[i], row)
                line += f"  {name} {np.median(error):.3f} ({np.percentile(error, 90):.3f})"
                if mode is Sampling.SOBOL_IS and n == sizes[-1]:
                    figures[f"rel_se_{name}_median"] = float(np.median(error)) / 100
            print(line, flush=True)
    figures |= {"paths": sizes[-1], "replications": count, "paths_of_replications": n_small}

    n_other = min(n_small, 16_384)
    print(f"other models at {n_other:,} paths, not gated: variance ratio of ES99, geometric mean and 10th percentile")
    for name, model in _others(book.model).items():
        plain, leaning = (replications(run(m, n_other, model), 8)[1] for m in (Sampling.MC, Sampling.SOBOL_IS))
        ratio = plain[:, 1].var(axis=0) / leaning[:, 1].var(axis=0)
        figures[f"{name.replace('-', '_')}_es99_variance_ratio_geomean"] = float(np.exp(np.mean(np.log(ratio))))
        print(f"{name:>14}  {np.exp(np.mean(np.log(ratio))):6.1f} {np.percentile(ratio, 10):6.1f}", flush=True)

    pairs, n_ghs = (32, 4096) if quick else (2_048, 16_384)
    print(f"coverage of the 95% interval, GHS portfolios, {n_ghs:,} paths, sobol-is:")
    share, worst, n_pairs = coverage(pairs, n_ghs, Sampling.SOBOL_IS)
    print(f"{share:.2%} of VaR99 and ES99 over {n_pairs:.0f} pairs; largest distance of a mean {worst:.1f} errors")
    return {**figures, "coverage95": share, "coverage_pairs": n_pairs, "ghs_worst_z": worst}


def _others(model: ModelSpecification) -> dict[str, ModelSpecification]:
    """The same factors under other laws."""
    filters = {
        f.name: {"omega": 0.02 * f.volatility**2, "alpha": 0.05, "gamma": 0.06, "beta": 0.90} for f in model.factors
    }
    jumps = {"intensity": 6.0, "mean": -0.05, "deviation": 0.03}
    dof = [4.0 + (i % 5) for i in range(len(model.factors))]
    own = tuple(replace(f, degrees_of_freedom=d) for f, d in zip(model.factors, dof, strict=True))
    return {
        "gaussian": replace(model, model="gaussian"),
        "t-multi": replace(model, model="t-multi", factors=own),
        "t-jump": replace(model, model="t-jump", factors=own, parameters={"jumps": jumps}),
        "t-garch": replace(model, model="t-garch", factors=own, state={"filter": filters}),
    }


if __name__ == "__main__":
    benchmark(__doc__ or "", measure)
