"""Rank correlation, shrinkage and tails of known laws: inside standard errors, under fixed seeds."""

import numpy as np
import pytest
from scipy import integrate, stats

from pmvar.calibration.dependence import (
    dominated,
    kendall_correlation,
    rank_correlation,
    shrinkage,
    t_joint_tail,
    t_tail_dependence,
    tail_dependence,
)
from pmvar.calibration.tails import shrunk_degrees_of_freedom
from pmvar.errors import NumericsError


def t_copula(correlation: np.ndarray, nu: float, *, n: int, seed: int) -> np.ndarray:
    """Multivariate t, each column through a monotone map of its own: ranks cannot tell."""
    rng = np.random.default_rng(seed)
    z = rng.standard_normal((n, len(correlation))) @ np.linalg.cholesky(correlation).T
    x = z * np.sqrt(nu / rng.chisquare(nu, n))[:, None]
    return np.stack([np.sinh(c) if i % 2 else c**3 for i, c in enumerate(x.T)], axis=1)


def equicorrelation(k: int, rho: float) -> np.ndarray:
    return np.full((k, k), rho) + (1 - rho) * np.eye(k)


@pytest.mark.parametrize(("rho", "nu"), [(0.0, 3.0), (0.5, 3.0), (-0.7, 5.0), (0.9, 30.0)])
def test_kendall_finds_rho_and_its_error(rho, nu):
    """100 samples of 400 days: no bias, and the standard error is the spread of the estimates."""
    x = t_copula(equicorrelation(2, rho), nu, n=40_000, seed=1).reshape(100, 400, 2)
    found, error = np.array([kendall_correlation(*sample.T) for sample in x]).T
    assert abs(found.mean() - rho) < 4 * found.std() / 10
    # The relative error of a standard deviation from 100 values is 7%.
    assert error.mean() == pytest.approx(found.std(), rel=0.25)


def test_outliers_do_not_decide():
    """One wrong price among 500 days: Pearson's correlation collapses, the rank's moves by less than its error."""
    x = np.random.default_rng(2).standard_normal((500, 2)) @ np.linalg.cholesky(equicorrelation(2, 0.8)).T
    clean = kendall_correlation(*x.T)
    x[100] = [60.0, -60.0]
    spoilt = kendall_correlation(*x.T)
    assert abs(spoilt[0] - clean[0]) < clean[1]
    assert np.mean(np.prod(x, axis=1)) / np.prod(x.std(axis=0)) < 0.2


def test_pairs_use_their_common_days():
    """A late listing, gaps and a factor with too few days: others keep all of theirs, it takes the mean."""
    truth = equicorrelation(4, 0.5)
    truth[0, 1] = truth[1, 0] = 0.8
    x = t_copula(truth, 4.0, n=1500, seed=3)
    x[:1000, 1] = np.nan
    x[::3, 2] = np.nan
    x[:1450, 3] = np.nan
    found = rank_correlation(x)
    assert found.common_days[0, 1] == 500 and found.common_days[0, 2] == 1000 and found.common_days[0, 3] == 50
    assert np.all(np.isnan(found.rank[3, :3]))
    alone = kendall_correlation(x[1000:, 0], x[1000:, 1])
    assert (found.rank[0, 1], found.standard_error[0, 1]) == alone
    np.testing.assert_allclose(found.correlation[3, :3], found.target, atol=0.05)
    z = (found.rank - truth)[:3, :3][np.triu_indices(3, 1)] / found.standard_error[:3, :3][np.triu_indices(3, 1)]
    assert np.all(np.abs(z) < 4)


def test_many_factors_on_few_days_are_shrunk_and_repaired():
    """40 factors on 120 days: a correlation matrix comes out, nearer to the truth than what went in."""
    loading = np.random.default_rng(4).uniform(0.4, 0.9, 40)
    truth = np.outer(loading, loading)
    np.fill_diagonal(truth, 1.0)
    found = rank_correlation(t_copula(truth, 5.0, n=120, seed=5))
    value = np.linalg.eigvalsh(found.correlation)
    assert value[0] >= -1e-9
    np.testing.assert_array_equal(np.diag(found.correlation), 1.0)
    assert 0 < found.intensity < 1
    assert np.linalg.norm(found.correlation - truth) < np.linalg.norm(found.rank - truth)
    long = rank_correlation(t_copula(truth[:12, :12], 5.0, n=2000, seed=6))
    assert long.intensity < 0.1 and long.distance == 0


def test_intensity_is_the_share_of_noise():
    """Equal true correlations: all of the spread is noise, intensity is near 1; one pair is its own target."""
    found = rank_correlation(t_copula(equicorrelation(10, 0.4), 5.0, n=300, seed=7))
    assert found.intensity > 0.7
    assert found.target == pytest.approx(0.4, abs=0.06)
    assert shrinkage(np.array([[1, 0.3], [0.3, 1]]), np.array([[0, 0.1], [0.1, 0]])) == (0.3, 0.0)


