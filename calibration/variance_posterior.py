"""Posterior of Heston's and SVCJ's parameters from daily returns, per asset: draws, today's variance, and their course.

The likelihood has no unseen path left, so that ten parameters are all there is to sample: by Metropolis steps from one
proposal, whose chains agree at once where it fits. It is fitted by adaptive multiple importance sampling (Cornuet,
Marin, Mira and Robert 2012, Scandinavian Journal of Statistics 39) in coordinates without bounds, tempered until the
weights are even enough. All points of a round are evaluated together.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import optimize, special, stats

from pmvar.calibration.variance_likelihood import Jump, Law, cells, seen

if TYPE_CHECKING:
    from numpyro.distributions import Distribution

BATCH = 8
"""Points evaluated together: always as many, so that a result does not depend on how a round was split."""
LEAST_CELLS, MOST_CELLS, CELL_STEP = 64, 256, 32
ADAPTING_CELLS = 96
TAIL = 5.0
"""Degrees of freedom of the proposal: its tails are fatter than the posterior's."""


class Sampler(NamedTuple):
    """How long to adapt and to sample."""

    round: int = 192
    """Points of each round of adaptation."""
    rounds: int = 12
    """At most."""
    enough: float = 150.0
    """Effective points that end the adaptation."""
    chains: int = 4
    warmup: int = 50
    draws: int = 600
    """Of each chain, after the warm-up."""


SAMPLER = Sampler()


@dataclass(frozen=True)
class VariancePosterior:
    """Draws of one asset's parameters a day, for returns counted in their own standard deviation `unit`."""

    unit: float
    draws: dict[str, Float[np.ndarray, "chain draw"]]
    """By the names of `priors`, and `variance`: today's, expected given all returns."""
    acceptance: float
    top: float
    n_cells: int

    @property
    def mean(self) -> dict[str, float]:
        """Posterior means: the plug-in parameters."""
        return {name: float(x.mean()) for name, x in self.draws.items()}

    @property
    def deviation(self) -> dict[str, float]:
        """Posterior standard deviations."""
        return {name: float(x.std()) for name, x in self.draws.items()}


def priors(model: str) -> dict[str, Distribution]:
    """The prior of each parameter, independent of the others, for returns whose standard deviation is 1.

    Those of Eraker, Johannes and Polson (2003), section III, whose index moves by 1% a day and is counted in per cent,
    hold here for every asset in its own unit. Two are narrower: `kappa`, which has the prior of 1 less a GARCH filter's
    persistence, and the mean size of a price jump, N(0, 3²) as for the systemic jumps of other models.
    """
    from numpyro import distributions as d

    shared = {
        "mean": d.Normal(0.0, 1.0),
        "kappa": d.Beta(1.0, 20.0),
        "theta": d.LogNormal(-0.5, 1.0),
        "vol_of_variance_squared": d.InverseGamma(2.5, 0.1),
        "rho": d.Uniform(-1.0, 1.0),
    }
    jumps = {
        "jump_probability": d.Beta(2.0, 40.0),
        "price_jump_mean": d.Normal(0.0, 3.0),
        "price_jump_variance": d.InverseGamma(5.0, 20.0),
        "variance_jump_mean": d.Gamma(20.0, 10.0),
        "jump_correlation": d.Normal(0.0, 2.0),
    }
    return shared | (jumps if model == "svcj" else {})


START = {
    "mean": 0.0, "kappa": 0.04, "theta": 0.6, "vol_of_variance_squared": 0.02, "rho": -0.2, "jump_probability": 0.02,
    "price_jump_mean": -0.5, "price_jump_variance": 5.0, "variance_jump_mean": 2.0, "jump_correlation": 0.0,
}  # fmt: skip
"""Where adaptation begins; in free coordinates, with a deviation of `START_SPREAD`."""
START_SPREAD = 0.5


def law_of(at: dict[str, Array]) -> Law:
    """The law of parameters under the names of `priors`."""
    xi = jnp.sqrt(at["vol_of_variance_squared"])
    law = Law(at["mean"], at["kappa"], at["theta"], xi, at["rho"])
    if "jump_probability" not in at:
        return law
    deviation = jnp.sqrt(at["price_jump_variance"])
    size = at["price_jump_mean"], deviation, at["variance_jump_mean"], at["jump_correlation"]
    return law._replace(jump=Jump(at["jump_probability"], *size))


def sample_variance(
    returns: Float[np.ndarray, " day"], *, model: str, seed: int | list[int], sampler: Sampler = SAMPLER
) -> VariancePosterior:
    """Draws from the posterior of `model`, heston or svcj, given x per day as fractions, oldest first."""
    unit = float(np.std(returns))
    y = returns / unit
    top = _top(y)
    rng = np.random.default_rng(seed)

    def evaluate(free: Float[np.ndarray, "point parameter"], n_cells: int) -> tuple[np.ndarray, np.ndarray]:
        """ln posterior and today's variance of many points."""
        padded = np.pad(free, ((0, -len(free) % BATCH), (0, 0)), mode="edge").reshape(-1, BATCH, free.shape[1])
        one = partial(_posterior, y=jnp.asarray(y), top=jnp.asarray(top), model=model, n_cells=n_cells)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            parts = list(pool.map(lambda batch: jax.device_get(one(jnp.asarray(batch))), padded))
        value, variance = (np.concatenate(part)[: len(free)] for part in zip(*parts, strict=True))
        return np.where(np.isnan(value), -np.inf, value), variance

    proposal = _adapted(lambda free: evaluate(free, ADAPTING_CELLS)[0], model, rng, sampler)
    n_cells = _n_cells(proposal.loc, model, top)
    shape = sampler.chains, sampler.warmup + sampler.draws
    free = np.atleast_2d(proposal.rvs(shape[0] * shape[1], random_state=rng))
    value, variance = evaluate(free, n_cells)
    weight = (value - proposal.logpdf(free)).reshape(shape)
    at = _metropolis(weight, np.log(rng.random(shape)))[:, sampler.warmup :]
    natural = jax.device_get(jax.vmap(lambda x: bounded(x, model=model)[0])(jnp.asarray(free)))
    draws = {name: x.reshape(shape) for name, x in (natural | {"variance": variance}).items()}
    kept = {name: np.take_along_axis(x, at, axis=1) for name, x in draws.items()}
    return VariancePosterior(unit, kept, float(np.mean(np.diff(at, axis=1) != 0)), top, n_cells)


