"""Filtered historical simulation: whole rows of standardised residuals, so that dependence and tails are the data's.

Barone-Adesi, Giannopoulos and Vosper (1999), "VaR without correlations for portfolios of derivative securities",
Journal of Futures Markets 19.
"""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.lax import bitcast_convert_type
from jax.scipy.special import ndtr
from jaxtyping import Array, Float, Int

from pmvar.errors import InputError, Problem
from pmvar.models.base import Coordinates
from pmvar.models.composed import Innovation, InnovationLaw
from pmvar.models.correlation import principal_loading
from pmvar.models.garch import volatility_filter
from pmvar.models.price_map import NormalMixture
from pmvar.models.specification import LEAST_HISTORY, ModelSpecification

BURN_IN = 50
"""First steps dropped: the filter has not yet forgotten the variance that it was started with."""


class Observed(eqx.Module):
    """Past steps, as the bits of their float64: data, by which no margin is differentiated."""

    bits: Int[Array, "row factor"]

    def rows(self) -> Float[Array, "row factor"]:
        """The numbers."""
        return bitcast_convert_type(self.bits, jnp.float64)


def observed(rows: Float[np.ndarray, "row factor"]) -> Observed:
    """`rows`, to be kept in a model."""
    return Observed(jnp.asarray(np.ascontiguousarray(rows, dtype=np.float64).view(np.int64)))


def pick(normal: Float[Array, ""], n: int) -> Int[Array, ""]:
    """Which of `n` equally likely rows the quantile Φ(normal) means."""
    return jnp.clip((ndtr(normal) * n).astype(jnp.int64), 0, n - 1)


def by_severity(move: Float[np.ndarray, "row factor"]) -> Int[np.ndarray, " row"]:
    """Rows from the most extreme joint move to the quietest, by ∑ (move/deviation)² over the factors.

    A low uniform then means a heavy row, as in a t model, so that Sobol' points stratify over severity and importance
    sampling leans to it. The Euclidean norm is the sum over principal components, each as large as it is; Mahalanobis'
    would let components of almost no variance decide.
    """
    deviation = move.std(axis=0)
    moving = deviation > 0
    size = np.sum((move[:, moving] / deviation[moving]) ** 2, axis=1)
    return np.argsort(-size, kind="stable")


class Bootstrap(InnovationLaw):
    """ε = one of n rows of standardised residuals, all factors together, each row with probability 1/n."""

    loading: Float[Array, "factor component"]
    residual: Observed
    """Mean 0 and variance 1 per factor, the most severe row first."""

    def dimension(self) -> int:
        """The uniform that picks the row."""
        return 1

    def coordinates(self) -> Coordinates:
        """See the base."""
        return Coordinates(mixing=0)

    def draw(self, normal: Float[Array, " dimension"]) -> Innovation:
        """See the base. The deviation is 1: halfway through a step a bridge then has the variance ¼·Var ε + ¼·1² = ½,
        as it must where the law given the row is a single point."""
        rows = self.residual.rows()
        return Innovation(rows[pick(normal[0], rows.shape[0])], jnp.ones(rows.shape[1]))

    def marginal(self) -> NormalMixture:
        """Point masses."""
        rows = np.asarray(self.residual.rows()).T
        return NormalMixture(rows, np.zeros_like(rows), np.full_like(rows, 1 / rows.shape[1]))


def bootstrap(specification: ModelSpecification) -> Bootstrap:
    """The residuals of the specification's history under its own volatility filter.

    Raises InputError where there are fewer than `LEAST_HISTORY` past steps, or a factor of positive volatility stood
    still in them.
    """
    residual = standardised(filtered(specification), specification)
    return Bootstrap(loading=jnp.asarray(past_loading(residual)), residual=observed(residual[by_severity(residual)]))


def filtered(specification: ModelSpecification) -> Float[np.ndarray, "row factor"]:
    """History less its mean over the volatility that the filter forecast for it, after the burn-in."""
    x = past(specification)
    recursion = volatility_filter(specification)
    x = x - x.mean(axis=0)
    if recursion is None:
        return x[BURN_IN:]
    omega, alpha, gamma, beta = (
        np.asarray(part) for part in (recursion.omega, recursion.alpha, recursion.gamma, recursion.beta)
    )
    variance = np.empty_like(x)
    variance[0] = x.var(axis=0)
    for t in range(len(x) - 1):
        variance[t + 1] = omega + (alpha + gamma * (x[t] < 0)) * x[t] ** 2 + beta * variance[t]
    return (x / np.sqrt(np.where(variance > 0, variance, 1.0)))[BURN_IN:]


def standardised(
    residual: Float[np.ndarray, "row factor"], specification: ModelSpecification
) -> Float[np.ndarray, "row factor"]:
    """Mean 0 and variance 1 per factor, so that the filter alone says how large a step is."""
    centred = residual - residual.mean(axis=0)
    deviation = centred.std(axis=0)
    for f, d in zip(specification.factors, deviation, strict=True):
        if f.volatility > 0 and not d > 0:
            rule = f"{f.name} has a volatility of {f.volatility:g} and never moves in the history"
            raise _refused(rule, "supply its past steps, or leave the factor out", d)
    return centred / np.where(deviation > 0, deviation, 1.0)


def past(specification: ModelSpecification) -> Float[np.ndarray, "row factor"]:
    """The specification's history. Raises InputError where it is absent or short."""
    x = specification.history
    if x is None:
        rule = f"model {specification.model} needs past steps of its factors, named by the key history"
        raise _refused(rule, "add history: {file, sha256}", "")
    if len(x) < LEAST_HISTORY:
        rule = f"model {specification.model} needs {LEAST_HISTORY} past steps, the history has {len(x)}"
        raise _refused(rule, "supply a longer history", len(x))
    return x


def past_loading(move: Float[np.ndarray, "row factor"]) -> Float[np.ndarray, "factor component"]:
    """Principal loading of the moves' correlation; a factor that never moves is uncorrelated."""
    deviation = move.std(axis=0)
    unit = (move - move.mean(axis=0)) / np.where(deviation > 0, deviation, 1.0)
    correlation = unit.T @ unit / len(move)
    np.fill_diagonal(correlation, 1.0)
    return principal_loading((correlation + correlation.T) / 2)


def _refused(rule: str, fix: str, value: object) -> InputError:
    return InputError(Problem(rule, fix, file="model.json", column="history", value=str(value)))
