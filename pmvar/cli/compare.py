"""`pmvar compare`: any margin methods on one book, beside the Monte Carlo margin."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pmvar.cli.progress import progress
from pmvar.cli.run import keep_compiled
from pmvar.errors import UsageError

if TYPE_CHECKING:
    from pmvar.calibration.panel import Moves
    from pmvar.market.snapshot import MarketSnapshot
    from pmvar.methods.result import Method


def compare_book(
    book: Path,
    out: Path,
    *,
    methods: Sequence[str],
    span_file: Path | None = None,
    history: Path | None = None,
    vols: Path | None = None,
    first: str | None = None,
    overrides: Mapping[str, Any],
    table_format: str,
    log_json: bool,
) -> str:
    """Margin every account of `book` by every method and publish in `out`; returns what to print.

    With `span_file` the method span is that file's own: its risk arrays and parameters. With `history`, a panel of
    prices, and `vols` each margin is judged by the moves of the past from the day `first` on, too.
    """
    from pmvar.io.book import load_book
    from pmvar.io.run import check_writable
    from pmvar.methods.registry import methods_named

    begun = time.perf_counter()
    check_writable(out)
    past = _past(history, vols, first)
    loaded = load_book(book, overrides=overrides)
    import pmvar

    keep_compiled()
    s = loaded.settings
    scenarios = pmvar.simulate(
        loaded.model, loaded.market, seed=s.seed, n_scenarios=s.scenarios, horizon=s.horizon, sampling=s.sampling,
        parameters=s.parameters,
    )  # fmt: skip
    given = {"span": _published(span_file, loaded.market)} if span_file else {}
    chosen = methods_named(methods, loaded.market, loaded.model, scenarios, given=given)
    pnl = pmvar.reprice(loaded.portfolio, loaded.market, scenarios, precision=s.precision)
    with progress(log_json=log_json) as advance:
        report = pmvar.compare(pnl, loaded.portfolio, loaded.rules, chosen, notes=loaded.flags, progress=advance)
        inputs = dict(loaded.input_hashes)
        if past:
            from pmvar.backtest.method_coverage import with_history

            report = with_history(
                report, loaded.portfolio, loaded.market, loaded.model, past.moves, first=past.first,
                precision=s.precision,
            )  # fmt: skip
            inputs |= past.hashes
        report.write(out, inputs=inputs, book=book, table_format=table_format)
    shown = ("method", "total_margin", "ratio_median", "rank_correlation", "n_under")
    rows = zip(*(report.tables["methods"][c] for c in shown), strict=True)
    seconds = time.perf_counter() - begun
    return "\n".join([
        f"{loaded.portfolio.n_accounts:,} accounts under {len(chosen) + 2} methods in {seconds:.1f} s",
        f"{'method':<12}{'total margin':>18}{'median / ES':>13}{'rank corr.':>12}{'below VaR':>11}",
        *(f"{m:<12}{total:>18,.0f}{ratio:>13.2f}{rank:>12.2f}{under:>11,.0f}" for m, total, ratio, rank, under in rows),
        *(_held(report.tables["method_coverage"], report.settings["history"]) if past else ()),
        f"report: {Path(out) / 'report.html'}",
    ])  # fmt: skip


class _Past(NamedTuple):
    """Moves of the past to judge margins by."""

    moves: Moves
    hashes: dict[str, str]
    """Of the files."""
    first: float | None


def _past(history: Path | None, vols: Path | None, first: str | None) -> _Past | None:
    """The panels named; None if there are none. Raises UsageError for options that need a history."""
    if history is None:
        if vols or first:
            raise UsageError("--vols and --from belong to --history; name the closes, too")
        return None
    from pmvar.calibration.panel import moves
    from pmvar.cli.calibrate import read_factors
    from pmvar.io.run import hash_file
    from pmvar.io.times import parse_day

    try:
        start = parse_day(first) if first else None
    except ValueError as error:
        raise UsageError(f"--from: {error}") from error
    files = [history, vols] if vols else [history]
    return _Past(moves(read_factors(history, vols, None)[0]), {f.name: hash_file(f) for f in files}, start)


def _held(table: Mapping[str, Any], history: Mapping[str, Any]) -> Iterator[str]:
    """The table of coverage, as printed."""
    yield (
        f"{history['accounts']:,} accounts under {history['periods']:,} periods, {history['first_day']} to "
        f"{history['last_day']}:"
    )
    heads = f"{'too often broken':>18}{'too seldom':>12}{'red zone':>10}"
    yield f"{'method':<12}{'total margin':>18}{'held':>10}{'least':>10}{heads}"
    shown = ("method", "total_margin", "coverage", "least_coverage", "kupiec_too_many", "kupiec_too_few", "n_red",
             "level")  # fmt: skip
    for method, total, mean, least, many, few, red, level in zip(*(table[c] for c in shown), strict=True):
        tests = f"{many:>18.0%}{few:>12.0%}{red:>10,.0f}" if level else f"{'–':>18}{'–':>12}{'–':>10}"
        yield f"{method:<12}{total:>18,.0f}{mean:>10.2%}{least:>10.2%}{tests}"


def _published(file: Path, market: MarketSnapshot) -> Method:
    """SPAN by the risk arrays of `file`."""
    from pmvar.io.span_read import read_span
    from pmvar.methods.span.published import published_span

    found = read_span(file)
    return published_span(found.contract_id, found.arrays, found.parameters, market)


def write_arrays(book: Path, out: Path, *, overrides: Mapping[str, Any]) -> str:
    """Write the risk arrays of `book`'s instruments to the SPAN file `out`; returns what to print."""
    import numpy as np

    import pmvar
    from pmvar.io.book import load_book
    from pmvar.io.span_write import write_span
    from pmvar.methods.fallback import unpriceable
    from pmvar.methods.span.default import default_arrays
    from pmvar.types import Kind

    loaded = load_book(book, overrides=overrides)
    keep_compiled()
    s, table = loaded.settings, loaded.portfolio.instruments
    missing = unpriceable(table, loaded.market)
    rows = [i for i in range(len(table)) if i not in missing and table.kind[i] != Kind.CASH]
    some = table.take(np.array(rows, dtype=np.int64))
    scenarios = pmvar.simulate(
        loaded.model, loaded.market, seed=s.seed, n_scenarios=s.scenarios, horizon=s.horizon, sampling=s.sampling,
        parameters=s.parameters,
    )  # fmt: skip
    arrays, parameters = default_arrays(some, loaded.market, loaded.model, scenarios)
    write_span(out, some, loaded.market, arrays, parameters)
    left = f"; {len(missing)} that the market cannot value are left out" if missing else ""
    return f"{out}: {len(some):,} risk arrays of {len(parameters.commodities)} underlyings{left}"
