"""Risk arrays and composite deltas: what one long unit loses in each of SPAN's scenarios.

ra_i = w_i·cvf·[V(S, σ, t) − V(S + m_i·PSR/cvf, σ(1 + v_i·VSR), t − 1/250)], futures without ageing; composite delta
Σ w_j·Δ(S + p_j·PSR/cvf, σ, t − 1/250). V is spot Black–Scholes, as recomputed from Takasbank's file of 2016-05-17.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pmvar.kernels.black import black
from pmvar.methods.span.parameters import SpanGrid

AGEING = 1 / 250
"""Years by which options age in a scenario."""


@dataclass(frozen=True)
class SpanArrays:
    """Risk arrays of contracts, one entry of each array per contract; amounts in the commodity's currency."""

    commodity: Int[np.ndarray, " contract"]
    month: np.ndarray
    """Strings."""
    kind: Int[np.ndarray, " contract"]
    """+1 call, −1 put, 0 what is no option."""
    loss: Float[np.ndarray, "contract 16"]
    """Of one long contract."""
    delta: Float[np.ndarray, " contract"]
    """Composite delta times the scaling factor: units that spreads count in."""
    value: Float[np.ndarray, " contract"]
    """Net option value of one long contract; 0 of what is no option."""
    count: Float[np.ndarray, " contract"]
    """Options that one contract counts as towards the short option minimum."""

    def take(self, rows: Int[np.ndarray, " some"]) -> SpanArrays:
        """Of the contracts at `rows`."""
        return SpanArrays(*(getattr(self, f.name)[rows] for f in fields(self)))


@dataclass(frozen=True)
class SpanContracts:
    """What prices a contract as SPAN does, one entry of each array per contract."""

    kind: Int[np.ndarray, " contract"]
    """+1 call, −1 put, 0 future or physical."""
    price: Float[np.ndarray, " contract"]
    """Of the underlying (options) or the contract itself, in currency."""
    strike: Float[np.ndarray, " contract"]
    time: Float[np.ndarray, " contract"]
    """Years to expiry."""
    vol: Float[np.ndarray, " contract"]
    rate: Float[np.ndarray, " contract"]
    dividend: Float[np.ndarray, " contract"]
    multiplier: Float[np.ndarray, " contract"]
    """cvf: currency for each unit of price."""
    price_scan: Float[np.ndarray, " contract"]
    """PSR: currency for one contract."""
    vol_scan: Float[np.ndarray, " contract"]
    """VSR: a share of the volatility."""

    def arrays(self, grid: SpanGrid) -> tuple[Float[np.ndarray, "contract 16"], Float[np.ndarray, " contract"]]:
        """Risk arrays and composite deltas. A price that a move takes below zero stops there."""
        is_option = self.kind != 0
        step = (self.price_scan / self.multiplier)[:, None]
        aged = np.where(is_option, np.maximum(self.time - AGEING, 0.0), self.time)[:, None]
        change = np.maximum(grid.price * step, 1e-12 - self.price[:, None])
        vol = np.maximum(self.vol[:, None] * (1 + grid.vol * self.vol_scan[:, None]), 0.0)
        now = self._value(self.price[:, None], self.vol[:, None], self.time[:, None])
        then = self._value(self.price[:, None] + change, vol, aged)
        # Futures by the move itself: what two months lose must cancel to nothing.
        loss = -grid.weight * self.multiplier[:, None] * np.where(is_option[:, None], then - now, change)
        at = np.maximum(self.price[:, None] + grid.delta_price * step, 1e-12)
        delta = self._delta(at, self.vol[:, None], aged) @ grid.delta_weight
        return loss, np.where(is_option, delta, 1.0)

    def _value(self, price: np.ndarray, vol: np.ndarray, time: np.ndarray) -> np.ndarray:
        return np.asarray(_spot_value(*self._terms(price, vol, time)))

    def _delta(self, price: np.ndarray, vol: np.ndarray, time: np.ndarray) -> np.ndarray:
        return np.asarray(_spot_delta(*self._terms(price, vol, time)))

    def _terms(self, price: np.ndarray, vol: np.ndarray, time: np.ndarray) -> list[Array]:
        shape = np.broadcast_shapes(price.shape, vol.shape, time.shape)
        sign = np.where(self.kind < 0, -1.0, 1.0)[:, None]
        strike = np.where(self.kind != 0, self.strike, 1.0)[:, None]
        columns = (price, strike, vol, time, self.rate[:, None], self.dividend[:, None], sign)
        return [jnp.asarray(np.broadcast_to(c, shape), jnp.float64) for c in columns]


@jax.jit
def _spot_value(
    price: Array, strike: Array, vol: Array, time: Array, rate: Array, dividend: Array, sign: Array
) -> Float[Array, "contract point"]:
    """Black and Scholes (1973) on the spot, with a dividend yield."""
    forward = price * jnp.exp((rate - dividend) * time)
    return jnp.exp(-rate * time) * black(forward, strike, vol * jnp.sqrt(time), sign)


@jax.jit
def _spot_delta(
    price: Array, strike: Array, vol: Array, time: Array, rate: Array, dividend: Array, sign: Array
) -> Float[Array, "contract point"]:
    return jax.grad(lambda p: _spot_value(p, strike, vol, time, rate, dividend, sign).sum())(price)
