"""One expiry's SVI smile from its quotes: inside bid and ask where it can be, free of butterfly arbitrage, and nowhere
below the expiry before it.

A quote costs little inside its spread and, outside, its distance in half-spreads. The start is the best of a grid of
(m, s), for each of which the rest is linear least squares (De Marco and Martini 2009, "Quasi-explicit calibration of
Gatheral's SVI model"); from there sequential quadratic programming holds the constraints, and what it leaves of them is
repaired exactly: variance raised, then the smile widened.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import minimize

from pmvar.kernels.svi import Svi, butterfly, stretched, total_variance, wings

STAGES = ((1.0, 0.05), (0.2, 0.02))
"""One search after the other: the half-spreads outside from where a quote's cost grows linearly, so that one odd quote
does not bend a smile, and what distance from the mid counts beside."""
LEAST_HALF_SPREAD = 5e-4
"""In vol: a rounded mark says no more."""
HALF_SPREAD = 0.01
"""In vol, where no point of an expiry has bid and ask."""
MARK_SPREAD, MARK_WEIGHT = 0.1, 0.1
"""Of its vol, the half-spread of a point without bid and ask among others that have them, and its weight: such marks
are somebody's extrapolation, often tens of standard deviations out."""
HEADROOM = 1.02
"""A fitted smile stays free of arbitrage with its width divided by the square root of this."""
SEARCHED = 1.02
"""The search keeps this more: between the nodes of its grid."""
LEAST_WIDTH = 0.02
"""Of s against the standard deviation at the money: a sharper bend than quotes can show."""
LEAST_VARIANCE = 0.1
"""Of a smile's lowest total variance against that at the money: below, Durrleman's condition has dips too narrow for a
grid."""
STEEPEST = 1.98
"""Slope of a wing, which Lee (2004) bounds by 2."""
LITTLE = 1e-3
"""Repairs of variance and width below this share end the search; above, another start is tried."""
STARTS = 3
COARSE, ROUNDS = 6, 6
"""Nodes that a search sees at first, and how often it is told of others."""
PLAIN = 0.005
"""Of b√(variance at the money) in the cost: wings that no quote holds stay low, and do not lift later expiries'."""
_V = np.linspace(-1.0, 1.0, 56)
CALENDAR = np.sinh(2.5 * _V + 4.5 * _V**5)
"""Log-moneyness in standard deviations at which one expiry is held above another, and its wings' slopes beside."""
_GRID, _DENSE = wings(140), wings(1201)
_LOWER = np.array([-20.0, 1e-6, -0.999, -20.0, np.log(LEAST_WIDTH)])
_UPPER = np.array([20.0, 50.0, 0.999, 20.0, 3.5])


class Quotes(NamedTuple):
    """Points of one expiry by strike; NaN where there is no bid or ask."""

    k: Float[np.ndarray, " quote"]
    """ln(K/F), increasing."""
    bid: Float[np.ndarray, " quote"]
    vol: Float[np.ndarray, " quote"]
    ask: Float[np.ndarray, " quote"]

    @property
    def two_sided(self) -> np.ndarray:
        """Where there are both, in order."""
        return (self.bid > 0) & (self.ask > self.bid)

    @property
    def mid(self) -> np.ndarray:
        """Between bid and ask; the vol itself where one lacks."""
        return np.where(self.two_sided, (self.bid + self.ask) / 2, self.vol)

    @property
    def half_spread(self) -> np.ndarray:
        """Assumed where bid or ask lacks."""
        assumed = MARK_SPREAD * self.vol if self.two_sided.any() else HALF_SPREAD
        return np.where(self.two_sided, np.maximum((self.ask - self.bid) / 2, LEAST_HALF_SPREAD), assumed)


@dataclass(frozen=True)
class SmileFit:
    """A smile free of arbitrage, and what that took beyond the search."""

    svi: Svi
    """Of total variance; floats."""
    raised: float
    """Factor that total variance was multiplied by, at least 1."""
    widened: float
    """Factor on k, at most 1."""


class _Target(NamedTuple):
    """Quotes padded to a canonical length with zero weight, and the smile below."""

    k: Float[Array, " quote"]
    mid: Float[Array, " quote"]
    half_spread: Float[Array, " quote"]
    weight: Float[Array, " quote"]
    time: Float[Array, ""]
    deviation: Float[Array, ""]
    """At the money, σ√τ: parameters are normalised by it."""
    floor: Float[Array, " node"]
    """Total variance of the expiry before at `CALENDAR` standard deviations."""
    floor_slope: Float[Array, " wing"]
    huber: Float[Array, ""]
    inside: Float[Array, ""]


