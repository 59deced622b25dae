"""Backtests of tools against procyclicality, of Pareto tails and of filters by name."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from pmvar.backtest.backtest import backtest
from pmvar.backtest.extreme import drawn_from, pareto_tails
from pmvar.backtest.protection import Simulated, charged, choices, step_of
from pmvar.backtest.rolling import Past, Schedule, forecasts
from pmvar.backtest.step import STEP_DAYS
from pmvar.calibration.calibrate import calibrate, choice, estimate, family
from pmvar.calibration.evt import fit_tail
from pmvar.calibration.lookback import STRESSED_MOVES, lookback, with_lookback
from pmvar.errors import UsageError
from pmvar.risk.buffer import buffered
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import DAY, ApcTool
from tests.test_calibrate import NAMES, moves_of, t_moves
from tests.test_cli import Cli, cli
from tests.test_rolling_backtest import write_panel

__all__ = ["cli"]

WINDOW, N = 300, 330
BUFFER, STRESSED, FLOOR = ApcTool


def test_margins_under_tools():
    """A history whose first year was twice as wild: stressed and floored margins are higher, all of them flatter."""
    x = t_moves(n=N + 300)[:, :2]
    x[:300] *= 2
    found = backtest(
        moves_of(x, NAMES[:2]), ["t-garch:ewma"], first=DAY * (WINDOW + 301), window=WINDOW, recalibrate=50,
        n_scenarios=2048, tools=tuple(ApcTool),
    )  # fmt: skip
    table, names = found.tables["tools"], ["none", *choices(tuple(ApcTool))]
    assert set(table["model"]) == {"t-garch:ewma"} and table["tools"].tolist() == names
    d = found.days[0]
    for name, margin in d.protected.items():
        assert np.all(margin >= d.expected_shortfall), name
    assert np.all(d.protected["stressed"] > 1.2 * d.expected_shortfall)
    assert np.all(d.protected["floor"] > 1.2 * d.expected_shortfall)
    assert np.all(d.protected["buffer"] <= 1.25 * d.expected_shortfall * (1 + 1e-12))
    assert np.all(d.protected[names[-1]] >= np.maximum(d.protected["stressed"], d.protected["floor"]))
    for metric in ("peak_to_trough", "max_rise_1", "step_5", "step_20"):
        assert np.all(table[metric][1:] < table[metric][0]), metric
    assert np.all(table["average_margin"][1:] > table["average_margin"][0])
    assert found.settings["apc"] == "buffer,stressed,floor"


def normal(sigma: float, n: int = 4096) -> Simulated:
    """Losses of one account at the mid-points of a normal law."""
    loss = sigma * stats.norm.ppf((np.arange(n) + 0.5) / n)[None]
    none = np.zeros(1)
    return Simulated(loss, ScenarioSet(("A:spot",), 0.0, 1.0, jnp.zeros((n, 1, 1)), np.ones(n), 16, none, none, 1.6))


def test_the_step_under_each_tool():
    """σ doubles in one day, under a floor at three halves of it, a buffer, both; a stressed σ of four times as much."""
    es = np.array([stats.norm.pdf(stats.norm.ppf(0.99)) / 0.01])
    path = np.concatenate([np.ones(1), np.full(20, 2.0)])
    others = {FLOOR: normal(1.5), STRESSED: normal(4.0)}

    def step(*tools: ApcTool) -> tuple[float, ...]:
        return step_of(tools, path, es, normal(1.0), others, 0.99)

    assert step() == (2, 2, 2)
    np.testing.assert_allclose(step(FLOOR), 4 / 3, rtol=2e-3)
    rising = [1.25]
    for _ in range(20):
        rising.append(float(buffered(np.array(2.0), np.array(rising[-1]), 1.0)))
    np.testing.assert_allclose(step(BUFFER), [rising[k] / 1.25 for k in STEP_DAYS], rtol=1e-12)
    # ¼ of the weight on σ_s = 4: the union's tail is nearly all of it.
    assert 1 < step(STRESSED)[0] < 1.2


def test_a_buffer_day_by_day():
    margin = np.array([[100.0], [120.0], [156.0], [156.0]])
    found = charged(margin, {}, np.array([0.0, 1.0, 1.0, 3.0]), (BUFFER,))
    np.testing.assert_allclose(found[:, 0], [125, 126, 156, 156 + 0.25 * 156 * 3 / 30])
    raised = {FLOOR: np.full((4, 1), 130.0)}
    np.testing.assert_array_equal(charged(margin, raised, np.zeros(4), (FLOOR,))[:, 0], [130, 130, 156, 156])
    np.testing.assert_array_equal(charged(margin, raised, np.zeros(4), ()), margin)


def test_volatility_looked_back_on():
    """The last ten years only; the worst 250 days, or those named; a factor that was not there takes part by the mean
    ratio of the others."""
    rng = np.random.default_rng(3)
    day = DAY * np.arange(5000.0)
    x = rng.standard_normal((5000, 3)) * [0.01, 0.02, 0.03]
    x[2000:2250] *= 3
    x[:2300, 2] = np.nan
    found = lookback(day, x)
    ago = day > day[-1] - 3652.5 * DAY
    np.testing.assert_allclose(found.long_run, np.nanstd(x[ago], axis=0), rtol=1e-12)
    np.testing.assert_allclose(found.years, [10, 10, 2699 / 365.25], atol=0.01)
    assert abs(found.period[0] / DAY - 2000) < 10 and found.period[1] - found.period[0] == (STRESSED_MOVES - 1) * DAY
    np.testing.assert_allclose(found.stressed[:2], [0.03, 0.06], rtol=0.1)
    ratio = (found.stressed / found.long_run)[:2].mean()
    assert found.stressed[2] == pytest.approx(ratio * found.long_run[2])
    named = lookback(day, x, period=(100 * DAY, 399 * DAY))
    np.testing.assert_allclose(named.stressed[:2], x[100:400, :2].std(axis=0), rtol=1e-12)
    with pytest.raises(UsageError, match="no factor has 20 moves"):
        lookback(day, x, period=(1e9 * DAY, 1e9 * DAY + 1))


def test_an_assumed_factor_keeps_its_volatility():
    moves = moves_of(t_moves(n=400), NAMES)
    made = calibrate(estimate(moves, model="t"), model="t").specification
    s, _ = with_lookback(made, moves)
    assert [f.name for f in s.factors] == [*NAMES, "B:vol"]
    assert all(f.long_run_volatility == pytest.approx(f.volatility) for f in s.factors)
    assert s.factors[-1].stressed_volatility == s.factors[-1].volatility


def test_forecasts_look_back_on_what_was_before():
    """Earlier moves, with their gaps, count for the long run; later ones do not."""
    moves = moves_of(t_moves(n=700), NAMES)
    ratio = moves.ratio.copy()
    ratio[10, 0] = np.nan
    earlier = replace(moves, ratio=ratio).part(slice(0, 360))
    past = Past(moves.part(slice(360, None)), earlier)
    first = next(forecasts(past, Schedule(WINDOW, window=WINDOW), model="gaussian")).specification
    known = replace(moves, ratio=ratio).part(slice(0, 360 + WINDOW))
    expected, _ = with_lookback(first, known)
    assert first.factors == expected.factors
    assert first.factors[0].long_run_volatility != first.factors[0].volatility


@pytest.mark.parametrize("nu", [3.0, 8.0])
def test_a_pareto_tail_of_t_losses(nu: float):
    """The measures are the fit's; of losses at a t law's mid-points they are near the exact ones; smoothed losses keep
    their order and, as a law, give the same VaR; what lies below the threshold is untouched."""
    n = 16_384
    t: Any = stats.t(nu)
    loss = np.random.default_rng(1).permutation(t.ppf((np.arange(n) + 0.5) / n))[None]
    found = pareto_tails(loss, 0.99)
    v = t.ppf(0.99)
    es = (nu + v**2) / (nu - 1) * t.pdf(v) / 0.01
    assert found.fitted.all()
    np.testing.assert_allclose([found.value_at_risk[0], found.expected_shortfall[0]], [v, es], rtol=0.02)
    tail = fit_tail(loss[0])
    assert np.array_equal(np.argsort(found.loss), np.argsort(loss))
    body = loss[0] <= tail.threshold
    np.testing.assert_array_equal(found.loss[0][body], loss[0][body])
    assert np.quantile(found.loss, 0.99) == pytest.approx(found.value_at_risk[0], rel=2e-3)
    assert np.sort(found.loss[0])[-163:].mean() == pytest.approx(found.expected_shortfall[0], rel=0.03)


def test_losses_without_such_a_tail_stay_as_they_are():
    """Bounded losses, and so heavy a tail that its mean is infinite."""
    bounded = 1 - np.random.default_rng(2).uniform(size=(1, 4000)) ** 3
    endless = np.random.default_rng(2).uniform(size=(1, 4000)) ** -1.5
    for loss in (bounded, endless):
        found = pareto_tails(loss, 0.99)
        assert not found.fitted.any() and np.array_equal(found.loss, loss) and np.isnan(found.value_at_risk).all()


def test_names_of_filters():
    assert choice("t") == ("t", None) and choice("t-garch") == choice("t-garch:gjr")
    assert family("fhs:ewma") != family("fhs") and family("t-garch:ewma") == family("t-garch-jump:ewma")
    assert drawn_from("evt:ewma") == "fhs:ewma" and drawn_from("evt") == "fhs" and drawn_from("t") == "t"
    for name, words in (("t:ewma", "a filter is one of"), ("t-garch:none", "a filter"), ("x", "not calibrated")):
        with pytest.raises(UsageError, match=words):
            choice(name)


def test_riskmetrics_is_its_recursion():
    """σ² of the next day is that of λ = .94, from the backcast on."""
    moves = moves_of(t_moves(n=400), NAMES)
    found = estimate(moves, model="t-garch:riskmetrics")
    s = calibrate(found, model="t-garch:riskmetrics").specification
    row = s.state["filter"]["A:spot"]
    assert s.model == "t-garch" and (row["omega"], row["alpha"], row["beta"]) == pytest.approx((0, 0.06, 0.94))
    assert found.fit is not None
    r = found.x[:, 0] - found.fit.estimate.mean[0]
    variance = found.deviation[0, 0] ** 2
    for move in r:
        variance = 0.94 * variance + 0.06 * move**2
    assert row["variance"] == pytest.approx(variance)
    with pytest.raises(UsageError, match="its own family"):
        calibrate(found, model="t-garch")


def test_the_commands(cli: Cli, tmp_path: Path):
    """Both volatilities in the file that a run reads, what they are of in the notes; a backtest of all that is new."""
    ratio = moves_of(t_moves(n=330), NAMES).ratio[:, :2]
    panel = write_panel(tmp_path / "p.csv", 330, 100 * np.cumprod(ratio, axis=0), ("A", "B"))
    command = ("calibrate", panel, "--model", "t-garch:ewma", "--out", tmp_path / "model.json")
    done = cli(*command, "--stressed", "2023-02-01..2023-05-01")
    assert done.code == 0, done.err
    assert "stressed volatility is that of 2023-02-01 to 2023-05-01" in done.out and "A:spot 0.9" in done.out
    assert (tmp_path / "model.json").read_text().count('"stressed_volatility"') == 4
    for period in ("2023", "2023-05-01..2023-02-01"):
        assert cli(*command, "--stressed", period).code == 2
    done = cli("backtest", panel, "--model", "historical,evt", "--from", "2023-11-15", "--window", "300", "--paths",
               "2048", "--apc", "buffer,floor", "--out", tmp_path / "bt")  # fmt: skip
    assert done.code == 0, done.err
    assert "buffer, floor" in done.out and "evt" in done.out
    assert pq.read_table(tmp_path / "bt" / "tools.parquet").num_rows == 8
    assert "Against procyclicality" in (tmp_path / "bt" / "report.html").read_text()
    days = pq.read_table(tmp_path / "bt" / "days.parquet").to_pydict()
    assert np.all(np.array(days["expected_shortfall"]) >= np.array(days["value_at_risk"]))
    refused = cli("backtest", panel, "--model", "t", "--from", "2023-11-15", "--apc", "x", "--out", tmp_path / "no")
    assert refused.code == 2 and "buffer, stressed, floor" in refused.err
