"""import_cboe: a file of S&P 500 index option quotes at the close to a book without positions.

SPX options settle in the morning (09:30 New York), SPXW options in the afternoon (16:00): two expiries,
even on one day. Forwards and discount factors come from put–call parity, vols from the out-of-the-money
mids (`pmvar.market.fit`); nothing is taken from the file's own vols and Greeks.
"""

from __future__ import annotations

import re
from datetime import datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np

from pmvar.calibration.assumed import VOL_TENOR, assumed_model
from pmvar.errors import InputError, Problem, some_of
from pmvar.io.chain_file import read_chain
from pmvar.io.import_summary import ImportSummary, book_head, columns
from pmvar.io.problems import Problems
from pmvar.io.tables import Column, Schema, Table, Type
from pmvar.io.times import format_time
from pmvar.io.write_book import write_book
from pmvar.market.fit import ExpiryQuotes, FittedChain, fit_chain, two_sided
from pmvar.types import DAY, Kind, PutCall, Settlement

UNDERLYING = "SPX"
CONTRACT_SIZE = 100.0
STEPS_PER_YEAR = 252
NEW_YORK = ZoneInfo("America/New_York")
CLOSE = "16:00"
"""Time of the quotes, New York."""
SETTLEMENT_TIME = {"SPX": "09:30", "SPXW": CLOSE}
"""By root of the symbol, New York."""
_SYMBOL = re.compile(r"(SPXW?)(\d{6})([CP])(\d{8})", re.ASCII)
_DATE = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_PUT_CALL = {"C": PutCall.CALL, "P": PutCall.PUT}

SCHEMA = Schema(
    "chain",
    (
        Column("quote_date", Type.TEXT),
        Column("spot_last", Type.NUMBER, low=0.0, exclusive=True),
        Column("expiry", Type.TEXT),
        Column("cp", Type.TEXT, choices=tuple(_PUT_CALL)),
        Column("strike", Type.NUMBER, low=0.0, exclusive=True),
        Column("symbol", Type.NAME),
        Column("bid", Type.NUMBER, optional=True, low=0.0),
        Column("ask", Type.NUMBER, optional=True, low=0.0),
        *(
            Column(name, Type.TEXT, optional=True)
            for name in ("last", "volume", "iv", "delta", "gamma", "open_interest")
        ),
    ),
    key=("symbol",),
)


def import_cboe(chain: str | Path, out: str | Path) -> ImportSummary:
    """Write the book of the quotes in the file `chain`, as of 16:00 New York, into the folder `out`.

    Raises InputError for bad rows, another layout, several quote dates or a chain without live pairs of
    quotes, and what `write_book` raises.
    """
    table, source = read_chain(chain, SCHEMA, layout="a CBOE S&P 500 chain at the close")
    as_of, expiry = times(table)
    live = np.flatnonzero(expiry > as_of)
    if not len(live):
        raise InputError(Problem("every option has expired at the close", "supply a live chain", file=table.file))
    spot = float(np.median(table["spot_last"]))
    fitted = fit_chain(quotes(table, live, expiry), spot=spot, as_of=as_of)

    tables: dict[str, list[dict[str, Any]]] = {
        "instruments": [_option(table, i, expiry=float(expiry[i])) for i in live.tolist()],
        "market/spots": [{"name": UNDERLYING, "price": spot, "currency": "USD", "time": as_of}],
        **_fitted_tables(fitted),
        "market/marks": [
            {
                "instrument_id": table["symbol"][i],
                "mark": (table["bid"][i] + table["ask"][i]) / 2,
                "bid": table["bid"][i],
                "ask": table["ask"][i],
                "time": as_of,
            }
            for i in live[two_sided(table["bid"][live], table["ask"][live])].tolist()
        ],
    }
    atm = fitted.surface.vol(np.zeros(1), as_of + VOL_TENOR * DAY)
    model = assumed_model([UNDERLYING], atm, as_of=as_of, steps_per_year=STEPS_PER_YEAR)
    filled = {name: columns(part) for name, part in tables.items()}
    path = write_book(out, book_toml=book_head(as_of), tables=filled, model=model, source=source)

    counts = {name.removeprefix("market/"): len(part) for name, part in tables.items()}
    notes = [f"as of {format_time(as_of)}", "model.json is assumed: calibrate it before margins are used"]
    for count, what in (
        (len(table) - len(live), "options had expired at the close and were left out"),
        (len(live) - counts["marks"], "quotes are one-sided or crossed: no mark, no vol"),
        (sum(s.dropped for s in fitted.smiles), "strikes have no vol of their own: interpolated, flat in the wings"),
    ):
        if count:
            notes.append(f"{count} {what}")
    notes += [
        f"{format_time(s.expiry)}: no vol has the price quoted at strikes {some_of(f'{k:g}' for k in s.impossible)}"
        for s in fitted.smiles
        if len(s.impossible)
    ]
    notes += [f"forward of {format_time(t)} interpolated: too few pairs" for t in fitted.interpolated_forward]
    return ImportSummary(path, counts, tuple(notes))


