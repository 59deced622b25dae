"""The change of margins between two runs: steps that add up, each what the documented order says, nothing unnamed."""

from __future__ import annotations

import copy
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pmvar.audit import difference as difference_module
from pmvar.audit.difference import TABLES, DifferenceReport, Step, difference
from pmvar.audit.reproduce import reproduce
from pmvar.bulk.run import Request, run
from pmvar.cli.app import app
from pmvar.errors import AuditError, UsageError
from pmvar.io.book import load_book
from pmvar.io.run import MANIFEST, _digest, read_manifest, read_run
from pmvar.io.verify import verify_run
from pmvar.types import Detail
from tests.books import AS_OF, Rows, row, small_book, small_model, small_rows, small_toml
from tests.test_reproduce import publish

TODAY = "2025-02-01T08:00:00Z"
STEPS = [str(step) for step in Step]


def positions_change(rows: dict[str, Rows]) -> None:
    """001 sells more, 003 is closed, `new` is opened."""
    row(rows["positions"], account_id="001", instrument_id="BTC-28FEB25-100000-C")["quantity"] = -7.0
    for table in ("positions", "balances"):
        rows[table] = [r for r in rows[table] if r["account_id"] != "003"]
    rows["positions"].append({"account_id": "new", "instrument_id": "ETH-PERPETUAL", "quantity": 4_000.0})


def market_change(rows: dict[str, Rows]) -> None:
    """Coins fall, vols rise."""
    for spot in rows["market/spots"]:
        spot["price"] *= 0.96
    for forward in rows["market/forwards"]:
        forward["forward"] *= 0.96
    for vol in rows["market/vols"]:
        vol["implied_vol"] *= 1.05
    # Marks of yesterday would be stale.
    del rows["market/marks"]


def book(
    path: Path, *changes: Callable[[dict[str, Rows]], None], as_of: str = AS_OF, volatility: float = 1.0
) -> Path:
    """The small book with changes, as of a time, its model's volatilities multiplied."""
    rows = copy.deepcopy(small_rows())
    for change in changes:
        change(rows)
    for spot in rows["market/spots"]:
        spot["time"] = as_of
    for mark in rows.get("market/marks", []):
        mark["time"] = as_of
    model = small_model()
    factors = tuple(replace(f, volatility=volatility * f.volatility) for f in model.factors)
    return small_book(path, rows=rows, toml=small_toml() | {"as_of": as_of}, model=replace(model, factors=factors))


def run_of(path: Path, *changes: Callable[[dict[str, Rows]], None], **options: Any) -> Path:
    """A run of such a book."""
    return publish(book(path / "book", *changes, **options), path / "run")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the runs of this module lie."""
    return tmp_path_factory.mktemp("difference")


@pytest.fixture(scope="module")
def before(folder: Path) -> Path:
    """Yesterday's run."""
    return run_of(folder / "before")


@pytest.fixture(scope="module")
def after(folder: Path) -> Path:
    """Today's: everything has changed."""
    return run_of(folder / "after", positions_change, market_change, as_of=TODAY, volatility=1.2)


@pytest.fixture(scope="module")
def found(before: Path, after: Path) -> DifferenceReport:
    """From the one to the other."""
    return difference(before, after / MANIFEST)


def cell(found: DifferenceReport, account: str, column: str, measure: str = "initial_margin") -> float:
    """A number of the table."""
    table = found.tables["differences"]
    (i,) = np.flatnonzero((table["account_id"] == account) & (table["measure"] == measure))
    return table[column][i]


def test_steps_add_up_to_the_published_margins(before: Path, after: Path, found: DifferenceReport) -> None:
    """Each row's sum is exact in any order, and its ends are the published numbers."""
    table = found.tables["differences"]
    assert tuple(table) == TABLES["differences"]
    names = ["001", "002", "003", "NA", "desk", "new"]
    assert table["account_id"].tolist() == [n for n in names for _ in range(2)]
    assert dict(zip(table["account_id"], table["state"], strict=True)) == dict.fromkeys(names, "KEPT") | {
        "003": "CLOSED", "new": "OPENED"
    }  # fmt: skip
    for order in (STEPS, STEPS[::-1]):
        total = table["before"].copy()
        for step in order:
            total = total + table[step]
        np.testing.assert_array_equal(total, table["after"])
    for path, column in ((before, "before"), (after, "after")):
        margins = read_run(path).tables["margins"]
        for measure in ("initial_margin", "expected_shortfall"):
            for account, value in zip(margins["account_id"], margins[measure], strict=True):
                assert cell(found, account, column, measure) == pytest.approx(value, rel=1e-15)
    assert cell(found, "new", "before") == cell(found, "003", "after") == 0
    for step in ("positions", "market", "model", "time"):
        assert abs(cell(found, "001", step)) > 1, step
    assert not any(np.any(table[step]) for step in ("settings", "joint", "rest"))


