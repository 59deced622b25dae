"""What one contract of each instrument is worth in every column of a grid, in base currency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy.special import ndtr

from pmvar.errors import NumericsError
from pmvar.instruments import Instruments
from pmvar.market.snapshot import MarketSnapshot
from pmvar.methods.grid_rules import Coin, GridRules
from pmvar.methods.grid_scenarios import GridBlock, Scenario, Skew, VolMove, VolShock, VolUnit
from pmvar.types import DAY, SECONDS_PER_YEAR, Kind, Settlement
from pmvar.valuation.today import Moves, Terms, terms_today, values_under

DAYS_PER_YEAR = SECONDS_PER_YEAR / DAY
TENOR = 30.0
"""Days at which a vol shock has its nominal size."""


@dataclass(frozen=True)
class VenueState:
    """What a venue knows and a market snapshot does not."""

    mark: Mapping[str, float] = field(default_factory=dict)
    """Instrument -> mark of a perpetual in its quote currency; the spot where absent."""
    confidence: Mapping[str, float] = field(default_factory=dict)
    """Underlying -> least confidence of its oracles, in [0, 1]; 1 where absent."""
    stable: float = 1.0
    """Price of the stablecoin that accounts are kept in."""


@dataclass(frozen=True)
class GridValues:
    """Of one underlying's instruments."""

    instruments: Instruments
    today: Float[np.ndarray, " instrument"]
    value: Float[np.ndarray, "instrument scenario"]
    """Futures and perpetuals: their profit. Not weighted."""
    basis: Float[np.ndarray, "instrument move"]
    """Value after the two moves of the basis charge."""
    delta: Float[np.ndarray, " instrument"]
    """Units of the underlying per contract; 0 for spot and balances."""
    time: Float[np.ndarray, " instrument"]
    """Years to expiry, 0 where there is none."""
    rate: Float[np.ndarray, " instrument"]
    """Zero rate in the value of options, at least 0; 0 for inverse ones, whose value holds no discounting."""
    price: float
    """Of one unit of the underlying, base currency."""


def shocked_vol(
    vol: Float[np.ndarray, " option"],
    time: Float[np.ndarray, " option"],
    log_moneyness: Float[np.ndarray, " option"],
    *,
    move: VolMove,
    shock: VolShock,
    skew: Skew | None,
) -> Float[np.ndarray, " option"]:
    """Volatility of options after a vol move; `time` in years, k = ln(K/F) of today."""
    if move is VolMove.FLAT:
        return vol
    if move in (VolMove.UP, VolMove.DOWN):
        size = (shock.up if move is VolMove.UP else -shock.down) * _term_scale(time * DAYS_PER_YEAR, shock)
        moved = np.maximum(vol * (1 + size) if shock.unit is VolUnit.RELATIVE else vol + size, 0.0)
        return np.maximum(moved, shock.least_up) if move is VolMove.UP else moved
    assert skew is not None  # which the class has checked
    root = np.sqrt(time)
    cap = np.maximum(skew.cap_slope * root + skew.cap_level, 0.0)
    width = np.maximum(root * skew.width * (skew.level + skew.slope * root), skew.least_width)
    k = log_moneyness if move is VolMove.LINEAR_SKEW else np.abs(log_moneyness)
    return vol * np.maximum(1 + np.clip(k * cap / width, -cap, cap), 0.0)


def _term_scale(days: Float[np.ndarray, " option"], shock: VolShock) -> Float[np.ndarray, " option"]:
    if shock.term_days:
        return np.interp(days, shock.term_days, shock.term_scale)
    power = np.where(days <= TENOR, shock.short_power, shock.long_power)
    return (TENOR / np.maximum(days, shock.floor_days)) ** power


