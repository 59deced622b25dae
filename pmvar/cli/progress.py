"""Progress of a run: a bar on a terminal after two seconds, JSON lines on request, else nothing."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[str, int, int], None]
"""(stage, done, total)"""

PATIENCE = 2.0
"""Seconds before a bar appears."""


@contextmanager
def progress(*, log_json: bool) -> Iterator[Advance]:
    """A callback to report progress to."""
    if log_json:
        yield _json_lines()
    elif sys.stderr.isatty():
        with _bars() as advance:
            yield advance
    else:
        yield lambda stage, done, total: None


def say(text: str, *, log_json: bool) -> None:
    """Tell on standard error what did not go as planned."""
    print(json.dumps({"event": "note", "text": text}) if log_json else f"pmvar: {text}", file=sys.stderr, flush=True)


def _json_lines() -> Advance:
    started: dict[str, float] = {}

    def advance(stage: str, done: int, total: int) -> None:
        seconds = time.monotonic() - started.setdefault(stage, time.monotonic())
        rate = done / seconds if seconds > 0 else 0.0
        left = (total - done) / rate if rate > 0 else None
        line = {"event": "progress", "stage": stage, "done": done, "total": total, "seconds": round(seconds, 3),
                "per_second": round(rate, 3), "seconds_left": None if left is None else round(left, 3)}  # fmt: skip
        print(json.dumps(line), file=sys.stderr, flush=True)

    return advance


@contextmanager
def _bars() -> Iterator[Advance]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        ProgressColumn,
        Task,
        TextColumn,
        TimeRemainingColumn,
    )
    from rich.text import Text

    class Rate(ProgressColumn):
        """Units per second."""

        def render(self, task: Task) -> Text:
            return Text(f"{task.speed or 0:,.1f}/s")

    columns = (TextColumn("{task.description:>12}"), BarColumn(), MofNCompleteColumn(), Rate(), TimeRemainingColumn())
    display = Progress(*columns, console=Console(stderr=True), transient=True)
    begun, tasks = time.monotonic(), {}

    def advance(stage: str, done: int, total: int) -> None:
        if stage not in tasks:
            tasks[stage] = display.add_task(stage, total=total)
        display.update(tasks[stage], completed=done)
        if not display.live.is_started and time.monotonic() - begun > PATIENCE:
            display.start()

    try:
        yield advance
    finally:
        display.stop()