def times(table: Table) -> tuple[float, np.ndarray]:
    """Epoch seconds of the quotes and of each row's expiry; rejects dates and symbols that cannot be
    meant."""
    problems = Problems()
    instants: dict[tuple[str, str], float] = {}

    def instant(day: str, clock: str) -> float:
        """NaN for what is no date."""
        if (day, clock) not in instants:
            try:
                sound = _DATE.fullmatch(day)
                moment = datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=NEW_YORK).timestamp()
                instants[day, clock] = moment if sound else np.nan
            except ValueError:
                instants[day, clock] = np.nan
        return instants[day, clock]

    matches = [_SYMBOL.fullmatch(symbol) for symbol in table["symbol"].tolist()]
    sound = [
        match is not None and (match[2], match[3], int(match[4]) / 1000) == (day[2:].replace("-", ""), cp, strike)
        for match, day, cp, strike in zip(
            matches, table["expiry"].tolist(), table["cp"].tolist(), table["strike"].tolist(), strict=True
        )
    ]
    rule = "a symbol is SPX or SPXW, expiry, type and strike, as in SPXW240119C04700000, and agrees with its row"
    table.reject(problems, ~np.array(sound), column="symbol", rule=rule, fix="remove or correct the row")
    as_of = np.array([instant(day, CLOSE) for day in table["quote_date"].tolist()])
    clocks = [SETTLEMENT_TIME[match[1]] if match else CLOSE for match in matches]
    expiry = np.array([instant(day, c) for day, c in zip(table["expiry"].tolist(), clocks, strict=True)])
    for column, value in (("quote_date", as_of), ("expiry", expiry)):
        rule = "must be a date as in 2024-01-19"
        table.reject(problems, np.isnan(value), column=column, rule=rule, fix="correct it")
    other = ~np.isnan(as_of) & (as_of != as_of[0])
    rule = f"one file holds one quote date, here {table['quote_date'][0]}"
    table.reject(problems, other, column="quote_date", rule=rule, fix="split the file")
    problems.raise_any()
    return float(as_of[0]), expiry


def quotes(table: Table, live: np.ndarray, expiry: np.ndarray) -> list[ExpiryQuotes]:
    """The live quotes by expiry and strike."""
    chain = []
    for moment in np.unique(expiry[live]).tolist():
        at = live[expiry[live] == moment]
        strike, row = np.unique(table["strike"][at], return_inverse=True)
        sides = {}
        for letter, name in _PUT_CALL.items():
            mine = table["cp"][at] == letter
            for side in ("bid", "ask"):
                value = np.full(len(strike), np.nan)
                value[row[mine]] = table[side][at[mine]]
                sides[f"{name}_{side}"] = value
        chain.append(ExpiryQuotes(moment, strike, **sides))
    return chain


def _option(table: Table, i: int, *, expiry: float) -> dict[str, Any]:
    return {
        "instrument_id": table["symbol"][i],
        "kind": Kind.OPTION,
        "underlying": UNDERLYING,
        "settlement": Settlement.LINEAR,
        "quote_currency": "USD",
        "settlement_currency": "USD",
        "contract_size": CONTRACT_SIZE,
        "expiry": expiry,
        "strike": table["strike"][i],
        "put_call": _PUT_CALL[str(table["cp"][i])],
        "exercise": "european",
    }


def _fitted_tables(fitted: FittedChain) -> dict[str, list[dict[str, Any]]]:
    forwards, discounts = fitted.forwards, fitted.discounts
    return {
        "market/forwards": [
            {"underlying": UNDERLYING, "expiry": t, "forward": f}
            for t, f in zip(forwards.expiry.tolist(), forwards.forward.tolist(), strict=True)
        ],
        "market/rates": [
            {"currency": "USD", "maturity": t, "zero_rate": r}
            for t, r in zip(discounts.maturity.tolist(), discounts.zero_rate.tolist(), strict=True)
        ],
        "market/vols": [
            {
                "underlying": UNDERLYING,
                "expiry": s.expiry,
                "strike": float(s.strike[i]),
                "implied_vol": float(s.implied_vol[i]),
                "bid_vol": float(s.bid_vol[i]),
                "ask_vol": float(s.ask_vol[i]),
                "flag": "",
            }
            for s in fitted.smiles
            for i in range(len(s.strike))
        ],
    }