def grid_values(instruments: Instruments, market: MarketSnapshot, rules: GridRules, state: VenueState) -> GridValues:
    """Values of `instruments`, all of one underlying and valuable, under the grid of their class.

    Raises NumericsError naming the instrument if a value is not finite.
    """
    underlying = str(instruments.underlying[0])
    cls = rules.class_of(underlying)
    terms = _marked(terms_today(instruments, market), instruments, state)
    linked = _linked(instruments, underlying, market) & (rules.coin is Coin.MOVES)
    is_option = instruments.kind == Kind.OPTION
    vol, time = np.asarray(terms.vol), np.where(is_option, np.asarray(terms.time), 0.0)
    k = np.where(is_option, np.log(np.asarray(terms.strike) / np.asarray(terms.forward)), 0.0)

    columns, basis = cls.scenarios(), cls.basis
    edges = (_still(basis.move), _still(-basis.move)) if basis else ()
    every = (_still(0.0), *columns, *edges)
    log_move = np.log1p(np.array([s.move for s in every]))
    moves = Moves(
        # A balance's price is that of its settlement alone.
        log_spot=np.where(instruments.kind == Kind.CASH, 0.0, 1.0)[:, None] * log_move,
        log_settlement=linked.astype(float)[:, None] * log_move,
        vol=np.stack([shocked_vol(vol, time, k, move=s.vol, shock=cls.vol, skew=cls.skew) - vol for s in every], 1),
        rate=0.0,
        clock=np.array([s.days / DAYS_PER_YEAR for s in every]),
    )
    found = values_under(instruments, terms, moves)
    sound = np.isfinite(found).all(axis=1)
    if not sound.all():
        name = instruments.instrument_id[int(np.argmin(sound))]
        raise NumericsError(f"{name} has no finite value in a scenario of {rules.name}; correct its market data")
    today, value = found[:, 0], found[:, 1 : 1 + len(columns)]
    if rules.coin is Coin.HELD:
        # P&L in coin, Q·(1 − 1/(1 + x)), cut to an anchor a: × (1 + x)/(1 + a) and, by its weight, |a/x|.
        inverse = (instruments.settlement == Settlement.INVERSE)[:, None]
        factor = np.array([1.0 if np.isnan(s.anchor) else (1 + s.move) / (1 + s.anchor) for s in columns])
        value = today[:, None] + np.where(inverse, factor, 1.0) * (value - today[:, None])
    discounted = is_option & (instruments.settlement == Settlement.LINEAR)
    return GridValues(
        instruments=instruments,
        today=today,
        value=value,
        basis=found[:, 1 + len(columns) :],
        delta=_delta(instruments, terms),
        time=np.where(np.isfinite(instruments.expiry), (instruments.expiry - market.as_of) / SECONDS_PER_YEAR, 0.0),
        rate=np.where(discounted, np.maximum(np.asarray(terms.rate), 0.0), 0.0),
        price=market.base_price(underlying),
    )


def _still(move: float) -> Scenario:
    """The price moved and nothing else."""
    return GridBlock((move,), (VolMove.FLAT,)).scenarios()[0]


def _marked(terms: Terms, instruments: Instruments, state: VenueState) -> Terms:
    forward = np.array(terms.forward)
    for i in np.flatnonzero(instruments.kind == Kind.PERPETUAL):
        forward[i] = state.mark.get(str(instruments.instrument_id[i]), forward[i])
    return terms._replace(forward=jnp.asarray(forward))


def _linked(instruments: Instruments, underlying: str, market: MarketSnapshot) -> np.ndarray:
    """Whether the price of what an instrument settles in moves with the underlying."""
    links = {c: [market.asset[j] for j in market.chain(c)] for c in set(instruments.settlement_currency.tolist())}
    return np.array([underlying in links[c] for c in instruments.settlement_currency.tolist()])


def _delta(instruments: Instruments, terms: Terms) -> Float[np.ndarray, " instrument"]:
    """Units of the underlying per contract: Black's delta, undiscounted; of inverse futures, their coins."""
    units, forward, strike, sign = (np.asarray(x) for x in (terms.units, terms.forward, terms.strike, terms.sign))
    time = np.maximum(np.asarray(terms.time), 0.0)
    deviation = np.maximum(np.asarray(terms.vol) * np.sqrt(time), 1e-12)
    option = units * sign * ndtr(sign * (np.log(forward / strike) / deviation + deviation / 2))
    future = np.where(instruments.settlement == Settlement.INVERSE, units / forward, units)
    is_future = np.isin(instruments.kind, [Kind.FUTURE, Kind.PERPETUAL])
    return np.where(instruments.kind == Kind.OPTION, option, np.where(is_future, future, 0.0))
