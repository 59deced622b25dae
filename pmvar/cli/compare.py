"""`pmvar compare`: any margin methods on one book, beside the Monte Carlo margin."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmvar.cli.progress import progress
from pmvar.cli.run import keep_compiled

if TYPE_CHECKING:
    from pmvar.market.snapshot import MarketSnapshot
    from pmvar.methods.result import Method


def compare_book(
    book: Path,
    out: Path,
    *,
    methods: Sequence[str],
    span_file: Path | None = None,
    overrides: Mapping[str, Any],
    table_format: str,
    log_json: bool,
) -> str:
    """Margin every account of `book` by every method and publish in `out`; returns what to print.

    With `span_file` the method span is that file's own: its risk arrays and parameters.
    """
    from pmvar.io.book import load_book
    from pmvar.io.run import check_writable
    from pmvar.methods.registry import methods_named

    begun = time.perf_counter()
    check_writable(out)
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
        report.write(out, inputs=loaded.input_hashes, book=book, table_format=table_format)
    shown = ("method", "total_margin", "ratio_median", "rank_correlation", "n_under")
    rows = zip(*(report.tables["methods"][c] for c in shown), strict=True)
    seconds = time.perf_counter() - begun
    return "\n".join([
        f"{loaded.portfolio.n_accounts:,} accounts under {len(chosen) + 2} methods in {seconds:.1f} s",
        f"{'method':<12}{'total margin':>18}{'median / ES':>13}{'rank corr.':>12}{'below VaR':>11}",
        *(f"{m:<12}{total:>18,.0f}{ratio:>13.2f}{rank:>12.2f}{under:>11,.0f}" for m, total, ratio, rank, under in rows),
        f"report: {Path(out) / 'report.html'}",
    ])  # fmt: skip


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
