"""import_span: a SPAN file to a book without positions: its futures, options, prices, vols and rates.

Options are worth what SPAN's own model says of them: spot Black–Scholes at the file's volatility. Days begin at 00:00
UTC, so that times to expiry are those of the file, counted in days.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from pmvar.calibration.assumed import VOL_TENOR, assumed_model
from pmvar.errors import InputError, Problem
from pmvar.io.import_summary import ImportSummary, book_head, columns
from pmvar.io.span_xml import SpanFile, read_span
from pmvar.io.times import format_time, parse_time
from pmvar.io.write_book import write_book
from pmvar.market.surface import VolSlice, VolSurface
from pmvar.types import DAY, Kind, PutCall, Settlement

APART = 1e-4
"""Vols of a call and a put of one strike that differ by more are counted."""


def import_span(file: str | Path, out: str | Path) -> ImportSummary:
    """Write the book of the SPAN file `file` into the folder `out`.

    Raises what `read_span` raises, InputError if the file has several currencies or no option with a volatility, and
    what `write_book` raises.
    """
    found = read_span(file)
    name = Path(file).name
    currencies = sorted({c.currency for c in found.parameters.commodities})
    if len(currencies) != 1:
        rule = "a book is made of one currency"
        raise InputError(Problem(rule, "cut the file to one", file=name, value=", ".join(currencies)))
    currency, as_of = currencies[0], _midnight(found.as_of)
    tables, surfaces, apart, without = _tables(found, currency, as_of)
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
    notes += [f"{apart} strikes whose call and put vols differ: the one out of the money counts"] * bool(apart)
    notes += [f"{without} options without a volatility, or past their expiry, are left out"] * bool(without)
    notes += [f"{len(dropped)} contracts on underlyings without options are left out"] * bool(dropped)
    return ImportSummary(path, counts, tuple(notes))


def _tables(
    found: SpanFile, currency: str, as_of: float
) -> tuple[dict[str, list[dict[str, Any]]], dict[str, VolSurface], int, int]:
    """Tables of the book; surfaces by underlying; strikes whose vols differ; options that were left out."""
    c, without = found.contracts, 0
    underlying = np.array([str(u).split()[0] for u in found.underlying_id], dtype=object)
    names = ("instruments", "market/spots", "market/forwards", "market/vols", "market/rates")
    tables: dict[str, list[dict[str, Any]]] = {n: [] for n in names}
    quotes: dict[tuple[str, float], dict[float, dict[int, float]]] = {}
    forwards: dict[tuple[str, float], float] = {}
    rates: dict[float, float] = {}
    for i, contract in enumerate(found.contract_id):
        settles, price, name = str(found.settlement_date[i]), float(c.price[i]), str(underlying[i])
        row = {
            "instrument_id": str(contract), "underlying": name, "settlement": Settlement.LINEAR,
            "quote_currency": currency, "settlement_currency": currency, "contract_size": float(c.multiplier[i]),
        }  # fmt: skip
        if not settles:
            tables["market/spots"].append({"name": name, "price": price, "currency": currency, "time": as_of})
            continue
        expiry, year = _midnight(settles), float(c.time[i])
        if c.kind[i] == 0:
            tables["instruments"].append(row | {"kind": Kind.FUTURE, "expiry": expiry})
            forwards[name, expiry] = price
            continue
        if not (expiry > as_of and c.vol[i] > 0):
            without += 1
            continue
        right = PutCall.CALL if c.kind[i] > 0 else PutCall.PUT
        option = {"kind": Kind.OPTION, "expiry": expiry, "strike": float(c.strike[i]), "put_call": right}
        tables["instruments"].append(row | option | {"exercise": "european"})
        # SPAN's option model knows no future: its forward is the spot's, and it prices the options.
        forwards[name, expiry] = price * float(np.exp((c.rate[i] - c.dividend[i]) * year))
        rates[expiry] = float(c.rate[i])
        quotes.setdefault((name, expiry), {}).setdefault(float(c.strike[i]), {})[int(c.kind[i])] = float(c.vol[i])
    tables["market/forwards"] = [
        {"underlying": u, "expiry": e, "forward": f} for (u, e), f in sorted(forwards.items()) if e > as_of
    ]
    tables["market/rates"] = [{"currency": currency, "maturity": e, "zero_rate": r} for e, r in sorted(rates.items())]
    slices: dict[str, list[VolSlice]] = {}
    apart = 0
    for (name, expiry), by_strike in sorted(quotes.items()):
        forward, points = forwards[name, expiry], []
        for strike, sides in sorted(by_strike.items()):
            apart += len(sides) == 2 and abs(sides[1] - sides[-1]) > APART
            points.append((strike, sides.get(1 if strike >= forward else -1, next(iter(sides.values())))))
        tables["market/vols"] += [
            {"underlying": name, "expiry": expiry, "strike": k, "implied_vol": v, "flag": ""} for k, v in points
        ]
        strike, vol = (np.array(column) for column in zip(*points, strict=True))
        slices.setdefault(name, []).append(VolSlice(expiry, np.log(strike / forward), vol))
    return tables, {u: VolSurface(as_of, tuple(own)) for u, own in slices.items()}, apart, without


def _midnight(day: str) -> float:
    return parse_time(f"{day[:4]}-{day[4:6]}-{day[6:]}T00:00:00Z")
