"""Derivatives of a path by every array of its model: finite at every edge, and right in the middle."""

from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmvar.models import build
from pmvar.models.base import RiskFactorModel
from pmvar.models.posterior_draws import PosteriorDraws
from pmvar.models.specification import Factor, ModelSpecification
from tests.laws import normals
from tests.markets import specification

MERTON = {
    "intensity": 30.0, "mean": -0.02, "deviation": 0.02, "loading": {"A:vol": -0.8}, "scatter": {"A:vol": 0.01},
    "own": {"B:spot": {"intensity": 20.0, "mean": 0.01, "deviation": 0.02}},
}  # fmt: skip
KOU = {"intensity": 30.0, "up_probability": 0.4, "up_rate": 60.0, "down_rate": 50.0}
STILL = {"intensity": 0.0, "mean": 0.0, "deviation": 0.0}
GJR = {"omega": 2e-5, "alpha": 0.02, "gamma": 0.16, "beta": 0.88, "variance": 1e-3}
NAMES = ("A:spot", "B:spot", "A:vol")


def of(
    model: str, *, sigma: Any = (0.03, 0.04, 0.05), nu: Any = (5.0, 5.0, 5.0), c: np.ndarray | None = None,
    jumps: Any = None, filters: Any = None, skew: Any = None,
) -> ModelSpecification:  # fmt: skip
    """A specification of three factors."""
    law = specification(dict.fromkeys(NAMES, 0.1), model=model, correlation=np.eye(3) if c is None else c)
    factors = tuple(Factor(name, s, v) for name, s, v in zip(NAMES, sigma, nu, strict=True))
    parameters = ({"jumps": jumps} if jumps else {}) | ({"skew": skew} if skew else {})
    return replace(law, factors=factors, parameters=parameters, state={"filter": filters} if filters else {})


HALF = 0.5 + 0.5 * np.eye(3)
ONE = np.outer([1, -1, 1.0], [1, -1, 1])
HISTORY = np.random.default_rng(0).standard_t(4, size=(300, 3)) * 0.02

DRAWN = PosteriorDraws(("A:spot",), *np.array([
    [[1e-5], [3e-5]], [[0.03], [0.01]], [[0.1], [0.2]], [[0.85], [0.87]], [[8e-4], [2e-3]], [[5.0], [7.0]],
]))  # fmt: skip

CASES: dict[str, ModelSpecification] = {
    "gaussian": of("gaussian", c=HALF),
    "t": of("t", c=HALF),
    "skewed": of("t-multi", c=HALF, skew={"A:spot": -0.2}),
    "gjr": of("t-garch", c=HALF, filters={"A:spot": GJR}),
    "predictive": replace(of("t-garch", c=HALF, filters={"A:spot": GJR}), posterior=DRAWN),
    "merton": of("merton", c=HALF, jumps=MERTON),
    "kou": of("kou", c=HALF, jumps=KOU),
    "everything": of("t-garch-jump", c=HALF, jumps=MERTON, filters={"A:spot": GJR}, skew={"A:vol": 0.1}),
    "zero volatility": of("t", sigma=(0.0, 0.04, 0.0)),
    "zero volatility, gaussian": of("gaussian", sigma=(0.0, 0.0, 0.0)),
    "zero volatility, filtered": of("t-garch", sigma=(0.03, 0.0, 0.0), filters={"A:spot": GJR}),
    "just above two degrees": of("t-multi", nu=(2 + 1e-9, 2.001, 5.0)),
    "infinite degrees": of("t-multi", nu=(None, 1e8, 1e300)),
    "rank one": of("t", c=ONE),
    "no intensity": of("t-jump", jumps=MERTON | {"intensity": 0.0, "own": {"B:spot": STILL}}),
    "no jump size": of("merton", jumps=STILL | {"intensity": 30.0}),
    "all of the variance jumps": of("merton", sigma=(0.1,) * 3, jumps={
        "intensity": 365.0 / 100, "mean": 1.0, "deviation": 0.0, "loading": {"A:vol": 1.0},
    }),
    "only up": of("kou", jumps=KOU | {"up_probability": 1.0, "own": {"B:spot": KOU}}),
    "only down": of("kou", jumps=KOU | {"up_probability": 0.0}),
    "ewma of jumps": of("t-garch-jump", jumps=KOU, filters={"A:spot": {"ewma": True}}),
    "jumps above the filter": of("t-garch-jump", jumps=MERTON, filters={"A:spot": GJR | {"variance": 1e-7}}),
    "fhs": replace(of("fhs", filters={"A:spot": GJR}), history=HISTORY),
    "historical": replace(of("historical"), history=HISTORY),
}  # fmt: skip


