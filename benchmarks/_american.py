"""American options under scenarios: pmvar's shared boundary and QuantLib's QdFp engine, its fast scheme.

1,000 options × 12,288 scenarios, each with its own spot and vol: expiries from one day to a year, rates and yields up
to 8%, Student-t moves (4 degrees of freedom) and 32 extreme ones (prices ÷7 to ×7, vols ÷2 to ×2).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _peers import Peer
from common import Figures

from pmvar.kernels.american import american, as_put
from pmvar.kernels.exercise_table import ExerciseTable, tabulated
from pmvar.types import PATH_TILE

OPTIONS = 250
"""In a block."""
RANGE = 4.0
"""Vols are tabulated from today's over this to today's times this."""
N_EXTREME = 32


class AmericanTask(NamedTuple):
    """Options [option] and scenarios [option, scenario], strikes 1; arrays of NumPy or JAX."""

    spot: Any
    vol: Any
    today_vol: Any
    time: Any
    rate: Any
    dividend_yield: Any
    sign: Any


def american_task(n_options: int, n_scenarios: int) -> AmericanTask:
    """Half calls, half puts."""
    draw = np.random.default_rng(12)
    shape = (n_options, n_scenarios)
    days = np.exp(draw.uniform(0, np.log(365), n_options)).round()
    vol = draw.uniform(0.15, 0.8, n_options)
    move = 0.03 * draw.standard_t(4, shape)
    level = np.clip(0.15 * draw.standard_t(4, shape), -1, 1)
    size = np.linspace(-1.0, 1.0, N_EXTREME)
    move[:, :N_EXTREME], level[:, :N_EXTREME] = 1.95 * size, 0.7 * np.where(np.arange(N_EXTREME) % 2, 1, -1)
    spot = np.exp(draw.uniform(-0.2, 0.2, n_options))[:, None] * np.exp(move)
    rate, held = draw.uniform(0.0, 0.08, (2, n_options))
    sign = np.where(np.arange(n_options) % 2, 1.0, -1.0)
    return AmericanTask(spot, vol[:, None] * np.exp(level), vol, days / 365, rate, held, sign)


@jax.jit
def _table(task: AmericanTask) -> ExerciseTable:
    one = jnp.ones_like(task.time)
    put = as_put(one, one, task.rate, task.dividend_yield, task.sign)
    table = tabulated(put.rate, put.dividend_yield, task.time, task.today_vol / RANGE, task.today_vol * RANGE)
    return jax.tree.map(lambda x: x.astype(jnp.float32), table)


@jax.jit
def _value(table: ExerciseTable, log_spot: jax.Array, vol: jax.Array, sign: jax.Array) -> jax.Array:
    value = table.value(-sign * log_spot, vol)
    return jnp.where(sign > 0, jnp.exp(log_spot), 1.0) * value


def _parts(task: AmericanTask) -> list[AmericanTask]:
    blocks = range(0, len(task.time), OPTIONS)
    return [AmericanTask(*(jnp.asarray(x[i : i + OPTIONS]) for x in task)) for i in blocks]


def shared_boundary(task: AmericanTask) -> tuple[Peer, Peer]:
    """pmvar's path in float32, tile by tile: with its tables at hand, and tables included."""
    parts = _parts(task)
    tables = [_table(part) for part in parts]
    wide = range(0, task.spot.shape[1], PATH_TILE)

    def cut(x: Any, i: int) -> jax.Array:
        return jnp.asarray(x[:, i : i + PATH_TILE], jnp.float32)

    tiles = [
        [(cut(jnp.log(p.spot), i), cut(p.vol, i), jnp.asarray(p.sign[:, None], jnp.float32)) for i in wide]
        for p in parts
    ]

    def price(tables: list[ExerciseTable]) -> list[jax.Array]:
        return [_value(table, *tile) for table, row in zip(tables, tiles, strict=True) for tile in row]

    return lambda: price(tables), lambda: price([_table(part) for part in parts])


