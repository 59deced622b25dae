"""Static arbitrage in a raw surface: found and said, never repaired; a raw surface is what the market quoted."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

from pmvar.market.surface import VolSurface
from pmvar.types import SECONDS_PER_YEAR

TOLERANCE = 2e-5
"""Of the forward: what rounding of a quote to its tick, or of a vol to 1e-4, can cost."""


FAR = 50.0
"""Moneyness below the lowest strike by this is that of a call worth its forward less its strike."""


def arbitrage_notes(underlying: str, surface: VolSurface, *, linear: bool = False) -> tuple[str, ...]:
    """One sentence per expiry and kind of arbitrage that exceeds `TOLERANCE`, with its count and its worst size.

    Butterfly: the undiscounted call is not convex or not between its bounds at the quoted strikes. Calendar: at one
    log-moneyness the later call is cheaper, per forward, than the earlier one (Gatheral and Jacquier 2014, §2). Of a
    shifted price the same with what is added to it, of a Bachelier price (`linear`) per shift.
    """
    value = _bachelier_call if linear else _call
    notes = []
    for i, piece in enumerate(surface.slices):
        root = np.sqrt((piece.expiry - surface.as_of) / SECONDS_PER_YEAR)
        k, call = piece.log_moneyness, value(piece.log_moneyness, piece.implied_vol * root)
        # A strike of 0, where the call is the forward, bounds the first slope by −1; or one far below all others.
        low = np.array([min(k[0], 0.0) - FAR if linear else 0.0])
        moneyness = np.concatenate([low, k if linear else np.exp(k)])
        price = np.concatenate([-low if linear else [1.0], call])
        left, right = np.diff(moneyness[:-1]), np.diff(moneyness[1:])
        chord = (price[:-2] * right + price[2:] * left) / (left + right)
        found = {"butterfly": np.concatenate([price[1:-1] - chord, np.diff(call)])}
        if i:
            before = surface.slices[i - 1]
            earlier = before.vol(k) * np.sqrt((before.expiry - surface.as_of) / SECONDS_PER_YEAR)
            found["calendar"] = value(k, earlier) - call
        day = datetime.fromtimestamp(piece.expiry, UTC).isoformat(timespec="minutes").replace("+00:00", "Z")
        for kind, excess in found.items():
            n = int((excess > TOLERANCE).sum())
            if n:
                size = f"{n} {'strike' if n == 1 else 'strikes'}, up to {excess.max():.1e} of the forward"
                notes.append(f"{underlying} {day}: {kind} arbitrage at {size}")
    return tuple(notes)


def _call(k: Float[np.ndarray, "strike"], deviation: Float[np.ndarray, "strike"]) -> Float[np.ndarray, "strike"]:
    """Undiscounted Black call per unit of forward."""
    d1 = -k / deviation + deviation / 2
    return ndtr(d1) - np.exp(k) * ndtr(d1 - deviation)


def _bachelier_call(
    k: Float[np.ndarray, "strike"], deviation: Float[np.ndarray, "strike"]
) -> Float[np.ndarray, "strike"]:
    """Undiscounted Bachelier call per unit of shift."""
    d = -k / deviation
    return -k * ndtr(d) + deviation * np.exp(-(d**2) / 2) / np.sqrt(2 * np.pi)
