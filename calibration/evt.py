"""Peaks over threshold: a generalised Pareto law for the largest losses, its VaR and ES with standard errors.

McNeil and Frey (2000), "Estimation of tail-related risk measures for heteroscedastic financial time series: an extreme
value approach", Journal of Empirical Finance 7. To be applied to standardised residuals: it needs losses alike in law.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Float
from scipy import optimize

from pmvar.errors import UsageError

SHARE = 0.1
"""Of the losses that lie over the threshold, unless told otherwise."""
LEAST_PEAKS = 20
LEAST_SHAPE = -0.5
"""Below, maximum likelihood is not regular: Smith (1985), Biometrika 72."""


class TailStatus(StrEnum):
    """How a fit ended; `message` says what to do about it."""

    FITTED = "fitted"
    TOO_FEW = "too-few"
    NOT_REGULAR = "not-regular"

    @property
    def message(self) -> str:
        """What happened, and the remedy."""
        return {
            TailStatus.FITTED: "the likelihood has a maximum",
            TailStatus.TOO_FEW: f"fewer than {LEAST_PEAKS} losses over the threshold; lower it, or supply more history",
            TailStatus.NOT_REGULAR: f"shape at or below {LEAST_SHAPE}: the losses end at a bound; use them as they are",
        }[self]


@dataclass(frozen=True)
class ParetoTail:
    """P(L > u + x) = (N_u/n)·(1 + ξx/β)^(−1/ξ)."""

    status: TailStatus
    shape: float
    """ξ: 1/ν for a tail like Student's t, 0 for an exponential one; NaN, as all below, where there is no fit."""
    scale: float
    """β, in the unit of the losses."""
    threshold: float
    """u."""
    n_peaks: int
    n_obs: int
    covariance: Float[np.ndarray, "2 2"]
    """Of (ξ, β), from the observed information."""

    @property
    def share(self) -> float:
        """N_u/n, the part of the losses beyond the threshold."""
        return self.n_peaks / self.n_obs


def fit_tail(loss: Float[np.ndarray, " day"], *, share: float = SHARE) -> ParetoTail:
    """Fit the excesses over the empirical (1 − `share`) quantile of `loss` (positive is bad) by maximum likelihood.

    The threshold is the largest loss not counted as a peak. Raises UsageError for losses that are not finite or a
    share outside (0, 1).
    """
    if not (0 < share < 1 and np.all(np.isfinite(loss))):
        raise UsageError(f"a tail needs finite losses and a share in (0, 1), not {share}")
    ordered = np.sort(loss)[::-1]
    k = min(int(share * len(ordered)), len(ordered) - 1)
    threshold = float(ordered[k]) if len(ordered) else np.nan
    peaks = ordered[:k] - threshold
    peaks = peaks[peaks > 0]
    if len(peaks) < LEAST_PEAKS:
        return _without(TailStatus.TOO_FEW, threshold, len(peaks), len(loss))
    shape, scale = _maximum(peaks)
    if not shape > LEAST_SHAPE:
        return _without(TailStatus.NOT_REGULAR, threshold, len(peaks), len(loss))
    covariance = np.linalg.inv(_information(shape, scale, peaks))
    return ParetoTail(TailStatus.FITTED, shape, scale, threshold, len(peaks), len(loss), covariance)


def value_at_risk(tail: ParetoTail, level: float) -> tuple[float, float]:
    """VaR = u + (β/ξ)·[((1 − level)/(N_u/n))^(−ξ) − 1] and its standard error; in the unit of the losses.

    Delta method on ξ, β and the number of peaks, which is binomial. Raises UsageError for a level inside the body.
    """
    return _measured(tail, level, lambda p: _var(p, tail.threshold, level))


def expected_shortfall(tail: ParetoTail, level: float) -> tuple[float, float]:
    """ES = (VaR + β − ξu)/(1 − ξ) and its standard error; infinite for ξ ≥ 1."""
    if tail.shape >= 1:
        _check(tail, level)
        return np.inf, np.nan

    def es(p: Float[np.ndarray, " 3"]) -> float:
        return (_var(p, tail.threshold, level) + p[1] - p[0] * tail.threshold) / (1 - p[0])

    return _measured(tail, level, es)


