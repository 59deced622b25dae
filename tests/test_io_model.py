"""model.json there and back: every model, its sampling and its history; what is wrong with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pmvar.errors import InputError, Problem, StateError, UsageError
from pmvar.io.book import load_book
from pmvar.io.model_file import model_json, read_model
from pmvar.io.problems import Problems
from pmvar.io.source import Source
from pmvar.io.times import parse_time
from pmvar.io.write_book import write_book
from pmvar.models import NAMES, build
from pmvar.models.specification import ModelSpecification
from pmvar.scenarios.clock import horizon_steps
from tests.books import AS_OF, columns, small_model, small_rows, small_toml

FILTER = {"BTC:spot": {"ewma": True}, "ETH:spot": {"omega": 1e-5, "alpha": 0.05, "gamma": 0.02, "beta": 0.9}}
MERTON = {"intensity": 12.0, "mean": -0.02, "deviation": 0.03, "own": {"BTC:vol": {
    "intensity": 2.0, "mean": 0.1, "deviation": 0.05}}, "loading": {"ETH:spot": 1.2}, "scatter": {"ETH:spot": 0.01},
}  # fmt: skip
KOU = {"intensity": 12.0, "up_probability": 0.4, "up_rate": 50.0, "down_rate": 40.0}
KOU |= {"own": {"ETH:spot": {**KOU, "intensity": 2.0}}}
VARIANCE = {
    u: {"kappa": 2.0 + i, "theta": 0.3, "vol_of_variance": 0.8, "initial": 0.25} for i, u in enumerate(("BTC", "ETH"))
}
SVCJ = {"intensity": 3.0, "by_underlying": {
    u: {"mean": -0.05, "deviation": 0.04, "variance_mean": 0.1, "correlation": -0.3} for u in VARIANCE
}}  # fmt: skip
SAMPLING = {"mixing_share": 0.4, "mixing_exponent": 0.5, "inflation": [1.25], "count_share": 0.5}
HISTORY = np.random.default_rng(1).standard_t(4, size=(260, 4)) * 0.02
TIMES = [f"{2024 + (i >= 240)}-{i % 240 // 20 + 1:02d}-{i % 20 + 1:02d}" for i in range(260)]

MODELS: dict[str, dict[str, Any]] = {
    "gaussian": {},
    "t": {},
    "t-multi": {"parameters": {"skew": {"BTC:spot": 0.0}}},
    "t-garch": {"state": {"filter": FILTER}},
    "t-jump": {"parameters": {"jumps": MERTON}},
    "t-garch-jump": {"parameters": {"jumps": KOU}, "state": {"filter": FILTER}},
    "merton": {"parameters": {"jumps": MERTON}},
    "kou": {"parameters": {"jumps": KOU}},
    "heston": {"parameters": {"variance": VARIANCE, "steps_per_day": 4}, "state": {"variance": {"BTC": 0.4}}},
    "svcj": {"parameters": {"variance": VARIANCE, "jumps": SVCJ}},
    "fhs": {"state": {"filter": FILTER}, "history": HISTORY},
    "historical": {"history": HISTORY},
}


def of(name: str) -> ModelSpecification:
    """The small book's factors under a model, vols wide enough for its jumps."""
    factors = tuple(replace(f, volatility=0.06) for f in small_model().factors)
    return replace(small_model(), model=name, factors=factors, sampling=SAMPLING, **MODELS[name])


def write(path: Path, model: ModelSpecification, **options: Any) -> Path:
    """The small book with another model."""
    tables = {name: columns(rows) for name, rows in small_rows().items()}
    given: dict[str, Any] = {"history_time": TIMES if model.history is not None else None} | options
    return write_book(path, book_toml=small_toml(), tables=tables, model=model, **given)


def assert_same(a: ModelSpecification, b: ModelSpecification) -> None:
    """To the last bit."""
    for name in ModelSpecification.__dataclass_fields__:
        x, y = getattr(a, name), getattr(b, name)
        if isinstance(x, np.ndarray):
            np.testing.assert_array_equal(x, y)
            assert x.dtype == y.dtype
        else:
            assert x == y, name


def test_every_model_of_this_version_is_here():
    assert set(MODELS) == set(NAMES)


