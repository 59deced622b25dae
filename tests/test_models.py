"""Gaussian and Student-t: exact laws, tails, dependence, drift under every price map, and what is refused."""

from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, special, stats

from pmvar.errors import InputError, NumericsError, UsageError
from pmvar.kernels.mixing import Z_MAX, Z_MIN_MIXING
from pmvar.models import build
from pmvar.models.price_map import NormalMixture, log_price_ratio, mean_shift
from pmvar.models.specification import Factor, ModelSpecification
from pmvar.scenarios import simulate
from pmvar.types import Drift, PriceMap
from tests.markets import AS_OF, DAY, carry_curve, snapshot, specification

N = 1 << 17
MARKET = snapshot({"A": (100.0, "USD"), "B": (10.0, "USD"), "C": (1.0, "USD")})
SIGMA = {"A:spot": 0.03, "B:spot": 0.05}


def draws(model: ModelSpecification, *, n: int = N, seed: int = 1, horizon: str = "1d") -> np.ndarray:
    """x of every path over its standard deviation: the linear map shows x itself."""
    model = replace(model, price_map=PriceMap.LINEAR)
    scenarios = simulate(model, MARKET, seed=seed, n_scenarios=n, horizon=horizon, drift=Drift.NONE)
    return np.expm1(np.asarray(scenarios.shock[:, 0])) / np.array([f.volatility for f in model.factors])


def unit_law(nu: float | None) -> Any:
    """The law of unit variance."""
    return stats.norm() if nu is None else stats.t(nu, scale=np.sqrt((nu - 2) / nu))


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
    """The same uniforms give the same path, to the size of √(2/ν)·z of ln W; none at all give it to the bit."""
    uniform = jnp.asarray(np.random.default_rng(2).uniform(size=3))
    normal = build(specification(SIGMA)).path(uniform[1:], jnp.asarray(2.0))
    for nu, bound in ((1e4, 0.03), (1e8, 3e-4), (None, 0.0)):
        t = build(specification(SIGMA, model="t", degrees_of_freedom=nu)).path(uniform, jnp.asarray(2.0))
        np.testing.assert_allclose(t.shock, normal.shock, rtol=bound)
        np.testing.assert_allclose(t.deviation, normal.deviation, rtol=bound)


@pytest.mark.parametrize("nu", [2.001, 2.01, 2.1])
def test_near_two_degrees_of_freedom_draws_are_finite(nu):
    x = draws(specification(SIGMA, model="t", degrees_of_freedom=nu), n=4096)
    assert np.all(np.isfinite(x)) and x.std() > 0


@pytest.mark.parametrize(
    ("nu", "lost"), [(2.5, 0.03603), (3.0, 3.839e-3), (4.0, 2.236e-4), (5.0, 3.903e-5), (8.0, 2.541e-6)]
)
def test_what_the_truncation_costs_in_variance(nu, lost):
    """U ≥ 1e-7 cuts the variance below σ² by ∫₀^1e-7 (W(u) − W(1e-7)) du·(ν−2)/ν: 2e-4 at ν = 4, 0.4% at ν = 3, and
    3.6% at ν = 2.5, where the second moment barely exists."""
    law = build(specification(SIGMA, model="t", degrees_of_freedom=nu)).marginal(1.0)
    variance = law.deviation[0] ** 2 @ law.weight / SIGMA["A:spot"] ** 2

    def w(u):
        return (nu - 2) / stats.chi2(nu).ppf(u)

    # u = 1e-7·q^m makes the singularity u^(−2/ν) bounded.
    m = 4 * nu / (nu - 2)
    missing = integrate.quad(lambda q: (w(1e-7 * q**m) - w(1e-7)) * m * q ** (m - 1), 0, 1)[0] * 1e-7
    assert missing == pytest.approx(lost, rel=1e-3)
    assert 1 - variance == pytest.approx(missing, rel=1e-3, abs=1e-8)


# ---- drift ---------------------------------------------------------------------------------------------------------


def ratio(price_map: PriceMap, x: float) -> float:
    """g(x), written again."""
    if price_map is PriceMap.EXP:
        return np.exp(x)
    if price_map is PriceMap.LINEAR:
        return max(1 + x, 1e-8)
    return np.exp(x) if x <= 0 else 1 + x


@pytest.mark.parametrize("price_map", list(PriceMap))
def test_price_maps(price_map):
    """ln g against its definition, continuous with its slope at zero, finite far down."""
    x = np.array([-50.0, -5.0, -1.0, -0.9, -1e-9, 0.0, 1e-9, 0.5, 3.0, 50.0])
    got = np.asarray(log_price_ratio(price_map, jnp.asarray(x)))
    np.testing.assert_allclose(got, [np.log(ratio(price_map, v)) for v in x], rtol=1e-12, atol=1e-15)
    assert np.all(np.diff(got) >= 0)


