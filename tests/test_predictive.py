"""Posterior-predictive scenarios: the plug-in's where nothing is uncertain, else mixtures of closed forms."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import integrate, optimize

from pmvar.errors import InputError
from pmvar.models import build
from pmvar.models.posterior_draws import PosteriorDraws
from pmvar.models.specification import ModelSpecification
from pmvar.scenarios import simulate
from pmvar.types import Drift, Parameters, PriceMap, Sampling
from tests.laws import MARKET, normals, unit_law, walk
from tests.markets import specification

SIGMA = {"A:spot": 0.03, "B:spot": 0.05}
FILTER = {
    "A:spot": {"omega": 4e-5, "alpha": 0.1, "gamma": 0.05, "beta": 0.8, "variance": 9e-4},
    "B:spot": {"omega": 1e-5, "alpha": 0.05, "gamma": 0.0, "beta": 0.9, "variance": 25e-4},
}
SINGLE = {"A:spot": FILTER["A:spot"]}
N = 1 << 17


Filters = dict[str, dict[str, float]]


def law(model: str = "t-garch", filters: Filters = FILTER, nu: float | None = 5.0) -> ModelSpecification:
    """A model of as many factors as there are filters."""
    sigma = {name: SIGMA[name] for name in filters}
    made = specification(sigma, model=model, degrees_of_freedom=nu, price_map=PriceMap.LINEAR)
    return replace(made, state={"filter": filters})


def posterior(nu: Any, filters: Filters = FILTER, **changed: Any) -> PosteriorDraws:
    """Draws around `filters`: `nu` and what is `changed` are by draw, the same for all factors; factors by ratio."""
    nu = np.asarray(nu, dtype=float)

    def part(key: str) -> np.ndarray:
        own = np.array([f[key] for f in filters.values()])
        return np.asarray(changed.get(key, np.ones(len(nu))))[:, None] * own

    keys = ("omega", "alpha", "gamma", "beta", "variance")
    tails = np.repeat(nu[:, None], len(filters), axis=1)
    return PosteriorDraws(tuple(filters), degrees_of_freedom=tails, **{key: part(key) for key in keys})


def shortfall(scenarios: Any, level: float = 0.99) -> float:
    """ES of being long the first factor."""
    loss, weight = -np.expm1(np.asarray(scenarios.shock[:, 0, 0])), scenarios.weight
    order = np.argsort(-loss)
    loss, weight = loss[order], weight[order]
    n_tail = len(loss) * (1 - level)
    at = loss[np.searchsorted(np.cumsum(weight), n_tail)]
    return at + np.sum(weight * np.maximum(loss - at, 0)) / n_tail


def mixture_shortfall(laws: list[Any], scales: np.ndarray, level: float = 0.99) -> float:
    """ES of an equal mixture of symmetric laws, by quadrature."""

    def beyond(x: float) -> float:
        return float(np.mean([d.sf(x / s) for d, s in zip(laws, scales, strict=True)]))

    at = optimize.brentq(lambda x: beyond(x) - (1 - level), 0.0, 10.0)
    return at + integrate.quad(beyond, at, np.inf, epsabs=1e-13)[0] / (1 - level)


def test_draws_that_agree_are_the_plug_in():
    """Path by path, over one step and three, and in `simulate`, whose further coordinate moves no other."""
    plain = law()
    sure = replace(plain, posterior=posterior([5.0] * 7))
    for steps in (1.0, 3.0):
        drawn, point = build(sure, steps), build(plain, steps)
        z = normals(drawn, steps=steps, n=512)
        for one, two in zip(walk(drawn, z, steps=steps), walk(point, z[:, :, :-1], steps=steps), strict=True):
            np.testing.assert_allclose(one, two, rtol=1e-13, atol=0)
    for sampling in (Sampling.SOBOL, Sampling.SOBOL_IS):
        request: dict[str, Any] = {"seed": 3, "n_scenarios": 4096, "horizon": "1d", "sampling": sampling}
        request["drift"] = Drift.NONE
        one, two = (simulate(m, MARKET, **request) for m in (sure, plain))
        np.testing.assert_allclose(one.shock, two.shock, rtol=1e-11, atol=1e-15)
        np.testing.assert_array_equal(one.weight, two.weight)
        switched = simulate(sure, MARKET, **request, parameters=Parameters.PLUG_IN)
        np.testing.assert_array_equal(switched.shock, two.shock)
        assert one.provenance["model"]["posterior_draws"] == 7
        assert switched.provenance == two.provenance


@pytest.mark.parametrize("model", ["gaussian", "t-garch"])
def test_expected_shortfall_of_a_mixture(model):
    """Of variances, and of tails, by quadrature; the plug-in's is less by far more than the error."""
    ratio, nu = np.array([0.4, 0.7, 1.0, 2.0]), np.array([3.0, 8.0, 4.0, 6.0])
    point = law(model, SINGLE, None if model == "gaussian" else 5.0)
    made = replace(point, posterior=posterior(nu, SINGLE, variance=ratio))
    laws = [unit_law(None if model == "gaussian" else v) for v in nu]
    exact = mixture_shortfall(laws, 0.03 * np.sqrt(ratio))
    found = simulate(made, MARKET, seed=1, n_scenarios=N, horizon="1d", drift=Drift.NONE, sampling=Sampling.SOBOL)
    plain = simulate(point, MARKET, seed=1, n_scenarios=N, horizon="1d", drift=Drift.NONE, sampling=Sampling.SOBOL)
    assert shortfall(found) == pytest.approx(exact, rel=5e-3)
    assert shortfall(plain) < 0.95 * exact


