"""Values and Greeks of every instrument today, per contract, in base currency and float64."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from pmvar.instruments import Instruments
from pmvar.kernels.american import american
from pmvar.kernels.american_dividends import EarlyExercise, american_on_dividends
from pmvar.kernels.average import average_price, earlier_share, exponential_mean, window_variance
from pmvar.kernels.bachelier import normalised_bachelier
from pmvar.kernels.barrier import BarrierTerms, barrier_price
from pmvar.kernels.black import normalised_black
from pmvar.kernels.digital import normalised_digital
from pmvar.kernels.quanto import quanto_drift
from pmvar.market.slope import smile_slope
from pmvar.market.snapshot import MarketSnapshot
from pmvar.types import (
    DAY,
    OPTION_KINDS,
    SECONDS_PER_YEAR,
    Deliverable,
    Exercise,
    FactorKind,
    Greek,
    Kind,
    Payoff,
    PutCall,
    Settlement,
    factor_name,
)
from pmvar.valuation.cash_flows import bond_terms, key_rates
from pmvar.valuation.dividends import all_drops

AMERICANS = 256
"""American prices that are computed together: each has a boundary of its own, which takes 30 kB."""


class Sensitivity(NamedTuple):
    """One Greek of every instrument by one factor; zero where it has none."""

    factor: str
    greek: Greek
    value: Float[np.ndarray, " instrument"]


class Terms(NamedTuple):
    """What values any instrument, in arrays of one entry each; 1 where a kind has no such thing."""

    units: Float[Array, " instrument"]
    """Contract size in units of the underlying (inverse futures: quote currency)."""
    spot: Float[Array, " instrument"]
    forward: Float[Array, " instrument"]
    settlement: Float[Array, " instrument"]
    """Base price of the settlement currency."""
    strike: Float[Array, " instrument"]
    sign: Float[Array, " instrument"]
    vol: Float[Array, " instrument"]
    rate: Float[Array, " instrument"]
    dividend_yield: Float[Array, " instrument"]
    """Of American options, see `american_rates`."""
    time: Float[Array, " instrument"]
    flows: Float[Array, "instrument flow 3"]
    """Of bonds: amount, years from today and rate of each payment; of other tables, none."""
    dividends: Float[Array, "instrument dividend 2"]
    """Of American options, see `all_drops`."""
    shift: Float[Array, " instrument"]
    """Of the underlying's `PriceScale`: 0 of a lognormal one."""
    bachelier: Float[Array, " instrument"]
    """1 where that scale is Bachelier's, else 0."""
    skew: Float[Array, " instrument"]
    """∂σ/∂k at the strike of digital options, by the log of it."""
    asset: Float[Array, " instrument"]
    """1 for digital options that pay the asset, 0 for those that pay cash."""
    window: Float[Array, " instrument"]
    """Years that Asian options average over."""
    known: Float[Array, " instrument"]
    """What the past has put into the average, in quote currency."""
    growth: Float[Array, " instrument"]
    """Of the forward per year, over the window."""
    covariance: Float[Array, " instrument"]
    """Of quanto options, see `quanto_drift`; else 0."""
    barrier: Float[Array, " instrument"]
    up: Float[Array, " instrument"]
    """+1 a barrier above, −1 below."""
    knock_in: Float[Array, " instrument"]
    """1 what comes to life at the barrier, 0 what ends there."""
    rebate: Float[Array, " instrument"]


Columns = Sequence[Float[np.ndarray, "*#shape"]]


class Product(NamedTuple):
    """What one formula values."""

    kind: Kind
    linear: bool
    american: bool
    bachelier: bool = False
    dividends: bool = False


class Moves(NamedTuple):
    """Displacements of today: of ln S (on another scale x), ln X, σ, the zero rate, and the clock in years; what
    broadcasts with terms."""

    log_spot: ArrayLike
    log_settlement: ArrayLike
    vol: ArrayLike
    rate: ArrayLike
    clock: ArrayLike


STILL = Moves(0.0, 0.0, 0.0, 0.0, 0.0)
"""Today as it is."""


