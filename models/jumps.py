"""Jumps: a systemic compound Poisson that every factor takes its part of, and one of each factor's own."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Float
from scipy import stats

from pmvar.errors import InputError, Problem
from pmvar.models.price_map import NormalMixture
from pmvar.models.specification import ModelSpecification
from pmvar.types import FactorKind

RARE = 1e-10
"""Probability of more jumps in a step than a path can hold, below the resolution of its uniforms."""

MOST = 256
"""Largest number of jumps that one step may need room for; so many are a diffusion."""

TERMS = 24
"""Poisson probabilities beyond the largest count that its survival function adds up."""


class JumpSize(eqx.Module):
    """The law of one jump J, or of one of each factor. Abstract; a concrete law is final."""

    @abstractmethod
    def dimension(self, most: int) -> int:
        """Normals that the sum of up to `most` jumps takes."""

    @abstractmethod
    def total(self, count: Float[Array, ""], normal: Float[Array, " dimension"]) -> Float[Array, ""]:
        """J₁ + … + J_count."""

    @abstractmethod
    def mean(self) -> Float[Array, "*factor"]:
        """E J."""

    @abstractmethod
    def second_moment(self) -> Float[Array, "*factor"]:
        """E J²."""

    @abstractmethod
    def normal(self) -> tuple[Float[np.ndarray, "*factor"], Float[np.ndarray, "*factor"]] | None:
        """Mean and deviation where J is normal, else None; on the host."""


class Jumps(eqx.Module):
    """Σ_{k≤N} (β_i·J_k + η_ik) + Σ_{k≤N_i} J_ik: N common to all factors, η ~ N(0, s_i²), J_ik by a law of its own."""

    size: JumpSize
    intensity: Float[Array, ""]
    """λ of N, jumps a year."""
    loading: Float[Array, " factor"]
    """β."""
    scatter: Float[Array, " factor"]
    """s."""
    own_intensity: Float[Array, " factor"]
    own_size: JumpSize
    """Its arrays are by factor."""
    most: int = eqx.field(static=True)
    """Systemic jumps that one step can hold."""
    own_most: int = eqx.field(static=True)
    """0 where no factor has jumps of its own."""
    scattered: bool = eqx.field(static=True)
    steps_per_year: int = eqx.field(static=True)

    def dimension(self) -> int:
        """Count, sizes, scatter, own counts, own sizes."""
        n = self.loading.shape[0]
        own = n * (1 + self.own_size.dimension(self.own_most)) if self.own_most else 0
        return 1 + self.size.dimension(self.most) + n * self.scattered + own

    def draw(
        self, normal: Float[Array, " dimension"], steps: Float[Array, ""]
    ) -> tuple[Float[Array, " factor"], Float[Array, " source"]]:
        """The jumps of `steps` model steps, and how many: systemic, then each factor's own."""
        years = steps / self.steps_per_year
        n, d = self.loading.shape[0], 1 + self.size.dimension(self.most)
        count = poisson(normal[0], self.intensity * years, self.most)
        jump = self.loading * self.size.total(count, normal[1:d])
        if self.scattered:
            jump = jump + self.scatter * jnp.sqrt(count) * normal[d : d + n]
        if not self.own_most:
            return jump, jnp.concatenate([count[None], jnp.zeros(n)])
        place = d + n * self.scattered
        own = jax.vmap(lambda z, mean: poisson(z, mean, self.own_most))(
            normal[place : place + n], self.own_intensity * years
        )
        total = jax.vmap(lambda size, count, z: size.total(count, z))
        jump = jump + total(self.own_size, own, normal[place + n :].reshape(n, -1))
        return jump, jnp.concatenate([count[None], own])

    def mean(self, steps: Float[Array, ""]) -> Float[Array, " factor"]:
        """Expectation over `steps` model steps."""
        years = steps / self.steps_per_year
        return years * (self.intensity * self.loading * self.size.mean() + self.own_intensity * self.own_size.mean())

    def variance(self, steps: Float[Array, ""]) -> Float[Array, " factor"]:
        """λE[(βJ + η)²] + λ_i E[J_i²] over `steps` model steps."""
        years = steps / self.steps_per_year
        systemic = self.loading**2 * self.size.second_moment() + self.scatter**2
        return years * (self.intensity * systemic + self.own_intensity * self.own_size.second_moment())

    def marginal(self, steps: float) -> NormalMixture | None:
        """Merton's mixture over the counts, where sizes are normal."""
        law, own, years = self.size.normal(), self.own_size.normal(), steps / self.steps_per_year
        if law is None or own is None:
            return None
        beta, scatter = np.asarray(self.loading)[:, None], np.asarray(self.scatter)[:, None]
        systemic = _mixture(
            np.full(len(beta), float(self.intensity) * years),
            beta * law[0],
            np.hypot(beta * law[1], scatter),
            self.most,
        )
        if not self.own_most:
            return systemic
        rate = np.asarray(self.own_intensity) * years
        return systemic.times(_mixture(rate, own[0][:, None], own[1][:, None], self.own_most))


def _mixture(mean_count: np.ndarray, mean: np.ndarray, deviation: np.ndarray, most: int) -> NormalMixture:
    count = np.arange(most + 1.0)
    weight = stats.poisson.pmf(count, mean_count[:, None])
    weight[:, -1] += stats.poisson.sf(most, mean_count)
    return NormalMixture(count * mean, np.sqrt(count) * deviation, weight)


