"""RiskFactorModel: the one interface that every joint law of spot and vol factors has."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import numpy as np
from jaxtyping import Array, Float

from pmvar.errors import NumericsError
from pmvar.models.price_map import NormalMixture
from pmvar.models.specification import ModelSpecification

EIGENVALUE_TOLERANCE = 1e-8
"""Eigenvalues of a correlation matrix down to minus this count as rounding of a singular one."""


class PathShock(NamedTuple):
    """One path of the factors' x, before drift and price map."""

    shock: Float[Array, "step factor"]
    deviation: Float[Array, "step factor"]
    """Conditional standard deviation of the diffusive part of each step, given all mixing variables: what a bridge
    inside the step needs."""
    weight: Float[Array, ""]
    """Likelihood ratio, 1 for plain Monte Carlo."""


class RiskFactorModel(eqx.Module):
    """A joint law of all factors over a horizon. Abstract; a concrete model is final.

    A path is a pure function of its uniforms, so a model holds no random state.
    """

    volatility: eqx.AbstractVar[Float[Array, " factor"]]
    """Standard deviation of x over one step."""
    loading: eqx.AbstractVar[Float[Array, "factor component"]]
    """L with LLᵀ the correlation, columns in order of falling variance."""

    @abstractmethod
    def dimension(self) -> int:
        """Number of uniforms a path takes."""

    @abstractmethod
    def path(self, uniform: Float[Array, " dimension"], steps: Float[Array, ""]) -> PathShock:
        """One path over a horizon of `steps` model steps (a fraction is allowed)."""

    @abstractmethod
    def marginal(self, steps: float) -> NormalMixture:
        """The exact marginal law of each factor's x after `steps` model steps; on the host."""


def principal_loading(specification: ModelSpecification) -> np.ndarray:
    """L with LLᵀ = correlation: principal components, largest first, each with its largest entry positive.

    Works for singular matrices. Raises NumericsError if the matrix is not positive semi-definite.
    """
    value, vector = np.linalg.eigh(specification.correlation)
    if value[0] < -EIGENVALUE_TOLERANCE:
        raise NumericsError(
            f"model.json: the correlation matrix is not positive semi-definite, smallest eigenvalue {value[0]:.3g}; "
            "replace it by the nearest correlation matrix"
        )
    value, vector = np.maximum(value, 0.0)[::-1], vector[:, ::-1]
    largest = vector[np.argmax(np.abs(vector), axis=0), np.arange(len(value))]
    loading = vector * np.where(largest < 0, -1.0, 1.0) * np.sqrt(value)
    # Clipping a rounding error must not leave a variance that differs from 1.
    return loading / np.sqrt(np.sum(loading**2, axis=1, keepdims=True))
