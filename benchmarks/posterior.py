"""Time to sample the posterior of GJR-GARCH-t by NUTS for 50 simulated assets of 1,461 days, and what its gates say."""

from __future__ import annotations

import argparse
import time

from common import Figures, benchmark
from volatility_fit import simulated

from pmvar.calibration.diagnostics import gates
from pmvar.calibration.posterior import Sampler, sample_posterior


def measure(arguments: argparse.Namespace) -> Figures:
    """A first asset alone, which compiles, then all of them; then the gates."""
    assets, days = (2, 300) if arguments.quick else (50, 1_461)
    sampler = Sampler(warmup=50, draws=50) if arguments.quick else Sampler()
    returns = simulated(days, assets) / 100

    def seconds(count: int) -> float:
        begun = time.perf_counter()
        sample_posterior(returns[:, :count], seed=1, sampler=sampler)
        return time.perf_counter() - begun

    first, again = seconds(1), seconds(1)
    begun = time.perf_counter()
    found = sample_posterior(returns, seed=1, sampler=sampler)
    taken = time.perf_counter() - begun
    begun = time.perf_counter()
    verdict = gates(found, returns, names=[f"asset {i + 1}" for i in range(assets)])
    judged = time.perf_counter() - begun
    print(f"{assets} assets × {days:,} days: {taken:.1f} s, gates {judged:.1f} s; the first, compiled, {first:.1f} s")
    print("\n".join(gate.message for gate in verdict.gates))
    return {
        "posterior_s": taken,
        "posterior_per_asset_s": taken / assets,
        "posterior_one_asset_s": again,
        "posterior_first_call_s": first,
        "gates_s": judged,
        "assets": assets,
        "days": days,
        "chains": sampler.chains,
        "warmup": sampler.warmup,
        "draws": sampler.draws,
        "gradients_per_draw": float(found.course.n_steps.mean()),
        **{str(gate.name).replace("-", "_"): gate.value for gate in verdict.gates},
        "gates_failed": " ".join(gate.name for gate in verdict.failed),
    }


if __name__ == "__main__":
    benchmark(__doc__ or "", measure)
