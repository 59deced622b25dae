"""Tuning of importance sampling: for a model and a horizon, offline, on portfolios that no one holds.

What a run's accounts hold must not decide how it samples, or an account's margin would depend on its neighbours. So the
parameters are chosen on reference portfolios in the space of the factors: futures, calls and puts (softened at the
strike, as options with time left are) and vols, in the styles of venues' accounts, drawn from a seed.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Float

from pmvar.kernels.random import run_key, stream
from pmvar.kernels.sobol import scramble_seeds, sobol_uniforms
from pmvar.models import build
from pmvar.models.base import RiskFactorModel
from pmvar.models.sampling import SamplingParameters, leaned
from pmvar.models.specification import ModelSpecification
from pmvar.types import FactorKind

SEED = 20_261_123
PORTFOLIOS = 96
REPLICATES, POINTS = 16, 2048
SOFTNESS = 0.35
"""Width of an option's kink in standard deviations of its underlying."""

NEGLIGIBLE = 1e-3
"""Relative standard errors below this count as this: a hedged portfolio's loss has a bound, and nothing to estimate."""

PLAIN = SamplingParameters()

GRID: tuple[tuple[dict[str, object], ...], ...] = (
    tuple({"mixing_share": s, "mixing_exponent": c} for s in (0.05, 0.15, 0.3, 0.6) for c in (0.3, 0.4)),
    tuple(
        {"inflation": (first, *[rest] * 6)}
        for first, rest in ((1.15, 1.0), (1.2, 1.05), (1.4, 1.05), (1.3, 1.1), (1.5, 1.1))
    ),
    tuple({"count_share": s} for s in (0.1, 0.3, 0.6)),
)
"""One group after the other; what lowers the variance stays."""


def tune(specification: ModelSpecification, steps: float, *, level: float = 0.99) -> SamplingParameters:
    """The parameters of the grid with the least geometric mean variance of the ES over the reference portfolios.

    A candidate under which the 10th-percentile portfolio would do better with plain Monte Carlo is out. What is found
    goes into `sampling` of model.json, as `dataclasses.asdict` gives it.
    """
    law = build(specification, steps)
    at, legs = law.coordinates(), list(_legs(specification))
    best = PLAIN
    found, monte_carlo = _variance(law, steps, PLAIN, legs, level)
    least = np.mean(np.log(found))
    for group, coordinate in zip(GRID, (at.mixing, at.component, at.count), strict=True):
        start = best
        for change in group if coordinate is not None else ():
            candidate = replace(start, **change)  # pyright: ignore[reportArgumentType]
            found, _ = _variance(law, steps, candidate, legs, level)
            if np.percentile(monte_carlo / found, 10) >= 1 and np.mean(np.log(found)) < least:
                best, least = candidate, np.mean(np.log(found))
    return best


Leg = tuple[int, float, float]
"""(factor, side of the payoff (0: linear), strike in standard deviations) scaled by a quantity."""


def _legs(specification: ModelSpecification) -> Iterator[list[tuple[Leg, float]]]:
    """The reference portfolios: one underlying to all of them, in five styles."""
    prices = [i for i, f in enumerate(specification.factors) if f.kind is FactorKind.SPOT]
    vols = {f.underlying: i for i, f in enumerate(specification.factors) if f.kind is FactorKind.VOL}
    rng = np.random.default_rng(SEED)
    for number in range(PORTFOLIOS):
        most = len(prices) if number % 2 else min(3, len(prices))
        legs: list[tuple[Leg, float]] = []
        for price in rng.choice(prices, rng.integers(1, most + 1), replace=False):
            i, k = int(price), float(rng.uniform(0.3, 2.0))
            vol = vols.get(specification.factors[i].underlying)
            legs += {
                0: [((i, 0.0, 0.0), float(rng.choice([-1, 1]) * rng.uniform(0.5, 1.5)))],
                1: [((i, 1.0, k), -1.0), ((i, -1.0, -k), -1.0)],
                2: [((i, 0.0, 0.0), 1.0), ((i, 1.0, k), -1.0)],
                3: [((i, 0.0, 0.0), 1.0), ((i, -1.0, -k), 1.0)],
                4: [((i, side, float(rng.normal())), float(rng.normal())) for side in (0.0, 1.0, -1.0, 1.0, -1.0)],
            }[number % 5]
            if vol is not None and number % 5 in (1, 4):
                legs.append(((vol, 0.0, 0.0), float(0.3 * rng.normal())))
        yield legs


def _variance(
    law: RiskFactorModel,
    steps: float,
    parameters: SamplingParameters,
    legs: list[list[tuple[Leg, float]]],
    level: float,
) -> tuple[Float[np.ndarray, " portfolio"], Float[np.ndarray, " portfolio"]]:
    """Variance of each portfolio's ES by its replicates, and were the paths independent."""
    x, weight = (np.asarray(part) for part in _paths(law, law.n_steps(steps), steps, parameters))
    # Medians of |x| scale factors whose variance the weights would have to give back.
    x = x / np.maximum(1.5 * np.median(np.abs(x), axis=0), 1e-12)
    out, independent = np.empty(len(legs)), np.empty(len(legs))
    n_tail = len(x) * (1 - level)
    replicate = np.arange(len(x)) // POINTS
    for p, portfolio in enumerate(legs):
        loss = np.zeros(len(x))
        for (factor, side, strike), quantity in portfolio:
            y = x[:, factor] - strike
            payoff = y if side == 0 else SOFTNESS * np.logaddexp(0, side * y / SOFTNESS)
            loss -= quantity * payoff
        order = np.argsort(-loss)
        var = loss[order[np.searchsorted(np.cumsum(weight[order]), n_tail)]]
        excess = weight * np.maximum(loss - var, 0) / (1 - level)
        by_replicate = np.bincount(replicate, excess, minlength=REPLICATES) / POINTS
        negligible = (NEGLIGIBLE * (abs(var) + excess.mean())) ** 2
        out[p] = max(np.var(by_replicate, ddof=1) / REPLICATES, negligible)
        independent[p] = max(np.var(excess) / len(x), negligible)
    return out, independent


def _paths(
    law: RiskFactorModel, n_steps: int, steps: float, parameters: SamplingParameters
) -> tuple[Float[Array, "path factor"], Float[Array, " path"]]:
    """x of all paths, replicate after replicate, and their weights."""
    # Kernels of their own: what does not change from one candidate to the next is compiled once.
    z, weight = leaned(_normals(n_steps, law.dimension()), law.coordinates(), parameters)
    return _shocks(law, jnp.float64(steps), z), weight


@partial(jax.jit, static_argnums=(0, 1))
def _normals(n_steps: int, dimension: int) -> Float[Array, "path step dimension"]:
    keys = jnp.stack([stream(run_key(SEED), r) for r in range(REPLICATES)])
    seeds = jax.vmap(lambda key: scramble_seeds(key, n_steps * dimension))(keys)
    u = jax.vmap(jax.vmap(sobol_uniforms, (0, None)), (None, 0))(jnp.arange(POINTS, dtype=jnp.uint32), seeds)
    return ndtri(u).reshape(REPLICATES * POINTS, n_steps, dimension)


@eqx.filter_jit
def _shocks(
    law: RiskFactorModel, steps: Float[Array, ""], z: Float[Array, "path step dimension"]
) -> Float[Array, "path factor"]:
    def one(z: Array) -> Array:
        path = law.path(z, steps)
        return (path.diffusion + path.jump).sum(axis=0)

    return jax.vmap(one)(z)