@pytest.mark.parametrize("name", MODELS)
def test_every_model_survives(tmp_path, name):
    """Written by `model_json` beside its book, read back equal, and built."""
    model = of(name)
    for table_format in ("csv", "parquet"):
        book = load_book(write(tmp_path / table_format, model, table_format=table_format))
        assert_same(book.model, model)
        assert (f"history.{table_format}" in book.input_hashes) == (model.history is not None)
    assert build(book.model, horizon_steps("2d")).dimension() >= 1


def test_the_text_of_a_model_without_history(tmp_path):
    text = model_json(of("kou"))
    problems = Problems()
    found = read_model(text.encode(), source=Source(tmp_path), problems=problems)
    assert found is not None and not len(problems)
    assert_same(found, of("kou"))
    assert "history" not in json.loads(text) and json.loads(text)["sampling"] == SAMPLING


def test_a_history_is_not_left_out_in_silence(tmp_path):
    with pytest.raises(UsageError, match="model fhs holds a history"):
        model_json(of("fhs"))
    with pytest.raises(UsageError, match="need their times"):
        write(tmp_path / "book", of("fhs"), history_time=None)
    with pytest.raises(UsageError, match="260 rows needs as many times, not 259"):
        write(tmp_path / "book", of("fhs"), history_time=TIMES[1:])


@pytest.mark.parametrize("kind", ["seconds", "timestamp", "text"])
def test_times_of_a_history(tmp_path, kind):
    """Epoch seconds given to the writer; time stamps and RFC 3339 text in the file; columns in any order."""
    seconds = [parse_time(f"{t}T08:00:00Z") for t in TIMES]
    folder = write(tmp_path / "book", of("historical"), history_time=np.array(seconds), table_format="parquet")
    if kind == "timestamp":
        table = pq.read_table(folder / "history.parquet")
        stamps = pa.array(np.array(seconds) * 1e6, pa.float64()).cast(pa.int64()).cast(pa.timestamp("us", "UTC"))
        table = table.set_column(0, "time", stamps).select([2, 0, 4, 3, 1])
        pq.write_table(table, folder / "history.parquet")
        rehash(folder, "history.parquet")
    if kind == "text":
        spoil(folder, lambda lines: lines)
    assert_same(load_book(folder).model, of("historical"))


def rehash(folder: Path, file: str) -> None:
    """Make model.json name the file as it now is."""
    document = json.loads((folder / "model.json").read_text())
    document["history"] = {"file": file, "sha256": hashlib.sha256((folder / file).read_bytes()).hexdigest()}
    (folder / "model.json").write_text(json.dumps(document))


def spoil(folder: Path, change: Callable[[list[str]], list[str]], *, hashed: bool = True) -> None:
    """Change the lines of history.csv, and its hash in model.json with them."""
    if not (folder / "history.csv").exists():
        table = pq.read_table(folder / "history.parquet")
        (folder / "history.parquet").unlink()
        rows = zip(*(table[name].to_pylist() for name in table.column_names), strict=True)
        lines = [",".join(table.column_names), *(",".join(map(str, row)) for row in rows)]
    else:
        lines = (folder / "history.csv").read_text().splitlines()
    (folder / "history.csv").write_text("\n".join(change(lines)) + "\n")
    if hashed:
        rehash(folder, "history.csv")


def problems_of(folder: Path) -> tuple[Problem, ...]:
    with pytest.raises(InputError) as caught:
        load_book(folder)
    return caught.value.problems


def cell(row: int, column: int, value: str) -> Callable[[list[str]], list[str]]:
    """A change of one cell; line 1 is the header."""

    def change(lines: list[str]) -> list[str]:
        cells = lines[row - 1].split(",")
        cells[column] = value
        return [*lines[: row - 1], ",".join(cells), *lines[row:]]

    return change


