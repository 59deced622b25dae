"""Rough values of instruments under a few joint moves: what generated accounts are sized and hedged by.

Not the engine's: moves are instantaneous, volatilities stay with their strike, all underlyings move together.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from pmvar.instruments import Instruments
from pmvar.kernels.black import normalised_black
from pmvar.market.snapshot import MarketSnapshot
from pmvar.types import SECONDS_PER_YEAR, Kind, Settlement

HORIZON = 2 / 365
"""Years over which an underlying's 30-day volatility gives its move."""
MOVES: tuple[tuple[float, float], ...] = (
    (-3.7, 1.35), (-2.5, 1.2), (-1.2, 1.1), (0.0, 1.25), (0.0, 0.85), (1.2, 0.95), (2.5, 1.0), (3.7, 1.15),
)  # fmt: skip
"""(move of every underlying in standard deviations, ratio of every vol). 3.7: 99% ES of a t of 4 degrees."""


@dataclass(frozen=True)
class Values:
    """Per contract, in base currency."""

    alive: Bool[np.ndarray, "instrument"]
    """Expiring after the snapshot, with what it takes to price it."""
    log_moneyness: Float[np.ndarray, "instrument"]
    """ln(K/F) of options, 0 elsewhere."""
    year: Float[np.ndarray, "instrument"]
    """Time to expiry; 0 where there is none."""
    sign: Float[np.ndarray, "instrument"]
    """−1 for puts, 1 for everything else."""
    unit: Mapping[str, float]
    """Price of one unit of each underlying."""
    lot: Float[np.ndarray, "instrument"]
    """Smallest quantity traded: a tenth of an option of one coin or less, else one."""
    notional: Float[np.ndarray, "instrument"]
    now: Float[np.ndarray, "instrument"]
    """Value of what is carried at value; 0 for futures and perpetuals."""
    delta: Float[np.ndarray, "instrument"]
    """P&L of a relative move of the underlying, per 1.00."""
    moved: Float[np.ndarray, "instrument move"]
    """P&L under `MOVES`."""


def values(instruments: Instruments, market: MarketSnapshot) -> Values:
    """Rough values of `instruments`, kinds spot and cash apart, in `market`."""
    n = len(instruments)
    is_option = instruments.kind == Kind.OPTION
    traded = is_option | (instruments.kind == Kind.FUTURE) | (instruments.kind == Kind.PERPETUAL)
    alive = traded & (instruments.expiry > market.as_of)
    forward, vol, price, discount, deviation = (np.full(n, x) for x in (1.0, 0.1, 1.0, 1.0, 0.0))
    dated = np.isfinite(instruments.expiry)
    year = np.zeros(n)
    year[alive & dated] = (instruments.expiry[alive & dated] - market.as_of) / SECONDS_PER_YEAR
    for name in sorted(set(instruments.underlying[alive].tolist())):
        mine = alive & (instruments.underlying == name)
        alive[mine & is_option] &= name in market.vols
        forward[mine] = market.spot[market.column(name)]
        if name in market.forwards:
            forward[mine & dated] = market.forwards[name].at(instruments.expiry[mine & dated])
        if name in market.vols:
            month = market.vols[name].vol(np.zeros(1), market.as_of + SECONDS_PER_YEAR * 30 / 365)
            deviation[mine] = float(month[0]) * np.sqrt(HORIZON)
            for expiry in np.unique(instruments.expiry[mine & is_option]):
                at = mine & is_option & (instruments.expiry == expiry)
                vol[at] = market.vols[name].vol(np.log(instruments.strike[at] / forward[at]), float(expiry))
    for currency in sorted(set(instruments.settlement_currency[alive].tolist())):
        mine = alive & (instruments.settlement_currency == currency)
        price[mine] = market.base_price(currency)
        if currency in market.discounts:
            curve = market.discounts[currency]
            discount[mine & dated] = curve.discount_factor(instruments.expiry[mine & dated])
    log_moneyness = np.where(is_option, np.log(np.where(is_option, instruments.strike, 1.0) / forward), 0.0)
    inverse = instruments.settlement == Settlement.INVERSE
    sign = np.where(instruments.put_call == "put", -1.0, 1.0)
    size = instruments.contract_size

    def value(spot_ratio: np.ndarray, vol_ratio: float) -> np.ndarray:
        """Value per contract, of futures the P&L, after the underlying moved by `spot_ratio`."""
        per_forward = np.asarray(
            normalised_black(
                jnp.asarray(log_moneyness - np.log(spot_ratio)),
                jnp.asarray(vol * vol_ratio * np.sqrt(year)),
                jnp.asarray(sign),
            )
        )
        coin = price * spot_ratio
        option = np.where(inverse, per_forward * coin, discount * forward * spot_ratio * per_forward * price)
        linear = np.where(inverse, (1 - 1 / spot_ratio) / forward * coin, forward * (spot_ratio - 1) * price)
        return np.where(alive, size * np.where(is_option, option, linear), 0.0)

    one = np.ones(n)
    now = value(one, 1.0)
    moved = np.stack([value(np.exp(z * deviation), ratio) - now for z, ratio in MOVES], axis=1)
    per_unit = np.where(inverse, np.where(is_option, price, price / forward), forward * price)
    return Values(
        alive,
        log_moneyness,
        year,
        sign,
        {str(name): market.base_price(str(name)) for name in set(instruments.underlying[alive].tolist())},
        lot=np.where(is_option & (size <= 1), 0.1, 1.0),
        notional=np.where(alive, size * per_unit, 0.0),
        now=np.where(is_option, now, 0.0),
        delta=(value(1.005 * one, 1.0) - value(0.995 * one, 1.0)) / 0.01,
        moved=moved,
    )
