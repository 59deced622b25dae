"""Small books for tests: valid ones, and the parts from which a test makes an invalid one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pmvar.errors import InputError, Problem
from pmvar.io.book import Book, load_book
from pmvar.io.run import read_run
from pmvar.io.times import parse_time
from pmvar.io.write_book import write_book
from pmvar.models.specification import Factor, ModelSpecification

AS_OF = "2025-01-31T08:00:00Z"
NEAR, FAR = "2025-02-28T08:00:00Z", "2025-03-28T08:00:00Z"
SPOT = {"BTC": 100_000.0, "ETH": 3_000.0}
FORWARD = {("BTC", NEAR): 100_500.0, ("BTC", FAR): 101_000.0, ("ETH", NEAR): 3_015.0, ("ETH", FAR): 3_030.0}
STRIKES = {"BTC": (80_000.0, 100_000.0, 120_000.0), "ETH": (2_500.0, 3_000.0, 3_500.0)}
VOL = {"BTC": (0.62, 0.55, 0.58), "ETH": (0.75, 0.70, 0.72)}

Rows = list[dict[str, Any]]
Change = Callable[[dict[str, Rows]], None]


def columns(rows: Rows) -> dict[str, list[Any]]:
    """Rows as columns; a key that a row lacks is blank."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}


def small_rows() -> dict[str, Rows]:
    """Tables of a small valid book: inverse options of two coins, perpetuals, a future, a linear option, a
    spot."""
    instruments: Rows = []
    for coin, size in (("BTC", 10.0), ("ETH", 1.0)):
        inverse = {
            "underlying": coin,
            "settlement": "inverse",
            "quote_currency": "USD",
            "settlement_currency": coin,
        }
        for expiry, label in ((NEAR, "28FEB25"), (FAR, "28MAR25")):
            for strike in STRIKES[coin]:
                for put_call in ("call", "put"):
                    name = f"{coin}-{label}-{strike:.0f}-{put_call[0].upper()}"
                    instruments.append(
                        {"instrument_id": name, "kind": "option", **inverse, "contract_size": 1.0,
                         "expiry": expiry, "strike": strike, "put_call": put_call, "exercise": "european"}
                    )  # fmt: skip
        instruments.append(
            {"instrument_id": f"{coin}-PERPETUAL", "kind": "perpetual", **inverse, "contract_size": size}
        )
    inverse = {
        "underlying": "BTC",
        "settlement": "inverse",
        "quote_currency": "USD",
        "settlement_currency": "BTC",
    }
    linear = inverse | {"settlement": "linear", "settlement_currency": "USD"}
    instruments += [
        {"instrument_id": "BTC-28MAR25", "kind": "future", **inverse, "contract_size": 10.0, "expiry": FAR},
        {"instrument_id": "BTC_USD-28MAR25-110000-C", "kind": "option", **linear, "contract_size": 0.1,
         "expiry": FAR,
         "strike": 110_000.0, "put_call": "call", "exercise": "european"},
        {"instrument_id": "BTC_USD", "kind": "spot", **linear, "contract_size": 1.0},
    ]  # fmt: skip
    positions = [
        ("001", "BTC-28FEB25-100000-C", -5.0), ("001", "BTC-PERPETUAL", 2_000.0),
        ("002", "ETH-28MAR25-2500-P", -40.0), ("002", "ETH-28FEB25-3000-C", 20.0),
        ("002", "ETH-PERPETUAL", -9_000.0),
        ("003", "BTC-28MAR25", 10_000.0), ("003", "BTC-28MAR25-120000-C", -8.0),
        ("desk", "BTC_USD-28MAR25-110000-C", -12.5), ("desk", "BTC_USD", 0.75),
        ("desk", "ETH-28MAR25-3500-C", -3.0),
        ("NA", "BTC-28FEB25-80000-P", 1.0),
    ]  # fmt: skip
    balances = [
        ("001", "BTC", 3.0),
        ("002", "ETH", 60.0),
        ("002", "USD", 25_000.0),
        ("003", "BTC", 1.5),
        ("desk", "USD", 1e5),
    ]
    return {
        "instruments": instruments,
        "positions": [{"account_id": a, "instrument_id": i, "quantity": q} for a, i, q in positions],
        "balances": [{"account_id": a, "asset": s, "amount": q} for a, s, q in balances],
        "market/spots": [
            {"name": coin, "price": price, "currency": "USD", "time": AS_OF, "haircut": 0.1}
            for coin, price in SPOT.items()
        ],
        "market/forwards": [{"underlying": u, "expiry": t, "forward": f} for (u, t), f in FORWARD.items()],
        "market/rates": [{"currency": "USD", "maturity": t, "zero_rate": 0.04} for t in (NEAR, FAR)],
        "market/vols": [
            {"underlying": u, "expiry": t, "strike": k, "implied_vol": v, "bid_vol": v - 0.01,
             "ask_vol": v + 0.01}
            for u, t in FORWARD
            for k, v in zip(STRIKES[u], VOL[u], strict=True)
        ],
        "market/marks": [
            {"instrument_id": "BTC-28FEB25-100000-C", "mark": 0.062, "time": AS_OF},
            {"instrument_id": "BTC-PERPETUAL", "mark": 100_010.0, "time": AS_OF},
        ],
        "market/stress": [
            {"scenario": "crash", "factor": "BTC:spot", "shock": -0.4},
            {"scenario": "crash", "factor": "BTC:vol", "shock": 1.0},
            {"scenario": "rally", "factor": "ETH:spot", "shock": 0.5},
        ],
    }  # fmt: skip


