"""Measures from bins are those of `tail`, its plain twin, whatever is tied, heavy, bounded, weighted or in order."""

from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmvar.errors import NumericsError
from pmvar.risk import quantiles
from pmvar.risk.measure import measure_losses
from pmvar.risk.quantiles import SAMPLE, measure_rows
from pmvar.risk.selection import ROWS
from pmvar.risk.tail import standard_errors, tail
from pmvar.scenarios.scenario_set import GRAIN, ScenarioSet, union
from pmvar.types import Sampling
from tests.engines import mixed_market, scenarios

REPLICATES = 16


def of_all(loss: np.ndarray, weight: np.ndarray, level: float) -> list[np.ndarray]:
    """By sorting all scenarios."""
    n, wide, ids = loss.shape[1], loss.astype(float), np.broadcast_to(np.arange(loss.shape[1]), loss.shape)
    found = tail(wide, np.broadcast_to(weight, loss.shape), n_scenarios=n, level=level)
    errors = standard_errors(wide, ids, found, level=level, n_scenarios=n, n_replicates=REPLICATES)
    return [found.value_at_risk, found.expected_shortfall, *errors]


@pytest.fixture(params=["loops", "bins"], autouse=True, scope="module")
def twin(request: pytest.FixtureRequest) -> Iterator[None]:
    """Every test meets both ways of finding the tail."""
    with pytest.MonkeyPatch.context() as patch:
        assert quantiles.has_numba(), "the suite needs numba"
        patch.setattr(quantiles, "has_numba", lambda: request.param == "loops")
        yield


def check(loss: np.ndarray, weight: np.ndarray, level: float) -> None:
    """Of all rows at once, and of each alone: the VaR is the same loss, the rest differs by rounding."""
    found, exact = measure_rows(loss, weight, level=level, n_replicates=REPLICATES), of_all(loss, weight, level)
    np.testing.assert_array_equal(found.value_at_risk, exact[0])
    for name, expected in zip(("expected_shortfall", "var_error", "es_error"), exact[1:], strict=True):
        np.testing.assert_allclose(getattr(found, name), expected, rtol=1e-11, atol=0, err_msg=name)
    for i in range(len(loss)):
        alone = measure_rows(loss[i : i + 1], weight, level=level, n_replicates=REPLICATES)
        assert all(np.array_equal(x[0], y[i]) for x, y in zip(alone, found, strict=True))


