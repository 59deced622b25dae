"""Blocks on a Ray cluster: one actor for each worker, which holds compiled kernels and priced instruments.

Ray places, restarts and retries. What is here checks that a worker is what this process is, says so where the cluster
has no room, and searches a block that ends its workers for the account at fault.
"""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa

from pmvar.bulk.blocks import ATTEMPTS, MOST_WITHHELD, Blocks, Result
from pmvar.bulk.job import Job, identity
from pmvar.bulk.journal import Log
from pmvar.errors import ResourceError, StateError, UsageError

READY_SECONDS = 120.0
"""In which every worker must have been placed."""
POLL_SECONDS = 0.5
PATIENCE_SECONDS, PATIENCE = 600.0, 20
"""A worker that takes longer over a block, and so many times longer than any block took, hangs and is ended. Until one
is done the plan's time for the whole run stands for it."""


class Worker:
    """What an actor is: instruments priced once, then blocks of accounts."""

    def __init__(self, held: Sequence[Any]):
        """`held`: a reference to the job, which every restart fetches anew. Nothing is priced yet, so that a worker
        that is not what it should be is known at once."""
        import ray

        (self._job,) = ray.get(list(held))
        self._said: list[str] = []
        self._blocks: Blocks | None = None

    def identity(self) -> dict[str, Any]:
        """What bits depend on beside the job."""
        return identity()

    def prepare(self) -> Blocks:
        """Price all instruments, unless that is done."""
        if self._blocks is None:
            log = self._said.append
            self._blocks = Blocks(self._job.price(log=log), detail=self._job.detail, log=log)
        return self._blocks

    def warm(self) -> None:
        """`prepare`, for whoever does not want the result."""
        self.prepare()

    def compute(self, rows: np.ndarray, reason: str) -> tuple[Result, list[str]]:
        """Tables of the accounts at `rows`, all of them withheld where there is a `reason`; and what is to be told."""
        blocks = self.prepare()
        self._said.clear()
        return blocks.withheld(rows, reason) if reason else blocks.result(rows), list(self._said)


@dataclass(frozen=True)
class Part:
    """A block, or what a search has left of it."""

    block: int
    rows: np.ndarray
    attempts: int = ATTEMPTS
    """Left, of which each may end a worker."""
    reason: str = ""


