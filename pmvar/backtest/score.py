"""Scores that compare forecasts of VaR and ES on the same days, and whether a difference is more than noise."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import stats

from pmvar.backtest.result import Outcome
from pmvar.errors import UsageError


def fz0_score(
    loss: Float[np.ndarray, " day"],
    var: Float[np.ndarray, " day"],
    es: Float[np.ndarray, " day"],
    *,
    level: float,
) -> Float[np.ndarray, " day"]:
    """Fissler and Ziegel's score of degree 0, per day, least in expectation for the true VaR and ES.

    (L − VaR)·1{L ≥ VaR}/((1 − level)·ES) + VaR/ES + ln ES − 1: Patton, Ziegel and Chen (2019), "Dynamic semiparametric
    models for expected shortfall (and value-at-risk)", Journal of Econometrics 211, equation 6, in terms of losses. Its
    differences do not depend on the unit. Raises UsageError unless 0 < VaR ≤ ES.
    """
    if not np.all((var > 0) & (es >= var)):
        raise UsageError("the score needs 0 < VaR ≤ ES on every day")
    return np.maximum(loss - var, 0.0) / ((1 - level) * es) + var / es + np.log(es) - 1


def diebold_mariano(
    score: Float[np.ndarray, " day"], other: Float[np.ndarray, " day"], *, lags: int | None = None
) -> Outcome:
    """Whether two scores differ in the mean: negative where the first is better; two-sided, standard normal.

    Diebold and Mariano (1995), "Comparing predictive accuracy", Journal of Business and Economic Statistics 13, with
    Newey and West's variance (1987), of ⌊4·(T/100)^(2/9)⌋ lags unless given. NaN where the scores never differ.
    """
    difference = score - other
    n = len(difference)
    lags = int(4 * (n / 100) ** (2 / 9)) if lags is None else lags
    if not 0 <= lags < n:
        raise UsageError(f"{lags} lags need more than {n} days")
    centred = difference - difference.mean()
    variance = centred @ centred / n
    for lag in range(1, lags + 1):
        variance += 2 * (1 - lag / (lags + 1)) * (centred[lag:] @ centred[:-lag]) / n
    if not variance > 0:
        return Outcome(np.nan, np.nan)
    statistic = float(difference.mean() / np.sqrt(variance / n))
    return Outcome(statistic, float(2 * stats.norm.sf(abs(statistic))))