def _positive(x: Array) -> Array:
    # Not max(·, 0), which at 0 halves the derivative.
    return jnp.where(x < 0, 0.0, x)


def _root(time: Float[Array, "..."]) -> Float[Array, "..."]:
    # Its slope is none at 0, where a clock stands still that is past the expiry.
    alive = time > 0
    return jnp.where(alive, jnp.sqrt(jnp.where(alive, time, 1.0)), 0.0)


def _option(terms: Terms, product: Product, m: Moves) -> Float[Array, "..."]:
    time = _positive(terms.time - m.clock)
    vol = _positive(terms.vol + m.vol)
    normalised = normalised_bachelier if product.bachelier else normalised_black
    # A quanto's price is lognormal.
    move = m.log_spot + quanto_drift(vol, time, terms.covariance)
    price = normalised(moneyness(terms, product.bachelier) - move, vol * _root(time), terms.sign)
    unit, grown = (terms.shift, 0.0) if product.bachelier else (terms.forward + terms.shift, move)
    paid = unit * jnp.exp(grown - (terms.rate + m.rate) * time) if product.linear else 1.0
    return terms.units * terms.settlement * jnp.exp(m.log_settlement) * paid * price


def _digital(terms: Terms, linear: bool, m: Moves) -> Float[Array, "..."]:
    time = _positive(terms.time - m.clock)
    k = jnp.log(terms.strike / terms.forward) - m.log_spot
    root = _root(time)
    price = normalised_digital(k, _positive(terms.vol + m.vol) * root, terms.skew * root, terms.sign, terms.asset)
    power = terms.asset if linear else terms.asset - 1
    log_discount = -(terms.rate + m.rate) * time if linear else 0.0
    paid = terms.forward**power * jnp.exp(power * m.log_spot + log_discount)
    return terms.units * terms.settlement * jnp.exp(m.log_settlement) * paid * price


def _average(terms: Terms, linear: bool, m: Moves) -> Float[Array, "..."]:
    """What passes of the window while the clock moves is averaged at the spot."""
    time = _positive(terms.time - m.clock)
    began, left = jnp.minimum(terms.time, terms.window), jnp.minimum(time, terms.window)
    growth, ratio = terms.growth * left, jnp.exp(m.log_spot)
    ahead = left / terms.window * ratio * exponential_mean(-growth)
    known = terms.known / terms.forward + (began - left) / terms.window * ratio * terms.spot / terms.forward
    vol = _positive(terms.vol + m.vol)
    variance = vol**2 * (time - left) + window_variance(vol**2 * left, earlier_share(growth))
    price = average_price(ahead, terms.strike / terms.forward - known, variance, terms.sign)
    paid = terms.forward * jnp.exp(-(terms.rate + m.rate) * time) if linear else 1 / (known + ahead)
    return terms.units * terms.settlement * jnp.exp(m.log_settlement) * paid * price


def _barrier(terms: Terms, linear: bool, m: Moves) -> Float[Array, "..."]:
    """As an American option's, the spot runs along its curve while the clock moves."""
    time = _positive(terms.time - m.clock)
    carry = jnp.log(terms.forward / terms.spot) * (time / terms.time)
    rate = (terms.rate + m.rate) * time if linear else jnp.zeros_like(time)
    forward = terms.forward * jnp.exp(m.log_spot)
    k, h = jnp.log(terms.strike / forward), jnp.log(terms.barrier / forward) + carry
    deviation = _positive(terms.vol + m.vol) * _root(time)
    which = BarrierTerms(terms.sign, terms.up, terms.knock_in)
    price = barrier_price(which, k, h, carry, deviation, rate, terms.rebate / forward, jnp.zeros_like(time))
    paid = forward * jnp.exp(-rate) if linear else 1.0
    return terms.units * terms.settlement * jnp.exp(m.log_settlement) * paid * price


def moneyness(terms: Terms, bachelier: bool) -> Float[Array, "..."]:
    """x from forward to strike: ln(K/F), of all or none of `terms` Bachelier's (K − F)/A."""
    if bachelier:
        return (terms.strike - terms.forward) / terms.shift
    return jnp.log((terms.strike + terms.shift) / (terms.forward + terms.shift))


