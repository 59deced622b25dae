"""Gaussian innovations: jointly normal, the law every other is measured against."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmvar.models.base import Coordinates
from pmvar.models.composed import Innovation, InnovationLaw
from pmvar.models.correlation import principal_loading
from pmvar.models.price_map import NormalMixture
from pmvar.models.specification import ModelSpecification


class Gaussian(InnovationLaw):
    """ε = LΞ."""

    loading: Float[Array, "factor component"]

    def dimension(self) -> int:
        """One normal per principal component."""
        return self.loading.shape[1]

    def coordinates(self) -> Coordinates:
        """See the base."""
        return Coordinates(component=0)

    def draw(self, normal: Float[Array, " dimension"]) -> Innovation:
        """See the base."""
        return Innovation(self.loading @ normal, jnp.ones(self.loading.shape[0]))

    def marginal(self) -> NormalMixture:
        """One normal."""
        one = np.ones((self.loading.shape[0], 1))
        return NormalMixture(0 * one, one, one)


def gaussian(specification: ModelSpecification) -> Gaussian:
    """The Gaussian innovations of a specification; degrees of freedom are ignored."""
    return Gaussian(jnp.asarray(principal_loading(specification.correlation, specification.importance)))
