"""Digital, average, quanto and barrier options: pmvar's kernels in float32 against QuantLib's engines, same terms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _peers import Peer

from pmvar.kernels.average import average_price, earlier_share, exponential_mean, window_variance
from pmvar.kernels.barrier import BarrierTerms, barrier_price
from pmvar.kernels.black import normalised_black
from pmvar.kernels.digital import normalised_digital
from pmvar.kernels.quanto import quanto_drift
from pmvar.types import PATH_TILE

OPTIONS = 256
"""Of one product, calls and puts on a spot of about 100 struck at 100."""
RATE, YIELD, COVARIANCE = 0.03, 0.01, 0.03


class PayoffTask(NamedTuple):
    """Spot and vol of each option in each scenario, [option, scenario]; days to expiry and side of each."""

    spot: np.ndarray
    vol: np.ndarray
    days: np.ndarray
    sign: np.ndarray


def payoff_task(n: int) -> PayoffTask:
    """`n` scenarios; barriers are at 120."""
    rng = np.random.default_rng(1)
    spot = 100 * np.exp(0.05 * rng.standard_normal((OPTIONS, n)))
    vol = rng.uniform(0.2, 0.8, (OPTIONS, 1)) * np.exp(0.1 * rng.standard_normal((OPTIONS, n)))
    return PayoffTask(np.minimum(spot, 119.0), vol, rng.integers(5, 365, OPTIONS), rng.choice([-1.0, 1.0], OPTIONS))


def _digital(k: Any, s: Any, vol: Any, t: Any, sign: Any, log_spot: Any) -> Any:
    # Of cash, which is no multiple of the forward.
    return normalised_digital(k, s, jnp.zeros_like(k), sign, jnp.zeros_like(k)) * jnp.exp(k)


def _asian(k: Any, s: Any, vol: Any, t: Any, sign: Any, log_spot: Any) -> Any:
    growth = (RATE - YIELD) * t
    variance = window_variance(s * s, earlier_share(growth))
    return average_price(exponential_mean(-growth) * jnp.ones_like(k), jnp.exp(k), variance, sign)


def _quanto(k: Any, s: Any, vol: Any, t: Any, sign: Any, log_spot: Any) -> Any:
    move = quanto_drift(vol, t, jnp.full_like(t, COVARIANCE))
    return jnp.exp(move) * normalised_black(k - move, s, sign)


def _barrier(k: Any, s: Any, vol: Any, t: Any, sign: Any, log_spot: Any) -> Any:
    one = jnp.ones_like(t)
    h, zero = jnp.log(jnp.float32(1.2)) - log_spot, jnp.zeros_like(k)
    return barrier_price(BarrierTerms(sign, one, 0 * one), k, h, (RATE - YIELD) * t, s, RATE * t, zero, zero)


KERNELS = {"digital": _digital, "asian": _asian, "quanto": _quanto, "barrier": _barrier}
"""Undiscounted prices over forward, from ln(K/F), deviation, vol, years, side and ln(S/100)."""


def payoff_calls(task: PayoffTask) -> dict[str, Peer]:
    """pmvar's kernels, tile by tile."""
    t, sign = (jnp.asarray(x[:, None], jnp.float32) for x in (task.days / 365, task.sign))
    calls: dict[str, Peer] = {}
    for name, kernel in KERNELS.items():

        def price(log_spot: Any, vol: Any, t: Any, sign: Any, kernel: Callable[..., Any] = kernel) -> Any:
            forward = log_spot + (RATE - YIELD) * t
            return jnp.exp(forward - RATE * t) * kernel(-forward, vol * jnp.sqrt(t), vol, t, sign, log_spot)

        compiled = jax.jit(price)
        tiles = [
            [jnp.asarray(x[:, i : i + PATH_TILE], jnp.float32) for x in (np.log(task.spot / 100), task.vol)]
            for i in range(0, task.spot.shape[1], PATH_TILE)
        ]
        calls[name] = lambda compiled=compiled, tiles=tiles: [compiled(*tile, t, sign) for tile in tiles]
    return calls


def payoff_quantlib(task: PayoffTask, n: int) -> dict[str, tuple[Peer, int]]:
    """QuantLib's analytic engines under bumped SimpleQuotes, one price at a time; and how many."""
    import QuantLib as ql

    day, count, per = ql.Date(1, 1, 2026), ql.Actual365Fixed(), max(1, n // OPTIONS)
    ql.Settings.instance().evaluationDate = day
    held, rate = (ql.YieldTermStructureHandle(ql.FlatForward(day, x, count)) for x in (YIELD, RATE))
    fx = ql.BlackVolTermStructureHandle(ql.BlackConstantVol(day, ql.NullCalendar(), 0.1, count))
    spot, vol = ql.SimpleQuote(100.0), ql.SimpleQuote(0.2)
    surface = ql.BlackConstantVol(day, ql.NullCalendar(), ql.QuoteHandle(vol), count)
    process = ql.BlackScholesMertonProcess(ql.QuoteHandle(spot), held, rate, ql.BlackVolTermStructureHandle(surface))
    engines = {
        "digital": ql.AnalyticEuropeanEngine(process),
        "asian": ql.ContinuousArithmeticAsianLevyEngine(process, ql.QuoteHandle(ql.SimpleQuote(0.0)), day),
        "quanto": ql.QuantoEuropeanEngine(process, rate, fx, ql.QuoteHandle(ql.SimpleQuote(COVARIANCE / 0.1))),
        "barrier": ql.AnalyticBarrierEngine(process),
    }
    out: dict[str, tuple[Peer, int]] = {}
    for name, engine in engines.items():
        options = []
        for days, sign in zip(task.days.tolist(), task.sign.tolist(), strict=True):
            side, exercise = ql.Option.Call if sign > 0 else ql.Option.Put, ql.EuropeanExercise(day + days)
            plain = ql.PlainVanillaPayoff(side, 100.0)
            if name == "digital":
                option = ql.VanillaOption(ql.CashOrNothingPayoff(side, 100.0, 1.0), exercise)
            elif name == "asian":
                option = ql.ContinuousAveragingAsianOption(ql.Average.Arithmetic, plain, exercise)
            elif name == "quanto":
                option = ql.QuantoVanillaOption(plain, exercise)
            else:
                option = ql.BarrierOption(ql.Barrier.UpOut, 120.0, 0.0, plain, exercise)
            option.setPricingEngine(engine)
            options.append(option)

        def call(options: list[Any] = options) -> list[float]:
            found = []
            for i, option in enumerate(options):
                for s, v in zip(task.spot[i, :per].tolist(), task.vol[i, :per].tolist(), strict=True):
                    spot.setValue(s)
                    vol.setValue(v)
                    found.append(option.NPV())
            return found

        out[f"quantlib_{name}"] = call, len(options) * per
    return out