def test_accounts_in_parts(
    before: Path, after: Path, found: DifferenceReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many are margined at once, the bits are the same."""
    monkeypatch.setattr(difference_module, "AT_ONCE", 2)
    table = difference(before, after).tables["differences"]
    for column, values in found.tables["differences"].items():
        np.testing.assert_array_equal(table[column], values, err_msg=column)


def test_each_step_is_what_the_order_says(tmp_path: Path, before: Path, found: DifferenceReport) -> None:
    """Today's positions in yesterday's book; today's volatilities there, too, once the market is today's: margins of
    books that mix the two days."""
    mixed = run_of(tmp_path / "positions", positions_change)
    margins = read_run(mixed).tables["margins"]
    for account, value in zip(margins["account_id"], margins["initial_margin"], strict=True):
        assert cell(found, account, "before") + cell(found, account, "positions") == pytest.approx(value, rel=1e-14)
    assert cell(found, "003", "positions") == -cell(found, "003", "before")
    mixed = run_of(tmp_path / "model", positions_change, market_change, volatility=1.2)
    margins = read_run(mixed).tables["margins"]
    for account, value in zip(margins["account_id"], margins["initial_margin"], strict=True):
        until = sum(cell(found, account, c) for c in ("before", "positions", "market", "model"))
        assert until == pytest.approx(value, rel=1e-13)


def test_positions_alone_give_a_positions_step_alone(tmp_path: Path, before: Path) -> None:
    """Bit by bit: accounts that did not trade do not change, the others by their positions only."""
    found = difference(before, run_of(tmp_path, positions_change))
    table = found.tables["differences"]
    moved = table["positions"] != 0
    assert set(table["account_id"][moved]) == {"001", "003", "new"}
    np.testing.assert_array_equal(table["before"] + table["positions"], table["after"])
    assert not any(np.any(table[step]) for step in STEPS[1:])


def test_the_order_is_documented() -> None:
    """docs/audit.md lists the steps in the order that they are taken in."""
    text = (Path(__file__).resolve().parents[1] / "docs" / "audit.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", text.partition("## What changed a margin")[2], re.M) == STEPS


def test_a_changed_input_is_refused(tmp_path: Path, before: Path, after: Path) -> None:
    """The file that is not what a run was made from is named, whichever run it is; a moved book can be named."""
    other = shutil.copytree(before.parent / "book", tmp_path / "book")
    assert difference(before, after, before_book=other).tables["differences"]["after"].any()
    text = (other / "positions.csv").read_text()
    (other / "positions.csv").write_text(text.replace("2000", "2001"))
    for of_before, of_after in ((other, None), (None, other)):
        with pytest.raises(AuditError, match=r"csv is not the file that .* was made from") as refused:
            difference(before, after, before_book=of_before, after_book=of_after)
        assert refused.value.exit_code == 9
    with pytest.raises(UsageError, match="name the earlier run first"):
        difference(after, before)


def test_what_cannot_be_valued_in_between_is_joint(tmp_path: Path, before: Path) -> None:
    """Positions in options that the earlier market has no vols for: one number for positions and market together."""

    def unlisted(rows: dict[str, Rows]) -> None:
        options = [r["instrument_id"] for r in rows["instruments"] if r.get("strike") and r["underlying"] == "ETH"]
        for table in ("instruments", "positions"):
            rows[table] = [r for r in rows[table] if r["instrument_id"] not in options]
        rows["market/vols"] = [r for r in rows["market/vols"] if r["underlying"] == "BTC"]

    found = difference(run_of(tmp_path, unlisted), before)
    table = found.tables["differences"]
    assert set(table["account_id"][table["joint"] != 0]) == {"002", "desk"}
    np.testing.assert_array_equal(table["before"] + table["joint"], table["after"])


def test_settings_and_other_code_have_steps_of_their_own(tmp_path: Path, before: Path) -> None:
    """Another level is `settings`; a published number that this code does not give is `rest`, and both are told."""
    other = publish(before.parent / "book", tmp_path / "level", level=0.99)
    found = difference(before, other)
    table = found.tables["differences"]
    np.testing.assert_array_equal(table["before"] + table["settings"], table["after"])
    assert "level 0.975 → 0.99" in found.notes[0]
    old = shutil.copytree(before, tmp_path / "old")
    document = read_manifest(before)
    document["hashes"]["code"] = "other"
    (old / MANIFEST).write_text(json.dumps(document | {"digest": _digest(document)}))
    again = difference(old, before, before_book=before.parent / "book")
    assert "the earlier run was made by other code" in again.notes[0]
    assert not any(np.any(again.tables["differences"][step]) for step in STEPS), "this code gives the same numbers"


def test_printed_and_published(
    tmp_path: Path, before: Path, after: Path, found: DifferenceReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The summary has totals and the largest changes, the folder verifies, one account is told step by step."""
    monkeypatch.setattr("pmvar.audit.difference.difference", lambda *_, **__: found)
    out = tmp_path / "diff"

    def printed(*options: str) -> list[str]:
        done = CliRunner().invoke(app, ["diff", str(before), str(after), *options])
        assert done.exit_code == 0, done.exception
        return done.stdout.splitlines()

    lines = printed("--out", str(out))
    assert "4 kept, 1 opened, 1 closed" in lines[0] and f"{AS_OF} to {TODAY}" in lines[0]
    assert lines[1].split() == ["account", "before", "positions", "market", "model", "time", "after"]
    all_before = read_run(before).tables["margins"]["initial_margin"].sum()
    assert lines[2].split()[:2] == ["all", f"{all_before:,.2f}"]
    assert {line.split()[0] for line in lines[3:-1]} == {"001", "002", "003", "NA", "desk", "new"}
    assert "files and the chains of 12 rows" in verify_run(out)
    page = (out / "report.html").read_text()
    assert "<script" not in page and "2025-02-01 08:00:00 UTC" in page and "new" in page
    rows = {line.split()[0]: line.split()[1:] for line in printed("--account", "001")[2:]}
    cents = {name: [round(100 * float(x.replace(",", ""))) for x in values] for name, values in rows.items()}
    for i in range(2):
        assert abs(cents["before"][i] + sum(cents[s][i] for s in STEPS) - cents["after"][i]) <= len(STEPS)
    unknown = CliRunner().invoke(app, ["diff", str(before), str(after), "--account", "0001"]).exception
    assert isinstance(unknown, UsageError) and "did you mean '001'" in str(unknown)




def test_add_ons_and_tools_are_part_of_a_margin(folder: Path) -> None:
    """Initial margin = what the tools make of the measure + add-ons; the steps add up to the published change, nothing
    of it unnamed; and such a run can be made again."""
    rules = {"scenarios": 2048, "seed": 5, "level": 0.975, "apc": "buffer", "stress_share": 0.25, "decorrelation": 0.5}
    runs = []
    for name, as_of in (("first", AS_OF), ("second", TODAY)):
        loaded = load_book(book(folder / name / "book", as_of=as_of), overrides=rules)
        run(Request(loaded, folder / "raised", Detail.COMPONENTS, settings={"decorrelation": 0.5}))
        runs.append(shutil.copytree(folder / "raised", folder / name / "run"))
        # The place of the book is relative to the run.
        tables = read_run(runs[-1]).tables
        added = np.zeros(len(tables["margins"]["account_id"]))
        for account, amount in zip(tables["add_ons"]["account_id"], tables["add_ons"]["amount"], strict=True):
            added[tables["margins"]["account_id"] == account] += amount
        raised = tables["anti_procyclicality"]["initial_margin"]
        np.testing.assert_allclose(tables["margins"]["initial_margin"], raised + added, rtol=1e-14)
        assert added.max() > 0 and np.all(raised > tables["anti_procyclicality"]["current_margin"])
    books = {"before_book": folder / "first" / "book", "after_book": folder / "second" / "book"}
    table = difference(*runs, **books).tables["differences"]
    np.testing.assert_array_equal(sum(table[s] for s in STEPS), table["after"] - table["before"])
    assert not np.any(table["rest"]) and not np.any(table["joint"]) and np.any(table["time"])
    assert "add_ons" in reproduce(runs[1], book=books["after_book"]).tables
