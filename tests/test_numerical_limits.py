"""Pricing kernels at their limits: one table of cases, finite in value and slope; single against double precision.

American options have theirs in `test_american`: a kernel of so many operations is compiled once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

from pmvar.kernels.bachelier import implied_bachelier_deviation, normalised_bachelier
from pmvar.kernels.black import normalised_black
from pmvar.kernels.delta_one import carried_pnl, displaced_pnl, margined_pnl
from pmvar.kernels.european import Bump, EuropeanState, EuropeanTerms, Formula, european_value
from pmvar.kernels.exercise_table import ExerciseTable, tabulated
from pmvar.kernels.implied_vol import implied_total_deviation

RATIO = np.array([1e-6, 1e-3, 0.5, 1 - 1e-9, 1.0, 1 + 1e-9, 2.0, 1e3, 1e6])
"""K/F."""
VOL = np.array([0.0, 1e-12, 1e-4, 0.05, 0.6, 3.0, 10.0])
TIME = np.array([0.0, 1e-9, 1 / 365, 0.5, 10.0])
SIGN = np.array([1.0, -1.0])
MOVE = np.array([-60.0, -2.0, -1e-9, 0.0, 1e-9, 2.0, 20.0])
"""ln(F₁/F₀), or x: the world lets no lognormal price fall further."""
BOTH = [np.float64, np.float32]


def grid(*axes: np.ndarray) -> list[np.ndarray]:
    return [a.ravel() for a in np.meshgrid(*axes, indexing="ij")]


class Case(NamedTuple):
    """A kernel, each number of its arguments its own column."""

    name: str
    value: Callable[..., Array]
    arguments: list[np.ndarray]
    dtypes: list[type]
    n_active: int = 2
    """Arguments, the first, that move in a scenario or are bumped; the others are terms of a contract."""

    def split(self) -> tuple[list[np.ndarray], list[np.ndarray]]:
        return self.arguments[: self.n_active], self.arguments[self.n_active :]


def european(formula: Formula) -> Callable[..., Array]:
    def value(move, vol, settlement, rate, k, sign, time) -> Array:
        terms = EuropeanTerms(jnp.ones_like(k), k, sign)
        state = EuropeanState(move[:, None], vol[:, None], jnp.exp(settlement)[:, None], jnp.zeros_like(k), time)
        return european_value(terms, state, _bump(rate), formula)[:, 0]

    return value


def _bump(rate: Array) -> Bump:
    nothing = jnp.zeros((), rate.dtype)
    return Bump(nothing, nothing, jnp.sum(rate * 0), nothing)


def delta_one(kernel: Callable[..., Array], *terms: float) -> Callable[..., Array]:
    def value(move, settlement) -> Array:
        given = (jnp.full_like(move, t) for t in terms)
        nothing = jnp.zeros((), move.dtype)
        return kernel(*given, move[:, None], settlement[:, None], Bump(nothing, nothing, nothing, nothing))[:, 0]

    return value


def margined(scale: Array, power: Array, move: Array, settlement: Array, bump: Bump) -> Array:
    """With funding."""
    return margined_pnl(scale, power, move, settlement, jnp.full_like(scale, 1e-3), bump)


def tables() -> Callable[..., Array]:
    """Puts at each time, tabulated for vols from .1 to 1."""
    time = jnp.asarray(TIME)
    table = tabulated(jnp.full_like(time, 0.05), jnp.full_like(time, 0.02), time, 0.1 + 0 * time, 1 + 0 * time)

    def value(m, vol) -> Array:
        cast: ExerciseTable = jax.tree.map(lambda x: x.astype(m.dtype), table)
        shape = (len(TIME), -1)
        return cast.value(m.reshape(shape), vol.reshape(shape)).reshape(-1)

    return value


K, S = np.log(RATIO), np.concatenate([[0.0, 1e-300, 1e-20], np.geomspace(1e-13, 50, 17)])
STATE = grid(MOVE, VOL, np.array([-5.0, 0.0, 5.0]), np.zeros(1), K, SIGN, TIME)
CASES = [
    Case("black", normalised_black, grid(K, S, SIGN), BOTH),
    Case("bachelier", normalised_bachelier, grid(np.concatenate([RATIO, -RATIO, [0.0]]), S, SIGN), BOTH),
    *(Case(f"european {formula}", european(formula), STATE, BOTH, 4) for formula in Formula),
    Case("carried", delta_one(carried_pnl, 1.0), grid(MOVE, MOVE), BOTH),
    Case("margined linear", delta_one(margined, 1.0, 1.0), grid(MOVE, np.array([-5.0, 0.0, 5.0])), BOTH),
    Case("margined inverse", delta_one(margined, 1.0, -1.0), grid(MOVE, np.array([-5.0, 0.0, 5.0])), BOTH),
    Case("shifted", delta_one(displaced_pnl, 2.0, -1.0, 1.0, 0.0), grid(MOVE, np.array([-5.0, 0.0, 5.0])), BOTH),
    Case("differences", delta_one(displaced_pnl, 2.0, 0.0, 1.0, 1.0), grid(MOVE, np.array([-5.0, 0.0, 5.0])), BOTH),
    Case("american tabulated", tables(), grid(TIME, -K, VOL)[1:], [np.float64]),
    Case("implied vol", lambda p, k: implied_total_deviation(p, k)[0],
         grid(np.array([1e-250, 1e-30, 1e-9, 0.1, 0.9]), np.array([-0.05, -1e-9, 0.0, 1e-9, 1.0, 13.8])), [np.float64]),
    Case("implied bachelier", lambda p, k: implied_bachelier_deviation(p, k)[0],
         grid(np.array([1e-250, 1e-30, 1e-9, 0.1, 1e6]), np.array([-1e3, -1e-9, 0.0, 1e-9, 1.0])), [np.float64]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("case", "dtype"), [pytest.param(c, d, id=f"{c.name} {d.__name__}") for c in CASES for d in c.dtypes]
)
def test_no_value_and_no_slope_is_not_finite(case: Case, dtype: type) -> None:
    """σ → 0, T → 0, K/F from 1e-6 to 1e6, prices to nothing and to e²⁰ times as much: by every argument of a kernel."""
    active, fixed = (tuple(jnp.asarray(a, dtype) for a in part) for part in case.split())

    @jax.jit
    def both(active: tuple[Array, ...], fixed: tuple[Array, ...]) -> tuple[Array, Array]:
        def along(row: Array) -> Array:
            tangents = tuple(jnp.broadcast_to(r, a.shape) for r, a in zip(row, active, strict=True))
            return jax.jvp(lambda *x: case.value(*x, *fixed), active, tangents)[1]

        return case.value(*active, *fixed), jax.vmap(along)(jnp.eye(len(active), dtype=dtype))

    value, slopes = (np.asarray(a) for a in both(active, fixed))
    assert value.dtype == dtype and np.all(np.isfinite(value))
    assert np.isfinite(slopes).all(axis=1).tolist() == [True] * len(active)


@pytest.mark.parametrize("kernel", [normalised_black, normalised_bachelier])
def test_single_against_double_precision_on_a_million_points(kernel: Callable[..., Array]) -> None:
    """3e-7 of max(1, e^k), Bachelier's of max(|k|, s), the float32 inputs taken as they are; nothing infinite."""
    linear = kernel is normalised_bachelier
    k = np.linspace(-14, 14, 1000, dtype=np.float32)[:, None]
    s = np.concatenate([[0.0], np.geomspace(1e-12, 50, 499)]).astype(np.float32)
    both = jax.jit(lambda k, s, sign: kernel(jnp.broadcast_to(k, (1000, 500)), s[None], sign))
    size = (
        np.maximum(np.maximum(np.abs(k.astype(float)), s), 1e-12) if linear else np.maximum(1, np.exp(k.astype(float)))
    )
    for sign in SIGN:
        exact = both(jnp.asarray(k, np.float64), jnp.asarray(s, np.float64), jnp.asarray(sign))
        single = both(jnp.asarray(k), jnp.asarray(s), jnp.asarray(sign, np.float32))
        assert bool(jnp.all(jnp.isfinite(single)))
        assert np.max(np.abs(np.asarray(single) - np.asarray(exact)) / size) <= 3e-7