def test_two_days_under_each_draw():
    """The draw holds over the whole path: second moments of both days are the mean over draws of the forecasts."""
    ratio = np.array([0.3, 1.0, 1.7])
    made = law("gaussian", SINGLE, None)
    drawn = replace(made, posterior=posterior([5.0] * 3, SINGLE, variance=ratio, omega=ratio[::-1].copy()))
    m = build(drawn, 2.0)
    x = walk(m, normals(m, steps=2.0), steps=2.0).diffusion[:, :, 0]
    p = FILTER["A:spot"]
    first = p["variance"] * ratio
    second = p["omega"] * ratio[::-1] + (p["alpha"] + p["gamma"] / 2 + p["beta"]) * first
    for day, forecast in enumerate((first, second)):
        square = x[:, day] ** 2
        assert abs(square.mean() - forecast.mean()) < 4 * square.std() / np.sqrt(len(square))
    # Days share their draw: the covariance of squares is more than that of any one draw.
    assert np.cov(*(x**2).T)[0, 1] > 1.2 * np.mean((p["alpha"] + p["gamma"] / 2) * 2 * first**2)


def test_the_drift_centres_the_predictive_law():
    """The mean of e^shock is the growth, though the plug-in's drift would miss it."""
    point = replace(law("gaussian", SINGLE, None), price_map=PriceMap.EXP_LINEAR)
    made = replace(point, posterior=posterior([5.0] * 2, SINGLE, variance=[1.0, 40.0]))
    found = simulate(made, MARKET, seed=1, n_scenarios=N, horizon="1d", sampling=Sampling.SOBOL)
    price = np.exp(np.asarray(found.shock[:, 0, 0]))
    by_replicate = np.array([price[r::16].mean() for r in range(16)])
    assert found.paths is not None
    assert abs(price.mean() - 1) < 4 * by_replicate.std() / 4 + 1e-6
    plain = simulate(point, MARKET, seed=1, n_scenarios=1 << 12, horizon="1d", sampling=Sampling.SOBOL)
    assert plain.paths is not None
    shifts = [paths.shift(found.horizon_end)[0] for paths in (found.paths, plain.paths)]
    assert abs(shifts[0] - shifts[1]) > 1e-3


def test_thinned_draws_stand_for_all():
    """Quantiles of each factor's variance, rows of one draw kept together, factors independent, heavy draws first."""
    rng, n = np.random.default_rng(1), 4000
    variance = np.exp(rng.normal(-7, 0.3, (n, 3)))
    ones = np.ones((n, 3))
    full = PosteriorDraws(
        ("A:spot", "B:spot", "C:spot"), variance / 10, 0.1 * ones, 0 * ones, 0.8 * ones, variance, 5 * ones
    )
    thin = full.thinned()
    assert len(thin.omega) == 64
    for i in range(3):
        quantile = np.quantile(variance[:, i], (np.arange(64) + 0.5) / 64)
        np.testing.assert_allclose(np.sort(thin.variance[:, i]), quantile, rtol=2e-2)
        assert np.mean(thin.variance[:, i]) == pytest.approx(variance[:, i].mean(), rel=5e-3)
    np.testing.assert_array_equal(thin.omega, thin.variance / 10)
    off = np.corrcoef(thin.variance.T)[np.triu_indices(3, 1)]
    assert np.all(np.abs(off) < 4 / np.sqrt(64))
    assert np.all(np.diff(np.log(thin.variance).sum(axis=1)) <= 0)
    assert thin.thinned() is thin


def test_what_is_refused():
    draws = posterior([5.0, 6.0])
    with pytest.raises(InputError, match="model t-multi has no volatility filter for the posterior to move"):
        build(replace(specification(SIGMA, model="t-multi", degrees_of_freedom=5.0), posterior=draws))
    with pytest.raises(InputError, match="made without skew"):
        build(replace(law(), parameters={"skew": {"A:spot": 0.1}}, posterior=draws))
    with pytest.raises(InputError, match="a posterior is of the model's own factors.*"):
        replace(law("t-garch", SINGLE), posterior=draws)
    cases: tuple[tuple[str, Any, str], ...] = (
        ("omega", [1.0, -1.0], "alpha \\+ gamma and beta ≥ 0"),
        ("beta", [1.0, 2.0], "alpha \\+ gamma/2 \\+ beta ≤ 1"),
        ("variance", [1.0, np.nan], "variance > 0"),
    )
    for key, value, rule in cases:
        with pytest.raises(InputError, match=f"{rule}.*draw 2 of A:spot|draw 2 of A:spot.*{rule}"):
            posterior([5.0, 6.0], FILTER, **{key: value})
    with pytest.raises(InputError, match="degrees_of_freedom > 2"):
        posterior([5.0, 2.0])
