"""Whether a fitted law is that of its own history: probabilities of what came, tails, and joint tails of pairs.

A model is compared as the engine simulates it: margins as the mixtures of normals that the models themselves give,
joint tails on paths of one step.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import special, stats

from pmvar.calibration.calibrate import DRAWN, Calibration, Estimates
from pmvar.calibration.dependence import LEAST_COMMON_DAYS, tail_dependence
from pmvar.errors import UsageError
from pmvar.models import build
from pmvar.models.composed import LEAST_DIFFUSION, ComposedModel
from pmvar.models.jumps import Jumps
from pmvar.models.kou import DoubleExponentialJump
from pmvar.models.price_map import NormalMixture
from pmvar.models.specification import ModelSpecification

PATHS, BATCH = 65_536, 4_096
"""Of one step: the probability of a joint tail of 5% has a standard error of .008 at most."""
JOINT_SHARE = 0.05
"""Of the days, what counts as a tail of one factor."""
NODES = 48
"""Of Gauss–Laguerre's rule for the size of a jump."""
CLASSES = 25
"""Of a filtered σ, equally many days each, over which a law with jumps is averaged."""
_GRID = np.sinh(np.linspace(-np.arcsinh(80.0), np.arcsinh(80.0), 401))
"""Standardised moves between which a quantile is interpolated."""


class Tails(NamedTuple):
    """P(X ≤ x) and P(X ≥ x), each with its own digits."""

    lower: Float[np.ndarray, "*shape"]
    upper: Float[np.ndarray, "*shape"]


class Quantiles(NamedTuple):
    """ln P(Z ≤ z) and ln P(Z ≥ z) on a grid of z, to be read backwards."""

    lower: Float[np.ndarray, " grid"]
    upper: Float[np.ndarray, " grid"]

    def exceeded(self, share: Float[np.ndarray, " point"]) -> Float[np.ndarray, " point"]:
        """z that is exceeded with probability `share`."""
        return np.interp(-np.log(share), -self.upper, _GRID)

    def undercut(self, share: Float[np.ndarray, " point"]) -> Float[np.ndarray, " point"]:
        """z below which Z lies with probability `share`."""
        return np.interp(np.log(share), self.lower, _GRID)


@dataclass(frozen=True)
class StepLaw:
    """Law of one factor's x less its mean over one step, given the σ that was forecast for it."""

    innovation: NormalMixture
    """Of variance 1; of one factor."""
    jumps: NormalMixture
    jump_variance: float

    def tails(self, x: Float[np.ndarray, "*shape"], deviation: Float[np.ndarray, "*shape"]) -> Tails:
        """Probabilities of at most and at least `x` on days of these σ."""
        variance = deviation**2
        scale = np.sqrt(np.maximum(variance - self.jump_variance, LEAST_DIFFUSION * variance))[..., None]
        one = self.innovation
        lower, upper = np.zeros_like(x), np.zeros_like(x)
        mean = np.sum(self.jumps.weight * self.jumps.mean)
        for m, d, w in zip(*(part[0] for part in self.jumps), strict=True):
            z = ((x + mean - m)[..., None] - scale * one.mean[0]) / np.hypot(scale * one.deviation[0], d)
            lower += w * np.sum(one.weight[0] * special.ndtr(z), axis=-1)
            upper += w * np.sum(one.weight[0] * special.ndtr(-z), axis=-1)
        return Tails(lower, upper)

    def pooled(self, deviation: Float[np.ndarray, " day"]) -> Quantiles:
        """Of z = x/σ on a day drawn from those of these σ."""
        sigma = np.unique(np.quantile(deviation, (np.arange(CLASSES) + 0.5) / CLASSES))
        if not self.jump_variance:
            # Nothing but σ scales it.
            sigma = sigma[:1]
        at = self.tails(_GRID[:, None] * sigma, np.broadcast_to(sigma, (len(_GRID), len(sigma))))
        return Quantiles(*(np.log(np.maximum(part.mean(axis=1), 1e-300)) for part in at))


def step_laws(made: Calibration) -> list[StepLaw]:
    """The law of each factor that was fitted, as the model has it.

    Raises UsageError for a model that draws whole past days: its law is the history itself.
    """
    if made.specification.model in DRAWN:
        raise UsageError(f"model {made.specification.model} draws past days: its law is the history itself")
    law = build(made.specification, 1.0)
    assert isinstance(law, ComposedModel), "what is calibrated is composed"
    innovation = law.innovation.marginal()
    assert innovation is not None, "innovations that are not drawn are mixtures of normals"
    n = len(innovation.mean)
    none = NormalMixture(np.zeros((n, 1)), np.zeros((n, 1)), np.ones((n, 1)))
    jumps = none if law.jumps is None else _jumps(law.jumps)
    variance = np.zeros(n) if law.jumps is None else np.asarray(law.jumps.variance(jnp.ones(())))
    return [
        StepLaw(_of(innovation, i), _of(jumps, i), float(variance[i])) for i in range(len(made.estimates.factors))
    ]


