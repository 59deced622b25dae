"""`pmvar run`: the one path of the package, from a book on disk to a published run."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmvar.cli.progress import progress

if TYPE_CHECKING:
    from pmvar.models.specification import ModelSpecification
    from pmvar.valuation.reprice import ProfitAndLoss

SOME_WITHHELD = 4
"""Exit code: published, but some accounts could not be valued."""


def keep_compiled() -> None:
    """Keep compiled kernels between runs, in the user's cache."""
    import jax

    if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
        jax.config.update("jax_compilation_cache_dir", str(Path(base) / "pmvar" / "jax"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)


def _last_margins(out: Path) -> dict[str, float]:
    """The last initial margin of each account that came from a valuation, from the run that is being replaced."""
    from pmvar.io.run import MANIFEST, read_run

    if not (out / MANIFEST).is_file():
        return {}
    before = read_run(out)
    table = before.tables["margins"]
    rows = zip(table["account_id"], table["initial_margin"], table["status"], strict=True)
    valued = {str(account): float(margin) for account, margin, status in rows if status != "WITHHELD"}
    # An account withheld for several runs keeps the margin of the last that could value it.
    return {**before.manifest["settings"].get("last_good", {}), **valued}


def run_book(
    book: Path,
    out: Path,
    *,
    overrides: Mapping[str, Any],
    preset: str | None,
    greeks: bool,
    table_format: str,
    acknowledged: Collection[str],
    memory_bytes: float | None,
    log_json: bool,
) -> tuple[str, int]:
    """Margin every account of `book` and publish in `out`; returns what to print and the exit code."""
    from pmvar.io.book import load_book
    from pmvar.io.preset import load_preset
    from pmvar.io.run import account_count_gate, check_writable

    begun = time.perf_counter()
    check_writable(out)
    chosen = load_preset(preset) if preset else None
    loaded = load_book(book, overrides=chosen.over(overrides) if chosen else overrides)
    if chosen:
        chosen.check_model(loaded.model.model)
    account_count_gate(out, loaded.portfolio.n_accounts, acknowledged=acknowledged)
    last_good = _last_margins(out)

    import pmvar

    keep_compiled()
    s = loaded.settings

    def profit(model: ModelSpecification) -> ProfitAndLoss:
        scenarios = pmvar.simulate(
            model, loaded.market, seed=s.seed, n_scenarios=s.scenarios, horizon=s.horizon, sampling=s.sampling
        )
        return pmvar.reprice(loaded.portfolio, loaded.market, scenarios, precision=s.precision)

    stress = pmvar.stress_scenarios(loaded.stress, loaded.model, loaded.market)
    pnl = profit(loaded.model)
    decorrelated = profit(loaded.model.decorrelated(s.decorrelation)) if s.decorrelation else None
    said = {"netting": str(s.netting), "surface": s.surface, "decorrelation": s.decorrelation, "preset": preset or ""}
    with progress(log_json=log_json) as advance:
        report = pmvar.margin_report(
            pnl, loaded.portfolio, loaded.rules,
            stress=stress, decorrelated=decorrelated, last_good=last_good, greeks=greeks, memory_bytes=memory_bytes,
            settings=said,
            notes=((chosen.note,) if chosen else ()) + loaded.flags, progress=advance,
        )  # fmt: skip
        report.write(out, inputs=loaded.input_hashes, book=book, table_format=table_format)
    margins = report.tables["margins"]
    counts = {name: int((margins["status"] == name).sum()) for name in ("OK", "MARGIN_CALL", "LIQUIDATION", "WITHHELD")}
    currency = loaded.market.base_currency
    total, alone = float(margins["initial_margin"].sum()), float(margins["isolated_margin"].sum())
    saved = f", {1 - total / alone:.0%} below the isolated margin of {alone:,.0f}" if alone > 0 else ""
    text = (
        f"{len(margins['account_id']):,} accounts under {s.scenarios:,} scenarios over {s.horizon} in "
        f"{time.perf_counter() - begun:.1f} s: " + ", ".join(f"{n:,} {name}" for name, n in counts.items() if n) + "\n"
        f"initial margin {total:,.0f} {currency}{saved}\nreport: {Path(out) / 'report.html'}"
    )
    return text, SOME_WITHHELD if counts["WITHHELD"] else 0