def _var(p: Float[np.ndarray, " 3"], threshold: float, level: float) -> float:
    shape, scale, share = p
    log = np.log(share / (1 - level))
    return float(threshold + scale * (np.expm1(shape * log) / shape if abs(shape) > 1e-9 else log))


def _check(tail: ParetoTail, level: float) -> None:
    if not 1 - tail.share <= level < 1:
        raise UsageError(f"the tail begins at level {1 - tail.share:.4g}: {level} lies before it, or is not below 1")


def _measured(
    tail: ParetoTail, level: float, measure: Callable[[Float[np.ndarray, " 3"]], float]
) -> tuple[float, float]:
    """A function of (ξ, β, N_u/n), with its standard error by central differences."""
    _check(tail, level)
    at = np.array([tail.shape, tail.scale, tail.share])
    if tail.status is not TailStatus.FITTED:
        return np.nan, np.nan
    covariance = np.zeros((3, 3))
    covariance[:2, :2] = tail.covariance
    covariance[2, 2] = tail.share * (1 - tail.share) / tail.n_obs
    step = 1e-5 * np.array([1.0, tail.scale, tail.share])
    slope = np.array([(measure(at + h) - measure(at - h)) / (2 * s) for h, s in zip(np.diag(step), step, strict=True)])
    return measure(at), float(np.sqrt(slope @ covariance @ slope))


def _maximum(peaks: Float[np.ndarray, " peak"]) -> tuple[float, float]:
    """Grimshaw (1993), "Computing maximum likelihood estimates for the generalized Pareto distribution", Technometrics
    35: with θ = ξ/β the likelihood is a function of θ alone, ξ(θ) the mean of ln(1 + θx)."""

    def minus(theta: float) -> float:
        shape = _shape(theta, peaks)
        scale = shape / theta if abs(theta) > 1e-12 * unit else peaks.mean()
        return len(peaks) * (np.log(scale) + 1 + shape) if scale > 0 else np.inf

    unit = 1 / peaks.mean()
    # θ > −1/max: on a grid first, for near that end there may be another maximum, of an unbounded likelihood.
    low = -(1 - 1e-6) / peaks.max()
    grid = np.concatenate([np.linspace(low, 0, 40)[:-1], unit * np.geomspace(1e-6, 100, 80)])
    value = np.array([minus(theta) for theta in grid])
    regular = np.array([_shape(theta, peaks) > LEAST_SHAPE for theta in grid])
    best = int(np.argmin(np.where(regular, value, np.inf)))
    around = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    theta = float(np.asarray(optimize.fminbound(minus, *around, xtol=1e-10 * unit)))
    shape = _shape(theta, peaks)
    return shape, shape / theta if abs(theta) > 1e-12 * unit else float(peaks.mean())


def _shape(theta: float, peaks: Float[np.ndarray, " peak"]) -> float:
    return float(np.mean(np.log1p(theta * peaks)))


def _information(shape: float, scale: float, peaks: Float[np.ndarray, " peak"]) -> Float[np.ndarray, "2 2"]:
    """Observed information of (ξ, β), by central differences of the likelihood's gradient."""

    def gradient(shape: float, scale: float) -> np.ndarray:
        y = peaks / scale
        w = 1 + shape * y
        by_shape = np.log(w) / shape**2 - (1 / shape + 1) * y / w
        return np.array([by_shape.sum(), np.sum(-1 + (1 + shape) * y / w) / scale])

    # The gradient's 0/0 at ξ = 0 is 1e-9 of its size away from here.
    shape = shape if abs(shape) > 2e-4 else 2e-4
    step = 1e-4
    by_shape = (gradient(shape + step, scale) - gradient(shape - step, scale)) / (2 * step)
    by_scale = (gradient(shape, scale * (1 + step)) - gradient(shape, scale * (1 - step))) / (2 * step * scale)
    information = -np.stack([by_shape, by_scale])
    return (information + information.T) / 2


def _without(status: TailStatus, threshold: float, n_peaks: int, n_obs: int) -> ParetoTail:
    return ParetoTail(status, np.nan, np.nan, threshold, n_peaks, n_obs, np.full((2, 2), np.nan))
