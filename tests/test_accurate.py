"""The accurate mode: exact tails of the literature's portfolios, its published variance ratios, an ordinary run's
margins, and what it refuses."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import special

import pmvar
from pmvar.errors import UsageError
from pmvar.risk.accurate import DEFENSIVE, REPLICATES, STRATA, _draws, _quadratic, accurate_margin
from pmvar.risk.rules import MarginRules
from pmvar.types import Drift
from tests.engines import Row, call, hold, mixed_market, mixed_model, put

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from _mixed import GHS, GHS_EXACT, HORIZON_DAYS, ghs_book  # noqa: E402


@pytest.mark.parametrize("law", [0, 1])
@pytest.mark.parametrize("name", list(GHS_EXACT))
def test_exact_tails(name, law):
    """VaR99 and ES99 within four reported errors, which are at most .6% of them at 16,384 paths; no weight
    above what the plain share allows."""
    book = ghs_book(name, degrees_of_freedom=(None, 5.0)[law])
    found = accurate_margin(
        book.portfolio, book.market, book.model, name, seed=3, n_scenarios=16_384, horizon=f"{HORIZON_DAYS}d",
        drift=Drift.NONE,
    )  # fmt: skip
    var, es = GHS_EXACT[name][law]
    assert 0 < found.var_standard_error <= 0.006 * var and 0 < found.es_standard_error <= 0.006 * es
    assert abs(found.value_at_risk - var) <= 4 * found.var_standard_error
    assert abs(found.expected_shortfall - es) <= 4 * found.es_standard_error
    assert found.tilt > 0 and found.largest_weight <= 1 / DEFENSIVE


def ghs_value(name: str, spot: np.ndarray | float, years: float) -> np.ndarray | float:
    """The options on one asset, by Black and Scholes."""
    _, strikes, *quantities = GHS[name]
    v, out = 0.3 * np.sqrt(years), 0.0
    for strike, quantity, sign in zip(strikes, quantities, (1, -1), strict=True):
        d = (np.log(spot / strike) + 0.05 * years) / v + v / 2
        bond = strike * np.exp(-0.05 * years)
        out = out + quantity * sign * (spot * special.ndtr(sign * d) - bond * special.ndtr(sign * (d - v)))
    return out


@pytest.mark.parametrize(("name", "plain", "stratified"), [("0.5yr ATM", 53, 333), ("0.1yr ATM", 46, 134)])
def test_published_variance_ratios(name, plain, stratified):
    """Of P(L > x), x the exact VaR99, over plain Monte Carlo, by the product's quadratic and draws: the paper's ratios
    of importance sampling within 25%, and its stratified ones at least up to that, for the product has 64 strata for
    the paper's 40. Under each of three seeds."""
    years, x, h = GHS[name][0], GHS_EXACT[name][1][0], 0.04

    def losses(moves: np.ndarray, _: np.ndarray) -> np.ndarray:
        spot = np.maximum(100 * (1 + 0.3 * np.sqrt(h) * moves[:, ::2]), 1e-8)
        return np.asarray(10 * ghs_value(name, 100.0, years) - np.sum(ghs_value(name, spot, years - h), axis=1))

    q, n = _quadratic(losses, ghs_book(name, degrees_of_freedom=5.0).model), 1 << 15
    for seed in range(3):
        moves, weight, _ = _draws(q, 0.99, n, np.random.default_rng(seed))
        hit = weight * (losses(moves, weight) > x)
        strata = hit.reshape(-1, REPLICATES).T.reshape(REPLICATES, STRATA, -1).swapaxes(0, 1).reshape(STRATA, -1)
        within = strata.var(axis=1, ddof=1).mean()
        assert hit.mean() == pytest.approx(0.01, abs=4 * np.sqrt(within / n))
        assert 0.0099 / hit.var() == pytest.approx(plain, rel=0.25)
        assert 0.0099 / within >= 0.75 * stratified


HELD: list[Row] = [("x", call("BTC", "FAR"), -2.0), ("x", put("ETH"), -20.0), ("x", "SOL-PERPETUAL", 2e3),
                   ("soon", call("BTC", "SOON"), -1.0)]  # fmt: skip


def test_an_ordinary_run_agrees():
    """Smiles, vol factors, coin settlement and drift: VaR and ES within four joint errors of 65,536 ordinary paths, and
    the same seed gives the same bits."""
    market, model, held = mixed_market(), mixed_model(), hold(HELD)
    drawn = pmvar.simulate(model, market, seed=1)
    tables = pmvar.margin_report(pmvar.reprice(held, market, drawn), held, MarginRules(), greeks=False).tables
    row = list(tables["margins"]["account_id"]).index("x")
    m = {name: float(column[row]) for name, column in tables["margins"].items() if column.dtype == np.float64}
    first, second = (accurate_margin(held, market, model, "x", seed=5, n_scenarios=16_384) for _ in range(2))
    assert first == second
    gap = abs(first.expected_shortfall - m["expected_shortfall"])
    assert gap <= 4 * np.hypot(first.es_standard_error, m["es_standard_error"])
    gap = abs(first.value_at_risk - m["value_at_risk"])
    assert gap <= 4 * np.hypot(first.var_standard_error, m["var_standard_error"])


@pytest.mark.parametrize(
    ("account", "change", "match"),
    [("x", {"n_scenarios": 5000}, "multiple"), ("nobody", {}, "no account"), ("soon", {}, "expire inside")],
)
def test_what_is_refused(account, change, match):
    with pytest.raises(UsageError, match=match):
        accurate_margin(hold(HELD), mixed_market(), mixed_model(), account, seed=1, **change)