class Cluster:
    """Workers of one job."""

    def __init__(self, ray: Any, job: Job, workers: Sequence[Any], *, log: Log):
        """See `cluster`."""
        self._ray, self._job, self._workers, self._log = ray, job, workers, log

    def compute(self, pending: Sequence[int], *, poll: Callable[[], bool]) -> Iterator[tuple[int, Result]]:
        """The `pending` blocks as they are finished; once `poll` says so, only those begun.

        Raises what a worker raises on purpose, and ResourceError where workers die of many accounts or the cluster has
        no room for any.
        """
        ray, idle = self._ray, list(self._workers)
        queue = deque(Part(i, self._job.plan.block(i)) for i in pending)
        busy: dict[Any, tuple[Any, Part | None]] = {}
        since: dict[Any, float] = {}
        longest = 0.0
        found: dict[int, list[tuple[int, Result]]] = {}
        poisoned = 0
        while queue or any(part for _, part in busy.values()):
            if not poll():
                while queue and idle:
                    worker, part = idle.pop(), queue.popleft()
                    reference = worker.compute.remote(part.rows, part.reason)
                    busy[reference], since[reference] = (worker, part), time.monotonic()
            elif not any(part for _, part in busy.values()):
                return
            ready, _ = ray.wait(list(busy), timeout=POLL_SECONDS)
            if not ready:
                _check_room(ray, 1)
            patience = max(PATIENCE_SECONDS, PATIENCE * (longest or self._job.plan.seconds))
            hanging = [r for r in since.keys() - set(ready) if time.monotonic() - since[r] > patience]
            for reference in hanging:
                self._log(f"a worker was ended: it took more than {patience:,.0f} s over a block")
                ray.kill(busy[reference][0], no_restart=False)
                del since[reference]
            for reference in ready:
                worker, part = busy.pop(reference)
                begun = since.pop(reference, None)
                try:
                    answer = ray.get(reference)
                    longest = max(longest, time.monotonic() - begun) if begun else longest
                except ray.exceptions.RayTaskError as error:
                    raise error.cause from None
                except ray.exceptions.RayActorError as error:
                    # Ray starts it again; it has no work until it says that it is there.
                    busy[worker.identity.options(max_task_retries=-1).remote()] = worker, None
                    if part is not None:
                        again = self._again(part, error)
                        poisoned += bool(again[0].reason)
                        if part.reason or poisoned > MOST_WITHHELD:
                            raise ResourceError("workers end on one account after the other") from error
                        queue.extendleft(reversed(again))
                    continue
                idle.append(worker)
                if part is None:
                    _check_identity(answer)
                    continue
                result, said = answer
                for text in said:
                    self._log(text)
                parts = found.setdefault(part.block, [])
                parts.append((int(part.rows[0]), result))
                if sum(r.n_accounts for _, r in parts) == len(self._job.plan.block(part.block)):
                    yield part.block, _joined([r for _, r in sorted(found.pop(part.block), key=lambda p: p[0])])

    def _again(self, part: Part, error: Exception) -> list[Part]:
        """What to do with a part that ended its worker: the same again, or its halves, or withhold its account."""
        names = self._job.book.portfolio.account_id[part.rows]
        self._log(f"accounts {names[0]} to {names[-1]} ended their worker: {str(error).split(chr(10))[0]}")
        if part.attempts > 1:
            return [replace(part, attempts=part.attempts - 1)]
        if len(part.rows) == 1:
            return [replace(part, reason="its margin could not be computed: it ends what computes it")]
        half = -(-len(part.rows) // 2)
        return [replace(part, rows=rows) for rows in (part.rows[:half], part.rows[half:])]


@contextmanager
def cluster(job: Job, *, workers: int | None, log: Log, worker: type = Worker) -> Iterator[Cluster]:
    """Workers for `job` on the cluster that RAY_ADDRESS or this machine has, else on one made for the purpose.

    `workers` None: one for each GPU, without any one for each node. They begin to price at once. Raises UsageError
    without Ray, ResourceError where the cluster does not place them all, StateError where code, versions or device of
    one are not those of this process.
    """
    import jax

    try:
        import ray
    except ImportError as error:
        raise UsageError("--executor ray needs Ray: pip install 'pmvar[cluster]'") from error
    own = not ray.is_initialized()
    if own:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        with forking():
            ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    actors: list[Any] = []
    try:
        gpus = int(ray.cluster_resources().get("GPU", 0))
        n = workers or gpus or sum(node["Alive"] for node in ray.nodes())
        _check_room(ray, n)
        cache = jax.config.values["jax_compilation_cache_dir"]
        variables = {"JAX_COMPILATION_CACHE_DIR": str(cache)} if cache else {}
        actor = ray.remote(worker).options(
            num_cpus=1, num_gpus=1 if gpus else 0, max_restarts=-1, max_task_retries=0,
            scheduling_strategy="SPREAD",
            runtime_env={"env_vars": variables},
        )  # fmt: skip
        shared = ray.put(job)
        actors += [actor.remote([shared]) for _ in range(n)]
        asked = [a.identity.remote() for a in actors]
        placed, _ = ray.wait(asked, num_returns=n, timeout=READY_SECONDS)
        if len(placed) < n:
            raise ResourceError(f"Ray placed {len(placed)} of {n} workers in {READY_SECONDS:.0f} s; {_rooms(ray)}")
        for there in ray.get(asked):
            _check_identity(there)
        for a in actors:
            a.warm.remote()
        log(f"{n} Ray workers")
        yield Cluster(ray, job, actors, log=log)
    finally:
        for a in actors:
            ray.kill(a)
        if own:
            ray.shutdown()


@contextmanager
def forking() -> Iterator[None]:
    """Without JAX's warning of forks: Ray's are of processes that run another program at once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"os\.fork\(\) was called", RuntimeWarning)
        yield


def _check_room(ray: Any, n: int) -> None:
    """Raise ResourceError for what Ray would wait for without an end."""
    if n > int(ray.cluster_resources().get("CPU", 0)):
        raise ResourceError(f"{n} workers do not fit: {_rooms(ray)}; take fewer --workers, or add nodes")


def _rooms(ray: Any) -> str:
    has = ray.cluster_resources()
    return f"the cluster has {has.get('CPU', 0):.0f} CPUs and {has.get('GPU', 0):.0f} GPUs"


def _check_identity(there: dict[str, Any]) -> None:
    here = identity()
    different = [name for name in here if here[name] != there[name]]
    if different:
        name = different[0]
        raise StateError(
            f"a worker's {name} is not this process's ({there[name]}, not {here[name]}): their bits could differ; "
            "install one version everywhere, and start from a machine with the workers' device"
        )


def _joined(results: list[Result]) -> Result:
    if len(results) == 1:
        return results[0]
    tables = {name: pa.concat_tables([r.tables[name] for r in results]) for name in results[0].tables}
    return Result(tables, {account: reason for r in results for account, reason in r.withheld.items()})

