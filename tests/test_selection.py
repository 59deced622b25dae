"""Selection of tail scenarios: the same numbers as from all of them, whatever is drawn, tied, heavy or light."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmvar.errors import NumericsError
from pmvar.risk.selection import ROWS, SAMPLE, tail_ids
from pmvar.risk.tail import BAND, tail


def ranked(loss: np.ndarray) -> np.ndarray:
    """All scenarios of one account, worst first, of equals (in single precision) the lower id."""
    return np.lexsort((np.arange(len(loss)), -loss.astype(np.float32)))


def check(loss: np.ndarray, weight: np.ndarray, level: float) -> None:
    """Every account keeps the head of its ranking, past the band around its VaR; measures are those of all."""
    n, ids = loss.shape[1], tail_ids(loss, weight, level)
    need = (1 + BAND) * n * (1 - level)
    for row, kept in zip(loss, ids, strict=True):
        order = ranked(row)
        mass = np.cumsum(weight[order])
        own = min(int(np.sum(mass <= need)) + 1, n)
        assert len(kept) >= own
        np.testing.assert_array_equal(kept[:own], order[:own])
        # What follows goes on down the ranking, or repeats.
        place = np.argsort(order)[kept]
        assert np.all(np.diff(place) >= 0) and np.all(np.diff(place)[np.diff(place) == 0] == 0)
    few = tail(np.take_along_axis(loss, ids, 1).astype(float), weight[ids], n_scenarios=n, level=level)
    whole = tail(loss.astype(float), np.broadcast_to(weight, loss.shape), n_scenarios=n, level=level)
    np.testing.assert_array_equal(few.value_at_risk, whole.value_at_risk)
    np.testing.assert_allclose(few.expected_shortfall, whole.expected_shortfall, rtol=1e-13, atol=1e-300)
    np.testing.assert_allclose(few.spacing, whole.spacing, rtol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("level", [0.9, 0.975, 0.99])
@pytest.mark.parametrize("n", [100, 2 * SAMPLE, 10_000, 65_536])
def test_equal_weights(n, level, dtype):
    rng = np.random.default_rng(n)
    smooth = [rng.normal(size=n), rng.standard_t(3, n), -np.exp(rng.normal(size=n))]
    check(np.stack([*smooth, np.round(smooth[0], 1), np.zeros(n)]).astype(dtype), np.ones(n), level)


@pytest.mark.parametrize("level", [0.9, 0.99])
@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_likelihood_ratios(level, spread):
    """Weights that fall with the loss of one account rise with that of another, and mean nothing to a third."""
    rng, n = np.random.default_rng(1), 16_384
    z = rng.normal(size=n)
    weight = np.exp(-spread * z)
    weight /= weight.mean()
    loss = np.stack([z, -z, rng.normal(size=n), np.abs(z), np.maximum(z, 0.0), np.minimum(z, -1.0)])
    check(loss, weight, level)


@settings(max_examples=40)
@given(
    rows=st.integers(1, 2 * ROWS + 1),
    n=st.sampled_from([30, 2048, 5000]),
    distinct=st.integers(1, 400),
    sorted_by_time=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
)
def test_whatever_the_losses(rows, n, distinct, sorted_by_time, seed):
    """Ties of every size, and losses in the order of their ids, of which a regular sample says little."""
    rng = np.random.default_rng(seed)
    loss = rng.integers(0, distinct, (rows, n)).astype(np.float32)
    check(np.sort(loss, axis=1) if sorted_by_time else loss, rng.choice([0.25, 1.0, 1.75], n), 0.95)


def test_an_account_does_not_depend_on_its_neighbours():
    rng, n = np.random.default_rng(2), 8192
    loss, weight = rng.standard_t(3, (3 * ROWS, n)), np.exp(rng.normal(size=n))
    weight /= weight.mean()
    loss[5] = 0.0
    together = tail_ids(loss, weight, 0.99)
    for i in (0, 5, ROWS, 3 * ROWS - 1):
        alone = tail_ids(loss[i : i + 1], weight, 0.99)[0]
        np.testing.assert_array_equal(together[i, : len(alone)], alone)


def test_nothing_to_select():
    assert tail_ids(np.zeros((0, 4096)), np.ones(4096), 0.99).shape[0] == 0


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_loss_that_is_no_number_is_never_dropped_in_silence(bad):
    loss = np.random.default_rng(1).normal(size=(40, 1000))
    loss[37, 7] = bad
    with pytest.raises(NumericsError, match="account late"):
        tail_ids(loss, np.ones(1000), 0.99, names=np.array(["early"] * 37 + ["late"] * 3))