def small_toml() -> dict[str, Any]:
    """`book.toml` of the small book: few scenarios, so that a run is quick."""
    return {
        "format": 1,
        "as_of": AS_OF,
        "base_currency": "USD",
        "surface": "raw",
        "run": {
            "horizon": "2d",
            "level": 0.99,
            "scenarios": 8192,
            "seed": 1,
            "sampling": "sobol-is",
            "netting": "reject",
        },
        "margin": {
            "measure": "expected_shortfall",
            "multiplier": 1.0,
            "floor": 0.0,
            "maintenance_ratio": 0.8,
        },
    }


def small_model() -> ModelSpecification:
    """Student-t, four degrees of freedom, spot and vol of both coins."""
    factors = (
        Factor("BTC:spot", 0.029, 4.0, "assumed"),
        Factor("BTC:vol", 0.047, 4.0, "assumed", 0, 30.0, 0.4),
        Factor("ETH:spot", 0.037, 4.0, "assumed"),
        Factor("ETH:vol", 0.047, 4.0, "assumed", 0, 30.0, 0.4),
    )
    correlation = np.array(
        [[1.0, -0.3, 0.8, -0.2], [-0.3, 1.0, -0.2, 0.7], [0.8, -0.2, 1.0, -0.3], [-0.2, 0.7, -0.3, 1.0]]
    )
    return ModelSpecification("t", parse_time(AS_OF), factors, correlation)


def small_book(
    path: Path,
    *,
    rows: dict[str, Rows] | None = None,
    toml: dict[str, Any] | None = None,
    model: ModelSpecification | None = None,
    table_format: str = "csv",
) -> Path:
    """Write the small book into `path`, or one of other `rows`, `toml` or `model`, and return `path`."""
    return write_book(
        path,
        book_toml=toml or small_toml(),
        tables={name: columns(table) for name, table in (rows or small_rows()).items()},
        model=model or small_model(),
        table_format=table_format,
    )


def load(folder: Path, change: Change | None = None, toml: dict[str, Any] | None = None, **options: Any) -> Book:
    """The small book, with `change` applied to its tables."""
    rows = small_rows()
    if change:
        change(rows)
    return load_book(small_book(folder / "book", rows=rows, toml=toml), **options)


def problems_of(folder: Path, change: Change | None = None, **options: Any) -> tuple[Problem, ...]:
    """The problems of the small book with `change` applied to its tables."""
    with pytest.raises(InputError) as caught:
        load(folder, change, **options)
    return caught.value.problems


def row(rows: Rows, **keys: Any) -> dict[str, Any]:
    """The row with these values."""
    (found,) = [r for r in rows if keys.items() <= r.items()]
    return found


def line(rows: Rows, **keys: Any) -> int:
    """Its line in the CSV file."""
    return rows.index(row(rows, **keys)) + 2


def alter(table: str, key: dict[str, Any], **values: Any) -> Change:
    """A change of one row."""
    return lambda rows: row(rows[table], **key).update(values)


def published_content(out: Path) -> dict[str, bytes]:
    """The files of a run, its manifest without the time that it was made at, what that changes, and where the book
    is."""
    files = {item.name: item.read_bytes() for item in out.iterdir()}
    manifest = json.loads(files["manifest.json"])
    del manifest["created"], manifest["digest"], manifest["book"]
    read_run(out)
    return files | {"manifest.json": json.dumps(manifest).encode()}
