"""SVI and SSVI smiles: total implied variance w(k) of one expiry by log-moneyness k = ln(K/F), and when it is free of
butterfly arbitrage.

Raw SVI is w(k) = a + b(ρ(k − m) + √((k − m)² + s²)) (Gatheral 2004); an SSVI slice (Gatheral and Jacquier 2014,
"Arbitrage-free SVI volatility surfaces", eq. 4.1) is one with three parameters. Durrleman's condition, ibid. eq. 2.1:

    g(k) = (1 − k w'/2w)² − w'²/4 · (1/w + 1/4) + w''/2 ≥ 0.

Under w₁(k) = c·w(qk), variance times c and the smile's width divided by q with w(0) in place, g at k = u/q is

    A(u) − q²·(c·B(u) + c²·C(u)),   A = (1 − u w'/2w)², B = w'²/4w − w''/2, C = w'²/16,

so that the largest q that keeps g ≥ 0 is a minimum over u of √(A / (cB + c²C)): what a shock may leave of a smile's
width, in closed form. For SSVI q multiplies φ.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

LEAST_VARIANCE = 1e-12
"""Total variances below this are this, so that no smile divides by zero."""


class Svi(NamedTuple):
    """Raw parameters, one entry a smile; they broadcast against the k that they are evaluated at."""

    a: Float[Array, "*#shape"]
    b: Float[Array, "*#shape"]
    """Not negative; Lee (2004) bounds the wings by b(1 + |ρ|) ≤ 2."""
    rho: Float[Array, "*#shape"]
    """In (−1, 1)."""
    m: Float[Array, "*#shape"]
    s: Float[Array, "*#shape"]
    """Positive."""


def one_svi(parameters: Iterable[Any]) -> Svi:
    """A single smile on the host, of five numbers in the order of the fields."""
    return Svi(*map(float, parameters))  # pyright: ignore[reportArgumentType]


class Butterfly(NamedTuple):
    """Durrleman's condition in its parts: g = A − q²(cB + c²C) once variance is multiplied by c and k by q."""

    level: Float[Array, "*shape"]
    """A."""
    once: Float[Array, "*shape"]
    """B."""
    twice: Float[Array, "*shape"]
    """C."""

    def condition(self) -> Float[Array, "*shape"]:
        """g of the smile itself."""
        return self.level - self.once - self.twice

    def width(self, growth: Float[Array, "*#shape"]) -> Float[Array, "*#shape"]:
        """Largest q² at each point, under variance multiplied by `growth`; infinite where nothing bounds it."""
        cost = growth * (self.once + growth * self.twice)
        bound = jnp.where(cost > 0, cost, 1.0)
        return jnp.where(cost > 0, jnp.maximum(self.level, 0.0) / bound, jnp.inf)


class JumpWings(NamedTuple):
    """SVI by what traders name (Gatheral and Jacquier 2014, eq. 3.5)."""

    variance: Float[Array, "*shape"]
    """At the money, per year."""
    skew: Float[Array, "*shape"]
    """∂√(w/τ)/∂k at the money, times √τ."""
    put_slope: Float[Array, "*shape"]
    call_slope: Float[Array, "*shape"]
    """Of the wings of w, over √w(0)."""
    least_variance: Float[Array, "*shape"]


def total_variance(p: Svi, k: Float[Array, "*#shape"]) -> Float[Array, "*#shape"]:
    """w(k), not below `LEAST_VARIANCE`."""
    x = k - p.m
    return jnp.maximum(p.a + p.b * (p.rho * x + jnp.sqrt(x * x + p.s * p.s)), LEAST_VARIANCE)


def least_variance(p: Svi) -> Float[Array, "*shape"]:
    """The least of w over k: a + b·s·√(1 − ρ²)."""
    return p.a + p.b * p.s * jnp.sqrt(1 - p.rho * p.rho)


def variance_above(p: Svi, k: Float[Array, "*#shape"]) -> Float[Array, "*#shape"]:
    """w(k) of a smile whose `a` holds its least variance instead: a sum of positive terms, so that float32 keeps its
    digits where a and b·s are large and of opposite signs."""
    x, rest = k - p.m, jnp.sqrt(1 - p.rho * p.rho)
    lean = x * rest + p.s * p.rho
    return p.a + p.b * (lean * lean / (jnp.sqrt(x * x + p.s * p.s) + p.s * rest - p.rho * x))