def test_cancellation_in_single_precision_is_bounded() -> None:
    """F = 1e5 and a deviation of 1e-7: the price is 4e-3, two terms of 5e4 apart, and wrong by 2e-7·F at most."""
    forward = np.float32(1e5)
    k = (np.linspace(-5, 5, 101) * 1e-7).astype(np.float32)
    s = jnp.full(101, 1e-7, jnp.float32)
    for sign in SIGN:
        single = np.asarray(normalised_black(jnp.asarray(k), s, jnp.full(101, sign, jnp.float32)))
        exact = np.asarray(normalised_black(jnp.asarray(k, np.float64), s.astype(float), jnp.full(101, sign)))
        assert np.all(single >= 0) and np.max(np.abs(single - exact)) * forward <= 2e-7 * forward


def test_a_strike_of_nothing() -> None:
    """K = 0, k = −∞: a call is the forward and a put nothing; Bachelier's far below all prices."""
    one, sign = jnp.ones(2), jnp.asarray(SIGN)
    np.testing.assert_array_equal(normalised_black(jnp.full(2, -jnp.inf), 0.3 * one, sign), [1.0, 0.0])
    far = normalised_bachelier(jnp.full(2, -1e6), one, sign)
    np.testing.assert_allclose(far, [1e6, 0.0])


def test_implied_volatility_in_bulk() -> None:
    """200,000 quotes at once: back to 1e-12 or 8 roundings times the price's condition, and no quote outside the bounds
    among them gets a number."""
    rng = np.random.default_rng(8)
    n = 200_000
    s = np.exp(rng.uniform(np.log(1e-3), np.log(3), n))
    k = s * rng.uniform(-5, 5, n)
    put = jnp.where(jnp.asarray(k) >= 0, 1.0, -1.0)
    price = np.asarray(jax.jit(normalised_black)(jnp.asarray(k), jnp.asarray(s), put))
    bound = np.minimum(1, np.exp(k))
    broken = rng.random(n) < 0.1
    wrong = rng.choice([0.0, -1e-6, np.nan, np.inf, 1.0], n)
    given = np.where(broken, np.where(wrong == 1.0, bound * (1 + 1e-9), wrong), price)
    found, ok = (np.asarray(a) for a in jax.jit(implied_total_deviation)(jnp.asarray(given), jnp.asarray(k)))
    assert not ok[broken].any() and np.isnan(found[broken]).all()
    sound = ~broken & (price > 0) & (price < bound)
    assert ok[sound].all()
    d1 = -np.abs(k) / s + s / 2
    density = np.exp(-(d1**2) / 2) / np.sqrt(2 * np.pi)
    # The price is a difference of two terms of size Φ(d₁), whose argument carries d² roundings.
    condition = (1 + d1**2) * np.maximum(density / (1 + np.abs(d1)), (d1 > 0) * 0.5) / (s * density)
    assert np.all(np.abs(found / s - 1)[sound] <= 1e-12 + 8 * np.finfo(float).eps * condition[sound])