def laws(rng: np.random.Generator, n: int, dtype: str) -> np.ndarray:
    """Losses of every kind, in rows; the first five move with one normal."""
    z = rng.normal(size=n)
    smooth = [z, -z, np.exp(5 * z), -np.exp(-5 * z), 1e30 * z, rng.standard_t(3, n), np.sort(z), 1e-40 * z]
    tied = [
        np.round(z, 1),
        np.zeros(n),
        np.minimum(z, 1.0),
        np.minimum(z, -1.0),
        np.maximum(z, 0.0),
        np.maximum(z, 2.0),
    ]
    return np.stack([*smooth, *tied]).astype(dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("level", [0.9, 0.975, 0.99])
@pytest.mark.parametrize("n", [100, 2 * SAMPLE, 5_000, 16_384])
def test_every_law_and_weight(n: int, level: float, dtype: str) -> None:
    """N(1−α) whole or not; weights equal, dyadic so that their sums tie, and likelihood ratios mild and wild."""
    rng = np.random.default_rng(n)
    loss = laws(rng, n, dtype)
    for spread in (0.0, 0.5, 3.0):
        weight = np.exp(-spread * loss[0].astype(float))
        check(loss, weight / weight.mean(), level)
    check(loss, rng.choice([0.25, 1.0, 1.75], n), level)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("n", [100, 5_000, 16_384])
def test_both_ways_give_one_result(n: int, dtype: str) -> None:
    """To the bit, with the weights that scenarios have: sums of them are exact."""
    rng = np.random.default_rng(n)
    loss = laws(rng, n, dtype)
    for spread in (0.0, 0.5, 3.0):
        weight = np.exp(-spread * loss[0].astype(float))
        weight = weighted(weight / weight.mean()).weight
        assert weight.sum() == np.sort(weight).sum() == np.cumsum(weight)[-1]
        for level in (0.9, 0.99):
            given = loss, weight, np.arange(n, dtype=np.int32) % REPLICATES, REPLICATES, n * (1 - level)
            one, other = quantiles.in_loops(*given), quantiles.by_bins(*given)
            for name in set(one._fields) - {"mass"}:
                np.testing.assert_array_equal(getattr(one, name), getattr(other, name), err_msg=name)


def test_sums_of_drawn_weights_are_exact(drawn_by_importance: ScenarioSet) -> None:
    """In any order, also of a union, whose shares are no powers of two; none is moved by more than half a grain."""
    for drawn in (drawn_by_importance, union([drawn_by_importance] * 3, [0.3, 0.3, 0.4])):
        weight = drawn.weight
        assert len(np.unique(weight)) > 100 and np.all(weight % GRAIN == 0)
        orders = [np.random.default_rng(seed).permutation(weight) for seed in range(5)]
        assert {float(np.cumsum(x)[-1]) for x in orders} == {float(weight.sum())}
    raw = np.exp(np.random.default_rng(1).normal(size=1000))
    assert np.max(np.abs(weighted(raw).weight - raw)) <= GRAIN / 2


@settings(max_examples=40)
@given(
    rows=st.integers(1, 5),
    n=st.sampled_from([30, 1000, 5000]),
    distinct=st.integers(1, 400),
    in_order=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_ties_of_every_size(rows: int, n: int, distinct: int, in_order: bool, seed: int) -> None:
    """Also in the order of their ids, of which a regular sample says little."""
    rng = np.random.default_rng(seed)
    loss = rng.integers(0, distinct, (rows, n)).astype(np.float32)
    check(np.sort(loss, axis=1) if in_order else loss, rng.choice([0.25, 1.0, 1.75], n), 0.95)


def test_a_sample_that_misses_the_tail() -> None:
    """The largest losses stand where no regular sample looks; neighbours keep their bits."""
    rng, n = np.random.default_rng(1), 10_000
    loss = rng.normal(size=(3, n)).astype(np.float32)
    step = n // SAMPLE
    hidden = np.flatnonzero(np.arange(n) % step)[:400]
    loss[1, hidden] += 10
    check(loss, np.ones(n), 0.975)


def test_weights_that_do_not_cover_the_tail() -> None:
    """They are refused."""
    with pytest.raises(NumericsError, match="do not cover the tail"):
        measure_rows(np.ones((2, 1000)), np.full(1000, 0.005), level=0.99, n_replicates=8)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_no_number_names_its_account(bad: float, drawn_ones: ScenarioSet) -> None:
    """In any block of rows."""
    loss = np.random.default_rng(1).normal(size=(ROWS + 8, 1000))
    loss[ROWS + 5, 7] = bad
    names = np.array(["early"] * (ROWS + 5) + ["late"] * 3)
    with pytest.raises(NumericsError, match="account late"):
        measure_losses(loss, drawn_ones, 0.99, names=names)


@pytest.fixture
def drawn_ones() -> ScenarioSet:
    """A thousand scenarios of equal weight; only weights and replicates matter."""
    return weighted(np.ones(1000))


@pytest.fixture(scope="module")
def drawn_by_importance() -> ScenarioSet:
    """Drawn by importance sampling."""
    return scenarios(mixed_market(), n=4_096, sampling=Sampling.SOBOL_IS)


def weighted(weight: np.ndarray) -> ScenarioSet:
    """Scenarios in which nothing moves."""
    nothing = np.zeros(1)
    shock = jnp.zeros((len(weight), 1, 1))
    return ScenarioSet(("A:spot",), 0.0, 1.0, shock, weight, REPLICATES, nothing, nothing, np.inf)


def test_loops_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba refuses to cache where no folder can be written: loops are then compiled anew."""
    from pmvar.kernels import tail_loops

    compile_ = tail_loops.numba.njit

    def refusing(function: Callable, **options: Any) -> Callable:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return compile_(function, **options)

    monkeypatch.setattr(tail_loops.numba, "njit", refusing)
    assert tail_loops._compiled(lambda x: x + 1)(1) == 2