def fit_smile(quotes: Quotes, time: float, *, before: Svi | None = None) -> SmileFit | None:
    """The SVI smile of `quotes` for an expiry in `time` years, above the smile `before` of the expiry before; None
    where the search finds none free of arbitrage."""
    target = _target(quotes, time, before)
    best, least = None, np.inf
    for start in _starts(target, before):
        for x in (start, *_searched(start, target)):
            fit = _repaired(on_host(_raw_of(x, target.deviation)), before)
            cost = float(_cost_of(fit.svi, target))
            if cost < least and room(fit.svi) >= 1 and (before is None or rises(fit.svi, before) >= 1):
                best, least = fit, cost
        if best is not None and best.raised < 1 + LITTLE and best.widened > 1 - LITTLE:
            break
    return best


def cost(vol: Float[Array, "*n"], mid: Array, half_spread: Array, huber: Array, inside: Array) -> Float[Array, "*n"]:
    """Of each quote whose smile says `vol`."""
    r = jnp.abs(vol - mid) / half_spread
    out = jnp.maximum(r - 1, 0.0)
    return jnp.where(out < huber, out * out / (2 * huber), out - huber / 2) + inside * jnp.sqrt(1 + r * r)


def _raw(x: Float[Array, " parameter"], deviation: Float[Array, ""]) -> Svi:
    a, b, rho, m, log_s = x
    return Svi(a * deviation**2, b * deviation, rho, m * deviation, jnp.exp(log_s) * deviation)


@jax.jit
def _cost_of(p: Svi, t: _Target) -> Float[Array, ""]:
    vol = jnp.sqrt(total_variance(p, t.k) / t.time)
    each = cost(vol, t.mid, t.half_spread, t.huber, t.inside)
    return jnp.sum(t.weight * each) / jnp.sum(t.weight)


@jax.jit
@jax.value_and_grad
def _objective(x: Float[Array, " parameter"], t: _Target) -> Array:
    return _cost_of(_raw(x, t.deviation), t) + PLAIN * x[1]


def _constraints(x: Float[Array, " parameter"], t: _Target) -> Float[Array, " constraint"]:
    """All to be ≥ 0: butterfly, variance, Lee's bounds, and the expiry before."""
    p = _raw(x, t.deviation)
    parts = butterfly(p, p.m + p.s * jnp.asarray(_GRID))
    g = parts.level - HEADROOM * SEARCHED * (parts.once + parts.twice)
    least = (p.a + p.b * p.s * jnp.sqrt(1 - p.rho**2)) / t.deviation**2
    slopes = jnp.stack([p.b * (1 - p.rho), p.b * (1 + p.rho)])
    rise = (total_variance(p, t.deviation * CALENDAR) - t.floor) / t.deviation**2
    steeper = (slopes - t.floor_slope) / t.deviation
    rise = rise / np.sqrt(1 + CALENDAR**2)
    few = least[None] - LEAST_VARIANCE, STEEPEST - slopes, steeper - 1e-7
    return jnp.concatenate([*few, g - 1e-6, rise - 1e-7])


_held = jax.jit(_constraints)
_held_by = jax.jit(jax.jacfwd(_constraints))
_variance, _stretched, _raw_of = jax.jit(total_variance), jax.jit(stretched), jax.jit(_raw)
_widths = jax.jit(lambda p, k: butterfly(p, k).width(jnp.ones(())))


def _searched(x: np.ndarray, target: _Target) -> list[np.ndarray]:
    """Where each stage ends; what is not finite is left out."""
    found: list[np.ndarray] = []
    for huber, inside in STAGES:
        x = _constrained(x, target._replace(huber=jnp.float64(huber), inside=jnp.float64(inside)))
        if not np.all(np.isfinite(x)):
            break
        found.append(x)
    return found


def _constrained(x: np.ndarray, t: _Target) -> np.ndarray:
    """The minimum of the objective from `x`. Quadratic programming takes its time over many constraints: it sees every
    few nodes, and those that its last answer broke."""
    seen = np.union1d(np.arange(5), np.arange(5, 5 + len(_GRID) + len(CALENDAR), COARSE))
    for _ in range(ROUNDS):
        held = {
            "type": "ineq",
            "fun": lambda x, seen=seen: np.asarray(_held(x, t))[seen],
            "jac": lambda x, seen=seen: np.asarray(_held_by(x, t))[seen],
        }
        found = minimize(
            lambda x: tuple(map(np.asarray, _objective(x, t))),
            x,
            jac=True,
            method="SLSQP",
            bounds=list(zip(_LOWER, _UPPER, strict=True)),
            constraints=held,
            options={"maxiter": 100, "ftol": 1e-6},
        ).x
        if not np.all(np.isfinite(found)):
            return found
        x = np.clip(found, _LOWER, _UPPER)
        broken = np.flatnonzero(np.asarray(_held(x, t)) < -1e-8)
        more = np.union1d(seen, broken)
        if len(more) == len(seen):
            break
        seen = more
    return x


