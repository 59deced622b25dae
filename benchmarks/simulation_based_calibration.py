"""Simulation-based calibration of the posterior sampler: 200 GARCH-t and 200 GJR-GARCH-t fits of 300 days, each law
drawn from the prior, all fits of a kind sampled as one; the ranks of true parameters among their draws are uniform.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from common import Figures, benchmark

import pmvar  # noqa: F401 — before JAX's first array: it switches 64-bit numbers on
from pmvar.calibration.posterior import Course, Draws, Sampler
from pmvar.calibration.simulation_based import cells, posteriors, ranks, simulate_prior, uniformity
from pmvar.calibration.volatility_likelihood import Volatility

BINS = 20
EVERY = 10


def measure(arguments: argparse.Namespace) -> Figures:
    """Both recursions."""
    import jax

    fits, days, draws = (20, 60, 40) if arguments.quick else (200, 300, 1_000)
    sampler = Sampler(chains=1, warmup=20 if arguments.quick else 500, draws=draws)
    most = len(range(0, draws, EVERY))
    bins = min(BINS, most + 1)
    figures: Figures = {"fits": fits, "days": days, "draws": draws, "bins": bins}
    for seed, volatility in enumerate((Volatility.GARCH, Volatility.GJR)):
        made = simulate_prior(jax.random.key(seed), fits=fits, days=days, volatility=volatility)
        begun = time.perf_counter()
        key = jax.random.key(100 + seed)
        found = jax.device_get(posteriors(key, made.returns, volatility=volatility, sampler=sampler))
        seconds = time.perf_counter() - begun
        sampled, course = Draws(*found[: len(Draws._fields)]), Course(*found[len(Draws._fields) :])
        p_value = {}
        for name in Draws._fields:
            true, drawn = getattr(made.parameters, name), getattr(sampled, name)
            if np.ptp(true) > 0:
                rank = ranks(true, drawn, every=EVERY)
                p_value[name] = uniformity(rank, most=most, bins=bins)
                histogram = np.bincount(cells(most, bins)[rank], minlength=bins)
                print(f"{volatility:>6} {name:>20}  p {p_value[name]:.3f}  {' '.join(map(str, histogram))}")
        print(f"{volatility:>6} {fits} fits: {seconds:.0f} s, {course.diverging.sum()} divergences")
        figures |= {f"{volatility}_{name}_p": p for name, p in p_value.items()}
        figures |= {
            f"{volatility}_least_p": min(p_value.values()),
            f"{volatility}_s": seconds,
            f"{volatility}_divergences": int(course.diverging.sum()),
        }
    return figures


if __name__ == "__main__":
    benchmark(__doc__ or "", measure)
