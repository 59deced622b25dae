"""What one contract of each instrument is worth in every column of a grid, in base currency."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float
from scipy.special import ndtr

from pmvar.errors import NumericsError
from pmvar.instruments import Instruments
from pmvar.market.snapshot import MarketSnapshot
from pmvar.methods.grid_rules import Coin, GridRules
from pmvar.methods.grid_scenarios import GridBlock, Scenario, Skew, VolMove, VolShock, VolUnit
from pmvar.types import DAY, OPTION_KINDS, SECONDS_PER_YEAR, Exercise, Kind, Settlement
from pmvar.valuation.today import STILL, Moves, Terms, moneyness, slopes_under, terms_today, values_under

DAYS_PER_YEAR = SECONDS_PER_YEAR / DAY
BUMP = 1e-4
"""Of ln S and σ, in the slopes of the deltas of options that have no formula for them."""
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
    """Of one unit of the underlying, base currency; of a price that may be zero or less the size of its moves."""


def shocked_vol(
    vol: Float[Array, " option"],
    log_moneyness: Float[Array, " option"],
    time: Float[Array, " option"],
    *,
    move: VolMove,
    shock: VolShock,
    skew: Skew | None,
) -> Float[Array, " option"]:
    """Volatility of options after a vol move; `time` in years, k = ln(K/F) of today."""
    if move is VolMove.FLAT:
        return vol
    if move in (VolMove.UP, VolMove.DOWN):
        size = (shock.up if move is VolMove.UP else -shock.down) * _term_scale(time * DAYS_PER_YEAR, shock)
        moved = jnp.maximum(vol * (1 + size) if shock.unit is VolUnit.RELATIVE else vol + size, 0.0)
        return jnp.maximum(moved, shock.least_up) if move is VolMove.UP else moved
    assert skew is not None  # which the class has checked
    root = jnp.sqrt(time)
    cap = jnp.maximum(skew.cap_slope * root + skew.cap_level, 0.0)
    width = jnp.maximum(root * skew.width * (skew.level + skew.slope * root), skew.least_width)
    k = log_moneyness if move is VolMove.LINEAR_SKEW else jnp.abs(log_moneyness)
    return vol * jnp.maximum(1 + jnp.clip(k * cap / width, -cap, cap), 0.0)


def _term_scale(days: Float[Array, " option"], shock: VolShock) -> Float[Array, " option"]:
    if shock.term_days:
        return jnp.interp(days, jnp.array(shock.term_days), jnp.array(shock.term_scale))
    power = jnp.where(days <= TENOR, shock.short_power, shock.long_power)
    return (TENOR / jnp.maximum(days, shock.floor_days)) ** power


class _Setting(NamedTuple):
    """What `values_under` needs: today in the first column, the grid, then the two moves of the basis charge."""

    terms: Terms
    moves: Moves
    columns: tuple[Scenario, ...]
    linked: Bool[np.ndarray, " instrument"]
    """Whether the price of what an instrument settles in is, or hangs on, that of the underlying."""
    vol_by_vol: Float[np.ndarray, "instrument column"]
    """Slope of the shocked volatility by today's, less 1."""
    vol_by_log_spot: Float[np.ndarray, "instrument column"]
    """By the log price, the strike held."""


def _setting(instruments: Instruments, market: MarketSnapshot, rules: GridRules, state: VenueState) -> _Setting:
    underlying = str(instruments.underlying[0])
    cls = rules.class_of(underlying)
    terms = _marked(terms_today(instruments, market), instruments, state)
    linked = _linked(instruments, underlying, market)
    is_option = jnp.asarray(np.isin(instruments.kind, OPTION_KINDS))
    time = jnp.where(is_option, terms.time, 0.0)
    scale = market.scale(underlying)
    k = jnp.where(is_option, moneyness(terms, scale.is_linear), 0.0)
    edges = (_still(cls.basis.move), _still(-cls.basis.move)) if cls.basis else ()
    columns = (_still(0.0), *cls.scenarios(), *edges)

    def shift(move: VolMove) -> tuple[np.ndarray, ...]:
        def shocked(vol: Array, k: Array) -> Array:
            return shocked_vol(vol, k, time, move=move, shock=cls.vol, skew=cls.skew)

        zero, one = jnp.zeros_like(k), jnp.ones_like(k)
        moved, by_vol = jax.jvp(shocked, (terms.vol, k), (one, zero))
        _, by_k = jax.jvp(shocked, (terms.vol, k), (zero, one))
        return tuple(np.asarray(x) for x in (moved - terms.vol, by_vol - 1.0, -by_k))

    shifts = {move: shift(move) for move in {s.vol for s in columns}}
    vol, by_vol, by_log_spot = (np.stack([shifts[s.vol][i] for s in columns], axis=1) for i in range(3))
    log_move = scale.of_share(np.array([s.move for s in columns]))
    moves = Moves(
        log_spot=_has_spot(instruments) * log_move,
        log_settlement=(linked & (rules.coin is Coin.MOVES)).astype(float)[:, None] * log_move,
        vol=vol,
        rate=0.0,
        clock=np.array([s.days / DAYS_PER_YEAR for s in columns]),
    )
    return _Setting(terms, moves, columns, linked, by_vol, by_log_spot)


