"""Posterior of Heston's and SVCJ's parameters from daily returns, per asset: draws, and today's variance.

The likelihood has no unseen path left: ten parameters are all there is to sample, in coordinates without bounds. A draw
is two Metropolis steps (Tierney 1994, "Markov chains for exploring posterior distributions", Annals of Statistics 22):
one to a point of a Student's t, wherever the chain is, by which chains forget where they began; and one of a random
walk, which leaves the places that the t undervalues. The t is first at the mode, then fitted to a first walk.
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
from jaxtyping import Array, Bool, Float, Int
from scipy import optimize

from pmvar.calibration.variance_likelihood import Jump, Law, cells, seen

if TYPE_CHECKING:
    from numpyro.distributions import Distribution

BATCH = 2
"""Points evaluated together: always as many, so that a result does not depend on how they were split."""
FIRST_CELLS, LEAST_CELLS, MOST_CELLS, CELL_STEP = 96, 48, 256, 16
TAIL, WIDER = 5.0, 1.3
"""Degrees of freedom of the proposal, and its scale against the inverse curvature: wider than the posterior."""
WALK = 2.0
"""Scale of a step of the walk, over √(parameters): near the best for a normal law (Roberts, Gelman and Gilks 1997)."""
LEAST_CURVATURE = 0.1
"""Of −ln posterior, believed in any direction: the priors' own is more."""
DIFFERENCE = 0.05
"""Of free coordinates, from which a curvature is read: single precision would drown in a smaller one."""


class Sampler(NamedTuple):
    """How long to sample."""

    chains: int = 4
    warmup: int = 300
    """Draws of each chain from which the proposal is fitted again."""
    draws: int = 2000
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
"""Where the search of the mode begins."""


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
    y, top = jnp.asarray(returns / unit), jnp.asarray(_top(returns / unit))
    rng = np.random.default_rng(seed)
    proposal, n_cells = _mode(y, top, model)
    evaluated = partial(_evaluated, y=y, top=top, model=model, n_cells=n_cells)
    with ThreadPoolExecutor(os.cpu_count()) as pool:

        def at(free: Float[np.ndarray, "point parameter"]) -> _Points:
            padded = np.pad(free, ((0, -len(free) % BATCH), (0, 0)), mode="edge").reshape(-1, BATCH, free.shape[1])
            parts = list(pool.map(lambda batch: jax.device_get(evaluated(jnp.asarray(batch))), padded))
            value, natural = jax.tree.map(lambda *part: np.concatenate(part)[: len(free)], *parts)
            return _Points(free, np.where(np.isnan(value), -np.inf, value), natural)

        # A first walk finds what the curvature at one mode does not show: skewness, a second mode.
        path, _ = _walked(at, proposal, sampler.chains, sampler.warmup, rng)
        proposal = _around(np.concatenate([p.free for p in path]))
        path, acceptance = _walked(at, proposal, sampler.chains, sampler.draws, rng)
    draws = {name: np.stack([p.natural[name] for p in path], axis=1) for name in path[0].natural}
    return VariancePosterior(unit, draws, acceptance, float(top), n_cells)


def _walked(
    at: Callable[[np.ndarray], _Points], proposal: _Proposal, chains: int, steps: int, rng: np.random.Generator
) -> tuple[list[_Points], float]:
    """Where all chains are after each draw, and how many far steps were taken; the first tenth is dropped."""
    warmup = steps // 10
    far = at(proposal.draw(chains * (warmup + steps + 1), rng))
    size = far.free.shape[1]
    rows = np.arange(len(far.free)).reshape(-1, chains)
    now, path, accepted = far.part(rows[0]), [], []
    for row in rows[1:]:
        there = far.part(row)
        gain = there.value - now.value - proposal.log_density(there.free) + proposal.log_density(now.free)
        taken = np.log(rng.random(chains)) < gain
        now = _chosen(taken, there, now)
        near = at(now.free + WALK / np.sqrt(size) * rng.standard_normal((chains, size)) @ proposal.factor.T)
        now = _chosen(np.log(rng.random(chains)) < near.value - now.value, near, now)
        path.append(now)
        accepted.append(taken)
    return path[warmup:], float(np.mean(accepted))


class _Points(NamedTuple):
    """Points, and what was found at each."""

    free: Float[np.ndarray, "point parameter"]
    value: Float[np.ndarray, " point"]
    """ln posterior."""
    natural: dict[str, Float[np.ndarray, " point"]]

    def part(self, rows: Int[np.ndarray, " row"]) -> _Points:
        """Some of them."""
        return _Points(*jax.tree.map(lambda x: x[rows], tuple(self)))


