"""Student-t innovations with one mixing uniform: all factors crash together, each with its own tail, some skewed."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import special

from pmvar.errors import InputError, Problem
from pmvar.kernels.mixing import Z_MAX, Z_MIN_MIXING, log_mixing, log_mixing_coefficients
from pmvar.models.base import Coordinates
from pmvar.models.composed import Innovation, InnovationLaw
from pmvar.models.correlation import principal_loading
from pmvar.models.price_map import NormalMixture
from pmvar.models.specification import ModelSpecification


class StudentT(InnovationLaw):
    """ε_i = [√((ν_i−2)/ν_i)·√W_i·(LΞ)_i + γ_i(W_i − E W_i)]/√(1 + γ_i²·Var W_i), W_i = ν_i/F⁻¹(U; χ²_ν_i), one U.

    Luo and Shevchenko (2010), "The t copula with multiple parameters of degrees of freedom", Quantitative Finance 10;
    the skew is that of the generalised hyperbolic skew t (McNeil, Frey and Embrechts, Quantitative Risk Management,
    section 6.2.3), which needs ν > 4 for its variance.
    """

    loading: Float[Array, "factor component"]
    log_unit_variance: Float[Array, " law"]
    """ln((ν−2)/ν) of each distinct ν."""
    log_mixing: Float[Array, "degree law"]
    """Chebyshev coefficients of ln W."""
    law: tuple[int, ...] = eqx.field(static=True)
    """Of each factor."""
    skew: Float[Array, " factor"]
    """γ."""
    mean_mixing: Float[Array, " law"]
    """E W = ν/(ν−2)."""
    variance_mixing: Float[Array, " law"]
    """Var W = 2ν²/((ν−2)²(ν−4)), 0 where no factor of the law is skewed."""

    def dimension(self) -> int:
        """The mixing variable, then one per principal component."""
        return 1 + self.loading.shape[1]

    def coordinates(self) -> Coordinates:
        """See the base."""
        return Coordinates(mixing=0, component=1)

    def draw(self, normal: Float[Array, " dimension"]) -> Innovation:
        """See the base."""
        at = np.array(self.law)
        log_w = log_mixing(normal[0], self.log_mixing)
        spread = jnp.sqrt(1 + self.skew**2 * self.variance_mixing[at])
        deviation = jnp.exp(0.5 * (self.log_unit_variance + log_w))[at] / spread
        lean = self.skew * (jnp.exp(log_w) - self.mean_mixing)[at] / spread
        return Innovation(deviation * (self.loading @ normal[1:]) + lean, deviation)

    def marginal(self) -> NormalMixture:
        """Gauss–Legendre in z = Φ⁻¹(U) over the range that draws reach, truncated tail included as a point mass."""
        node, weight = _gauss_legendre()
        half = (Z_MAX - Z_MIN_MIXING) / 2
        z = np.concatenate([[Z_MIN_MIXING], Z_MIN_MIXING + half * (node + 1)])
        mass = np.concatenate(
            [[special.ndtr(Z_MIN_MIXING)], half * weight * np.exp(-0.5 * z[1:] ** 2) / np.sqrt(2 * np.pi)]
        )
        at, skew = np.array(self.law), np.asarray(self.skew)[:, None]
        log_w = np.polynomial.chebyshev.chebval(z / Z_MAX, np.asarray(self.log_mixing))
        spread = np.sqrt(1 + skew**2 * np.asarray(self.variance_mixing)[at, None])
        deviation = np.exp(0.5 * (np.asarray(self.log_unit_variance)[:, None] + log_w))[at] / spread
        lean = skew * (np.exp(log_w) - np.asarray(self.mean_mixing)[:, None])[at] / spread
        return NormalMixture(lean, deviation, np.broadcast_to(mass / mass.sum(), lean.shape))


@lru_cache(maxsize=1)
def _gauss_legendre() -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights on (−1, 1): the eigenvalues behind them take as long as drawing ten thousand paths."""
    return np.polynomial.legendre.leggauss(200)


def student_t(specification: ModelSpecification) -> StudentT:
    """The innovations of model `t`, whose factors must share their degrees of freedom (null: infinite)."""
    nu = {np.inf if f.degrees_of_freedom is None else float(f.degrees_of_freedom) for f in specification.factors}
    if len(nu) > 1:
        fix = "give all factors the same, or use t-multi"
        raise _refused("model t has one number of degrees of freedom", fix, "factors.degrees_of_freedom", sorted(nu))
    return individuated_t(specification)


def individuated_t(specification: ModelSpecification) -> StudentT:
    """Own degrees of freedom for each factor (null: infinite), and `parameters.skew`, {factor: γ}."""
    own = [np.inf if f.degrees_of_freedom is None else float(f.degrees_of_freedom) for f in specification.factors]
    skew = _skew(specification, own)
    nu = sorted(set(own))
    law = tuple(nu.index(v) for v in own)
    dof = np.array(nu)
    skewed = np.isin(np.arange(len(nu)), [i for i, g in zip(law, skew, strict=True) if g != 0])
    variance = np.where(skewed, 2 / ((1 - 2 / dof) ** 2 * np.where(skewed, dof - 4, 1.0)), 0.0)
    return StudentT(
        loading=jnp.asarray(principal_loading(specification.correlation)),
        log_unit_variance=jnp.asarray(np.log1p(-2 / dof)),
        log_mixing=jnp.asarray(np.array([log_mixing_coefficients(v) for v in nu]).T),
        law=law,
        skew=jnp.asarray(skew),
        mean_mixing=jnp.asarray(1 / (1 - 2 / dof)),
        variance_mixing=jnp.asarray(np.where(np.isinf(dof), 0.0, variance)),
    )


def _skew(specification: ModelSpecification, nu: list[float]) -> np.ndarray:
    given = specification.parameters.get("skew", {})
    for name, value in given.items():
        if name not in specification.factor_names or isinstance(value, bool) or not isinstance(value, int | float):
            raise _refused("skew is {factor: number}", "name a factor of the model", f"parameters.skew[{name}]", value)
        if value != 0 and not 4 < nu[specification.factor_names.index(name)] < np.inf:
            rule = "a skewed factor needs finite degrees_of_freedom above 4, where its variance exists"
            raise _refused(rule, "raise them, or drop the skew", f"parameters.skew[{name}]", value)
    return np.array([float(given.get(name, 0.0)) for name in specification.factor_names])


def _refused(rule: str, fix: str, column: str, value: Any) -> InputError:
    return InputError(Problem(rule, fix, file="model.json", column=column, value=str(value)))