def poisson(z: Float[Array, ""], mean: Float[Array, ""], most: int) -> Float[Array, ""]:
    """The Poisson count at the quantile Φ(z), at most `most`; no derivative: an intensity's is a likelihood ratio."""
    mean = jax.lax.stop_gradient(mean)
    ratio = mean / jnp.arange(1.0, most + TERMS)
    mass = jnp.exp(-mean) * jnp.concatenate([jnp.ones(1), jnp.cumprod(ratio)])
    # From the small end, so that a probability of 1e-12 keeps its digits.
    survival = jnp.cumsum(mass[::-1])[::-1][1 : most + 1]
    return jnp.sum(jnp.where(z > -ndtri(jnp.minimum(survival, 1.0)), 1.0, 0.0))


def most_jumps(mean: float) -> int:
    """The least count that a Poisson variable exceeds with probability below `RARE`, at least 1."""
    return max(1, int(stats.poisson.isf(RARE, mean)) + 1)


def jumps(specification: ModelSpecification, steps: float, size: JumpSize, own_size: JumpSize) -> Jumps:
    """What `parameters.jumps` says, for steps of up to `steps` model steps.

    {intensity, mean, deviation | up_probability, up_rate, down_rate, loading: {factor: β}, scatter: {factor: s},
    own: {factor: {intensity, and the numbers of a size}}}; intensities a year. β is 1 for a price and 0 for a vol that
    is not listed. Raises InputError for what is missing or out of range, and where jumps alone exceed a variance.
    """
    given, factors = specification.parameters["jumps"], specification.factors
    beta = _by_factor(specification, "loading", (int, float))
    scatter = _by_factor(specification, "scatter", (int, float))
    years = steps / specification.steps_per_year
    intensity = _number(given, "intensity")
    (own_intensity,) = own_numbers(specification, ("intensity",))
    # β may be negative: a vol rises where prices jump down.
    if min(intensity, *scatter.values(), *own_intensity) < 0:
        raise refused("intensities and scatter must be ≥ 0", "correct the sign", "", given)
    # Compared before it is inverted: the quantile of a huge Poisson variable is a number too, and an array's length.
    if not max(intensity, own_intensity.max()) * years < MOST / 2:
        rule = f"more than {MOST // 2} jumps are expected within {steps:g} steps; so many are a diffusion"
        raise refused(rule, "intensities are jumps a year: lower them", "intensity", max(intensity, *own_intensity))
    found = Jumps(
        size=size,
        intensity=jnp.asarray(intensity),
        loading=jnp.asarray([float(beta.get(f.name, f.kind is FactorKind.SPOT)) for f in factors]),
        scatter=jnp.asarray([float(scatter.get(f.name, 0.0)) for f in factors]),
        own_intensity=jnp.asarray(own_intensity),
        own_size=own_size,
        most=most_jumps(intensity * years),
        own_most=most_jumps(own_intensity.max() * years) if own_intensity.max() > 0 else 0,
        scattered=any(scatter.values()),
        steps_per_year=specification.steps_per_year,
    )
    one_step = np.asarray(found.variance(jnp.ones(())))
    for f, variance in zip(factors, one_step, strict=True):
        if variance > f.volatility**2:
            rule = (
                f"the jumps of {f.name} alone have a deviation of {np.sqrt(variance):.4g} a step, above its volatility"
            )
            raise refused(rule, "volatility holds all sources together: raise it, or lower the jumps", "", f.volatility)
    return found


def _by_factor(specification: ModelSpecification, key: str, kind: Any) -> Mapping[str, Any]:
    given = specification.parameters["jumps"].get(key, {})
    sound = isinstance(given, Mapping) and all(isinstance(v, kind) and not isinstance(v, bool) for v in given.values())
    sound = sound and (kind is Mapping or bool(np.all(np.isfinite(list(given.values())))))
    if not sound or not set(given) <= set(specification.factor_names):
        raise refused(f"{key} is by factor of the model", "correct names and values", key, given)
    return given


def own_numbers(
    specification: ModelSpecification, keys: tuple[str, ...], *, blank: float = 0.0
) -> list[Float[np.ndarray, " factor"]]:
    """What `parameters.jumps.own` says, an array for each key; `blank` of a factor without jumps of its own."""
    own, names = _by_factor(specification, "own", Mapping), specification.factor_names
    return [
        np.array([_number(own[name], key, f"own[{name}].") if name in own else blank for name in names]) for key in keys
    ]


def own_sizes(specification: ModelSpecification, keys: tuple[str, ...], *, blank: float) -> list[np.ndarray]:
    """As `own_numbers`, of what describes a size. Raises InputError for other keys: all own jumps are of one kind."""
    for name, row in _by_factor(specification, "own", Mapping).items():
        if not set(row) <= {"intensity", *keys}:
            fix = "correct the keys; own jumps of all factors are of one kind"
            raise refused(f"own jumps have intensity, {', '.join(keys)}", fix, f"own[{name}]", dict(row))
    return own_numbers(specification, keys, blank=blank)


def _number(given: Mapping[str, Any], key: str, prefix: str = "") -> float:
    value = given.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise refused("must be a finite number", "supply it", prefix + key, value)
    return float(value)


def refused(rule: str, fix: str, column: str, value: object) -> InputError:
    """The error for a bad entry of `parameters.jumps`."""
    return InputError(
        Problem(rule, fix, file="model.json", column=f"parameters.jumps.{column}", value=str(value)[:100])
    )


def required(specification: ModelSpecification, keys: tuple[str, ...]) -> list[float]:
    """Numbers of the systemic jump size. Raises InputError where `parameters.jumps` lacks one or has unknown keys."""
    given = specification.parameters.get("jumps")
    known = {"intensity", "loading", "scatter", "own", *keys}
    if not isinstance(given, Mapping) or not set(given) <= known:
        rule = f"model {specification.model} needs parameters.jumps with {', '.join(sorted(known))}"
        raise refused(rule, "supply them", "", given)
    return [_number(given, key) for key in keys]
