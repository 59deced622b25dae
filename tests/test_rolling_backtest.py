"""Rolling backtests: nothing of tomorrow is known, losses are the engine's, right models are kept, wrong ones not."""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from pmvar.backtest.accounts import NOTIONAL, OPTION_DAYS, textbook_accounts, unit_market
from pmvar.backtest.backtest import backtest
from pmvar.backtest.days import Days, realised_losses
from pmvar.backtest.evaluate import STEP_DAYS, TABLES, Verdict, evaluate, step_response
from pmvar.backtest.rolling import Past, Schedule, complete, forecasts
from pmvar.calibration import posterior
from pmvar.calibration.panel import Moves
from pmvar.errors import InputError, UsageError
from pmvar.io.model_file import read_model
from pmvar.io.problems import Problems
from pmvar.io.source import Source
from pmvar.models import build
from pmvar.models.predictive import PredictiveModel
from pmvar.types import DAY
from tests.books import small_book
from tests.markets import specification
from tests.test_calibrate import moves_of, t_moves
from tests.test_cli import Cli, cli

__all__ = ["cli"]

NAMES = ("A:spot", "B:spot", "A:vol")
WINDOW = 300


def history(n: int = 340, seed: int = 1) -> Moves:
    """Two prices and a vol."""
    return moves_of(t_moves(n=n, seed=seed), NAMES)


@pytest.mark.parametrize("model", ["t", "t-garch", "historical"])
def test_a_forecast_knows_nothing_of_the_days_after(model: str):
    """Other moves from row k on leave every forecast up to k as it was, to the bit; those after it change."""
    schedule, k = Schedule(WINDOW, window=WINDOW, recalibrate=10), WINDOW + 15
    one = history()
    ratio = one.ratio.copy()
    ratio[k:] = 1 + 3 * (ratio[k:] - 1)
    ratio[k:] = np.maximum(ratio[k:], 0.1)
    other = replace(one, ratio=ratio)
    pairs = list(zip(*(forecasts(Past(m), schedule, model=model) for m in (one, other)), strict=True))
    for a, b in pairs:
        same = a.specification.state == b.specification.state and a.specification.factors == b.specification.factors
        if a.row <= k:
            assert same and np.array_equal(a.specification.correlation, b.specification.correlation), a.row
    assert pairs[-1][0].specification.factors != pairs[-1][1].specification.factors
    assert [a.calibrated for a, _ in pairs[::10]] == [300, 310, 320, 330]


def test_realised_losses_are_those_of_the_positions():
    """Spots linearly; a short straddle by Black's formula one day later, at the vol and price that came."""
    moves = history()
    as_of = float(moves.day[-1])
    portfolio, _ = textbook_accounts(["A", "B"], ["A"], as_of=as_of)
    market = unit_market(["A", "B"], {"A": 0.6}, as_of=as_of)
    schedule, past = Schedule(WINDOW, window=WINDOW), Past(moves)
    like = next(forecasts(past, schedule, model="t")).specification
    loss = realised_losses(past, schedule, portfolio, market, like)
    r = moves.ratio[WINDOW:]
    at = {str(a): loss[:, i] for i, a in enumerate(portfolio.account_id)}
    np.testing.assert_allclose(at["long A"], -NOTIONAL * (r[:, 0] - 1), rtol=1e-5, atol=1)
    np.testing.assert_allclose(at["all short"], NOTIONAL * ((r[:, :2] - 1) / 2).sum(axis=1), rtol=1e-5, atol=1)

    def straddle(s: np.ndarray, vol: np.ndarray, days: float) -> np.ndarray:
        sd = vol * np.sqrt(days / 365)
        d = (np.log(s) + sd**2 / 2) / sd
        call = s * stats.norm.cdf(d) - stats.norm.cdf(d - sd)
        return 2 * call - s + 1

    # Δ ln σ at 29 days from that at 30 by (30/τ)^exponent.
    left = OPTION_DAYS - 1
    vol = 0.6 * r[:, 2] ** ((30 / left) ** like.factors[2].term_exponent)
    expected = straddle(r[:, 0], vol, left) - straddle(np.ones(1), np.full(1, 0.6), OPTION_DAYS)
    np.testing.assert_allclose(at["A short straddle"], NOTIONAL * expected, rtol=1e-3, atol=60)


