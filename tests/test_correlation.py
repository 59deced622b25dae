"""The nearest correlation matrix, and principal components of singular ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmvar.errors import NumericsError
from pmvar.models import correlation
from pmvar.models.correlation import ROUNDING, TOLERANCE, nearest_correlation, principal_loading
from pmvar.scenarios import simulate
from tests.laws import MARKET
from tests.markets import specification


def sound(c: np.ndarray) -> bool:
    """Symmetric, unit diagonal, positive semi-definite."""
    return bool(np.all(c == c.T) and np.allclose(np.diag(c), 1, atol=1e-14) and np.linalg.eigvalsh(c)[0] > -1e-14)


def test_highams_example(monkeypatch):
    """Higham (2002), section 4: the nearest matrix to [[1, 1, 0], [1, 1, 1], [0, 1, 1]] has off-diagonals .760690 and
    .157298. So far a matrix is not repaired by default."""
    c = np.array([[1.0, 1, 0], [1, 1, 1], [0, 1, 1]])
    with pytest.raises(NumericsError, match=r"changes an entry by 0\.239, more than 0\.05"):
        nearest_correlation(c)
    monkeypatch.setattr(correlation, "TOLERANCE", 1.0)
    found, distance = nearest_correlation(c)
    np.testing.assert_allclose(found[[0, 0, 1], [1, 2, 2]], [0.760690, 0.157298, 0.760690], atol=5e-7)
    assert distance == pytest.approx(1 - 0.760690, abs=5e-7) and sound(found)


def broken(seed: int, n: int, size: float) -> np.ndarray:
    """A correlation matrix of few factors, whose pairs were estimated apart."""
    rng = np.random.default_rng(seed)
    loading = rng.normal(size=(n, 2))
    loading /= np.linalg.norm(loading, axis=1, keepdims=True)
    noise = rng.uniform(-size, size, (n, n))
    c = np.clip(loading @ loading.T + (noise + noise.T) / 2, -1, 1)
    np.fill_diagonal(c, 1.0)
    return c


@settings(max_examples=60)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(3, 12), size=st.floats(1e-6, 0.02))
def test_what_is_repaired_is_a_correlation_matrix(seed, n, size):
    """Sound, near, its distance reported; a second repair changes nothing, nor does a repair of what is sound. A noise
    of .02 never asks for more than the tolerance: at most .025 in 3,000 such matrices."""
    c = broken(seed, n, size)
    found, distance = nearest_correlation(c)
    if np.linalg.eigvalsh(c)[0] >= -ROUNDING:
        assert found is c and distance == 0
        return
    assert sound(found)
    assert 0 < distance <= TOLERANCE
    np.testing.assert_allclose(np.max(np.abs(found - c)), distance, atol=1e-15)
    again, moved = nearest_correlation(found)
    assert again is found and moved == 0


def test_none_is_nearer():
    """Against 2,000 correlation matrices around the one found, in the Frobenius norm."""
    c = broken(5, 5, 0.02)
    found, distance = nearest_correlation(c)
    assert distance > 0
    best, rng = np.linalg.norm(found - c), np.random.default_rng(1)
    for scale in (1e-3, 1e-2):
        for _ in range(1000):
            loading = principal_loading(found) + scale * rng.normal(size=(5, 5))
            loading /= np.linalg.norm(loading, axis=1, keepdims=True)
            assert np.linalg.norm(loading @ loading.T - c) > best - 1e-9


@pytest.mark.parametrize(
    "c", [np.ones((4, 4)), np.outer([1, -1, 1.0], [1, -1, 1]), np.eye(1), np.eye(3), broken(1, 6, 0.0)]
)
def test_singular_matrices_are_untouched(c):
    """Rank one, rank two and the identity: the same object comes back, and its loading reproduces it."""
    found, distance = nearest_correlation(c)
    assert found is c and distance == 0.0
    loading = principal_loading(c)
    np.testing.assert_allclose(loading @ loading.T, c, atol=1e-12)
    size = np.sum(loading**2, axis=0)
    assert np.all(np.diff(size) <= 1e-12)
    rank = np.linalg.matrix_rank(c)
    np.testing.assert_allclose(size[rank:], 0, atol=1e-7)


@pytest.mark.parametrize("size", [0.3, 0.9])
def test_what_is_far_from_any_is_refused(size):
    c = np.array([[1, size, -size], [size, 1, size], [-size, size, 1]])
    if np.linalg.eigvalsh(c)[0] > 0:
        assert nearest_correlation(c)[1] == 0
        return
    with pytest.raises(NumericsError, match="not positive semi-definite.*estimate it again from complete data"):
        principal_loading(c)


def test_a_repair_within_tolerance_is_reported():
    """An eigenvalue of −.02: entries move by .01, and the loading is of the repaired matrix."""
    c = np.full((3, 3), -0.51)
    np.fill_diagonal(c, 1.0)
    found, distance = nearest_correlation(c)
    assert distance == pytest.approx(0.01, abs=1e-9)
    np.testing.assert_allclose(found, np.where(np.eye(3, dtype=bool), 1.0, -0.5), atol=1e-9)
    loading = principal_loading(c)
    np.testing.assert_allclose(loading @ loading.T, found, atol=1e-9)


def test_a_run_says_what_was_repaired():
    """By how much, and nothing where nothing was: .01 for the matrix above, none for the one it becomes."""
    for rho, repaired in ((-0.51, pytest.approx(0.01, abs=1e-9)), (-0.5, None)):
        c = np.where(np.eye(3, dtype=bool), 1.0, rho)
        model = specification({f"{u}:spot": 0.01 for u in "ABC"}, correlation=c)
        said = simulate(model, MARKET, seed=1, n_scenarios=2048).provenance["model"]
        assert said.get("correlation_repaired_by") == repaired
