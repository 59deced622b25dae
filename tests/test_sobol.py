"""Scrambled Sobol' points: SciPy's net underneath, still a net after scrambling, unbiased, and each a function of its
number alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.stats import qmc

from pmvar.kernels.random import run_key, stream
from pmvar.kernels.sobol import BITS, BLOCK, direction_numbers, scramble_seeds, sobol_uniforms

M = 10


def points(n: int, seeds: jax.Array, *, start: int = 0) -> np.ndarray:
    """[point, dimension]."""
    at = jnp.arange(start, start + n, dtype=jnp.uint32)
    return np.asarray(jax.jit(jax.vmap(lambda i: sobol_uniforms(i, seeds)))(at))


def seeds(n: int, label: int = 0) -> jax.Array:
    """Of one replicate."""
    return scramble_seeds(stream(run_key(7), label), n)


def test_direction_numbers_are_joe_and_kuos():
    """SciPy's private table, pinned: the first dimensions, and the point sets that they make."""
    numbers = direction_numbers()
    assert numbers.shape == (BLOCK, BITS) and numbers.dtype == np.uint32
    np.testing.assert_array_equal(numbers[0], [1 << (31 - i) for i in range(32)])
    np.testing.assert_array_equal(numbers[2, :5], [2147483648, 3221225472, 1610612736, 2415919104, 3892314112])
    index = np.arange(64, dtype=np.uint32)
    ours = np.zeros((64, 20), dtype=np.uint32)
    for bit in range(BITS):
        ours ^= ((index >> bit) & 1)[:, None] * numbers[:20, bit]
    scipys = (qmc.Sobol(20, scramble=False, bits=32).random(64) * 2.0**32).astype(np.uint32)
    # SciPy walks in Gray-code order: the same points.
    np.testing.assert_array_equal(ours[np.lexsort(ours.T)], scipys[np.lexsort(scipys.T)])


@pytest.mark.parametrize("label", range(3))
def test_scrambled_points_are_a_net(label):
    """Every elementary interval of the first two dimensions holds its one point, every dimension is stratified."""
    u = points(1 << M, seeds(64, label))
    for k in range(M + 1):
        cell = (u[:, 0] * 2**k).astype(int) * 2 ** (M - k) + (u[:, 1] * 2 ** (M - k)).astype(int)
        assert np.all(np.bincount(cell, minlength=1 << M) == 1)
    for column in u.T:
        assert np.all(np.bincount((column * 2**M).astype(int), minlength=1 << M) == 1)
    assert u.min() > 0 and u.max() < 1


def test_later_blocks_are_nets_of_their_own():
    """Dimensions past 1,024 use the numbers of earlier ones at shuffled indices: stratified, and unrelated to them."""
    n = 2 * BLOCK + 3
    u = points(1 << 12, seeds(n))
    for d in (BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK - 1, 2 * BLOCK, n - 1):
        assert np.all(np.bincount((u[:, d] * 4096).astype(int), minlength=4096) == 1)
    pairs = [(0, BLOCK), (1, BLOCK + 1), (0, 2 * BLOCK), (BLOCK, 2 * BLOCK)]
    assert all(abs(np.corrcoef(u[:, a], u[:, b])[0, 1]) < 4 / 64 for a, b in pairs)


def test_a_point_is_a_function_of_its_number_and_dimension():
    """Alone or among others, in any tile, with more dimensions or fewer: equal bits."""
    whole = points(4096, seeds(40))
    np.testing.assert_array_equal(points(7, seeds(40), start=4000), whole[4000:4007])
    np.testing.assert_array_equal(points(4096, seeds(5)), whole[:, :5])
    np.testing.assert_array_equal(np.asarray(sobol_uniforms(jnp.uint32(99), seeds(40))), whole[99])


def test_replicates_are_independent_and_unbiased():
    """512 scramblings of 64 points: means of smooth and of broken functions are their integrals, within four errors;
    of 16 replicates, the mean over its error is Student's t with 15 degrees of freedom."""
    keys = jnp.stack([stream(run_key(3), r) for r in range(512)])
    every = jax.vmap(lambda k: scramble_seeds(k, 6))(keys)
    u = jax.jit(jax.vmap(lambda s: jax.vmap(lambda i: sobol_uniforms(i, s))(jnp.arange(64, dtype=jnp.uint32))))(every)
    u = np.asarray(u)
    for f, exact in (
        (lambda x: np.prod(1 + (x - 0.5) / 2, axis=-1), 1.0),
        (lambda x: np.max(x, axis=-1), 6 / 7),
        # Irwin–Hall at 1.5.
        (lambda x: (x.sum(axis=-1) < 1.5).astype(float), (1.5**6 - 6 * 0.5**6) / 720),
    ):
        mean = f(u).mean(axis=1)
        assert abs(mean.mean() - exact) <= 4 * mean.std() / np.sqrt(512)
        z = mean.reshape(32, 16)
        z = (z.mean(axis=1) - exact) / (z.std(axis=1, ddof=1) / 4)
        assert stats.kstest(z, stats.t(15).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(u[:, 0, 0], u[:, 0, 1])[0, 1]) < 4 / np.sqrt(512)
    assert stats.kstest(u[:, 5, 3], "uniform").pvalue > 1e-3


def test_convergence():
    """Root mean square error of a smooth integrand in four dimensions falls like n^−1.2 or faster, plain draws' like
    n^−.5."""
    keys = jnp.stack([stream(run_key(4), r) for r in range(64)])
    every = jax.vmap(lambda k: scramble_seeds(k, 4))(keys)
    sizes, errors = 2 ** np.arange(5, 13), []
    for n in sizes:
        at = jnp.arange(n, dtype=jnp.uint32)
        u = np.asarray(jax.jit(jax.vmap(lambda s, at=at: jax.vmap(lambda i: sobol_uniforms(i, s))(at)))(every))
        errors.append(np.sqrt(np.mean((np.exp(u.sum(axis=2)).mean(axis=1) - (np.e - 1) ** 4) ** 2)))
    assert np.polyfit(np.log(sizes), np.log(errors), 1)[0] <= -1.2
    rng = np.random.default_rng(1)
    plain = [np.std([np.exp(rng.random((n, 4)).sum(axis=1)).mean() for _ in range(200)]) for n in sizes[[0, -1]]]
    assert np.log(plain[1] / plain[0]) / np.log(sizes[-1] / sizes[0]) == pytest.approx(-0.5, abs=0.1)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_any_index_and_key(index, label):
    u = np.asarray(sobol_uniforms(jnp.uint32(index), scramble_seeds(stream(run_key(1), label), 9)))
    assert np.all((u > 0) & (u < 1))
