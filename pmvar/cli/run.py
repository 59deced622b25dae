"""`pmvar run`: the one path of the package, from a book on disk to a published run."""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

from pmvar.cli.progress import Advance, progress, say
from pmvar.errors import Stopped, UsageError
from pmvar.types import Detail, Executor, Parameters

if TYPE_CHECKING:
    from pmvar.cli.metrics import Metrics
    from pmvar.io.book import Book

IN_BLOCKS = ("accounts", "gradients")
"""Stages whose work is kept block by block."""
PATIENCE = 8.0
"""Seconds from SIGTERM in which the block at hand may end."""
SOME_WITHHELD = 4
"""Exit code: published, but some accounts could not be valued."""


def keep_compiled() -> None:
    """Keep compiled kernels between runs, in the user's cache."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(base) / "pmvar" / "jax"))
        # Small ones, too: a run calls more than a hundred kernels, and reading one takes a fraction of compiling it.
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


UNITS = {"": 2.0**30, "MiB": 2.0**20, "GiB": 2.0**30, "TiB": 2.0**40, "MB": 1e6, "GB": 1e9, "TB": 1e12}
"""Of sizes; a bare number is GiB."""


def size_in_bytes(text: str) -> float:
    """`8GiB` as bytes. Raises UsageError for what is no size."""
    found = re.fullmatch(r"([0-9]+\.?[0-9]*|\.[0-9]+)\s*([A-Za-z]*)", text.strip(), re.ASCII)
    if not found or found[2] not in UNITS or not float(found[1]) > 0:
        raise UsageError(f"{text!r} is not a size; write it as in 8GiB")
    return float(found[1]) * UNITS[found[2]]


class _Stop:
    """SIGTERM: the block at hand is finished first, unless that takes longer than a scheduler waits."""

    def __init__(self) -> None:
        self.since: float | None = None
        signal.signal(signal.SIGTERM, self._asked)

    def _asked(self, number: int, frame: FrameType | None) -> None:
        self.since = self.since or time.monotonic()

    def __call__(self) -> bool:
        return self.since is not None

    def watched(self, advance: Advance) -> Advance:
        """`advance` that ends the run at once where stopping after the block at hand would come too late."""

        def look(stage: str, done: int, total: int) -> None:
            if self.since is not None and (stage not in IN_BLOCKS or time.monotonic() - self.since > PATIENCE):
                raise Stopped("stopped; finished blocks are kept, run again with --resume to go on")
            advance(stage, done, total)

        return look


def run_book(
    book: Path,
    out: Path,
    *,
    overrides: Mapping[str, Any],
    preset: str | None,
    components: bool | None,
    greeks: bool | None,
    table_format: str,
    acknowledged: Collection[str],
    production: bool,
    memory_bytes: float | None,
    executor: Executor,
    workers: int | None,
    resume: bool,
    dry_run: bool,
    log_json: bool,
    figures: Metrics,
) -> tuple[str, int]:
    """Margin every account of `book` and publish in `out`; returns what to print and the exit code, and fills in
    `figures`."""
    if production and acknowledged:
        raise UsageError("--production takes no --acknowledge: [[overrides]] in book.toml say who, why and until when")
    from pmvar.io.book import load_book
    from pmvar.io.gates import pass_gates
    from pmvar.io.preset import load_preset
    from pmvar.io.production import refusals
    from pmvar.io.run import check_writable, read_manifest
    from pmvar.io.table_files import TableFormat

    begun = time.perf_counter()
    if workers and executor is not Executor.RAY:
        raise UsageError("--workers are those of --executor ray")
    check_writable(out)
    chosen = load_preset(preset) if preset else None
    loaded = load_book(book, overrides=chosen.over(overrides) if chosen else overrides)
    if chosen:
        chosen.check_model(loaded.model.model)
    passed = pass_gates(loaded, out, acknowledged=acknowledged, more=refusals(loaded) if production else ())
    loaded = passed.book

    keep_compiled()
    from pmvar.bulk import run as bulk

    s = loaded.settings
    _check_gap(loaded)
    request = bulk.Request(
        book=loaded,
        out=out,
        detail=_detail(components, greeks, loaded.portfolio.n_accounts),
        memory_bytes=memory_bytes,
        executor=executor,
        workers=workers,
        resume=resume,
        table_format=TableFormat(table_format),
        settings={
            "netting": str(s.netting), "surface": s.surface, "decorrelation": s.decorrelation, "preset": preset or "",
            "volatility": str(s.volatility), "stickiness": str(s.stickiness), "parameters": str(s.parameters),
            "plug_in_stress": s.plug_in_stress, "calendar": s.calendar, "production": production, **passed.settings,
        },
        notes=passed.notes + ((chosen.note,) if chosen else ()) + loaded.flags,
    )  # fmt: skip
    if dry_run:
        return str(request.plan), 0
    stop = _Stop()
    with progress(log_json=log_json) as advance:
        watched = stop.watched(figures.watched(advance))
        margins = bulk.run(request, progress=watched, stopping=stop, log=partial(say, log_json=log_json))
    figures.margins, figures.currency = margins, loaded.market.base_currency
    counts = {name: int((margins["status"] == name).sum()) for name in ("OK", "MARGIN_CALL", "LIQUIDATION", "WITHHELD")}
    currency = loaded.market.base_currency
    total, alone = float(margins["initial_margin"].sum()), float(margins["isolated_margin"].sum())
    less, raised = float(margins["diversification_benefit"].sum()), loaded.rules.apc
    saved = f", {less / alone:.0%} below the isolated margin of {alone:,.0f}" if alone > 0 else ""
    saved += f", then raised against procyclicality ({', '.join(raised)})" if raised else ""
    gap = bulk.gap_note(read_manifest(out)["settings"]["uncertainty"], currency) + "\n" if s.plug_in_stress else ""
    text = (
        f"{len(margins['account_id']):,} accounts under {s.scenarios:,} scenarios over {s.horizon} in "
        f"{time.perf_counter() - begun:.1f} s: " + ", ".join(f"{n:,} {name}" for name, n in counts.items() if n) + "\n"
        f"initial margin {total:,.0f} {currency}{saved}\n{gap}report: {Path(out) / 'report.html'}"
    )
    return text, SOME_WITHHELD if counts["WITHHELD"] else 0


def _check_gap(book: Book) -> None:
    """Raise UsageError where a gap between predictive and plug-in margin is asked for and there is none to show."""
    s = book.settings
    if not s.plug_in_stress:
        return
    if book.model.posterior is None:
        raise UsageError("--plug-in-stress needs a model with a posterior: make model.json by calibrate --bayes")
    if s.parameters is Parameters.PLUG_IN:
        raise UsageError("--plug-in-stress stands beside a predictive margin; leave out --parameters plug-in")


def _detail(components: bool | None, greeks: bool | None, n_accounts: int) -> Detail:
    """What the options ask for; where they are silent, as much as the size allows."""
    from pmvar.bulk.plan import detail_for

    if greeks and components is False:
        raise UsageError("--greeks splits the components; leave out --no-components")
    if greeks:
        return Detail.GREEKS
    if components is False:
        return Detail.MARGINS
    by_size = detail_for(n_accounts)
    if greeks is False and by_size is Detail.GREEKS:
        by_size = Detail.COMPONENTS
    return Detail.COMPONENTS if components and by_size is Detail.MARGINS else by_size
