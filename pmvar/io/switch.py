"""switch_book: a book whose underlying moves on another scale, every quoted option at its price."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pmvar.errors import UsageError, some_of
from pmvar.instruments import Instruments
from pmvar.io.atomic import whole_folder
from pmvar.io.book import Book, load_book
from pmvar.io.problems import Problems
from pmvar.io.schemas import SCHEMAS
from pmvar.io.source import Source
from pmvar.io.table_files import TableFormat, write_table_file
from pmvar.io.tables import ENDS, Table, read_table
from pmvar.io.write_book import arrow_table
from pmvar.market.price_scale import PriceScale
from pmvar.market.snapshot import MarketSnapshot
from pmvar.market.surface import Quoted
from pmvar.market.switch import convert_vols
from pmvar.types import SECONDS_PER_YEAR, FactorKind, Kind, PriceModel, factor_name

CONSTANT = ("gaussian", "t", "t-multi")
"""Models whose size of moves is the factors' volatility alone."""
NOTHING = 1e-12
"""Of the unit: a price below this may be lost."""
SIZES = ("volatility", "long_run_volatility", "stressed_volatility")


@dataclass(frozen=True, eq=False)
class Switched:
    """A book before and after, and how well its options kept their prices."""

    before: Book
    after: Book
    scale: PriceScale
    n_vols: int
    """Volatilities converted."""
    quoted: float
    """Largest change of the value of an option at a quoted strike and expiry, over what x = 1 moves its contract by."""
    unquoted: float
    """Of the other options, whose volatilities lie between quotes; 0 where there are none."""
    notes: tuple[str, ...]


def switch_book(
    path: str | Path, underlying: str, *, to: PriceModel, out: str | Path, shift: float | None = None
) -> Switched:
    """Write the book in the folder `path` into `out` with the price of `underlying` on the scale `to`.

    `shift` is, by itself, the size of the price's moves today (of a lognormal price the price), under which the model
    needs no change for Bachelier's scale. On another, moves keep their size in price: the volatility of the price's
    factor and its stresses are divided by what the unit grows by. Volatilities are converted so that every quoted
    option keeps its price, forwards are written for every expiry. Raises UsageError for an unknown underlying, a scale
    that it is on, one that cannot hold its prices, and a model whose moves are not its volatilities' alone, and
    InputError for a book that the scale does not suit (inverse or American contracts, balances).
    """
    folder, before = Path(path), load_book(path)
    market = before.market
    if underlying not in market.asset:
        raise UsageError(f"the book has no price of {underlying}; it has {some_of(market.asset)}")
    old, unit = market.scale(underlying), market.unit(underlying)
    given = 0.0 if to is PriceModel.LOGNORMAL else unit if shift is None else shift
    if not (given > 0 or to is PriceModel.LOGNORMAL) or not unit > 0:
        raise UsageError(f"--shift must be above 0, not {given:g}")
    scale = PriceScale(to, given)
    if scale == old:
        raise UsageError(f"{underlying} is under price_model {to} with that shift already")
    source, problems = Source(folder), Problems()
    names = ("market/spots", "market/forwards", "market/vols", "market/stress")
    read = {name: read_table(SCHEMAS[name], source, problems=problems, optional=True) for name in names}
    tables = {name: _columns(name, table) for name, table in read.items() if table is not None}
    _check_prices(underlying, scale, tables, before.portfolio.instruments)

    ratio = unit / float(scale.unit(float(market.spot[market.column(underlying)])))
    own = tables["market/spots"]["name"] == underlying
    tables["market/spots"]["price_model"][own] = str(to)
    tables["market/spots"]["shift"][own] = given or np.nan
    n_vols, notes = 0, []
    if "market/vols" in tables and underlying in market.forwards:
        n_vols, notes = _convert(tables["market/vols"], market, underlying, old, scale)
    if underlying in market.forwards:
        tables["market/forwards"] = _all_pillars(tables, market, underlying, before.portfolio.instruments)
    if "market/stress" in tables:
        stressed = tables["market/stress"]["factor"] == factor_name(underlying, FactorKind.SPOT)
        tables["market/stress"]["shock"][stressed] *= ratio
    model = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    _rescale(model, underlying, ratio, unit)
    with whole_folder(out, marker="book.toml") as draft:
        shutil.copytree(folder, draft, dirs_exist_ok=True)
        for name, columns in tables.items():
            kept = TableFormat.PARQUET if (folder / f"{name}.parquet").exists() else TableFormat.CSV
            for end in ENDS:
                there = draft / (name + end)
                shutil.rmtree(there) if there.is_dir() else there.unlink(missing_ok=True)
            write_table_file(draft / name, arrow_table(name, columns), table_format=kept)
        text = json.dumps(model, indent=1, ensure_ascii=False, allow_nan=False)
        (draft / "model.json").write_text(text + "\n", encoding="utf-8")
        load_book(draft)
    after = load_book(out)
    quoted, unquoted = _changes(before, after, underlying)
    return Switched(before, after, scale, n_vols, quoted, unquoted, tuple(notes))


def _columns(name: str, table: Table) -> dict[str, np.ndarray]:
    return {column.name: table[column.name].copy() for column in SCHEMAS[name].columns}