def grid_values(instruments: Instruments, market: MarketSnapshot, rules: GridRules, state: VenueState) -> GridValues:
    """Values of `instruments`, all of one underlying and valuable, under the grid of their class.

    Raises NumericsError naming the instrument if a value is not finite.
    """
    at = _setting(instruments, market, rules, state)
    found = values_under(instruments, at.terms, at.moves)
    sound = np.isfinite(found).all(axis=1)
    if not sound.all():
        name = instruments.instrument_id[int(np.argmin(sound))]
        raise NumericsError(f"{name} has no finite value in a scenario of {rules.name}; correct its market data")
    underlying = str(instruments.underlying[0])
    n = len(rules.class_of(underlying).scenarios())
    discounted = np.isin(instruments.kind, OPTION_KINDS) & (instruments.settlement != Settlement.INVERSE)
    return GridValues(
        instruments=instruments,
        today=found[:, 0],
        value=_in_coin(found, at, instruments, rules)[:, 1 : 1 + n],
        basis=found[:, 1 + n :],
        delta=_delta(instruments, at.terms, bachelier=market.scale(underlying).is_linear),
        time=np.where(np.isfinite(instruments.expiry), (instruments.expiry - market.as_of) / SECONDS_PER_YEAR, 0.0),
        rate=np.where(discounted, np.maximum(np.asarray(at.terms.rate), 0.0), 0.0),
        price=market.base_unit(underlying),
    )


def grid_slopes(
    values: GridValues, market: MarketSnapshot, rules: GridRules, state: VenueState
) -> tuple[GridValues, GridValues]:
    """Derivatives of `values`, put where the values are: by the log price of the underlying, strikes' volatilities
    held, and by a parallel shift of volatility (per 1.00). Values by automatic differentiation, deltas in closed form.
    """
    instruments = values.instruments
    at = _setting(instruments, market, rules, state)
    n = values.value.shape[1]
    spot = Moves(_has_spot(instruments), at.linked.astype(float)[:, None], at.vol_by_log_spot, 0.0, 0.0)
    slopes = []
    for along in (spot, Moves(0.0, 0.0, 1 + at.vol_by_vol, 0.0, 0.0)):
        found = slopes_under(instruments, at.terms, at.moves, along=along)
        moved = _in_coin(found, at, instruments, rules)
        slopes.append(replace(values, today=found[:, 0], value=moved[:, 1 : 1 + n], basis=found[:, 1 + n :]))
    bachelier = market.scale(str(instruments.underlying[0])).is_linear
    delta_by_spot, delta_by_vol = _delta_slopes(instruments, at.terms, bachelier=bachelier)
    by_spot, by_vol = slopes[0], replace(slopes[1], delta=delta_by_vol, price=0.0)
    # Futures start anew at every price: their profit goes with X·F, inverse with X/F, a Bachelier price's with X alone.
    is_future = np.isin(instruments.kind, [Kind.FUTURE, Kind.PERPETUAL])
    power = np.where(instruments.settlement != Settlement.INVERSE, 1.0 - bachelier, -1.0) + at.linked
    by_spot = replace(
        by_spot,
        delta=delta_by_spot,
        price=by_spot.price * (not bachelier),
        today=np.where(is_future, 0.0, by_spot.today),
        value=np.where(is_future[:, None], power[:, None] * values.value, by_spot.value),
    )
    return by_spot, by_vol


def _has_spot(instruments: Instruments) -> Float[np.ndarray, "instrument 1"]:
    """0 for balances, whose price is that of their settlement alone."""
    return np.where(instruments.kind == Kind.CASH, 0.0, 1.0)[:, None]


