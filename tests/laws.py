"""Draws from models, straight through their paths or through `simulate`, and the laws they are held to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy import integrate, stats

from pmvar.models.base import PathShock, RiskFactorModel
from pmvar.models.price_map import NormalMixture
from pmvar.models.specification import ModelSpecification
from pmvar.scenarios import simulate
from pmvar.types import Drift, PriceMap, Sampling
from tests.markets import snapshot

N = 1 << 17
MARKET = snapshot({"A": (100.0, "USD"), "B": (10.0, "USD"), "C": (1.0, "USD")})


def draws(model: ModelSpecification, *, n: int = N, seed: int = 1, horizon: str = "1d") -> np.ndarray:
    """x of every path over its standard deviation: the linear map shows x itself."""
    model = replace(model, price_map=PriceMap.LINEAR)
    scenarios = simulate(
        model, MARKET, seed=seed, n_scenarios=n, horizon=horizon, drift=Drift.NONE, sampling=Sampling.MC
    )
    return np.expm1(np.asarray(scenarios.shock[:, 0])) / np.array([f.volatility for f in model.factors])


def unit_law(nu: float | None) -> Any:
    """The law of unit variance."""
    return stats.norm() if nu is None else stats.t(nu, scale=np.sqrt((nu - 2) / nu))


@eqx.filter_jit
def _walk(law: RiskFactorModel, normal: jax.Array, steps: jax.Array) -> PathShock:
    return jax.vmap(lambda z: law.path(z, steps))(normal)


def normals(law: RiskFactorModel, *, steps: float = 1.0, n: int = N, seed: int = 1) -> np.ndarray:
    """Independent standard normals for `n` paths, [path, step, dimension]."""
    return np.random.default_rng(seed).standard_normal((n, law.n_steps(float(steps)), law.dimension()))


class Walked(NamedTuple):
    """`PathShock` of many paths, on the host."""

    diffusion: np.ndarray
    jump: np.ndarray
    deviation: np.ndarray
    count: np.ndarray


def walk(law: RiskFactorModel, normal: np.ndarray, *, steps: float = 1.0) -> Walked:
    """The paths of `normal`, with a leading axis of paths."""
    return Walked(*map(np.asarray, _walk(law, jnp.asarray(normal), jnp.float64(steps))))


def total(law: RiskFactorModel, *, steps: float = 1.0, n: int = N, seed: int = 1) -> np.ndarray:
    """x at the horizon, [path, factor]."""
    path = walk(law, normals(law, steps=steps, n=n, seed=seed), steps=steps)
    return (path.diffusion + path.jump).sum(axis=1)


def marginal(law: RiskFactorModel, steps: float) -> NormalMixture:
    """Its marginal law, which must be known."""
    found = law.marginal(steps)
    assert found is not None
    return found


def assert_mean(sample: np.ndarray, expected: float | np.ndarray) -> None:
    """The mean over the first axis is `expected`, inside four standard errors."""
    error = sample.std(axis=0) / np.sqrt(len(sample))
    np.testing.assert_array_less(np.abs(sample.mean(axis=0) - expected), 4 * error + 1e-11 * np.abs(expected) + 1e-15)


class Inverted:
    """The distribution function of x by Gil-Pelaez's inversion of its characteristic function.

    F(x) = ½ − (1/π)∫₀^∞ Im[e^{−iux}φ(u)]/u du, by the midpoint rule to where φ has died, on a grid fine enough for the
    sample it is compared with; Gil-Pelaez (1951), "Note on the inversion theorem", Biometrika 38.
    """

    def __init__(self, phi: Any, *, most: float, n: int = 4000):
        self.u = (np.arange(n) + 0.5) * most / n
        self.weight = phi(self.u) / self.u * (most / n) / np.pi

    def cdf(self, x: np.ndarray) -> np.ndarray:
        """F at many points, interpolated between 2,000 of them."""
        grid = np.linspace(x.min(), x.max(), 2_000)
        value = np.array([0.5 - np.sum(np.imag(np.exp(-1j * self.u * at) * self.weight)) for at in grid])
        return np.interp(x, grid, value)


def mixture_cdf(mean: np.ndarray, deviation: np.ndarray, weight: np.ndarray, x: np.ndarray) -> np.ndarray:
    """F of a mixture of normals at many points."""
    parts = (w * stats.norm.cdf(x, m, d) for m, d, w in zip(mean, deviation, weight, strict=True) if w > 1e-14)
    return sum(parts, np.zeros_like(x))


def quantile_and_shortfall(loss_cdf: Any, level: float, *, high: float) -> tuple[float, float]:
    """VaR by bisection and ES = VaR + ∫_VaR^high (1 − F)/(1 − level)."""
    low, top = 0.0, high
    for _ in range(200):
        middle = (low + top) / 2
        low, top = (middle, top) if loss_cdf(middle) < level else (low, middle)
    excess = integrate.quad(lambda x: 1 - loss_cdf(x), low, high, limit=400, epsabs=1e-12)[0]
    return low, low + excess / (1 - level)
