"""Runs in blocks: any blocks give the same bytes, and whatever ends a run, resuming it gives them too."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

import pmvar
from pmvar.bulk import blocks as blocks_module
from pmvar.bulk import job as job_module
from pmvar.bulk import plan as plan_module
from pmvar.bulk import run as run_module
from pmvar.bulk.journal import Journal, work_folder
from pmvar.bulk.lock import exclusive
from pmvar.bulk.plan import make_plan
from pmvar.bulk.run import Request, run
from pmvar.errors import NumericsError, ResourceError, StateError, Stopped
from pmvar.io import atomic
from pmvar.io.book import Book, load_book
from pmvar.io.run import _columns, read_run
from pmvar.types import Detail
from pmvar.valuation.reprice import ProfitAndLoss
from tests.books import published_content as content
from tests.books import small_book

SETTINGS = {"scenarios": 2048, "level": 0.99}
N_ACCOUNTS = 5
Files = dict[str, bytes]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small book."""
    return small_book(tmp_path_factory.mktemp("bulk") / "book")


@pytest.fixture(scope="module")
def book(folder: Path) -> Book:
    """The small book, read."""
    return load_book(folder, overrides=SETTINGS)


@pytest.fixture(scope="module")
def whole(book: Book) -> Files:
    """A run of it that nothing disturbed, in one block."""
    out = book.path.parent / "whole"
    run(Request(book, out, Detail.COMPONENTS))
    return content(out)


