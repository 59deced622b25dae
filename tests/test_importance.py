"""Importance densities of single coordinates: exact inversion, honest and bounded weights, limits; and the rotation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from pmvar.errors import InputError
from pmvar.kernels.importance import heavy_mixing_normal, inflated, mean_rotation
from pmvar.models.sampling import SamplingParameters, sampling_parameters

Z = np.concatenate([np.linspace(-6.4, 6.4, 3001), [-8.0, 8.0]])
SHARES = [(0.05, 0.2), (0.08, 0.3), (0.3, 0.35), (0.9, 0.8)]


def moved(z: np.ndarray, share: float, exponent: float) -> tuple[np.ndarray, np.ndarray]:
    """(moved normals, weights)."""
    found = jax.vmap(lambda x: heavy_mixing_normal(x, share=share, exponent=exponent))(jnp.asarray(z))
    return np.asarray(found[0]), np.asarray(found[1])


@pytest.mark.parametrize(("share", "exponent"), SHARES)
def test_inversion(share, exponent):
    """Φ(z) = ηu + (1 − η)u^c to 1e-12 of the nearer tail; increasing; the weight is 1/g(u), below its bound."""
    z = np.sort(Z)
    found, weight = moved(z, share, exponent)
    u, above = special.ndtr(found), special.ndtr(-found)
    low = share * u + (1 - share) * u**exponent
    with np.errstate(divide="ignore"):
        high = share * above - (1 - share) * np.expm1(exponent * np.log1p(-above))
    np.testing.assert_allclose(low[z <= 0], special.ndtr(z[z <= 0]), rtol=1e-12)
    np.testing.assert_allclose(high[z > 0], special.ndtr(-z[z > 0]), rtol=1e-12)
    assert np.all(np.diff(found) > 0)
    np.testing.assert_allclose(weight, 1 / (share + (1 - share) * exponent * u ** (exponent - 1)), rtol=1e-10)
    assert np.all((weight > 0) & (weight <= (1 + 1e-12) / (share + (1 - share) * exponent)))


@pytest.mark.parametrize(("share", "exponent"), SHARES)
def test_weights_give_the_law_back(share, exponent):
    """E[w f(U)] = ∫f on a fine midpoint rule in v, for means, tails and moments."""
    v = (np.arange(2_000_000) + 0.5) / 2_000_000
    found, weight = moved(special.ndtri(v), share, exponent)
    assert weight.mean() == pytest.approx(1, abs=1e-5)
    assert np.mean(weight * found) == pytest.approx(0, abs=2e-4)
    assert np.mean(weight * found**2) == pytest.approx(1, abs=1e-3)
    for tail in (1e-2, 1e-4):
        assert np.mean(weight * (found < special.ndtri(tail))) == pytest.approx(tail, rel=1e-2)
    # More paths where tails are heavy is what it is for.
    assert np.mean(found < special.ndtri(1e-2)) > 0.01 * (1 + 0.5 * (1 - share))


@pytest.mark.parametrize(("share", "exponent"), [(1.0, 0.3), (0.3, 1.0)])
def test_nothing_to_lean_on(share, exponent):
    found, weight = moved(Z, share, exponent)
    np.testing.assert_array_equal(found, Z)
    np.testing.assert_array_equal(weight, 1.0)


@pytest.mark.parametrize("scale", [1.0, 1.15, 1.5])
def test_inflated_normals(scale):
    z = np.random.default_rng(1).standard_normal(400_000)
    found, weight = map(np.asarray, jax.vmap(lambda x: inflated(x, scale))(jnp.asarray(z)))
    assert stats.kstest(found[:20_000], stats.norm(scale=scale).cdf).pvalue > 1e-3
    np.testing.assert_allclose(weight, stats.norm.pdf(found) / stats.norm.pdf(found, scale=scale), rtol=1e-9)
    for f in (np.ones_like, np.square, lambda x: x < -2.3):
        value = weight * f(found)
        exact = {np.square: 1.0, np.ones_like: 1.0}.get(f, stats.norm.cdf(-2.3))
        assert abs(value.mean() - exact) <= 4 * value.std() / np.sqrt(len(z)) + 1e-12
    assert weight.max() <= scale


@pytest.mark.parametrize("n", [1, 2, 3, 10, 60])
def test_the_rotation_keeps_the_law_and_puts_the_mean_first(n):
    q = mean_rotation(n)
    np.testing.assert_allclose(q.T @ q, np.eye(n), atol=1e-14)
    np.testing.assert_allclose(q[:, 0], 1 / np.sqrt(n), rtol=1e-14)


@settings(deadline=None, max_examples=50)
@given(st.floats(-37, 37), st.floats(0.05, 1), st.floats(0.2, 1))
def test_any_normal(z, share, exponent):
    found, weight = heavy_mixing_normal(jnp.float64(z), share=share, exponent=exponent)
    assert np.isfinite(float(found)) and 0 <= float(weight) < 6


@pytest.mark.parametrize(
    "given_", [{"mixing_share": 0.0}, {"mixing_exponent": 2.0}, {"inflation": [3.0]}, {"inflation": 1.2},
               {"share": 0.3}, {"mixing_share": "a"}, {"mixing_share": True}, {"inflation": [1.9] * 4},
               {"mixing_share": float("nan")}]
)  # fmt: skip
def test_parameters_that_are_refused(given_):
    with pytest.raises(InputError, match="sampling|shares|inflation|largest weight"):
        sampling_parameters(given_)


def test_the_bound_of_the_weights():
    assert sampling_parameters({}) == SamplingParameters()
    assert SamplingParameters().weight_bound == 1
    said = sampling_parameters({"mixing_share": 0.08, "mixing_exponent": 0.3, "inflation": [1.4, 1.15]})
    assert said.weight_bound == pytest.approx(1.4 * 1.15 / (0.08 + 0.92 * 0.3))
