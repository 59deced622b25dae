"""Minimum of a smooth function on a box by projected Newton steps with Levenberg–Marquardt damping.

Bertsekas (1982), "Projected Newton methods for optimization problems with simple constraints", SIAM Journal on Control
and Optimization 20: a coordinate on its bound whose gradient points outwards is held, the others take a Newton step,
cut off at the box. Written for one problem of a handful of unknowns, to be vmapped over thousands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

TOLERANCE = 1e-9
"""A Newton step that promises to lower the function by less than this ends the search: for a log-likelihood, a distance
from the maximum of 4e-5 standard errors."""
FIRST_DAMPING, MOST_DAMPING = 1e-3, 1e12
FLATTEST = 1e-9
"""Least eigenvalue believed, of a Hessian scaled to a unit diagonal."""


class Minimum(NamedTuple):
    """Where the search ended."""

    x: Float[Array, " parameter"]
    value: Float[Array, ""]
    gradient: Float[Array, " parameter"]
    hessian: Float[Array, "parameter parameter"]
    held: Bool[Array, " parameter"]
    """On a bound that the function pushes against."""
    converged: Bool[Array, ""]
    iterations: Int[Array, ""]


class _Search(NamedTuple):
    x: Float[Array, " parameter"]
    value: Float[Array, ""]
    gradient: Float[Array, " parameter"]
    hessian: Float[Array, "parameter parameter"]
    damping: Float[Array, ""]
    iterations: Int[Array, ""]
    done: Bool[Array, ""]
    converged: Bool[Array, ""]


def minimise(
    function: Callable[[Float[Array, " parameter"]], Float[Array, ""]],
    start: Float[Array, " parameter"],
    *,
    lower: Float[Array, " parameter"],
    upper: Float[Array, " parameter"],
    most_iterations: int | Int[Array, ""] = 100,
) -> Minimum:
    """The minimum of `function` on [lower, upper] that the search from `start` leads to.

    Failure is `converged` = False. A trial whose value is not finite counts as worse, so that the search stays where
    the function exists; it must exist at `start`.
    """

    def evaluate(x: Float[Array, " parameter"]) -> tuple[Array, Array, Array]:
        # The gradient comes out of the pass that differentiates it.
        def value_and_gradient(x: Array) -> tuple[Array, tuple[Array, Array]]:
            value, gradient = jax.value_and_grad(function)(x)
            return gradient, (value, gradient)

        hessian, (value, gradient) = jax.jacfwd(value_and_gradient, has_aux=True)(x)
        return value, gradient, (hessian + hessian.T) / 2

    def improve(s: _Search) -> _Search:
        step, promise = _step(s, lower, upper)
        trial = jnp.clip(s.x + step, lower, upper)
        value, gradient, hessian = evaluate(trial)
        sound = jnp.isfinite(value) & jnp.all(jnp.isfinite(gradient)) & jnp.all(jnp.isfinite(hessian))
        # Near the minimum the difference of two values is rounding.
        better = sound & (value <= s.value + 1e-14 * jnp.abs(value))
        converged = (promise <= TOLERANCE) & jnp.isfinite(s.value)
        damping = s.damping * jnp.where(better, 0.1, 10.0)
        moved = _Search(trial, value, gradient, hessian, damping, s.iterations, s.done, converged)
        stayed = s._replace(damping=damping, converged=converged)
        after = jax.tree.map(lambda a, b: jnp.where(better, a, b), moved, stayed)
        ended = converged | (damping > MOST_DAMPING) | (s.iterations + 1 >= most_iterations)
        return after._replace(iterations=s.iterations + 1, done=ended)

    # Infinite at first: the first trial is the start itself, so that one compiled evaluation serves.
    no, flat, n = jnp.zeros((), bool), jnp.zeros_like(start), start.shape[0]
    damping, count = jnp.float64(10 * FIRST_DAMPING), jnp.zeros((), jnp.int64)
    begin = jnp.clip(start, lower, upper)
    first = _Search(begin, jnp.float64(jnp.inf), flat, jnp.eye(n), damping, count, no, no)
    last = jax.lax.while_loop(lambda s: ~s.done, improve, first)
    held = _held(last, lower, upper)
    return Minimum(last.x, last.value, last.gradient, last.hessian, held, last.converged, last.iterations)


def _held(s: _Search, lower: Array, upper: Array) -> Bool[Array, " parameter"]:
    return ((s.x <= lower) & (s.gradient >= 0)) | ((s.x >= upper) & (s.gradient <= 0))


def _step(s: _Search, lower: Array, upper: Array) -> tuple[Float[Array, " parameter"], Float[Array, ""]]:
    """The damped step, and by how much the undamped one would lower the function's quadratic model.

    Eigenvalues are taken by modulus, so that the step descends where the Hessian is indefinite; coordinates are scaled
    to a unit diagonal first (Marquardt 1963), so that units do not matter.
    """
    held = _held(s, lower, upper)
    gradient = jnp.where(held, 0.0, s.gradient)
    diagonal = jnp.abs(jnp.diag(s.hessian))
    scale = 1 / jnp.sqrt(jnp.where(held | (diagonal <= 0), 1.0, diagonal))
    hessian = scale[:, None] * s.hessian * scale[None, :]
    hessian = jnp.where(held[:, None] | held[None, :], jnp.eye(len(held)), hessian)
    eigenvalue, vector = jnp.linalg.eigh(hessian)
    curvature = jnp.maximum(jnp.abs(eigenvalue), FLATTEST)
    along = vector.T @ (scale * gradient)
    return -scale * (vector @ (along / (curvature + s.damping))), jnp.sum(along**2 / curvature) / 2