def butterfly(p: Svi, k: Float[Array, "*#shape"]) -> Butterfly:
    """Durrleman's condition at k, from derivatives in closed form."""
    x = k - p.m
    root = jnp.sqrt(x * x + p.s * p.s)
    w = jnp.maximum(p.a + p.b * (p.rho * x + root), LEAST_VARIANCE)
    slope, bend = p.b * (p.rho + x / root), p.b * p.s * p.s / root**3
    return Butterfly((1 - k * slope / (2 * w)) ** 2, slope**2 / (4 * w) - bend / 2, slope**2 / 16)


def wings(n: int) -> Float[np.ndarray, " node"]:
    """Arguments (k − m)/s that see a whole smile: dense at its bend, geometric out to ±10⁶, where g has its limits
    1/4 − (b(1 ± ρ))²/16."""
    v = np.linspace(-1.0, 1.0, n)
    return np.sinh(3.5 * v + 11 * v**5)


def from_ssvi(theta: Float[Array, "*#shape"], rho: Float[Array, "*#shape"], phi: Float[Array, "*#shape"]) -> Svi:
    """w(k) = θ/2·(1 + ρφk + √((φk + ρ)² + 1 − ρ²)) in raw parameters (Gatheral and Jacquier 2014, eq. 4.1)."""
    rest = jnp.sqrt(1 - rho * rho)
    return Svi(theta / 2 * rest**2, theta * phi / 2, rho, -rho / phi, rest / phi)


def power_law(
    theta: Float[Array, "*#shape"], eta: Float[Array, "*#shape"], gamma: Float[Array, "*#shape"]
) -> Float[Array, "*#shape"]:
    """φ(θ) = η·θ^−γ·(1 + θ)^(γ − 1) (Gatheral and Jacquier 2014, §4.2): with it a surface whose θ rises with expiry
    has no calendar arbitrage for 0 < γ < 1."""
    return eta * theta**-gamma * (1 + theta) ** (gamma - 1)


def tilted(p: Svi, lean: Float[Array, "*#shape"]) -> Svi:
    """The smile with atanh ρ moved by `lean` and w(0) held.

    In natural parameters, w = Δ + ω/2·(1 + ζρ(k − μ) + √((ζ(k − μ) + ρ)² + 1 − ρ²)), all but ρ stay and the whole is
    scaled back to w(0); an SSVI slice (Δ = μ = 0) thus remains one, of the new ρ.
    """
    rest = jnp.sqrt(1 - p.rho * p.rho)
    zeta, omega = rest / p.s, 2 * p.b * p.s / rest
    mu, delta = p.m + p.rho * p.s / rest, p.a - p.b * p.s * rest
    # tanh(atanh ρ + x), and √(1 − ρ²) without cancellation.
    turn = jnp.tanh(lean)
    rho = (p.rho + turn) / (1 + p.rho * turn)
    rest = rest / (jnp.cosh(lean) * (1 + p.rho * turn))
    moved = Svi(delta + omega / 2 * rest**2, omega * zeta / 2, rho, mu - rho / zeta, rest / zeta)
    zero = jnp.zeros_like(moved.m)
    scale = total_variance(p, zero) / total_variance(moved, zero)
    return moved._replace(a=scale * moved.a, b=scale * moved.b)


def stretched(p: Svi, growth: Float[Array, "*#shape"], width: Float[Array, "*#shape"]) -> Svi:
    """c·w(qk) for a `growth` c of variance and a `width` q."""
    return Svi(growth * p.a, growth * width * p.b, p.rho, p.m / width, p.s / width)


def jump_wings(p: Svi, time: Float[Array, "*#shape"]) -> JumpWings:
    """Of smiles with `time` years to expiry."""
    now = total_variance(p, jnp.zeros_like(p.m))
    root = jnp.sqrt(now)
    return JumpWings(
        now / time,
        p.b / (2 * root) * (p.rho - p.m / jnp.sqrt(p.m**2 + p.s**2)),
        p.b * (1 - p.rho) / root,
        p.b * (1 + p.rho) / root,
        (p.a + p.b * p.s * jnp.sqrt(1 - p.rho**2)) / time,
    )
