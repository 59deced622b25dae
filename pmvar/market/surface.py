"""The implied-volatility surface, raw or fitted: total variance interpolated, never extrapolated in silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Float

from pmvar.errors import InputError, Problem
from pmvar.kernels.svi import LEAST_VARIANCE, Svi
from pmvar.types import SECONDS_PER_YEAR, Stickiness


class Quoted(StrEnum):
    """How much the market says about one strike of one expiry."""

    QUOTED = ""
    INTERPOLATED = "interpolated"
    EXTRAPOLATED = "extrapolated"


@dataclass(frozen=True)
class VolSlice:
    """Quoted volatilities of one expiry by log-moneyness k = ln(K/F), strictly increasing."""

    expiry: float
    log_moneyness: Float[np.ndarray, "strike"]
    implied_vol: Float[np.ndarray, "strike"]

    def __post_init__(self) -> None:
        k, vol = self.log_moneyness, self.implied_vol
        sound = k.ndim == 1 and k.shape == vol.shape and k.size > 0
        sound = sound and np.all(np.isfinite(k)) and np.all(np.diff(k) > 0)
        if not (sound and np.all((vol > 0) & (vol < np.inf))):
            raise InputError(
                Problem(
                    "a vol slice needs strictly increasing log-moneyness and positive, finite vols",
                    "remove duplicate strikes and zero vols from market/vols",
                    file="market/vols",
                )
            )

    def vol(self, k: np.ndarray) -> np.ndarray:
        """Volatility at log-moneyness `k`: variance linear in k between quotes, flat beyond the outermost."""
        return np.sqrt(np.interp(k, self.log_moneyness, self.implied_vol**2))


@dataclass(frozen=True)
class SviSlice:
    """A fitted smile of one expiry; `log_moneyness` is where it was quoted."""

    expiry: float
    svi: Svi
    """Of total variance over `time`; floats."""
    time: float
    """Years to expiry that the smile was fitted for."""
    log_moneyness: Float[np.ndarray, "strike"]

    @property
    def implied_vol(self) -> Float[np.ndarray, "strike"]:
        """Of the smile, where it was quoted."""
        return self.vol(self.log_moneyness)

    def vol(self, k: np.ndarray) -> np.ndarray:
        """Volatility at log-moneyness `k`, quoted or not."""
        return np.sqrt(np.asarray(_total_variance(self.svi, np.asarray(k, float))) / self.time)


@dataclass(frozen=True)
class VolSurface:
    """Slices of one underlying, by expiry, raw or all fitted.

    Between expiries total variance is linear in time at equal log-moneyness; before the first and beyond the last
    expiry the volatility of that slice is kept.
    """

    as_of: float
    slices: tuple[VolSlice, ...] | tuple[SviSlice, ...]
    stickiness: Stickiness = Stickiness.MONEYNESS
    """Of raw surfaces; a fitted smile that stayed with its strikes would not stay free of arbitrage."""

    def __post_init__(self) -> None:
        expiries = [s.expiry for s in self.slices]
        if not expiries or np.any(np.diff([self.as_of, *expiries]) <= 0):
            rule = "a vol surface needs increasing expiries after as_of"
            raise InputError(Problem(rule, "correct market/vols", file="market/vols"))
        if self.is_fitted and self.stickiness is Stickiness.STRIKE:
            rule = "a fitted smile that stayed with its strikes would not stay free of arbitrage"
            fix = 'set surface = "raw", or stickiness = "moneyness"'
            raise InputError(Problem(rule, fix, file="book.toml", column="run.stickiness", value="strike"))

    @property
    def is_fitted(self) -> bool:
        """Whether its slices are fitted smiles."""
        return isinstance(self.slices[0], SviSlice)

    def vol(self, k: np.ndarray, expiry: float) -> np.ndarray:
        """Implied volatility at log-moneyness `k` (any shape) for one `expiry` (epoch seconds)."""
        k = np.asarray(k, float)
        expiries = np.array([s.expiry for s in self.slices])
        right = int(np.searchsorted(expiries, expiry))
        if right == len(expiries):
            return self.slices[-1].vol(k)
        if right == 0 or expiries[right] == expiry:
            return self.slices[right].vol(k)
        near, far = self.slices[right - 1], self.slices[right]
        t0, t1, t = ((x - self.as_of) / SECONDS_PER_YEAR for x in (near.expiry, far.expiry, expiry))
        share = (t - t0) / (t1 - t0)
        return np.sqrt(((1 - share) * near.vol(k) ** 2 * t0 + share * far.vol(k) ** 2 * t1) / t)

    def quoted(self, k: Sequence[float] | np.ndarray, expiry: float) -> list[Quoted]:
        """For each log-moneyness in `k`: whether that point is quoted, lies between quotes, or beyond them."""
        nearest = min(self.slices, key=lambda s: abs(s.expiry - expiry))
        grid, same = nearest.log_moneyness, nearest.expiry == expiry
        beyond = not self.slices[0].expiry <= expiry <= self.slices[-1].expiry

        def judge(point: float) -> Quoted:
            if beyond:
                return Quoted.EXTRAPOLATED
            if same and np.any(np.abs(grid - point) <= 1e-9):
                return Quoted.QUOTED
            return Quoted.INTERPOLATED if grid[0] <= point <= grid[-1] else Quoted.EXTRAPOLATED

        return [judge(float(point)) for point in k]


def _total_variance(p: Svi, k: np.ndarray) -> np.ndarray:
    """`pmvar.kernels.svi.total_variance` on the host, where an array of every shape would be compiled."""
    x = k - p.m
    return np.maximum(p.a + p.b * (p.rho * x + np.sqrt(x * x + p.s * p.s)), LEAST_VARIANCE)