def _of(law: NormalMixture, factor: int) -> NormalMixture:
    return NormalMixture(*(np.asarray(part)[factor : factor + 1] for part in law))


def _jumps(jumps: Jumps) -> NormalMixture:
    """Law of the jumps of one step. Double exponential sizes by Gauss–Laguerre's rule; two on one day and more, which
    is less likely than one day in a thousand, count as normal."""
    known = jumps.marginal(1.0)
    if known is not None:
        return known
    size = jumps.size
    assert isinstance(size, DoubleExponentialJump), "a size is normal or double exponential"
    node, weight = np.polynomial.laguerre.laggauss(NODES)
    p, up, down = (float(v) for v in (size.p, size.up, size.down))
    mean, second = float(size.mean()), float(size.second_moment())
    count = float(jumps.intensity) / jumps.steps_per_year
    one = np.concatenate([node / up, -node / down])
    own = np.concatenate([p * weight, (1 - p) * weight])
    beta, scatter = np.asarray(jumps.loading)[:, None], np.asarray(jumps.scatter)[:, None]
    two = np.hypot(beta * np.sqrt(second - mean**2), scatter) * np.sqrt(2)
    probability = np.concatenate(
        [[np.exp(-count)], count * np.exp(-count) * own / own.sum(), [stats.poisson.sf(1, count)]]
    )
    return NormalMixture(
        np.hstack([0 * beta, beta * one, 2 * beta * mean]),
        np.hstack([0 * scatter, np.broadcast_to(scatter, (len(beta), len(one))), two]),
        np.broadcast_to(probability, (len(beta), len(probability))),
    )


def probabilities(estimates: Estimates, laws: list[StepLaw]) -> Float[np.ndarray, "day factor"]:
    """P(x ≤ the one that came), given the days before: uniform and independent if the law is right (Rosenblatt 1952,
    "Remarks on a multivariate transformation"). NaN where there is no move."""
    out = np.full_like(estimates.x, np.nan)
    for i, law in enumerate(laws):
        there = ~np.isnan(estimates.x[:, i])
        sigma = np.ascontiguousarray(estimates.deviation[:-1][there, i])
        out[there, i] = law.tails(estimates.residual[there, i] * sigma, sigma).lower
    return out


class JointTail(NamedTuple):
    """How often two factors were in their tails together. With a negative correlation: one low, the other high."""

    first: int
    second: int
    n_days: int
    observed: float
    """P(second in its 5% | first in its own), on common days."""
    standard_error: float
    """Binomial, under the model."""
    fitted: float
    """The same on paths of the model."""

    @property
    def distance(self) -> float:
        """Observed less fitted, in standard errors."""
        return (self.observed - self.fitted) / self.standard_error


def joint_tails(made: Calibration) -> list[JointTail]:
    """Of each pair of fitted factors with enough common days, of standardised moves."""
    e, x = made.estimates, one_step(made.specification)
    sign, out = np.sign(e.dependence.correlation), []
    order = [stats.rankdata(column) for column in x[:, : len(e.factors)].T]
    most = JOINT_SHARE * len(x)
    for i, j in zip(*np.triu_indices(len(e.factors), 1), strict=True):
        with_it = sign[i, j] or 1.0
        both = ~np.isnan(e.residual[:, [i, j]]).any(axis=1)
        if both.sum() < LEAST_COMMON_DAYS:
            continue
        observed, _ = tail_dependence(e.residual[both, i], with_it * e.residual[both, j], share=JOINT_SHARE)
        other = order[j] if with_it > 0 else len(x) + 1 - order[j]
        fitted = float(np.sum((order[i] <= most) & (other <= most)) / most)
        n = max(int(JOINT_SHARE * both.sum()), 1)
        # At least that of one day, where paths have hardly any joint tail.
        error = np.sqrt(max(fitted * (1 - fitted), 1 / n) / n)
        out.append(JointTail(int(i), int(j), int(both.sum()), observed, float(error), fitted))
    return out


def one_step(specification: ModelSpecification, *, seed: int = 0) -> Float[np.ndarray, "path factor"]:
    """x of all factors over one step of the plug-in model, without drift."""
    law = build(replace(specification, posterior=None), 1.0)
    shape = (BATCH, law.n_steps(1.0), law.dimension())

    def batch(key: jax.Array) -> jax.Array:
        normal = jax.random.normal(key, shape, jnp.float64)
        path = jax.vmap(lambda z: law.path(z, jnp.ones(())))(normal)
        return jnp.sum(path.diffusion + path.jump, axis=1)

    x = jax.jit(lambda keys: jax.lax.map(batch, keys))(jax.random.split(jax.random.key(seed), PATHS // BATCH))
    return np.asarray(x).reshape(PATHS, -1)