def early_exercise(terms: Terms, clock: Float[Array, " option"], rate: Float[Array, " option"]) -> EarlyExercise:
    """What exercise pays from `clock` years on, under the zero rate `rate` from then to the expiry.

    Beside the dividends forwards grow evenly from today to the expiry.
    """
    when, drop = terms.dividends[:, :, 0], terms.dividends[:, :, 1]
    time, gone = _positive(terms.time - clock), when <= clock[:, None]
    even = (terms.rate - terms.dividend_yield) * terms.time + jnp.sum(drop, axis=1)
    alive, lived = time > 0, terms.time > 0
    share = (when - clock[:, None]) / jnp.where(alive, time, 1.0)[:, None]
    return EarlyExercise(
        sign=terms.sign,
        total_rate=rate * time,
        carry=even * time / jnp.where(lived, terms.time, 1.0),
        when=jnp.clip(jnp.where(alive[:, None], share, 1.0), 0.0, 1.0),
        drop=jnp.where(gone, 0.0, drop),
        missed=jnp.where(terms.sign > 0, jnp.sum(jnp.where(gone, drop, 0.0), axis=1), 0.0),
    )


def _american_on_dividends(terms: Terms, m: Moves) -> Float[Array, " option"]:
    """As `_american`, of one dimension."""
    clock, forward = jnp.broadcast_to(m.clock, terms.time.shape), terms.forward * jnp.exp(m.log_spot)
    deviation = _positive(terms.vol + m.vol) * _root(_positive(terms.time - clock))
    log_moneyness = terms.sign * jnp.log(terms.strike / forward)
    price = american_on_dividends(log_moneyness, deviation, early_exercise(terms, clock, terms.rate + m.rate))
    unit = jnp.where(terms.sign > 0, forward, terms.strike)
    return terms.units * terms.settlement * jnp.exp(m.log_settlement) * unit * price


def _american(terms: Terms, m: Moves) -> Float[Array, "..."]:
    """Forwards stand when the clock or the rate moves, as for a European option: S = F·e^(−(r − q)τ)."""
    time, carry = _positive(terms.time - m.clock), terms.rate - terms.dividend_yield
    spot = terms.forward * jnp.exp(m.log_spot - carry * time)
    vol, rate, held = _positive(terms.vol + m.vol), terms.rate + m.rate, terms.dividend_yield + m.rate
    every = jnp.broadcast_arrays(spot, terms.strike, vol, time, rate, held, terms.sign)
    price = american(*(x.reshape(-1) for x in every)).reshape(every[0].shape)
    return terms.units * terms.settlement * jnp.exp(m.log_settlement) * price


def _carried(terms: Terms, product: Product, m: Moves) -> Float[Array, "..."]:
    if product.bachelier:
        price = terms.spot + terms.shift * m.log_spot
    else:
        price = (terms.spot + terms.shift) * jnp.exp(m.log_spot) - terms.shift
    return terms.units * price * terms.settlement * jnp.exp(m.log_settlement)


def _margined(terms: Terms, product: Product, m: Moves) -> Float[Array, "..."]:
    power = 1.0 if product.linear else -1.0
    if product.bachelier:
        profit = terms.shift * m.log_spot
    else:
        profit = power * (jnp.exp(power * m.log_spot) - 1) * (terms.forward + terms.shift) ** power
    return terms.units * terms.settlement * jnp.exp(m.log_settlement) * profit


def _bond(terms: Terms, m: Moves) -> Float[Array, "..."]:
    """What the clock has passed counts at its face; a move of the rate is one of all zero rates, or of the spread."""
    amount, year, rate = (terms.flows[..., k] for k in range(3))
    clock, shift = (x[..., None] if x.ndim else x for x in map(jnp.asarray, (m.clock, m.rate)))
    value = jnp.sum(amount * jnp.exp(-(rate + shift) * _positive(year - clock)), axis=-1)
    return terms.settlement * jnp.exp(m.log_settlement) * value


