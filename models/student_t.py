"""Multivariate Student-t with one number of degrees of freedom: all factors crash together."""

from __future__ import annotations

from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri
from jaxtyping import Array, Float
from scipy import special

from pmvar.errors import InputError, Problem
from pmvar.kernels.mixing import Z_MAX, Z_MIN_MIXING, log_mixing, log_mixing_coefficients
from pmvar.models.base import PathShock, RiskFactorModel, principal_loading
from pmvar.models.price_map import NormalMixture
from pmvar.models.specification import ModelSpecification


class StudentT(RiskFactorModel):
    """x = σ√h·√((ν−2)/ν)·√W·LΞ in one step of length h, W = ν/χ²_ν common to all factors; unit variance before σ."""

    volatility: Float[Array, " factor"]
    loading: Float[Array, "factor component"]
    log_unit_variance: Float[Array, ""]
    """ln((ν−2)/ν)."""
    log_mixing: Float[Array, " degree"]
    """Chebyshev coefficients of ln W."""

    def dimension(self) -> int:
        """The mixing uniform, then one per principal component."""
        return 1 + self.loading.shape[1]

    def path(self, uniform: Float[Array, " dimension"], steps: Float[Array, ""]) -> PathShock:
        """See the base."""
        z = ndtri(uniform)
        mixing = jnp.exp(0.5 * (self.log_unit_variance + log_mixing(z[0], self.log_mixing)))
        deviation = self.volatility * (jnp.sqrt(steps) * mixing)
        return PathShock((deviation * (self.loading @ z[1:]))[None], deviation[None], jnp.ones(()))

    def marginal(self, steps: float) -> NormalMixture:
        """Gauss–Legendre in z = Φ⁻¹(U) over the range that draws reach, truncated tail included as a point mass."""
        node, weight = _gauss_legendre()
        half = (Z_MAX - Z_MIN_MIXING) / 2
        z = np.concatenate([[Z_MIN_MIXING], Z_MIN_MIXING + half * (node + 1)])
        mass = np.concatenate(
            [[special.ndtr(Z_MIN_MIXING)], half * weight * np.exp(-0.5 * z[1:] ** 2) / np.sqrt(2 * np.pi)]
        )
        log_w = np.polynomial.chebyshev.chebval(z / Z_MAX, np.asarray(self.log_mixing))
        mixing = np.exp(0.5 * (float(self.log_unit_variance) + log_w))
        return NormalMixture(np.asarray(self.volatility)[:, None] * np.sqrt(steps) * mixing, mass / mass.sum())


@lru_cache(maxsize=1)
def _gauss_legendre() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on (−1, 1): the eigenvalues behind them take as long as drawing ten thousand paths."""
    return np.polynomial.legendre.leggauss(200)


def student_t(specification: ModelSpecification) -> StudentT:
    """The t model of a specification, whose factors must share their degrees of freedom (null: infinite)."""
    nu = {np.inf if f.degrees_of_freedom is None else float(f.degrees_of_freedom) for f in specification.factors}
    if len(nu) > 1:
        raise InputError(
            Problem(
                "model t has one number of degrees of freedom",
                "give all factors the same",
                file="model.json",
                column="factors.degrees_of_freedom",
                value=str(sorted(nu)),
            )
        )
    (dof,) = nu
    volatility = np.array([f.volatility for f in specification.factors])
    return StudentT(
        jnp.asarray(volatility),
        jnp.asarray(principal_loading(specification)),
        jnp.asarray(np.log1p(-2 / dof)),
        jnp.asarray(log_mixing_coefficients(dof)),
    )