def _check_prices(
    underlying: str, scale: PriceScale, tables: dict[str, dict[str, np.ndarray]], instruments: Instruments
) -> None:
    prices = [
        table[column][table[name] == underlying]
        for table, name, column in (
            (tables["market/spots"], "name", "price"),
            (tables.get("market/forwards", {}), "underlying", "forward"),
            (tables.get("market/vols", {}), "underlying", "strike"),
            ({"u": instruments.underlying, "strike": instruments.strike}, "u", "strike"),
        )
        if table
    ]
    every = np.concatenate(prices)
    bad = every[~np.isnan(every) & ~scale.admits(every)]
    if len(bad):
        raise UsageError(f"{underlying} has a price {bad.min():g}, which price_model {scale.model} does not hold")


def _convert(
    vols: dict[str, np.ndarray], market: MarketSnapshot, underlying: str, old: PriceScale, new: PriceScale
) -> tuple[int, list[str]]:
    """Convert the rows of `underlying` in place; their number, and what is not the price's own volatility."""
    rows = np.flatnonzero((vols["underlying"] == underlying) & (vols["expiry"] > market.as_of))
    expiry, strike = vols["expiry"][rows], vols["strike"][rows]
    forward = market.forwards[underlying].at(expiry)
    lost: list[str] = []
    for column in ("implied_vol", "bid_vol", "ask_vol"):
        given = vols[column][rows]
        has = given > 0
        found, price, known = convert_vols(
            given[has], forward[has], strike[has], (expiry[has] - market.as_of) / SECONDS_PER_YEAR, old=old, new=new
        )
        at = rows[has]
        vols[column][at] = np.where(known, found, np.nan)
        if column == "implied_vol":
            beyond = ~known & (price > NOTHING * new.unit(forward[has]))
            if beyond.any():
                raise UsageError(
                    f"the option of {underlying} at strike {strike[has][beyond][0]:g} is worth more than it can be "
                    f"under price_model {new.model}: there is no volatility to write"
                )
            for i in at[~known]:
                # Nothing is left of its price: any volatility that leaves nothing will do, and it has to have one.
                near = at[known & (vols["expiry"][at] == vols["expiry"][i])]
                if not len(near):
                    raise UsageError(f"no option of {underlying} for {vols['expiry'][i]:.0f} has a price to keep")
                vols[column][i] = vols[column][near[np.argmin(np.abs(vols["strike"][near] - vols["strike"][i]))]]
                lost.append(f"{vols['strike'][i]:g}")
    said = [f"the price at strike {some_of(lost)} is nothing: it has the volatility of the nearest strike"] * bool(lost)
    return len(rows), said


def _all_pillars(
    tables: dict[str, dict[str, np.ndarray]], market: MarketSnapshot, underlying: str, instruments: Instruments
) -> dict[str, np.ndarray]:
    """`market/forwards` with one for every expiry of vols and contracts: between pillars a scale has its own curve."""
    forwards, vols = tables["market/forwards"], tables.get("market/vols")
    curve = market.forwards[underlying]
    wanted = [instruments.expiry[instruments.underlying == underlying]]
    if vols is not None:
        wanted.append(vols["expiry"][vols["underlying"] == underlying])
    every = np.unique(np.concatenate(wanted))
    new = every[np.isfinite(every) & (every > market.as_of) & ~np.isin(every, curve.expiry)]
    added = {"underlying": np.full(len(new), underlying, dtype=object), "expiry": new, "forward": curve.at(new)}
    return {name: np.concatenate([forwards[name], added[name]]) for name in forwards}


def _rescale(model: dict[str, Any], underlying: str, ratio: float, unit: float) -> None:
    """Divide the moves of the price's factor in model.json by what its unit grows by."""
    if abs(ratio - 1) < 1e-12:
        return
    name = factor_name(underlying, FactorKind.SPOT)
    moving = model["model"] not in CONSTANT or model.get("state", {}).get("filter") or model.get("posterior")
    if moving or model.get("parameters", {}).get("jumps"):
        raise UsageError(
            f"under that shift the moves of {name} have another size, which model {model['model']} holds in more than "
            f"volatilities; choose --to bachelier --shift {unit:g}, or calibrate a model of {', '.join(CONSTANT)}"
        )
    for factor in model["factors"]:
        if factor["name"] == name:
            factor.update({key: factor[key] * ratio for key in SIZES if factor.get(key) is not None})


def _changes(before: Book, after: Book, underlying: str) -> tuple[float, float]:
    from pmvar.methods.fallback import unpriceable
    from pmvar.valuation.today import STILL, terms_today, values_under

    table = before.portfolio.instruments
    missing = unpriceable(table, before.market).keys() | unpriceable(table, after.market).keys()
    rows = np.flatnonzero((table.underlying == underlying) & (table.kind == Kind.OPTION))
    some = table.take(np.array([i for i in rows if i not in missing], dtype=np.int64))
    if not len(some):
        return 0.0, 0.0
    values = (values_under(some, terms_today(some, b.market), STILL)[:, 0] for b in (before, after))
    change = np.abs(np.subtract(*values)) / (some.contract_size * before.market.base_unit(underlying))
    surface, curve = before.market.vols[underlying], before.market.forwards[underlying]
    pairs = zip(some.strike.tolist(), some.expiry.tolist(), strict=True)
    is_quoted = np.array([surface.quoted([float(curve.moneyness(k, t))], t)[0] is Quoted.QUOTED for k, t in pairs])
    return float(change[is_quoted].max(initial=0.0)), float(change[~is_quoted].max(initial=0.0))
