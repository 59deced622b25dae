"""What a run did, for a monitor: a file in the text format of Prometheus, as node_exporter collects it."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pmvar.cli.progress import Advance, say
from pmvar.errors import PmvarError, UsageError
from pmvar.risk.result import Columns

Sample = tuple[Mapping[str, str], float | int]
"""Labels and value."""


class Metrics:
    """Collects the figures of one run."""

    def __init__(self) -> None:
        self.began = time.time()
        self.exit_code = 0
        self.margins: Columns | None = None
        """Of this run, once it is published."""
        self.currency = ""
        self._last = self._start = time.monotonic()
        self._seconds: defaultdict[str, float] = defaultdict(float)

    def watched(self, advance: Advance) -> Advance:
        """`advance` that counts the time since the report before to the stage that it tells of."""

        def look(stage: str, done: int, total: int) -> None:
            now = time.monotonic()
            # A stage that only begins took no part in what came before.
            self._seconds[stage if done else "other"] += now - self._last
            self._last = now
            advance(stage, done, total)

        return look

    def text(self, out: Path) -> str:
        """All that is known once the run has ended; what stands at `out` is told of whoever put it there."""
        from pmvar.io.run import read_manifest
        from pmvar.io.times import parse_time
        from pmvar.types import Status

        now, seconds = time.time(), time.monotonic() - self._start
        stages = {**self._seconds, "other": self._seconds["other"] + time.monotonic() - self._last}
        families: list[tuple[str, str, Sequence[Sample]]] = [
            ("run_exit_code", "How the last run ended, 0 is complete.", [({}, self.exit_code)]),
            ("run_start_timestamp_seconds", "When the last run began.", [({}, self.began)]),
            ("run_end_timestamp_seconds", "When the last run ended.", [({}, now)]),
            ("run_duration_seconds", "How long the last run took.", [({}, seconds)]),
            (
                "run_stage_duration_seconds", "How long its stages took.",
                [({"stage": name}, taken) for name, taken in sorted(stages.items())],
            ),
        ]  # fmt: skip
        if self.margins is not None:
            status, total = self.margins["status"], float(self.margins["initial_margin"].sum())
            counts = [({"status": str(s)}, int((status == s).sum())) for s in Status]
            families.append(("run_accounts", "Accounts of the last run by status.", counts))
            families.append(("run_initial_margin", "Sum over its accounts.", [({"currency": self.currency}, total)]))
        # What is wrong with a run that is there, or that there is none, is in the exit code.
        with suppress(PmvarError):
            manifest = read_manifest(out)
            created, as_of = parse_time(manifest["created"]), parse_time(manifest["settings"]["as_of"])
            families += [
                ("published_timestamp_seconds", "When the run that is there was published.", [({}, created)]),
                ("published_as_of_timestamp_seconds", "Its valuation time.", [({}, as_of)]),
            ]
        return "".join(_family(f"pmvar_{name}", words, samples, str(out)) for name, words, samples in families)


def _family(name: str, words: str, samples: Sequence[Sample], run: str) -> str:
    lines = [f"# HELP {name} {words}", f"# TYPE {name} gauge"]
    for labels, value in samples:
        inside = ",".join(f'{key}="{_escaped(text)}"' for key, text in {"run": run, **labels}.items())
        lines.append(f"{name}{{{inside}}} {value!r}")
    return "\n".join(lines) + "\n"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')


@contextmanager
def metrics(file: Path | None, out: Path, *, log_json: bool) -> Iterator[Metrics]:
    """Figures of what is done inside, written to `file` at once and whole, however it ends.

    Raises UsageError, before anything is done, where the folder of `file` does not exist. A file that cannot be written
    afterwards is told of and changes nothing else.
    """
    from pmvar.cli import exit_code_of
    from pmvar.io.atomic import whole_file

    if file is not None and not file.resolve().parent.is_dir():
        raise UsageError(f"{file.parent} is not a folder; make it, or name another file for --metrics")
    found = Metrics()
    try:
        yield found
    except BaseException as error:
        found.exit_code = exit_code_of(error)
        raise
    finally:
        if file is not None:
            try:
                with whole_file(file) as temporary:
                    temporary.write_text(found.text(out.resolve()), encoding="utf-8")
                    temporary.chmod(0o644)
            except PmvarError as error:
                say(f"no metrics: {error}", log_json=log_json)
