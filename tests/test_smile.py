"""Where moves stand among the nodes, and tabulated smiles read there: interpolation in all its corners."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmvar.kernels.smile import NODES, place, smile_vol

MOVES = np.concatenate([np.linspace(-3.5, 3.5, 3001), NODES, np.random.default_rng(1).normal(0, 0.05, 2000)])


def vol(table: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Of options with the tables [option, node], all under the same moves."""
    moves = jnp.broadcast_to(jnp.asarray(move), (len(table), len(move)))
    return np.asarray(smile_vol(jnp.asarray(table), place(moves), moves))


def slope(table: np.ndarray, move: np.ndarray) -> np.ndarray:
    """Derivative of one option's volatility."""

    def one(x: jax.Array) -> jax.Array:
        return smile_vol(jnp.asarray(table)[None], place(x), x)

    x = jnp.asarray(move)[None]
    return np.asarray(jax.jvp(one, (x,), (jnp.ones_like(x),))[1])[0]


def test_nodes_are_symmetric_around_a_standing_market():
    np.testing.assert_array_equal(NODES, -NODES[::-1])
    assert NODES[len(NODES) // 2] == 0.0
    assert NODES[-1] == pytest.approx(2.0, rel=1e-15)
    assert np.min(np.diff(NODES)) == pytest.approx(0.00281, rel=0.01)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_a_place_is_the_interval_that_holds_the_move(dtype):
    """Bit by bit: numpy's search in the nodes of that precision. Beyond the outermost nodes it is their end."""
    move, nodes = MOVES.astype(dtype), NODES.astype(dtype)
    at = place(jnp.asarray(move))
    node, share = np.asarray(at.node), np.asarray(at.share)
    assert share.dtype == dtype
    np.testing.assert_array_equal(node, np.clip(np.searchsorted(nodes, move, side="right") - 1, 0, len(nodes) - 2))
    low, high = nodes[node], nodes[node + 1]
    np.testing.assert_allclose(low + share * (high - low), np.clip(move, -2, 2), rtol=0, atol=2 * np.finfo(dtype).eps)
    assert share.min() == 0 and share.max() == 1
    np.testing.assert_array_equal(share[move <= -2], 0)
    np.testing.assert_array_equal(share[move >= 2], 1)


def test_a_move_that_is_no_number_has_no_volatility():
    assert np.isnan(vol(np.full((1, len(NODES)), 0.2), np.array([np.nan]))).all()


def test_a_table_comes_back_at_its_nodes_and_linearly_between():
    table = np.random.default_rng(3).uniform(0.2, 1.5, (5, len(NODES)))
    np.testing.assert_allclose(vol(table, NODES), table, rtol=1e-13)
    # Flat beyond the ends, as np.interp is.
    np.testing.assert_allclose(vol(table, MOVES), [np.interp(MOVES, NODES, t) for t in table], rtol=1e-12)


def test_the_derivative_at_a_node_is_the_mean_of_both_slopes():
    """The centre is where the standing market is: its slope must favour neither side."""
    table = np.random.default_rng(4).uniform(0.2, 1.5, len(NODES))
    gap = np.diff(table) / np.diff(NODES)
    np.testing.assert_allclose(slope(table, NODES[1:-1]), (gap[1:] + gap[:-1]) / 2, rtol=1e-10)
    middle = (NODES[1:] + NODES[:-1]) / 2
    np.testing.assert_allclose(slope(table, middle), gap, rtol=1e-10)
    np.testing.assert_array_equal(slope(table, np.array([-4.0, 4.0])), 0.0)


def test_the_derivative_by_the_table_is_the_interpolation_of_its_own():
    """Together with that by the move: the sum of both."""
    rng = np.random.default_rng(5)
    table, along = rng.uniform(0.2, 1.5, (2, 1, len(NODES)))
    moves = jnp.asarray(MOVES)[None]

    def f(t: jax.Array, x: jax.Array) -> jax.Array:
        return smile_vol(t, place(x), x)

    _, both = jax.jvp(f, (jnp.asarray(table), moves), (jnp.asarray(along), jnp.ones_like(moves)))
    np.testing.assert_allclose(both, slope(table[0], MOVES)[None] + vol(along, MOVES), rtol=1e-12)


@pytest.mark.parametrize(("dtype", "bound"), [(np.float64, 1e-13), (np.float32, 1e-6)])
def test_every_option_has_the_place_of_its_own_moves(dtype, bound):
    """In float32 the rounding of a move (6e-8 of it, a node's gap being a tenth) and of two products remain."""
    rng = np.random.default_rng(6)
    # Neighbouring nodes of a smile differ little.
    table = (0.6 + 0.2 * np.sin(NODES * 2 + rng.uniform(0, 6, (10, 1)))).astype(dtype)
    move = jnp.asarray(rng.normal(0, 0.2, (10, 300)).astype(dtype))
    got = np.asarray(smile_vol(jnp.asarray(table), place(move), move))
    assert got.shape == (10, 300) and got.dtype == dtype
    expected = [np.interp(x, NODES, t) for x, t in zip(np.asarray(move), table, strict=True)]
    np.testing.assert_allclose(got, expected, rtol=bound)
