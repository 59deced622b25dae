"""Filtered peaks over threshold: a generalised Pareto tail for each account's losses under filtered history.

McNeil and Frey (2000), see `pmvar.calibration.evt`: theirs is of one series; here the residuals of all factors, scaled
to today's volatility together, make the losses of an account, and the tail is fitted to these.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from pmvar.calibration.evt import TailStatus, expected_shortfall, fit_tail, value_at_risk

NAME = "evt"
FILTERED_HISTORY = "fhs"


def drawn_from(model: str) -> str:
    """The model that gives the losses of `model`: of `evt`, with or without a filter's name, filtered history."""
    name, colon, own = model.partition(":")
    return f"{FILTERED_HISTORY}{colon}{own}" if name == NAME else model


class ParetoTails(NamedTuple):
    """Losses whose tail is generalised Pareto."""

    loss: Float[np.ndarray, "account scenario"]
    """Those beyond the threshold are the law's quantiles, in the scenarios whose losses they take the place of."""
    value_at_risk: Float[np.ndarray, " account"]
    expected_shortfall: Float[np.ndarray, " account"]
    fitted: np.ndarray
    """Accounts that have such a tail, of finite mean; the others are as they were, their measures NaN."""


def pareto_tails(loss: Float[np.ndarray, "account scenario"], level: float) -> ParetoTails:
    """Fit every account's losses, equally likely, and take VaR and ES from the fit."""
    out, n = loss.copy(), len(loss)
    var, es, fitted = np.full(n, np.nan), np.full(n, np.nan), np.zeros(n, bool)
    for i, own in enumerate(loss):
        tail = fit_tail(own)
        if tail.status is not TailStatus.FITTED or tail.shape >= 1:
            continue
        fitted[i] = True
        var[i], es[i] = value_at_risk(tail, level)[0], expected_shortfall(tail, level)[0]
        worst = np.argsort(-own, kind="stable")[: tail.n_peaks]
        log = -np.log((np.arange(tail.n_peaks) + 0.5) / tail.n_peaks)
        excess = np.expm1(tail.shape * log) / tail.shape if abs(tail.shape) > 1e-9 else log
        out[i, worst] = tail.threshold + tail.scale * excess
    return ParetoTails(out, var, es, fitted)
