"""Degrees of freedom of many factors: each factor's own estimate, shrunk towards the common value.

Empirical Bayes with a normal prior on κ = 1/ν, in which the likelihood is close to normal and 0 is the normal law:
Efron and Morris (1975), "Data analysis using Stein's estimator and its generalizations", JASA 70.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

LEAST_DOF, MOST_DOF = 2.05, 500.0
"""As in the likelihood: below, variance does not exist; above, t is normal."""
MISSING_DOF = 4.0
"""Where no factor has an estimate."""


@dataclass(frozen=True)
class SharedTails:
    """Degrees of freedom after shrinkage."""

    degrees_of_freedom: Float[np.ndarray, " factor"]
    common: float
    """Towards which they were shrunk."""
    spread: float
    """Standard deviation of 1/ν between factors, beyond what estimation explains; 0: all factors share one tail."""
    intensity: Float[np.ndarray, " factor"]
    """Share of the common value in each; 1 for a factor without an estimate of its own."""


def shrunk_degrees_of_freedom(
    estimate: Float[np.ndarray, " factor"], standard_error: Float[np.ndarray, " factor"]
) -> SharedTails:
    """ν of each factor towards the common one, as far as its standard error is large against the spread of factors.

    With κ = 1/ν and s its standard error (that of ν over ν²): κ̂_i ~ N(κ_i, s_i²), κ_i ~ N(κ₀, τ²). τ² solves
    ∑ (κ̂_i − κ₀)²/(s_i² + τ²) = n − 1 with κ₀ the mean weighted by 1/(s_i² + τ²) (Paule and Mandel 1982, Journal of
    Research of the National Bureau of Standards 87), 0 where the sum is less already; then
    κ_i = (1 − B_i)·κ̂_i + B_i·κ₀, B_i = s_i²/(s_i² + τ²). NaN in either input means no
    estimate of its own; where no factor has one, ν is `MISSING_DOF`.
    """
    kappa, s = 1 / estimate, standard_error / estimate**2
    own = np.isfinite(kappa) & np.isfinite(s) & (s > 0)
    if not own.any():
        return SharedTails(np.full(len(kappa), MISSING_DOF), MISSING_DOF, 0.0, np.ones(len(kappa)))
    centre, tau2 = _moments(kappa[own], s[own] ** 2)
    intensity = np.ones(len(kappa))
    intensity[own] = s[own] ** 2 / (s[own] ** 2 + tau2)
    mixed = (1 - intensity) * np.where(own, kappa, 0.0) + intensity * centre
    mixed = np.clip(mixed, 1 / MOST_DOF, 1 / LEAST_DOF)
    return SharedTails(1 / mixed, 1 / centre, float(np.sqrt(tau2)), intensity)


def _moments(kappa: Float[np.ndarray, " factor"], variance: Float[np.ndarray, " factor"]) -> tuple[float, float]:
    """κ₀ and τ²: the sum falls in τ², so bisection finds where it is n − 1."""

    def centre_and_excess(tau2: float) -> tuple[float, float]:
        weight = 1 / (variance + tau2)
        centre = float(np.average(kappa, weights=weight))
        return centre, float(np.sum(weight * (kappa - centre) ** 2)) - (len(kappa) - 1)

    low, high = 0.0, float(np.ptp(kappa) ** 2)
    if centre_and_excess(0.0)[1] <= 0:
        return centre_and_excess(0.0)[0], 0.0
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if centre_and_excess(middle)[1] > 0 else (low, middle)
    return centre_and_excess(high)[0], high