def test_gaussian_margins_have_their_closed_form():
    """VaR and ES of a long position: g(x) = eˣ for falls, x normal, so VaR = N·(1 − e^{−zσ}); ES by quadrature."""
    found = backtest(history(), ["gaussian"], first=DAY * (WINDOW + 1), window=WINDOW, recalibrate=100)
    d = found.days[0]
    sigma = np.std(t_moves(n=340)[:WINDOW, 0])
    i = list(d.account_id).index("long A")
    z = stats.norm.ppf(np.linspace(0, 0.01, 20_001)[1:] - 0.01 / 40_000)
    assert d.value_at_risk[0, i] == pytest.approx(NOTIONAL * -np.expm1(-stats.norm.ppf(0.99) * sigma), rel=0.02)
    assert d.expected_shortfall[0, i] == pytest.approx(NOTIONAL * np.mean(-np.expm1(sigma * z)), rel=0.01)
    assert len(d.day) == 40 and set(found.tables) == set(TABLES)
    assert np.ptp(d.value_at_risk[:, i]) == 0, "constant between calibrations"
    assert len(found.tables["days"]["loss"]) == d.loss.size


def test_periods_do_not_overlap():
    one = backtest(history(), ["t"], first=DAY * (WINDOW + 1), window=WINDOW, recalibrate=100)
    five = backtest(history(), ["t"], first=DAY * (WINDOW + 1), window=WINDOW, recalibrate=100, horizon=5)
    a, b = (list(f.days[0].account_id).index("long A") for f in (one, five))
    ratio = history().ratio[WINDOW:, 0].reshape(-1, 5).prod(axis=1)
    np.testing.assert_allclose(five.days[0].loss[:, b], -NOTIONAL * (ratio - 1), rtol=1e-5, atol=1)
    assert one.days[0].value_at_risk[0, a] < five.days[0].value_at_risk[0, b]


def test_a_history_with_gaps_or_too_short_is_refused():
    moves = history()
    ratio = moves.ratio.copy()
    ratio[320, 1] = np.nan
    broken = replace(moves, ratio=ratio)
    with pytest.raises(InputError, match="gaps in B:spot"):
        Past(broken)
    kept, left = complete(broken, Schedule(WINDOW, window=WINDOW))
    assert kept.name == ("A:spot", "A:vol") and left == ["B:spot"]
    for schedule in (Schedule(200, window=WINDOW), Schedule(WINDOW, window=100), Schedule(400, window=WINDOW)):
        with pytest.raises(UsageError, match="needs"):
            complete(moves, schedule)


def days(scale: float, n: int = 1_000, k: int = 6, level: float = 0.99) -> Days:
    """Independent normal losses, forecast with `scale` times their deviation."""
    rng = np.random.default_rng(4)
    loss = rng.standard_normal((n, k))
    var = np.full((n, k), scale * stats.norm.ppf(level))
    es = np.full((n, k), scale * stats.norm.pdf(stats.norm.ppf(level)) / (1 - level))
    drawn = scale * rng.standard_normal((k, n, 199))
    beyond = drawn > var.T[:, :, None]
    tail_sum, tail_count = np.where(beyond, drawn / es.T[:, :, None], 0).sum(axis=1), beyond.sum(axis=1).astype(float)
    names = np.array([f"a{i}" for i in range(k)], dtype=object)
    day = DAY * np.arange(float(n))
    first = specification({"A:spot": 0.02})
    return Days(f"×{scale:g}", names, day, loss, var, es, stats.norm.cdf(loss / scale), first, tail_sum, tail_count)


