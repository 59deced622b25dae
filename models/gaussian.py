"""Gaussian: jointly normal x, the law every other model is measured against."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Float

from pmvar.models.base import PathShock, RiskFactorModel, principal_loading
from pmvar.models.price_map import NormalMixture
from pmvar.models.specification import ModelSpecification


class Gaussian(RiskFactorModel):
    """x = σ√h·LΞ in one step of length h."""

    volatility: Float[Array, " factor"]
    loading: Float[Array, "factor component"]

    def dimension(self) -> int:
        """One uniform per principal component."""
        return self.loading.shape[1]

    def path(self, uniform: Float[Array, " dimension"], steps: Float[Array, ""]) -> PathShock:
        """See the base."""
        deviation = self.volatility * jnp.sqrt(steps)
        shock = deviation * (self.loading @ ndtri(uniform))
        return PathShock(shock[None], deviation[None], jnp.ones(()))

    def marginal(self, steps: float) -> NormalMixture:
        """One normal."""
        return NormalMixture(np.asarray(self.volatility)[:, None] * np.sqrt(steps), np.ones(1))


def gaussian(specification: ModelSpecification) -> Gaussian:
    """The Gaussian model of a specification; degrees of freedom are ignored."""
    volatility = np.array([f.volatility for f in specification.factors])
    return Gaussian(jnp.asarray(volatility), jnp.asarray(principal_loading(specification)))