def mean_ratio(price_map: PriceMap, c: float, deviation: float) -> float:
    """E[g(Y)], Y ~ N(c, deviation²), by adaptive quadrature split at the kinks; independent of closed forms."""
    kinks = [(k - c) / deviation for k in (-1.0, 0.0) if abs(k - c) < 12 * deviation]
    # e^x·φ peaks at its own deviation, up to 12 of them away.
    low, high = -12.0, 12.0 + (deviation if price_map is PriceMap.EXP else 0.0)
    return integrate.quad(
        lambda z: ratio(price_map, c + deviation * z) * np.exp(-z * z / 2) / np.sqrt(2 * np.pi),
        low, high, points=kinks or None, epsabs=1e-14, epsrel=1e-13, limit=200,
    )[0]  # fmt: skip


@pytest.mark.parametrize("price_map", list(PriceMap))
@pytest.mark.parametrize("growth", [0.98, 1.0, 1.001])
@pytest.mark.parametrize("deviation", [0.0, 0.01, 0.2, 1.0])
def test_drift_of_a_normal_by_quadrature(price_map, growth, deviation):
    """E[g(x + c)] = F/S to 1e-10 (the shift's own stopping rule is 1e-11; the linear map's floor adds 1e-8 of what lies
    below it)."""
    (c,) = mean_shift(price_map, NormalMixture(np.array([[deviation]]), np.ones(1)), np.array([growth]))
    got = mean_ratio(price_map, c, deviation) if deviation else ratio(price_map, c)
    below = stats.norm.cdf((-1 - c) / max(deviation, 1e-12)) if price_map is PriceMap.LINEAR else 0.0
    assert got == pytest.approx(growth, abs=float(1e-10 + 2e-8 * below))


@pytest.mark.parametrize("price_map", [PriceMap.EXP_LINEAR, PriceMap.LINEAR])
@pytest.mark.parametrize(("nu", "sigma", "steps"), [(3.0, 0.03, 2.0), (4.0, 0.05, 10.0), (8.0, 0.2, 1.0)])
def test_drift_of_a_t_by_quadrature(price_map, nu, sigma, steps):
    """The t density of SciPy, not the mixture: agreement to what the truncation at U = 1e-7 can move.

    Beyond it lies probability 1e-7 with x of the order of σ√h·√W(1e-7).
    """
    growth, deviation = 1.0005, sigma * np.sqrt(steps)
    model = build(specification({"A:spot": sigma}, model="t", degrees_of_freedom=nu))
    (c,) = mean_shift(price_map, model.marginal(steps), np.array([growth]))
    law: Any = stats.t(nu, scale=deviation * np.sqrt((nu - 2) / nu))

    pieces = sorted([-np.inf, -30 * deviation, -1 - c, -c, 30 * deviation, np.inf])
    mean = sum(
        integrate.quad(lambda x: ratio(price_map, x + c) * law.pdf(x), a, b, epsabs=1e-12, limit=400)[0]
        for a, b in zip(pieces, pieces[1:], strict=False)
    )
    extreme = deviation * np.sqrt((nu - 2) / stats.chi2(nu).ppf(1e-7))
    # Half of it lies on each side and the linear branch cancels; all of it is an upper bound.
    assert mean == pytest.approx(growth, abs=2e-7 * extreme + 1e-10)


@pytest.mark.parametrize("price_map", list(PriceMap))
def test_drift_of_a_t_with_its_truncation_by_quadrature(price_map):
    """Both integrals by adaptive quadrature, over the mixing normal and the conditional normal, truncated alike: exact
    also for the exponential map, whose untruncated mean is infinite."""
    nu, sigma, growth = 4.0, 0.04, 1.0003
    model = build(specification({"A:spot": sigma}, model="t", degrees_of_freedom=nu))
    (c,) = mean_shift(price_map, model.marginal(2.0), np.array([growth]))

    def given(z: float) -> float:
        u = stats.norm.cdf(z)
        w = nu / (stats.chi2(nu).ppf(u) if z < 0 else stats.chi2(nu).isf(stats.norm.sf(z)))
        return mean_ratio(price_map, c, sigma * np.sqrt(2 * (nu - 2) / nu * w))

    body = integrate.quad(
        lambda z: given(z) * stats.norm.pdf(z), Z_MIN_MIXING, Z_MAX, epsabs=1e-10, epsrel=1e-10, limit=100
    )[0]  # fmt: skip
    mean = body + given(Z_MIN_MIXING) * float(special.ndtr(Z_MIN_MIXING))
    # ln W is approximated to 1e-8 (ν = 4), the quadratures stop at 1e-10.
    assert mean == pytest.approx(growth, abs=1e-9)


