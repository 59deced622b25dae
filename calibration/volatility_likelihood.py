"""Log-likelihood of EWMA, GARCH(1,1) and GJR-GARCH(1,1) with normal or Student-t innovations, for one asset.

The search runs over a box: coordinates in which every constraint (ω > 0, α ≥ 0, α + γ ≥ 0, β ≥ 0, α + γ/2 + β ≤ 1,
ν > 2) is a bound on one of them.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import gammaln
from jaxtyping import Array, Float, Int

BACKCAST_DAYS, BACKCAST_DECAY = 75, 0.94
"""The recursion starts from the mean of the first 75 squared residuals, weighted by .94^i, as in `arch`."""


class Volatility(StrEnum):
    """Which recursion: `ewma` has ω = 0 and α + β = 1, `riskmetrics` β = .94 besides, `garch` has γ = 0."""

    EWMA = "ewma"
    RISKMETRICS = "riskmetrics"
    GARCH = "garch"
    GJR = "gjr"


class Innovation(StrEnum):
    """Law of r/σ, of unit variance."""

    NORMAL = "normal"
    STUDENT_T = "student-t"


class Natural(NamedTuple):
    """Parameters as the recursion has them: r_t = y_t − μ, σ²_{t+1} = ω + (α + γ·1{r_t < 0})·r_t² + β·σ²_t."""

    mean: Float[Array, ""]
    omega: Float[Array, ""]
    alpha: Float[Array, ""]
    gamma: Float[Array, ""]
    beta: Float[Array, ""]
    inverse_dof: Float[Array, ""]
    """1/ν; 0 is normal."""


class Coordinate(NamedTuple):
    """One of the box: bounds, and its values in the two families of starts (slow and fast decay)."""

    name: str
    lower: float
    upper: float
    starts: tuple[tuple[float, ...], tuple[float, ...]]


# Returns have been divided by their standard deviation.
MEAN = Coordinate("mean", -1.0, 1.0, ((0.0,), (0.0,)))
LEVEL = Coordinate("log_omega", float(np.log(1e-8)), float(np.log(10.0)), ((-4.0, -5.0), (-2.0, -1.2)))
"""ln ω."""
PERSISTENCE = Coordinate("persistence", 0.0, 1.0, ((0.98,), (0.8,)))
"""α + γ/2 + β."""
NEWS = Coordinate("news_share", 0.0, 1.0, ((0.05, 0.1), (0.1, 0.3)))
"""(α + γ/2)/persistence."""
FALLS = Coordinate("falls_share", 0.0, 1.0, ((0.5, 0.8), (0.5, 0.8)))
"""Of falls in the news: (α + γ)/(2α + γ); ½ is GARCH."""
TAIL = Coordinate("inverse_dof", 1 / 500, 1 / 2.05, ((0.15,), (0.15,)))
"""1/ν. At the lower bound t is normal for all that data can say."""

RISKMETRICS_DECAY = 0.94
"""β of daily returns: J.P. Morgan and Reuters (1996), RiskMetrics Technical Document, section 5.3."""

RECURSION: dict[Volatility, tuple[Coordinate, ...]] = {
    Volatility.EWMA: (MEAN, NEWS),
    Volatility.RISKMETRICS: (MEAN,),
    Volatility.GARCH: (MEAN, LEVEL, PERSISTENCE, NEWS),
    Volatility.GJR: (MEAN, LEVEL, PERSISTENCE, NEWS, FALLS),
}


def coordinates(volatility: Volatility, innovation: Innovation) -> tuple[Coordinate, ...]:
    """The box of a law."""
    return RECURSION[volatility] + ((TAIL,) if innovation is Innovation.STUDENT_T else ())


def starts(box: tuple[Coordinate, ...]) -> Float[np.ndarray, "family start parameter"]:
    """Where a search may begin: every combination of the coordinates' values, in two families."""
    return np.array(
        [np.stack(np.meshgrid(*(c.starts[f] for c in box), indexing="ij"), -1).reshape(-1, len(box)) for f in (0, 1)]
    )


