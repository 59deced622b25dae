"""Surfaces fitted to every recorded chain, SVI and SSVI: quotes inside bid and ask, arbitrage, the worst quotes, and
seconds a chain.

The chains lie beside the checkout in `../shared/data` and are not part of it: without them there is nothing to measure.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator
from itertools import islice

import numpy as np
from common import HERE, Figures, benchmark

from pmvar.errors import InputError
from pmvar.io import import_cboe, import_deribit
from pmvar.io.chain_file import read_chain
from pmvar.market.fit import fit_chain
from pmvar.market.fit_smile import Quotes
from pmvar.market.fit_surface import Expiry, arbitrage, fit_surface
from pmvar.types import DAY, SurfaceKind

DATA = HERE.parents[1] / "shared" / "data"
BUCKETS = {"to_2d": 2, "to_14d": 14, "to_60d": 60, "to_180d": 180, "beyond": np.inf}
"""Days to expiry."""
Chain = tuple[str, str, float, list[Expiry]]
"""Venue, underlying, time in epoch seconds, quotes."""


def deribit() -> Iterator[Chain]:
    """Each coin of each snapshot."""
    for file in sorted((DATA / "deribit_chains").glob("deribit_daily_*.csv.gz")):
        table, _ = read_chain(file, import_deribit.SCHEMA, layout="Deribit")
        for as_of in np.unique(table["timestamp"]).tolist():
            rows = np.flatnonzero((table["timestamp"] == as_of) & (table["expiry_datetime"] > as_of))
            quoted = import_deribit.quoted_vols(table, rows, as_of=as_of)
            for coin in sorted(set(table["currency"][rows].tolist())):
                mine, chain = rows[table["currency"][rows] == coin], []
                for expiry in np.unique(table["expiry_datetime"][mine]).tolist():
                    own = mine[table["expiry_datetime"][mine] == expiry]
                    forward = float(np.median(table["underlying"][own]))
                    points, _ = import_deribit.smile_points(table, own, quoted, forward=forward)
                    chain.append(_expiry(expiry, forward, *_columns(points)))
                yield "deribit", coin, as_of, chain


def sp500() -> Iterator[Chain]:
    """The two closes."""
    for file in sorted((DATA / "spx_chains").glob("*.csv.gz")):
        table, _ = read_chain(file, import_cboe.SCHEMA, layout="CBOE")
        as_of, expiry = import_cboe.times(table)
        quotes = import_cboe.quotes(table, np.flatnonzero(expiry > as_of), expiry)
        fitted = fit_chain(quotes, spot=float(np.median(table["spot_last"])), as_of=as_of)
        yield "sp500", "SPX", as_of, [
            _expiry(s.expiry, float(fitted.forwards.at(s.expiry)), s.strike, s.bid_vol, s.implied_vol, s.ask_vol)
            for s in fitted.smiles
        ]  # fmt: skip


def _columns(points: list[dict]) -> list[np.ndarray]:
    return [np.array([p[name] for p in points]) for name in ("strike", "bid_vol", "implied_vol", "ask_vol")]


def _expiry(expiry: float, forward: float, strike: np.ndarray, *vols: np.ndarray) -> Expiry:
    return Expiry(expiry, strike, Quotes(np.log(strike / forward), *vols))


def measure(arguments: argparse.Namespace) -> Figures:
    """All chains, or the first two of Deribit."""
    chains = [*islice(deribit(), 2)] if arguments.quick else [*deribit(), *sp500()]
    counts: defaultdict[str, int] = defaultdict(int)
    seconds: defaultdict[str, list[float]] = defaultdict(list)
    worst: defaultdict[str, list[tuple[float, str]]] = defaultdict(list)
    most: defaultdict[str, float] = defaultdict(float)
    for kind in (SurfaceKind.SVI, SurfaceKind.SSVI):
        counts |= {f"{kind}_{venue}_chains": 0 for venue in ("deribit", "sp500")}
        for venue, underlying, as_of, chain in chains:
            key, begun = f"{kind}_{venue}", time.perf_counter()
            counts[f"{key}_chains"] += 1
            try:
                fit = fit_surface(underlying, chain, as_of=as_of, kind=kind)
            except InputError as error:
                counts[f"{key}_refused"] += 1
                print(key, time.strftime("%F", time.gmtime(as_of)), error)
                continue
            seconds[key].append(time.perf_counter() - begun)
            room, rise = arbitrage(fit.surface)
            counts[f"{key}_butterfly"] += room < 1
            counts[f"{key}_calendar"] += rise < 1
            for e in fit.expiries:
                days = (e.slice.expiry - as_of) / DAY
                bucket = next(name for name, most_days in BUCKETS.items() if days <= most_days)
                inside, quotes = e.inside
                for name in (bucket, *(["beyond_2d"] if days > 2 else [])):
                    counts[f"{key}_{name}_inside"] += inside
                    counts[f"{key}_{name}_quotes"] += quotes
                most[f"{key}_raised_most_vol"] = max(most[f"{key}_raised_most_vol"], e.raised)
            for expiry, strike, x in fit.worst[:3]:
                if expiry - as_of > 2 * DAY:
                    days = [time.strftime("%F", time.gmtime(t)) for t in (as_of, expiry)]
                    worst[key].append((abs(x), f"{days[0]} {underlying} {days[1]} {strike:g} {x * 100:+.1f}"))
    figures: Figures = {**counts, **most}
    for key, taken in seconds.items():
        figures[f"{key}_s"] = float(np.median(taken))
        figures[f"{key}_slowest_s"] = float(np.max(taken))
        figures[f"{key}_worst"] = "; ".join(name for _, name in sorted(worst[key], reverse=True)[:5])
        figures[f"{key}_share"] = counts[f"{key}_beyond_2d_inside"] / max(counts[f"{key}_beyond_2d_quotes"], 1)
    for name, value in figures.items():
        print(f"{name:>40}  {value}")
    return figures


if __name__ == "__main__":
    benchmark(__doc__ or "", measure)
