"""Time to fit GJR-GARCH-t by maximum likelihood to 50 and 1,000 simulated assets of 1,000 days, standard errors
included, against `arch`, which fits one at a time; and from four years of prices of 50 assets to a model with its
dependence and tails.
"""

from __future__ import annotations

import argparse

import numpy as np
from common import Figures, benchmark, paired

from pmvar.calibration.calibrate import Calibration, calibrate, estimate
from pmvar.calibration.garch import fit_volatility
from pmvar.calibration.panel import Panel, factor_panel, moves
from pmvar.types import DAY


def simulated(days: int, assets: int) -> np.ndarray:
    """GJR-t returns in per cent, with parameters spread as those of equities and coins are."""
    rng = np.random.default_rng(1)
    persistence, news, falls = (rng.uniform(*ends, assets) for ends in ((0.9, 0.995), (0.04, 0.15), (0.5, 0.9)))
    alpha, gamma = 2 * persistence * news * (1 - falls), 2 * persistence * news * (2 * falls - 1)
    beta, nu, level = persistence * (1 - news), rng.uniform(3.5, 10, assets), rng.uniform(0.5, 20, assets)
    omega = level * (1 - persistence)
    variance, out = level.copy(), np.empty((days, assets))
    for day in range(-250, days):
        r = np.sqrt(variance * (nu - 2) / nu) * rng.standard_t(nu)
        variance = omega + (alpha + gamma * (r < 0)) * r**2 + beta * variance
        if day >= 0:
            out[day] = r
    return out


def calibrated(prices: np.ndarray) -> Calibration:
    """t-garch of a panel of daily prices."""
    names = tuple(f"A{i:02d}" for i in range(prices.shape[1]))
    panel = factor_panel(Panel(DAY * np.arange(1.0, len(prices) + 1), names, prices), None)
    return calibrate(estimate(moves(panel), model="t-garch"), model="t-garch")


def measure(arguments: argparse.Namespace) -> Figures:
    """Few and many assets, and the peer on a part of the few."""
    few, many, peers, days, long = (8, 16, 2, 300, 300) if arguments.quick else (50, 1_000, 10, 1_000, 1_461)
    returns = simulated(days, many)
    prices = 100 * np.exp(np.cumsum(simulated(long, few) / 100, axis=0))

    def peer() -> None:
        import arch

        for y in returns[:, :peers].T:
            arch.arch_model(y, p=1, o=1, q=1, dist="t", rescale=False).fit(disp="off", show_warning=False)

    calls = {
        "few": lambda: fit_volatility(returns[:, :few]),
        "many": lambda: fit_volatility(returns),
        "model": lambda: calibrated(prices),
        "arch": peer,
    }
    try:
        import arch  # noqa: F401
    except ImportError:
        del calls["arch"]
    timings = paired(calls, rounds=1 if arguments.quick else 3)
    counts = {"few": few, "many": many, "model": few, "arch": peers}
    for name, timing in timings.items():
        length = long if name == "model" else days
        print(f"{name:>8}  {counts[name]:>5} × {length:,} days: {timing}, first call {timing.first:.1f} s")
    usable = float(fit_volatility(returns).usable.mean())
    print(f"usable fits: {usable:.1%}")
    return {
        **{f"fit_{name}_s": t.median for name, t in timings.items()},
        **{f"fit_{name}_first_call_s": t.first for name, t in timings.items()},
        "fit_per_asset_s": timings["many"].median / many,
        "assets_few": few,
        "assets_many": many,
        "assets_arch": peers,
        "days": days,
        "days_model": long,
        "usable": usable,
    }


if __name__ == "__main__":
    benchmark(__doc__ or "", measure)
