"""Worst scenarios and stress lists, against a revaluation of each position one by one, by another formula."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from scipy.stats import norm

import pmvar
from pmvar.errors import InputError
from pmvar.instruments import Instruments
from pmvar.market.snapshot import MarketSnapshot
from pmvar.report.margin_report import MarginReport
from pmvar.risk.measure import N_WORST
from pmvar.scenarios import ScenarioSet
from pmvar.types import DAY, SECONDS_PER_YEAR, Precision
from tests.engines import (
    AS_OF,
    SOON,
    Row,
    hold,
    mixed_market,
    mixed_model,
    of,
    option_id,
    random_rows,
    report,
    scenarios,
    sized,
)

STRESS: Mapping[str, Mapping[str, float]] = {
    "crash": {"BTC:spot": -0.4, "ETH:spot": -0.5, "SOL:spot": -0.6, "BTC:vol": 1.0, "ETH:vol": 0.9, "SOL:vol": 0.8},
    "rally": {"BTC:spot": 0.35, "ETH:spot": 0.5, "BTC:vol": -0.2},
    "index": {"EQX:spot": -0.12, "EQX:vol": 0.7, "EUR:spot": 0.03},
    "peg": {"USDC:spot": -0.15},
    "nothing": {},
}


@pytest.fixture(scope="module")
def market() -> MarketSnapshot:
    """The mixed market."""
    return mixed_market()


@pytest.fixture(scope="module")
def rows() -> tuple[list[Row], list[Row]]:
    """Thirty random accounts, two of them large; and one of each position that matters by itself."""
    return random_rows(30, 2, seed=12)


@pytest.fixture(scope="module")
def drawn(market: MarketSnapshot) -> ScenarioSet:
    """Scenarios of two days."""
    return scenarios(market, n=8192)


@pytest.fixture(scope="module")
def found(rows: tuple[list[Row], list[Row]], market: MarketSnapshot, drawn: ScenarioSet) -> MarginReport:
    """The report with the stress list, in float64."""
    stress = pmvar.stress_scenarios(STRESS, mixed_model(), market)
    return report(hold(*rows), market, drawn=drawn, stress=stress, precision="float64")


def black(forward: np.ndarray, strike: float, deviation: np.ndarray, put_call: str) -> np.ndarray:
    """Black (1976), as the textbook has it."""
    with np.errstate(divide="ignore"):
        d1 = np.log(forward / strike) / deviation + deviation / 2
    sign = 1.0 if put_call == "call" else -1.0
    return sign * (forward * norm.cdf(sign * d1) - strike * norm.cdf(sign * (d1 - deviation)))


def profit(
    listed: Instruments,
    i: int,
    market: MarketSnapshot,
    move: Mapping[str, np.ndarray],
    *,
    days: float,
) -> np.ndarray:
    """P&L in dollars of one contract after `days`, factors having moved by `move` in logs, unless it has settled."""
    kind, u, settled = listed.kind[i], str(listed.underlying[i]), str(listed.settlement_currency[i])
    after = AS_OF + days * DAY
    zero = np.zeros(len(next(iter(move.values()))))

    def price_in_dollars(asset: str) -> tuple[float, np.ndarray]:
        now, then = 1.0, np.ones(len(zero))
        while asset != "USD":
            column = market.column(asset)
            now, then = now * market.spot[column], then * market.spot[column] * np.exp(move[f"{asset}:spot"])
            asset = market.quote_currency[column]
        return now, then

    money, money_then = price_in_dollars(settled)
    if kind == "cash":
        return money_then - money
    spot = market.spot[market.column(u)]
    spot_then = spot * np.exp(move[f"{u}:spot"])
    size, expiry = listed.contract_size[i], listed.expiry[i]
    if kind == "spot":
        return size * (spot_then * money_then - spot * money)
    forward = market.forwards[u].at(expiry) if np.isfinite(expiry) else spot
    # F₁(T) = S₁·F₀(T)/F₀(h): the forward at a later time over the spot of that time.
    carry = forward / market.forwards[u].at(after) if np.isfinite(expiry) else 1.0
    forward_then = spot_then * carry
    if kind in ("future", "perpetual"):
        paid = forward_then - forward if listed.settlement[i] == "linear" else 1 / forward - 1 / forward_then
        return size * paid * money_then
    assert expiry > after
    strike, side = float(listed.strike[i]), str(listed.put_call[i])
    surface, year = market.vols[u], (expiry - AS_OF) / SECONDS_PER_YEAR
    left = (expiry - after) / SECONDS_PER_YEAR
    vol = surface.vol(np.array([np.log(strike / forward)]), expiry)
    shock = move.get(f"{u}:vol", zero)
    if days:
        # Of a tenor of 30 days, falling off as τ^−0.4, capped at 1.6.
        shock = 1.6 * np.tanh(shock * (30 * DAY / max(expiry - after, DAY)) ** 0.4 / 1.6)
    vol_then = surface.vol(np.log(strike / forward_then), expiry) * np.exp(shock)
    now = black(np.array([forward]), strike, vol * np.sqrt(year), side)
    then = black(forward_then, strike, vol_then * np.sqrt(left), side)
    if listed.settlement[i] == "inverse":
        return size * (then / forward_then * money_then - now / forward * money)
    curve = market.discounts[str(listed.quote_currency[i])]
    discount, discount_then = (
        curve.discount_factor(expiry),
        curve.discount_factor(expiry) / curve.discount_factor(after),
    )
    return size * (then * discount_then * money_then - now * discount * money)


def test_stress_losses_by_another_formula(
    rows: tuple[list[Row], list[Row]], market: MarketSnapshot, found: MarginReport
) -> None:
    """Each stress moves prices and vols at once, nothing else: revalued position by position with textbook Black."""
    portfolio = hold(*rows)
    names = sorted({f for moves in STRESS.values() for f in moves} | {f"{a}:spot" for a in market.asset})
    move = {f: np.log1p([moves.get(f, 0.0) for moves in STRESS.values()]) for f in names}
    listed = portfolio.instruments
    by_instrument = np.stack([profit(listed, i, market, move, days=0.0) for i in range(len(listed))])
    expected = -(portfolio.quantity @ by_instrument)
    table = found.tables["stress"]
    assert table["account_id"].tolist() == np.repeat(portfolio.account_id, len(STRESS)).tolist()
    assert table["scenario"].tolist() == list(STRESS) * portfolio.n_accounts
    # The smile is tabulated at fixed moves and interpolated: 2e-4 of the gross at moves of half. Exact at no move.
    gross = abs(portfolio.quantity) @ np.abs(by_instrument).max(axis=1)
    error = np.abs(table["loss"].reshape(expected.shape) - expected) / gross[:, None]
    print(f"largest error over gross {error.max():.1e}")
    assert np.all(error <= 2e-4)
    assert np.all(error[:, list(STRESS).index("nothing")] <= 1e-12)


def test_stress_of_single_positions_in_closed_form(market: MarketSnapshot) -> None:
    """Perpetuals, cash and spot by hand: coin-settled at the stressed coin, USDC at the stressed peg."""
    held = [("inverse", "BTC-PERPETUAL", 5e4), ("linear", "SOL-PERPETUAL", -100.0), ("spot", "BTC_USD", 2.0)]
    cash: list[Row] = [("peg", "USDC", 1e5), ("coin", "SOL", 10.0)]
    stress = pmvar.stress_scenarios(STRESS, mixed_model(), market)
    r = report(hold(held, cash), market, stress=stress)
    expected = {
        "inverse": [-5e4 * (1 / 1e5 - 1 / 6e4) * 6e4, -5e4 * (1 / 1e5 - 1 / 1.35e5) * 1.35e5, 0, 0, 0],
        "linear": [100 * 150 * -0.6 * 0.999, 0, 0, 0, 0],
        "spot": [8e4, -7e4, 0, 0, 0],
        "peg": [0, 0, 0, 1e5 * 0.999 * 0.15, 0],
        "coin": [10 * 150 * 0.999 * 0.6, 0, 0, 10 * 150 * 0.999 * 0.15, 0],
    }
    for account, losses in expected.items():
        # float32 tiles: a few ulp.
        np.testing.assert_allclose(of(r, account, "loss", "stress"), losses, rtol=1e-6, atol=1e-9)


def test_worst_scenarios_are_the_worst(
    rows: tuple[list[Row], list[Row]], market: MarketSnapshot, drawn: ScenarioSet, found: MarginReport
) -> None:
    """All 8,192 scenarios revalued by the other formula, from the shocks: the five worst are those that are listed."""
    portfolio = hold([r for r in rows[0] if "SOON" not in r[1]], rows[1])
    r = report(portfolio, market, drawn=drawn, precision="float64")
    shock = np.asarray(drawn.shock[:, 0, :])
    move = {f: shock[:, j] for j, f in enumerate(drawn.factors)}
    listed = portfolio.instruments
    by_instrument = np.zeros((len(listed), drawn.n_scenarios))
    for i in range(len(listed)):
        if listed.expiry[i] != SOON:
            by_instrument[i] = profit(listed, i, market, move, days=2.0)
    loss = -(portfolio.quantity @ by_instrument)
    worst = r.tables["worst"]
    gross = abs(portfolio.quantity) @ np.abs(by_instrument).max(axis=1)
    for row, account in enumerate(portfolio.account_id):
        own = worst["account_id"] == account
        assert worst["rank"][own].tolist() == list(range(1, N_WORST + 1))
        listed_loss, ids = worst["loss"][own], worst["scenario"][own].astype(int)
        assert np.all(np.diff(listed_loss) <= 0)
        # The same losses, but for the tabulated smile; and none outside the list is worse than its last.
        tolerance = 2e-4 * gross[row]
        np.testing.assert_allclose(listed_loss, loss[row, ids], atol=tolerance)
        rest = np.delete(loss[row], ids)
        assert rest.max() <= listed_loss[-1] + tolerance
    assert np.all(worst["weight"] == 1)


def test_shocks_of_the_worst_scenarios(drawn: ScenarioSet, found: MarginReport) -> None:
    """The table `shocks` holds every factor of every worst scenario once: prices as drawn, vols as capped at 1.6."""
    worst, shocks = found.tables["worst"], found.tables["shocks"]
    ids = sorted(set(worst["scenario"].tolist()))
    assert shocks["scenario"].tolist() == np.repeat(ids, len(drawn.factors)).tolist()
    assert shocks["factor"].tolist() == list(drawn.factors) * len(ids)
    told, shock = shocks["shock"].reshape(len(ids), -1), np.asarray(drawn.shock[np.array(ids), 0])
    vols = np.array([f.endswith(":vol") for f in drawn.factors])
    np.testing.assert_array_equal(told[:, ~vols], shock[:, ~vols])
    np.testing.assert_allclose(told[:, vols], 1.6 * np.tanh(shock[:, vols] / 1.6), rtol=1e-14)


def test_worst_losses_bound_the_tail(found: MarginReport) -> None:
    """The worst loss is at least the ES, which is at least the VaR: the order of any tail, to the rounding of a sum
    where the whole tail is one loss."""
    m = found.tables["margins"]
    worst = found.tables["worst"]["loss"].reshape(-1, N_WORST)
    ulp = 1e-14 * np.abs(worst[:, 0])
    assert np.all(worst[:, 0] >= m["expected_shortfall"] - ulp)
    assert np.all(m["expected_shortfall"] >= m["value_at_risk"] - ulp)
    assert np.all(worst[:, -1] >= m["value_at_risk"])


def test_float32_finds_the_same_worst_scenarios(
    rows: tuple[list[Row], list[Row]], market: MarketSnapshot, drawn: ScenarioSet, found: MarginReport
) -> None:
    """The precision of runs picks the same scenarios, in the same order, for all accounts."""
    narrow = report(hold(*rows), market, drawn=drawn, precision=str(Precision.FLOAT32)).tables["worst"]
    np.testing.assert_array_equal(narrow["scenario"], found.tables["worst"]["scenario"])
    np.testing.assert_allclose(narrow["loss"], found.tables["worst"]["loss"], rtol=1e-4)


def test_stress_lists_are_checked(market: MarketSnapshot) -> None:
    """A move of −100 % and a factor that the model lacks are refused, both at once."""
    with pytest.raises(InputError) as caught:
        pmvar.stress_scenarios({"a": {"BTC:spot": -1.0}, "b": {"DOGE:spot": 0.1}}, mixed_model(), market)
    assert len(caught.value.problems) == 2 and caught.value.exit_code == 3


def test_stress_of_what_expires_tomorrow(market: MarketSnapshot) -> None:
    """A stress happens now: an option that expires tomorrow still has its day."""
    name = option_id("EQX", "SOON", 0.0, "call")
    stress = pmvar.stress_scenarios({"x": {"EQX:spot": 0.05}}, mixed_model(), market)
    portfolio = hold([("a", name, sized(name, -1.0))])
    r = report(portfolio, market, stress=stress, precision="float64")
    i = portfolio.instruments.instrument_id.tolist().index(name)
    move = {f"{a}:spot": np.log1p([0.05 if a == "EQX" else 0.0]) for a in market.asset}
    expected = 15.0 * profit(portfolio.instruments, i, market, move, days=0.0)[0]
    assert of(r, "a", "loss", "stress")[0] == pytest.approx(expected, rel=1e-4)
