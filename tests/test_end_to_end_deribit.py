"""A recorded chain, generated accounts over it, and their margins: the main job on real input."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import pmvar
from pmvar.io.book import Book, load_book
from pmvar.io.import_deribit import import_deribit
from pmvar.io.populate import populate
from pmvar.io.run import Run, read_run
from pmvar.methods.grid_file import venues
from pmvar.methods.registry import FIXED, methods_named
from pmvar.types import Kind

N_ACCOUNTS = 300
N_SCENARIOS = 16_384
"""Of the 1,000 accounts and 65,536 scenarios of the full job, which benchmarks/end_to_end.py times."""


@pytest.fixture(scope="module")
def book(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Book:
    """The last chain of March 2026 with generated accounts."""
    chain = shared_data / "deribit_chains" / "deribit_daily_202603.csv.gz"
    if not chain.is_file():
        pytest.skip(f"no recorded chain: {chain} is not there")
    folder = tmp_path_factory.mktemp("deribit") / "book"
    import_deribit(chain, folder)
    populate(folder, n_accounts=N_ACCOUNTS, seed=7)
    return load_book(folder, overrides={"scenarios": N_SCENARIOS})


@pytest.fixture(scope="module")
def run(book: Book, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Its run, written and read back with every hash verified."""
    s = book.settings
    scenarios = pmvar.simulate(book.model, book.market, seed=s.seed, n_scenarios=s.scenarios, horizon=s.horizon)
    pnl = pmvar.reprice(book.portfolio, book.market, scenarios)
    report = pmvar.margin_report(pnl, book.portfolio, book.rules, notes=book.flags)
    return read_run(report.write(tmp_path_factory.mktemp("deribit") / "run", inputs=book.input_hashes, book=book.path))


@pytest.mark.slow
def test_every_margin_is_finite_with_an_error(book: Book, run: Run) -> None:
    """No account is lost, none withheld; each margin is a number, and has a standard error unless it is zero."""
    m = run.tables["margins"]
    assert m["account_id"].tolist() == book.portfolio.account_id.tolist() and len(m["account_id"]) == N_ACCOUNTS
    assert set(m["status"]) <= {"OK", "MARGIN_CALL", "LIQUIDATION"} and (m["status"] == "OK").sum() > N_ACCOUNTS / 2
    for column in m:
        if m[column].dtype == np.float64:
            assert np.all(np.isfinite(m[column])), column
    # Dollars alone risk nothing; whatever else an account holds needs a margin.
    c = run.tables["components"]
    risky = np.isin(m["account_id"], c["account_id"][c["instrument_id"] != "CASH:USD"])
    assert np.all(m["initial_margin"][risky] > 0) and np.all(m["initial_margin"][~risky] == 0)
    # A loss that is the same in all of the tail is known exactly: a premium paid, lost more often than the level says.
    certain = np.abs(m["expected_shortfall"] - m["value_at_risk"]) <= 1e-12 * m["expected_shortfall"]
    assert np.all((m["es_standard_error"] > 0) == ~certain)
    assert certain.mean() < 0.02
    relative = m["es_standard_error"][~certain] / m["expected_shortfall"][~certain]
    # 164 scenarios of the tail of a t with 4 degrees of freedom: some 5 %; a few per cent less for bounded losses.
    assert np.median(relative) < 0.08
    assert np.all(m["expected_shortfall"] >= m["value_at_risk"] * (1 - 1e-12))


@pytest.mark.slow
def test_components_sum(run: Run) -> None:
    """Components add up to each ES within 1e-6 of it; spot, vol and time to each component."""
    m, c = run.tables["margins"], run.tables["components"]
    place = {a: i for i, a in enumerate(m["account_id"])}
    total = np.zeros(len(place))
    np.add.at(total, [place[a] for a in c["account_id"]], c["component_es"])
    np.testing.assert_allclose(total, m["expected_shortfall"], rtol=1e-6)
    parts = c["spot_es"] + c["vol_es"] + c["time_es"]
    size = np.abs(c["spot_es"]) + np.abs(c["vol_es"]) + np.abs(c["time_es"])
    assert np.all(np.abs(parts - c["component_es"]) <= 1e-9 * size)


@pytest.mark.slow
def test_diversification_never_costs(run: Run) -> None:
    """Offsets save something somewhere and never cost anything."""
    m = run.tables["margins"]
    assert np.all(m["diversification_benefit"] >= -1e-9 * m["isolated_margin"])
    assert m["initial_margin"].sum() < 0.8 * m["isolated_margin"].sum()


@pytest.mark.slow
def test_the_recorded_chain_is_all_there(book: Book, run: Run) -> None:
    """Over a thousand options of two coins or more, all priced; every position is in the components."""
    listed = book.portfolio.instruments
    assert (listed.kind == Kind.OPTION).sum() > 1_000 and len(set(listed.underlying)) >= 2
    assert len(run.tables["components"]["quantity"]) == book.portfolio.quantity.nnz
    assert any("generated" in note for note in run.manifest["notes"])
    assert run.manifest["hashes"]["inputs"] == dict(book.input_hashes)


@pytest.mark.slow
def test_every_method_beside_the_monte_carlo(book: Book, tmp_path: Path) -> None:
    """All methods of the command line on the real chain: every margin a number, steps that add up, a page to read."""
    scenarios = pmvar.simulate(book.model, book.market, seed=1, n_scenarios=4096, horizon="2d")
    pnl = pmvar.reprice(book.portfolio, book.market, scenarios)
    methods = methods_named([*FIXED, *venues()], book.market, book.model, scenarios)
    found = pmvar.compare(pnl, book.portfolio, book.rules, methods, notes=book.flags)
    found.write(tmp_path / "compare", inputs=book.input_hashes, book=book.path)
    names = ["mc", "gross", *FIXED, *venues()]
    assert list(found.tables["methods"]["method"]) == names
    flat, steps = found.tables["comparison"], found.tables["steps"]
    assert len(flat["account_id"]) == N_ACCOUNTS * len(names)
    for column in ("initial_margin", "maintenance_margin", "ratio", "breach_probability", "uncovered"):
        assert np.all(np.isfinite(flat[column])) and np.all(flat[column] >= 0), column
    place = {key: i for i, key in enumerate(zip(flat["account_id"], flat["method"], strict=True))}
    total = np.zeros(len(place))
    np.add.at(total, [place[key] for key in zip(steps["account_id"], steps["method"], strict=True)], steps["amount"])
    np.testing.assert_allclose(np.maximum(total, 0), flat["initial_margin"], rtol=1e-9, atol=1e-4)
    # A rule of thumb that has no tail in it still ranks accounts: none of the grids is noise.
    assert np.all(found.tables["methods"]["rank_correlation"] > 0.5)
    assert (tmp_path / "compare" / "report.html").stat().st_size < 5_000_000