@pytest.fixture
def single(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one account."""
    for detail in Detail:
        monkeypatch.setitem(plan_module.BLOCK_SECONDS, detail, 1e-9)


def request(book: Book, out: Path, **options: Any) -> Request:
    """A run with components that resumes."""
    return Request(book, out, Detail.COMPONENTS, resume=True, **options)


@pytest.mark.parametrize("seconds", [1e-9, 1.5e-4])
def test_blocks_of_any_size_give_the_same_bytes(
    book: Book, whole: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    """Tables, report and manifest do not say in how many blocks a run was done."""
    monkeypatch.setitem(plan_module.BLOCK_SECONDS, Detail.COMPONENTS, seconds)
    own = request(book, tmp_path / "run")
    n_blocks = len(own.plan.starts)
    assert n_blocks == N_ACCOUNTS if seconds < 1e-6 else 1 < n_blocks < N_ACCOUNTS
    run(own)
    assert content(tmp_path / "run") == whole
    assert [p.name for p in tmp_path.iterdir()] == ["run"], "nothing is left beside it"


def test_it_is_what_the_documented_lines_publish(book: Book, whole: Files, tmp_path: Path) -> None:
    """load_book, simulate, reprice, margin_report, write: the same bytes of all tables and of the report."""
    s = book.settings
    drawn = pmvar.simulate(book.model, book.market, seed=s.seed, n_scenarios=s.scenarios, horizon=s.horizon)
    stress = pmvar.stress_scenarios(book.stress, book.model, book.market)
    pnl = pmvar.reprice(book.portfolio, book.market, drawn)
    report = pmvar.margin_report(pnl, book.portfolio, book.rules, stress=stress, greeks=False, notes=book.flags)
    report.write(tmp_path / "run")
    found = content(tmp_path / "run")
    for name in set(whole) - {"manifest.json", "report.html"}:
        assert found[name] == whole[name], name


def test_greeks_in_blocks(book: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Gradients by market and model, too, do not depend on blocks."""
    run(Request(book, tmp_path / "one", Detail.GREEKS))
    monkeypatch.setitem(plan_module.BLOCK_SECONDS, Detail.GREEKS, 1e-9)
    run(Request(book, tmp_path / "five", Detail.GREEKS))
    assert content(tmp_path / "five") == content(tmp_path / "one")


def test_measures_have_the_same_bits_at_every_detail(book: Book, tmp_path: Path) -> None:
    """The margin of an account is one number, whatever else is asked about it."""
    found = [run(Request(book, tmp_path / detail, detail)) for detail in Detail]
    for other in found[1:]:
        for column, values in found[0].items():
            np.testing.assert_array_equal(other[column], values, err_msg=column)
    assert len(read_run(tmp_path / Detail.MARGINS).tables["components"]["quantity"]) == 0


@pytest.fixture
def quick(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    """Instruments and blocks computed once for all runs of a test, and no report drawn: what writes is as ever."""
    kept: list[Any] = []

    def price_all(*arguments: Any, **options: Any) -> Any:
        if not kept:
            kept.append(job_price_all(*arguments, **options))
        return kept[0]

    def account_tables(priced: Any, rows: np.ndarray, **options: Any) -> Any:
        if (of := tuple(rows.tolist())) not in tables:
            tables[of] = blocks_account_tables(priced, rows, **options)
        return tables[of]

    tables: dict[tuple[int, ...], Any] = {}
    blocks_account_tables = blocks_module.account_tables
    monkeypatch.setattr(blocks_module, "account_tables", account_tables)
    job_price_all = job_module.price_all
    monkeypatch.setattr(job_module, "price_all", price_all)
    monkeypatch.setattr(run_module, "render", lambda report: "<p>report</p>")


class Killed(BaseException):
    """What no code can catch by mistake."""


class Disk:
    """Ends a process at its n-th fsync or rename, or fails it; what is dead changes nothing on disk any more."""

    POINTS = ((os, "fsync"), (os, "replace"), (os, "rename"), (atomic, "_exchange"))
    LATER = ((os, "unlink"), (os, "rmdir"), (os, "mkdir"), (shutil, "rmtree"), (os, "truncate"), (os, "ftruncate"))

    def __init__(self, monkeypatch: pytest.MonkeyPatch, at: int, error: BaseException):
        self.calls, self.at, self.error = 0, at, error
        for module, name in self.POINTS:
            monkeypatch.setattr(module, name, self._counted(getattr(module, name)))
        if isinstance(error, Killed):
            for module, name in self.LATER:
                monkeypatch.setattr(module, name, self._dead(getattr(module, name)))

    def _counted(self, call: Callable) -> Callable:
        def counted(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            if self.calls == self.at or (self.calls > self.at and isinstance(self.error, Killed)):
                raise self.error
            return call(*arguments, **named)

        return counted

    def _dead(self, call: Callable) -> Callable:
        def dead(*arguments: Any, **named: Any) -> Any:
            if self.calls >= self.at:
                raise self.error
            return call(*arguments, **named)

        return dead


def points(book: Book, out: Path, monkeypatch: pytest.MonkeyPatch) -> int:
    """How often a run syncs and renames."""
    with monkeypatch.context() as patched:
        disk = Disk(patched, 10**9, Killed())
        run(request(book, out))
    assert disk.calls > 40
    return disk.calls


@pytest.mark.slow
@pytest.mark.parametrize("before", ["nothing", "a run"])
def test_killed_at_every_fsync_and_rename(
    book: Book, whole: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, single: None, quick: None, before: str
) -> None:
    """Whichever is the last thing that a process did, resuming gives the bytes of a run that nothing disturbed; until
    then a reader sees the run before, whole."""
    out = tmp_path / "run"
    total = points(book, out, monkeypatch)
    old = content(out)
    assert all(old[name] == whole[name] for name in whole if name.endswith(".parquet"))
    # With a run before, the steps of the commit alone differ.
    for at in range(1, total + 1) if before == "nothing" else range(total - 6, total + 1):
        if before == "nothing":
            shutil.rmtree(out)
        with monkeypatch.context() as patched:
            Disk(patched, at, Killed())
            with pytest.raises(Killed):
                run(request(book, out))
        if before == "a run":
            assert content(out) == old
        run(request(book, out))
        assert content(out) == old, at
        assert [p.name for p in tmp_path.iterdir()] == ["run"], at


@pytest.mark.slow
def test_disk_full_at_every_write(
    book: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, single: None, quick: None
) -> None:
    """A disk that is full at any point ends the run with exit code 6, and it can be resumed."""
    out = tmp_path / "run"
    total = points(book, out, monkeypatch)
    old = content(out)
    for at in range(1, total + 1, 3):
        shutil.rmtree(out, ignore_errors=True)
        with monkeypatch.context() as patched:
            Disk(patched, at, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
            with pytest.raises(ResourceError, match="No space left"):
                run(request(book, out))
        run(request(book, out))
        assert content(out) == old, at


KILLED = """
import os, sys
from pmvar.bulk import plan
from pmvar.cli import main
for detail in plan.BLOCK_SECONDS:
    plan.BLOCK_SECONDS[detail] = 1e-9
at, sent = map(int, sys.argv[1:3])
write, n = sys.stderr.write, 0
def watched(text):
    global n
    if '"accounts"' in text:
        n += 1
        if n == at:
            os.kill(os.getpid(), sent)
    return write(text)
sys.stderr.write = watched
sys.argv = ["pmvar", *sys.argv[3:]]
main()
"""


@pytest.mark.parametrize("sent", [signal.SIGKILL, signal.SIGTERM])
def test_a_real_signal(book: Book, tmp_path: Path, user_env: dict[str, str], sent: signal.Signals) -> None:
    """kill −9 and SIGTERM in the middle of the blocks: −9 and 143, nothing published, and the bytes of a plain run
    after --resume."""
    options = ["--paths", "2048", "--no-greeks", "--log-json"]
    plain, out = tmp_path / "plain", tmp_path / "run"
    command = [sys.executable, "-c", KILLED]

    def call(at: int, out: Path, *more: str) -> subprocess.CompletedProcess[str]:
        arguments = [str(at), str(int(sent)), "run", str(book.path), "--out", str(out), *options, *more]
        return subprocess.run([*command, *arguments], env=user_env, capture_output=True, text=True, timeout=300)

    undisturbed = call(0, plain)
    assert undisturbed.returncode == 0, undisturbed.stderr
    ended = call(7, out)
    assert ended.returncode == (-signal.SIGKILL if sent == signal.SIGKILL else 143), ended.stderr
    assert not out.exists()
    kept = len((work_folder(out) / "journal.jsonl").read_text().splitlines())
    assert 0 < kept < N_ACCOUNTS
    resumed = call(0, out, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert f"{kept} of {N_ACCOUNTS} blocks were finished before" in resumed.stderr
    assert content(out) == content(plain)


def stopped(book: Book, out: Path, after: int) -> Path:
    """The working folder of a run that was stopped after some blocks."""
    asked = iter([False] * after + [True])
    with pytest.raises(Stopped, match=f"{after} of {N_ACCOUNTS} blocks"):
        run(request(book, out), stopping=lambda: next(asked))
    return work_folder(out)


def test_damaged_blocks_are_computed_again(book: Book, whole: Files, tmp_path: Path, single: None) -> None:
    """A truncated file, a flipped bit, a lost file and a torn or changed line of the journal: each is noticed, told,
    and mended."""
    out = tmp_path / "run"
    work = stopped(book, out, 5 - 1)
    cut, flipped, lost = (work / f"{i:06d}.margins.parquet" for i in range(3))
    cut.write_bytes(cut.read_bytes()[:-7])
    content_of = bytearray(flipped.read_bytes())
    content_of[len(content_of) // 3] ^= 4
    flipped.write_bytes(content_of)
    lost.unlink()
    journal = work / "journal.jsonl"
    journal.write_text(journal.read_text().replace('"block": 3', '"block": 4') + '{"block": 4, "tab')
    said: list[str] = []
    run(request(book, out), log=said.append)
    assert sum("computed again" in text for text in said) == 4
    assert content(out) == whole


def test_resumes_only_what_was_begun(book: Book, folder: Path, tmp_path: Path, single: None) -> None:
    """Another seed, another input, another level of detail, other code: exit code 7, naming it, and the work stays."""
    out = tmp_path / "run"
    work = stopped(book, out, 2)
    for changed, named in (
        (load_book(folder, overrides=SETTINGS | {"seed": 2}), "settings: seed"),
        (load_book(folder, overrides=SETTINGS | {"level": 0.98}), "rules: level"),
        (replace(book, input_hashes={**book.input_hashes, "positions.csv": "0"}), "inputs: positions.csv"),
    ):
        with pytest.raises(StateError, match=named):
            run(request(changed, out))
    with pytest.raises(StateError, match="options: detail"):
        run(Request(book, out, Detail.MARGINS, resume=True))
    head = json.loads((work / "job.json").read_text())
    head["fingerprint"]["code"] = "other"
    (work / "job.json").write_text(json.dumps(head))
    with pytest.raises(StateError, match="code"):
        run(request(book, out))
    assert len((work / "journal.jsonl").read_text().splitlines()) == 2


def test_without_resume_it_begins_anew(book: Book, whole: Files, tmp_path: Path, single: None) -> None:
    """What an unfinished run left is discarded, and said to be."""
    out, said = tmp_path / "run", []
    stopped(book, out, 2)
    run(Request(book, out, Detail.COMPONENTS), log=said.append)
    assert any("discarded" in text for text in said) and content(out) == whole


def test_two_runs_on_one_output(book: Book, tmp_path: Path) -> None:
    """The second is refused, naming the first; a lock whose holder died is taken over."""
    out = tmp_path / "run"
    work_folder(out).mkdir()
    lock = work_folder(out) / "lock"
    with exclusive(lock) as stale:
        assert not stale
        with pytest.raises(StateError, match=str(os.getpid())):
            run(request(book, out))
    said: list[str] = []
    run(request(book, out), log=said.append)
    assert any("did not come to its end" in text for text in said) and not work_folder(out).exists()


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes")])
def test_out_of_memory_halves_the_block(
    book: Book, whole: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A block that memory does not hold is taken in halves: same bytes, and said; not even one account: exit code 6."""
    own, most, said = blocks_module.account_tables, 2, []

    def short_of_memory(priced: Any, rows: np.ndarray, **options: Any) -> Any:
        if len(rows) > most:
            raise error
        return own(priced, rows, **options)

    monkeypatch.setattr(blocks_module, "account_tables", short_of_memory)
    run(request(book, tmp_path / "run"), log=said.append)
    assert content(tmp_path / "run") == whole and any("out of memory" in text for text in said)
    most = 0
    with pytest.raises(ResourceError, match="alone does not fit"):
        run(request(book, tmp_path / "other"))


FULL = jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 1073741824 bytes.")
"""As a device says it."""


def test_pricing_beyond_the_device_is_halved(
    book: Book, whole: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tile that the device does not hold is priced in halves, block by block of instruments in the end: same bytes,
    and said once for each halving; not even one block: exit code 6, and the run can be resumed."""
    part, most, said, sizes = ProfitAndLoss.part, 1, [], []

    def full(*_: Any) -> Any:
        raise FULL

    def short_of_memory(pnl: ProfitAndLoss, index: int, blocks: range) -> Any:
        sizes.append(len(blocks))
        return part(pnl, index, blocks) if len(blocks) <= most else full()

    monkeypatch.setattr(ProfitAndLoss, "_tile", full)
    monkeypatch.setattr(ProfitAndLoss, "part", short_of_memory)
    run(request(book, tmp_path / "run"), log=said.append)
    assert content(tmp_path / "run") == whole
    halvings = [text for text in said if "out of memory while pricing" in text]
    assert len(halvings) >= 2 and "256 instruments at once" in halvings[-1] and set(sizes) >= {1, 2}
    most = 0
    with pytest.raises(ResourceError, match="does not hold one block") as refused:
        run(request(book, tmp_path / "other"))
    assert refused.value.exit_code == 6 and work_folder(tmp_path / "other").exists()
    monkeypatch.undo()
    run(request(book, tmp_path / "other"))
    assert content(tmp_path / "other") == whole


@pytest.mark.parametrize("when", ["kept", "used"])
def test_a_device_that_cannot_keep_the_tiles(
    book: Book, whole: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    """Tiles that do not fit together, or that leave no room to add positions up, are sent one at a time: same bytes."""
    # As if it were no CPU, on which a tile is read where it lies.
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    put, own, said, sent = jax.device_put, blocks_module.account_tables, [], []

    def device_put(x: Any, *arguments: Any, **options: Any) -> Any:
        sent.append(np.shape(x))
        if when == "kept" and len(sent) == 1:
            raise FULL
        return put(x, *arguments, **options)

    def account_tables(priced: Any, rows: np.ndarray, **options: Any) -> Any:
        found = own(priced, rows, **options)
        if when == "used" and "_on_device" in vars(priced.store):
            raise FULL
        return found

    monkeypatch.setattr(jax, "device_put", device_put)
    monkeypatch.setattr(blocks_module, "account_tables", account_tables)
    run(request(book, tmp_path / "run"), log=said.append)
    assert content(tmp_path / "run") == whole
    assert any("no P&L stays on the device" in text for text in said) == (when == "used")
    assert not any("accounts at once" in text for text in said), "accounts are not to blame"


def test_a_poisoned_account_is_withheld(
    book: Book, whole: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block that fails is tried three times, then searched: the account at fault is withheld with a reason and a
    margin, the others keep their bits. What fails many accounts is a bug, and what pmvar raises on purpose ends the
    run."""
    own, calls = blocks_module.account_tables, []

    def poisoned(priced: Any, rows: np.ndarray, *, withheld: Any = None, **options: Any) -> Any:
        calls.append(len(rows))
        if 3 in rows and not withheld:
            raise fault
        return own(priced, rows, withheld=withheld, **options)

    monkeypatch.setattr(blocks_module, "account_tables", poisoned)
    fault: Exception = ZeroDivisionError("of this account alone")
    found = run(request(book, tmp_path / "run"))
    assert calls[:3] == [N_ACCOUNTS] * 3
    assert found["status"].tolist().count("WITHHELD") == 1 and found["status"][3] == "WITHHELD"
    assert "of this account alone" in found["reason"][3] and found["initial_margin"][3] > 0
    (tmp_path / "plain").mkdir()
    for name, data in whole.items():
        (tmp_path / "plain" / name).write_bytes(data)
    plain = _columns(tmp_path / "plain" / "margins.parquet")
    for column, values in plain.items():
        np.testing.assert_array_equal(np.delete(found[column], 3), np.delete(values, 3))
    assert any("of this account alone" in note for note in read_run(tmp_path / "run").manifest["notes"])
    with monkeypatch.context() as everywhere:
        everywhere.setattr(blocks_module, "account_tables", lambda *_, **__: 1 / 0)
        everywhere.setattr(blocks_module, "MOST_WITHHELD", 2)
        with pytest.raises(ZeroDivisionError):
            run(request(book, tmp_path / "bug"))
    fault = NumericsError("a margin that must not be published")
    with pytest.raises(NumericsError):
        run(request(book, tmp_path / "other"))
    assert not work_folder(tmp_path / "other").exists()


def test_too_small_a_budget_names_the_least(book: Book) -> None:
    """What is named as the least that would do, does; the peak that is planned stays within the budget."""
    with pytest.raises(ResourceError, match=r"the least that would do is ([0-9.]+)GiB") as refused:
        make_plan(book, detail=Detail.GREEKS, budget_bytes=1e6)
    least = float(str(refused.value).split()[-1].removesuffix("GiB"))
    for budget in (least, 2 * least, 100.0):
        plan = make_plan(book, detail=Detail.GREEKS, budget_bytes=budget * 2**30)
        assert plan.peak_bytes <= budget * 2**30
        assert np.concatenate([plan.block(i) for i in range(len(plan.starts))]).tolist() == list(range(N_ACCOUNTS))


def test_a_full_journal_line_follows_a_torn_one(tmp_path: Path) -> None:
    """A line cut off by a crash is gone before the next is written."""
    journal = Journal.begin(tmp_path, {"what": "a test"})
    journal.put(0, {}, {})
    with open(tmp_path / "journal.jsonl", "a") as stream:
        stream.write('{"block": 1')
    again = Journal.resume(tmp_path, log=lambda text: None)
    assert again is not None and set(again.entries) == {0}
    again.put(1, {}, {"a": "reason"})
    last = Journal.resume(tmp_path, log=lambda text: pytest.fail(text))
    assert last is not None and last.entries[1].withheld == {"a": "reason"}


@pytest.fixture(autouse=True)
def no_litter(tmp_path: Path) -> Iterator[None]:
    """No test leaves a process's lock behind that another would wait for."""
    yield
    for item in tmp_path.glob(".*.work"):
        shutil.rmtree(item, ignore_errors=True)