def test_estimates_that_contradict_each_other_are_refused():
    """Pairs from disjoint periods, of which no repair within .05 makes a correlation matrix."""
    n, rng = 400, np.random.default_rng(8)
    x = np.full((3 * n, 3), np.nan)
    for k, (i, j, sign) in enumerate(((0, 1, 1), (1, 2, 1), (0, 2, -1))):
        z = rng.standard_normal(n)
        x[k * n : (k + 1) * n, i], x[k * n : (k + 1) * n, j] = z, sign * z + 0.1 * rng.standard_normal(n)
    with pytest.raises(NumericsError, match="not positive semi-definite"):
        rank_correlation(x)


def test_tail_dependence_of_the_t_copula():
    """Table 1 of Embrechts, McNeil and Straumann (2002): ν = 2, 4, 10, ∞ for ρ = −.5, 0, .5, .9, and 1 for ρ = 1."""
    rho = np.array([-0.5, 0.0, 0.5, 0.9, 1.0])
    for nu, row in ((2, (0.06, 0.18, 0.39, 0.72, 1)), (4, (0.01, 0.08, 0.25, 0.63, 1)), (10, (0, 0.01, 0.08, 0.46, 1))):
        np.testing.assert_allclose(t_tail_dependence(rho, float(nu)), row, atol=0.0051)
    assert t_tail_dependence(np.array(0.5), 1e6) < 1e-12


@pytest.mark.parametrize(("rho", "nu"), [(0.5, 4.0), (0.8, 3.0), (-0.3, 8.0)])
def test_joint_tail(rho, nu):
    """The finite-share probability by adaptive quadrature, its limit, and the estimate inside four standard errors."""
    shape = np.array([[1, rho], [rho, 1]])
    q = stats.t.ppf(0.05, nu)
    mass = integrate.quad(
        lambda x: stats.t.pdf(x, nu)
        * stats.t.cdf((q - rho * x) * np.sqrt((nu + 1) / ((nu + x * x) * (1 - rho**2))), nu + 1),
        -np.inf, q,
    )[0]  # fmt: skip
    exact = t_joint_tail(rho, nu)
    assert exact == pytest.approx(mass / 0.05, rel=1e-6)
    assert t_joint_tail(rho, nu, share=1e-9) == pytest.approx(float(t_tail_dependence(np.array(rho), nu)), abs=2e-3)
    found, error = tail_dependence(*t_copula(shape, nu, n=20_000, seed=10).T)
    assert abs(found - exact) < 4 * error


# ---- degrees of freedom ---------------------------------------------------------------------------------------------


def test_shrunk_tails_are_nearer_to_the_truth():
    """1,000 factors from N(κ₀, τ²) seen with errors: κ₀ and τ come out, the error falls as it should."""
    rng = np.random.default_rng(11)
    s = rng.uniform(0.02, 0.06, 1000)
    kappa = rng.normal(0.2, 0.03, 1000)
    seen = kappa + s * rng.standard_normal(1000)
    found = shrunk_degrees_of_freedom(1 / seen, s / seen**2)
    assert 1 / found.common == pytest.approx(0.2, abs=4 * 0.05 / np.sqrt(1000))
    assert found.spread == pytest.approx(0.03, rel=0.15)
    # Var(κ | seen) = s²τ²/(s² + τ²) instead of s².
    gain = np.mean((1 / found.degrees_of_freedom - kappa) ** 2) / np.mean(s**2 * 0.03**2 / (s**2 + 0.03**2))
    assert gain == pytest.approx(1, abs=0.15)


def test_shrinkage_of_tails_in_its_limits():
    """Equal tails are pooled; exact ones are kept; a factor without an estimate takes the common value."""
    nu = np.array([4.0, 5.0, 6.0, np.nan, 7.0])
    pooled = shrunk_degrees_of_freedom(nu, np.array([3.0, 3.0, 3.0, np.nan, 3.0]))
    assert pooled.spread == 0
    np.testing.assert_allclose(pooled.degrees_of_freedom, pooled.common)
    exact = shrunk_degrees_of_freedom(nu, np.array([1e-4, 1e-4, 1e-4, 1e-4, np.nan]))
    np.testing.assert_allclose(exact.degrees_of_freedom[:3], nu[:3], rtol=1e-6)
    np.testing.assert_array_equal(exact.intensity[3:], 1.0)
    np.testing.assert_allclose(exact.degrees_of_freedom[3:], exact.common)
    nothing = shrunk_degrees_of_freedom(nu * np.nan, nu)
    np.testing.assert_array_equal(nothing.degrees_of_freedom, 4.0)


@pytest.mark.parametrize("digits", [9, 1, 0])
@pytest.mark.parametrize("n", [1, 2, 33, 500])
def test_dominated_days_are_counted(n: int, digits: int):
    """Against all pairs of days, ties in either number and in both included."""
    rng = np.random.default_rng(n)
    x, y = np.round(rng.standard_normal((2, n)), digits)
    expected = np.sum((x[:, None] > x) & (y[:, None] > y), axis=1)
    np.testing.assert_array_equal(dominated(x, y), expected)
    assert n < 500 or expected.max() > 400
