"""Student-t with degrees of freedom of its own for each factor, one mixing uniform, and skew."""

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
from scipy import integrate, special, stats

from pmvar.errors import InputError
from pmvar.models import build
from pmvar.models.specification import Factor, ModelSpecification
from tests.laws import N, assert_mean, draws, marginal, mixture_cdf, normals, total, unit_law, walk
from tests.markets import specification

NU = {"A:spot": 3.0, "A:vol": 4.5, "B:spot": 8.0, "B:vol": None}


def t_multi(nu: Mapping[str, float | None], *, rho: float = 0.0, **skew: float) -> ModelSpecification:
    """Unit volatilities; `A_spot=γ` skews the factor A:spot."""
    n = len(nu)
    model = specification(dict.fromkeys(nu, 1.0), model="t-multi", correlation=rho + (1 - rho) * np.eye(n))
    factors = tuple(Factor(name, 1.0, dof) for name, dof in nu.items())
    named = {name.replace("_", ":"): gamma for name, gamma in skew.items()}
    return replace(model, factors=factors, parameters={"skew": named} if named else {})


def test_marginals_have_their_own_degrees_of_freedom():
    """Kolmogorov–Smirnov of 131,072 draws of each factor, through `simulate`, and correlations about ρ."""
    model = replace(t_multi(NU, rho=0.4), factors=tuple(Factor(f, 1e-3, nu) for f, nu in NU.items()))
    x = draws(model)
    for column, nu in zip(x.T, NU.values(), strict=True):
        assert stats.kstest(column, unit_law(nu).cdf).pvalue > 1e-3
    # Kendall's τ of an elliptical pair is 2/π·asin ρ, whatever the tails; near it also with tails of their own.
    tau = np.asarray(stats.kendalltau(x[:, 0], x[:, 1]))[0]
    assert tau == pytest.approx(2 / np.pi * np.arcsin(0.4), abs=0.01)


def test_factors_of_different_tails_crash_together():
    """Uncorrelated, ν = 3 and 6: both beyond their .1% quantile by quadrature over the common U; 18 times more often
    than if they were independent."""
    nu = {"A:spot": 3.0, "B:spot": 6.0}
    x = total(build(t_multi(nu)), n=1 << 19)
    at = [unit_law(v).ppf(1e-3) for v in nu.values()]

    def both(u: float) -> float:
        w = [(v - 2) / stats.chi2(v).ppf(u) for v in nu.values()]
        return float(np.prod([stats.norm.cdf(q / np.sqrt(s)) for q, s in zip(at, w, strict=True)]))

    expected = integrate.quad(both, 0, 1, limit=200)[0]
    assert expected > 18e-6
    hits = np.mean((x[:, 0] < at[0]) & (x[:, 1] < at[1]))
    assert hits == pytest.approx(expected, abs=4 * np.sqrt(expected / len(x)))


@pytest.mark.parametrize("nu", [2.5, 4.0, None])
def test_equal_degrees_without_skew_are_model_t(nu):
    """To the bit, path, deviation and marginal law."""
    many = t_multi(dict.fromkeys(NU, nu), rho=0.3)
    one = build(replace(many, model="t"))
    z = normals(one, n=256)
    for a, b in zip(walk(build(many), z), walk(one, z), strict=True):
        np.testing.assert_array_equal(a, b)
    for a, b in zip(marginal(build(many), 2.0), marginal(one, 2.0), strict=True):
        np.testing.assert_array_equal(a, b)


def test_zero_skew_is_no_skew():
    none, zero = build(t_multi(NU)), build(t_multi(NU, A_spot=0.0, B_vol=0.0))
    z = normals(none, n=256)
    np.testing.assert_array_equal(walk(none, z).diffusion, walk(zero, z).diffusion)


def third_moment(nu: float, gamma: float) -> float:
    """E ε³, from E W^k = (ν/2)^k Γ(ν/2 − k)/Γ(ν/2): W is inverse gamma."""
    m = [np.exp(k * np.log(nu / 2) + special.gammaln(nu / 2 - k) - special.gammaln(nu / 2)) for k in range(4)]
    variance, third = m[2] - m[1] ** 2, m[3] - 3 * m[1] * m[2] + 2 * m[1] ** 3
    raw = 3 * gamma * (nu - 2) / nu * variance + gamma**3 * third
    return float(raw / (1 + gamma**2 * variance) ** 1.5)


@pytest.mark.parametrize(("nu", "gamma"), [(8.0, -0.4), (20.0, -1.5), (20.0, 0.7)])
def test_skew_by_law(nu, gamma):
    """Mean 0, variance 1 and the exact third moment of the mixture, to what truncation at U_MIN takes from it."""
    mean, deviation, weight = (part[0] for part in marginal(build(t_multi({"A:spot": nu}, A_spot=gamma)), 1.0))
    assert weight @ mean == pytest.approx(0, abs=1e-7)
    assert weight @ (mean**2 + deviation**2) == pytest.approx(1, abs=1e-6)
    assert weight @ (mean**3 + 3 * mean * deviation**2) == pytest.approx(third_moment(nu, gamma), rel=2e-3)
    assert np.sign(third_moment(nu, gamma)) == np.sign(gamma)


def test_skew_simulated():
    """Mean, variance and third moment inside four standard errors; the other factor does not notice."""
    x = total(build(t_multi({"A:spot": 20.0, "B:spot": 5.0}, A_spot=-1.5)))
    for k, expected in ((1, 0.0), (2, 1.0), (3, third_moment(20.0, -1.5))):
        assert_mean(x[:, 0] ** k, expected)
    assert third_moment(20.0, -1.5) < -0.3
    assert stats.kstest(x[:, 1], unit_law(5.0).cdf).pvalue > 1e-3


def test_skewed_draws_have_the_law_of_their_marginal():
    """Kolmogorov–Smirnov against the mixture that the drift comes from."""
    law = build(t_multi({"A:spot": 5.0}, A_spot=-0.3))
    mean, deviation, weight = (part[0] for part in marginal(law, 1.0))
    cdf = mixture_cdf(mean, deviation, weight, total(law, n=1 << 14)[:, 0])
    assert stats.kstest(cdf, stats.uniform.cdf).pvalue > 1e-3


@pytest.mark.parametrize("nu", [2.001, 2 + 1e-9, 1e8, 1e300, None])
def test_degrees_of_freedom_at_their_limits(nu):
    """Finite next to 2 and Gaussian far up, beside a factor of ordinary tails."""
    law = build(t_multi({"A:spot": nu, "B:spot": 4.0}))
    x = total(law, n=N)
    assert np.all(np.isfinite(x)) and x[:, 0].std() > 0
    if nu is None or nu > 4:
        assert stats.kstest(x[:, 0], stats.norm.cdf).pvalue > 1e-3
    assert stats.kstest(x[:, 1], unit_law(4.0).cdf).pvalue > 1e-3


@pytest.mark.parametrize(
    ("skew", "rule"),
    [
        ({"C:spot": 0.1}, "skew is {factor: number}"),
        ({"B:spot": "0.1"}, "skew is {factor: number}"),
        ({"B:spot": True}, "skew is {factor: number}"),
        ({"B:spot": np.nan}, "skew is {factor: number}"),
        ({"A:spot": 0.1}, "finite degrees_of_freedom above 4"),
        ({"B:vol": 0.1}, "finite degrees_of_freedom above 4"),
        (0.1, "skew is {factor: number}"),
    ],
)
def test_a_bad_skew_names_the_rule(skew, rule):
    with pytest.raises(InputError, match=rule):
        build(replace(t_multi(NU), parameters={"skew": skew}))