def test_the_true_law_is_kept_and_a_low_margin_rejected():
    """At four fifths of the true deviation a loss exceeds the VaR three times as often as it should."""
    given = [days(1.0), days(0.8), days(1.5)]
    account_class = {"a0": "x", "a1": "x", "a2": "x"}
    tables = evaluate(given, account_class, Schedule(0), level=0.99)
    verdict = dict(zip(tables["models"]["model"], tables["models"]["verdict"], strict=True))
    assert verdict == {"×1": Verdict.KEPT, "×0.8": Verdict.REJECTED, "×1.5": Verdict.REJECTED}
    low = tables["accounts"]["model"] == "×0.8"
    assert np.all(tables["accounts"]["z2_p"][low] < 0.01), "number and size of the breaches"
    high = tables["accounts"]["model"] == "×1.5"
    assert np.all(tables["accounts"]["z2_p"][high] > 0.5), "shortfall does not reject a margin that is too high"
    score = dict(zip(tables["models"]["model"], tables["models"]["score"], strict=True))
    assert score["×1"] == min(score.values())
    assert set(tables["classes"]["account_class"]) == {"x", "book"}
    for name, table in tables.items():
        assert tuple(table) == TABLES[name]


def test_the_step_of_a_filter():
    """EWMA: σ² after k days of fourfold squares is 4 − 3·.97^k; a window of constant volatility follows its share."""
    moves, schedule = history(), Schedule(WINDOW, window=WINDOW)
    s = next(forecasts(Past(moves), schedule, model="t-garch")).specification
    ewma = replace(s, state={"filter": {f: {"ewma": True, "variance": 1e-3} for f in s.factor_names}})
    expected = np.sqrt(4 - 3 * 0.97 ** np.array(STEP_DAYS))
    np.testing.assert_allclose(step_response(ewma, window=WINDOW, recalibrate=20), expected, rtol=1e-12)
    still = next(forecasts(Past(moves), schedule, model="t")).specification
    np.testing.assert_allclose(step_response(still, window=WINDOW, recalibrate=5), [1, np.sqrt(1.05), np.sqrt(1.2)])


def write_panel(path: Path, n: int, value: np.ndarray, names: tuple[str, ...]) -> Path:
    """Daily values from the first of 2023 on, a column for each name."""
    lines = [
        f"{np.datetime64('2023-01-01') + i},{','.join(map(repr, row))}" for i, row in enumerate(value[:n].tolist())
    ]
    path.write_text("\n".join([f"date,{','.join(names)}", *lines]) + "\n")
    return path


def test_the_commands(cli: Cli, tmp_path: Path):
    """calibrate writes a model, backtest a report; wrong dates and models are refused with nothing written."""
    panel = write_panel(tmp_path / "prices.csv", 360, 100 * np.cumprod(history(360).ratio[:, :2], axis=0), ("A", "B"))
    done = cli("calibrate", panel, "--model", "t-garch", "--out", tmp_path / "model.json", "--as-of", "2023-12-01",
               "--report", tmp_path / "fit.html")  # fmt: skip
    assert done.code == 0, done.err
    assert "prices.csv" in (tmp_path / "fit.html").read_text() and "report:" in done.out
    assert "A:spot" in done.out and "model t-garch of 4 factors" in done.out
    assert '"as_of": "2023-12-01T00:00:00Z"' in (tmp_path / "model.json").read_text()
    done = cli("backtest", panel, "--model", "gaussian,t", "--from", "2023-12-01", "--window", "300", "--out",
               tmp_path / "bt", "--paths", "2048")  # fmt: skip
    assert done.code == 0, done.err
    assert "gaussian" in done.out and "forecasts of 8 accounts" in done.out
    assert "<svg" in (tmp_path / "bt" / "report.html").read_text()
    assert pq.read_table(tmp_path / "bt" / "days.parquet").num_rows == 2 * 8 * 26
    for arguments, words in (
        (("--model", "sabr", "--out", tmp_path / "no.json"), "not calibrated"),
        (("--model", "t", "--out", tmp_path / "no.json", "--window", "4"), "days or years"),
        (("--model", "t", "--out", tmp_path / "no.json", "--as-of", "yesterday"), "--as-of"),
    ):
        refused = cli("calibrate", panel, *arguments)
        assert refused.code == 2 and words in refused.err and not (tmp_path / "no.json").exists()
    refused = cli("backtest", panel, "--model", "svcj", "--from", "2023-12-01", "--window", "300", "--out",
                  tmp_path / "no")  # fmt: skip
    assert refused.code == 2 and "minutes" in refused.err and not (tmp_path / "no").exists()


