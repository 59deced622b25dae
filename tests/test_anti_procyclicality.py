"""Tools against procyclical margins: their closed forms, that none lowers a margin, and what a run remembers."""

import json
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

import pmvar
from pmvar.engine import protecting
from pmvar.errors import InputError, UsageError
from pmvar.market.snapshot import MarketSnapshot
from pmvar.models import build
from pmvar.models.at_volatility import at_volatility, under
from pmvar.models.composed import ComposedModel
from pmvar.models.posterior_draws import PosteriorDraws
from pmvar.models.specification import ModelSpecification, ReferenceVolatility
from pmvar.portfolio import Portfolio
from pmvar.risk.buffer import BUFFER, REBUILD_DAYS, buffered
from pmvar.risk.result import Columns
from pmvar.risk.rules import MarginRules
from pmvar.types import ApcTool, Drift, Measure, PriceMap, Sampling
from pmvar.valuation.reprice import ProfitAndLoss
from tests.books import small_book
from tests.markets import (
    AS_OF,
    DAY,
    carry_curve,
    flat_rate,
    flat_vol,
    instrument,
    portfolio,
    snapshot,
    specification,
    table,
)
from tests.test_cli import Cli, cli

__all__ = ["cli"]

TODAY, STRESSED, LONG_RUN = 0.02, 0.05, 0.03
UNIT_ES = float(stats.norm.pdf(stats.norm.ppf(0.99)) / 0.01)
MARKET = snapshot({"A": (100.0, "USD"), "B": (100.0, "USD")})
SPOTS = table([instrument("A-SPOT", "spot", "A"), instrument("B-SPOT", "spot", "B")])


def model(today: float = TODAY, stressed: float | None = STRESSED, long_run: float | None = LONG_RUN):
    """Two prices, linear and normal."""
    given = specification({"A:spot": today, "B:spot": today}, price_map=PriceMap.LINEAR)
    factors = (replace(f, stressed_volatility=stressed, long_run_volatility=long_run) for f in given.factors)
    return replace(given, factors=tuple(factors))


def repriced(
    held: Portfolio, model: ModelSpecification, rules: MarginRules, market: MarketSnapshot = MARKET
) -> tuple[ProfitAndLoss, dict[ApcTool, ProfitAndLoss]]:
    """The P&L under today's law, and under those that the rules ask for."""

    def pnl(of: ModelSpecification) -> ProfitAndLoss:
        scenarios = pmvar.simulate(of, market, seed=1, n_scenarios=8192, horizon="1d", drift=Drift.NONE)
        return pmvar.reprice(held, market, scenarios)

    return pnl(model), {tool: pnl(of) for tool, of in protecting(model, rules).items()}


def margins(held: Portfolio, model: ModelSpecification, rules: MarginRules) -> tuple[Columns, Columns]:
    """The tables `margins` and `anti_procyclicality` of a portfolio."""
    pnl, protective = repriced(held, model, rules)
    tables = pmvar.margin_report(pnl, held, rules, protective=protective, greeks=False).tables
    return tables["margins"], tables["anti_procyclicality"]


@pytest.mark.parametrize("measure", Measure)
def test_the_union_of_two_normals(measure: Measure):
    """The VaR v solves ¾Φ(−v/σ) + ¼Φ(−v/σ_s) = 1%; the ES is (¾σφ(v/σ) + ¼σ_sφ(v/σ_s))/1%."""
    held = portfolio(SPOTS, {"long": {"A-SPOT": 1.0}, "short": {"B-SPOT": -2.0}})
    rules = MarginRules(measure=measure, multiplier=1.5, apc=(ApcTool.STRESSED,))
    weight, sigma = np.array([0.75, 0.25]), 100 * np.array([TODAY, STRESSED])
    v = float(np.asarray(optimize.brentq(lambda v: weight @ stats.norm.sf(v / sigma) - 0.01, 0, 50)))
    exact = v if measure is Measure.VALUE_AT_RISK else weight @ (sigma * stats.norm.pdf(v / sigma)) / 0.01
    found, tools = margins(held, model(), rules)
    np.testing.assert_allclose(found["initial_margin"], 1.5 * exact * np.array([1, 2]), rtol=0.01)
    off = np.abs(tools["stressed_margin"] - 1.5 * exact * np.array([1, 2]))
    assert np.all(off < 5 * tools["stressed_standard_error"])
    assert np.all((tools["stressed_standard_error"] > 0) & (tools["long_run_margin"] == 0))
    np.testing.assert_array_equal(tools["current_margin"], 1.5 * found[measure])
    np.testing.assert_allclose(found["excess"], found["equity"] - found["initial_margin"])
    np.testing.assert_allclose(found["diversification_benefit"], 0, atol=1e-9)


