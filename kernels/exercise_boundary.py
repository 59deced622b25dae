"""The early-exercise boundary of American puts by spectral collocation: Andersen, Lake and Offengenden (2016).

Everything is per unit of strike and of the time to expiry T: total deviation a = σ√T, total rate R = rT and total
yield Q = qT. With τ the share of T still to run, the option is exercised where S/K ≤ B(τ). B falls from X =
min(1, R/Q) at expiry towards that of the perpetual option; its depth is ln(X/B) ≥ 0. The depth squared is smooth in
√τ, and is kept at Chebyshev nodes of it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from pmvar.kernels.black import normal_cdf

NODES = 10
"""Chebyshev nodes of √τ beside the one at expiry, where the depth is 0."""

POINTS = 12
"""Points of the quadrature within an iteration."""

ITERATIONS = 12
"""Of the fixed point FP-A, from a blend of the boundary's two limits. Eight are enough but where the drift outweighs
the deviation, (r − q)√T > 2σ: there they leave 4e-6 of the strike, twelve 2e-6."""

SMALLEST_DEVIATION = 1e-6
"""Total deviations below this are this: the boundary is then its limit at expiry to 1e-5."""

_TINY = 1e-300


def exercised_early(rate: Float[Array, "*shape"], dividend_yield: Float[Array, "*shape"]) -> Bool[Array, "*shape"]:
    """Whether an American put is worth more than a European one: unless r ≤ 0 and q ≥ r.

    Exercise wins the interest rK and forgoes the yield qS for good. With r ≤ 0 ≤ q nothing is won at any price, with
    r ≤ q < 0 only above rK/q ≥ K, where the put is worth nothing exercised.
    """
    return (rate > 0) | (dividend_yield < rate)


def has_two_boundaries(rate: Float[Array, "*shape"], dividend_yield: Float[Array, "*shape"]) -> Bool[Array, "*shape"]:
    """Where a put is exercised between two prices and held below both, q < r < 0: not priced here.

    Of a call the arguments change places: r < q < 0. Source: Battauz, De Donno and Sbuelz (2015).
    """
    return (rate < 0) & (dividend_yield < rate)


def log_limit_at_expiry(
    total_rate: Float[Array, "*shape"], total_yield: Float[Array, "*shape"]
) -> Float[Array, "*shape"]:
    """ln X: below X the interest on the strike outweighs the yield on the price, min(1, R/Q); both as in `depth`."""
    capped = (total_rate > 0) & (total_yield > total_rate)
    return jnp.log(jnp.where(capped, total_rate / jnp.where(capped, total_yield, 1.0), 1.0))


def depth(
    total_deviation: Float[Array, " option"], total_rate: Float[Array, " option"], total_yield: Float[Array, " option"]
) -> Float[Array, "option node"]:
    """ln(X/B) at the nodes of √τ, from √τ = 1 down; float64. Of each: σ√T ≥ 0, rT, qT.

    Where `exercised_early` is false or `has_two_boundaries` is true the result means nothing, but is finite.
    Differentiable: derivatives converge with the iterations, one behind. Source: Andersen, Lake and Offengenden
    (2016), "High-performance American option pricing", J. Computational Finance 20(1), FP-A.
    """
    root, sine, cosine, weight, own = _rule()
    a, rate, held = (x[:, None] for x in (jnp.maximum(total_deviation, SMALLEST_DEVIATION), total_rate, total_yield))
    log_limit, lowest = log_limit_at_expiry(rate, held), _log_perpetual(a, rate, held)
    # Both ends of the curve are known; between them an exponential in √τ is within some per cent.
    fall = -jnp.expm1(-2 * a * root / jnp.maximum(-jnp.expm1(lowest), 1e-9))
    b = log_limit + jnp.log1p(jnp.expm1(lowest - log_limit) * fall)

    # [option, node, point]: from each node back to expiry.
    elapsed_root = root[..., None] * sine
    elapsed, left = elapsed_root**2, (root[..., None] * cosine) ** 2
    share = 2 * root[..., None] * cosine * weight
    a3, rate3, held3, limit3 = (x[..., None] for x in (a, rate, held, log_limit))
    deviation, drift = a3 * elapsed_root, (rate3 - held3) * elapsed
    rate_share, yield_share = share * jnp.exp(rate3 * left), share * jnp.exp(held3 * left)
    # Undamped it diverges where the drift outweighs the deviation, (r − q)√T > σ; the formula is a fit.
    drift_ratio = jnp.maximum(rate - held, 0.0) * root / a
    damping = 1 / (1 + 0.6 * drift_ratio**3 * (1 + (drift_ratio / 3) ** 3))

    def step(_: Array | int, b: Array) -> Array:
        on_curve = limit3 - interpolated(log_limit - b, own).reshape(deviation.shape)
        middle = (b[..., None] - on_curve + drift) / deviation
        plus, minus = middle + deviation / 2, middle - deviation / 2
        at_strike = (b + (rate - held) * root**2) / (a * root)
        plus_k, minus_k = at_strike + a * root / 2, at_strike - a * root / 2
        interest = jnp.sum(rate_share * _density(minus), -1)
        carry = jnp.sum(yield_share * (elapsed_root * normal_cdf(plus) + _density(plus) / a3), -1)
        above = _density(minus_k) / (a * root) + rate / a * interest
        below = _density(plus_k) / (a * root) + normal_cdf(plus_k) + held * carry
        moved = (held - rate) * root**2 + jnp.log(jnp.maximum(above, _TINY)) - jnp.log(jnp.maximum(below, _TINY))
        return jnp.clip(b + damping * (moved - b), lowest, log_limit)

    return log_limit - jax.lax.fori_loop(0, ITERATIONS, step, b)


def interpolated(
    depth: Float[Array, "option node"], matrix: Float[np.ndarray, "point node"]
) -> Float[Array, "option point"]:
    """Depth where `interpolation` placed the points."""
    squared = depth**2 @ matrix.T
    positive = squared > _TINY
    return jnp.where(positive, jnp.sqrt(jnp.where(positive, squared, 1.0)), 0.0)


def quadrature(n: int) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """sin θ, cos θ and the Gauss–Legendre weights over 0 < θ < π/2.

    Of an interval τ the part t = τ sin²θ has elapsed and u = τ cos²θ is left, so that √t and √u, in which the
    integrands are smooth, are both smooth in θ. (With √t itself as the variable, the error falls only as n⁻³.)
    """
    y, weight = np.polynomial.legendre.leggauss(n)
    theta = np.pi / 4 * (1 + y)
    return np.sin(theta), np.cos(theta), np.pi / 4 * weight


def interpolation(root: Float[np.ndarray, " point"]) -> Float[np.ndarray, "point node"]:
    """Matrix from values at the nodes to values at √τ = `root`, for what is 0 at expiry (barycentric formula)."""
    nodes = _nodes()
    weight = (-1.0) ** np.arange(len(nodes))
    weight[[0, -1]] /= 2
    gap = root[:, None] - nodes
    at = np.abs(gap) < 1e-14
    term = weight / np.where(at, 1.0, gap)
    matrix = np.where(at.any(1, keepdims=True), at, term / term.sum(1, keepdims=True))
    return matrix[:, :-1]


def _nodes() -> Float[np.ndarray, " node"]:
    return (1 + np.cos(np.pi * np.arange(NODES + 1) / NODES)) / 2


@lru_cache(maxsize=1)
def _rule() -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Nodes [1, node], the quadrature [1, 1, point], and the interpolation from the nodes to each node's points."""
    root, (sine, cosine, weight) = _nodes()[:-1], quadrature(POINTS)
    own = interpolation((root[:, None] * cosine).reshape(-1))
    return root[None], sine[None, None], cosine[None, None], weight[None, None], own


def _density(x: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    return jnp.exp(-(x**2) / 2) * (1 / math.sqrt(2 * math.pi))


def _log_perpetual(a: Array, rate: Array, held: Array) -> Array:
    """ln of the perpetual boundary: p/(1 + p), −p the negative root of ½a²λ² + (R − Q − ½a²)λ = R (Merton 1973)."""
    slope = rate - held - a**2 / 2
    falling = slope < 0
    spread = jnp.sqrt(jnp.maximum(slope**2 + 2 * jnp.maximum(rate, 0.0) * a**2, _TINY))
    # The form without cancellation on either side.
    p = jnp.where(falling, 2 * rate / jnp.where(falling, spread - slope, 1.0), (slope + spread) / a**2)
    p = jnp.maximum(p, 1e-12)
    return jnp.log(p) - jnp.log1p(p)
