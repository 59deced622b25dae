"""PosteriorDraws: what is uncertain about a model's volatility filters and tails, as draws; checked, and thinned."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pmvar.errors import InputError, Problem

MOST_DRAWS = 64
"""A path takes the parameters of one of so many draws."""


@dataclass(frozen=True)
class PosteriorDraws:
    """Draws of the parameters of some factors, per model step; the posteriors of factors are independent."""

    factors: tuple[str, ...]
    omega: Float[np.ndarray, "draw factor"]
    alpha: Float[np.ndarray, "draw factor"]
    gamma: Float[np.ndarray, "draw factor"]
    beta: Float[np.ndarray, "draw factor"]
    variance: Float[np.ndarray, "draw factor"]
    """Of the first step."""
    degrees_of_freedom: Float[np.ndarray, "draw factor"]

    def __post_init__(self) -> None:
        least = np.minimum.reduce([self.omega, self.alpha, self.alpha + self.gamma, self.beta])
        persistence = self.alpha + self.gamma / 2 + self.beta
        rules = {
            "omega, alpha, alpha + gamma and beta ≥ 0": least >= 0,
            "alpha + gamma/2 + beta ≤ 1": persistence <= 1 + 1e-9,
            "variance > 0": self.variance > 0,
            "degrees_of_freedom > 2": self.degrees_of_freedom > 2,
            "finite numbers": np.isfinite(least + persistence + self.variance + self.degrees_of_freedom),
        }
        if not self.factors or len(set(self.factors)) != len(self.factors) or not len(self.omega):
            raise _refused("a posterior has draws, and each of its factors once", ", ".join(self.factors))
        for rule, held in rules.items():
            # NaN holds no rule.
            if not np.all(held):
                draw, factor = np.argwhere(~held)[0]
                raise _refused(f"a draw needs {rule}", f"draw {draw + 1} of {self.factors[factor]}")

    def thinned(self, count: int = MOST_DRAWS) -> PosteriorDraws:
        """At most `count` of the draws, which stand for all of them.

        Of each factor, the middle ones of as many equal classes by variance, so that the law of today's volatility is
        kept; in an order of the factor's own, so that factors stay independent; then, all factors together, from the
        most volatile draw to the quietest, so that Sobol' points stratify over them.
        """
        n = len(self.omega)
        if n <= count:
            return self
        middle = ((np.arange(count) + 0.5) * n / count).astype(int)
        rows = np.empty((count, len(self.factors)), dtype=int)
        for i, name in enumerate(self.factors):
            kept = np.argsort(self.variance[:, i], kind="stable")[middle]
            rows[:, i] = np.random.default_rng(list(name.encode())).permutation(kept)
        level = np.log(np.take_along_axis(self.variance, rows, axis=0)).sum(axis=1)
        rows = rows[np.argsort(-level, kind="stable")]
        return PosteriorDraws(self.factors, *(np.take_along_axis(part, rows, axis=0) for part in self._parts))

    @property
    def _parts(self) -> tuple[Float[np.ndarray, "draw factor"], ...]:
        return self.omega, self.alpha, self.gamma, self.beta, self.variance, self.degrees_of_freedom


def _refused(rule: str, value: str) -> InputError:
    return InputError(Problem(rule, "calibrate again", file="posterior", value=value[:100]))
