"""Forward and discount curves: a few pillars and one documented rule between and beyond them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float

from pmvar.errors import InputError, Problem
from pmvar.market.price_scale import LOGNORMAL, PriceScale
from pmvar.types import SECONDS_PER_YEAR


def _check_pillars(name: str, time: np.ndarray, value: np.ndarray) -> None:
    """Raise InputError unless the pillars are one-dimensional, finite, non-empty and strictly increasing."""
    sound = time.ndim == 1 and time.shape == value.shape and time.size > 0
    if not (sound and np.all(np.isfinite(time)) and np.all(np.isfinite(value)) and np.all(np.diff(time) > 0)):
        raise InputError(
            Problem(
                f"the pillars of {name} must be finite and strictly increasing in time",
                "remove duplicate or blank pillars",
                value=str(time.tolist()[:5]),
            )
        )


@dataclass(frozen=True)
class ForwardCurve:
    """Forwards of one underlying by expiry.

    ln(F/S) is linear in time from 0 at `as_of` through the pillars; beyond the last its rate stays that of the last.
    On another `scale` than the lognormal the same holds of its x from S to F.
    """

    as_of: float
    """Epoch seconds."""
    spot: float
    expiry: Float[np.ndarray, "pillar"]
    """Epoch seconds, strictly increasing, after `as_of`."""
    forward: Float[np.ndarray, "pillar"]
    """In the underlying's quote currency; positive, unless `scale` admits others."""
    scale: PriceScale = LOGNORMAL

    def __post_init__(self) -> None:
        _check_pillars("a forward curve", self.expiry, self.forward)
        sound = self.scale.admits(self.spot) and np.all(self.scale.admits(self.forward))
        if not (sound and self.expiry[0] > self.as_of):
            raise InputError(
                Problem(
                    "a forward curve needs a positive spot, positive forwards and expiries after as_of",
                    "correct market/forwards; prices at or below zero need price_model bachelier or shifted",
                    file="market/forwards",
                )
            )

    def at(self, time: float | np.ndarray) -> np.ndarray:
        """Forward for delivery at `time` (epoch seconds), in the quote currency; the spot at or before `as_of`."""
        year, carry = self._carries
        t = np.maximum((np.asarray(time, float) - self.as_of) / SECONDS_PER_YEAR, 0.0)
        inside = np.interp(t, year, carry)
        return self.scale.moved(self.spot, np.where(t > year[-1], carry[-1] * t / year[-1], inside))

    @cached_property
    def _carries(self) -> tuple[Float[np.ndarray, "pillar_and_spot"], Float[np.ndarray, "pillar_and_spot"]]:
        """Years to the pillars, and x from the spot to their forwards."""
        year = np.concatenate([[0.0], (self.expiry - self.as_of) / SECONDS_PER_YEAR])
        return year, np.concatenate([[0.0], self.scale.move(self.spot, self.forward)])

    def carry(self, time: float | np.ndarray) -> np.ndarray:
        """x from the spot to the forward for `time`: ln(F/S) of a lognormal price."""
        return self.scale.move(self.spot, self.at(time))

    def moneyness(self, strike: float | np.ndarray, time: float | np.ndarray) -> np.ndarray:
        """x from the forward for `time` to a strike: ln(K/F) of a lognormal price."""
        return self.scale.move(self.at(time), strike)


@dataclass(frozen=True)
class DiscountCurve:
    """Continuously compounded zero rates of one currency, act/365; linear between pillars, flat beyond."""

    as_of: float
    maturity: Float[np.ndarray, "pillar"]
    """Epoch seconds, strictly increasing."""
    zero_rate: Float[np.ndarray, "pillar"]

    def __post_init__(self) -> None:
        _check_pillars("a discount curve", self.maturity, self.zero_rate)

    def discount_factor(self, time: float | np.ndarray) -> np.ndarray:
        """Price today of one unit paid at `time` (epoch seconds); 1 at or before `as_of`."""
        t = np.maximum((np.asarray(time, float) - self.as_of) / SECONDS_PER_YEAR, 0.0)
        return np.asarray(np.exp(-np.interp(np.asarray(time, float), self.maturity, self.zero_rate) * t))
