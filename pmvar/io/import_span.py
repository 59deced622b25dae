"""import_span: a SPAN file to a book without positions: its futures, options, prices, vols and rates.

European options are worth what SPAN's own model says of them at the file's volatility: spot Black–Scholes, Black of the
future's price for options on futures. American ones are worth their exercise besides, at that volatility. Days begin
at 00:00 UTC, so that times to expiry are those of the file, counted in days.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pmvar.calibration.assumed import VOL_TENOR, assumed_model
from pmvar.errors import InputError, Problem
from pmvar.io.import_summary import ImportSummary, book_head, columns
from pmvar.io.span_file import FUTURE_OPTION, PHYSICAL, SpanFile
from pmvar.io.span_read import read_span
from pmvar.io.times import format_time, parse_time
from pmvar.io.write_book import write_book
from pmvar.market.surface import VolSlice, VolSurface
from pmvar.types import DAY, Deliverable, Exercise, Kind, PutCall, Settlement

APART = 1e-4
"""Vols of a call and a put of one strike that differ by more are counted."""


@dataclass
class _Counts:
    """For the notes."""

    apart: int = 0
    """Strikes whose call and put vols differ."""
    without: int = 0
    american: int = 0
    undated: int = 0
    crossed: int = 0

    def notes(self) -> list[str]:
        """A line for each that is not zero."""
        lines = (
            (self.apart, "strikes whose call and put vols differ: the one out of the money counts"),
            (self.without, "options without a volatility, or past their expiry, are left out"),
            (
                self.american,
                "American options: the file's vols are taken for those of their American prices",
            ),
            (self.undated, "futures without a settlement date are left out"),
            (self.crossed, "options on another future than others of their expiry are left out"),
        )
        return [f"{count} {line}" for count, line in lines if count]


def import_span(file: str | Path, out: str | Path, *, commodities: Collection[str] = ()) -> ImportSummary:
    """Write the book of the SPAN file `file`, of a positional one `commodities` alone, into the folder `out`.

    Raises what `read_span` raises, InputError if the file has several currencies or no option with a volatility, and
    what `write_book` raises.
    """
    found = read_span(file, commodities=commodities)
    name = Path(file).name
    currencies = sorted({c.currency for c in found.parameters.commodities})
    if len(currencies) != 1:
        rule = "a book is made of one currency"
        raise InputError(Problem(rule, "cut the file to one", file=name, value=", ".join(currencies)))
    currency, as_of = currencies[0], _midnight(found.as_of)
    tables, surfaces, left = _tables(found, currency, as_of)
    if not surfaces:
        raise InputError(Problem("no option has a volatility", "supply a file with options", file=name))
    kept = {row["name"] for row in tables["market/spots"] if row["name"] in surfaces}
    dropped = [row for row in tables["instruments"] if row["underlying"] not in kept]
    for table in ("instruments", "market/spots", "market/forwards"):
        tables[table] = [row for row in tables[table] if row.get("underlying", row.get("name")) in kept]
    atm = np.array([float(surfaces[u].vol(np.zeros(1), as_of + VOL_TENOR * DAY)[0]) for u in surfaces])
    head = book_head(as_of) | {"base_currency": currency}
    path = write_book(
        out, book_toml=head, tables={n: columns(rows) for n, rows in tables.items()},
        model=assumed_model(list(surfaces), atm, as_of=as_of),
    )  # fmt: skip
    counts = {n.removeprefix("market/"): len(rows) for n, rows in tables.items()}
    notes = [f"{found.parameters.source}, as of {format_time(as_of)}", *found.parameters.notes]
    notes.append("model.json is assumed: calibrate it before margins are used")
    notes += left.notes()
    notes += [f"{len(dropped)} contracts on underlyings without options are left out"] * bool(dropped)
    return ImportSummary(path, counts, tuple(notes))


def _tables(
    found: SpanFile, currency: str, as_of: float
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, VolSurface], _Counts]:
    """Tables of the book; surfaces by underlying; what is left out of them."""
    c, left = found.contracts, _Counts()
    underlying = np.array([str(u).split()[0] for u in found.underlying_id], dtype=object)
    names = ("instruments", "market/spots", "market/forwards", "market/vols", "market/rates")
    tables: dict[str, list[dict[str, Any]]] = {n: [] for n in names}
    quotes: dict[tuple[str, float], dict[float, dict[int, float]]] = {}
    forwards: dict[tuple[str, float], float] = {}
    of_options: dict[tuple[str, float], float] = {}
    futures: dict[str, dict[float, float]] = {}
    rates: dict[float, float] = {}
    for i, contract in enumerate(found.contract_id):
        settles, price, name = str(found.settlement_date[i]), float(c.price[i]), str(underlying[i])
        row = {
            "instrument_id": str(contract), "underlying": name, "settlement": Settlement.LINEAR,
            "quote_currency": currency, "settlement_currency": currency, "contract_size": float(c.multiplier[i]),
        }  # fmt: skip
        if found.product[i] == PHYSICAL:
            tables["market/spots"].append({"name": name, "price": price, "currency": currency, "time": as_of})
            continue
        if c.kind[i] == 0 and not settles:
            left.undated += 1
            continue
        expiry, year = _midnight(settles) if settles else as_of, float(c.time[i])
        if c.kind[i] == 0:
            tables["instruments"].append(row | {"kind": Kind.FUTURE, "expiry": expiry})
            futures.setdefault(name, {})[expiry] = price
            if (name, expiry) not in of_options:
                forwards[name, expiry] = price
            continue
        if not (expiry > as_of and c.vol[i] > 0):
            left.without += 1
            continue
        # The forward that prices the options: SPAN's own of the spot, or the future that they are on.
        forward = price * float(np.exp((c.rate[i] - c.dividend[i]) * year))
        if found.product[i] == FUTURE_OPTION and of_options.get((name, expiry), forward) != forward:
            left.crossed += 1
            continue
        of_options[name, expiry] = forwards[name, expiry] = forward
        right = PutCall.CALL if c.kind[i] > 0 else PutCall.PUT
        option = {"kind": Kind.OPTION, "expiry": expiry, "strike": float(c.strike[i]), "put_call": right}
        if found.american[i]:
            left.american += 1
            on = Deliverable.FUTURE if found.product[i] == FUTURE_OPTION else Deliverable.SPOT
            tables["instruments"].append(row | option | {"exercise": Exercise.AMERICAN, "deliverable": on})
        else:
            tables["instruments"].append(row | option | {"exercise": Exercise.EUROPEAN})
        rates[expiry] = float(c.rate[i])
        quotes.setdefault((name, expiry), {}).setdefault(float(c.strike[i]), {})[int(c.kind[i])] = float(c.vol[i])
    physical = {row["name"] for row in tables["market/spots"]}
    for name, by_expiry in futures.items():
        if name not in physical:
            # Without a price of what lies beneath: the nearest future's.
            nearest = by_expiry[min(by_expiry)]
            tables["market/spots"].append({"name": name, "price": nearest, "currency": currency, "time": as_of})
    tables["market/forwards"] = [
        {"underlying": u, "expiry": e, "forward": f} for (u, e), f in sorted(forwards.items()) if e > as_of
    ]
    tables["market/rates"] = [{"currency": currency, "maturity": e, "zero_rate": r} for e, r in sorted(rates.items())]
    slices: dict[str, list[VolSlice]] = {}
    for (name, expiry), by_strike in sorted(quotes.items()):
        forward, points = forwards[name, expiry], []
        for strike, sides in sorted(by_strike.items()):
            left.apart += len(sides) == 2 and abs(sides[1] - sides[-1]) > APART
            points.append((strike, sides.get(1 if strike >= forward else -1, next(iter(sides.values())))))
        tables["market/vols"] += [
            {"underlying": name, "expiry": expiry, "strike": k, "implied_vol": v, "flag": ""} for k, v in points
        ]
        strike, vol = (np.array(column) for column in zip(*points, strict=True))
        slices.setdefault(name, []).append(VolSlice(expiry, np.log(strike / forward), vol))
    return tables, {u: VolSurface(as_of, tuple(own)) for u, own in slices.items()}, left


def _midnight(day: str) -> float:
    return parse_time(f"{day[:4]}-{day[4:6]}-{day[6:]}T00:00:00Z")
