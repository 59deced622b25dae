"""Book: a folder of tables and settings, read strictly into the objects that the engine takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pmvar.errors import InputError, NumericsError, Problem, UsageError
from pmvar.instruments import Instruments
from pmvar.io.bond_terms import rate_flags
from pmvar.io.instrument_tables import (
    build_instruments,
    check_curves,
    check_marks,
    check_names,
    check_terms,
    strike_flags,
)  # fmt: skip
from pmvar.io.market_tables import Notes, build_market
from pmvar.io.model_file import read_model
from pmvar.io.overrides import Override
from pmvar.io.problems import Problems
from pmvar.io.schemas import OPTIONAL, POSITIONS, REQUIRED, SCHEMAS
from pmvar.io.settings import BookHead, RunSettings, check_overrides, read_head
from pmvar.io.source import Source
from pmvar.io.tables import Table, read_stream, read_table
from pmvar.market.fit_surface import SurfaceFit
from pmvar.market.snapshot import MarketSnapshot
from pmvar.models.specification import ModelSpecification
from pmvar.portfolio import Portfolio, build_portfolio
from pmvar.risk.rules import MarginRules
from pmvar.types import FactorKind, Kind, Netting, VolatilitySource, factor_name


@dataclass(frozen=True, eq=False)
class Book:
    """All that a run needs, checked."""

    path: Path
    market: MarketSnapshot
    portfolio: Portfolio
    model: ModelSpecification
    rules: MarginRules
    settings: RunSettings
    limits: Mapping[str, float]
    """`max_price_age` in seconds, `max_price_jump` in standard deviations, where given."""
    overrides: tuple[Override, ...]
    """Findings of gates that somebody takes on."""
    stress: Mapping[str, Mapping[str, float]]
    """Scenario -> factor -> S₁/S₀ − 1 or σ₁/σ₀ − 1."""
    marks: Mapping[str, np.ndarray] | None
    """Columns of market/marks: instrument_id, mark, bid, ask, time (epoch seconds); NaN where blank."""
    input_hashes: Mapping[str, str]
    """Path relative to the book -> SHA-256 of the bytes that were parsed."""
    flags: tuple[str, ...]
    """Sentences a reader must see: strikes not quoted, duplicates summed, rows not used."""
    surface_fits: tuple[SurfaceFit, ...] = ()
    """How fitted surfaces stand to the quotes; none where the surface is raw."""


def load_book(
    path: str | Path, *, tables: Mapping[str, Any] | None = None, overrides: Mapping[str, Any] | None = None
) -> Book:
    """Read the book in the folder `path`.

    `tables` replaces single tables, by the names of the files (`positions`, `market/spots`, …), with any
    object that has `__arrow_c_stream__`: a pyarrow, pandas, polars or duckdb table. `overrides` replaces
    settings of `book.toml` by their key alone (`level`, `seed`, …); None leaves the book's.

    Raises InputError with every problem of every file, UsageError for a wrong override, an unknown table or a
    calendar that is not known, StateError if a file changes while it is read, SecurityError for input that looks like
    an attack.
    """
    folder, given = Path(path), dict(tables or {})
    if not folder.is_dir():
        raise UsageError(f"{folder} is not a folder; a book is a folder with book.toml in it")
    unknown = sorted(set(given) - set(SCHEMAS))
    if unknown:
        raise UsageError(f"unknown tables {unknown}; the tables are {', '.join(SCHEMAS)}")
    source, problems, notes = Source(folder), Problems(), Notes()
    wanted = check_overrides(overrides or {})
    head = None
    toml, model_bytes = (_read(source, name, problems=problems) for name in ("book.toml", "model.json"))
    if toml is not None:
        head = read_head(toml, overrides=wanted, problems=problems)
    model = read_model(model_bytes, source=source, problems=problems) if model_bytes is not None else None
    if model is not None and head is not None:
        if head.settings.calendar and model.steps_per_year == 365:
            rule, fix = "a model of 365 steps a year counts every day", "leave the calendar out, or use one of 252"
            problems.add(Problem(rule, fix, file="book.toml", column="run.calendar", value=head.settings.calendar))
        model = replace(model, calendar=head.settings.calendar)
        _check_model(model, head, problems=problems)
    read: dict[str, Table | None] = {}
    for schema in (*REQUIRED, *OPTIONAL):
        if schema.name in given:
            read[schema.name] = read_stream(schema, given[schema.name], source=source, problems=problems)
        else:
            read[schema.name] = read_table(schema, source, problems=problems, optional=schema in OPTIONAL)
    source.verify()

    market = build_market(read, head, problems=problems, notes=notes) if head else None
    listed = read["instruments"]
    instruments = None
    if listed is not None:
        check_terms(listed, problems=problems)
        instruments = build_instruments(listed)
        spots = read["market/spots"]
        if head and spots is not None and spots.complete:
            check_names(listed, spots, head, problems=problems)
        pillars = [read[f"market/{name}"] for name in ("spots", "forwards", "rates", "vols")]
        if market and all(table is None or table.complete for table in pillars):
            check_curves(listed, market, problems=problems)
        marks = read["market/marks"]
        if head and market and marks is not None:
            check_marks(marks, instruments, market, head, problems=problems, notes=notes)
        funding = read["market/funding"]
        if funding is not None:
            perpetual = instruments.instrument_id[instruments.kind == Kind.PERPETUAL].astype(str)
            other = ~np.isin(funding["instrument_id"].astype(str), perpetual)
            rule, fix = "funding is of a perpetual of instruments", "correct the name, or remove the row"
            funding.reject(problems, other, column="instrument_id", rule=rule, fix=fix)
        liquidity = read["market/liquidity"]
        if liquidity is not None:
            known = instruments.instrument_id.astype(str)
            unlisted = int((~np.isin(liquidity["instrument_id"].astype(str), known)).sum())
            if unlisted:
                notes.flags.append(f"market/liquidity: {unlisted} rows belong to instruments that are not listed")
    _check_netting(read, head.settings.netting if head else Netting.REJECT, problems=problems, notes=notes)
    stress = _stress(read["market/stress"], model, market, problems=problems)
    problems.raise_any()
    assert head and market and model and instruments, "a missing part is a problem"

    portfolio = _portfolio(read, instruments, market, notes=notes)
    held = np.zeros(len(portfolio.instruments), bool)
    held[portfolio.quantity.indices] = True
    flags = [*notes.flags, *strike_flags(portfolio.instruments, held, market, read["market/vols"])]
    flags += rate_flags(portfolio.instruments, held, model)
    if model.as_of > head.as_of:
        flags.append("model.json is dated after as_of: it may know what the market did next")
    if head.settings.volatility is VolatilitySource.IMPLIED:
        from pmvar.scenarios.implied import with_implied_volatility

        model, said = with_implied_volatility(model, market, horizon=head.settings.horizon)
        flags += said
    marks = read["market/marks"]
    return Book(
        path=folder,
        market=market,
        portfolio=portfolio,
        model=model,
        rules=head.rules,
        settings=head.settings,
        limits=head.limits,
        overrides=head.overrides,
        stress=stress,
        marks=marks.columns if marks is not None else None,
        input_hashes=dict(sorted(source.hashes.items())),
        flags=(*head.notes, *flags),
        surface_fits=tuple(notes.fits),
    )


def _read(source: Source, name: str, *, problems: Problems) -> bytes | None:
    try:
        return source.read(name)
    except InputError as error:
        problems.extend(error)
        return None


def _check_model(model: ModelSpecification, head: BookHead, *, problems: Problems) -> None:
    """Build the model once, and at each volatility that a margin asks for: what is wrong with its parameters or its
    state must not end a run halfway."""
    # Loads JAX, which reading tables does not need; compiles nothing.
    from pmvar.models import build
    from pmvar.models.at_volatility import VOLATILITY, under
    from pmvar.scenarios.clock import horizon_steps

    steps = horizon_steps(head.settings.horizon)
    try:
        build(model, steps)
        for volatility in (VOLATILITY[tool] for tool in head.rules.apc if tool in VOLATILITY):
            build(under(model, volatility), steps)
    except InputError as error:
        problems.extend(error, file="model.json")
    except NumericsError as error:
        fix = "calibrate it again from complete data"
        problems.add(Problem(str(error).removeprefix("model.json: "), fix, file="model.json", column="correlation"))


def _check_netting(read: Mapping[str, Table | None], netting: Netting, *, problems: Problems, notes: Notes) -> None:
    """Reject duplicate positions and balances, or flag that they are summed."""
    for name, key in (("positions", ("account_id", "instrument_id")), ("balances", ("account_id", "asset"))):
        table = read[name]
        pairs = table.duplicates(key) if table is not None else []
        if table is None or not pairs:
            continue
        if netting is Netting.SUM:
            first = int(table.row[pairs[0][1]])
            notes.flags.append(f"{table.file}: {len(pairs)} duplicate rows summed, the first in row {first}")
            continue
        for earlier, later in pairs:
            where = {"file": table.file, "row": int(table.row[later]), "column": key[0]}
            shown = ", ".join(str(table[column][later]) for column in key)
            rule = f"({', '.join(key)}) must be unique; row {table.row[earlier]} has the same"
            problems.add(Problem(rule, "remove one, or choose netting sum", value=shown, **where))


def _stress(
    table: Table | None, model: ModelSpecification | None, market: MarketSnapshot | None, *, problems: Problems
) -> dict[str, dict[str, float]]:
    if table is None:
        return {}
    if model is not None:
        unknown = ~np.isin(table["factor"].astype(str), model.factor_names)
        fix = "correct the name, or calibrate a model that has it"
        table.reject(problems, unknown, column="factor", rule="a stress moves a factor of model.json", fix=fix)
    scales = market.scales if market is not None else {}
    free = [factor_name(name, FactorKind.SPOT) for name, scale in scales.items() if scale.is_linear]
    impossible = (table["shock"] <= -1) & ~np.isin(table["factor"].astype(str), free)
    rule = "must be above −1 (−100%), but of a Bachelier price"
    table.reject(problems, impossible, column="shock", rule=rule, fix="write −40% as −0.4")
    stress: dict[str, dict[str, float]] = {}
    for scenario, factor, shock in zip(table["scenario"], table["factor"], table["shock"].tolist(), strict=True):
        stress.setdefault(str(scenario), {})[str(factor)] = shock
    return stress


def _portfolio(
    read: Mapping[str, Table | None], instruments: Instruments, market: MarketSnapshot, *, notes: Notes
) -> Portfolio:
    """The holdings; accounts with an expired instrument or an unpriced balance are withheld like those with
    an unknown one, and neither reaches the engine as a column."""
    positions, balances = read["positions"], read["balances"]
    assert positions is not None
    expired = instruments.expiry <= market.as_of
    past = set(instruments.instrument_id[expired].tolist())
    account, instrument, quantity = (positions[column.name] for column in POSITIONS.columns)
    balance: dict[str, np.ndarray] = {}
    unpriced: set[str] = set()
    if balances is not None:
        priced = np.isin(balances["asset"].astype(str), [*market.asset, market.base_currency])
        unpriced = {f"CASH:{asset}" for asset in balances["asset"][~priced].tolist()}
        account = np.concatenate([account, balances["account_id"][~priced]])
        names = np.array([f"CASH:{asset}" for asset in balances["asset"][~priced].tolist()], dtype=object)
        instrument = np.concatenate([instrument, names])
        quantity = np.concatenate([quantity, balances["amount"][~priced]])
        balance = {
            "balance_account": balances["account_id"][priced],
            "balance_asset": balances["asset"][priced],
            "balance_amount": balances["amount"][priced],
        }
    portfolio = build_portfolio(
        instruments.take(~expired),
        position_account=account,
        position_instrument=instrument,
        position_quantity=quantity,
        **balance,
    )

    def reason(positions: tuple[tuple[str, float], ...]) -> str:
        first = positions[0][0]
        if first in unpriced:
            return f"no price of {first.removeprefix('CASH:')}"
        return f"{'expired' if first in past else 'unknown'} instrument {first}"

    withheld = {name: reason(held) for name, held in portfolio.unknown.items()}
    still_held = {name for held in portfolio.unknown.values() for name, _ in held}
    notes.flags.extend(f"{name}: expired, held by nobody" for name in sorted(past - still_held))
    return replace(portfolio, withheld=withheld)
