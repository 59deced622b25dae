"""The scale on which a price moves: by ratios, by ratios of what lies above a floor, or by differences."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pmvar.errors import InputError, Problem
from pmvar.types import PriceModel


@dataclass(frozen=True)
class PriceScale:
    """How a factor's x moves a price, and what x lies between two prices.

    | model | price after x | x from P to Q | prices |
    |---|---|---|---|
    | lognormal | P·eˣ | ln(Q/P) | above 0 |
    | shifted | (P + s)·eˣ − s | ln((Q + s)/(P + s)) | above −s |
    | bachelier | P + s·x | (Q − P)/s | all |

    Sources: Rubinstein (1983), "Displaced diffusion option pricing", J. Finance 38; Bachelier (1900).
    """

    model: PriceModel = PriceModel.LOGNORMAL
    shift: float = 0.0
    """s, in the price's own unit: 0 of a lognormal price, else positive."""

    def __post_init__(self) -> None:
        if not (self.shift == 0 if self.model is PriceModel.LOGNORMAL else 0 < self.shift < np.inf):
            rule = "a shifted or Bachelier price has a finite shift above 0, a lognormal one has none"
            raise InputError(Problem(rule, "correct shift", file="market/spots", column="shift", value=str(self.shift)))

    @property
    def is_linear(self) -> bool:
        """Whether x moves the price by differences."""
        return self.model is PriceModel.BACHELIER

    def admits(self, price: float | np.ndarray) -> np.ndarray:
        """Whether a price can be one of this scale."""
        sound = np.isfinite(price)
        return np.asarray(sound if self.is_linear else sound & (np.asarray(price) + self.shift > 0))

    def unit(self, price: float | np.ndarray) -> np.ndarray:
        """Derivative of the price by x: the price itself, price + shift, or shift; positive."""
        return np.full(np.shape(price), self.shift) if self.is_linear else np.asarray(price + self.shift)

    def move(self, start: float | np.ndarray, end: float | np.ndarray) -> np.ndarray:
        """x from one price to another."""
        if self.is_linear:
            return np.asarray((end - np.asarray(start, float)) / self.shift)
        return np.asarray(np.log((end + self.shift) / (start + self.shift)))

    def moved(self, price: float | np.ndarray, x: float | np.ndarray) -> np.ndarray:
        """The price after x."""
        if self.is_linear:
            return np.asarray(price + self.shift * np.asarray(x, float))
        return np.asarray((price + self.shift) * np.exp(x) - self.shift)

    def of_share(self, share: float | np.ndarray) -> np.ndarray:
        """x of a move by a share of `unit`: what stress lists and venues' grids state."""
        return np.asarray(share if self.is_linear else np.log1p(share), float)


LOGNORMAL = PriceScale()
"""Of every price that nothing else is said of."""
