"""Measures from bins are those of `tail`, its plain twin, whatever is tied, heavy, bounded, weighted or in order."""

from collections.abc import Callable, Iterator

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
from pmvar.scenarios.scenario_set import GRAIN, ScenarioSet

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
        if request.param == "bins":
            patch.setattr(quantiles, "loops", lambda: None)
        else:
            assert quantiles.loops(), "the suite needs numba"
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
def test_both_ways_give_one_result(n: int, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, with the weights that scenarios have: sums of them are exact."""
    rng = np.random.default_rng(n)
    loss = laws(rng, n, dtype)
    for spread in (0.0, 0.5, 3.0):
        weight = np.exp(-spread * loss[0].astype(float))
        weight = np.round(weight / weight.mean() / GRAIN) * GRAIN
        assert weight.sum() == np.sort(weight).sum() == np.cumsum(weight)[-1]
        for level in (0.9, 0.99):
            one = measure_rows(loss, weight, level=level, n_replicates=REPLICATES)
            with monkeypatch.context() as patch:
                patch.setattr(quantiles, "loops", lambda: None)
                other = measure_rows(loss, weight, level=level, n_replicates=REPLICATES)
            for x, y in zip(one, other, strict=True):
                np.testing.assert_array_equal(x, y)


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
    nothing = np.zeros(1)
    return ScenarioSet(
        ("A:spot",), 0.0, 1.0, jnp.zeros((1000, 1, 1)), np.ones(1000), REPLICATES, nothing, nothing, np.inf
    )


def test_loops_where_nothing_can_be_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Numba refuses to cache where no folder can be written: loops are then compiled anew."""
    from pmvar.kernels import tail_loops

    compile_ = tail_loops.numba.njit

    def refusing(function: Callable, **options: bool) -> Callable:
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return compile_(function, **options)

    monkeypatch.setattr(tail_loops.numba, "njit", refusing)
    assert tail_loops._compiled(lambda x: x + 1)(1) == 2