def test_a_book_is_margined_on_every_day(cli: Cli, tmp_path: Path):
    """Options, futures and balances of a book, by histories of prices and vols; a vol without one is named."""
    book = small_book(tmp_path / "book")
    ratio = np.column_stack([t_moves(n=330, seed=5), t_moves(n=330, seed=6)])
    ratio = np.where(ratio > 0, 1 + ratio, np.exp(ratio))
    coins = ("BTC", "ETH")
    prices = write_panel(tmp_path / "p.csv", 330, 1000 * np.cumprod(ratio[:, [0, 3]], axis=0), coins)
    vols = write_panel(tmp_path / "v.csv", 330, 0.6 * np.cumprod(1 + (ratio[:, [1, 4]] - 1) / 50, axis=0), coins)
    options = ("--model", "t", "--from", "2023-11-01", "--window", "300", "--paths", "2048", "--book", book)
    done = cli("backtest", prices, *options, "--vols", vols, "--out", tmp_path / "bt")
    assert done.code == 0, done.err
    table = pq.read_table(tmp_path / "bt" / "accounts.parquet").to_pydict()
    assert set(table["account_class"]) == {"book"} and len(table["account_id"]) >= 4
    refused = cli("backtest", prices, *options, "--out", tmp_path / "no")
    assert refused.code == 3 and "cannot be valued" in refused.err and not (tmp_path / "no").exists()


def test_a_posterior_that_fails_its_gates_is_refused(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Sixty draws are too few: the message says so and what to do, nothing is written; by name it is, with the
    override in the file, and the model is predictive."""
    monkeypatch.setattr(posterior, "SAMPLER", posterior.Sampler(chains=2, warmup=60, draws=60, max_tree_depth=5))
    panel = write_panel(tmp_path / "p.csv", 300, 100 * np.cumprod(history(300).ratio[:, :1], axis=0), ("A",))
    command = ("calibrate", panel, "--model", "t-garch", "--bayes", "--out", tmp_path / "m" / "model.json")
    refused = cli(*command, "--report", tmp_path / "fit.html")
    # Whoever is stopped needs the page most.
    assert "no model was written" in (tmp_path / "fit.html").read_text()
    assert refused.code == 4 and "too few independent draws: sample longer" in refused.err
    assert "--override bulk-ess" in refused.err and not (tmp_path / "m").exists()
    failed = re.findall(r"--override (\S+)", refused.err)
    done = cli(*command, *(word for name in failed for word in ("--override", name)))
    assert done.code == 0, done.err
    content = (tmp_path / "m" / "model.json").read_bytes()
    document, problems = json.loads(content), Problems()
    assert document["overrides"] == failed and not document["gates"]["bulk-ess"]["passed"]
    model = read_model(content, source=Source(tmp_path / "m"), problems=problems)
    problems.raise_any()
    assert model is not None and model.posterior is not None and isinstance(build(model, 1.0), PredictiveModel)
    refused = cli("calibrate", panel, "--model", "t", "--bayes", "--out", tmp_path / "no.json")
    assert refused.code == 2 and "t-garch" in refused.err