@pytest.mark.parametrize("long_run", [0.01, 0.03])
def test_the_floor_is_the_margin_under_ten_year_volatility(long_run: float):
    held = portfolio(SPOTS, {"long": {"A-SPOT": 1.0}})
    found, tools = margins(held, model(long_run=long_run), MarginRules(apc=(ApcTool.FLOOR,)))
    np.testing.assert_allclose(tools["long_run_margin"], 100 * long_run * UNIT_ES, rtol=4e-3)
    expected = np.maximum(tools["long_run_margin"], found["expected_shortfall"])
    np.testing.assert_array_equal(found["initial_margin"], expected)
    assert (found["initial_margin"] > found["expected_shortfall"]).all() == (long_run > TODAY)


def test_the_buffer_by_hand():
    """100 a day for a day, a rise of 20% that the buffer takes, one of 30% that it cannot, calm, a fall."""
    calculated, expected = [100, 120, 156, 156, 156, 100], [125, 126, 156, 157.3, 158.6, 125]
    margin = np.array(0.0)
    for c, e in zip(calculated, expected, strict=True):
        margin = buffered(np.array(float(c)), margin, 1.0)
        assert margin == pytest.approx(e)
    assert buffered(np.array(100.0), np.array(100.0), REBUILD_DAYS) == pytest.approx(125)


amounts = st.floats(0.01, 1e9)


@given(amounts, st.floats(0, 1e9), st.floats(0, 400), st.floats(1, 3))
def test_a_buffered_margin_is_up_to_a_quarter_more(c: float, before: float, days: float, more: float):
    """And rises no faster than the refill unless the margin without a buffer does; a larger one is charged more."""
    one, other = (float(buffered(np.array(x), np.array(before), days)) for x in (c, c * more))
    for margin, x in ((one, c), (other, c * more)):
        assert x <= margin <= x * (1 + BUFFER) * (1 + 1e-12)
        assert margin <= max(before + BUFFER * x * days / REBUILD_DAYS, x) * (1 + 1e-12) or before == 0
    assert other >= one * (1 - 1e-12)


