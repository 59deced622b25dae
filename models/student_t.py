"""Student-t innovations with one mixing uniform: all factors crash together, each with its own tail, some skewed."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import special

from pmvar.errors import InputError, Problem
from pmvar.kernels.mixing import U_MIN, U_MIN_EXP, Z_MAX, log_mixing, log_mixing_coefficients
from pmvar.models.base import Coordinates
from pmvar.models.composed import Innovation, InnovationLaw
from pmvar.models.correlation import principal_loading
from pmvar.models.price_map import NormalMixture
from pmvar.models.specification import ModelSpecification
from pmvar.types import PriceMap


class StudentT(InnovationLaw):
    """ε_i = [√((ν_i−2)/ν_i)·√W_i·(LΞ)_i + γ_i(W_i − E W_i)]/√(1 + γ_i²·Var W_i), W_i = ν_i/F⁻¹(U; χ²_ν_i), one U.

    Luo and Shevchenko (2010), "The t copula with multiple parameters of degrees of freedom", Quantitative Finance 10;
    the skew is that of the generalised hyperbolic skew t (McNeil, Frey and Embrechts, Quantitative Risk Management,
    section 6.2.3), which needs ν > 4 for its variance.
    """

    loading: Float[Array, "factor component"]
    inverse_dof: Float[Array, " law"]
    """1/ν of each law: 0 is Gaussian."""
    log_mixing: Float[Array, "degree law"]
    """Chebyshev coefficients of ln W."""
    log_mixing_slope: Float[Array, "degree law"]
    """Their derivatives by 1/ν."""
    law: tuple[int, ...] = eqx.field(static=True)
    """Of each factor."""
    skew: Float[Array, " factor"]
    """γ."""
    u_min: float = eqx.field(static=True)
    """U is truncated here."""

    def dimension(self) -> int:
        """The mixing variable, then one per principal component."""
        return 1 + self.loading.shape[1]

    def coordinates(self) -> Coordinates:
        """See the base."""
        return Coordinates(mixing=0, component=1)

    def owners(self, name: str) -> tuple[int, ...]:
        """Where all factors share one ν it is nobody's."""
        shared = name == "inverse_dof" and self.inverse_dof.shape[0] < len(self.law)
        return () if shared else super().owners(name)

    def draw(self, normal: Float[Array, " dimension"]) -> Innovation:
        """See the base."""
        # The coefficients are constants of the host; their slopes let a derivative by ν through, and add nothing.
        moved = self.inverse_dof - jax.lax.stop_gradient(self.inverse_dof)
        fixed = jax.lax.stop_gradient((self.log_mixing, self.log_mixing_slope))
        log_w = jax.vmap(log_mixing, in_axes=(None, 1))(normal[0], fixed[0] + fixed[1] * moved[None])
        deviation, lean = self._mixed(log_w[np.array(self.law)])
        return Innovation(deviation * (self.loading @ normal[1:]) + lean, deviation)

    def _mixed(self, log_w: Float[Array, " factor"]) -> tuple[Float[Array, " factor"], Float[Array, " factor"]]:
        """Conditional deviation and mean given ln W of each factor; E W = 1/(1−2κ), Var W = 2κ/((1−2κ)²(1−4κ))."""
        inverse = self.inverse_dof[np.array(self.law)]
        # Without a skew ν may be 4 or less, where the variance of W is not needed and does not exist.
        thin = jnp.where(self.skew == 0, 0.0, inverse)
        variance = 2 * thin / ((1 - 2 * thin) ** 2 * (1 - 4 * thin))
        spread = jnp.sqrt(1 + self.skew**2 * variance)
        deviation = jnp.exp(0.5 * (jnp.log1p(-2 * inverse) + log_w)) / spread
        return deviation, self.skew * (jnp.exp(log_w) - 1 / (1 - 2 * inverse)) / spread

    def marginal(self) -> NormalMixture:
        """Gauss–Legendre in z = Φ⁻¹(U) over the range that draws reach, truncated tail included as a point mass."""
        node, weight = _gauss_legendre()
        z_min = float(special.ndtri(self.u_min))
        half = (Z_MAX - z_min) / 2
        z = np.concatenate([[z_min], z_min + half * (node + 1)])
        mass = np.concatenate([[self.u_min], half * weight * np.exp(-0.5 * z[1:] ** 2) / np.sqrt(2 * np.pi)])
        log_w = np.polynomial.chebyshev.chebval(z / Z_MAX, np.asarray(self.log_mixing))[np.array(self.law)]
        deviation, lean = map(np.asarray, jax.vmap(self._mixed, 1, 1)(jnp.asarray(log_w)))
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
    return _student_t(specification, tuple(nu), (0,) * len(specification.factors))