def _chosen(taken: Bool[np.ndarray, " point"], new: _Points, old: _Points) -> _Points:
    def either(a: np.ndarray, b: np.ndarray) -> np.ndarray:
        return np.where(taken.reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return _Points(*jax.tree.map(either, tuple(new), tuple(old)))


def bounded(free: Float[Array, " parameter"], *, model: str) -> tuple[dict[str, Array], Float[Array, ""]]:
    """Parameters at a point of the free coordinates, and ln of the prior's density there, in those coordinates."""
    from numpyro.distributions import biject_to

    at, density = {}, jnp.zeros(())
    for x, (name, prior) in zip(free, priors(model).items(), strict=True):
        onto = biject_to(prior.support)
        at[name] = onto(x)
        density += prior.log_prob(at[name]) + onto.log_abs_det_jacobian(x, at[name])
    return at, density


def _log_posterior(
    free: Float[Array, " parameter"], y: Float[Array, " day"], top: Float[Array, ""], *, model: str, n_cells: int
) -> tuple[Float[Array, ""], dict[str, Array]]:
    """At a point of the free coordinates; and the parameters there, with today's variance."""
    at, prior = bounded(free, model=model)
    found = seen(law_of(at), y, top, n_cells=n_cells)
    return prior + found.log_density.sum(), at | {"variance": found.weight[-1] @ cells(top, n_cells) ** 2}


@partial(jax.jit, static_argnames=("model", "n_cells"))
def _minus(
    free: Float[Array, " parameter"], y: Float[Array, " day"], top: Float[Array, ""], *, model: str, n_cells: int
) -> tuple[Float[Array, ""], Float[Array, " parameter"]]:
    """−ln posterior and its slope."""
    return jax.value_and_grad(lambda x: -_log_posterior(x, y, top, model=model, n_cells=n_cells)[0])(free)


@partial(jax.jit, static_argnames=("model", "n_cells"))
def _evaluated(
    free: Float[Array, "point parameter"], y: Float[Array, " day"], top: Float[Array, ""], *, model: str, n_cells: int
) -> tuple[Float[Array, " point"], dict[str, Array]]:
    return jax.vmap(lambda x: _log_posterior(x, y, top, model=model, n_cells=n_cells))(free)


class _Proposal(NamedTuple):
    """Multivariate Student's t of `TAIL` degrees of freedom."""

    centre: Float[np.ndarray, " parameter"]
    factor: Float[np.ndarray, "parameter parameter"]
    """A root of the scale."""

    def draw(self, n: int, rng: np.random.Generator) -> Float[np.ndarray, "point parameter"]:
        noise = rng.standard_normal((n, len(self.centre))) / np.sqrt(rng.chisquare(TAIL, (n, 1)) / TAIL)
        return self.centre + noise @ self.factor.T

    def log_density(self, x: Float[np.ndarray, "point parameter"]) -> Float[np.ndarray, " point"]:
        """But for a constant."""
        distance = np.sum(np.linalg.solve(self.factor, (x - self.centre).T) ** 2, axis=0)
        return -0.5 * (TAIL + x.shape[1]) * np.log1p(distance / TAIL)


def _around(free: Float[np.ndarray, "point parameter"]) -> _Proposal:
    """A proposal of the draws' mean and, `WIDER`, their covariance, which is ν/(ν − 2) times a t's scale."""
    covariance = np.cov(free.T) + 1e-6 * np.eye(free.shape[1])
    return _Proposal(free.mean(axis=0), np.linalg.cholesky(WIDER * (TAIL - 2) / TAIL * covariance))


def _mode(y: Array, top: Array, model: str) -> tuple[_Proposal, int]:
    """A proposal at the posterior's mode, of its curvature there; and the cells that the law there needs."""
    from numpyro.distributions import biject_to

    def slope(n_cells: int) -> Callable[[np.ndarray], tuple[float, np.ndarray]]:
        def at(x: Float[np.ndarray, " parameter"]) -> tuple[float, np.ndarray]:
            value, gradient = jax.device_get(_minus(jnp.asarray(x), y, top, model=model, n_cells=n_cells))
            return float(value), gradient

        return at

    start = np.array([float(biject_to(p.support).inv(jnp.asarray(START[name]))) for name, p in priors(model).items()])
    rough = optimize.minimize(slope(FIRST_CELLS), start, jac=True, method="BFGS", options={"gtol": 0.1}).x
    n_cells = _n_cells(rough, model, float(top))
    fine = slope(max(n_cells, FIRST_CELLS))
    mode = optimize.minimize(fine, rough, jac=True, method="BFGS", options={"gtol": 0.02}).x
    steps = DIFFERENCE * np.eye(len(mode))
    hessian = np.array([(fine(mode + e)[1] - fine(mode - e)[1]) / (2 * DIFFERENCE) for e in steps])
    curvature, axis = np.linalg.eigh((hessian + hessian.T) / 2)
    return _Proposal(mode, axis * np.sqrt(WIDER / np.maximum(curvature, LEAST_CURVATURE))), n_cells


def _top(y: Float[np.ndarray, " day"]) -> float:
    """√v that no day comes near: twice the largest smoothed size of the returns."""
    size, level = np.abs(y), float(np.mean(np.abs(y)))
    largest = level
    for move in size:
        level = 0.94 * level + 0.06 * float(move)
        largest = max(largest, level)
    return max(4.0, 2.5 * largest)


def _n_cells(free: Float[np.ndarray, " parameter"], model: str, top: float) -> int:
    """As many cells as a point needs, and the smaller noise of its neighbours."""
    law = law_of(bounded(jnp.asarray(free), model=model)[0])
    width = float(law.vol_of_variance * jnp.sqrt(1 - law.rho**2) / 2)
    return int(np.clip(CELL_STEP * np.ceil(1.25 * top / width / CELL_STEP), LEAST_CELLS, MOST_CELLS))
