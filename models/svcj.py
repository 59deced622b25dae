"""SVCJ's jumps: price and variance jump together, in all underlyings at once.

Duffie, Pan and Singleton (2000), "Transform analysis and asset pricing for affine jump-diffusions", Econometrica 68;
estimated by Eraker, Johannes and Polson (2003), "The impact of jumps in volatility and returns", Journal of Finance 58.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float

from pmvar.models.jumps import most_jumps, poisson, refused
from pmvar.models.specification import ModelSpecification

KEYS = ("mean", "deviation", "variance_mean", "correlation")


class VarianceJumps(eqx.Module):
    """N ~ Poisson(λt); J_v = μ_v·E_k, E_k exponential of mean 1 and common to all underlyings: a crash lifts all
    variances; J_s = μ_s + ρ_J·J_v + σ_s·ζ, ζ each underlying's own."""

    intensity: Float[Array, ""]
    """λ, jumps a year."""
    price_mean: Float[Array, " underlying"]
    """μ_s."""
    price_deviation: Float[Array, " underlying"]
    variance_mean: Float[Array, " underlying"]
    """μ_v."""
    jump_correlation: Float[Array, " underlying"]
    """ρ_J."""
    most: int = eqx.field(static=True)
    """Jumps that one step can hold."""

    def dimension(self) -> int:
        """Count, exponentials, ζ."""
        return 1 + self.most + self.price_mean.shape[0]

    def draw(
        self, normal: Float[Array, " dimension"], years: Float[Array, ""]
    ) -> tuple[Float[Array, " underlying"], Float[Array, " underlying"], Float[Array, " source"]]:
        """Jumps of log price and of variance in a step, and how many."""
        count = poisson(normal[0], self.intensity * years, self.most)
        sizes = -log_ndtr(-normal[1 : 1 + self.most])
        total = jnp.sum(jnp.where(jnp.arange(float(self.most)) < count, sizes, 0.0))
        variance = self.variance_mean * total
        own = self.price_deviation * jnp.sqrt(count) * normal[1 + self.most :]
        return count * self.price_mean + self.jump_correlation * variance + own, variance, count[None]

    def compensator(self) -> Float[Array, " underlying"]:
        """λμ̄, μ̄ = E[e^J_s] − 1 = exp(μ_s + σ_s²/2)/(1 − ρ_Jμ_v) − 1."""
        mean = jnp.exp(self.price_mean + self.price_deviation**2 / 2)
        return self.intensity * (mean / (1 - self.jump_correlation * self.variance_mean) - 1)


def variance_jumps(specification: ModelSpecification, underlyings: tuple[str, ...], years: float) -> VarianceJumps:
    """`parameters.jumps`: intensity a year, and by_underlying {u: {mean μ_s, deviation σ_s, variance_mean μ_v,
    correlation ρ_J}}. Raises InputError for what is missing or out of range."""
    given = specification.parameters.get("jumps")
    if not isinstance(given, Mapping) or set(given) != {"intensity", "by_underlying"}:
        raise refused("svcj needs parameters.jumps with intensity and by_underlying", "supply them", "", given)
    by, intensity = given["by_underlying"], _number(given, "intensity")
    if not isinstance(by, Mapping) or set(by) != set(underlyings):
        raise refused("by_underlying names every underlying with a variance", "correct it", "by_underlying", by)
    rows = [{key: _number(by[u], key, f"by_underlying[{u}].") for key in KEYS} for u in underlyings]
    for u, row in zip(underlyings, rows, strict=True):
        if min(intensity, row["deviation"], row["variance_mean"]) < 0:
            raise refused("intensity, deviation and variance_mean must be ≥ 0", "correct the sign", u, row)
        if row["correlation"] * row["variance_mean"] >= 1:
            raise refused("correlation·variance_mean must be below 1: E[e^J] is infinite", "lower it", u, row)
    mean, deviation, variance_mean, correlation = (jnp.asarray([r[key] for r in rows]) for key in KEYS)
    if not intensity * years <= 128:
        raise refused("at most 128 jumps may be expected over the horizon", "lower it", "intensity", intensity)
    most = most_jumps(intensity * years)
    return VarianceJumps(jnp.asarray(intensity), mean, deviation, variance_mean, correlation, most)


def _number(given: Any, key: str, prefix: str = "") -> float:
    value = given.get(key) if isinstance(given, Mapping) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
        raise refused("must be a finite number", "supply it", prefix + key, value)
    return float(value)
