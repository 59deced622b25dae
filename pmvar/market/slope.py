"""The slope of a smile, as digital options need it."""

from __future__ import annotations

import numpy as np

from pmvar.market.surface import VolSurface

WIDTH = 0.005
"""Half of the distance in ln K that a slope is taken over: wide enough that a digital does not jump where the slope of
a raw smile does, at every quote, and for a smooth one exact to 4e-6 of its third derivative."""


def smile_slope(surface: VolSurface, k: np.ndarray, expiry: float) -> np.ndarray:
    """∂σ/∂k of `surface` at log-moneyness `k` (any shape) for one `expiry`, continuous in k."""
    return (surface.vol(k + WIDTH, expiry) - surface.vol(k - WIDTH, expiry)) / (2 * WIDTH)