@pytest.mark.parametrize("price_map", list(PriceMap))
@pytest.mark.parametrize(("model", "nu"), [("gaussian", None), ("t", 5.0)])
def test_prices_grow_to_their_forward_on_average(price_map, model, nu):
    """In simulation, inside four standard errors, at the horizon and inside it; vols get no drift."""
    market = replace(MARKET, forwards={"A": carry_curve(100.0, 3.0), "B": carry_curve(10.0, -2.0)})
    law = specification(SIGMA | {"A:vol": 0.05}, model=model, degrees_of_freedom=nu, price_map=price_map)
    scenarios = simulate(law, market, seed=3, n_scenarios=N, horizon="2d")
    inside = [scenarios.at(i, AS_OF + 1.25 * DAY) for i in range(scenarios.n_tiles)]
    for days, shock in ((2.0, np.asarray(scenarios.shock[:, 0])), (1.25, np.concatenate(inside))):
        price = np.exp(shock[:, :2])
        forward = np.exp(np.array([3.0, -2.0]) * days / 365)
        np.testing.assert_array_less(np.abs(price.mean(0) - forward), 4 * price.std(0) / np.sqrt(N))
        # The drift is material: without it the test would fail.
        assert np.all(np.abs(forward - 1) > 20 * price.std(0) / np.sqrt(N))
        assert abs(shock[:, 2].mean()) < 4 * shock[:, 2].std() / np.sqrt(N)


def test_vol_factors_are_not_asked_for_a_drift():
    """Under the exponential map a wild vol factor has no mean to match, and needs none."""
    law = specification({"A:spot": 0.02, "A:vol": 0.5}, model="t", degrees_of_freedom=3.0, price_map=PriceMap.EXP)
    shock = simulate(law, MARKET, seed=1, n_scenarios=1024).shock
    assert bool(jnp.all(jnp.isfinite(shock)))


def test_a_drift_that_does_not_exist_is_refused():
    law = NormalMixture(np.array([[0.1]]), np.ones(1))
    for growth in (np.nan, np.inf, -1.0):
        with pytest.raises(NumericsError, match="no drift reaches the forward"):
            mean_shift(PriceMap.EXP_LINEAR, law, np.array([growth]))


# ---- correlation ---------------------------------------------------------------------------------------------------


def test_loading_reproduces_the_correlation():
    rng = np.random.default_rng(7)
    a = rng.normal(size=(12, 12))
    c = np.array(np.corrcoef(a @ a.T + 3 * np.eye(12)))
    model = build(specification({f"{i}:spot": 0.01 for i in range(12)}, correlation=(c + c.T) / 2))
    loading = np.asarray(model.loading)
    np.testing.assert_allclose(loading @ loading.T, c, atol=1e-14)
    size = np.sum(loading**2, axis=0)
    assert np.all(np.diff(size) <= 1e-12), "principal components come largest first"
    assert np.all(loading[np.argmax(np.abs(loading), axis=0), np.arange(12)] > 0), "and with a fixed sign"


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
    with pytest.raises(NumericsError, match=r"not positive semi-definite, smallest eigenvalue -0\.8"):
        build(specification({"A:spot": 0.01, "B:spot": 0.01, "C:spot": 0.01}, correlation=c))


def test_rounding_of_a_singular_matrix_is_forgiven_and_keeps_unit_variance():
    c = np.full((3, 3), 1 - 1e-17)
    c[0, 1] = c[1, 0] = 1 - 3e-9
    np.fill_diagonal(c, 1.0)
    loading = np.asarray(build(specification({f"{i}:spot": 0.01 for i in "ABC"}, correlation=c)).loading)
    np.testing.assert_allclose(np.sum(loading**2, axis=1), 1.0, rtol=1e-14)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "rule"),
    [
        ({"name": "A"}, "named <underlying>:spot or <underlying>:vol"),
        ({"name": ":spot"}, "named <underlying>:spot or <underlying>:vol"),
        ({"name": "A:basis.2025"}, "named <underlying>:spot or <underlying>:vol"),
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
        build(specification(SIGMA, model="heston"))
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
        ({"horizon": "61d"}, "longer than 60 steps"),
        ({"horizon": "two days"}, "write whole days or hours"),
    ],
)
def test_a_bad_request_for_scenarios_names_the_rule(change, rule):
    with pytest.raises(UsageError, match=rule):
        simulate(specification(SIGMA), MARKET, **({"seed": 1} | change))