def test_no_tool_lowers_a_margin():
    """Spreads and options, volatilities at random: with more tools every margin is as large or larger."""
    rng = np.random.default_rng(1)
    spots = {"A": (100.0, "USD"), "B": (100.0, "USD")}
    market = snapshot(spots, vols={"A": flat_vol(0.4)}, discounts={"USD": flat_rate(0.0)},
                      forwards={"A": carry_curve(100.0, 0.0)})  # fmt: skip
    option = {"expiry": AS_OF + 20 * DAY, "strike": 100.0, "put_call": "call"}
    legs = (("A-SPOT", "spot", "A", {}), ("B-SPOT", "spot", "B", {}), ("A-CALL", "option", "A", option))
    listed = table([instrument(*leg, **terms) for *leg, terms in legs])
    names = listed.instrument_id.tolist()
    held = portfolio(listed, {f"a{i}": dict(zip(names, rng.normal(size=3).tolist(), strict=True)) for i in range(9)})
    given = specification({"A:spot": 0.02, "B:spot": 0.03, "A:vol": 0.05}, correlation=np.array(
        [[1, 0.95, -0.3], [0.95, 1, -0.3], [-0.3, -0.3, 1]]))  # fmt: skip
    other = [{v: f.volatility * rng.uniform(0.3, 2) for v in ReferenceVolatility} for f in given.factors]
    given = replace(given, factors=tuple(replace(f, **v) for f, v in zip(given.factors, other, strict=True)))
    charged = {f"a{i}": (rng.uniform(0, 30), 2.0) for i in range(8)}
    pnl, others = repriced(held, given, MarginRules(apc=tuple(ApcTool)), market)
    found = {}
    for tools in (some for n in range(4) for some in combinations(ApcTool, n)):
        rules = MarginRules(apc=tools)
        report = pmvar.margin_report(pnl, held, rules, protective=others, charged=charged, greeks=False)
        found[tools] = report.tables["margins"]["initial_margin"]
    for less in found:
        for more in found:
            if set(less) <= set(more):
                assert np.all(found[more] >= found[less]), (less, more)
    assert np.any(found[()] < found[tuple(ApcTool)])
    some, every = np.array([1, 4]), MarginRules(apc=tuple(ApcTool))
    few = held.accounts(some)
    part = pmvar.margin_report(pnl, few, every, protective=others, charged=charged, greeks=False)
    np.testing.assert_array_equal(part.tables["margins"]["initial_margin"], found[tuple(ApcTool)][some])


def test_a_tool_without_its_volatility_is_refused():
    held = portfolio(SPOTS, {"long": {"A-SPOT": 1.0}})
    with pytest.raises(InputError, match="A:spot has no stressed_volatility"):
        under(model(stressed=None), ReferenceVolatility.STRESSED)
    with pytest.raises(InputError, match="heston has no volatility for each factor"):
        at_volatility(replace(model(), model="heston"), np.array([0.1, 0.1]))
    pnl, _ = repriced(held, model(), MarginRules())
    with pytest.raises(UsageError, match="the rules ask for floor"):
        pmvar.margin_report(pnl, held, MarginRules(apc=(ApcTool.FLOOR,)))
    compared = pmvar.compare(pnl, held, MarginRules(apc=(ApcTool.FLOOR,)), [])
    assert compared.notes == ("compared before the tools against procyclicality (floor)",)
    with pytest.raises(InputError, match="long_run_volatility of A:spot"):
        model(long_run=-0.1)


def jumping(name: str, **size: float) -> ModelSpecification:
    """Systemic jumps and some of A's own."""
    jumps = {"intensity": 40.0, "loading": {"B:spot": 0.5}, "scatter": {"A:spot": 0.01}, **size}
    own = {"own": {"A:spot": {"intensity": 20.0, **size}}}
    return replace(model(0.03), model=name, parameters={"jumps": jumps | own})


def filtered(**also: object) -> ModelSpecification:
    rows = {"A:spot": {"omega": 1e-5, "alpha": 0.05, "beta": 0.9, "variance": 9e-4}, "B:spot": {"ewma": True}}
    given = replace(model(), **({"model": "t-garch", "state": {"filter": rows}} | also))
    return replace(given, factors=tuple(replace(f, degrees_of_freedom=6.0) for f in given.factors))


def posterior() -> PosteriorDraws:
    one, variance = np.ones((8, 1)), 4e-4 * np.linspace(0.5, 2, 8)[:, None]
    return PosteriorDraws(("A:spot",), 1e-5 * one, 0.05 * one, 0 * one, 0.9 * one, variance, 6.0 * one)


CASES = {
    "t-garch": filtered(),
    "predictive": filtered(posterior=posterior()),
    "historical": replace(model(), model="historical", history=0.02 * np.random.default_rng(1).standard_t(5, (400, 2))),
}


