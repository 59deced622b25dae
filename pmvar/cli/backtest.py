"""`pmvar backtest`: models known the day before, against what came."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmvar.cli.calibrate import read_factors
from pmvar.cli.progress import progress
from pmvar.cli.run import keep_compiled
from pmvar.errors import UsageError

if TYPE_CHECKING:
    from pmvar.risk.result import Columns


def backtest_history(
    history: Path,
    vols: Path | None,
    out: Path,
    *,
    models: Sequence[str],
    assets: Sequence[str] | None,
    first: str,
    horizon: str,
    book: Path | None,
    apc: str,
    options: Mapping[str, Any],
    table_format: str,
    log_json: bool,
) -> str:
    """Backtest `models` on the panel in `history` and publish in `out`; returns what to print."""
    from pmvar.backtest.backtest import Accounts, backtest
    from pmvar.backtest.report import BacktestReport
    from pmvar.calibration.panel import moves
    from pmvar.io.book import load_book
    from pmvar.io.run import check_writable
    from pmvar.io.settings import check_overrides
    from pmvar.io.times import parse_day
    from pmvar.scenarios.clock import horizon_steps

    begun = time.perf_counter()
    check_writable(out)
    keep_compiled()
    steps = horizon_steps(horizon)
    if steps != round(steps):
        raise UsageError(f"a backtest's horizon is whole days, not {horizon}")
    try:
        start = parse_day(first)
    except ValueError as error:
        raise UsageError(f"--from: {error}") from error
    panel, source, level = read_factors(history, vols, assets)
    tools = check_overrides({"apc": apc})["apc"]
    accounts = None
    if book is not None:
        loaded = load_book(book)
        accounts = Accounts(loaded.portfolio, loaded.market, {})
    with progress(log_json=log_json) as advance:
        found = backtest(
            moves(panel),
            models,
            first=start,
            horizon=int(steps),
            accounts=accounts,
            vol_level=level,
            tools=tools,
            progress=advance,
            **options,
        )
    report = BacktestReport(found.tables, (), found.settings, found.notes)
    report.write(out, inputs={source["file"]: source["sha256"]}, table_format=table_format)
    rows = zip(*(found.tables["models"][c] for c in ("model", "breach_rate", "z2_rejected", "average_margin", "score",
                                                     "verdict", "rejected_classes")), strict=True)  # fmt: skip
    seconds = time.perf_counter() - begun
    return "\n".join([
        f"{found.settings['periods']:,} forecasts of {len(found.days[0].account_id):,} accounts, {len(models)} models, "
        f"{seconds:.1f} s",
        f"{'model':<22}{'breaches':>10}{'Z2 rejects':>12}{'mean margin':>14}{'FZ score':>10}  verdict",
        *(
            f"{m:<22}{rate:>10.2%}{z2:>12.0%}{cost:>14,.0f}{score:>10.3f}  {verdict.lower()} {which}".rstrip()
            for m, rate, z2, cost, score, verdict, which in rows
        ),
        *_tools(found.tables["tools"]),
        f"report: {Path(out) / 'report.html'}",
    ])  # fmt: skip


def _tools(table: Columns) -> list[str]:
    """What each tool costs and gains, where any was asked for."""
    columns = ("model", "tools", "coverage", "average_margin", "peak_to_trough", "max_rise_20", "step_20")
    rows = list(zip(*(table[c] for c in columns), strict=True))
    head = (
        f"{'model':<22}{'tools':<26}{'covered':>9}{'mean margin':>14}{'peak/trough':>13}{'20-day rise':>13}"
        f"{'step 20':>9}"
    )
    return [head] * bool(rows) + [
        f"{m:<22}{t:<26}{c:>9.2%}{cost:>14,.0f}{peak:>13.2f}{rise:>13.0%}{step:>9.2f}"
        for m, t, c, cost, peak, rise, step in rows
    ]
