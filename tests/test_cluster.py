"""Runs on Ray: the bytes of a run in one process, whatever becomes of the workers."""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from pmvar.bulk import cluster as cluster_module
from pmvar.bulk import plan as plan_module
from pmvar.bulk.cluster import Worker, _check_identity, cluster, forking
from pmvar.bulk.job import identity
from pmvar.bulk.journal import work_folder
from pmvar.bulk.run import Request, run
from pmvar.errors import NumericsError, ResourceError, StateError, Stopped
from pmvar.io.book import Book, load_book
from pmvar.types import Detail, Executor
from tests.books import published_content, small_book

ray = pytest.importorskip("ray", reason="the extra pmvar[cluster] is not installed")

POISON = 3
"""Row of an account that ends its worker."""


@pytest.fixture(scope="module", autouse=True)
def cores() -> Iterator[None]:
    """A cluster of this machine with room for two workers."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    try:
        with forking():
            ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    except Exception as error:
        pytest.skip(f"Ray does not start on this machine: {error}")
    # Classes of this module travel as they are: a worker does not find it.
    ray.cloudpickle.register_pickle_by_value(__import__("sys").modules[__name__])
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Book:
    """The small book, read."""
    folder = small_book(tmp_path_factory.mktemp("cluster") / "book")
    return load_book(folder, overrides={"scenarios": 2048, "level": 0.99})


@pytest.fixture(scope="module")
def local(book: Book, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A run in one process."""
    out = tmp_path_factory.mktemp("local") / "run"
    run(Request(book, out, Detail.COMPONENTS))
    return published_content(out)


@pytest.fixture(autouse=True)
def single(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one account."""
    monkeypatch.setitem(plan_module.BLOCK_SECONDS, Detail.COMPONENTS, 1e-9)


def on_ray(book: Book, out: Path, workers: int = 2) -> Request:
    """A run on Ray."""
    return Request(book, out, Detail.COMPONENTS, executor=Executor.RAY, workers=workers)


def kill_one_at_work(killed: list[int], over: threading.Event) -> None:
    """Kill −9 the first process that Ray says is computing a block."""
    while not over.is_set():
        for item in Path("/proc").iterdir():
            try:
                if item.name.isdigit() and (item / "cmdline").read_bytes().startswith(b"ray::Worker.compute"):
                    os.kill(int(item.name), signal.SIGKILL)
                    killed.append(int(item.name))
                    return
            except OSError:
                continue
        time.sleep(0.005)


@pytest.mark.slow
def test_a_worker_killed_at_work(book: Book, local: dict[str, bytes], tmp_path: Path) -> None:
    """Two workers, one of them killed while it computes: the bytes of the local run."""
    killed: list[int] = []
    over = threading.Event()
    killer = threading.Thread(target=kill_one_at_work, args=(killed, over))
    killer.start()
    said: list[str] = []
    try:
        run(on_ray(book, tmp_path / "run"), log=said.append)
    finally:
        over.set()
        killer.join()
    assert len(killed) == 1 and "2 Ray workers" in said
    assert published_content(tmp_path / "run") == local
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


class Poisoned(Worker):
    """Dies of an account."""

    def compute(self, rows: np.ndarray, reason: str) -> tuple:
        """As ever, but for that account."""
        if POISON in rows and not reason:
            os._exit(1)
        return super().compute(rows, reason)


@pytest.mark.slow
def test_what_ends_its_workers_is_withheld(
    book: Book, local: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A block is halved down to the account of which workers die; that one has a reason and a margin, the others the
    numbers that they have anyway."""
    monkeypatch.setitem(plan_module.BLOCK_SECONDS, Detail.COMPONENTS, 1e9)
    monkeypatch.setattr(cluster_module, "cluster", partial(cluster, worker=Poisoned))
    said: list[str] = []
    found = run(on_ray(book, tmp_path / "run", workers=1), log=said.append)
    plain = run(Request(book, tmp_path / "plain", Detail.COMPONENTS))
    assert found["status"].tolist() == [*plain["status"][:POISON], "WITHHELD", *plain["status"][POISON + 1 :]]
    assert "ends what computes it" in found["reason"][POISON] and found["initial_margin"][POISON] > 0
    for column, values in plain.items():
        np.testing.assert_array_equal(np.delete(found[column], POISON), np.delete(values, POISON), err_msg=column)
    assert sum("ended their worker" in text for text in said) == 3 + 1 + 1, "all five thrice, two of them, then one"


class Hanging(Worker):
    """Never comes back from its first block."""

    marker: Path

    def compute(self, rows: np.ndarray, reason: str) -> tuple:
        """As ever, the second time."""
        if not self.marker.exists():
            self.marker.touch()
            time.sleep(3600)
        return super().compute(rows, reason)


@pytest.mark.slow
def test_a_worker_that_hangs(
    book: Book, local: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is ended once patience is, and its block done again: the bytes of the local run."""
    Hanging.marker = tmp_path / "hung"
    monkeypatch.setattr(cluster_module, "PATIENCE_SECONDS", 40.0)
    monkeypatch.setattr(cluster_module, "PATIENCE", 0)
    monkeypatch.setattr(cluster_module, "cluster", partial(cluster, worker=Hanging))
    said: list[str] = []
    run(on_ray(book, tmp_path / "run", workers=1), log=said.append)
    assert "a worker was ended: it took more than 40 s over a block" in said
    assert published_content(tmp_path / "run") == local


class Refusing(Worker):
    """Refuses on purpose."""

    def warm(self) -> None:
        """Nothing."""

    def compute(self, rows: np.ndarray, reason: str) -> tuple:
        """Never."""
        raise NumericsError("a margin that must not be published")


def test_what_a_worker_raises_on_purpose(book: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends the run as it would in one process, and nothing is kept."""
    monkeypatch.setattr(cluster_module, "cluster", partial(cluster, worker=Refusing))
    with pytest.raises(NumericsError, match="must not be published"):
        run(on_ray(book, tmp_path / "run", workers=1))
    assert not work_folder(tmp_path / "run").exists()


def test_stopped_and_gone_on_with_locally(book: Book, local: dict[str, bytes], tmp_path: Path) -> None:
    """Asked to stop, no new block is begun; what is there is as good for one process as for many."""
    asked = iter([False] * 3 + [True] * 1_000)
    with pytest.raises(Stopped, match="of 5 blocks"):
        run(on_ray(book, tmp_path / "run", workers=1), stopping=lambda: next(asked))
    run(Request(book, tmp_path / "run", Detail.COMPONENTS, resume=True))
    assert published_content(tmp_path / "run") == local


def test_more_workers_than_fit(book: Book, tmp_path: Path) -> None:
    """Refused at once, saying what there is: Ray would wait for ever."""
    with pytest.raises(ResourceError, match="3 workers do not fit: the cluster has 2 CPUs"):
        run(on_ray(book, tmp_path / "run", workers=3))


def test_a_worker_that_is_not_what_this_process_is() -> None:
    """Other code, other versions or another device are refused by name."""
    _check_identity(identity())
    with pytest.raises(StateError, match="a worker's device is not this process's"):
        _check_identity(identity() | {"device": "abacus"})
