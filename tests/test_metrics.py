"""Metrics of a run: valid exposition format, true figures, written whole however the run ends."""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pmvar.cli import exit_code_of
from pmvar.cli.app import app
from pmvar.cli.metrics import Metrics, metrics
from pmvar.errors import AuditError, ResourceError
from pmvar.io.run import read_run
from pmvar.io.times import parse_time
from tests.books import AS_OF, small_book

SAMPLE = re.compile(r'([a-z_]+)\{((?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)+)\} (\S+)')
Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture(autouse=True)
def same_signals() -> Iterator[None]:
    """A run takes SIGTERM; the next test must not."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def parsed(text: str) -> Samples:
    """Samples of the exposition format, version 0.0.4, read strictly: each family has its HELP and TYPE first and
    stands together, no series comes twice, the last line ends."""
    assert text.endswith("\n")
    found: Samples = {}
    family, seen = "", set()
    lines = iter(text.splitlines())
    for line in lines:
        if line.startswith("# HELP "):
            family = line.split()[2]
            assert family not in seen and next(lines) == f"# TYPE {family} gauge"
            seen.add(family)
            continue
        match = SAMPLE.fullmatch(line)
        assert match and match[1] == family, line
        labels = re.findall(r'([a-z]+)="((?:[^"\\]|\\.)*)"', match[2])
        key = (family, frozenset((name, value) for name, value in labels if name != "run"))
        assert "run" in dict(labels) and key not in found
        found[key] = float(match[3])
    if find_spec("prometheus_client"):
        from prometheus_client.parser import text_string_to_metric_families

        theirs = {
            (s.name, frozenset((k, v) for k, v in s.labels.items() if k != "run")): s.value
            for f in text_string_to_metric_families(text)
            for s in f.samples
        }
        assert theirs == found
    return found


def value(samples: Samples, name: str, **labels: str) -> float:
    """One sample."""
    return samples[f"pmvar_{name}", frozenset(labels.items())]


def test_of_runs_that_end_well_and_badly(tmp_path: Path) -> None:
    """Exit code, times, accounts and margin of a run that is published; then of one that is refused, beside which the
    published run keeps its age."""
    book, out, file = small_book(tmp_path / "book"), tmp_path / "run", tmp_path / "pmvar.prom"
    call = ["run", str(book), "--out", str(out), "--paths", "2048", "--no-greeks", "--metrics", str(file)]
    begun = time.time()
    done = CliRunner().invoke(app, call)
    assert done.exit_code == 0, done.exception
    samples, run = parsed(file.read_text()), read_run(out)
    assert value(samples, "run_exit_code") == 0
    assert begun <= value(samples, "run_start_timestamp_seconds") < value(samples, "run_end_timestamp_seconds")
    stages = {dict(labels)["stage"]: x for (name, labels), x in samples.items() if "stage" in name}
    assert {"revaluation", "accounts", "other"} <= set(stages) and min(stages.values()) >= 0
    assert sum(stages.values()) == pytest.approx(value(samples, "run_duration_seconds"), rel=0.01)
    margins = run.tables["margins"]
    counts = {dict(labels)["status"]: x for (name, labels), x in samples.items() if name == "pmvar_run_accounts"}
    assert counts == {"OK": 5, "MARGIN_CALL": 0, "LIQUIDATION": 0, "WITHHELD": 0}
    assert value(samples, "run_initial_margin", currency="USD") == margins["initial_margin"].sum()
    assert value(samples, "published_as_of_timestamp_seconds") == parse_time(AS_OF)
    published = value(samples, "published_timestamp_seconds")
    assert published == parse_time(run.manifest["created"])

    (book / "positions.csv").write_text("account_id\n")
    assert CliRunner().invoke(app, call).exit_code != 0
    samples = parsed(file.read_text())
    assert value(samples, "run_exit_code") == 3 and value(samples, "published_timestamp_seconds") == published
    assert not [name for name, _ in samples if name in ("pmvar_run_accounts", "pmvar_run_initial_margin")]
    file.unlink()
    CliRunner().invoke(app, [*call, "--dry-run"])
    assert not file.exists()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["book", "run"], "no half-written file is left"


@pytest.mark.parametrize(
    ("error", "code"),
    [(ResourceError("x"), 6), (AuditError("x"), 9), (KeyboardInterrupt(), 130), (MemoryError(), 6),
     (ZeroDivisionError(), 70), (SystemExit(143), 143), (SystemExit("text"), 1), (SystemExit(None), 0)],
)  # fmt: skip
def test_whatever_ends_a_run_is_told(tmp_path: Path, error: BaseException, code: int) -> None:
    """The file says the exit code that the process will have, and the error goes on."""
    assert exit_code_of(error) == code
    with pytest.raises(type(error)), metrics(tmp_path / "x.prom", tmp_path, log_json=False):
        raise error
    assert value(parsed((tmp_path / "x.prom").read_text()), "run_exit_code") == code


def test_names_are_escaped_and_a_lost_file_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder's name may hold quotes; one that is missing is refused at once; a file that cannot be
    written is told of, and no more."""
    text = Metrics().text(tmp_path / 'a "b" \\ c\nd')
    assert r"a \"b\" \\ c\nd" in text
    parsed(text)
    call = ["run", str(tmp_path), "--out", str(tmp_path / "run"), "--metrics", str(tmp_path / "none" / "x.prom")]
    refused = CliRunner().invoke(app, call).exception
    assert exit_code_of(refused or KeyboardInterrupt()) == 2 and "is not a folder" in str(refused)
    with metrics(tmp_path / "x.prom", tmp_path, log_json=False):
        (tmp_path / "x.prom").mkdir()
    assert "pmvar: no metrics: " in capsys.readouterr().err
