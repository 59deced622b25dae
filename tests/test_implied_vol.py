"""Implied total deviation: round trips to the conditioning of the price, and masks where there is none."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import norm

from pmvar.kernels.black import normalised_black
from pmvar.kernels.implied_vol import implied_total_deviation

EPS = 2.0**-52


def otm_price(k, s):
    k, s = jnp.asarray(k), jnp.asarray(s)
    return normalised_black(k, s, jnp.where(k >= 0, 1.0, -1.0))


def test_round_trip_over_the_surface():
    k, s = (a.ravel() for a in np.meshgrid(np.linspace(-3, 3, 61), np.geomspace(1e-4, 6.0, 49)))
    price = np.asarray(otm_price(k, s))
    # A price within 1e-13 of its upper bound, or nearly denormal, has lost its volatility to rounding.
    kept = (price > 1e-250) & (price < np.minimum(1, np.exp(k)) * (1 - 1e-13))
    k, s, price = k[kept], s[kept], price[kept]
    implied, ok = jax.jit(implied_total_deviation)(jnp.asarray(price), jnp.asarray(k))
    assert np.all(np.asarray(ok))
    error = np.abs(np.asarray(implied) / s - 1)
    # The price is a difference of two terms that are rounded, arguments included; over vega, that much of s
    # is gone.
    d1 = -np.abs(k) / s + s / 2
    conditioning = 8 * EPS * (1 + d1**2) * norm.cdf(d1) / (s * norm.pdf(d1))
    assert np.all(error <= 1e-13 + conditioning)
    ordinary = (np.abs(k) / s <= 4) & (s >= 1e-2) & (s <= 3)
    assert ordinary.sum() > 500 and error[ordinary].max() <= 1e-10


def test_at_the_money_closed_form():
    # c = 2Φ(s/2) − 1
    s = np.array([1e-3, 0.05, 0.3, 1.5])
    implied, ok = implied_total_deviation(jnp.asarray(2 * norm.cdf(s / 2) - 1), jnp.zeros(4))
    assert np.all(np.asarray(ok))
    np.testing.assert_allclose(implied, s, rtol=1e-12)


def test_put_call_symmetry():
    k, s = np.linspace(0.1, 2, 20), np.full(20, 0.4)
    call, _ = implied_total_deviation(otm_price(k, s), jnp.asarray(k))
    put, _ = implied_total_deviation(otm_price(-k, s), jnp.asarray(-k))
    np.testing.assert_allclose(call, put, rtol=1e-13)


@pytest.mark.parametrize(
    ("price", "k"),
    [(0.0, 0.1), (-1e-9, 0.1), (1.0, 0.1), (1.1, 0.0), (0.7, -0.5), (np.nan, 0.0), (0.1, np.nan), (9e9, 0.0)],
)
def test_no_volatility_gives_nan_and_false_beside_sound_neighbours(price, k):
    implied, ok = implied_total_deviation(jnp.array([price, 0.1]), jnp.array([k, 0.0]))
    assert np.asarray(ok).tolist() == [False, True]
    assert np.isnan(implied[0]) and np.isfinite(implied[1])


@given(st.floats(-2, 2), st.floats(1e-6, 0.999))
def test_repriced_within_rounding(k, share):
    price = share * min(1.0, np.exp(k))
    implied, ok = implied_total_deviation(jnp.array([price]), jnp.array([k]))
    assert bool(ok[0])
    again = otm_price(np.array([k]), np.asarray(implied))
    assert float(again[0]) == pytest.approx(price, rel=1e-11, abs=1e-14)
