"""Systemic jumps of standardised moves: maximum a posteriori, for daily data cannot tell jumps from fat tails alone.

A day has a jump with probability λ/steps per year. Jumps are sought in the market's move, the first principal component
of all factors; each factor's share β in them, and what it moves besides (its scatter), are regressions on the days that
probably had one. That days hold one jump at most, and that λ has an informative prior, are stated with every result.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import optimize, special, stats

JUMPS_A_YEAR, JUMPS_SPREAD = 4.0, 2.0
"""Prior mean and standard deviation of λ (Gamma): a few systemic days a year."""
SIZE, SIZE_SPREAD = 3.0, 0.5
"""Prior of a jump's size, in standard deviations of the market's daily move: the median, and the deviation of its
logarithm (lognormal); its mean is N(0, `SIZE`²)."""
LEAST_DIFFUSIVE_DOF = 8.0
"""ν of what diffuses beside jumps: fatter tails would take the jumps for themselves."""
LEAST_QUIET = 0.1
"""Of the market's variance, what diffuses at least."""
MOST_JUMPING = 0.8
"""Of a factor's variance, what its jumps make up at most."""


class JumpLaw(StrEnum):
    """Law of a jump's size: normal (Merton) or double exponential (Kou)."""

    NORMAL = "normal"
    DOUBLE_EXPONENTIAL = "double-exponential"


@dataclass(frozen=True)
class JumpFit:
    """Systemic jumps, their sizes in standard deviations of the market's daily move."""

    law: JumpLaw
    intensity: float
    """λ, jumps a year."""
    intensity_error: float
    """Posterior standard deviation of λ, by the curvature; that of the prior is `JUMPS_SPREAD`."""
    size: dict[str, float]
    """The numbers of the law, as `parameters.jumps` names them."""
    share: Float[np.ndarray, " factor"]
    """β: a factor's standardised move for each unit of the market's jump."""
    scatter: Float[np.ndarray, " factor"]
    """Standard deviation of a factor's own part in a systemic jump, standardised."""
    probability: Float[np.ndarray, " day"]
    """That a day had a jump, given its market's move; NaN where there is none."""

    @property
    def identified(self) -> bool:
        """Whether the data narrowed λ by a third at least against its prior."""
        return self.intensity_error < JUMPS_SPREAD * 2 / 3


class _Point(NamedTuple):
    """A point of the search: λ a year, and the law's numbers."""

    intensity: float
    size: tuple[float, ...]


def market_move(residual: Float[np.ndarray, "day factor"]) -> Float[np.ndarray, " day"]:
    """The first principal component of standardised moves, variance 1, positive where most factors rise; of a day on
    which some have no move, from those that have; NaN with fewer than half the weight."""
    there = ~np.isnan(residual)
    z = np.where(there, residual, 0.0)
    vector = np.linalg.eigh(z.T @ z / np.maximum(there.T.astype(float) @ there, 1))[1][:, -1]
    vector = vector * (np.sign(vector.sum()) or 1.0)
    weight = there @ vector**2
    move = np.where(weight >= 0.5, z @ vector / np.sqrt(np.maximum(weight, 0.5)), np.nan)
    return (move - np.nanmean(move)) / np.nanstd(move)


def fit_jumps(
    residual: Float[np.ndarray, "day factor"], *, law: JumpLaw, degrees_of_freedom: float, steps_per_year: int
) -> JumpFit:
    """Fit systemic jumps to standardised moves (NaN where there is none), the rest being Student's t with
    `degrees_of_freedom` (infinite: normal).

    The posterior of λ and the sizes is greatest at the point returned; the market's variance is 1 with its jumps, so
    that what diffuses has what they leave.
    """
    move = market_move(residual)
    known = ~np.isnan(move)
    m = move[known]

    def minus(raw: Float[np.ndarray, " parameter"]) -> float:
        return -_log_posterior(_point(raw, law), m, law, degrees_of_freedom, steps_per_year)

    starts = [_raw(_Point(n, size), law) for n in (2.0, 8.0) for size in _starts(law)]
    options = {"maxiter": 4000, "maxfev": 4000, "xatol": 1e-6, "fatol": 1e-8}
    ends = [optimize.minimize(minus, s, method="Nelder-Mead", options=options) for s in starts]
    found = min(ends, key=lambda end: end.fun)
    best = _point(found.x, law)
    step = 1e-3
    at = [minus(found.x + step * k * np.eye(len(found.x))[0]) for k in (-1, 0, 1)]
    curvature = max((at[0] - 2 * at[1] + at[2]) / step**2, 1e-12)
    quiet, jumping = _densities(best, m, law, degrees_of_freedom, steps_per_year)
    p = best.intensity / steps_per_year
    probability = np.full(len(move), np.nan)
    probability[known] = p * jumping / (p * jumping + (1 - p) * quiet)
    share, scatter = _shares(residual, move, probability)
    share, scatter = _limited(share, scatter, p * _second_moment(best, law), p)
    error = float(best.intensity / np.sqrt(curvature))
    return JumpFit(law, best.intensity, error, _named(best, law), share, scatter, probability)


def _starts(law: JumpLaw) -> list[tuple[float, ...]]:
    return [(-2.0, 2.0), (0.0, 4.0)] if law is JumpLaw.NORMAL else [(0.4, 1 / 3, 1 / 3), (0.2, 1 / 2, 1 / 4)]


