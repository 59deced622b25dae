"""How a price factor's x becomes a price ratio g(x), and the shift that makes its mean the forward.

The default map g(x) = eˣ for x ≤ 0 and 1 + x for x > 0 is smooth, positive, and linear upwards: a log-Student-t return
has E[eˣ] = ∞, so that under eˣ the expected shortfall of a short position is infinite and plain Monte Carlo hides it.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import special

from pmvar.errors import NumericsError
from pmvar.types import PriceMap

FLOOR = 1e-8
"""Smallest price ratio of the linear map."""


def log_price_ratio(price_map: PriceMap, x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """ln g(x), finite for every finite x."""
    if price_map is PriceMap.EXP:
        return x
    if price_map is PriceMap.LINEAR:
        return jnp.log(jnp.maximum(1 + x, FLOOR))
    return jnp.where(x > 0, jnp.log1p(jnp.maximum(x, 0.0)), x)


class NormalMixture(NamedTuple):
    """A marginal law as a finite mixture of normals, per factor."""

    mean: Float[np.ndarray, "factor node"]
    deviation: Float[np.ndarray, "factor node"]
    """0 is a point mass."""
    weight: Float[np.ndarray, "factor node"]
    """Sums to 1 over the nodes."""

    def times(self, other: NormalMixture) -> NormalMixture:
        """The law of the sum of two independent variables."""

        def pairs(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            return a[:, :, None], b[:, None, :]

        m, d, w = (pairs(*both) for both in zip(self, other, strict=True))
        n = len(self.mean)
        return NormalMixture((m[0] + m[1]).reshape(n, -1), np.hypot(*d).reshape(n, -1), (w[0] * w[1]).reshape(n, -1))


def _mean_and_slope(price_map: PriceMap, c: np.ndarray, v: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """E[g(Y)] and its derivative in c, Y ~ N(c, v²), v > 0."""
    upper = special.ndtr(c / v)
    if price_map is PriceMap.EXP:
        mean = np.exp(c + v * v / 2)
        return mean, mean
    density = np.exp(-0.5 * (c / v) ** 2) / np.sqrt(2 * np.pi)
    if price_map is PriceMap.LINEAR:
        c = 1 + c
        upper = special.ndtr(c / v)
        return c * upper + v * np.exp(-0.5 * (c / v) ** 2) / np.sqrt(2 * np.pi), upper
    lower = np.exp(c + v * v / 2 + special.log_ndtr(-(c + v * v) / v))
    return lower + (1 + c) * upper + v * density, lower + upper


def mean_shift(price_map: PriceMap, law: NormalMixture, growth: Float[np.ndarray, " factor"]) -> np.ndarray:
    """The c of each factor for which E[g(x + c)] = `growth` (forward over spot), by Newton on the exact mixture.

    It depends on the law alone, never on a run's own paths. Raises NumericsError where no shift reaches the growth.
    """
    v = np.maximum(law.deviation, 1e-12)
    c = np.zeros(len(growth))
    error = np.full(len(growth), np.inf)
    for _ in range(50):
        mean, slope = _mean_and_slope(price_map, c[:, None] + law.mean, v)
        error = np.sum(mean * law.weight, axis=1) - growth
        if np.all(np.abs(error) <= 1e-14):
            break
        c = c - np.clip(error / np.sum(slope * law.weight, axis=1), -0.5, 0.5)
    if not np.all(np.abs(error) <= 1e-11):
        raise NumericsError(f"no drift reaches the forward: growth {growth}, error {error}; check volatilities")
    return c