def natural(x: Float[Array, " parameter"], *, box: tuple[Coordinate, ...]) -> Natural:
    """What a point of the box means."""
    at = {c.name: x[i] for i, c in enumerate(box)}
    zero = jnp.zeros(())
    persistence = at.get("persistence", jnp.ones(()))
    news = persistence * at.get("news_share", jnp.full((), 1 - RISKMETRICS_DECAY))
    falls = at.get("falls_share", jnp.full((), 0.5))
    return Natural(
        mean=at["mean"],
        omega=jnp.exp(at["log_omega"]) if "log_omega" in at else zero,
        alpha=2 * news * (1 - falls),
        gamma=2 * news * (2 * falls - 1),
        beta=persistence - news,
        inverse_dof=at.get("inverse_dof", zero),
    )


def backcast(y: Float[Array, " day"], n: Int[Array, ""]) -> Float[Array, ""]:
    """Variance before the first day, from the first `BACKCAST_DAYS` of `n` returns; a constant of the likelihood."""
    day, n = jnp.arange(float(len(y))), n.astype(float)
    mean = jnp.sum(jnp.where(day < n, y, 0.0)) / n
    weight = jnp.where(day < jnp.minimum(n, BACKCAST_DAYS), BACKCAST_DECAY**day, 0.0)
    return jnp.sum(weight * (y - mean) ** 2) / jnp.sum(weight)


def variances(parameters: Natural, y: Float[Array, " day"], before: Float[Array, ""]) -> Float[Array, " day"]:
    """σ² of each day, forecast the day before; `before` is the backcast, in the place of the day before the first."""
    p, r = parameters, y - parameters.mean
    news = (p.alpha + jnp.where(r < 0, p.gamma, 0.0)) * r * r

    def step(variance: Float[Array, ""], news: Float[Array, ""]) -> tuple[Float[Array, ""], Float[Array, ""]]:
        return p.omega + news + p.beta * variance, variance

    first = p.omega + (p.alpha + p.gamma / 2 + p.beta) * before
    return jax.lax.scan(step, first, news)[1]


def log_density(r: Float[Array, " day"], variance: Float[Array, " day"], inverse_dof: Float[Array, ""]) -> Array:
    """ln density of r, of this variance: Student's t (Bollerslev 1987, equation 1); normal where `inverse_dof` is 0."""
    safe = jnp.where(inverse_dof > 0, inverse_dof, 0.1)
    square = r * r / variance
    # 1/(ν − 2) = κ/(1 − 2κ).
    rate = safe / (1 - 2 * safe)
    heavy = (
        gammaln((1 + safe) / (2 * safe))
        - gammaln(1 / (2 * safe))
        - 0.5 * jnp.log(jnp.pi / rate)
        - (1 + safe) / (2 * safe) * jnp.log1p(square * rate)
    )
    return jnp.where(inverse_dof > 0, heavy, -0.5 * (np.log(2 * np.pi) + square)) - 0.5 * jnp.log(variance)


def log_likelihoods(
    x: Float[Array, " parameter"],
    y: Float[Array, " day"],
    n: Int[Array, ""],
    *,
    box: tuple[Coordinate, ...],
) -> Float[Array, " day"]:
    """ln density of each of the first `n` returns given those before it; 0 for the padding that follows them."""
    return conditional_log_likelihoods(natural(x, box=box), y, n, backcast(y, n))


def conditional_log_likelihoods(
    parameters: Natural, y: Float[Array, " day"], n: Int[Array, ""], before: Float[Array, ""]
) -> Float[Array, " day"]:
    """The same, with the variance of the day before the first given."""
    variance = variances(parameters, y, before)
    there = jnp.arange(len(y)) < n
    # Padding may have a variance of 0: it must not reach the derivative of a logarithm.
    return jnp.where(
        there, log_density(y - parameters.mean, jnp.where(there, variance, 1.0), parameters.inverse_dof), 0.0
    )
