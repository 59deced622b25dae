"""ln W of a Student-t: the polynomial against χ² quantiles, its truncation, and its limits."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
from scipy import stats

from pmvar.kernels.mixing import DEGREE, U_MIN, Z_MAX, Z_MIN_MIXING, log_mixing, log_mixing_coefficients

# Uniforms of 32 bits reach |z| = 6.34; the polynomial promises 7, the truncation ends the lower side at −6.94.
Z = np.linspace(Z_MIN_MIXING, Z_MAX, 4001)


def exact(nu: float, z: np.ndarray) -> np.ndarray:
    """ln(ν/χ²) with the quantile taken from the nearer tail."""
    chi2 = stats.chi2(nu)
    quantile = np.where(z < 0, chi2.ppf(stats.norm.cdf(np.minimum(z, 0))), chi2.isf(stats.norm.sf(np.maximum(z, 0))))
    return np.log(nu / quantile)


def polynomial(nu: float, z: np.ndarray, dtype: type = np.float64) -> np.ndarray:
    c = jnp.asarray(log_mixing_coefficients(nu), dtype)
    return np.asarray(jax.vmap(lambda x: log_mixing(x, c))(jnp.asarray(z, dtype)))


@pytest.mark.parametrize(
    ("nu", "bound"), [(2.5, 3e-7), (3.0, 1e-7), (4.0, 1e-8), (5.0, 1e-9), (8.0, 1e-11), (40.0, 1e-11)]
)
def test_error_against_chi_squared_quantiles(nu, bound):
    """The bounds of the documentation, on the whole range that draws reach and up to z = 7."""
    assert np.max(np.abs(polynomial(nu, Z) - exact(nu, Z))) <= bound


@pytest.mark.parametrize(("nu", "bound"), [(2.5, 3e-7), (4.0, 1e-8), (8.0, 1e-11)])
def test_error_against_arbitrary_precision(nu, bound):
    """The other way round: the χ² probability of ν/W, in 40 digits, must be Φ(z); the difference over the slope is the
    error in ln W. Independent of any quantile routine."""
    z = Z[::200]
    with mpmath.workdps(40):
        for z_i, log_w in zip(z, polynomial(nu, z), strict=True):
            x = nu * mpmath.exp(-mpmath.mpf(log_w))
            a = mpmath.mpf(nu) / 2
            error = mpmath.gammainc(a, 0, x / 2, regularized=True) - mpmath.ncdf(z_i)
            slope = x * (x / 2) ** (a - 1) * mpmath.exp(-x / 2) / (2 * mpmath.gamma(a))
            assert abs(error / slope) <= bound


@pytest.mark.parametrize("nu", [2.5, 3.0, 4.0, 8.0])
def test_single_precision_holds_to_5e_6(nu):
    """In units of ln W up to 12; beyond, where U < 1e-7 and ν is near 2, of its own size."""
    reference = exact(nu, Z)
    bound = 5e-6 * np.maximum(np.abs(reference) / 12, 1)
    assert np.all(np.abs(polynomial(nu, Z, np.float32) - reference) <= bound)


def test_w_falls_with_u_and_is_largest_where_u_is_truncated():
    """U below 2e-12 gives the W of 2e-12, however small it is."""
    nu = 3.0
    assert stats.norm.cdf(Z_MIN_MIXING) == pytest.approx(U_MIN, rel=1e-12)
    assert np.all(np.diff(polynomial(nu, Z)) < 0)
    below = polynomial(nu, np.array([-11.0, -7.0, Z_MIN_MIXING - 1e-9, Z_MIN_MIXING]))
    np.testing.assert_array_equal(below, below[-1])
    assert below[-1] == pytest.approx(np.log(nu / stats.chi2(nu).ppf(U_MIN)), abs=1e-7)


def test_gaussian_limit():
    """ν = ∞ has W = 1 exactly; a large ν comes near it like √(2/ν)·z."""
    np.testing.assert_array_equal(polynomial(np.inf, Z), 0.0)
    assert log_mixing_coefficients(np.inf) == (0.0,) * (DEGREE + 1)
    nu = 1e6
    np.testing.assert_allclose(polynomial(nu, Z), -np.sqrt(2 / nu) * Z, atol=40 / nu)


@pytest.mark.parametrize("nu", [2.0, 1.5, 0.0, -3.0, np.nan])
def test_without_a_variance_there_is_no_mixing(nu):
    with pytest.raises(ValueError, match="must exceed 2"):
        log_mixing_coefficients(nu)


@pytest.mark.parametrize("nu", [2.05, 2.5, 4.0, 30.0])
def test_differentiable_everywhere(nu):
    c = jnp.asarray(log_mixing_coefficients(nu))
    slope = jax.vmap(jax.grad(lambda x: log_mixing(x, c)))(jnp.linspace(-6.34, 6.34, 501))
    assert np.all(np.isfinite(slope)) and np.all(np.asarray(slope) <= 0)
