"""Tests of value at risk by its breaches: how many, whether they cluster, and how much such a test can see."""

from __future__ import annotations

from enum import StrEnum

import numpy as np
from jaxtyping import Bool, Float
from scipy import special, stats

from pmvar.backtest.result import Outcome
from pmvar.errors import UsageError

YELLOW, RED = 0.95, 0.9999
"""Cumulative probabilities at which the Basel zones begin."""


class Zone(StrEnum):
    """Basel Committee (1996), "Supervisory framework for the use of backtesting"."""

    GREEN = "green"
    YELLOW = "yellow"
    RED = "red"


def kupiec(breaches: int, days: int, *, level: float) -> Outcome:
    """Unconditional coverage: whether `breaches` in `days` fit a rate of 1 − `level`; χ² with one degree of freedom.

    Kupiec (1995), "Techniques for verifying the accuracy of risk measurement models", Journal of Derivatives 3. Raises
    UsageError unless 0 ≤ breaches ≤ days, days > 0 and 0 < level < 1.
    """
    if not (0 <= breaches <= days and days > 0 and 0 < level < 1):
        raise UsageError(f"needs 0 ≤ breaches ≤ days and 0 < level < 1, not {breaches}, {days}, {level}")
    p = 1 - level
    statistic = 2 * (_log_likelihood(breaches, days, breaches / days) - _log_likelihood(breaches, days, p))
    return Outcome(statistic, float(stats.chi2.sf(statistic, 1)))


def christoffersen_independence(breach: Bool[np.ndarray, " day"]) -> Outcome:
    """Whether a breach is as likely after a breach as after none; χ² with one degree of freedom.

    Christoffersen (1998), "Evaluating interval forecasts", International Economic Review 39, section 3.2, on the
    transitions between consecutive days, with 0·ln 0 = 0. Raises UsageError for fewer than two days.
    """
    if len(breach) < 2:
        raise UsageError("a test of independence needs at least two days")
    before, now = breach[:-1], breach[1:]
    after_breach, after_none = int(before.sum()), int((~before).sum())
    both, only_now = int((before & now).sum()), int((~before & now).sum())
    apart = _log_likelihood(both, after_breach, both / max(after_breach, 1)) + _log_likelihood(
        only_now, after_none, only_now / max(after_none, 1)
    )
    together = _log_likelihood(both + only_now, len(now), (both + only_now) / len(now))
    # What is 0 may come out as minus one rounding.
    statistic = max(2 * (apart - together), 0.0)
    return Outcome(statistic, float(stats.chi2.sf(statistic, 1)))


def conditional_coverage(breach: Bool[np.ndarray, " day"], *, level: float) -> Outcome:
    """Coverage and independence together, the sum of both statistics; χ² with two degrees of freedom."""
    count = kupiec(int(breach.sum()), len(breach), level=level).statistic
    statistic = count + christoffersen_independence(breach).statistic
    return Outcome(statistic, float(stats.chi2.sf(statistic, 2)))


def traffic_light(breaches: int, days: int, *, level: float = 0.99) -> tuple[Zone, float]:
    """The Basel zone, and the probability of `breaches` or fewer under a rate of 1 − `level`.

    With 250 days at 99%: green up to 4, yellow from 5 to 9, red from 10.
    """
    probability = float(stats.binom.cdf(breaches, days, 1 - level))
    zone = Zone.RED if probability >= RED else Zone.YELLOW if probability >= YELLOW else Zone.GREEN
    return zone, probability


def kupiec_accepts(days: int, *, level: float, size: float = 0.05) -> tuple[int, int]:
    """The fewest and the most breaches in `days` that a test of this size does not reject."""
    kept = np.flatnonzero(_p_values(days, level) >= size)
    return int(kept[0]), int(kept[-1])


def kupiec_power(rate: float, days: int, *, level: float, size: float = 0.05) -> float:
    """Probability that a test of this size rejects where the true breach rate is `rate`: say it beside each verdict."""
    rejected = _p_values(days, level) < size
    return float(stats.binom.pmf(np.arange(days + 1), days, rate)[rejected].sum())


def non_overlapping(loss: Float[np.ndarray, " day"], horizon: int) -> Float[np.ndarray, " period"]:
    """Sums over `horizon` consecutive days, none used twice; the oldest days that do not fill a period are dropped.

    Overlapping losses are dependent by construction, and every test here would reject too often.
    """
    n = len(loss) // horizon
    return loss[len(loss) - n * horizon :].reshape(n, horizon).sum(axis=1)


def _p_values(days: int, level: float) -> Float[np.ndarray, " count"]:
    return np.array([kupiec(n, days, level=level).p_value for n in range(days + 1)])


def _log_likelihood(breaches: int, days: int, rate: float) -> float:
    """Of a Bernoulli sequence, 0·ln 0 = 0."""
    return float(special.xlogy(breaches, rate) + special.xlog1py(days - breaches, -rate))
