"""Margin metrics, always together: a margin that covers more costs more, and a cheap one rises more."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pmvar.errors import UsageError

RISE_DAYS = (1, 5, 20)


@dataclass(frozen=True)
class MarginMetrics:
    """One account, or the sum of a class of accounts, over the days of a backtest.

    Murphy, Vasios and Vause (2014), "An investigation into the procyclicality of risk-based initial margin models",
    Bank of England Financial Stability Paper 29, for the last two.
    """

    days: int
    breaches: int
    coverage: float
    """Share of days whose loss the margin covered."""
    mean_shortfall: float
    """Mean of loss − margin over the breaches, in currency; 0: none."""
    mean_shortfall_share: float
    """Mean of (loss − margin)/margin over the breaches."""
    average_cost: float
    """Mean margin, in currency."""
    peak_to_trough: float
    """Largest margin over smallest."""
    max_rise: Mapping[int, float]
    """n days: the largest rise over n days, as a share of the margin before it; 0: it never rose."""


def margin_metrics(loss: Float[np.ndarray, " day"], margin: Float[np.ndarray, " day"]) -> MarginMetrics:
    """Metrics of `margin`, known before the day's `loss`, both in one currency, on consecutive days.

    Procyclicality compares days, so the position should be the same on all of them. Raises UsageError unless there are
    days, losses are finite and margins positive.
    """
    if not (len(loss) == len(margin) > 0 and np.all(np.isfinite(loss)) and np.all((margin > 0) & (margin < np.inf))):
        raise UsageError("margin metrics need as many days of finite losses as of positive margins, at least one")
    breach = loss > margin
    excess = (loss - margin)[breach]
    return MarginMetrics(
        days=len(loss),
        breaches=int(breach.sum()),
        coverage=float(1 - breach.mean()),
        mean_shortfall=float(excess.mean()) if breach.any() else 0.0,
        mean_shortfall_share=float((excess / margin[breach]).mean()) if breach.any() else 0.0,
        average_cost=float(margin.mean()),
        peak_to_trough=float(margin.max() / margin.min()),
        max_rise={n: float(np.max(margin[n:] / margin[:-n] - 1, initial=0.0)) for n in RISE_DAYS},
    )