def _in_coin(
    found: Float[np.ndarray, "instrument column"], at: _Setting, instruments: Instruments, rules: GridRules
) -> Float[np.ndarray, "instrument column"]:
    """Where coins are held: P&L of an inverse contract, Q·(1 − 1/(1 + x)), converted at an anchor a of its move x.

    That is × (1 + x)/(1 + a), to which the scenario's weight adds |a/x|.
    """
    if rules.coin is not Coin.HELD:
        return found
    inverse = (instruments.settlement == Settlement.INVERSE)[:, None]
    factor = np.array([1.0 if np.isnan(s.anchor) else (1 + s.move) / (1 + s.anchor) for s in at.columns])
    today = found[:, :1]
    return today + np.where(inverse, factor, 1.0) * (found - today)


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


def _delta(instruments: Instruments, terms: Terms, *, bachelier: bool) -> Float[np.ndarray, " instrument"]:
    """Units of the underlying per contract: Black's delta, undiscounted; the delta of other options; of inverse
    futures, their coins."""
    units, forward, sign = (np.asarray(x) for x in (terms.units, terms.forward, terms.sign))
    time = np.maximum(np.asarray(terms.time), 0.0)
    deviation = np.maximum(np.asarray(terms.vol) * np.sqrt(time), 1e-12)
    half = 0.0 if bachelier else deviation / 2
    option = units * sign * ndtr(sign * (half - np.asarray(moneyness(terms, bachelier)) / deviation))
    other = np.flatnonzero(_is_other(instruments))
    if len(other):
        option[other] = _other_delta(instruments, terms, other, STILL)
    future = np.where(instruments.settlement == Settlement.INVERSE, units / forward, units)
    is_future = np.isin(instruments.kind, [Kind.FUTURE, Kind.PERPETUAL])
    return np.where(np.isin(instruments.kind, OPTION_KINDS), option, np.where(is_future, future, 0.0))


def _is_other(instruments: Instruments) -> Bool[np.ndarray, " instrument"]:
    """Options that are not plain European ones."""
    european = instruments.exercise == Exercise.EUROPEAN
    return np.isin(instruments.kind, OPTION_KINDS) & ~european


def _other_delta(instruments: Instruments, terms: Terms, rows: np.ndarray, at: Moves) -> np.ndarray:
    """Delta of the options at `rows`, by automatic differentiation."""
    table, some = instruments.take(rows), Terms(*(jnp.asarray(np.asarray(t)[rows]) for t in terms))
    inverse = table.settlement == Settlement.INVERSE
    # Of coins it is the value in the quote currency that counts, which moves with the coin's price, too.
    along = STILL._replace(log_spot=1.0, log_settlement=inverse[:, None].astype(float))
    slope = slopes_under(table, some, at, along=along)[:, 0]
    early = table.exercise == Exercise.AMERICAN
    carry = np.where(early, (some.rate - some.dividend_yield) * some.time, 0.0)
    return slope / np.asarray(some.settlement) / np.where(inverse, 1.0, np.asarray(some.forward) * np.exp(-carry))


def _delta_slopes(instruments: Instruments, terms: Terms, *, bachelier: bool) -> tuple[np.ndarray, np.ndarray]:
    """Of `_delta`, by the log forward and by the volatility."""
    units, forward = (np.asarray(x) for x in (terms.units, terms.forward))
    root = np.sqrt(np.maximum(np.asarray(terms.time), 0.0))
    deviation = np.maximum(np.asarray(terms.vol) * root, 1e-12)
    depth, half = -np.asarray(moneyness(terms, bachelier)) / deviation, 0.0 if bachelier else 0.5
    density = units * np.exp(-((depth + half * deviation) ** 2) / 2) / np.sqrt(2 * np.pi)
    is_option = np.isin(instruments.kind, OPTION_KINDS)
    coins = np.isin(instruments.kind, [Kind.FUTURE, Kind.PERPETUAL]) & (instruments.settlement == Settlement.INVERSE)
    by_log = np.where(is_option, density / deviation, np.where(coins, -units / forward, 0.0))
    by_vol = np.where(is_option, density * root * (half - depth / deviation), 0.0)
    other = np.flatnonzero(_is_other(instruments) & (instruments.exercise != Exercise.AMERICAN))
    for found, name in ((by_log, "log_spot"), (by_vol, "vol")) if len(other) else ():
        up, down = (_other_delta(instruments, terms, other, STILL._replace(**{name: x})) for x in (BUMP, -BUMP))
        found[other] = (up - down) / (2 * BUMP)
    return by_log, by_vol
