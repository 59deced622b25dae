"""A run from a loaded book to the published folder: in blocks, each kept as soon as it is done, and resumable."""

# pyarrow.compute makes its functions at import, where no type checker sees them.
# pyright: reportAttributeAccessIssue=false

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pmvar.bulk.blocks import BY_ACCOUNT, Blocks, Result
from pmvar.bulk.job import Job, identity
from pmvar.bulk.journal import Journal, Log, work_folder
from pmvar.bulk.lock import exclusive
from pmvar.bulk.plan import Plan, check_disk, make_plan
from pmvar.engine import PLUG_IN, Progress, finish, half_of_memory, quiet
from pmvar.errors import PmvarError, ResourceError, StateError, Stopped
from pmvar.io.book import Book
from pmvar.io.run import (
    MANIFEST,
    arrow_table,
    check_writable,
    publish,
    read_manifest,
    read_margins,
    table_schema,
)
from pmvar.io.table_files import TableFormat
from pmvar.io.times import parse_time
from pmvar.report.html import render
from pmvar.risk.detail import largest_accounts
from pmvar.risk.result import TABLES, Columns
from pmvar.risk.tables import shock_table
from pmvar.types import DAY, ApcTool, Detail, Executor, Measure

if TYPE_CHECKING:
    from pmvar.bulk.cluster import Cluster


@dataclass(frozen=True)
class Request:
    """What to run and how."""

    book: Book
    out: Path
    detail: Detail
    memory_bytes: float | None = None
    """Of each process; None: half of the machine's for all on it together."""
    resume: bool = False
    table_format: TableFormat = TableFormat.PARQUET
    settings: Mapping[str, Any] = field(default_factory=dict)
    """For the manifest, beside those of the engine."""
    notes: tuple[str, ...] = ()
    executor: Executor = Executor.LOCAL
    workers: int | None = None
    """Of the cluster; see `pmvar.bulk.cluster`."""

    @property
    def plan(self) -> Plan:
        """Made anew whenever it is asked for; raises ResourceError for too small a budget."""
        shared = 1 if self.executor is Executor.LOCAL else 1 + (self.workers or 1)
        return make_plan(self.book, detail=self.detail, budget_bytes=self.memory_bytes or half_of_memory() / shared)


def run(
    request: Request,
    *,
    progress: Progress = quiet,
    stopping: Callable[[], bool] = lambda: False,
    log: Log = lambda text: None,
) -> Columns:
    """Margin every account of the book and publish the run; returns the table `margins`.

    Finished blocks outlive whatever ends the run and `resume` goes on from them, to the same bytes. Raises Stopped
    once `stopping` says so and the block at hand is done, StateError where another run writes the same output or what
    is to be resumed was begun from something else, ResourceError where memory or disk do not suffice.
    """
    check_writable(request.out)
    out = Path(request.out).resolve()
    plan = request.plan
    check_disk(plan, out)
    work = work_folder(out)
    work.mkdir(exist_ok=True)
    with exclusive(work / "lock") as stale:
        if stale:
            log(f"the run before this one in {work} did not come to its end")
        try:
            margins = _locked(request, plan, out, work, progress=progress, stopping=stopping, log=log)
        except (ResourceError, StateError, Stopped):
            raise
        except PmvarError:
            # What is wrong is in the input: the blocks so far are of no use to a run from another.
            shutil.rmtree(work, ignore_errors=True)
            raise
        shutil.rmtree(work, ignore_errors=True)
    return margins


