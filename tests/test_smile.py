"""Hat functions and the smile as a matrix product: interpolation in all its corners."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmvar.kernels.european import smile_vol
from pmvar.kernels.smile import NODES, hats

MOVES = np.concatenate([np.linspace(-3.5, 3.5, 3001), NODES, np.random.default_rng(1).normal(0, 0.05, 2000)])


def test_nodes_are_symmetric_around_a_standing_market():
    np.testing.assert_array_equal(NODES, -NODES[::-1])
    assert NODES[len(NODES) // 2] == 0.0
    assert NODES[-1] == pytest.approx(2.0, rel=1e-15)
    assert np.min(np.diff(NODES)) == pytest.approx(0.00281, rel=0.01)


@pytest.mark.parametrize(("dtype", "bound"), [(jnp.float64, 4e-16), (jnp.float32, 3e-7)])
def test_weights_are_a_partition_of_one(dtype, bound):
    """Not negative, at most two of them, summing to 1 to rounding: also beyond the outermost nodes."""
    w = np.asarray(hats(jnp.asarray(MOVES, dtype)))
    assert w.shape == (len(NODES), len(MOVES)) and np.all(w >= -bound)
    assert np.max(np.abs(w.sum(0) - 1)) <= bound
    assert np.max((w > bound).sum(0)) == 2


def test_a_table_comes_back_at_its_nodes_and_linearly_between():
    table = np.random.default_rng(3).uniform(0.2, 1.5, len(NODES))
    np.testing.assert_allclose(table @ np.asarray(hats(jnp.asarray(NODES))), table, rtol=1e-13)
    # Flat beyond the ends, as np.interp is.
    np.testing.assert_allclose(table @ np.asarray(hats(jnp.asarray(MOVES))), np.interp(MOVES, NODES, table), rtol=1e-12)


def test_the_derivative_at_a_node_is_the_mean_of_both_slopes():
    """The centre is where the standing market is: its slope must favour neither side."""
    table = jnp.asarray(np.random.default_rng(4).uniform(0.2, 1.5, len(NODES)))
    slope = jax.vmap(jax.grad(lambda x: (table @ hats(x[None]))[0]))
    gap = np.diff(np.asarray(table)) / np.diff(NODES)
    np.testing.assert_allclose(slope(jnp.asarray(NODES[1:-1])), (gap[1:] + gap[:-1]) / 2, rtol=1e-10)
    middle = (NODES[1:] + NODES[:-1]) / 2
    np.testing.assert_allclose(slope(jnp.asarray(middle)), gap, rtol=1e-10)
    np.testing.assert_array_equal(slope(jnp.array([-4.0, 4.0])), 0.0)


def test_hats_of_a_batch_are_those_of_its_members():
    x = jnp.asarray(np.random.default_rng(5).normal(0, 0.3, (3, 40)))
    np.testing.assert_array_equal(hats(x), np.stack([hats(row) for row in x]))


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-13), (np.float32, 2e-6)])
def test_smile_vol_interpolates_every_option_of_every_group(dtype, bound):
    """The product against one interpolation per option; groups have their own moves.

    In float32 the weights' rounding (2·3/.004·6e-8 of a difference of neighbouring vols) and one product remain.
    """
    rng = np.random.default_rng(6)
    # Neighbouring nodes of a smile differ little.
    table = (0.6 + 0.2 * np.sin(NODES * 2 + rng.uniform(0, 6, (2, 5, 1)))).astype(dtype)
    move = rng.normal(0, 0.2, (2, 300)).astype(dtype)
    got = np.asarray(smile_vol(jnp.asarray(table), hats(jnp.asarray(move))))
    expected = [np.interp(move[g], NODES, table[g, n]) for g in range(2) for n in range(5)]
    assert got.shape == (10, 300) and got.dtype == dtype
    np.testing.assert_allclose(got, expected, rtol=bound)
