"""Simulation-based calibration of the posterior sampler: does it give back the prior that its data came from?

Parameters from the prior, returns from the parameters, draws from the posterior of the returns: the rank of each
parameter among its draws is then uniform, whatever the model. Talts, Betancourt, Simpson, Vehtari and Gelman (2018),
"Validating Bayesian inference algorithms with simulation-based calibration", arXiv:1804.06788, theorem 1.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key, Shaped
from scipy import stats

from pmvar.calibration.posterior import Draws, Sampler, sample_series
from pmvar.calibration.priors import prior_draws
from pmvar.calibration.volatility_likelihood import Volatility

BEFORE = 1.0
"""Variance of the day before the first: known to the simulated law and to the sampler alike."""


class Simulated(NamedTuple):
    """Laws from the prior, and what was made of them."""

    parameters: Draws
    """True ones, one for each fit."""
    returns: Float[np.ndarray, "fit day"]


def simulate_prior(key: Key[Array, ""], *, fits: int, days: int, volatility: Volatility) -> Simulated:
    """`fits` filters from the prior and `days` returns from each, in per cent."""
    law = jax.vmap(partial(prior_draws, volatility=volatility))(jax.random.split(key, fits))
    mean, omega, alpha, gamma, beta, inverse_dof = map(np.asarray, law)
    nu = 1 / inverse_dof
    rng = np.random.default_rng(np.asarray(jax.random.key_data(key)))
    variance, returns = omega + (alpha + gamma / 2 + beta) * BEFORE, np.empty((fits, days))
    for day in range(days):
        r = np.sqrt(variance * (nu - 2) / nu) * rng.standard_t(nu)
        returns[:, day] = mean + r
        variance = omega + (alpha + np.where(r < 0, gamma, 0.0)) * r**2 + beta * variance
    return Simulated(Draws(mean, omega, alpha, gamma, beta, nu, variance), returns)


@partial(jax.jit, static_argnames=("volatility", "sampler"))
def posteriors(
    key: Key[Array, ""], returns: Float[Array, "fit day"], *, volatility: Volatility, sampler: Sampler
) -> tuple[Shaped[Array, "fit chain draw"], ...]:
    """Draws and course of every fit, all of them sampled side by side, in the order of `Draws` and `Course`."""
    fits, days = returns.shape
    one = partial(sample_series, volatility=volatility, sampler=sampler)
    keys = jax.random.split(key, fits)
    return jax.vmap(one, (0, 0, None, None))(keys, returns, jnp.asarray(days), jnp.asarray(BEFORE))


def ranks(
    truth: Float[np.ndarray, " fit"], draws: Float[np.ndarray, "fit chain draw"], *, every: int
) -> Int[np.ndarray, " fit"]:
    """How many of every `every`-th draw lie below the truth; draws that far apart must be all but independent."""
    return np.sum(draws[:, :, ::every] < truth[:, None, None], axis=(1, 2))


def cells(most: int, bins: int) -> Int[np.ndarray, " rank"]:
    """The cell of each possible rank 0 … `most`: `bins` of them, as equal as they can be."""
    return np.arange(most + 1) * bins // (most + 1)


def uniformity(rank: Int[np.ndarray, " fit"], *, most: int, bins: int) -> float:
    """p-value of Pearson's χ² test that ranks are uniform on 0 … `most`, over `cells`."""
    cell = cells(most, bins)
    observed, expected = np.bincount(cell[rank], minlength=bins), np.bincount(cell) / len(cell)
    return float(stats.chisquare(observed, expected * len(rank)).pvalue)
