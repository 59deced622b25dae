"""Bachelier's formula and its inverse against arbitrary precision, closed forms, limits and each other."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest
import QuantLib as ql
from hypothesis import given, settings
from hypothesis import strategies as st

from pmvar.kernels.bachelier import implied_bachelier_deviation, normalised_bachelier
from pmvar.kernels.black import normalised_black

EPS = float(np.finfo(np.float64).eps)
PRICE, IMPLIED = jax.jit(normalised_bachelier), jax.jit(implied_bachelier_deviation)
MONEYNESS = np.concatenate([-(LADDER := np.geomspace(1e-12, 1e6, 37))[::-1], [0.0], LADDER])
DEVIATIONS = np.concatenate([[0.0, 1e-300, 1e-20], np.geomspace(1e-13, 1e3, 33)])


def price(k, s, sign, dtype: type = np.float64) -> np.ndarray:
    k, s, sign = np.broadcast_arrays(np.asarray(k, dtype), np.asarray(s, dtype), np.asarray(sign, dtype))
    return np.asarray(PRICE(jnp.array(k), jnp.array(s), jnp.array(sign)))


def exact(k: float, s: float, sign: float) -> float:
    """In 50 digits, correctly rounded, of the binary numbers given."""
    with mpmath.workdps(50):
        x, y, c = mpmath.mpf(float(k)), mpmath.mpf(float(s)), int(sign)
        return float(y * mpmath.npdf(x / y) - c * x * mpmath.ncdf(-c * x / y))


def cases(n: int, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    s = np.exp(rng.uniform(np.log(1e-4), np.log(5), n))
    return s * rng.normal(0, 1, n) * rng.choice([0.01, 1.0, 4.0], n), s, rng.choice([-1.0, 1.0], n)


def test_against_arbitrary_precision() -> None:
    """4e-16·max(1, |k|, s), and 1e-12 relative for prices above 1e-12 out of the money up to 3 deviations away."""
    k, s, sign = cases(2_000, 1)
    reference = np.array([exact(*case) for case in zip(k, s, sign, strict=True)])
    error = np.abs(price(k, s, sign) - reference)
    assert np.max(error / np.maximum(np.maximum(np.abs(k), s), 1)) <= 4e-16
    # In the wing two terms of size φ(d) cancel to φ(d)/d²; the square of d carries d² roundings.
    d = np.abs(k / s)
    bound = 4 * EPS * (1 + d**2) ** 2
    material = reference > 1e-12 * s
    assert np.all((error <= bound * reference)[material])
    assert (bound < 1e-12)[material].mean() > 0.8


def test_single_precision() -> None:
    k, s, sign = (a.astype(np.float32) for a in cases(2_000, 2))
    reference = np.array([exact(*case) for case in zip(k, s, sign, strict=True)])
    got = price(k, s, sign, np.float32)
    assert got.dtype == np.float32
    assert np.max(np.abs(got - reference) / np.maximum(np.abs(k), s)) <= 3e-7


def test_against_quantlib() -> None:
    """2e-14 of max(|F|, |K|, width) over forwards and strikes on both sides of zero."""
    rng = np.random.default_rng(3)
    n = 20_000
    forward, strike, width = rng.uniform(-60, 60, n), rng.uniform(-60, 60, n), np.exp(rng.uniform(-3, 4, n))
    sign, scale = rng.choice([-1.0, 1.0], n), 25.0
    kind = {1.0: ql.Option.Call, -1.0: ql.Option.Put}
    theirs = [
        ql.bachelierBlackFormula(kind[c], float(x), float(f), float(w))
        for c, x, f, w in zip(sign, strike, forward, width, strict=True)
    ]
    ours = scale * price((strike - forward) / scale, width / scale, sign)
    size = np.maximum(np.maximum(np.abs(forward), np.abs(strike)), width)
    assert np.max(np.abs(ours - theirs) / size) <= 2e-14


def test_black_tends_to_it() -> None:
    """b(k, s)/s of Black goes to Bachelier's as k and s go to zero together (Schachermayer and Teichmann 2008)."""
    for s in (1e-2, 1e-3, 1e-4):
        k, sign = np.meshgrid(s * np.linspace(-3, 3, 13), [1.0, -1.0])
        black = np.asarray(normalised_black(jnp.asarray(k), jnp.full(k.shape, s), jnp.asarray(sign)))
        assert np.max(np.abs(price(k, s, sign) - black)) <= 6 * s**2


@given(st.floats(-1e4, 1e4), st.floats(0, 1e3))
@settings(max_examples=200)
def test_parity_and_bounds(k: float, s: float) -> None:
    call, put = price(k, s, [1.0, -1.0])
    assert abs(call - put + k) <= 2 * EPS * max(abs(k), s, 1)
    assert call >= max(-k, 0.0) and put >= max(k, 0.0)
    assert min(call, put) <= 0.4 * s + 1e-12


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_limits_have_finite_values_and_gradients(dtype: type) -> None:
    """k to ±1e6, s from 0 to 1e3, at the money: values at their limits, slopes −Φ and φ, nothing that is not finite."""
    k, s, sign = (a.ravel() for a in np.meshgrid(MONEYNESS, DEVIATIONS, [1.0, -1.0]))
    value = price(k, s, sign, dtype).astype(float)
    assert np.all(np.isfinite(value))
    still = s < 1e-12
    np.testing.assert_allclose(value[still], np.maximum(-sign * k.astype(dtype), 0.0)[still], rtol=1e-6, atol=1e-12)
    args = [jnp.asarray(a, dtype) for a in (k, s, sign)]
    for argument, low, high in ((0, -1.0, 1.0), (1, 0.0, 0.4)):
        slope = np.asarray(jax.jit(jax.vmap(jax.grad(normalised_bachelier, argument)))(*args), float)
        rounding = 100 * np.finfo(dtype).eps
        assert np.all(np.isfinite(slope))
        assert slope.min() >= low - rounding and slope.max() <= high + rounding
    assert np.all(np.isnan(price([np.nan, 0.1], [0.1, np.nan], 1.0)))


def test_implied_round_trip() -> None:
    """2e-13 of s, from at the money to 36 deviations away from it."""
    k, y = (a.ravel() for a in np.meshgrid(np.geomspace(1e-9, 30, 80), np.geomspace(1e-6, 36, 80)))
    s = k / y
    kept = s > 1e-11
    k, s, y = k[kept], s[kept], y[kept]
    for side in (1.0, -1.0):
        found, ok = IMPLIED(jnp.asarray(price(side * k, s, side)), jnp.asarray(side * k))
        assert np.all(ok)
        assert np.max(np.abs(np.asarray(found) / s - 1)) <= 2e-13
    flat, _ = IMPLIED(jnp.asarray(np.array([0.1, 30.0]) / np.sqrt(2 * np.pi)), jnp.zeros(2))
    np.testing.assert_allclose(flat, [0.1, 30.0], rtol=1e-14)


@pytest.mark.parametrize(("value", "k"), [(0.0, 0.1), (-1e-9, 0.1), (np.nan, 0.0), (0.1, np.nan), (np.inf, 0.1)])
def test_no_volatility_gives_nan_and_false_beside_sound_neighbours(value: float, k: float) -> None:
    found, ok = IMPLIED(jnp.array([value, 0.1]), jnp.array([k, 0.0]))
    assert np.asarray(ok).tolist() == [False, True] and np.isnan(found[0]) and np.isfinite(found[1])
