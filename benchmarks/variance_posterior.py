"""Posteriors of stochastic variance with jumps: known laws found again, and published estimates beside ours.

S&P 500 of `arch.data` (1999–2018) against Eraker, Johannes and Polson (2003), table III (1980–1999): another sample, so
orders of magnitude alone compare. Where PMVAR_SHARED_DATA names a folder with crypto/daily_close.csv, BTC too.
"""

from __future__ import annotations

import argparse
import csv
import os
import time
from pathlib import Path

import numpy as np
from arch.data import sp500
from common import Figures, benchmark

from pmvar.calibration.diagnostics import mixing, worst
from pmvar.calibration.variance_posterior import Sampler, VariancePosterior, sample_variance

PUBLISHED = {
    "mean": 0.0554, "kappa": 0.0260, "theta": 0.5376, "vol_of_variance_squared": 0.0790**2, "rho": -0.4838,
    "jump_probability": 0.0066, "price_jump_mean": -1.7533, "price_jump_variance": 2.8864**2,
    "variance_jump_mean": 1.4832, "jump_correlation": -0.6008,
}  # fmt: skip
"""Eraker, Johannes and Polson (2003), table III, SVCJ, a day and in per cent."""


def simulated(days: int, seed: int) -> np.ndarray:
    """Returns in per cent of the published law, by its own Euler steps."""
    rng, p = np.random.default_rng(seed), PUBLISHED
    v, out = p["theta"], []
    for _ in range(days):
        price, own = rng.standard_normal(2)
        jump = rng.exponential(p["variance_jump_mean"]) if rng.random() < p["jump_probability"] else 0.0
        move = rng.normal(p["price_jump_mean"] + p["jump_correlation"] * jump, p["price_jump_variance"] ** 0.5)
        out.append(p["mean"] + v**0.5 * price + (move if jump else 0.0))
        noise = p["rho"] * price + (1 - p["rho"] ** 2) ** 0.5 * own
        diffusion = (p["vol_of_variance_squared"] * v) ** 0.5 * noise
        v = max(v + p["kappa"] * (p["theta"] - v) + diffusion, 1e-4) + jump
    return np.array(out)


def in_per_cent(found: VariancePosterior) -> dict[str, np.ndarray]:
    """Draws of returns in per cent, whatever the unit they were sampled in."""
    power = {
        "mean": 1, "theta": 2, "vol_of_variance_squared": 2, "price_jump_mean": 1, "price_jump_variance": 2,
        "variance_jump_mean": 2, "jump_correlation": -1, "variance": 2,
    }  # fmt: skip
    return {name: x * (100 * found.unit) ** power.get(name, 0) for name, x in found.draws.items()}


def measure(arguments: argparse.Namespace) -> Figures:
    """A table of each series: posterior mean, deviation, and the published number."""
    days, sampler = (250, Sampler(warmup=20, draws=20)) if arguments.quick else (1_500, Sampler())
    close = sp500.load()["Adj Close"].to_numpy()
    series = {"simulated": simulated(days, 1), "S&P 500": 100 * np.diff(np.log(close))[-days:]}
    coins = Path(os.environ.get("PMVAR_SHARED_DATA", "")) / "crypto" / "daily_close.csv"
    if coins.is_file():
        with coins.open(encoding="utf-8") as file:
            coin = np.array([float(row["BTC"]) for row in csv.DictReader(file) if row["BTC"]])
        series["BTC"] = 100 * np.diff(np.log(coin))[-days:]
    figures: Figures = {"days": days}
    for name, returns in series.items():
        key = name.lower().replace("&", "").replace(" ", "_")
        wall, cpu = time.perf_counter(), time.process_time()
        found = sample_variance(returns / 100, model="svcj", seed=1, sampler=sampler)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        print(f"{name}: {wall:.0f} s, {cpu:.0f} s of CPU, {found.n_cells} cells, {found.acceptance:.0%} accepted")
        for parameter, x in in_per_cent(found).items():
            print(f"  {parameter:<26}{x.mean():>9.4f} ±{x.std():>8.4f}  {PUBLISHED.get(parameter, np.nan):>9.4f}")
        gates = worst(mixing(name, found.draws)).gates
        print("\n".join(f"  {gate.message}" for gate in gates))
        figures |= {f"{key}_{str(gate.name).replace('-', '_')}": gate.value for gate in gates}
        figures |= {f"{key}_s": wall, f"{key}_cpu_s": cpu}
    return figures


if __name__ == "__main__":
    benchmark(__doc__ or "", measure)