def smooth(law: RiskFactorModel, z: jax.Array, steps: float) -> jax.Array:
    """Of everything that a path shows but its counts."""
    path = law.path(z, jnp.float64(steps))
    x = path.diffusion + path.jump
    return jnp.sum(jnp.tanh(10 * x)) + jnp.sum(jnp.cumsum(x, axis=0) ** 2) + jnp.sum(path.deviation**2)


def edges(law: RiskFactorModel, steps: float) -> np.ndarray:
    """Some random paths, and those of normals 0 and far out."""
    z = normals(law, steps=steps, n=20, seed=3)
    z[0], z[1], z[2], z[3] = 0.0, -6.3, 6.3, -12.0
    return z


@pytest.mark.parametrize("name", CASES)
def test_every_derivative_is_finite(name):
    """By each array of the model and by the normals, on paths of all kinds, those without a jump included."""
    steps = 2.0
    law = build(CASES[name], steps)
    arrays, rest = eqx.partition(law, eqx.is_inexact_array)
    z = jnp.asarray(edges(law, steps))

    def value(arrays: Any, z: jax.Array) -> jax.Array:
        return smooth(eqx.combine(arrays, rest), z, steps)

    found = jax.jit(jax.vmap(jax.value_and_grad(value, argnums=(0, 1)), in_axes=(None, 0)))(arrays, z)
    for path, leaf in jax.tree_util.tree_leaves_with_path(found):
        assert np.all(np.isfinite(leaf)), f"{name}: {jax.tree_util.keystr(path)}"
    if "fhs" not in name and name not in ("historical", "zero volatility, gaussian"):
        moved = sum(float(np.abs(np.asarray(leaf)).sum()) for leaf in jax.tree.leaves(found[1][0]))
        assert moved > 0, "nothing depends on any parameter"


NOT_BY_PATH = ("log_mixing", "intensity")
"""Coefficients that follow ν, and what moves counts: the first are constants, the second goes by likelihood ratio."""


@pytest.mark.parametrize("name", ["gaussian", "t", "skewed", "gjr", "predictive", "merton", "kou", "everything"])
def test_derivatives_are_those_of_differences(name):
    """Central differences by every number of every array, path by path. Counts and the signs of the filter's surprises
    stay as they are for steps so small; `inverse_dof` moves the coefficients of ln W too, which differences of the
    array alone do not."""
    steps = 2.0
    law = build(CASES[name], steps)
    arrays, rest = eqx.partition(law, eqx.is_inexact_array)
    z = jnp.asarray(normals(law, steps=steps, n=6, seed=5))

    @jax.jit
    def values(arrays: Any) -> jax.Array:
        return jax.vmap(lambda one: smooth(eqx.combine(arrays, rest), one, steps))(z)

    by_ad = jax.jacrev(values)(arrays)
    leaves, tree = jax.tree.flatten(arrays)
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree_util.tree_leaves_with_path(arrays)]
    checked = 0
    for k, (label, leaf) in enumerate(zip(names, leaves, strict=True)):
        if any(word in label for word in (*NOT_BY_PATH, "inverse_dof")):
            continue
        flat = np.asarray(leaf).ravel()
        for i, at in enumerate(flat):
            step = 1e-6 * max(abs(at), 1e-3)

            def moved(sign: int, k: int = k, i: int = i, step: float = step) -> jax.Array:
                shifted = np.asarray(leaves[k]).copy()
                shifted.ravel()[i] += sign * step
                return values(jax.tree.unflatten(tree, [*leaves[:k], jnp.asarray(shifted), *leaves[k + 1 :]]))

            difference = (moved(1) - moved(-1)) / (2 * step)
            exact = np.asarray(jax.tree.leaves(by_ad)[k]).reshape(len(z), -1)[:, i]
            np.testing.assert_allclose(exact, difference, rtol=2e-5, atol=1e-6, err_msg=f"{name}: {label}[{i}]")
            checked += 1
    assert checked >= 3


def test_the_derivative_by_degrees_of_freedom():
    """By 1/ν against a model built anew, coefficients and all, path by path."""
    z = jnp.asarray(normals(build(CASES["t"]), n=6, seed=5))

    @eqx.filter_jit
    def values(law: RiskFactorModel) -> jax.Array:
        return jax.vmap(lambda one: smooth(law, one, 1.0))(z)

    law: Any = build(CASES["t"])
    exact = jax.jacrev(lambda k: values(eqx.tree_at(lambda m: m.innovation.inverse_dof, law, k)))(jnp.array([0.2]))
    up, down = (values(build(of("t", c=HALF, nu=(1 / (0.2 + s),) * 3))) for s in (1e-5, -1e-5))
    np.testing.assert_allclose(exact[:, 0], (up - down) / 2e-5, rtol=1e-6, atol=1e-8)