def _value(product: Product, terms: Terms, m: Moves) -> Float[Array, "..."]:
    kind = product.kind
    if kind is Kind.OPTION:
        if product.dividends:
            return _american_on_dividends(terms, m)
        return _american(terms, m) if product.american else _option(terms, product, m)
    if kind is Kind.BOND:
        return _bond(terms, m)
    if kind in OTHERS:
        return OTHERS[kind](terms, product.linear, m)
    return (_margined if kind in (Kind.FUTURE, Kind.PERPETUAL) else _carried)(terms, product, m)


OTHERS = {Kind.DIGITAL: _digital, Kind.ASIAN: _average, Kind.BARRIER: _barrier}
"""Options that are not plain."""


class Today(NamedTuple):
    """Value of each instrument, per contract, and its derivatives by the fields of `Moves`.

    By the log price of the settlement currency, which values are proportional to, each is itself.
    """

    value: Float[np.ndarray, " instrument"]
    log_spot: Float[np.ndarray, " instrument"]
    log_spot_twice: Float[np.ndarray, " instrument"]
    vol: Float[np.ndarray, " instrument"]
    rate: Float[np.ndarray, " instrument"]
    clock: Float[np.ndarray, " instrument"]


def local(terms: Terms, *, product: Product) -> Today:
    """Value and derivatives where nothing has moved; of American options at most `AMERICANS`."""
    n = len(terms.units)
    # Few shapes: any other number of instruments would have to be compiled anew. The first one pads.
    place = np.zeros(max(AMERICANS, 1 << (n - 1).bit_length()), dtype=np.int64)
    place[:n] = np.arange(n)
    return Today(*(x[:n] for x in map(np.asarray, _local(_taken(terms, place, product), product=product))))


@partial(jax.jit, static_argnames="product")
def _local(terms: Terms, *, product: Product) -> tuple[Array, ...]:
    """The fields of `Today`."""
    still = jnp.zeros(())

    def along_spot(x: Array) -> Array:
        return _value(product, terms, Moves(x, still, still, still, still))

    def twice(x: Array) -> tuple[Array, Array]:
        return jax.jvp(along_spot, (x,), (jnp.ones(()),))

    def rest(*moves: Array) -> Array:
        return _value(product, terms, Moves(still, still, *moves))

    # Apart, since an exercise boundary does not move with the spot.
    (value, slope), (_, bend) = jax.jvp(twice, (still,), (jnp.ones(()),))
    return value, slope, bend, *jax.jacfwd(rest, argnums=(0, 1, 2))(still, still, still)


def american_rates(instruments: Instruments, i: int, market: MarketSnapshot, start: float) -> tuple[float, float]:
    """Zero rate and yield of American option `i` from `start` (epoch seconds) to its expiry, per year; 0 once expired.

    The yield is what forwards say of dividends, r − ln(F(T)/F(start))/(T − start), spread evenly; `early_exercise`
    tells those of `market/dividends` apart. Of an option on a future, which costs nothing to hold, it is the rate.
    """
    expiry = float(instruments.expiry[i])
    ends, year = np.array([start, expiry]), (expiry - start) / SECONDS_PER_YEAR
    if year <= 0:
        return 0.0, 0.0
    discount = market.discounts[instruments.quote_currency[i]].discount_factor(ends)
    # Rounded: a zero that is not quite would be a second boundary.
    rate = round(float(np.log(discount[0] / discount[1])) / year, 12)
    if instruments.deliverable[i] == Deliverable.FUTURE:
        return rate, rate
    forward = market.forwards[instruments.underlying[i]].at(ends)
    return rate, round(rate - float(np.log(forward[1] / forward[0])) / year, 12)


def average_terms(instruments: Instruments, i: int, market: MarketSnapshot) -> dict[str, float]:
    """`Terms` of Asian option `i`, by name."""
    expiry, start = float(instruments.expiry[i]), float(instruments.averaging_start[i])
    window, passed = expiry - start, max(market.as_of - start, 0.0)
    forward = market.forwards[instruments.underlying[i]].at(np.array([start, expiry]))
    return {
        "window": window / SECONDS_PER_YEAR,
        "known": passed / window * float(instruments.average_so_far[i]) if passed else 0.0,
        "growth": float(np.log(forward[1] / forward[0])) / (expiry - max(start, market.as_of)) * SECONDS_PER_YEAR,
    }


