"""Projected Newton on a box: minima inside, on faces and in corners, ill scaling, and where the function ends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pmvar.calibration.box_newton import Minimum, minimise


def solve(function, start, lower, upper, **more) -> Minimum:
    box = {"lower": jnp.array(lower, float), "upper": jnp.array(upper, float)}
    return jax.jit(lambda x: minimise(function, x, **box, **more))(jnp.array(start, float))


def rosenbrock(x):
    return 100 * (x[1] - x[0] ** 2) ** 2 + (1 - x[0]) ** 2


@pytest.mark.parametrize(
    ("lower", "upper", "expected", "held"),
    [
        ([-2, -2], [2, 2], [1, 1], [False, False]),
        # x ≤ ½: y = x² is free to follow.
        ([-2, -2], [0.5, 2], [0.5, 0.25], [True, False]),
        # y ≥ 1.44: x solves −400·x·(y − x²) − 2(1 − x) = 0.
        ([-2, 1.44], [2, 2], [1.19940, 1.44], [False, True]),
        ([1.5, 2.5], [2, 3], [1.580, 2.5], [False, True]),
        # A corner: both slopes point out of the box.
        ([-0.5, -2], [0, -1], [0, -1], [True, True]),
    ],
)
def test_rosenbrock_on_boxes(lower, upper, expected, held):
    found = solve(rosenbrock, [0.0, 0.0], lower, upper)
    assert found.converged
    np.testing.assert_allclose(found.x, expected, atol=1e-3)
    np.testing.assert_array_equal(found.held, held)
    # No feasible direction descends: free slopes vanish, held ones point outwards.
    slope = np.where(held, 0.0, found.gradient)
    np.testing.assert_allclose(slope, 0, atol=1e-3)
    grid = np.stack(np.meshgrid(*map(np.linspace, lower, upper, (201, 201)), indexing="ij"))
    assert found.value <= rosenbrock(grid).min() + 1e-12


def test_units_do_not_matter():
    """The same valley with x in units of 1e6 and y in 1e−6 takes the same steps."""
    unit = jnp.array([1e6, 1e-6])
    plain = solve(rosenbrock, [-1.0, 1.0], [-2, -2], [2, 2])
    scaled = solve(lambda x: rosenbrock(x / unit), [-1e6, 1e-6], [-2e6, -2e-6], [2e6, 2e-6])
    assert plain.converged and scaled.converged
    assert plain.iterations == scaled.iterations
    np.testing.assert_allclose(scaled.x / unit, plain.x, rtol=1e-8)


def test_a_saddle_is_left_and_a_hole_is_walked_round():
    """From beside the saddle of x⁴ − 2x² + y² to a minimum; ln keeps the search where it exists."""
    saddle = solve(lambda x: x[0] ** 4 - 2 * x[0] ** 2 + x[1] ** 2, [1e-3, 1.0], [-3, -3], [3, 3])
    assert saddle.converged
    np.testing.assert_allclose(saddle.x, [1, 0], atol=1e-4)
    log = solve(lambda x: 5 * x[0] - jnp.log(x[0]) + x[1] ** 2, [3.0, 1.0], [-1, -1], [4, 4])
    assert log.converged
    np.testing.assert_allclose(log.x, [0.2, 0], atol=1e-5)


def test_failure_is_data():
    """A function that does not exist anywhere, and one that is given no time."""
    nowhere = solve(lambda x: jnp.sum(x) * jnp.nan, [0.0, 0.0], [-1, -1], [1, 1])
    assert not nowhere.converged
    assert not solve(rosenbrock, [-1.0, 1.0], [-2, -2], [2, 2], most_iterations=3).converged
