"""Peers of the European kernel. Each revalues options [option, scenario] from arrays of forwards and volatilities."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np


class Task(NamedTuple):
    """Options under scenarios: P&L = discount·Black(forward, strike, vol·√time) − today's value."""

    forward: np.ndarray
    """[option, scenario]."""
    vol: np.ndarray
    """[option, scenario]."""
    strike: np.ndarray
    time: np.ndarray
    discount: np.ndarray
    sign: np.ndarray
    today: np.ndarray

    def cast(self, dtype: type) -> Task:
        """In another precision."""
        return Task(*(x.astype(dtype) for x in self))


Peer = Callable[[], Any]


def numpy_scipy(task: Task) -> Peer:
    """Whole arrays, `scipy.special.ndtr`."""
    from scipy.special import ndtr

    f, v = task.forward, task.vol
    k, t, d, sign, today = (x[:, None] for x in task[2:])

    def call() -> np.ndarray:
        s = v * np.sqrt(t)
        d1 = np.log(f / k) / s + s / 2
        return d * sign * (f * ndtr(sign * d1) - k * ndtr(sign * (d1 - s))) - today

    return call


def jax_vmap(task: Task) -> Peer:
    """The formula for one option, `jax.scipy.stats.norm.cdf`, vmapped twice and jitted."""
    import jax
    import jax.numpy as jnp
    from jax.scipy.stats import norm

    def one(f, v, k, t, d, sign, today):  # noqa: ANN001, ANN202
        s = v * jnp.sqrt(t)
        d1 = jnp.log(f / k) / s + s / 2
        return d * sign * (f * norm.cdf(sign * d1) - k * norm.cdf(sign * (d1 - s))) - today

    every = jax.jit(jax.vmap(jax.vmap(one, (0, 0, None, None, None, None, None))))
    arrays = [jnp.asarray(x) for x in task]
    return lambda: every(*arrays)


def numba_parallel(task: Task) -> Peer:
    """A double loop with `math.erfc`, parallel over options, fastmath; the output is allocated once."""
    import numba

    half = task.forward.dtype.type(0.5)
    root = task.forward.dtype.type(math.sqrt(0.5))

    @numba.njit(parallel=True, fastmath=True)
    def fill(f, v, k, t, d, sign, today, out):  # noqa: ANN001, ANN202
        for i in numba.prange(f.shape[0]):
            deviation = math.sqrt(t[i])
            for j in range(f.shape[1]):
                s = v[i, j] * deviation
                d1 = math.log(f[i, j] / k[i]) / s + half * s
                n1 = half * math.erfc(-sign[i] * d1 * root)
                n2 = half * math.erfc(-sign[i] * (d1 - s) * root)
                out[i, j] = d[i] * sign[i] * (f[i, j] * n1 - k[i] * n2) - today[i]
        return out

    out = np.empty_like(task.forward)
    return lambda: fill(*task, out)


def torch_chunks(task: Task, chunk: int = 16) -> Peer:
    """`torch.special.ndtr` in chunks of options that stay in cache; the output is allocated once."""
    import torch

    f, v = torch.from_numpy(task.forward), torch.from_numpy(task.vol)
    k, t, d, sign, today = (torch.from_numpy(x)[:, None] for x in task[2:])
    out = torch.empty_like(f)

    def call() -> np.ndarray:
        for i in range(0, len(f), chunk):
            p = slice(i, i + chunk)
            s = v[p] * torch.sqrt(t[p])
            d1 = torch.log(f[p] / k[p]) / s + s / 2
            n1, n2 = torch.special.ndtr(sign[p] * d1), torch.special.ndtr(sign[p] * (d1 - s))
            out[p] = d[p] * sign[p] * (f[p] * n1 - k[p] * n2) - today[p]
        return out.numpy()

    return call


def quantlib_engine(task: Task, scenarios: int) -> tuple[Peer, int]:
    """`AnalyticEuropeanEngine` under bumped SimpleQuotes, one price at a time; also the number of prices."""
    import QuantLib as ql

    today, per = ql.Date(1, 1, 2026), max(1, scenarios // 50)
    ql.Settings.instance().evaluationDate = today
    count, zero = ql.Actual365Fixed(), ql.YieldTermStructureHandle(ql.FlatForward(today, 0.0, ql.Actual365Fixed()))
    books = []
    for i in range(0, len(task.strike), max(1, len(task.strike) // 50)):
        spot, vol = ql.SimpleQuote(1.0), ql.SimpleQuote(0.2)
        surface = ql.BlackConstantVol(today, ql.NullCalendar(), ql.QuoteHandle(vol), count)
        process = ql.BlackScholesMertonProcess(
            ql.QuoteHandle(spot), zero, zero, ql.BlackVolTermStructureHandle(surface)
        )
        kind = ql.Option.Call if task.sign[i] > 0 else ql.Option.Put
        expiry = today + max(1, round(float(task.time[i]) * 365))
        option = ql.VanillaOption(ql.PlainVanillaPayoff(kind, float(task.strike[i])), ql.EuropeanExercise(expiry))
        option.setPricingEngine(ql.AnalyticEuropeanEngine(process))
        books.append((option, spot, vol, task.forward[i, :per].tolist(), task.vol[i, :per].tolist()))

    def call() -> float:
        total = 0.0
        for option, spot, vol, forwards, vols in books:
            for f, v in zip(forwards, vols, strict=True):
                spot.setValue(f)
                vol.setValue(v)
                total += option.NPV()
        return total

    return call, len(books) * per


def quantlib_formula(task: Task, scenarios: int) -> tuple[Peer, int]:
    """`blackFormula`, one price at a time; also the number of prices."""
    import QuantLib as ql

    rows = range(0, len(task.strike), max(1, len(task.strike) // 50))
    per = max(1, scenarios // 50)
    work = []
    for i in rows:
        kind = ql.Option.Call if task.sign[i] > 0 else ql.Option.Put
        deviation = (task.vol[i, :per] * np.sqrt(task.time[i])).tolist()
        work.append((kind, float(task.strike[i]), task.forward[i, :per].tolist(), deviation, float(task.discount[i])))

    def call() -> float:
        total = 0.0
        for kind, strike, forwards, deviations, discount in work:
            for f, s in zip(forwards, deviations, strict=True):
                total += ql.blackFormula(kind, strike, f, s, discount)
        return total

    return call, len(work) * per
