"""What a backtest margins where no book is given: each asset long and short, baskets, pairs, options on each vol."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pmvar.instruments import Instruments
from pmvar.market.curves import DiscountCurve, ForwardCurve
from pmvar.market.snapshot import MarketSnapshot
from pmvar.market.surface import VolSlice, VolSurface
from pmvar.portfolio import Portfolio, build_portfolio
from pmvar.types import DAY, Exercise, Kind, PutCall, Settlement

NOTIONAL = 1_000_000.0
"""Of each account, in currency."""
OPTION_DAYS = 30
"""To the expiry of the options, whatever the day: the account is renewed every day, so that days can be compared."""
STRIKES = {PutCall.PUT: 0.9, PutCall.CALL: 1.1}
"""Of the options out of the money, over the spot."""

Held = dict[str, float]


def unit_market(assets: Sequence[str], vols: dict[str, float], *, as_of: float) -> MarketSnapshot:
    """Every asset at 1 a unit and rates of zero, with a flat surface for each of `vols` (asset -> vol per √year)."""
    names, n = tuple(sorted(assets)), len(assets)
    expiry = as_of + OPTION_DAYS * DAY
    surfaces = {a: VolSurface(as_of, (VolSlice(expiry, np.zeros(1), np.array([v])),)) for a, v in vols.items()}
    flat = {a: ForwardCurve(as_of, 1.0, np.array([expiry]), np.ones(1)) for a in vols}
    at_par = {"USD": DiscountCurve(as_of, np.array([expiry]), np.zeros(1))}
    return MarketSnapshot(as_of, "USD", names, np.ones(n), ("USD",) * n, np.zeros(n), flat, at_par, surfaces)


def textbook_accounts(assets: Sequence[str], vols: Sequence[str], *, as_of: float) -> tuple[Portfolio, dict[str, str]]:
    """Accounts over `unit_market`, and the class of each: `long`, `short`, `basket`, `pair` (long one asset, short all
    others alike), and with vols `short straddle`, `short strangle` and `covered call`."""
    held: dict[str, Held] = {}
    kind: dict[str, str] = {}

    def account(name: str, cls: str, legs: Held) -> None:
        held[name] = {k: v * NOTIONAL for k, v in legs.items()}
        kind[name] = cls

    n = len(assets)
    for a in assets:
        account(f"long {a}", "long", {a: 1.0})
        account(f"short {a}", "short", {a: -1.0})
        if n > 1:
            account(f"{a} against the others", "pair", {b: 1.0 if b == a else -1.0 / (n - 1) for b in assets})
    if n > 1:
        account("all long", "basket", {a: 1.0 / n for a in assets})
        account("all short", "basket", {a: -1.0 / n for a in assets})
    for a in vols:
        at, below, above = (
            (f"{a} {PutCall.CALL} 1"),
            f"{a} put {STRIKES[PutCall.PUT]:g}",
            f"{a} call {STRIKES[PutCall.CALL]:g}",
        )
        account(f"{a} short straddle", "short straddle", {at: -1.0, f"{a} put 1": -1.0})
        account(f"{a} short strangle", "short strangle", {below: -1.0, above: -1.0})
        account(f"{a} covered call", "covered call", {a: 1.0, above: -1.0})
    rows = [(i, instrument, q) for i, legs in held.items() for instrument, q in legs.items()]
    portfolio = build_portfolio(
        _listed(assets, vols, as_of),
        position_account=np.array([r[0] for r in rows], dtype=object),
        position_instrument=np.array([r[1] for r in rows], dtype=object),
        position_quantity=np.array([r[2] for r in rows]),
    )
    return portfolio, kind


def _listed(assets: Sequence[str], vols: Sequence[str], as_of: float) -> Instruments:
    """Each asset, and four options on each that has a vol."""
    rows = [(a, Kind.SPOT, a, np.inf, np.nan, "") for a in assets]
    for a in vols:
        for right, strike in ((PutCall.CALL, 1.0), (PutCall.PUT, 1.0), *STRIKES.items()):
            rows.append((f"{a} {right} {strike:g}", Kind.OPTION, a, as_of + OPTION_DAYS * DAY, strike, str(right)))
    rows.sort()

    def column(i: int, dtype: type = object) -> np.ndarray:
        return np.array([row[i] for row in rows], dtype=dtype)

    n = len(rows)
    is_option = column(1) == Kind.OPTION
    return Instruments(
        instrument_id=column(0),
        kind=np.array([str(row[1]) for row in rows], dtype=object),
        underlying=column(2),
        settlement=np.full(n, str(Settlement.LINEAR), dtype=object),
        quote_currency=np.full(n, "USD", dtype=object),
        settlement_currency=np.full(n, "USD", dtype=object),
        contract_size=np.ones(n),
        expiry=column(3, float),
        strike=column(4, float),
        put_call=column(5),
        exercise=np.where(is_option, str(Exercise.EUROPEAN), "").astype(object),
        deliverable=np.full(n, "", dtype=object),
    )
