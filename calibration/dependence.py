"""Dependence of risk factors: rank correlation of de-volatilised returns, shrunk and repaired, and tail dependence.

Kendall's τ gives the correlation of any elliptical law whatever its margins and its tail, so that days of crisis do not
decide it: Lindskog, McNeil and Schmock (2003), "Kendall's tau for elliptical distributions", theorem 2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy import stats

from pmvar.models.correlation import nearest_correlation

LEAST_COMMON_DAYS = 60
"""A pair with fewer common days has no estimate of its own."""


@dataclass(frozen=True)
class Dependence:
    """Correlation of factors, and what was done to get a correlation matrix."""

    correlation: Float[np.ndarray, "factor factor"]
    """Shrunk, then repaired: what a model takes."""
    rank: Float[np.ndarray, "factor factor"]
    """sin(πτ/2) of each pair; NaN where it has too few common days."""
    standard_error: Float[np.ndarray, "factor factor"]
    """Of `rank`, days taken as independent."""
    common_days: Int[np.ndarray, "factor factor"]
    target: float
    """Mean of `rank` over pairs, which a pair without an estimate takes."""
    intensity: float
    """Share of the target in the shrunk matrix."""
    distance: float
    """Largest change of an entry by the repair; 0: none was needed."""


def rank_correlation(residual: Float[np.ndarray, "day factor"]) -> Dependence:
    """Correlation of de-volatilised returns, NaN where there is none, pair by pair over common days.

    Pairwise estimates need not make a correlation matrix: they are shrunk towards equal correlations (`shrinkage`),
    then repaired. Raises NumericsError if the repair would move an entry by more than .05.
    """
    k = residual.shape[1]
    there = ~np.isnan(residual)
    days = there.T.astype(np.int64) @ there
    rank, error = np.eye(k), np.zeros((k, k))
    for i, j in zip(*np.tril_indices(k, -1), strict=True):
        both = there[:, i] & there[:, j]
        pair = kendall_correlation(residual[both, i], residual[both, j]) if both.any() else (np.nan, np.nan)
        rank[i, j], error[i, j] = rank[j, i], error[j, i] = pair
    target, intensity = shrinkage(rank, error)
    shrunk = (1 - intensity) * np.where(np.isnan(rank), target, rank) + intensity * target
    np.fill_diagonal(shrunk, 1.0)
    correlation, distance = nearest_correlation(shrunk)
    return Dependence(correlation, rank, error, days, target, intensity, distance)


def kendall_correlation(x: Float[np.ndarray, " day"], y: Float[np.ndarray, " day"]) -> tuple[float, float]:
    """sin(πτ/2) and its standard error; NaN with fewer than `LEAST_COMMON_DAYS` or where one of them is constant.

    Var τ = 4·Var E[sgn(X−x)·sgn(Y−y)]/n over the days' (x, y): Hoeffding (1948), Annals of Mathematical Statistics 19,
    section 9b. The expectation is 1 − 2F(x) − 2G(y) + 4H(x, y), and the slope of sin(πτ/2) is (π/2)·cos(πτ/2).
    """
    n = len(x)
    if n < LEAST_COMMON_DAYS or np.ptp(x) == 0 or np.ptp(y) == 0:
        return np.nan, np.nan
    tau, _ = stats.kendalltau(x, y)
    tau = float(np.asarray(tau))
    joint = dominated(x, y) / n
    u, v = (stats.rankdata(a) / n for a in (x, y))
    deviation = 2 * np.std(1 - 2 * u - 2 * v + 4 * joint) / np.sqrt(n)
    return float(np.sin(np.pi * tau / 2)), float(np.pi / 2 * np.cos(np.pi * tau / 2) * deviation)


def dominated(x: Float[np.ndarray, " day"], y: Float[np.ndarray, " day"]) -> Int[np.ndarray, " day"]:
    """How many days have both a smaller x and a smaller y, for each day; in n·ln²n.

    In the order of x that is the number of earlier days of smaller y: ranks of y are split bit by bit, the highest
    first, and a day whose bit is set counts the earlier ones of its group whose bit is not.
    """
    # Of equal x the larger y first: it is no smaller day of the others.
    place = np.lexsort((-y, x))
    rank = np.unique(y[place], return_inverse=True)[1]
    order, count = np.arange(len(x)), np.zeros(len(x), dtype=np.int64)
    for bit in reversed(range(int(rank.max()).bit_length())):
        own = rank[order]
        group, is_set = own >> (bit + 1), (own >> bit) & 1
        before = np.cumsum(1 - is_set) - (1 - is_set)
        count[order] += is_set * (before - before[np.searchsorted(group, group)])
        order = order[np.argsort(own >> bit, kind="stable")]
    out = np.empty_like(count)
    out[place] = count
    return out


def shrinkage(
    rank: Float[np.ndarray, "factor factor"], error: Float[np.ndarray, "factor factor"]
) -> tuple[float, float]:
    """Target and intensity of shrinkage towards equal correlations: ∑ Var r_ij / ∑ (r_ij − r̄)², at most 1.

    Schäfer and Strimmer (2005), "A shrinkage approach to large-scale covariance matrix estimation", Statistical
    Applications in Genetics and Molecular Biology 4, target F and equation 8, with the covariance of r_ij and r̄ left
    out: r̄ is the mean of many pairs. One pair is its own target.
    """
    upper = np.triu_indices(len(rank), 1)
    known = ~np.isnan(rank[upper])
    r, variance = rank[upper][known], error[upper][known] ** 2
    if not len(r):
        return 0.0, 1.0
    target, spread = float(r.mean()), float(np.sum((r - r.mean()) ** 2))
    return target, 0.0 if len(r) == 1 else float(min(np.sum(variance) / max(spread, 1e-300), 1.0))


def t_tail_dependence(
    correlation: Float[np.ndarray, "*pair"], degrees_of_freedom: float | Float[np.ndarray, "*pair"]
) -> Float[np.ndarray, "*pair"]:
    """λ = 2·t_{ν+1}(−√((ν+1)(1−ρ)/(1+ρ))): the limit of P(one beyond its quantile | the other beyond its own).

    Of a t copula: Embrechts, McNeil and Straumann (2002), "Correlation and dependence in risk management", section 5.
    """
    nu = np.asarray(degrees_of_freedom, dtype=float)
    rho = np.clip(correlation, -1.0, 1.0)
    with np.errstate(divide="ignore"):
        return np.asarray(2 * stats.t.cdf(-np.sqrt((nu + 1) * (1 - rho) / (1 + rho)), nu + 1))


def tail_dependence(
    x: Float[np.ndarray, " day"], y: Float[np.ndarray, " day"], *, share: float = 0.05
) -> tuple[float, float]:
    """λ̂ = P̂(y in its lower `share` | x in its own), with its binomial standard error: joint falls, on common days.

    At a finite share it lies above the limit; compare it with the model's own probability (`t_joint_tail`).
    """
    n = len(x)
    k = max(int(share * n), 1)
    joint = np.sum((stats.rankdata(x) <= k) & (stats.rankdata(y) <= k)) / k
    return float(joint), float(np.sqrt(joint * (1 - joint) / k))


def t_joint_tail(correlation: float, degrees_of_freedom: float, *, share: float = 0.05) -> float:
    """P(Y in its lower `share` | X in its own) under a t copula: what `tail_dependence` estimates.

    ∫ t_{ν+1}((q − ρx)·√((ν+1)/((ν+x²)(1−ρ²)))) over X's tail, by Gauss–Legendre in X's probability.
    """
    nu, node, weight = degrees_of_freedom, *np.polynomial.legendre.leggauss(64)
    # √: the integrand is steep at the far end of the tail.
    p = share * ((node + 1) / 2) ** 2
    x, q = stats.t.ppf(p, nu), stats.t.ppf(share, nu)
    given = stats.t.cdf((q - correlation * x) * np.sqrt((nu + 1) / ((nu + x * x) * (1 - correlation**2))), nu + 1)
    return float(np.sum(given * weight * (node + 1) / 2))
