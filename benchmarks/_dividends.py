"""American options on shares with quarterly dividends: pmvar's tables, and QuantLib's finite differences.

256 options × scenarios, expiries from a month to a year, moves as in `_american`; two steps of QuantLib's grid a day.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from _american import RANGE, american_task, quantlib_bumped
from common import Figures

from pmvar.kernels.american_dividends import DividendTable, EarlyExercise, dividend_table
from pmvar.types import PATH_TILE

OPTIONS, QUARTERS = 256, 4
DROP, FIRST, QUARTER = 0.01, 40, 91
"""ln of the price before over the price after each ex-date; days to the first, and between two."""


class DividendTask:
    """Strikes 1; the forward moves with the spot."""

    def __init__(self, n_scenarios: int) -> None:
        task = american_task(OPTIONS, n_scenarios)
        self.days = np.random.default_rng(13).integers(30, 366, OPTIONS)
        self.time, self.rate, self.sign = self.days / 365, task.rate, task.sign
        ex = FIRST + QUARTER * np.arange(QUARTERS)
        self.when = np.where(ex < self.days[:, None], ex / self.days[:, None], 1.0)
        self.drop = np.where(self.when < 1, DROP, 0.0)
        self.vol, self.today_vol, self.spot = task.vol, task.today_vol, task.spot
        self.forward = task.spot * np.exp(self.rate * self.time - self.drop.sum(1))[:, None]

    def terms(self) -> EarlyExercise:
        total = self.rate * self.time
        columns = (self.sign, total, total, self.when, self.drop, np.zeros(OPTIONS))
        return EarlyExercise(*map(jnp.asarray, columns))


def dividend_calls(task: DividendTask) -> dict[str, Callable[[], list[jax.Array]]]:
    """pmvar in float32, tile by tile: with its tables at hand, and tables included."""
    terms, vols = task.terms(), [jnp.asarray(x) for x in (task.today_vol / RANGE, task.today_vol * RANGE)]
    build = jax.jit(lambda: jax.tree.map(
        lambda x: x.astype(jnp.float32), dividend_table(terms, jnp.asarray(task.time), *vols)
    ))  # fmt: skip
    value, table = jax.jit(DividendTable.value), build()
    m = -task.sign[:, None] * np.log(task.forward)
    tiles = [
        tuple(jnp.asarray(x[:, i : i + PATH_TILE], jnp.float32) for x in (m, task.vol))
        for i in range(0, m.shape[1], PATH_TILE)
    ]
    return {
        "dividend": lambda: [value(table, *tile) for tile in tiles],
        "dividend_with_tables": lambda: [value(built, *tile) for built in [build()] for tile in tiles],
    }


def quantlib_dividend(task: DividendTask, n: int) -> tuple[Callable[[], np.ndarray], int, np.ndarray]:
    """`FdBlackScholesVanillaEngine` with each dividend a yield over its eve, under bumped SimpleQuotes; how many, and
    of which [option, scenario]."""
    import QuantLib as ql

    ex = [int(FIRST + QUARTER * k) for k in range(QUARTERS)]
    left = np.exp(-DROP * np.repeat(np.arange(QUARTERS + 1), 2)).tolist()

    def paid(today: Any, i: int) -> Any:
        dates = [today, *(today + d + shift for d in ex for shift in (-1, 0)), today + 400]
        return ql.DiscountCurve(dates, left, ql.Actual365Fixed())

    def engine(process: Any, i: int) -> Any:
        return ql.FdBlackScholesVanillaEngine(process, 2 * int(task.days[i]), 200)

    return quantlib_bumped(task, task.days, paid, engine, n)


def dividend_difference(task: DividendTask, n: int) -> Figures:
    """Between the two, over max(spot, strike)."""
    quantlib, _, where = quantlib_dividend(task, n)
    i, j = where.T
    found = np.concatenate([np.asarray(t) for t in dividend_calls(task)["dividend"]()], axis=1)[i, j]
    found = found * np.where(task.sign[i] > 0, task.forward[i, j], 1.0)
    gap = (found - quantlib()) / np.maximum(task.spot[i, j], 1.0)
    figures: Figures = {
        "dividend_rms_difference": float(np.sqrt(np.mean(gap**2))),
        "dividend_max_difference": float(np.max(np.abs(gap))),
    }
    print("\ndifference of American prices on dividends from QuantLib's, over max(spot, strike)")
    print("\n".join(f"{name:>28}  {value:.2e}" for name, value in figures.items()))
    return figures
