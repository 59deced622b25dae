"""Maximum likelihood of volatility filters for many assets at once: estimates, standard errors, failures as data."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from pmvar.calibration.box_newton import Minimum, minimise
from pmvar.calibration.volatility_likelihood import (
    BACKCAST_DAYS,
    BACKCAST_DECAY,
    Coordinate,
    Innovation,
    Natural,
    Volatility,
    coordinates,
    log_likelihoods,
    natural,
    starts,
)
from pmvar.models.specification import LEAST_HISTORY

BLOCK = 16
"""Assets fitted together at most: their days stay in cache, and the slowest search keeps few others waiting."""
PATIENCE = (20, 200)
"""Iterations at most, of the first search and of the one for those that needed more."""


class FitStatus(StrEnum):
    """How a fit ended; `message` says what to do about it."""

    FITTED = "fitted"
    ON_BOUND = "on-bound"
    NOT_CONVERGED = "not-converged"
    TOO_SHORT = "too-short"
    STILL = "still"
    NOT_FINITE = "not-finite"

    @property
    def usable(self) -> bool:
        """Whether there are estimates to use."""
        return self in (FitStatus.FITTED, FitStatus.ON_BOUND)

    @property
    def message(self) -> str:
        """What happened, and the remedy."""
        return _MESSAGES[self]


_MESSAGES = {
    FitStatus.FITTED: "the likelihood has a maximum inside the bounds",
    FitStatus.ON_BOUND: "the likelihood is greatest on a bound: that parameter has no standard error",
    FitStatus.NOT_CONVERGED: "the search found no maximum; use EWMA, or look for outliers and stale prices",
    FitStatus.TOO_SHORT: f"fewer than {LEAST_HISTORY} returns; supply a longer history, or a proxy's",
    FitStatus.STILL: "the returns do not vary; leave the factor out, or give it an assumed volatility",
    FitStatus.NOT_FINITE: "a return is infinite; correct the price behind it, or write NaN where there is none",
}


class Parameters(NamedTuple):
    """One number for each asset, NaN where there is none; per day, in the units of the returns."""

    mean: Float[np.ndarray, " asset"]
    omega: Float[np.ndarray, " asset"]
    alpha: Float[np.ndarray, " asset"]
    gamma: Float[np.ndarray, " asset"]
    beta: Float[np.ndarray, " asset"]
    degrees_of_freedom: Float[np.ndarray, " asset"]
    """Infinite for normal innovations."""


@dataclass(frozen=True)
class VolatilityFit:
    """Fits of one law to many assets."""

    volatility: Volatility
    innovation: Innovation
    status: tuple[FitStatus, ...]
    n_obs: Int[np.ndarray, " asset"]
    log_likelihood: Float[np.ndarray, " asset"]
    estimate: Parameters
    standard_error: Parameters
    """From the inverse Hessian; NaN for what is not estimated or lies on a bound."""
    robust_error: Parameters
    """Valid under the wrong innovations too: Bollerslev and Wooldridge (1992), Econometric Reviews 11, theorem 2.1."""

    @property
    def usable(self) -> Bool[np.ndarray, " asset"]:
        """Which assets have estimates."""
        return np.array([s.usable for s in self.status])


class Filtered(NamedTuple):
    """Returns seen through a fit, per asset."""

    deviation: Float[np.ndarray, "day asset"]
    """σ of each day, forecast the day before."""
    residual: Float[np.ndarray, "day asset"]
    """(return − μ)/σ, of variance 1; NaN where there is no return."""
    forecast: Float[np.ndarray, " asset"]
    """Variance of the day after the last."""


def fit_volatility(
    returns: Float[np.ndarray, "day asset"],
    *,
    volatility: Volatility = Volatility.GJR,
    innovation: Innovation = Innovation.STUDENT_T,
) -> VolatilityFit:
    """Fit each asset's returns by maximum likelihood, constant mean included.

    `returns` are per day, oldest first, in any unit; NaN where an asset has none (before its listing, or a gap), and
    such a day is passed over: volatility stands still. Conditions on the backcast of `arch`, so that likelihoods agree
    with it. An asset that cannot be fitted has a status that says why, and NaN for estimates.
    """
    box = coordinates(volatility, innovation)
    n = np.sum(~np.isnan(returns), axis=0)
    status = [screened(y[~np.isnan(y)]) for y in returns.T]
    sound = np.flatnonzero([s is FitStatus.FITTED for s in status])
    # One compiled program serves all blocks, and every panel that pads to the same size.
    length, width = _three_digits(int(n[sound].max(initial=1))), min(1 << (len(sound) - 1).bit_length(), BLOCK)
    found = _Fit(*(np.full((len(status), *shape), np.nan) for shape in _SHAPES))
    waiting = sound
    # The few slow searches are done again, together, so that the many do not wait for them.
    for patience in PATIENCE:
        for block in (waiting[begin : begin + BLOCK] for begin in range(0, len(waiting), BLOCK)):
            series = [returns[~np.isnan(returns[:, i]), i] for i in block]
            for whole, part in zip(found, _fit_block(series, (width, length), patience, box), strict=True):
                whole[block] = part
        waiting = waiting[found.converged[waiting] == 0]
    for i in sound:
        status[i] = FitStatus.ON_BOUND if found.held[i] else FitStatus.FITTED
    for i in waiting:
        status[i] = FitStatus.NOT_CONVERGED
    usable = np.array([s.usable for s in status])
    found = _Fit(*(np.where(usable.reshape(-1, *[1] * (part.ndim - 1)), part, np.nan) for part in found))
    return VolatilityFit(
        volatility, innovation, tuple(status), n, np.asarray(found.log_likelihood), Parameters(*found.estimate.T),
        Parameters(*found.standard_error.T), Parameters(*found.robust_error.T),
    )  # fmt: skip


def filtered(fit: VolatilityFit, returns: Float[np.ndarray, "day asset"]) -> Filtered:
    """The volatilities, residuals and forecast of `returns` under the estimates; NaN for assets that have none.

    A plain loop over days: the twin of `volatility_likelihood.variances`.
    """
    p = fit.estimate
    there = ~np.isnan(returns) & fit.usable
    before = np.array([_backcast(y[t]) for y, t in zip(returns.T, there.T, strict=True)])
    return continued(fit, returns, p.omega + (p.alpha + p.gamma / 2 + p.beta) * before)


def continued(
    fit: VolatilityFit, returns: Float[np.ndarray, "day asset"], variance: Float[np.ndarray, " asset"]
) -> Filtered:
    """As `filtered`, of days that follow others; `variance` is the forecast for the first, `filtered(…).forecast`."""
    p = fit.estimate
    there = ~np.isnan(returns) & fit.usable
    r = np.where(there, returns - p.mean, 0.0)
    deviation = np.empty_like(returns)
    for t in range(len(returns)):
        deviation[t] = np.sqrt(variance)
        then = p.omega + (p.alpha + np.where(r[t] < 0, p.gamma, 0.0)) * r[t] ** 2 + p.beta * variance
        variance = np.where(there[t], then, variance)
    return Filtered(deviation, np.where(there, r / deviation, np.nan), variance)


def _backcast(y: Float[np.ndarray, " day"]) -> float:
    square = (y - y.mean())[:BACKCAST_DAYS] ** 2 if len(y) else np.full(1, np.nan)
    return float(np.average(square, weights=BACKCAST_DECAY ** np.arange(len(square))))


def screened(y: Float[np.ndarray, " day"]) -> FitStatus:
    """Whether there is something to fit: `FITTED`, or why not."""
    if not np.all(np.isfinite(y)):
        return FitStatus.NOT_FINITE
    if len(y) < LEAST_HISTORY:
        return FitStatus.TOO_SHORT
    return FitStatus.FITTED if y.std() > 1e-12 * np.abs(y).max() else FitStatus.STILL


def _three_digits(n: int) -> int:
    """The least number from `n` on that has three binary digits and then zeros: at most a quarter more."""
    unit = 1 << max(n.bit_length() - 3, 0)
    return -(-n // unit) * unit


class _Fit(NamedTuple):
    estimate: Float[Array | np.ndarray, "asset named"]
    standard_error: Float[Array | np.ndarray, "asset named"]
    robust_error: Float[Array | np.ndarray, "asset named"]
    log_likelihood: Float[Array | np.ndarray, " asset"]
    held: Float[Array | np.ndarray, " asset"]
    """1: some parameter is on a bound."""
    converged: Float[Array | np.ndarray, " asset"]


_SHAPES = (*[(len(Parameters._fields),)] * 3, (), (), ())


def _fit_block(series: list[np.ndarray], size: tuple[int, int], patience: int, box: tuple[Coordinate, ...]) -> _Fit:
    """Fits of some assets' returns, padded to `size`: assets, days."""
    width, length = size
    padded = series + series[:1] * (width - len(series))
    n, scale = (np.array([of(y) for y in padded]) for of in (len, np.std))
    y = np.stack([np.pad(y / s, (0, length - len(y))) for y, s in zip(padded, scale, strict=True)])
    fit = jax.device_get(_fit(jnp.asarray(y), jnp.asarray(n), jnp.int64(patience), box=box))
    unit = np.stack([scale, scale**2, *[np.ones_like(scale)] * 4], axis=1)
    fit = fit._replace(
        estimate=fit.estimate * unit,
        standard_error=fit.standard_error * unit,
        robust_error=fit.robust_error * unit,
        log_likelihood=fit.log_likelihood - n * np.log(scale),
    )
    return _Fit(*(part[: len(series)] for part in fit))


