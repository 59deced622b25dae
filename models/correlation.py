"""Correlation matrices: the nearest one to what estimation or rounding broke, and its principal components."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

from pmvar.errors import NumericsError

TOLERANCE = 0.05
"""Largest change of one correlation that repair may make."""

ROUNDING = 1e-8
"""Eigenvalues down to minus this count as rounding of a singular matrix and are not called a repair."""


def nearest_correlation(c: Float[np.ndarray, "factor factor"]) -> tuple[Float[np.ndarray, "factor factor"], float]:
    """The nearest correlation matrix in the Frobenius norm, and the largest change of an entry (0: it was one already).

    Alternating projections with Dykstra's correction; Higham (2002), "Computing the nearest correlation matrix", IMA
    Journal of Numerical Analysis 22, algorithm 3.3. Raises NumericsError if an entry would move by more than
    `TOLERANCE`: such a matrix says something else than it should, and its repair would too.
    """
    if np.linalg.eigvalsh(c)[0] >= -ROUNDING:
        return c, 0.0
    y, correction = c.copy(), np.zeros_like(c)
    for _ in range(10_000):
        r = y - correction
        value, vector = np.linalg.eigh(r)
        x = (vector * np.maximum(value, 0.0)) @ vector.T
        correction = x - r
        previous, y = y, x.copy()
        np.fill_diagonal(y, 1.0)
        if np.max(np.abs(y - previous)) <= 1e-12:
            break
    # The last projection was on the unit diagonal: what it left below zero is clipped and scaled back.
    loading = _loading(y, np.ones(len(y)))
    y = loading @ loading.T
    distance = float(np.max(np.abs(y - c)))
    if not distance <= TOLERANCE:
        raise NumericsError(
            f"model.json: the correlation matrix is not positive semi-definite (smallest eigenvalue "
            f"{np.linalg.eigvalsh(c)[0]:.3g}) and the nearest correlation matrix changes an entry by {distance:.3g}, "
            f"more than {TOLERANCE}; estimate it again from complete data"
        )
    return y, distance


def principal_loading(
    c: Float[np.ndarray, "factor factor"], importance: Float[np.ndarray, " factor"] | None = None
) -> Float[np.ndarray, "factor component"]:
    """L with LLᵀ the nearest correlation matrix to `c`: principal components of the factors scaled by `importance`,
    largest first, each with its largest entry positive.

    Which L does not change the law, but the first coordinates of low-discrepancy points are the best ones, and should
    go to what moves most money. Works for singular matrices; raises NumericsError as `nearest_correlation`.
    """
    return _loading(nearest_correlation(c)[0], np.ones(len(c)) if importance is None else importance)


def _loading(c: np.ndarray, scale: np.ndarray) -> np.ndarray:
    value, vector = np.linalg.eigh(scale[:, None] * c * scale)
    # An eigenvalue that is rounding of 0 would be a component of 1e-8 after the root.
    value = np.where(value > len(c) * np.finfo(float).eps * value[-1], value, 0.0)
    value, vector = value[::-1], vector[:, ::-1]
    largest = vector[np.argmax(np.abs(vector), axis=0), np.arange(len(value))]
    loading = vector * np.where(largest < 0, -1.0, 1.0) * np.sqrt(value) / scale[:, None]
    # Clipping a rounding error must not leave a variance that differs from 1.
    return loading / np.sqrt(np.sum(loading**2, axis=1, keepdims=True))