def _raw(point: _Point, law: JumpLaw) -> Float[np.ndarray, " parameter"]:
    """A point without bounds."""
    first, *rest = point.size
    first = first if law is JumpLaw.NORMAL else float(special.logit(first))
    return np.array([np.log(point.intensity), first, *np.log(rest)])


def _point(raw: Float[np.ndarray, " parameter"], law: JumpLaw) -> _Point:
    first = float(raw[1]) if law is JumpLaw.NORMAL else float(special.expit(raw[1]))
    # Beyond these the prior is negligible, and exp would overflow.
    return _Point(float(np.exp(np.clip(raw[0], -12, 5))), (first, *np.exp(np.clip(raw[2:], -6, 4)).tolist()))


def _named(point: _Point, law: JumpLaw) -> dict[str, float]:
    names = ("mean", "deviation") if law is JumpLaw.NORMAL else ("up_probability", "up_rate", "down_rate")
    return dict(zip(names, point.size, strict=True))


def _second_moment(point: _Point, law: JumpLaw) -> float:
    """E J²."""
    if law is JumpLaw.NORMAL:
        mean, deviation = point.size
        return mean**2 + deviation**2
    up, rate_up, rate_down = point.size
    return 2 * up / rate_up**2 + 2 * (1 - up) / rate_down**2


def _densities(
    point: _Point, m: Float[np.ndarray, " day"], law: JumpLaw, nu: float, steps_per_year: int
) -> tuple[Float[np.ndarray, " day"], Float[np.ndarray, " day"]]:
    """Density of a day's move without a jump and with one."""
    p = point.intensity / steps_per_year
    s = np.sqrt(max(1 - p * _second_moment(point, law), LEAST_QUIET))
    quiet = stats.norm.pdf(m, 0, s) if np.isinf(nu) else stats.t.pdf(m, nu, 0, s * np.sqrt((nu - 2) / nu))
    if law is JumpLaw.NORMAL:
        mean, deviation = point.size
        return quiet, stats.norm.pdf(m, mean, np.hypot(deviation, s))
    up, rate_up, rate_down = point.size
    # What diffuses on the day of a jump counts as normal: its tail is not what makes such a day large.
    return quiet, up * _normal_exponential(m, rate_up, s) + (1 - up) * _normal_exponential(-m, rate_down, s)


def _normal_exponential(x: Float[np.ndarray, " day"], rate: float, s: float) -> Float[np.ndarray, " day"]:
    """Density of an exponential of this rate plus a normal of deviation s: Grushka (1972), Analytical Chemistry 44."""
    return rate * np.exp(rate**2 * s**2 / 2 - rate * x + special.log_ndtr((x - rate * s**2) / s))


def _log_posterior(point: _Point, m: Float[np.ndarray, " day"], law: JumpLaw, nu: float, steps_per_year: int) -> float:
    p = point.intensity / steps_per_year
    if not p < 0.5:
        return -np.inf
    quiet, jumping = _densities(point, m, law, nu, steps_per_year)
    rate = JUMPS_A_YEAR / JUMPS_SPREAD**2
    # In ln λ, so that the least it finds has a curvature there.
    prior = stats.gamma.logpdf(point.intensity, JUMPS_A_YEAR * rate, scale=1 / rate) + np.log(point.intensity)
    if law is JumpLaw.NORMAL:
        prior += stats.norm.logpdf(point.size[0], 0, SIZE)
        sizes = point.size[1:]
    else:
        prior += stats.beta.logpdf(point.size[0], 2, 2) + np.log(point.size[0] * (1 - point.size[0]))
        sizes = tuple(1 / rate for rate in point.size[1:])
    prior += sum(stats.norm.logpdf(np.log(s), np.log(SIZE), SIZE_SPREAD) for s in sizes)
    return float(prior + np.sum(np.log(np.maximum(p * jumping + (1 - p) * quiet, 1e-300))))


def _shares(
    residual: Float[np.ndarray, "day factor"], move: Float[np.ndarray, " day"], probability: Float[np.ndarray, " day"]
) -> tuple[Float[np.ndarray, " factor"], Float[np.ndarray, " factor"]]:
    """Slope of each factor on the market's move over the days weighted by their probability of a jump, and the standard
    deviation around it beyond that of other days."""
    known = ~np.isnan(move)
    there = known[:, None] & ~np.isnan(residual)
    z, m = np.where(there, residual, 0.0), np.where(known, move, 0.0)[:, None]

    def around(weight: Float[np.ndarray, " day"]) -> tuple[Float[np.ndarray, " factor"], Float[np.ndarray, " factor"]]:
        w = np.where(there, np.where(known, weight, 0.0)[:, None], 0.0)
        slope = np.sum(w * m * z, axis=0) / np.maximum(np.sum(w * m * m, axis=0), 1e-12)
        return slope, np.sum(w * (z - slope * m) ** 2, axis=0) / np.maximum(w.sum(axis=0), 1e-12)

    p = np.where(known, probability, 0.0)
    share, jumping = around(p)
    return share, np.sqrt(np.maximum(jumping - around(1 - p)[1], 0.0))


def _limited(
    share: Float[np.ndarray, " factor"], scatter: Float[np.ndarray, " factor"], second: float, p: float
) -> tuple[Float[np.ndarray, " factor"], Float[np.ndarray, " factor"]]:
    """Both scaled down where a factor's jumps would be more than `MOST_JUMPING` of its variance."""
    variance = share**2 * second + p * scatter**2
    scale = np.sqrt(np.minimum(1.0, MOST_JUMPING / np.maximum(variance, 1e-12)))
    return share * scale, scatter * scale