def rises(p: Svi, before: Svi) -> float:
    """The least of w over the w of the expiry before, wings included."""
    k = np.concatenate([q.m + q.s * _DENSE for q in (p, before)])
    return float(np.min(np.asarray(_variance(p, k)) / np.asarray(_variance(before, k))))


def room(p: Svi) -> float:
    """Factor on k that a smile bears before Durrleman's condition fails; at least 1 where it holds."""
    return float(np.sqrt(np.min(np.asarray(_widths(p, p.m + p.s * _DENSE)))))


def _repaired(p: Svi, before: Svi | None) -> SmileFit:
    """Variance raised over the expiry before and the smile widened within Durrleman's condition, in turns."""
    lowest = p.a + p.b * p.s * np.sqrt(1 - p.rho**2)
    p = p._replace(a=p.a + max(0.0, 1e-3 * abs(p.b * p.s) + 1e-10 - lowest))
    raised = widened = 1.0
    for _ in range(20):
        growth = max(1.0, (1 + 1e-9) / rises(p, before)) if before is not None else 1.0
        p, raised = _moved(p, growth, 1.0), raised * growth
        width = min(1.0, room(p) / np.sqrt(HEADROOM))
        if width == growth == 1:
            break
        width *= 1 - 1e-9 if width < 1 else 1
        p, widened = _moved(p, 1.0, width), widened * width
    return SmileFit(p, raised, widened)


def on_host(p: Svi) -> Svi:
    """The same parameters as floats."""
    return Svi(*map(float, p))  # pyright: ignore[reportArgumentType]


def _moved(p: Svi, growth: float, width: float) -> Svi:
    return on_host(_stretched(p, growth, width))


def _target(q: Quotes, time: float, before: Svi | None) -> _Target:
    deviation = float(np.interp(0.0, q.k, q.mid)) * np.sqrt(time)
    pad = max(32, 1 << int(np.ceil(np.log2(len(q.k))))) - len(q.k)
    points = (np.pad(v, (0, pad), mode="edge") for v in (q.k, q.mid, q.half_spread))
    weight = np.pad(np.where(q.two_sided, 1.0, MARK_WEIGHT), (0, pad))
    floor, slope = np.full(len(CALENDAR), -1.0), np.full(2, -1.0)
    if before is not None:
        floor = np.asarray(_variance(before, deviation * CALENDAR))
        slope = before.b * np.array([1 - before.rho, 1 + before.rho])
    return _Target(*map(jnp.asarray, (*points, weight, time, deviation, floor, slope, *STAGES[-1])))


def _starts(t: _Target, before: Svi | None) -> Float[np.ndarray, "start parameter"]:
    """The least squares of w in (a, bρ, b) for each (m, s) of a grid, cut back to its bounds, the best first; second
    the smile of the expiry before, at this one's variance."""
    unit, time, mid = float(t.deviation), float(t.time), np.asarray(t.mid)
    k, w = np.asarray(t.k) / unit, mid**2 * time / unit**2
    error = 2 * mid * np.asarray(t.half_spread) * time / unit**2
    weight = np.sqrt(np.asarray(t.weight)) / np.maximum(error, np.median(error))
    width = np.array([0.1, 0.3, 0.6, 1.0, 1.7, 3.0])
    m, s = (v.ravel() for v in np.meshgrid(np.linspace(-1.5, 1.5, 9), width, indexing="ij"))
    x = k[None] - m[:, None]
    root = np.sqrt(x**2 + s[:, None] ** 2)
    design = np.stack([np.ones_like(x), x, root], axis=-1) * weight[None, :, None]
    across = design.swapaxes(1, 2)
    beta = np.linalg.solve(across @ design + 1e-9 * np.eye(3), across @ (w * weight)[None, :, None])[..., 0]
    b = np.clip(beta[:, 2], 1e-3, 0.95 * STEEPEST / 2 / unit)
    rho = np.clip(beta[:, 1] / b, -0.95, 0.95)
    shape = b[:, None] * (rho[:, None] * x + root)
    a = np.average(w[None] - shape, axis=1, weights=weight**2)
    a = np.maximum(a, 0.01 - b * s * np.sqrt(1 - rho**2))
    misfit = np.sum(weight**2 * (w[None] - a[:, None] - shape) ** 2, axis=1)
    found = np.stack([a, b, rho, m, np.log(s)], axis=1)[np.argsort(misfit, kind="stable")[:STARTS]]
    if before is not None:
        now = float(_variance(before, np.float64(0.0)))
        again = before.a / now, before.b * unit / now, before.rho, before.m / unit, np.log(before.s / unit)
        found = np.insert(found, 1, np.array(again), axis=0)
    return np.clip(found, _LOWER, _UPPER)
