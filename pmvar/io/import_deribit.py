"""import_deribit: one snapshot of a file of coin-settled option chains to a book without positions.

The file holds options only. A future is added for each listed `underlying_name` that is not synthetic (`SYN.…`), and a
perpetual per coin at the index. `market/rates` is a zero USD curve: inverse options are priced without discounting, and
nothing else in the book uses it.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from pmvar.calibration.assumed import VOL_TENOR, assumed_model
from pmvar.errors import InputError, Problem, UsageError
from pmvar.io.chain_file import read_chain
from pmvar.io.import_summary import ImportSummary, book_head, columns, expiry_label
from pmvar.io.problems import Problems
from pmvar.io.schemas import MAX_MEDIAN_VOL, MAX_VOL, PERCENT_FIX
from pmvar.io.tables import Column, Schema, Table, Type
from pmvar.io.times import format_time, parse_time
from pmvar.io.write_book import write_book
from pmvar.kernels.implied_vol import implied_total_deviation
from pmvar.market.fit import two_sided
from pmvar.market.surface import VolSlice, VolSurface
from pmvar.types import DAY, SECONDS_PER_YEAR, Kind, PutCall, Settlement

CONTRACT_USD = {"BTC": 10.0, "ETH": 1.0}
"""Size of a future or perpetual, in USD, of the coins whose options are coin-settled."""
OPTION_SIZE = 1.0
"""Coins per option contract."""
AVERAGING = 1800.0
"""Seconds before expiry from which the index is averaged to the settlement price (Deribit, contract specifications)."""
MAX_AGE = DAY
"""Oldest snapshot that serves a time asked for, in seconds."""
IV_AGREEMENT = 1e-4
"""The venue quotes one vol a strike, to this precision; calls and puts that differ by more are noted."""

_implied = jax.jit(implied_total_deviation)

SCHEMA = Schema(
    "chain",
    (
        Column("timestamp", Type.TIME),
        Column("instrument_name", Type.NAME),
        Column("currency", Type.TEXT, choices=tuple(CONTRACT_USD)),
        Column("option_type", Type.TEXT, choices=tuple(PutCall)),
        Column("strike", Type.NUMBER, low=0.0, exclusive=True),
        Column("expiry_datetime", Type.TIME),
        Column("underlying", Type.NUMBER, low=0.0, exclusive=True),
        Column("underlying_name", Type.NAME),
        Column("index_price", Type.NUMBER, low=0.0, exclusive=True),
        Column("bid_price", Type.NUMBER, optional=True, low=0.0),
        Column("ask_price", Type.NUMBER, optional=True, low=0.0),
        Column("mark_price", Type.NUMBER, optional=True, low=0.0),
        Column("implied_volatility", Type.NUMBER, optional=True, low=0.0, fix=PERCENT_FIX),
        *(
            Column(name, Type.TEXT, optional=True)
            for name in (
                "time_to_maturity", "mid_price", "futures_price", "futures_instrument_name", "delta", "vega",
                "open_interest", "volume", "bid_ask_spread", "volume_usd",
            )
        ),
    ),
    key=("timestamp", "instrument_name"),
)  # fmt: skip


def import_deribit(chain: str | Path, out: str | Path, *, at: str | None = None) -> ImportSummary:
    """Write the book of one snapshot of the file `chain` into the folder `out`.

    `at` (RFC 3339) picks the last snapshot not later and at most 24 h older; without it, the last of the file.
    Raises UsageError for an `at` that is no time, InputError for bad rows, another layout, vols in percent, or no
    snapshot in reach (it lists those of the file), and what `write_book` raises.
    """
    table, source = read_chain(chain, SCHEMA, layout="a Deribit option chain by snapshot")
    as_of = _snapshot_time(table, at)
    rows = np.flatnonzero((table["timestamp"] == as_of) & (table["expiry_datetime"] > as_of))
    expired = int((table["timestamp"] == as_of).sum()) - len(rows)
    _check(table, rows)

    tables: dict[str, list[dict[str, Any]]] = {
        name: [] for name in ("instruments", "market/spots", "market/forwards", "market/vols", "market/marks")
    }
    surfaces: dict[str, VolSurface] = {}
    disagreeing, quoted = 0, quoted_vols(table, rows, as_of=as_of)
    for coin in sorted(set(table["currency"][rows].tolist())):
        mine = rows[table["currency"][rows] == coin]
        index = float(np.median(table["index_price"][mine]))
        tables["market/spots"].append({"name": coin, "price": index, "currency": "USD", "time": as_of})
        _add_delta_one(f"{coin}-PERPETUAL", coin, index, as_of, tables)
        slices = []
        for expiry in np.unique(table["expiry_datetime"][mine]).tolist():
            at_expiry = mine[table["expiry_datetime"][mine] == expiry]
            forward = float(np.median(table["underlying"][at_expiry]))
            tables["market/forwards"].append({"underlying": coin, "expiry": expiry, "forward": forward})
            for name in sorted(set(table["underlying_name"][at_expiry].tolist())):
                if not name.startswith("SYN."):
                    _add_delta_one(name, coin, forward, as_of, tables, expiry=expiry)
            _add_options(table, at_expiry, tables)
            smile, apart = smile_points(table, at_expiry, quoted, forward=forward)
            disagreeing += apart
            tables["market/vols"].extend({"underlying": coin, "expiry": expiry, **point} for point in smile)
            if smile:
                strike, vol = (np.array([p[key] for p in smile]) for key in ("strike", "implied_vol"))
                slices.append(VolSlice(expiry, np.log(strike / forward), vol))
        if not slices:
            raise InputError(Problem(f"the snapshot has no vol of {coin}", "choose another with --at", file=table.file))
        surfaces[coin] = VolSurface(as_of, tuple(slices))
    last = max(row["expiry"] for row in tables["market/forwards"])
    tables["market/rates"] = [{"currency": "USD", "maturity": last, "zero_rate": 0.0}]
    atm = np.array([float(s.vol(np.zeros(1), as_of + VOL_TENOR * DAY)[0]) for s in surfaces.values()])
    model = assumed_model(list(surfaces), atm, as_of=as_of)
    filled = {name: columns(part) for name, part in tables.items()}
    path = write_book(out, book_toml=book_head(as_of), tables=filled, model=model, source=source)

    flags = [row["flag"] for row in tables["market/vols"]]
    counts = {name.removeprefix("market/"): len(part) for name, part in tables.items()}
    notes = [f"snapshot {format_time(as_of)}", "model.json is assumed: calibrate it before margins are used"]
    notes.append("the chain lists options only: futures at the forward and perpetuals at the index were added")
    notes += [f"{flags.count(flag)} vols flagged {flag}" for flag in sorted(set(flags) - {""})]
    if disagreeing:
        notes.append(f"{disagreeing} strikes whose call and put vols differ by more than {IV_AGREEMENT:g}")
    if expired:
        notes.append(f"{expired} options had expired at the snapshot and were left out")
    return ImportSummary(path, counts, tuple(notes))


def _snapshot_time(table: Table, at: str | None) -> float:
    """The `timestamp` of the snapshot that serves `at`."""
    times = np.unique(table["timestamp"])
    if at is None:
        return float(times[-1])
    try:
        # People leave the seconds out; RFC 3339 does not.
        wanted = parse_time(re.sub(r"(T\d\d:\d\d)(?=[Z+-])", r"\1:00", at))
    except (ValueError, OverflowError) as error:
        raise UsageError(f"--at: {error}") from error
    near = times[(times <= wanted) & (times >= wanted - MAX_AGE)]
    if not len(near):
        raise InputError(
            Problem(
                "no snapshot is at most 24 h older than the time asked for",
                f"snapshots are at {', '.join(format_time(t) for t in times)}",
                file=table.file,
                column="timestamp",
                value=at,
            )
        )
    return float(near[-1])


def _check(table: Table, rows: np.ndarray) -> None:
    """Reject names that contradict their columns, and vols in percent."""
    problems = Problems()
    if not len(rows):
        raise InputError(Problem("every option had expired at the snapshot", "choose another", file=table.file))
    wrong = np.zeros(len(table), bool)
    for i in rows.tolist():
        label = expiry_label(float(table["expiry_datetime"][i]))
        side = "C" if table["option_type"][i] == "call" else "P"
        name = f"{table['currency'][i]}-{label}-{table['strike'][i]:.10g}-{side}"
        wrong[i] = table["instrument_name"][i] != name
    rule = "the name must agree with currency, expiry, strike and type"
    table.reject(problems, wrong, column="instrument_name", rule=rule, fix="correct the row")
    median = float(np.nanmedian(table["implied_volatility"][rows]))
    if median > MAX_MEDIAN_VOL:
        rule = f"the median vol must not exceed {MAX_MEDIAN_VOL:g}; it is {median:g}"
        problems.add(Problem(rule, PERCENT_FIX, file=table.file, column="implied_volatility"))
    problems.raise_any()


def _add_delta_one(
    name: str, coin: str, price: float, as_of: float, tables: dict[str, list[dict[str, Any]]], **terms: float
) -> None:
    """A future (with `expiry`) or perpetual, marked at `price` in USD."""
    kind = Kind.FUTURE if terms else Kind.PERPETUAL
    tables["instruments"].append(_inverse(name, kind, coin, size=CONTRACT_USD[coin]) | terms)
    tables["market/marks"].append({"instrument_id": name, "mark": price, "time": as_of})


def _inverse(name: str, kind: Kind, coin: str, *, size: float) -> dict[str, Any]:
    return {
        "instrument_id": name,
        "kind": kind,
        "underlying": coin,
        "settlement": Settlement.INVERSE,
        "quote_currency": "USD",
        "settlement_currency": coin,
        "contract_size": size,
    }


def _add_options(table: Table, rows: np.ndarray, tables: dict[str, list[dict[str, Any]]]) -> None:
    for i in rows.tolist():
        name = str(table["instrument_name"][i])
        option = _inverse(name, Kind.OPTION, str(table["currency"][i]), size=OPTION_SIZE)
        expiry = float(table["expiry_datetime"][i])
        terms = {"expiry": expiry, "strike": table["strike"][i]}
        # Once averaging has begun the chain would have to say what the average is so far.
        if expiry - AVERAGING > table["timestamp"][i]:
            terms["averaging_start"] = expiry - AVERAGING
        tables["instruments"].append(option | terms | {"put_call": table["option_type"][i], "exercise": "european"})
        if not np.isnan(table["mark_price"][i]):
            quote = {key: float(table[f"{key}_price"][i]) for key in ("mark", "bid", "ask")}
            tables["market/marks"].append({"instrument_id": name, **quote, "time": table["timestamp"][i]})


def quoted_vols(table: Table, rows: np.ndarray, *, as_of: float) -> dict[int, tuple[float, float]]:
    """Vols of bid and ask of the two-sided quotes among `rows`, out of the money by their own forward: a coin price is
    a Black price per unit of forward."""
    bid, ask = table["bid_price"][rows], table["ask_price"][rows]
    k = np.log(table["strike"][rows] / table["underlying"][rows])
    year = (table["expiry_datetime"][rows] - as_of) / SECONDS_PER_YEAR
    # In the money by parity; what is then no price has no vol.
    call = table["option_type"][rows] == PutCall.CALL
    intrinsic = np.maximum(np.where(call, 1, -1) * -np.expm1(k), 0.0)
    deviation, _ = _implied(jnp.asarray(np.stack([bid, ask]) - intrinsic), jnp.asarray(np.stack([k, k])))
    vol = np.asarray(deviation) / np.sqrt(year)
    sound = two_sided(bid, ask) & (vol[0] > 0) & (vol[1] < MAX_VOL)
    return {int(i): (low, high) for i, low, high, ok in zip(rows, *vol.tolist(), sound, strict=True) if ok}


def smile_points(
    table: Table, rows: np.ndarray, quoted: dict[int, tuple[float, float]], *, forward: float
) -> tuple[list[dict[str, Any]], int]:
    """Points of one expiry by strike, each from its out-of-the-money side where that is listed with a vol; and the
    number of strikes whose two sides disagree."""
    points, apart = [], 0
    vols = table["implied_volatility"]
    for strike in np.unique(table["strike"][rows]).tolist():
        sides = {str(table["option_type"][i]): i for i in rows[table["strike"][rows] == strike] if vols[i] > 0}
        if not sides:
            continue
        i = sides.get("call" if strike >= forward else "put", next(iter(sides.values())))
        apart += int(len(sides) == 2 and abs(vols[sides["call"]] - vols[sides["put"]]) > 1.5 * IV_AGREEMENT)
        bid, ask = quoted.get(int(i), (np.nan, np.nan))
        point = {"strike": strike, "implied_vol": float(vols[i]), "bid_vol": bid, "ask_vol": ask}
        points.append(point | {"flag": _flag(table, int(i))})
    return points, apart


def _flag(table: Table, i: int) -> str:
    """What is wrong with the quote of row `i`; an empty string for a sound one."""
    bid, ask, mark = table["bid_price"][i], table["ask_price"][i], table["mark_price"][i]
    if not mark > 0:
        return "zero-mark"
    if not (bid > 0 or ask > 0):
        return "no-quote"
    if not (bid > 0 and ask > 0):
        return "one-sided"
    return "crossed" if bid >= ask else ""