@partial(jax.jit, static_argnames="box")
def _fit(
    y: Float[Array, "asset day"], n: Int[Array, " asset"], patience: Int[Array, ""], *, box: tuple[Coordinate, ...]
) -> _Fit:
    lower, upper = (jnp.array([getattr(c, side) for c in box]) for side in ("lower", "upper"))

    def one(y: Float[Array, " day"], n: Int[Array, ""]) -> tuple[Array, ...]:
        def minus(x: Float[Array, " parameter"]) -> Float[Array, ""]:
            return -jnp.sum(log_likelihoods(x, y, n, box=box))

        def search(candidate: Float[Array, "start parameter"]) -> Minimum:
            best = candidate[jnp.argmin(jax.vmap(minus)(candidate))]
            return minimise(minus, best, lower=lower, upper=upper, most_iterations=patience)

        both = jax.vmap(search)(jnp.asarray(starts(box)))
        best = jnp.argmin(both.value)
        end: Minimum = jax.tree.map(lambda a: a[best], both)
        score = jax.jacfwd(log_likelihoods)(end.x, y, n, box=box)
        flags = (jnp.any(end.held).astype(float), end.converged.astype(float))
        return _named(natural(end.x, box=box)), *_errors(end, score, box), -end.value, *flags

    return _Fit(*jax.vmap(one)(y, n))


