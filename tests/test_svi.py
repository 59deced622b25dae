"""SVI kernels: Vogt's smile and its arbitrage, SSVI as SVI, derivatives against differences, and what a shock may leave
of a smile."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmvar.kernels.svi import (
    Svi,
    butterfly,
    from_ssvi,
    jump_wings,
    power_law,
    stretched,
    tilted,
    total_variance,
    wings,
)  # fmt: skip

# Gatheral and Jacquier (2014), example 3.1, after Vogt: (a, b, ρ, m, s).
VOGT = Svi(*map(jnp.float64, (-0.0410, 0.1331, 0.3060, 0.3586, 0.4153)))
K = jnp.linspace(-1.5, 1.5, 300_001)


def test_vogts_smile_has_the_arbitrage_that_it_is_known_for():
    g = np.asarray(butterfly(VOGT, K).condition())
    negative = np.asarray(K)[g < 0]
    np.testing.assert_allclose([negative.min(), negative.max()], [0.6424, 1.2569], atol=1e-4)
    np.testing.assert_allclose([g.min(), K[g.argmin()]], [-0.032864, 0.8793], atol=1e-4)
    np.testing.assert_allclose(float(total_variance(VOGT, jnp.float64(0.0))), 0.01742625, atol=5e-9)
    # Table 1, ibid.: the same smile by jump wings.
    found = jump_wings(VOGT, jnp.float64(1.0))
    np.testing.assert_allclose(found, [0.01742625, -0.1752111, 0.6997381, 1.316798, 0.0116249], rtol=1e-5)


def test_condition_is_that_of_derivatives_by_differentiation():
    k = jnp.linspace(-2.0, 2.0, 41)
    first = jax.vmap(jax.grad(lambda x: total_variance(VOGT, x)))(k)
    second = jax.vmap(jax.grad(jax.grad(lambda x: total_variance(VOGT, x))))(k)
    w = total_variance(VOGT, k)
    g = (1 - k * first / (2 * w)) ** 2 - first**2 / 4 * (1 / w + 0.25) + second / 2
    np.testing.assert_allclose(butterfly(VOGT, k).condition(), g, rtol=1e-12)


def ssvi_formula(k, theta, rho, phi):
    return theta / 2 * (1 + rho * phi * k + np.sqrt((phi * k + rho) ** 2 + 1 - rho**2))


def test_ssvi_is_an_svi_and_stays_one_when_tilted_and_stretched():
    theta, rho, phi, k = 0.04, -0.6, 3.0, np.linspace(-2, 2, 81)
    p, k = from_ssvi(*map(jnp.float64, (theta, rho, phi))), jnp.asarray(k)
    np.testing.assert_allclose(total_variance(p, k), ssvi_formula(np.asarray(k), theta, rho, phi), rtol=1e-13)
    moved = stretched(tilted(p, jnp.float64(0.3)), jnp.float64(1.7), jnp.float64(0.8))
    leaned = np.tanh(np.arctanh(rho) + 0.3)
    np.testing.assert_allclose(
        total_variance(moved, k), ssvi_formula(np.asarray(k), 1.7 * theta, leaned, 0.8 * phi), rtol=1e-12
    )


def test_a_tilt_holds_the_money_and_none_changes_nothing():
    p = Svi(*map(jnp.float64, (0.01, 0.1, -0.3, 0.05, 0.2)))
    lean = jnp.linspace(-0.5, 0.5, 11)
    now = total_variance(p, jnp.float64(0.0))
    np.testing.assert_allclose(total_variance(tilted(p, lean), jnp.zeros(11)), np.full(11, now), rtol=1e-13)
    np.testing.assert_allclose(np.stack(tilted(p, jnp.float64(0.0))), np.stack(p), rtol=1e-13)
    k = jnp.float64(1e-5)
    skews = [
        (total_variance(tilted(p, x), k) - total_variance(tilted(p, x), -k)) / (2 * k)
        for x in jnp.array([-0.2, 0.0, 0.2])
    ]
    assert skews[0] < skews[1] < skews[2]


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_values_keep_their_type_and_are_finite_at_limits(dtype):
    p = Svi(
        *(
            jnp.array(x, dtype)
            for x in ([0.0, 1e-10, 0.02], [0.0, 1.9, 1e-3], [0.0, -0.99, 0.9], [0.0, 3.0, -3.0], [1e-6, 1e-3, 5.0])
        )
    )
    for k in (0.0, -13.8, 13.8):
        at = jnp.full(3, k, dtype)
        w, slope = jax.jvp(lambda k: total_variance(p, k), (at,), (jnp.ones(3, dtype),))
        assert w.dtype == dtype and np.all(np.isfinite(w)) and np.all(w > 0) and np.all(np.isfinite(slope))
        assert np.all(np.isfinite(np.stack(butterfly(p, at))))


@settings(max_examples=60, deadline=None)
@given(
    st.floats(0.02, 0.5), st.floats(0.2, 1.0), st.floats(-0.9, 0.9), st.floats(-2.0, 2.0), st.floats(0.05, 3.0),
    st.floats(0.01, 30.0),
)  # fmt: skip
def test_the_width_that_is_left_is_free_of_arbitrage(deviation, floor, rho, m, s, growth):
    """Any smile whose A is positive: narrowed to what `width` leaves, g ≥ 0 on a grid that it did not see."""
    b = 0.8 * deviation
    rest = float(np.sqrt(1 - rho**2))
    p = Svi(*map(jnp.float64, (floor * deviation**2 - b * s * deviation * rest, b, rho, m * deviation, s * deviation)))
    nodes, others = p.m + p.s * wings(3001), p.m + p.s * wings(2000)
    parts = butterfly(p, nodes)
    # Where A falls to 0 no width is left.
    q = min(1.0, 0.995 * float(jnp.sqrt(jnp.min(parts.width(jnp.float64(growth))))))
    if q > 0.05:
        narrowed = stretched(p, jnp.float64(growth), jnp.float64(q))
        assert float(jnp.min(butterfly(narrowed, others / q).condition())) >= -1e-12


def test_power_law_obeys_its_theorem():
    """Gatheral and Jacquier (2014), corollary 4.1: no calendar arbitrage where θ rises."""
    theta = jnp.asarray(np.geomspace(1e-3, 1.0, 30))
    phi = power_law(theta, jnp.float64(0.9), jnp.float64(0.4))
    p = from_ssvi(theta[:, None], jnp.float64(-0.5), phi[:, None])
    assert np.all(np.diff(total_variance(p, jnp.linspace(-20, 20, 401)[None, :]), axis=0) > 0)