@pytest.mark.parametrize(
    "given",
    [
        jumping("merton", mean=-0.02, deviation=0.03),
        jumping("kou", up_probability=0.4, up_rate=40.0, down_rate=30.0),
    ],
)
def test_jumps_keep_their_share_of_the_variance(given: ModelSpecification):
    wanted = np.array([0.045, 0.011])
    before, after = (build(s) for s in (given, at_volatility(given, wanted)))
    assert isinstance(before, ComposedModel) and isinstance(after, ComposedModel) and before.jumps and after.jumps
    one = jnp.ones(())
    assert float(before.jumps.variance(one)[1]) > 0
    expected = np.asarray(before.jumps.variance(one)) * (wanted / 0.03) ** 2
    np.testing.assert_allclose(np.asarray(after.jumps.variance(one)), expected, rtol=1e-12)
    np.testing.assert_array_equal(np.asarray(after.volatility), wanted)


@pytest.mark.parametrize("name", CASES)
def test_a_model_moves_as_much_as_it_is_told_to(name: str):
    """The deviation of a day's x is the one asked for, whatever it was before; 16,384 Sobol' paths of fat tails."""
    wanted = np.array([0.045, 0.011])
    drawn = pmvar.simulate(
        at_volatility(CASES[name], wanted), MARKET, seed=1, n_scenarios=16_384, horizon="1d", drift=Drift.NONE,
        sampling=Sampling.SOBOL,
    )  # fmt: skip
    x = np.expm1(np.asarray(drawn.shock[:, 0, :]))
    np.testing.assert_allclose(x.std(axis=0), wanted, rtol=0.03)


def test_a_run_remembers_what_it_charged(cli: Cli, tmp_path: Path):
    """A day later the last run's margin is what the buffer starts from; the same evening again it is not; `reproduce`
    makes each of them again, and `explain` adds up."""
    book = small_book(tmp_path / "book")
    document = json.loads((book / "model.json").read_text())
    for f in document["factors"]:
        f |= {"stressed_volatility": 2 * f["volatility"], "long_run_volatility": 1.1 * f["volatility"]}
    (book / "model.json").write_text(json.dumps(document))
    command = ("run", book, "--out", tmp_path / "run", "--paths", 2048, "--apc", "buffer,stressed,floor",
               "--no-components")  # fmt: skip

    def run() -> dict:
        done = cli(*command)
        assert done.code == 0, done.err
        rows = pq.read_table(tmp_path / "run" / "anti_procyclicality.parquet").to_pydict()
        return {c: dict(zip(rows["account_id"], values, strict=True)) for c, values in rows.items()}

    first = run()
    assert set(first["previous_margin"].values()) == {0.0}
    text = (book / "book.toml").read_text()
    (book / "book.toml").write_text(text.replace("2025-01-31T08", "2025-02-01T08"))
    second = run()
    assert second["previous_margin"] == first["initial_margin"] and set(second["previous_days"].values()) == {1.0}
    assert run() == second, "a run of the same time is not a day later"
    for account, margin in second["initial_margin"].items():
        c = second["calculated_margin"][account]
        expected = np.clip(first["initial_margin"][account] + BUFFER * c / REBUILD_DAYS, c, 1.25 * c)
        assert margin == pytest.approx(expected)
        assert c >= second["stressed_margin"][account] > second["current_margin"][account]
    table = pq.read_table(tmp_path / "run" / "margins.parquet").to_pydict()
    assert dict(zip(table["account_id"], table["initial_margin"], strict=True)) == second["initial_margin"]
    done = cli("reproduce", tmp_path / "run")
    assert done.code == 0 and "anti_procyclicality" in done.out, done.err
    told = cli("explain", tmp_path / "run", "002").out
    assert "check: equals the initial margin in the table" in told and "a quarter of stressed scenarios" in told
    assert "was charged 1.0 days ago" in told and "CHECK FAILS" not in told
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["settings"]["apc"] == "buffer,stressed,floor"
    assert "raised against procyclicality" in (tmp_path / "run" / "report.html").read_text()
    refused = cli(*command[:6], "--apc", "cushion")
    assert refused.code == 2 and "none, or any of buffer, stressed, floor" in refused.err