def _named(p: Natural) -> Float[Array, " named"]:
    """In the order of `Parameters`, with ν."""
    return jnp.stack([*p[:5], 1 / p.inverse_dof])


def _errors(
    end: Minimum, score: Float[Array, "day parameter"], box: tuple[Coordinate, ...]
) -> tuple[Float[Array, " named"], Float[Array, " named"]]:
    """Standard errors by the inverse Hessian H⁻¹, and robust ones by H⁻¹(∑ss')H⁻¹, in the order of `Parameters`."""
    free = ~end.held
    both = free[:, None] & free[None, :]
    inverse = jnp.where(both, jnp.linalg.inv(jnp.where(both, end.hessian, jnp.eye(len(free)))), 0.0)
    slope = jax.jacfwd(lambda x: _named(natural(x, box=box)))(end.x)
    slope = jnp.where(jnp.isfinite(slope), slope, 0.0)

    def deviation(covariance: Float[Array, "parameter parameter"]) -> Float[Array, " named"]:
        variance = jnp.einsum("ni,ij,nj->n", slope, covariance, slope)
        return jnp.where(variance > 0, jnp.sqrt(jnp.where(variance > 0, variance, 1.0)), jnp.nan)

    return deviation(inverse), deviation(inverse @ (score.T @ score) @ inverse)