def bounded(free: Float[Array, " parameter"], *, model: str) -> tuple[dict[str, Array], Float[Array, ""]]:
    """Parameters at a point of the free coordinates, and ln of the prior's density there, in those coordinates."""
    from numpyro.distributions import biject_to

    at, density = {}, jnp.zeros(())
    for x, (name, prior) in zip(free, priors(model).items(), strict=True):
        onto = biject_to(prior.support)
        at[name] = onto(x)
        density += prior.log_prob(at[name]) + onto.log_abs_det_jacobian(x, at[name])
    return at, density


@partial(jax.jit, static_argnames=("model", "n_cells"))
def _posterior(
    free: Float[Array, "point parameter"], y: Float[Array, " day"], top: Float[Array, ""], *, model: str, n_cells: int
) -> tuple[Float[Array, " point"], Float[Array, " point"]]:
    def one(free: Float[Array, " parameter"]) -> tuple[Array, Array]:
        at, prior = bounded(free, model=model)
        found = seen(law_of(at), y, top, n_cells=n_cells)
        return prior + found.log_density.sum(), found.weight[-1] @ cells(top, n_cells) ** 2

    return jax.vmap(one)(free)


def _adapted(
    value_of: Callable[[np.ndarray], np.ndarray], model: str, rng: np.random.Generator, sampler: Sampler
) -> stats._multivariate.multivariate_t_frozen:
    """A proposal with the posterior's mean and covariance."""
    from numpyro.distributions import biject_to

    start = [float(biject_to(p.support).inv(jnp.asarray(START[name]))) for name, p in priors(model).items()]
    proposals = [stats.multivariate_t(start, START_SPREAD**2 * np.eye(len(start)), df=TAIL)]
    free, value = np.zeros((0, len(start))), np.zeros(0)
    for _ in range(sampler.rounds):
        new = np.atleast_2d(proposals[-1].rvs(sampler.round, random_state=rng))
        free, value = np.concatenate([free, new]), np.concatenate([value, value_of(new)])
        # All points so far count as drawn from the mixture of all proposals so far.
        mixture = special.logsumexp([p.logpdf(free) for p in proposals], axis=0)
        weight, even = _tempered(value - mixture, sampler.enough)
        centre = weight @ free
        spread = (free - centre).T @ ((free - centre) * weight[:, None])
        # A t has ν/(ν − 2) times the covariance of its scale; that much wider is on the safe side.
        proposals.append(stats.multivariate_t(centre, spread + 1e-6 * np.eye(len(start)), df=TAIL))
        if even:
            break
    return proposals[-1]


def _tempered(log_weight: Float[np.ndarray, " point"], enough: float) -> tuple[Float[np.ndarray, " point"], bool]:
    """Weights to the largest power up to 1 that leaves `enough` effective points (or half of all); whether it is 1."""
    enough = min(enough, len(log_weight) / 2)

    def weights(power: float) -> Float[np.ndarray, " point"]:
        return special.softmax(power * np.maximum(log_weight, log_weight.max() - 1e4))

    def excess(power: float) -> float:
        return 1 / float(np.sum(weights(power) ** 2)) - enough

    if excess(1.0) >= 0:
        return weights(1.0), True
    return weights(float(optimize.brentq(excess, 0.0, 1.0, xtol=1e-6))), False


def _metropolis(
    weight: Float[np.ndarray, "chain draw"], log_uniform: Float[np.ndarray, "chain draw"]
) -> np.ndarray:
    """Which proposal each draw of each chain is: the new one with probability min(1, ratio of weights)."""
    at = np.zeros(weight.shape, np.int64)
    chain = np.arange(len(weight))
    for t in range(1, weight.shape[1]):
        before = at[:, t - 1]
        at[:, t] = np.where(log_uniform[:, t] < weight[:, t] - weight[chain, before], t, before)
    return at


def _top(y: Float[np.ndarray, " day"]) -> float:
    """√v that no day comes near: twice the largest smoothed size of the returns."""
    size, level = np.abs(y), float(np.mean(np.abs(y)))
    largest = level
    for move in size:
        level = 0.94 * level + 0.06 * float(move)
        largest = max(largest, level)
    return max(4.0, 2.5 * largest)


def _n_cells(free: Float[np.ndarray, " parameter"], model: str, top: float) -> int:
    """As many cells as make them no wider than the daily deviation of √v at a point."""
    law = law_of(bounded(jnp.asarray(free), model=model)[0])
    width = float(law.vol_of_variance * jnp.sqrt(1 - law.rho**2) / 2)
    return int(np.clip(CELL_STEP * np.ceil(top / width / CELL_STEP), LEAST_CELLS, MOST_CELLS))