def quantlib_american(task: AmericanTask, n: int) -> tuple[Callable[[], np.ndarray], int, np.ndarray]:
    """`QdFpAmericanEngine` under bumped SimpleQuotes, one price at a time; also how many, and of which [option,
    scenario]."""
    import QuantLib as ql

    def engine(process: Any, i: int) -> Any:
        return ql.QdFpAmericanEngine(process, ql.QdFpAmericanEngine.fastScheme())

    def paid(today: Any, i: int) -> Any:
        return ql.FlatForward(today, float(task.dividend_yield[i]), ql.Actual365Fixed())

    return quantlib_bumped(task, np.round(task.time * 365), paid, engine, n)


def quantlib_bumped(
    task: Any, days: np.ndarray, paid: Callable[[Any, int], Any], engine: Callable[[Any, int], Any], n: int
) -> tuple[Callable[[], np.ndarray], int, np.ndarray]:
    """About `n` prices of 50 American options of strike 1 under bumped SimpleQuotes, one at a time, as above.

    `task` has spot, vol, rate and sign; `paid` gives the curve of what holders are paid, `engine` that of a process."""
    import QuantLib as ql

    today, count, per = ql.Date(1, 1, 2026), ql.Actual365Fixed(), max(1, n // 50)
    ql.Settings.instance().evaluationDate = today
    rows, books = range(0, len(days), max(1, len(days) // 50)), []
    for i in rows:
        spot, vol = ql.SimpleQuote(1.0), ql.SimpleQuote(0.2)
        curves = paid(today, i), ql.FlatForward(today, float(task.rate[i]), count)
        held, rate = (ql.YieldTermStructureHandle(curve) for curve in curves)
        surface = ql.BlackConstantVol(today, ql.NullCalendar(), ql.QuoteHandle(vol), count)
        process = ql.BlackScholesMertonProcess(
            ql.QuoteHandle(spot), held, rate, ql.BlackVolTermStructureHandle(surface)
        )
        payoff = ql.PlainVanillaPayoff(ql.Option.Call if task.sign[i] > 0 else ql.Option.Put, 1.0)
        option = ql.VanillaOption(payoff, ql.AmericanExercise(today, today + int(days[i])))
        option.setPricingEngine(engine(process, i))
        books.append((option, spot, vol, task.spot[i, :per].tolist(), task.vol[i, :per].tolist()))

    def call() -> np.ndarray:
        out = []
        for option, spot, vol, spots, vols in books:
            for s, v in zip(spots, vols, strict=True):
                spot.setValue(s)
                vol.setValue(v)
                out.append(option.NPV())
        return np.array(out)

    where = np.stack(np.meshgrid(rows, range(per), indexing="ij"), axis=-1).reshape(-1, 2)
    return call, len(books) * per, where


def american_accuracy(task: AmericanTask, n: int) -> Figures:
    """Errors of both over max(spot, strike), against a boundary of each price's own in float64."""
    quantlib, _, where = quantlib_american(task, n)
    i, j = where.T
    terms = (task.spot[i, j], np.ones(len(i)), task.vol[i, j], task.time[i], task.rate[i], task.dividend_yield[i])
    exact = np.asarray(jax.jit(american)(*(jnp.asarray(x) for x in (*terms, task.sign[i]))))
    tiles = shared_boundary(task)[0]()
    across = task.spot.shape[1] // PATH_TILE
    stacked = [np.concatenate([np.asarray(t) for t in tiles[k : k + across]], 1) for k in range(0, len(tiles), across)]
    size = np.maximum(terms[0], 1.0)
    error = {"american": np.concatenate(stacked)[i, j] - exact, "quantlib_american": quantlib() - exact}
    figures: Figures = {}
    for name, gap in error.items():
        figures[f"{name}_rms_error"] = float(np.sqrt(np.mean((gap / size) ** 2)))
        figures[f"{name}_max_error"] = float(np.max(np.abs(gap / size)))
    print("\nerror of American prices over max(spot, strike), against a boundary of each price's own in float64")
    print("\n".join(f"{name:>28}  {value:.2e}" for name, value in figures.items()))
    return figures
