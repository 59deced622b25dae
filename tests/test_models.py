"""Gaussian and Student-t: exact laws, tails, dependence, and what is refused."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from pmvar.errors import InputError, NumericsError, UsageError
from pmvar.kernels.mixing import U_MIN, U_MIN_EXP
from pmvar.models import build
from pmvar.models.specification import Factor
from pmvar.scenarios import simulate
from pmvar.types import PriceMap, Sampling
from tests.laws import MARKET, N, draws, unit_law
from tests.markets import specification

SIGMA = {"A:spot": 0.03, "B:spot": 0.05}


# ---- laws ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("model", "nu"), [("gaussian", None), ("t", 3.0), ("t", 4.0), ("t", 8.0)])
def test_marginals_have_the_exact_law(model, nu):
    """Kolmogorov–Smirnov of 131,072 draws of each factor against the law of unit variance."""
    x = draws(specification(SIGMA, model=model, degrees_of_freedom=nu))
    for column in x.T:
        assert stats.kstest(column, unit_law(nu).cdf).pvalue > 1e-3


@pytest.mark.parametrize(("model", "nu"), [("gaussian", None), ("t", 8.0)])
@pytest.mark.parametrize("rho", [-0.3, 0.0, 0.8])
def test_variance_and_correlation(model, nu, rho):
    """Four standard errors: of a variance √((κ−1)/n), of a correlation about √((1+…)κ/3)/√n, κ the kurtosis."""
    c = np.array([[1, rho], [rho, 1]])
    x = draws(specification(SIGMA, model=model, degrees_of_freedom=nu, correlation=c))
    kurtosis = 3.0 if nu is None else 3 + 6 / (nu - 4)
    np.testing.assert_allclose(x.var(0), 1.0, atol=4 * np.sqrt((kurtosis - 1) / N))
    assert np.corrcoef(x.T)[0, 1] == pytest.approx(rho, abs=4 * np.sqrt(kurtosis / 3 / N))


def test_the_factors_of_a_t_crash_together():
    """One mixing variable: uncorrelated factors are not independent, and share their extremes. Both beyond their 99.9%
    quantile: 8.1% of the paths where one is, by quadrature over U, against .1% if they were independent."""
    nu = 4.0
    x = draws(specification(SIGMA, model="t", degrees_of_freedom=nu), n=1 << 18)
    level = unit_law(nu).ppf(1e-3)

    def both(u):
        w = nu / stats.chi2(nu).ppf(u)
        return stats.norm.cdf(level / np.sqrt((nu - 2) / nu * w)) ** 2

    expected = integrate.quad(both, 0, 1, limit=200)[0]
    hits = np.mean((x[:, 0] < level) & (x[:, 1] < level))
    assert expected == pytest.approx(0.081e-3, rel=0.01)
    assert hits == pytest.approx(expected, abs=4 * np.sqrt(expected / len(x)))


@pytest.mark.parametrize(
    ("nu", "var99", "es99", "es975"),
    [
        (3.0, 2.621576, 4.043231, 2.909605),
        (4.0, 2.649492, 3.691510, 2.823871),
        (5.0, 2.606464, 3.448837, 2.727802),
        (8.0, 2.508407, 3.109802, 2.572015),
        (None, 2.326348, 2.665214, 2.337803),
    ],
)
def test_tail_of_the_unit_variance_law(nu, var99, es99, es975):
    """The documented VaR and ES, first against the law itself, then simulated, inside four standard errors."""
    law, n = unit_law(nu), 1 << 18
    assert -law.ppf(0.01) == pytest.approx(var99, abs=5e-7)
    for level, es in ((0.99, es99), (0.975, es975)):
        # ES = (1/(1−α))∫VaR; by the substitution p = q³ the integrand is bounded.
        exact = integrate.quad(lambda q, a=1 - level: -law.ppf(a * q**3) * 3 * q * q, 0, 1, epsabs=1e-10)[0]
        assert exact == pytest.approx(es, abs=2e-6)

    model = specification(SIGMA, model="gaussian" if nu is None else "t", degrees_of_freedom=nu)
    loss = np.sort(-draws(model, n=n)[:, 0])[::-1]
    # Standard error of a quantile √(p(1−p)/n)/f.
    assert loss[int(0.01 * n)] == pytest.approx(var99, abs=4 * np.sqrt(0.01 * 0.99 / n) / law.pdf(var99))
    for level, es in ((0.99, es99), (0.975, es975)):
        k = n * (1 - level)
        tail = loss[: int(k)]
        excess = np.concatenate([tail - tail[-1], np.zeros(n - len(tail))])
        assert tail.mean() == pytest.approx(es, abs=4 * excess.std() / np.sqrt(n) / (1 - level))


@pytest.mark.parametrize("horizon", ["12h", "1d", "10d"])
def test_variance_grows_with_the_steps(horizon):
    """A horizon of h steps scales x by √h, path by path."""
    model, h = specification(SIGMA, model="t", degrees_of_freedom=5.0), {"12h": 0.5, "1d": 1, "10d": 10}[horizon]
    np.testing.assert_allclose(
        draws(model, n=1024, horizon=horizon), draws(model, n=1024) * np.sqrt(h), rtol=1e-12, atol=1e-12
    )


def test_many_degrees_of_freedom_are_gaussian():
    """The same normals give the same path, to the size of √(2/ν)·z of ln W; none at all give it to the bit."""
    normal = jnp.asarray(np.random.default_rng(2).standard_normal((1, 3)))
    gaussian = build(specification(SIGMA)).path(normal[:, 1:], jnp.asarray(2.0))
    for nu, bound in ((1e4, 0.03), (1e8, 3e-4), (None, 0.0)):
        t = build(specification(SIGMA, model="t", degrees_of_freedom=nu)).path(normal, jnp.asarray(2.0))
        np.testing.assert_allclose(t.diffusion, gaussian.diffusion, rtol=bound)
        np.testing.assert_allclose(t.deviation, gaussian.deviation, rtol=bound)


@pytest.mark.parametrize("nu", [2.001, 2.01, 2.1])
def test_near_two_degrees_of_freedom_draws_are_finite(nu):
    x = draws(specification(SIGMA, model="t", degrees_of_freedom=nu), n=4096)
    assert np.all(np.isfinite(x)) and x.std() > 0


@pytest.mark.parametrize(
    ("nu", "lost"), [(2.5, 0.03603), (3.0, 3.839e-3), (4.0, 2.236e-4), (5.0, 3.903e-5), (8.0, 2.541e-6)]
)
def test_what_the_truncation_costs_in_variance(nu, lost):
    """U ≥ u cuts the variance below σ² by ∫₀^u (W(v) − W(u)) dv·(ν−2)/ν. Under an exponential map, u = 1e-7: 2e-4 at
    ν = 4, 0.4% at ν = 3, and 3.6% at ν = 2.5, where the second moment barely exists; else next to nothing."""

    def w(u):
        return (nu - 2) / stats.chi2(nu).ppf(u)

    # u = u_min·q^m makes the singularity u^(−2/ν) bounded.
    m = 4 * nu / (nu - 2)
    for price_map, u_min in ((PriceMap.EXP, U_MIN_EXP), (PriceMap.EXP_LINEAR, U_MIN)):
        law = build(specification(SIGMA, model="t", degrees_of_freedom=nu, price_map=price_map)).marginal(1.0)
        assert law is not None
        variance = law.deviation[0] ** 2 @ law.weight[0] / SIGMA["A:spot"] ** 2
        missing = u_min * integrate.quad(lambda q, u=u_min: (w(u * q**m) - w(u)) * m * q ** (m - 1), 0, 1)[0]
        assert 1 - variance == pytest.approx(missing, rel=1e-3, abs=1e-8)
        if price_map is PriceMap.EXP:
            assert missing == pytest.approx(lost, rel=1e-3)
        else:
            assert missing < 0.12 * lost


@pytest.mark.parametrize("model", ["gaussian", "t"])
@pytest.mark.parametrize(("price_map", "u_min"), [(PriceMap.EXP, U_MIN_EXP), (PriceMap.EXP_LINEAR, U_MIN)])
def test_a_run_says_where_tails_are_truncated(model, price_map, u_min):
    specified = specification(SIGMA, model=model, degrees_of_freedom=5.0, price_map=price_map)
    said = simulate(specified, MARKET, seed=1, n_scenarios=2048).provenance["model"]
    assert said.get("mixing_truncated_at") == (u_min if model == "t" else None)


# ---- correlation ---------------------------------------------------------------------------------------------------


def test_loading_reproduces_the_correlation():
    rng = np.random.default_rng(7)
    a = rng.normal(size=(12, 12))
    c = np.array(np.corrcoef(a @ a.T + 3 * np.eye(12)))
    model = build(specification({f"{i}:spot": 0.01 for i in range(12)}, correlation=(c + c.T) / 2))
    loading = np.asarray(model.bridge_loading())
    np.testing.assert_allclose(loading @ loading.T, c, atol=1e-14)
    size = np.sum(loading**2, axis=0)
    assert np.all(np.diff(size) <= 1e-12), "principal components come largest first"
    # The matrix is singular: its last component is none.
    largest = loading[np.argmax(np.abs(loading), axis=0), np.arange(12)]
    assert np.all(largest[:-1] > 0) and largest[-1] == 0, "and with a fixed sign"


@pytest.mark.parametrize("model", ["gaussian", "t"])
def test_rank_one_correlation(model):
    """All factors one: every path moves them in proportion, without a repair and without a NaN."""
    nu = None if model == "gaussian" else 4.0
    # Small volatilities: the linear map has a floor, which the larger factor would touch first.
    opposed = np.array([[1.0, 1, -1], [1, 1, -1], [-1, -1, 1]])
    volatility = {"A:spot": 1e-3, "B:spot": 5e-3, "C:spot": 2e-3}
    law = specification(volatility, model=model, degrees_of_freedom=nu, correlation=opposed)
    x = draws(law, n=1 << 14)
    np.testing.assert_allclose(x[:, 1], x[:, 0], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(x[:, 2], -x[:, 0], rtol=1e-9, atol=1e-9)
    assert stats.kstest(x[:, 0], unit_law(nu).cdf).pvalue > 1e-3


def test_a_matrix_that_is_no_correlation_is_refused():
    """Positive semi-definite to 1e-8; what is not names its eigenvalue."""
    c = np.array([[1, 0.9, -0.9], [0.9, 1, 0.9], [-0.9, 0.9, 1]])
    with pytest.raises(NumericsError, match=r"not positive semi-definite \(smallest eigenvalue -0\.8\)"):
        build(specification({"A:spot": 0.01, "B:spot": 0.01, "C:spot": 0.01}, correlation=c))


def test_rounding_of_a_singular_matrix_is_forgiven_and_keeps_unit_variance():
    c = np.full((3, 3), 1 - 1e-17)
    c[0, 1] = c[1, 0] = 1 - 3e-9
    np.fill_diagonal(c, 1.0)
    loading = np.asarray(build(specification({f"{i}:spot": 0.01 for i in "ABC"}, correlation=c)).bridge_loading())
    np.testing.assert_allclose(np.sum(loading**2, axis=1), 1.0, rtol=1e-14)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"name": "A"}, "named <underlying>:spot, :vol, :term, :skew, :curvature, :spread"),
        ({"name": ":spot"}, "named <underlying>:spot, :vol, :term, :skew, :curvature, :spread"),
        ({"name": "A:basis.2025"}, "named <underlying>:spot, :vol, :term, :skew, :curvature, :spread"),
        ({"volatility": -0.1}, "volatility of A:vol must be finite and ≥ 0"),
        ({"volatility": np.nan}, "volatility of A:vol must be finite and ≥ 0"),
        ({"volatility": np.inf}, "volatility of A:vol must be finite and ≥ 0"),
        ({"degrees_of_freedom": 2.0}, "must be above 2, where the variance exists"),
        ({"degrees_of_freedom": np.nan}, "must be above 2, where the variance exists"),
        ({"tenor": 0.0}, "needs tenor > 0 days"),
        ({"tenor": np.nan}, "needs tenor > 0 days"),
        ({"term_exponent": -0.1}, r"term_exponent in \[0, 1\]"),
        ({"term_exponent": np.nan}, r"term_exponent in \[0, 1\]"),
    ],
)
def test_a_bad_factor_names_the_rule(change, rule):
    with pytest.raises(InputError, match=rule):
        replace(Factor("A:vol", 0.1), **change)


def test_a_name_may_hold_colons():
    factor = Factor("X:Y:spot", 0.1)
    assert factor.underlying == "X:Y" and factor.kind == "spot"


C2 = np.array([[1.0, 0.5], [0.5, 1.0]])


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"factors": ()}, "factors must be present, each once"),
        ({"factors": (Factor("A:spot", 0.1),) * 2}, "factors must be present, each once"),
        ({"steps_per_year": 360}, "steps_per_year is 365 or 252"),
        ({"vol_cap": 0.0}, "vol_cap must be positive"),
        ({"vol_cap": np.nan}, "vol_cap must be positive"),
        ({"correlation": np.eye(3)}, "correlation must be 2 × 2"),
        ({"correlation": C2 + [[0, 1], [1, 0]]}, r"within \[−1, 1\]"),
        ({"correlation": C2 * [[1, np.nan], [1, 1]]}, r"within \[−1, 1\]"),
        ({"correlation": C2 + [[0, 0.1], [0, 0]]}, "symmetric"),
        ({"correlation": C2 * [[0.9, 1], [1, 1]]}, "a factor's correlation with itself is 1"),
    ],
)
def test_a_bad_specification_names_the_rule(change, rule):
    good = specification(SIGMA, correlation=C2)
    with pytest.raises(InputError, match=rule):
        replace(good, **change)


def test_models_that_do_not_exist_or_do_not_fit():
    with pytest.raises(InputError, match="gaussian, t"):
        build(specification(SIGMA, model="garch"))
    mixed = (Factor("A:spot", 0.1, 4.0), Factor("B:spot", 0.1, 5.0))
    with pytest.raises(InputError, match="one number of degrees of freedom"):
        build(replace(specification(SIGMA, model="t"), factors=mixed))


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"n_scenarios": 1023}, "scenarios must lie between 1,024"),
        ({"n_scenarios": 2**31 + 1}, "scenarios must lie between"),
        ({"seed": -1}, "seed must be an integer"),
        ({"seed": 2**32}, "seed must be an integer"),
        ({"n_scenarios": 4095}, "4,096, not 4,095"),
        ({"n_scenarios": 5000, "sampling": Sampling.SOBOL}, "4,096 or 8,192, not 5,000"),
        ({"n_scenarios": 1024}, "2,048, not 1,024"),
        ({"horizon": "61d"}, "longer than 60 steps"),
        ({"horizon": "two days"}, "write whole days or hours"),
    ],
)
def test_a_bad_request_for_scenarios_names_the_rule(change, rule):
    with pytest.raises(UsageError, match=rule):
        simulate(specification(SIGMA), MARKET, **({"seed": 1} | change))
