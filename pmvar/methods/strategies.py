"""Textbook strategies over a book's own instruments: what each method asks for positions that hedge each other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import combinations

import numpy as np

from pmvar.instruments import Instruments
from pmvar.market.snapshot import MarketSnapshot
from pmvar.portfolio import Portfolio, build_portfolio
from pmvar.types import DAY, FactorKind, Greek, Kind, PutCall, Settlement, factor_name
from pmvar.valuation.today import values_and_greeks

TENOR = 30.0
"""Days to the expiry that strategies prefer; calendars sell it and buy the next."""
WING = 0.1
"""How far out of the money a wing is, as a share of the forward."""
FAR = 0.3
"""How far out the short wings are: beyond most grids."""

Legs = dict[int, float]
"""Row of an instrument -> units of the underlying."""


def strategies(instruments: Instruments, market: MarketSnapshot) -> Portfolio:
    """One account for each strategy that an underlying's listing allows, named `strategy · underlying`.

    One unit of the underlying each: covered call, protective put, short straddle and strangle, short wings, call
    spread, ratio spread (long one, short two further out), butterfly, calendar, box, and a short straddle and a risk
    reversal hedged to no delta; and for each two underlyings a pair, the first long, as much of the second short.
    """
    held: list[tuple[str, str, float]] = []

    def hold(name: str, legs: Legs) -> None:
        for i, units in legs.items():
            # An inverse future's contract is an amount of quote currency.
            inverse = instruments.kind[i] != Kind.OPTION and instruments.settlement[i] == Settlement.INVERSE
            spot = market.spot[market.column(str(instruments.underlying[i]))]
            size = instruments.contract_size[i] / (spot if inverse else 1.0)
            held.append((name, str(instruments.instrument_id[i]), units / size))

    underlyings = sorted(set(market.vols) & set(map(str, instruments.underlying)))
    for underlying in underlyings:
        for name, legs in _of(instruments, market, underlying):
            hold(f"{name} · {underlying}", legs)
    hedges = {u: i for u in underlyings if (i := _linear(instruments, u)) >= 0}
    for one, other in combinations(hedges, 2):
        ratio = market.base_unit(one) / market.base_unit(other)
        hold(f"pair · {one} − {other}", {hedges[one]: 1.0, hedges[other]: -ratio})
    columns = list(zip(*held, strict=True)) if held else [(), (), ()]
    return build_portfolio(
        instruments,
        position_account=np.array(columns[0], dtype=object),
        position_instrument=np.array(columns[1], dtype=object),
        position_quantity=np.array(columns[2], dtype=float),
    )


def _of(instruments: Instruments, market: MarketSnapshot, underlying: str) -> Iterator[tuple[str, Legs]]:
    """Strategies of one underlying; those that lack a leg are left out."""
    mine = instruments.underlying == underlying
    options = np.flatnonzero(mine & (instruments.kind == Kind.OPTION) & (instruments.expiry > market.as_of + DAY))
    if not len(options):
        return
    expiries = np.unique(instruments.expiry[options])
    near = int(np.argmin(np.abs(expiries - market.as_of - TENOR * DAY)))

    def option(right: PutCall, shift: float, expiry: float, unlike: tuple[int, ...] = ()) -> int:
        """The option of an expiry whose strike is nearest to the forward times 1 + shift."""
        some = options[(instruments.expiry[options] == expiry) & (instruments.put_call[options] == right)]
        some = some[~np.isin(instruments.strike[some], instruments.strike[list(unlike)])]
        target = forward = float(market.forwards[underlying].at(expiry))
        target += shift * float(market.scale(underlying).unit(forward))
        return int(some[np.argmin(np.abs(instruments.strike[some] - target))]) if len(some) else -1

    at = float(expiries[near])
    call, put = (option(right, 0.0, at) for right in PutCall)
    high, low = option(PutCall.CALL, WING, at, (call,)), option(PutCall.PUT, -WING, at, (put,))
    below = option(PutCall.CALL, -WING, at, (call, high))
    high_put = -1 if high < 0 else _other_right(instruments, options, high)
    hedge = _linear(instruments, underlying)
    far_call, far_put = option(PutCall.CALL, FAR, at, (call, high)), option(PutCall.PUT, -FAR, at, (put, low))
    later = option(PutCall.CALL, 0.0, float(expiries[near + 1])) if near + 1 < len(expiries) else -1
    listed: dict[str, list[tuple[int, float]]] = {
        "covered call": [(hedge, 1.0), (high, -1.0)],
        "protective put": [(hedge, 1.0), (low, 1.0)],
        "short straddle": [(call, -1.0), (put, -1.0)],
        "short strangle": [(high, -1.0), (low, -1.0)],
        "short wings": [(far_call, -1.0), (far_put, -1.0)],
        "call spread": [(call, -1.0), (high, 1.0)],
        "ratio spread": [(call, 1.0), (high, -2.0)],
        "butterfly": [(below, -1.0), (call, 2.0), (high, -1.0)],
        "calendar": [(call, -1.0), (later, 1.0)],
        "box": [(call, 1.0), (high, -1.0), (high_put, 1.0), (put, -1.0)],
    }
    if call >= 0 and put >= 0:
        listed["hedged straddle"] = [
            (call, -1.0),
            (put, -1.0),
            (hedge, _delta(instruments, market, {call: 1.0, put: 1.0})),
        ]
    if high >= 0 and low >= 0:
        skew = {high: -1.0, low: 1.0}
        listed["hedged risk reversal"] = [(high, 1.0), (low, -1.0), (hedge, _delta(instruments, market, skew))]
    for name, legs in listed.items():
        if all(i >= 0 for i, _ in legs) and len({i for i, _ in legs}) == len(legs):
            yield name, dict(legs)


def _linear(instruments: Instruments, underlying: str) -> int:
    """A perpetual of the underlying, else the spot or future that expires first; −1 if there is none."""
    rows = np.flatnonzero(
        (instruments.underlying == underlying) & np.isin(instruments.kind, [Kind.PERPETUAL, Kind.SPOT, Kind.FUTURE])
    )
    order = np.lexsort((instruments.expiry[rows], instruments.kind[rows] != Kind.PERPETUAL))
    return int(rows[order[0]]) if len(rows) else -1


def _delta(instruments: Instruments, market: MarketSnapshot, legs: Mapping[int, float]) -> float:
    """Delta of options (row -> units of the underlying), in units of the underlying."""
    some = instruments.take(np.array(list(legs)))
    _, sensitivities = values_and_greeks(some, market)
    own = factor_name(some.underlying[0], FactorKind.SPOT)
    [delta] = [s.value for s in sensitivities if (s.factor, s.greek) == (own, Greek.DELTA)]
    price = market.base_price(market.quote_currency[market.column(some.underlying[0])])
    return float((np.array(list(legs.values())) * delta / some.contract_size).sum() / price)


def _other_right(instruments: Instruments, options: np.ndarray, i: int) -> int:
    """The put of a call's strike and expiry, or the other way round."""
    same = options[(instruments.expiry[options] == instruments.expiry[i])
                   & (instruments.strike[options] == instruments.strike[i]) & (options != i)]  # fmt: skip
    return int(same[0]) if len(same) else -1