def terms_today(instruments: Instruments, market: MarketSnapshot) -> Terms:
    """What values each instrument; all must be valuable (see `Plan.unpriced`)."""
    n = len(instruments)
    out: dict[str, np.ndarray] = {name: np.ones(n) for name in Terms._fields}
    for name in ("skew", "known", "growth", "covariance", "shift", "bachelier"):
        out[name] = np.zeros(n)
    ways = instruments.barrier_type.astype(str)
    out["barrier"] = np.where(np.isnan(instruments.barrier), 1.0, instruments.barrier)
    out["up"] = np.where(np.char.startswith(ways, "up"), 1.0, -1.0)
    out["knock_in"] = np.char.endswith(ways, "in").astype(float)
    out["rebate"] = np.nan_to_num(instruments.rebate, nan=0.0)
    out["asset"] = (instruments.payoff == Payoff.ASSET_OR_NOTHING).astype(float)
    out["units"] = instruments.amount
    for i in range(n):
        kind, underlying, expiry = instruments.kind[i], instruments.underlying[i], float(instruments.expiry[i])
        base = kind in (Kind.CASH, Kind.BOND) or underlying == market.base_currency
        out["spot"][i] = 1.0 if base else market.spot[market.column(underlying)]
        out["settlement"][i] = market.base_price(instruments.settlement_currency[i])
        dated = kind in (*OPTION_KINDS, Kind.FUTURE)
        out["forward"][i] = float(market.forwards[underlying].at(expiry)) if dated else out["spot"][i]
        if not base:
            scale = market.scale(underlying)
            out["shift"][i], out["bachelier"][i] = scale.shift, scale.is_linear
        if kind in OPTION_KINDS:
            k = market.forwards[underlying].moneyness(instruments.strike[i], expiry)
            out["strike"][i] = instruments.strike[i]
            out["sign"][i] = 1.0 if instruments.put_call[i] == PutCall.CALL else -1.0
            out["vol"][i] = float(market.vols[underlying].vol(np.array([k]), expiry)[0])
            out["time"][i] = (expiry - market.as_of) / SECONDS_PER_YEAR
            curve = market.discounts.get(instruments.discount_currency[i])
            if instruments.settlement[i] == Settlement.QUANTO:
                quanto = market.quanto[underlying, instruments.settlement_currency[i]]
                out["covariance"][i] = quanto.correlation * quanto.fx_vol
            if curve is not None:
                out["rate"][i] = -np.log(float(curve.discount_factor(expiry))) / out["time"][i]
        if instruments.formula[i] == Kind.ASIAN:
            for name, x in average_terms(instruments, i, market).items():
                out[name][i] = x
        if kind == Kind.DIGITAL:
            out["skew"][i] = float(smile_slope(market.vols[underlying], np.array([k]), expiry)[0])
        if instruments.exercise[i] == Exercise.AMERICAN:
            out["rate"][i], out["dividend_yield"][i] = american_rates(instruments, i, market, market.as_of)
    bonds = np.flatnonzero(instruments.kind == Kind.BOND)
    flows = bond_terms(instruments.take(bonds), market) if len(bonds) else np.zeros((0, 0, 3))
    out["flows"] = np.zeros((n, *flows.shape[1:]))
    out["flows"][bonds] = flows
    out["dividends"] = all_drops(instruments, market)
    return Terms(**{name: jnp.asarray(column) for name, column in out.items()})


