"""Tests of expected shortfall, with critical values simulated from the predictive law that is tested.

Acerbi and Szekely (2014), "Backtesting expected shortfall", Risk, December.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Float, Shaped

from pmvar.backtest.result import Outcome
from pmvar.errors import UsageError

Losses = Float[np.ndarray, "*simulation day"]
Forecast = Float[np.ndarray, " day"]
Sums = Shaped[np.ndarray, "*simulation"]
Statistic = Callable[[Losses, Forecast, Forecast, float], Float[np.ndarray, "*simulation"]]


def acerbi_szekely_1(loss: Losses, var: Forecast, es: Forecast, level: float) -> Float[np.ndarray, "*simulation"]:
    """Z₁ = 1 − mean of L_t/ES_t over the breaches L_t > VaR_t: 0 expected, negative where ES is too small.

    It sees the size of breaches alone, not their number; NaN where there is none. Their equation 3.
    """
    total, count = tail_sums(loss, var, es)
    return first_statistic(total, count)


def acerbi_szekely_2(loss: Losses, var: Forecast, es: Forecast, level: float) -> Float[np.ndarray, "*simulation"]:
    """Z₂ = 1 − ∑ L_t·1{L_t > VaR_t}/ES_t / (T·(1 − level)): number and size of breaches together. Their equation 6."""
    return second_statistic(tail_sums(loss, var, es)[0], loss.shape[-1], level)


def tail_sums(loss: Losses, var: Forecast, es: Forecast) -> tuple[Sums, Sums]:
    """∑ L_t/ES_t over the breaches L_t > VaR_t, and their number: all that both statistics need, day by day."""
    breach = loss > np.broadcast_to(var, loss.shape)
    total = np.sum(np.where(breach, loss / np.broadcast_to(es, loss.shape), 0.0), axis=-1)
    return np.asarray(total), np.asarray(breach.sum(axis=-1))


def first_statistic(total: Sums, count: Sums) -> Sums:
    """Z₁ of `tail_sums`."""
    return np.asarray(np.where(count > 0, 1 - total / np.maximum(count, 1), np.nan))


def second_statistic(total: Sums, days: int, level: float) -> Sums:
    """Z₂ of `tail_sums` over so many days."""
    return np.asarray(1 - total / (days * (1 - level)))


def simulated_p_value(found: float, simulated: Float[np.ndarray, " simulation"]) -> float:
    """(1 + #{Z of a simulation ≤ Z})/(1 + simulations), which is valid for any number of them (Davison and Hinkley
    1997, section 4.2); simulations without a breach do not count in Z₁. NaN where Z is."""
    under = simulated[~np.isnan(simulated)]
    return float((1 + np.sum(under <= found)) / (1 + len(under))) if not np.isnan(found) else np.nan


def simulated_test(
    statistic: Statistic,
    loss: Float[np.ndarray, " day"],
    *,
    var: Forecast,
    es: Forecast,
    level: float,
    simulated: Float[np.ndarray, "simulation day"],
) -> Outcome:
    """Test `loss` by Z₁ or Z₂ against `simulated`: for each day losses drawn from the law that gave its VaR and ES.

    The p-value is `simulated_p_value`. Raises UsageError unless every ES is positive.
    """
    if not np.all(es > 0):
        raise UsageError("expected shortfalls must be positive: the statistics divide by them")
    found = float(statistic(loss, var, es, level))
    return Outcome(found, simulated_p_value(found, statistic(simulated, var, es, level)))
