"""Today's margins against the past: losses by hand, breaches by counting, nothing left out in silence."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

import pmvar
from pmvar.backtest.method_coverage import with_history
from pmvar.calibration.panel import Moves
from pmvar.errors import UsageError
from pmvar.methods.comparison import COVERAGE_TABLES, TABLES
from pmvar.methods.result import MethodMargin
from pmvar.report.comparison_html import render
from pmvar.report.comparison_report import ComparisonReport
from pmvar.risk.rules import MarginRules
from pmvar.types import DAY
from tests.books import small_book
from tests.engines import AS_OF, SPOT, hold, mixed_market, mixed_model, scenarios
from tests.test_cli import Cli, cli

__all__ = ["cli"]

N = 41
FACTORS = ("BTC:spot", "ETH:spot", "BTC:vol")


def past(factors: tuple[str, ...] = FACTORS, seed: int = 4) -> Moves:
    """Ratios of 41 days."""
    ratio = np.exp(0.06 * np.random.default_rng(seed).standard_normal((N, len(factors))))
    return Moves(AS_OF - DAY * np.arange(N)[::-1], factors, ratio, 365)


def fixed(initial: dict[str, float], level: float | None = None):
    """A method that asks these margins."""

    def margin(portfolio) -> MethodMargin:
        asked = np.array([initial.get(str(a), 0.0) for a in portfolio.account_id])
        return MethodMargin("fixed", "by hand", asked, asked, (), level=level)

    return margin


ROWS = [
    ("long", "BTC_USD", 1.0), ("short", "BTC_USD", -1.0), ("perp", "ETH-PERPETUAL", 30_000.0),
    ("euro", "EQX-PERPETUAL", 1.0), ("option", "ETH-NEAR-3000-C", -1.0), ("lost", "NOT-LISTED", 1.0),
]  # fmt: skip
ASKED = {"long": 5_000.0, "short": 8_000.0, "perp": 1_500.0}
MARKET = mixed_market()
BOOK = hold(ROWS)


@pytest.fixture(scope="module")
def compared() -> ComparisonReport:
    """One method that claims 95%."""
    pnl = pmvar.reprice(BOOK, MARKET, scenarios(MARKET))
    return pmvar.compare(pnl, BOOK, MarginRules(), [fixed(ASKED, 0.95)])


def judged(compared: ComparisonReport, moves: Moves, **options) -> ComparisonReport:
    return with_history(compared, BOOK, MARKET, mixed_model(), moves, **options)


def test_losses_and_breaches_by_hand(compared: ComparisonReport) -> None:
    """Spots and an inverse perpetual in closed form, over 20 periods of two days; the odd day at the end is dropped."""
    moves = past()
    found = judged(compared, moves).tables["coverage"]
    btc, eth = (moves.ratio[:40, i].reshape(20, 2).prod(axis=1) for i in (0, 1))
    loss = {
        "long": SPOT["BTC"] * (1 - btc),
        "short": SPOT["BTC"] * (btc - 1),
        # Q·(1/S₀ − 1/S₁) coins, each at S₁.
        "perp": -30_000.0 * (eth - 1),
    }
    for account, limit in ASKED.items():
        row = {c: v[(found["account_id"] == account) & (found["method"] == "fixed")][0] for c, v in found.items()}
        over = np.maximum(loss[account] - limit, 0.0)
        n = int((over > 0).sum())
        assert 0 < n < 20 and (row["breaches"], row["periods"], row["expected_breaches"]) == (n, 20, pytest.approx(1))
        assert row["coverage"] == pytest.approx(1 - n / 20)
        assert row["mean_shortfall"] == pytest.approx(over.sum() / n, rel=1e-4)
        assert row["largest_shortfall"] == pytest.approx(over.max(), rel=1e-4)
        log = stats.binom.logpmf(n, 20, n / 20) - stats.binom.logpmf(n, 20, 0.05)
        assert row["kupiec_p"] == pytest.approx(stats.chi2.sf(2 * log, 1))
        red, yellow = (stats.binom.cdf(n, 20, 0.05) >= p for p in (0.9999, 0.95))
        assert row["zone"] == ("red" if red else "yellow" if yellow else "green")


def test_what_the_history_cannot_move_is_left_out_by_name(compared: ComparisonReport) -> None:
    """No periods, no coverage, its reason in every row and in a note; a factor with a hole counts as absent."""
    report = judged(compared, past())
    found, history = report.tables["coverage"], report.settings["history"]
    reasons = {"euro": "EQX:spot", "option": "ETH:vol", "lost": "unknown instrument"}
    for account, reason in reasons.items():
        rows = {c: v[found["account_id"] == account] for c, v in found.items()}
        assert all(reason in why and "model" not in why for why in rows["left_out"])
        assert not rows["periods"].any() and not rows["coverage"].any() and set(rows["zone"]) == {""}
        assert any(account in note and reason in note for note in report.notes)
    assert history["accounts"] == 3 and "ETH:vol" in history["missing_factors"]
    by_method = report.tables["method_coverage"]
    assert set(by_method["accounts"]) == {3} and list(by_method["method"]) == ["mc", "gross", "fixed"]
    moves = past()
    moves.ratio[7, 0] = np.nan
    found = judged(compared, moves, first=moves.day[0]).tables["coverage"]
    why = {str(a): str(r) for a, r in zip(found["account_id"], found["left_out"], strict=True)}
    assert "BTC:spot" in why["long"] and why["perp"] == ""
    with pytest.raises(UsageError, match="no account can be revalued"):
        judged(compared, past(("SOL:vol",)))


def test_periods_begin_where_all_moves_are(compared: ComparisonReport) -> None:
    """Or at the day asked for; too late a day is refused."""
    moves = past()
    moves.ratio[:7, 0] = np.nan
    assert judged(compared, moves).settings["history"]["periods"] == (N - 7) // 2
    later = judged(compared, past(), first=AS_OF - 5 * DAY)
    assert later.settings["history"]["periods"] == 3
    with pytest.raises(UsageError, match="no whole period of 2d"):
        judged(compared, past(), first=AS_OF)


def test_a_summary_adds_up_and_tells_what_the_fit_knew(compared: ComparisonReport) -> None:
    """Assumed parameters know nothing; those of a model fitted up to a day may know the periods before it."""
    report = judged(compared, past())
    rows = report.tables["coverage"]
    table = report.tables["method_coverage"]
    for i, method in enumerate(table["method"]):
        own = {c: v[(rows["method"] == method) & (rows["left_out"] == "")] for c, v in rows.items()}
        assert table["coverage"][i] == pytest.approx(own["coverage"].mean())
        assert table["n_held"][i] == (own["breaches"] == 0).sum()
        many = own["breaches"] > own["expected_breaches"]
        assert table["kupiec_too_many"][i] == pytest.approx(((own["kupiec_p"] < 0.05) & many).mean())
        zones = sum(table[f"n_{z}"][i] for z in ("green", "yellow", "red"))
        assert zones == 3
        short = (own["mean_shortfall"] * own["breaches"]).sum()
        assert table["mean_shortfall"][i] * max(own["breaches"].sum(), 1) == pytest.approx(short)
    assert list(table["after_fit"]) == [20, 20, 20]
    model = mixed_model()
    fitted = replace(
        model, as_of=AS_OF - 10 * DAY, factors=tuple(replace(f, n_obs=500, source="x.csv") for f in model.factors)
    )
    report = with_history(compared, BOOK, MARKET, fitted, past())
    # Period k begins with the move that ends 40 − 2k days ago: k = 16 … 19 begin after it.
    assert list(report.tables["method_coverage"]["after_fit"]) == [4, 4, 20]
    assert any("16 of 20 periods may be in its sample" in note for note in report.notes)


def test_a_margin_without_a_level_is_not_tested(compared: ComparisonReport) -> None:
    pnl = pmvar.reprice(BOOK, MARKET, scenarios(MARKET))
    report = judged(pmvar.compare(pnl, BOOK, MarginRules(), [fixed(ASKED)]), past())
    flat = report.tables["coverage"]
    own = flat["method"] == "fixed"
    assert set(flat["kupiec_p"][own]) == {1.0} and set(flat["zone"][own]) == {""} and not flat["level"][own].any()
    assert set(flat["level"][~own]) == {0.99}
    assert {n: tuple(report.tables[n]) for n in COVERAGE_TABLES} == COVERAGE_TABLES


def test_from_the_command_line(cli: Cli, tmp_path: Path) -> None:
    """Tables, a section of the report, hashes of the histories, a table on the screen."""
    book = small_book(tmp_path / "book")
    ratio = past().ratio
    days = [f"2024-{1 + i // 28:02d}-{1 + i % 28:02d}" for i in range(N)]
    for name, scale, columns in (("closes", (100.0, 50.0), (0, 1)), ("vols", (0.5,), (2,))):
        level = np.cumprod(ratio[:, list(columns)], axis=0) * scale
        head = "day," + ",".join(("BTC", "ETH")[: len(columns)])
        lines = [f"{d}," + ",".join(f"{x:.6f}" for x in row) for d, row in zip(days, level, strict=True)]
        (tmp_path / f"{name}.csv").write_text("\n".join([head, *lines]) + "\n")
    done = cli("compare", book, "--out", tmp_path / "out", "--methods", "mc,deribit", "--paths", "4096",
               "--history", tmp_path / "closes.csv", "--vols", tmp_path / "vols.csv")  # fmt: skip
    assert done.code == 0, done.err
    assert "too often broken" in done.out and done.out.splitlines()[-2].startswith("deribit")
    files = {p.stem for p in (tmp_path / "out").glob("*.parquet")}
    assert files == {*TABLES, *COVERAGE_TABLES, "chain"}
    table = pq.read_table(tmp_path / "out" / "coverage.parquet").to_pydict()
    left = {a for a, why in zip(table["account_id"], table["left_out"], strict=True) if why}
    assert "002" in left and "001" not in left, "002 holds options on ETH, whose vols are not there"
    text = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert 'id="coverage"' in text and "not judged" in text
    manifest = (tmp_path / "out" / "manifest.json").read_text(encoding="utf-8")
    assert '"closes.csv"' in manifest and '"vols.csv"' in manifest
    refused = cli("compare", book, "--out", tmp_path / "no", "--vols", tmp_path / "vols.csv")
    assert refused.code == 2 and "--history" in refused.err


def test_without_a_history_there_is_no_such_section(compared: ComparisonReport) -> None:
    assert 'id="coverage"' not in render(compared)