def values_and_greeks(
    instruments: Instruments, market: MarketSnapshot, model_factors: Sequence[str] = ()
) -> tuple[Float[np.ndarray, " instrument"], list[Sensitivity]]:
    """Value and Greeks of one contract of each instrument; all must be valuable (see `Plan.unpriced`).

    Futures and perpetuals are worth 0. Delta and gamma per unit of price of each asset, the volatility of a strike
    held; an asset that an instrument also settles in counts with both effects. Vega per 1.00 of vol, rho per 1.00 of
    rate with forwards held (Black 1976), theta per calendar day. Rho of bonds by the spread, and by each rate among
    `model_factors`; without one, by all zero rates together.
    """
    n = len(instruments)
    value = np.zeros(n)
    table: dict[tuple[str, Greek], np.ndarray] = {}

    def put(rows: np.ndarray, factors: list[str], greek: Greek, amounts: Array | np.ndarray) -> None:
        for row, factor, amount in zip(rows, factors, np.asarray(amounts), strict=True):
            table.setdefault((factor, greek), np.zeros(n))[row] += amount

    every = terms_today(instruments, market)
    for rows, product in _products(instruments, every):
        some = instruments.take(rows)
        terms = _taken(every, rows, product)
        today = local(terms, product=product)
        value[rows] = today.value
        exposures = [_exposures(some, i, market) for i in range(len(rows))]
        for slot in range(max(map(len, exposures))):
            has = np.array([i for i, e in enumerate(exposures) if len(e) > slot])
            asset = [exposures[i][slot][0] for i in has]
            own, linked = (np.array([exposures[i][slot][w] for i in has], float) for w in (1, 2))
            # Of V = e^x·f(y) by what moves y, x or both.
            amount, first, second = (x[has] for x in today[:3])
            slope, bend = own * first + linked * amount, own * (second + 2 * linked * first) + linked * amount
            unit = np.array([market.unit(a) for a in asset])
            curved = np.array([not market.scale(a).is_linear for a in asset])
            factors = [factor_name(a, FactorKind.SPOT) for a in asset]
            put(rows[has], factors, Greek.DELTA, slope / unit)
            if product.kind in OPTION_KINDS:
                put(rows[has], factors, Greek.GAMMA, (bend - curved * slope) / unit**2)
        if product.kind in OPTION_KINDS:
            put(rows, [factor_name(u, FactorKind.VOL) for u in some.underlying], Greek.VEGA, today.vol)
            put(rows, ["time"] * len(rows), Greek.THETA, today.clock * (DAY / SECONDS_PER_YEAR))
        if product.kind is Kind.PERPETUAL and market.funding:
            # A day's funding of a long, at today's notional.
            rate = np.array([market.funding.get(str(name), 0.0) for name in some.instrument_id])
            worth = np.asarray(terms.units * terms.settlement * terms.spot ** (1.0 if product.linear else -1.0))
            put(rows, ["time"] * len(rows), Greek.THETA, -rate * worth)
        if product.kind is Kind.BOND:
            put(rows, ["time"] * len(rows), Greek.THETA, today.clock * (DAY / SECONDS_PER_YEAR))
            for factor, slope in key_rates(some, market, model_factors).items():
                put(rows, [factor] * len(rows), Greek.RHO, slope)
        if product.kind in OPTION_KINDS and product.linear:
            put(rows, [f"{c}:rate" for c in some.discount_currency], Greek.RHO, today.rate)
    return value, [Sensitivity(f, g, column) for (f, g), column in sorted(table.items())]


def values_under(instruments: Instruments, terms: Terms, moves: Moves) -> Float[np.ndarray, "instrument scenario"]:
    """Value of one contract of each instrument under `moves`, in base currency and float64.

    Futures and perpetuals give their profit. Each field of `moves` is a number or broadcasts to (instrument, scenario);
    an option whose clock runs past its expiry is worth what it pays. Where `moves.log_settlement` is 0, coin amounts
    stay at today's price of the coin: how venues that margin in coin count.
    """
    return _under(instruments, terms, moves, None)


def slopes_under(
    instruments: Instruments, terms: Terms, moves: Moves, *, along: Moves
) -> Float[np.ndarray, "instrument scenario"]:
    """Derivative of `values_under` where `moves` change at the rates `along`, by automatic differentiation."""
    return _under(instruments, terms, moves, along)


def _under(
    instruments: Instruments, terms: Terms, moves: Moves, along: Moves | None
) -> Float[np.ndarray, "instrument scenario"]:
    directions = () if along is None else along
    shape = np.broadcast_shapes((len(instruments), 1), *(np.shape(m) for m in (*moves, *directions)))
    full, rates = (
        [np.broadcast_to(np.asarray(m, dtype=np.float64), shape) for m in each] for each in (moves, directions)
    )
    out = np.empty(shape)
    for rows, product in _products(instruments, terms):
        some = [np.asarray(x)[:, None] for x in _taken(terms, rows, product)]
        at, by = ([m[rows] for m in each] for each in (full, rates))
        if product.american:
            out[rows] = _one_by_one(some, at, by, product)
        else:
            out[rows] = _moved(some, at, by, product)
    return out