def individuated_t(specification: ModelSpecification) -> StudentT:
    """Own degrees of freedom for each factor (null: infinite), and `parameters.skew`, {factor: γ}."""
    own = tuple(np.inf if f.degrees_of_freedom is None else float(f.degrees_of_freedom) for f in specification.factors)
    return _student_t(specification, own, tuple(range(len(own))))


def _student_t(specification: ModelSpecification, nu: tuple[float, ...], law: tuple[int, ...]) -> StudentT:
    skew = _skew(specification, [nu[i] for i in law])
    coefficients, slopes = mixing_tables(np.array(nu))
    return StudentT(
        loading=jnp.asarray(principal_loading(specification.correlation, specification.importance)),
        inverse_dof=jnp.asarray(1 / np.array(nu)),
        log_mixing=jnp.asarray(coefficients),
        log_mixing_slope=jnp.asarray(slopes),
        law=law,
        skew=jnp.asarray(skew),
        u_min=U_MIN_EXP if specification.price_map is PriceMap.EXP else U_MIN,
    )


def mixing_tables(nu: Float[np.ndarray, " law"]) -> Float[np.ndarray, "2 degree law"]:
    """Chebyshev coefficients of ln W for each ν, and their derivatives by 1/ν."""
    return np.moveaxis(np.array([_coefficients(float(one)) for one in nu]), 0, -1)


@lru_cache(maxsize=4096)
def _coefficients(nu: float) -> tuple[np.ndarray, np.ndarray]:
    """Of ln W, and their derivatives by 1/ν: central differences, one-sided where ν is infinite (ln W is smooth in
    1/√ν there, so that the slope at 0 does not exist and is taken as 0)."""
    at = np.array(log_mixing_coefficients(nu))
    if np.isinf(nu):
        return at, np.zeros_like(at)
    inverse, step = 1 / nu, 1e-5 * min(1 / nu, 0.5 - 1 / nu)
    up, down = (np.array(log_mixing_coefficients(1 / (inverse + s))) for s in (step, -step))
    return at, (up - down) / (2 * step)


def _skew(specification: ModelSpecification, nu: list[float]) -> np.ndarray:
    given = specification.parameters.get("skew", {})
    if not isinstance(given, Mapping):
        raise _refused("skew is {factor: number}", "write it so", "parameters.skew", given)
    for name, value in given.items():
        number = isinstance(value, int | float) and not isinstance(value, bool) and bool(np.isfinite(value))
        if name not in specification.factor_names or not number:
            raise _refused("skew is {factor: number}", "name a factor of the model", f"parameters.skew[{name}]", value)
        if value != 0 and not 4 < nu[specification.factor_names.index(name)] < np.inf:
            rule = "a skewed factor needs finite degrees_of_freedom above 4, where its variance exists"
            raise _refused(rule, "raise them, or drop the skew", f"parameters.skew[{name}]", value)
    return np.array([float(given.get(name, 0.0)) for name in specification.factor_names])


def _refused(rule: str, fix: str, column: str, value: Any) -> InputError:
    return InputError(Problem(rule, fix, file="model.json", column=column, value=str(value)))
