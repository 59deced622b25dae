"""Jumps against published and closed-form values: calls of Kou and Merton, tail measures, the martingale."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from pmvar.models import build
from pmvar.models.price_map import mean_shift
from pmvar.models.specification import ModelSpecification
from pmvar.scenarios import simulate
from pmvar.types import PriceMap, Sampling
from tests.laws import MARKET, N, assert_mean, quantile_and_shortfall, total
from tests.markets import specification

KOU = {"intensity": 40.0, "up_probability": 0.3, "up_rate": 50.0, "down_rate": 25.0}


def jumping(model: str, jumps: dict[str, float], sigma: float) -> ModelSpecification:
    """A specification of one price with jumps, under the exponential map."""
    law = specification({"A:spot": sigma}, model=model, price_map=PriceMap.EXP)
    return replace(law, parameters={"jumps": jumps})


def call(model: ModelSpecification, *, strike: float, rate: float, years: float, seed: int) -> tuple[float, float]:
    """Price of a call on 100 and its standard error, x shifted so that E eˣ is the forward's growth."""
    steps = 365 * years
    law = build(model, steps)
    x = total(law, steps=steps, n=1 << 20, seed=seed)[:, 0]
    marginal = law.marginal(steps)
    if marginal is None:
        lam, p, up, down = (model.parameters["jumps"][key] for key in KOU)
        rest = model.factors[0].volatility ** 2 * steps - lam * years * (2 * p / up**2 + 2 * (1 - p) / down**2)
        mean = rest / 2 + lam * years * (p * up / (up - 1) + (1 - p) * down / (down + 1) - 1)
        shift = rate * years - mean
    else:
        shift = float(mean_shift(PriceMap.EXP, marginal, np.array([np.exp(rate * years)]))[0])
    price = 100 * np.exp(x + shift)
    assert_mean(price, 100 * np.exp(rate * years))
    payoff = np.exp(-rate * years) * np.maximum(price - strike, 0)
    return float(payoff.mean()), float(payoff.std() / np.sqrt(len(x)))


def test_kous_call():
    """S = 100, K = 98, r = .05, σ = .16, λ = 1, p = .4, η = 10 and 5, T = ½: 9.147317 (Kou 2002). σ is the diffusion's;
    a specification's volatility holds the jumps too."""
    volatility = np.sqrt((0.16**2 + 2 * 0.4 / 100 + 2 * 0.6 / 25) / 365)
    jumps = {"intensity": 1.0, "up_probability": 0.4, "up_rate": 10.0, "down_rate": 5.0}
    model = jumping("kou", jumps, float(volatility))
    price, error = call(model, strike=98.0, rate=0.05, years=0.5, seed=1)
    assert price == pytest.approx(9.147317, abs=4 * error) and error < 0.02


def test_mertons_call():
    """S = K = 100, r = .05, σ = .2, λ = 1, m = −.1, δ = .15, T = 1: 12.7612885936, Merton's series."""
    volatility = np.sqrt((0.2**2 + 0.1**2 + 0.15**2) / 365)
    jumps = {"intensity": 1.0, "mean": -0.1, "deviation": 0.15}
    price, error = call(jumping("merton", jumps, float(volatility)), strike=100.0, rate=0.05, years=1.0, seed=2)
    assert price == pytest.approx(12.7612885936, abs=4 * error) and error < 0.03


def test_mertons_value_at_risk_and_shortfall():
    """Long 100, σ = .6, λ = 10, log-jump N(−.08, .12²), one day: VaR99 11.42078934 and ES99 18.53569053 by the Poisson
    mixture to every digit, then simulated through the exponential map, inside four standard errors."""
    lam, m, d = 10.0, -0.08, 0.12
    rest, n = 0.36 / 365, np.arange(12.0)
    c = -rest / 2 - lam / 365 * (np.exp(m + d**2 / 2) - 1)
    weight = stats.poisson.pmf(n, lam / 365)

    def loss_cdf(x: float) -> float:
        return 1 - float(weight @ stats.norm.cdf((np.log1p(-x / 100) - c - n * m) / np.sqrt(rest + n * d**2)))

    var, es = quantile_and_shortfall(loss_cdf, 0.99, high=99.999)
    assert var == pytest.approx(11.42078934, abs=1e-8) and es == pytest.approx(18.53569053, abs=1e-7)

    volatility = float(np.sqrt((0.36 + lam * (m**2 + d**2)) / 365))
    model = jumping("merton", {"intensity": lam, "mean": m, "deviation": d}, volatility)
    paths = 1 << 18
    set_ = simulate(model, MARKET, seed=1, n_scenarios=paths, horizon="1d", sampling=Sampling.MC)
    loss = np.sort(100 * -np.expm1(np.asarray(set_.shock[:, 0, 0])))[::-1]
    density = (loss_cdf(var + 1e-4) - loss_cdf(var - 1e-4)) / 2e-4
    assert loss[int(0.01 * paths)] == pytest.approx(var, abs=4 * np.sqrt(0.01 * 0.99 / paths) / density)
    excess = np.maximum(loss - var, 0)
    assert var + excess.mean() / 0.01 == pytest.approx(es, abs=4 * excess.std() / np.sqrt(paths) / 0.01)
    ratio = np.exp(np.asarray(set_.shock[:, 0, 0]))
    assert_mean(ratio, 1.0)


def test_kous_price_is_a_martingale():
    """Its drift comes from the reference sample, in place of a closed form."""
    model = jumping("kou", KOU, 0.04)
    set_ = simulate(model, MARKET, seed=2, n_scenarios=N, horizon="5d", sampling=Sampling.MC)
    assert_mean(np.exp(np.asarray(set_.shock[:, 0, 0])), 1.0)
