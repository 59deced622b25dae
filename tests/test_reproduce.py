"""Runs made again from their manifests: equal where they must be, and the first difference named where they are not."""

from __future__ import annotations

import copy
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pmvar
from pmvar.audit.reproduce import reproduce
from pmvar.bulk import plan
from pmvar.errors import AuditError
from pmvar.io.run import MANIFEST, _digest, read_manifest, read_run, write_run
from pmvar.risk.result import MarginResult
from pmvar.types import Detail
from tests.books import small_book, small_rows

SETTINGS = {"scenarios": 2048, "seed": 5, "level": 0.975, "horizon": "1d", "netting": "sum", "multiplier": 1.1}


def publish(book: Path, out: Path, *, greeks: bool = False, **changes: Any) -> Path:
    """A run of the book under `SETTINGS`, through the public functions."""
    settings = SETTINGS | changes
    loaded = pmvar.load_book(book, overrides=settings)
    s = loaded.settings
    scenarios = pmvar.simulate(
        loaded.model, loaded.market, seed=s.seed, n_scenarios=s.scenarios, horizon=s.horizon, sampling=s.sampling
    )
    pnl = pmvar.reprice(loaded.portfolio, loaded.market, scenarios, precision=s.precision)
    stress = pmvar.stress_scenarios(loaded.stress, loaded.model, loaded.market)
    said = {"netting": str(s.netting), "surface": s.surface, "decorrelation": s.decorrelation}
    report = pmvar.margin_report(pnl, loaded.portfolio, loaded.rules, stress=stress, greeks=greeks, settings=said)
    return report.write(out, inputs=loaded.input_hashes, book=book)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run under settings that are not the book's, of a book with duplicates and an account that is withheld."""
    folder = tmp_path_factory.mktemp("reproduce")
    rows = copy.deepcopy(small_rows())
    rows["positions"] += [copy.deepcopy(rows["positions"][0])]
    rows["positions"].append({"account_id": "NA", "instrument_id": "DOGE-PERPETUAL", "quantity": 10.0})
    return publish(small_book(folder / "book", rows=rows), folder / "run", greeks=True)


def altered(published: Path, target: Path, *, column: str = "", size: float = 0.0, **manifest: Any) -> Path:
    """A sound run whose account 002 has another number, or whose manifest says something else."""
    run = read_run(published)
    tables = {name: dict(columns) for name, columns in run.tables.items()}
    if column:
        tables["margins"][column] = tables["margins"][column] + size * (tables["margins"]["account_id"] == "002")
    result = MarginResult(tables, (), run.manifest["settings"])
    inputs = run.manifest["hashes"]["inputs"]
    write_run(target, result, report_html="", inputs=inputs, book=published.parent / "book")
    document = read_manifest(target) | manifest
    (target / MANIFEST).write_text(json.dumps(document | {"digest": _digest(document)}))
    return target


def test_a_run_is_made_again_to_the_bit(published: Path, tmp_path: Path) -> None:
    found = reproduce(published / MANIFEST)
    assert not found.differs and found.n_accounts == 5
    assert {"margins", "components", "greeks", "model_greeks", "worst", "shocks"} <= set(found.tables)
    assert "to the bit" in str(found)
    moved = shutil.copytree(published, tmp_path / "elsewhere" / "run")
    with pytest.raises(AuditError, match=r"balances.csv is missing.*--book"):
        reproduce(moved)


def test_in_blocks_as_in_one(published: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one account meet their own rows, and find what differs in them."""
    monkeypatch.setitem(plan.BLOCK_SECONDS, Detail.GREEKS, 1e-9)
    book = pmvar.load_book(published.parent / "book", overrides=SETTINGS)
    assert len(plan.make_plan(book, detail=Detail.GREEKS, budget_bytes=1e10).starts) == 5
    found = reproduce(published)
    assert not found.differs and found.n_accounts == 5 and "shocks" in found.tables
    with pytest.raises(AuditError, match="margins: account 002, initial_margin"):
        reproduce(altered(published, tmp_path / "far", column="initial_margin", size=5.0))


def test_a_last_bit_is_a_difference_where_bits_are_promised(published: Path, tmp_path: Path) -> None:
    es = read_run(published).tables["margins"]["expected_shortfall"][1]
    run = altered(published, tmp_path / "run", column="expected_shortfall", size=np.spacing(es))
    with pytest.raises(AuditError, match="margins: account 002, expected_shortfall: .*; equal bits were expected"):
        reproduce(run)


def test_elsewhere_the_tolerance_is_of_gross_notional(published: Path, tmp_path: Path) -> None:
    other = {"environment": {"machine": "abacus", "cpu_features": "", "xla_flags": ""}}
    # 002: 40 and 20 options and 9,000 of a perpetual of one dollar: a notional of about 0.2 million.
    near = reproduce(altered(published, tmp_path / "near", column="initial_margin", size=0.05, **other))
    assert 0 < near.largest <= 1e-6 and near.differs["machine"][0] == "abacus"
    assert "within 1e-06 of gross notional" in str(near) and "machine was abacus" in str(near)
    far = altered(published, tmp_path / "far", column="initial_margin", size=5.0, **other)
    with pytest.raises(AuditError, match="margins: account 002, initial_margin: .* 5 apart, .* of gross notional"):
        reproduce(far)


def test_another_input_is_not_taken(published: Path, tmp_path: Path) -> None:
    book = shutil.copytree(published.parent / "book", tmp_path / "book")
    assert reproduce(published, book=book).n_accounts == 5
    text = (book / "market" / "spots.csv").read_text()
    (book / "market" / "spots.csv").write_text(text.replace("3000", "3001"))
    with pytest.raises(AuditError, match=r"spots.csv is not the file that .* was made from"):
        reproduce(published, book=book)
    (book / "market" / "spots.csv").write_text(text)
    (book / "market" / "stress.csv").write_text("scenario,factor,shock\ndown,BTC:spot,-0.3\n")
    with pytest.raises(AuditError, match=r"stress.csv is not the file that .* was made from"):
        reproduce(published, book=book)
