"""The command line as a user meets it: what it prints, what it writes, and how it ends when something is wrong."""

from __future__ import annotations

import copy
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

import pmvar
from pmvar.cli import main
from pmvar.io.run import read_run
from pmvar.io.times import parse_time
from pmvar.risk.result import TABLES
from tests.books import AS_OF, small_book, small_model, small_rows

PATHS = "4096"


class Done(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Cli = Callable[..., Done]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Cli]:
    """The entry point of `pmvar`, called in this process: warnings are errors here, so none reaches a user."""
    before = signal.getsignal(signal.SIGTERM)

    def call(*arguments: object) -> Done:
        monkeypatch.setattr(sys, "argv", ["pmvar", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        printed = capsys.readouterr()
        return Done(int(ended.value.code or 0), printed.out, printed.err)

    yield call
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def book(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small book."""
    return small_book(tmp_path_factory.mktemp("cli") / "book")


@pytest.fixture(scope="module")
def published(book: Path, user_env: dict[str, str]) -> Path:
    """A run of it, by `python -m pmvar` in a process of its own."""
    out = book.parent / "run"
    done = subprocess.run(
        [sys.executable, "-m", "pmvar", "run", str(book), "--out", str(out), "--paths", PATHS],
        env=user_env, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == "", "quiet where nobody watches"
    assert re.search(r"5 accounts under 4,096 scenarios over 2d in .* s: 5 OK", done.stdout)
    assert done.stdout.splitlines()[-1] == f"report: {out / 'report.html'}"
    return out


def content(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones included."""
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_run_publishes_everything(published: Path) -> None:
    """Tables, manifest and report are there, verify, and agree with each other."""
    run = read_run(published)
    files = {p.name for p in published.iterdir()}
    assert files == {*(f"{t}.parquet" for t in TABLES), "chain.parquet", "manifest.json", "report.html"}
    assert run.manifest["settings"]["n_scenarios"] == 4096 and run.manifest["n_accounts"] == 5
    assert run.manifest["book"] == "../book"
    assert run.tables["margins"]["account_id"].tolist() == ["001", "002", "003", "NA", "desk"]
    assert set(run.tables["stress"]["scenario"]) == {"crash", "rally"}


def test_the_documented_lines_give_the_same_tables(
    book: Path, published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """load_book, simulate, reprice, margin_report, write: the lines of the documentation are what the command does."""
    monkeypatch.chdir(tmp_path)
    loaded = pmvar.load_book(book)
    scenarios = pmvar.simulate(loaded.model, loaded.market, seed=1, n_scenarios=int(PATHS), horizon="2d")
    pnl = pmvar.reprice(loaded.portfolio, loaded.market, scenarios)
    report = pmvar.margin_report(pnl, loaded.portfolio, loaded.rules)
    report.write("run")
    ours, theirs = read_run("run"), read_run(published)
    for name in set(TABLES) - {"stress"}:
        for column, values in theirs.tables[name].items():
            np.testing.assert_array_equal(ours.tables[name][column], values, err_msg=f"{name}.{column}")
    assert len(ours.tables["stress"]["loss"]) == 0, "no stress list was given"


def test_doctor(cli: Cli) -> None:
    """`pmvar doctor` says versions, devices, precision, memory and what is missing."""
    done = cli("doctor")
    assert done.code == 0
    for word in (pmvar.__version__, "jaxlib", "devices", "64-bit on", "GiB", "extras"):
        assert word in done.out
    assert "MISSING" not in done.out


def test_help_needs_no_jax(user_env: dict[str, str]) -> None:
    """`pmvar --help` and a mistyped command are quick: nothing heavy is loaded."""
    program = (
        "import sys; from pmvar.cli.app import app; app(['--help'], standalone_mode=False); print('jax' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], env=user_env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stdout.splitlines()[-1] == "False"
    assert all(
        command in done.stdout for command in ("run", "accurate", "validate", "explain", "populate", "import", "doctor")
    )


def test_demo_validate_run_explain(cli: Cli, tmp_path: Path) -> None:
    """The path of the README: a synthetic book, checked, run, explained; it says that it is synthetic."""
    demo = cli("demo", "--out", tmp_path / "book", "--accounts", 12)
    assert demo.code == 0 and "12 accounts" in demo.out and "synthetic" in demo.out
    checked = cli("validate", tmp_path / "book")
    assert checked.code == 0 and "is sound: 12 accounts" in checked.out
    assert cli("run", tmp_path / "book", "--out", tmp_path / "run", "--paths", PATHS).code == 0
    accounts = read_run(tmp_path / "run").tables["margins"]["account_id"]
    assert len(accounts) == 12
    for account in accounts:
        text = cli("explain", tmp_path / "run", account)
        assert text.code == 0 and text.out.startswith(f"Account {account}: ")
        assert text.out.count("check: equals the expected shortfall") == 2 and "CHECK FAILS" not in text.out
    assert "ynthetic" in (tmp_path / "run" / "report.html").read_text()


def test_accurate(cli: Cli, book: Path) -> None:
    """One account by samples of its own: both measures with errors and intervals, options over the book's; exit 2 for
    an account that is not there."""
    done = cli("accurate", book, "desk", "--paths", PATHS, "--level", "0.975")
    assert done.code == 0 and done.out.startswith("desk: 4,096 scenarios of its own over 2d, at 97.5 %, in USD")
    assert all(word in done.out for word in ("value at risk", "expected shortfall", "95 % interval", "largest weight"))
    assert cli("accurate", book, "nobody", "--paths", PATHS).code == 2


def test_explain_of_an_unknown_account(cli: Cli, published: Path) -> None:
    """Exit 2, with the nearest name; and for a folder that is no run."""
    done = cli("explain", published, "dsk")
    assert done.code == 2 and "did you mean 'desk'?" in done.err and done.out == ""
    assert cli("explain", published.parent, "desk").code == 2


def test_validate_lists_every_problem(cli: Cli, tmp_path: Path) -> None:
    """All bad rows of all files at once, each with file, row, column, value and what to do; exit 3."""
    path = small_book(tmp_path / "book")
    positions = (path / "positions.csv").read_text()
    (path / "positions.csv").write_text(positions.replace(",-5\n", ",nan\n").replace(",2000\n", ",2_000\n"))
    spots = (path / "market" / "spots.csv").read_text()
    (path / "market" / "spots.csv").write_text(spots.replace(",3000,", ",-3000,"))
    before = content(path)
    for arguments in (("validate", path), ("run", path, "--out", tmp_path / "run")):
        done = cli(*arguments)
        assert done.code == 3 and done.out == ""
        for told in ("positions.csv:", "'nan'", "'2_000'", "spots.csv:", "'-3000.0'"):
            assert told in done.err, told
        assert len(done.err.splitlines()) >= 3
    assert content(path) == before and not (tmp_path / "run").exists()


def test_withheld_accounts_end_with_4(cli: Cli, tmp_path: Path) -> None:
    """An unknown instrument: the run is published, the account withheld with a reason, exit 4, and explain says so."""
    rows = copy.deepcopy(small_rows())
    rows["positions"].append({"account_id": "NA", "instrument_id": "DOGE-PERPETUAL", "quantity": 10.0})
    path = small_book(tmp_path / "book", rows=rows)
    assert cli("validate", path).code == 0
    done = cli("run", path, "--out", tmp_path / "run", "--paths", PATHS)
    assert done.code == 4 and "1 WITHHELD" in done.out
    margins = read_run(tmp_path / "run").tables["margins"]
    assert margins["status"].tolist().count("WITHHELD") == 1
    text = cli("explain", tmp_path / "run", "NA")
    assert text.code == 0 and "unknown instrument DOGE-PERPETUAL" in text.out


def test_last_good_margin_survives_runs_that_withhold(cli: Cli, tmp_path: Path) -> None:
    """An account withheld in two runs keeps, in both, at least the margin of the last run that could value it."""
    rows = copy.deepcopy(small_rows())
    rows["positions"] = [
        r | {"quantity": 40 * r["quantity"]} if r["account_id"] == "NA" else r for r in rows["positions"]
    ]
    small_book(tmp_path / "good", rows=rows)
    rows["positions"] = [r | {"instrument_id": "GONE", "quantity": 1e-3} if r["account_id"] == "NA" else r
                         for r in rows["positions"]]  # fmt: skip
    small_book(tmp_path / "bad", rows=rows)

    def margin(book: str) -> float:
        code = cli("run", tmp_path / book, "--out", tmp_path / "run", "--paths", PATHS).code
        assert code == (0 if book == "good" else 4)
        m = read_run(tmp_path / "run").tables["margins"]
        return float(m["initial_margin"][m["account_id"] == "NA"][0])

    good = margin("good")
    assert good > 10_000
    assert [margin("bad"), margin("bad")] == [good, good]
    assert margin("good") == good


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--paths", "100"], "scenarios"),
        (["--level", "1.5"], "level"),
        (["--level", "0.99999"], "scenarios"),
        (["--horizon", "2w"], "horizon"),
        (["--seed", "-1"], "seed"),
        (["--sampling", "quasi"], "sampling"),
        (["--format", "xlsx"], "format"),
        (["--no-such-option"], "no-such-option"),
    ],
)  # fmt: skip
def test_wrong_options_end_with_2(cli: Cli, book: Path, tmp_path: Path, arguments: list[str], told: str) -> None:
    """A wrong option is named, nothing is written, and the exit code says usage."""
    done = cli("run", book, "--out", tmp_path / "run", *arguments)
    assert done.code == 2 and told in done.err.lower(), done.err
    assert not (tmp_path / "run").exists()


def test_targets_that_cannot_be_written(cli: Cli, book: Path, tmp_path: Path) -> None:
    """A file, a folder of something else, a place that is read-only, a book that is not there: exit 2, at once."""
    (tmp_path / "file").write_text("x")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    for out in (tmp_path / "file", tmp_path / "mine", Path("/proc/run")):
        done = cli("run", book, "--out", out)
        assert done.code == 2 and str(out) in done.err
    assert (tmp_path / "mine" / "thesis.tex").read_text() == "x"
    if os.geteuid() != 0:
        (tmp_path / "closed").mkdir(mode=0o500)
        assert cli("run", book, "--out", tmp_path / "closed" / "run").code == 2
    assert cli("validate", tmp_path / "nowhere").code == 2
    assert cli("run", tmp_path / "nowhere", "--out", tmp_path / "run").code == 2


def test_account_count_gate(cli: Cli, book: Path, published: Path, tmp_path: Path) -> None:
    """Far fewer accounts than in the run there: exit 4 with nothing changed, until it is acknowledged."""
    out = tmp_path / "run"
    assert cli("run", book, "--out", out, "--paths", PATHS).code == 0
    before = content(out)
    rows = copy.deepcopy(small_rows())
    rows["positions"] = [r for r in rows["positions"] if r["account_id"] == "003"]
    rows["balances"] = [r for r in rows["balances"] if r["account_id"] == "003"]
    fewer = small_book(tmp_path / "fewer", rows=rows)
    done = cli("run", fewer, "--out", out, "--paths", PATHS)
    assert done.code == 4 and "--acknowledge account-count" in done.err
    assert content(out) == before and sorted(p.name for p in tmp_path.iterdir()) == ["fewer", "run"]
    done = cli("run", fewer, "--out", out, "--paths", PATHS, "--acknowledge", "account-count")
    assert done.code == 0
    ours, theirs = read_run(out).tables["margins"], read_run(published).tables["margins"]
    assert ours["account_id"].tolist() == ["003"]
    assert ours["initial_margin"][0] == theirs["initial_margin"][theirs["account_id"] == "003"][0]


def test_a_failing_run_leaves_the_prior_one(cli: Cli, book: Path, tmp_path: Path) -> None:
    """Bad input, a bad option, a model whose numbers explode: whatever stops a run, what was there stays whole."""
    out = tmp_path / "run"
    assert cli("run", book, "--out", out, "--paths", PATHS).code == 0
    before = content(out)
    small_book(tmp_path / "bad")
    text = (tmp_path / "bad" / "positions.csv").read_text()
    (tmp_path / "bad" / "positions.csv").write_text(text.replace(",-5\n", ",1e400\n"))
    wild = small_model()
    factors = tuple(type(f)(f.name, 50.0, f.degrees_of_freedom, f.source) for f in wild.factors)
    small_book(tmp_path / "wild", model=type(wild)("t", wild.as_of, factors, wild.correlation))
    failed = [
        cli("run", tmp_path / "bad", "--out", out, "--paths", PATHS),
        cli("run", book, "--out", out, "--paths", "7"),
        cli("run", tmp_path / "wild", "--out", out, "--paths", PATHS),
    ]
    assert [done.code for done in failed] == [3, 2, 5], failed[2]
    assert "check volatilities" in failed[2].err
    assert content(out) == before
    assert not [p.name for p in tmp_path.iterdir() if p.name.startswith(".")]


def test_log_json(cli: Cli, book: Path, tmp_path: Path) -> None:
    """Each line on standard error is a JSON object; every stage ends with all of its work done."""
    done = cli("run", book, "--out", tmp_path / "run", "--paths", "8192", "--log-json")
    assert done.code == 0
    lines = [json.loads(line) for line in done.err.splitlines()]
    assert {line["event"] for line in lines} == {"progress"}
    stages = list(dict.fromkeys(line["stage"] for line in lines))
    assert {"revaluation", "accounts", "gradients"} <= set(stages)
    for stage in stages:
        counts = [line["done"] for line in lines if line["stage"] == stage]
        totals = {line["total"] for line in lines if line["stage"] == stage}
        assert counts == sorted(counts) and counts[0] == 0 and totals == {counts[-1]}


def test_csv_tables_hold_the_same_numbers(cli: Cli, book: Path, published: Path, tmp_path: Path) -> None:
    """`--format csv` writes the numbers to the last bit."""
    assert cli("run", book, "--out", tmp_path / "run", "--paths", PATHS, "--format", "csv").code == 0
    assert (tmp_path / "run" / "margins.csv").is_file() and not list((tmp_path / "run").glob("*.parquet"))
    ours, theirs = read_run(tmp_path / "run").tables, read_run(published).tables
    for name, columns in theirs.items():
        for column, values in columns.items():
            np.testing.assert_array_equal(ours[name][column], values, err_msg=f"{name}.{column}")


def test_options_override_the_book(cli: Cli, book: Path, published: Path, tmp_path: Path) -> None:
    """Seed, level, horizon, precision and greeks given as options are what the manifest says, and change the result."""
    done = cli("run", book, "--out", tmp_path / "run", "--paths", PATHS, "--seed", 2, "--level", 0.975,
               "--horizon", "1d", "--precision", "float64", "--no-greeks", "--memory", "1.2GiB")  # fmt: skip
    assert done.code == 0
    ours, theirs = read_run(tmp_path / "run"), read_run(published)
    s = ours.manifest["settings"]
    assert (s["seed"], s["level"], s["horizon"], s["precision"]) == (2, 0.975, "1d", "float64")
    assert len(ours.tables["greeks"]["value"]) == 0
    assert set(ours.tables["margins"]["level"]) == {0.975}
    assert np.all(ours.tables["margins"]["initial_margin"] < theirs.tables["margins"]["initial_margin"])


def test_netting_sum(cli: Cli, published: Path, tmp_path: Path) -> None:
    """Duplicate positions are refused with exit 3, or summed on request and said so; the sum is the whole position."""
    rows = copy.deepcopy(small_rows())
    rows["positions"] = [{**r, "quantity": part * r["quantity"]} for r in rows["positions"] for part in (0.25, 0.75)]
    path = small_book(tmp_path / "book", rows=rows)
    assert cli("run", path, "--out", tmp_path / "run", "--paths", PATHS).code == 3
    assert cli("run", path, "--out", tmp_path / "run", "--paths", PATHS, "--netting", "sum").code == 0
    run = read_run(tmp_path / "run")
    assert run.manifest["settings"]["netting"] == "sum"
    assert any("11 duplicate rows summed" in note for note in run.manifest["notes"])
    for column, values in read_run(published).tables["margins"].items():
        np.testing.assert_array_equal(run.tables["margins"][column], values, err_msg=column)


def test_a_changed_run_is_not_explained(cli: Cli, book: Path, tmp_path: Path) -> None:
    """A run whose file was altered ends with 9, and is not replaced by a run that would take its margins as good."""
    assert cli("run", book, "--out", tmp_path / "run", "--paths", PATHS, "--format", "csv").code == 0
    file = tmp_path / "run" / "margins.csv"
    file.write_text(file.read_text().replace("OK", "ok", 1))
    done = cli("explain", tmp_path / "run", "001")
    assert done.code == 9 and "margins.csv was changed" in done.err
    assert cli("run", book, "--out", tmp_path / "run", "--paths", PATHS).code == 9


# --- Import, populate, run


CHAIN_TIME = "2026-01-02T09:18:09+00:00"
HEADER = (
    "timestamp,instrument_name,underlying,underlying_name,option_type,strike,expiry_datetime,bid_price,ask_price,"
    "mark_price,implied_volatility,currency,index_price"
)


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """A hand-made chain: two expiries, seven strikes each, marks from Black's formula on a smile."""
    import jax.numpy as jnp

    from pmvar.kernels.black import normalised_black

    lines = [HEADER]
    for label, expiry, forward in (("30JAN26", "2026-01-30", 88_400.0), ("27MAR26", "2026-03-27", 89_000.0)):
        year = (parse_time(f"{expiry}T08:00:00Z") - parse_time(CHAIN_TIME)) / 31_536_000
        for strike in range(70_000, 112_000, 6_000):
            vol = 0.45 + 0.3 * np.log(strike / forward) ** 2
            for kind, sign in (("call", 1.0), ("put", -1.0)):
                price = float(
                    normalised_black(
                        jnp.array([np.log(strike / forward)]), jnp.array([vol * year**0.5]), jnp.array([sign])
                    )[0]
                )
                name = f"BTC-{label}-{strike}-{kind[0].upper()}"
                lines.append(
                    f"{CHAIN_TIME},{name},{forward},BTC-{label},{kind},{strike}.0,{expiry}T08:00:00+00:00,"
                    f"{price * 0.99:.6f},{price * 1.01:.6f},{price:.6f},{vol:.6f},BTC,88000.0"
                )
    path = tmp_path / "chain.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_import_populate_run(cli: Cli, chain: Path, tmp_path: Path) -> None:
    """From a venue's chain to margins: options, two futures and the perpetual; every margin has a standard error."""
    book = tmp_path / "book"
    imported = cli("import", "deribit", chain, "--out", book)
    assert imported.code == 0 and "31 instruments" in imported.out and "pmvar populate" in imported.out
    filled = cli("populate", book, "--accounts", 20, "--seed", 3)
    assert filled.code == 0 and "20 accounts" in filled.out and "nobody holds them" in filled.out
    before = content(book)
    again = cli("populate", book, "--accounts", 20)
    assert again.code == 2 and "positions" in again.err and content(book) == before
    assert cli("validate", book).code == 0
    done = cli("run", book, "--out", tmp_path / "run", "--paths", PATHS)
    assert done.code == 0 and "20 accounts" in done.out
    m = read_run(tmp_path / "run").tables["margins"]
    assert np.all((m["initial_margin"] == 0) | (m["es_standard_error"] > 0)) and np.all(m["initial_margin"] >= 0)
    page = (tmp_path / "run" / "report.html").read_text()
    assert "assumed" in page and "nobody holds them" in page


def test_import_of_another_time_lists_the_times(cli: Cli, chain: Path, tmp_path: Path) -> None:
    """No snapshot within a day before `--at`: exit 3 with the times that there are; `--at` that is no time: exit 2."""
    done = cli("import", "deribit", chain, "--out", tmp_path / "book", "--at", "2026-01-05T00:00:00Z")
    assert done.code == 3 and "2026-01-02T09:18:09Z" in done.err
    assert cli("import", "deribit", chain, "--out", tmp_path / "book", "--at", "noon").code == 2
    assert cli("import", "deribit", tmp_path / "none.csv", "--out", tmp_path / "book").code in (2, 3)
    assert not (tmp_path / "book").exists()


def test_as_of_is_the_books(published: Path) -> None:
    """No wall clock in a result: the run is as of the book, whatever the day."""
    assert parse_time(read_run(published).manifest["settings"]["as_of"]) == parse_time(AS_OF)