def _moved(
    some: Sequence[np.ndarray], at: Columns, by: Columns, product: Product
) -> Float[np.ndarray, "*shape"]:
    terms, moves, along = (tuple(map(jnp.asarray, columns)) for columns in (some, at, by))
    return np.asarray(_moved_on_device(Terms(*terms), Moves(*moves), Moves(*along) if by else None, product=product))


@partial(jax.jit, static_argnames="product")
def _moved_on_device(terms: Terms, moves: Moves, along: Moves | None, *, product: Product) -> Float[Array, "*shape"]:
    if along is None:
        return _value(product, terms, moves)
    return jax.jvp(lambda m: _value(product, terms, m), (moves,), (along,))[1]


def _one_by_one(
    some: Sequence[np.ndarray], at: Columns, by: Columns, product: Product
) -> Float[np.ndarray, "instrument scenario"]:
    """`_moved` where every price takes much memory, `AMERICANS` of them at a time."""
    shape, n = at[0].shape, at[0].size
    # Whole chunks, the first price again as padding: one shape is compiled.
    place = np.pad(np.arange(n), (0, -n % AMERICANS))
    flat = [
        [np.broadcast_to(x, shape + x.shape[2:]).reshape(-1, *x.shape[2:]) for x in columns]
        for columns in (some, at, by)
    ]
    parts = []
    for start in range(0, len(place), AMERICANS):
        one, two, three = ([x[place[start : start + AMERICANS]] for x in columns] for columns in flat)
        parts.append(_moved(one, two, three, product))
    return np.concatenate(parts)[:n].reshape(shape)


def _taken(terms: Terms, rows: np.ndarray, product: Product) -> Terms:
    """Of instruments of one product."""
    # What others have for payments is not looked at: one number, so that all columns are alike.
    unused = {"flows": product.kind is not Kind.BOND, "dividends": not product.dividends}
    own = terms._replace(**{name: terms.units for name, is_unused in unused.items() if is_unused})
    # Indexed by NumPy: a gather on the device costs a hundred times as much.
    return Terms(*(jnp.asarray(np.asarray(x)[rows]) for x in own))


def _products(instruments: Instruments, terms: Terms) -> Iterator[tuple[np.ndarray, Product]]:
    """Rows that one formula values together, at most `AMERICANS` of American options, and their product."""
    columns = (instruments.formula, instruments.settlement, instruments.exercise)
    bachelier, paying = np.asarray(terms.bachelier) > 0, np.max(np.asarray(terms.dividends)[..., 1], axis=1) > 0
    products = np.array([f"{k} {s} {e} {b} {d}" for k, s, e, b, d in zip(*columns, bachelier, paying, strict=True)])
    for name in np.unique(products):
        rows = np.flatnonzero(products == name)
        first = rows[0]
        product = Product(
            Kind(instruments.formula[first]),
            instruments.settlement[first] != Settlement.INVERSE,
            instruments.exercise[first] == Exercise.AMERICAN,
            bool(bachelier[first]),
            bool(paying[first]),
        )
        most = AMERICANS if product.american else len(rows)
        for start in range(0, len(rows), most):
            yield rows[start : start + most], product


def _exposures(instruments: Instruments, i: int, market: MarketSnapshot) -> list[tuple[str, bool, bool]]:
    """Assets whose price moves instrument `i`: (asset, as its underlying, through its settlement currency)."""
    underlying = instruments.underlying[i]
    chain = [market.asset[c] for c in market.chain(instruments.settlement_currency[i])]
    moved = instruments.kind[i] not in (Kind.CASH, Kind.BOND) and underlying != market.base_currency
    assets = dict.fromkeys([*([underlying] if moved else []), *chain])
    return [(str(a), bool(moved and a == underlying), a in chain) for a in assets]