def _locked(
    request: Request,
    plan: Plan,
    out: Path,
    work: Path,
    *,
    progress: Progress,
    stopping: Callable[[], bool],
    log: Log,
) -> Columns:
    journal = Journal.resume(work, log=log) if request.resume else None
    if journal is None and (work / "job.json").exists():
        log(f"what an unfinished run left in {work} is discarded; --resume would go on from it")
    if journal is not None and _is_published(out, journal):
        log("the run before this one had published everything")
        return read_margins(out).tables["margins"]
    last_good, charged = last_margins(out), charged_before(out, request.book.market.as_of)
    fingerprint = _fingerprint(request, last_good, charged)
    if journal is None:
        journal = Journal.begin(work, {"fingerprint": fingerprint, "starts": plan.starts.tolist()})
    else:
        _check_same(fingerprint, journal.head["fingerprint"], work)
        plan = replace(plan, starts=np.array(journal.head["starts"], dtype=np.int64))
        log(f"{len(journal.entries)} of {len(plan.starts)} blocks were finished before")

    job = Job(request.book, plan, request.detail, last_good, charged)
    pending = [i for i in range(len(plan.starts)) if i not in journal.entries]
    with _executor(request, job, log) as workers:
        priced = job.price(progress=progress, log=log)
        if workers is None:
            found = _here(Blocks(priced, detail=request.detail, log=log), plan, pending, progress, stopping)
        else:
            found = workers.compute(pending, poll=_polled(journal, plan, progress, stopping))
        for index, result in found:
            journal.put(index, result.tables, result.withheld)
    if len(journal.entries) < len(plan.starts):
        done = f"{len(journal.entries)} of {len(plan.starts)} blocks"
        raise Stopped(f"stopped after {done}; run again with --resume to go on")
    withheld = {a: reason for i in sorted(journal.entries) for a, reason in journal.entries[i].withheld.items()}
    margins = _whole(journal.parts("margins"), "margins")
    shown = _shown(margins, plan, journal)
    worst = [np.unique(part["scenario"].to_numpy()) for part in journal.parts("worst", columns=["scenario"])]
    ids = np.unique(np.concatenate([np.array([], dtype=np.int64), *worst])).astype(np.int64)
    shown["shocks"] = shock_table(ids, priced.pnl.scenarios)
    settings, notes = dict(request.settings), request.notes
    if request.book.settings.plug_in_stress:
        settings["uncertainty"] = uncertainty = _uncertainty(margins, journal, request.book)
        notes = (*notes, gap_note(uncertainty, request.book.market.base_currency))
    report = finish(priced, {"margins": margins, **shown}, withheld=withheld, notes=notes, settings=settings)
    shocks = arrow_table("shocks", shown["shocks"], TABLES["shocks"])
    publish(
        out,
        {name: [shocks] if name == "shocks" else journal.parts(name) for name in TABLES},
        report,
        report_html=render(report),
        inputs=request.book.input_hashes,
        n_accounts=plan.n_accounts,
        book=request.book.path,
        table_format=request.table_format,
        temporary=work / "publish",
        committing=lambda manifest: journal.publishing(manifest["digest"]),
    )
    return margins


def _executor(request: Request, job: Job, log: Log) -> AbstractContextManager[Cluster | None]:
    if request.executor is Executor.LOCAL:
        return nullcontext()
    from pmvar.bulk.cluster import cluster

    return cluster(job, workers=request.workers, log=log)


def _here(
    blocks: Blocks, plan: Plan, pending: Sequence[int], progress: Progress, stopping: Callable[[], bool]
) -> Iterator[tuple[int, Result]]:
    """The pending blocks one after the other, until it is to stop."""
    for index in pending:
        if stopping():
            return
        yield index, blocks.result(plan.block(index), progress=plan.of_all(progress, index))


def _polled(journal: Journal, plan: Plan, progress: Progress, stopping: Callable[[], bool]) -> Callable[[], bool]:
    """`stopping`, and progress told whenever it is asked."""

    def poll() -> bool:
        progress("accounts", sum(len(plan.block(i)) for i in journal.entries), plan.n_accounts)
        return stopping()

    return poll


def last_margins(out: Path) -> dict[str, float]:
    """The last initial margin of each account that came from a valuation, from the run that is being replaced."""
    if not (out / MANIFEST).is_file():
        return {}
    before = read_margins(out)
    table = before.tables["margins"]
    rows = zip(table["account_id"], table["initial_margin"], table["status"], strict=True)
    valued = {str(account): float(margin) for account, margin, status in rows if status != "WITHHELD"}
    # An account withheld for several runs keeps the margin of the last that could value it.
    return {**before.manifest["settings"].get("last_good", {}), **valued}