@pytest.mark.parametrize(
    ("change", "row", "column", "rule"),
    [
        (cell(1, 2, '"SOL:vol"'), 1, "SOL:vol", "unknown column"),
        (lambda lines: [line.rpartition(",")[0] for line in lines], 1, "ETH:vol", "the column is missing"),
        (cell(7, 3, "nan"), 7, "ETH:spot", "must be a plain decimal number"),
        (cell(7, 3, ""), 7, "ETH:spot", "must not be blank"),
        (cell(7, 3, "1e400"), 7, "ETH:spot", "must be finite"),
        (cell(7, 3, "2000"), 7, "ETH:spot", "must be between -1000 and 1000"),
        (cell(9, 0, '"2023-12-31"'), 9, "time", "must be later than the row before"),
        (cell(9, 0, '"2024-01-07"'), 9, "time", "must be later than the row before"),
        (cell(9, 0, '"2024-02-30"'), 9, "time", "day is out of range"),
        (cell(9, 0, '"07/01/2024"'), 9, "time", "is not an RFC 3339 time"),
        (cell(9, 0, '"2024-01-08T00:00:00"'), 9, "time", "is not an RFC 3339 time"),
        (lambda lines: lines[:250], None, "", "a history needs 250 past steps, this has 249"),
        (lambda lines: lines[:1], None, "", "must have at least one row"),
    ],
)
def test_faults_of_a_history_name_the_row(tmp_path, change, row, column, rule):
    folder = write(tmp_path / "book", of("fhs"))
    spoil(folder, change)
    found = problems_of(folder)
    assert any(p.file == "history.csv" and (p.row, p.column) == (row, column) and rule in p.rule for p in found), found


@pytest.mark.parametrize(
    ("given", "column", "rule"),
    [
        ({"file": "history.csv"}, "history", "history is {file, sha256}"),
        ({"file": "history.csv", "sha256": 1}, "history", "history is {file, sha256}"),
        ({"file": "../history.csv", "sha256": ""}, "history.file", "beside model.json"),
        ({"file": "/etc/history.csv", "sha256": ""}, "history.file", "beside model.json"),
        ({"file": "a\\history.csv", "sha256": ""}, "history.file", "beside model.json"),
        ({"file": "history.txt", "sha256": ""}, "history.file", "beside model.json"),
        ({"file": "history.parquet", "sha256": ""}, "history.file", "the file beside model.json is history.csv"),
        ({"file": "past.csv", "sha256": ""}, "", "exactly one of past.csv, past.parquet and past.sql must exist"),
        ({"file": "history.csv", "sha256": "0" * 64}, "history.sha256", "not the file that the model was made with"),
        ([], "history", "must be dict"),
    ],
)
def test_a_history_that_is_not_the_models(tmp_path, given, column, rule):
    folder = write(tmp_path / "book", of("fhs"))
    document = json.loads((folder / "model.json").read_text())
    (folder / "model.json").write_text(json.dumps(document | {"history": given}))
    assert any(p.column == column and rule in p.rule for p in problems_of(folder))


def test_a_history_that_changed(tmp_path, monkeypatch):
    """Before it is read: the hash says so. While the book is read: the state is refused, as for every table."""
    folder = write(tmp_path / "book", of("fhs"))
    spoil(folder, cell(7, 1, "0.01"), hashed=False)
    (problem,) = problems_of(folder)
    assert (problem.file, problem.column) == ("model.json", "history.sha256")
    rehash(folder, "history.csv")
    read = Source.read

    def meddle(self: Source, name: str) -> bytes:
        content = read(self, name)
        if name == "positions.csv":
            spoil(folder, cell(8, 1, "0.01"))
        return content

    monkeypatch.setattr(Source, "read", meddle)
    with pytest.raises(StateError, match="changed while the folder was read"):
        load_book(folder)


def test_bad_parameters_are_reported_with_everything_else(tmp_path):
    """A jump that exceeds its variance, beside a position that is no number: one error, exit code 3."""
    folder = write(tmp_path / "book", replace(of("merton"), parameters={"jumps": MERTON | {"intensity": 5000.0}}))
    text = (folder / "positions.csv").read_text()
    (folder / "positions.csv").write_text(text.replace("-12.5", "many"))
    found = problems_of(folder)
    assert {p.file for p in found} == {"model.json", "positions.csv"}
    assert any(p.column.startswith("parameters.jumps") for p in found)
    assert InputError.exit_code == 3


def test_a_correlation_beyond_repair_is_reported_at_load(tmp_path):
    c = np.eye(4)
    c[0, 1] = c[1, 0] = c[1, 2] = c[2, 1] = 0.9
    c[0, 2] = c[2, 0] = -0.9
    (problem,) = problems_of(write(tmp_path / "book", replace(of("gaussian"), correlation=c)))
    assert problem.column == "correlation" and "not positive semi-definite" in problem.rule
    assert parse_time(AS_OF) == of("gaussian").as_of