def charged_before(out: Path, as_of: float) -> dict[str, tuple[float, float]]:
    """Of each account, the initial margin that the run being replaced charged with its buffer, and how many days before
    `as_of`. A run of the same time is replaced for good: what it went by itself holds again. A later one says nothing.
    """
    if not (out / MANIFEST).is_file():
        return {}
    before = read_margins(out)
    table = before.tables["anti_procyclicality"]
    days = (as_of - parse_time(before.manifest["settings"]["as_of"])) / DAY
    margin = table["initial_margin" if days > 0 else "previous_margin"].tolist()
    since = [days] * len(margin) if days > 0 else table["previous_days"].tolist()
    if days < 0 or ApcTool.BUFFER not in before.manifest["settings"].get("apc", "").split(","):
        return {}
    return {str(a): (m, d) for a, m, d in zip(table["account_id"], margin, since, strict=True) if m > 0}


def _is_published(out: Path, journal: Journal) -> bool:
    """Whether the end came after the results had taken their place."""
    return (out / MANIFEST).is_file() and read_manifest(out)["digest"] == journal.published


def _uncertainty(margins: Columns, journal: Journal, book: Book) -> dict[str, float]:
    """The measure, summed over accounts that are valued, with the uncertainty of the parameters and without."""
    expected = book.rules.measure is Measure.EXPECTED_SHORTFALL
    measure = margins["expected_shortfall" if expected else "value_at_risk"]
    parts = [p.filter(pc.equal(p["scenario"], PLUG_IN))["loss"].to_numpy() for p in journal.parts("stress")]
    return {
        "predictive": float(measure[margins["status"] != "WITHHELD"].sum()),
        "plug_in": float(np.concatenate([np.zeros(0), *parts]).sum()),
    }


def gap_note(uncertainty: Mapping[str, float], currency: str) -> str:
    """What the uncertainty of the parameters costs, in words."""
    with_it, without = uncertainty["predictive"], uncertainty["plug_in"]
    share = f", {with_it / without - 1:+.1%}" if without > 0 else ""
    return (
        f"uncertainty of the parameters: the measure of all accounts is {with_it:,.0f} {currency}, under the estimates "
        f"alone {without:,.0f}{share}; by account, scenario {PLUG_IN} of the table stress"
    )


def _fingerprint(
    request: Request, last_good: Mapping[str, float], charged: Mapping[str, tuple[float, float]]
) -> dict[str, Any]:
    """Everything that a bit of the results depends on."""
    book = request.book
    before = json.dumps([sorted(last_good.items()), sorted(charged.items())])
    said = {
        "inputs": dict(book.input_hashes),
        "settings": {name: str(value) for name, value in asdict(book.settings).items()},
        "rules": {name: str(value) for name, value in asdict(book.rules).items()},
        "options": {"detail": str(request.detail), **{n: str(v) for n, v in request.settings.items()}},
        "margins before": hashlib.sha256(before.encode()).hexdigest(),
        **identity(),
    }
    return json.loads(json.dumps(said))


def _check_same(now: Mapping[str, Any], before: Mapping[str, Any], work: Path) -> None:
    """Raise StateError naming what changed since the run was begun."""
    changed = [
        f"{part}: {name}" if name else part
        for part in now
        for name in _differences(now[part], before.get(part))
    ]  # fmt: skip
    if changed:
        raise StateError(
            f"{work} was begun from something else ({', '.join(changed[:5])}); restore it, or run without --resume"
        )


def _differences(now: Any, before: Any) -> Iterable[str]:
    if isinstance(now, Mapping) and isinstance(before, Mapping):
        return [name for name in sorted({*now, *before}) if now.get(name) != before.get(name)]
    return [""] if now != before else []


def _whole(parts: Iterator[pa.Table] | list[pa.Table], name: str) -> dict[str, np.ndarray]:
    table = pa.concat_tables([table_schema(name, TABLES[name]).empty_table(), *parts])
    return {column: table[column].to_numpy() for column in TABLES[name]}


def _shown(margins: Columns, plan: Plan, journal: Journal) -> dict[str, Columns]:
    """The tables of the accounts that the report draws, but for `margins` and `shocks`."""
    rows = np.sort(largest_accounts(margins))
    names = pa.array(margins["account_id"][rows].tolist(), pa.string())
    blocks = np.unique(np.searchsorted(plan.starts, rows, side="right") - 1).tolist()
    return {
        name: _whole([p.filter(pc.is_in(p["account_id"], names)) for p in journal.parts(name, blocks=blocks)], name)
        for name in BY_ACCOUNT
        if name != "margins"
    }
