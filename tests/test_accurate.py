"""The accurate mode: exact tails of the literature's portfolios, its published variance ratios, an ordinary run's
margins, and what it refuses."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import special

import pmvar
from pmvar.errors import UsageError
from pmvar.risk.accurate import Quadratic, _tilt, accurate_margin
from pmvar.risk.rules import MarginRules
from pmvar.types import Drift
from tests.engines import Row, call, hold, mixed_market, mixed_model, put

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "benchmarks"))
from _mixed import GHS_EXACT, HORIZON_DAYS, ghs_book  # noqa: E402


@pytest.mark.parametrize("law", [0, 1])
@pytest.mark.parametrize("name", list(GHS_EXACT))
def test_exact_tails(name, law):
    """VaR99 and ES99 within four reported errors, which are at most .6% of them at 16,384 paths; no weight above 10."""
    book = ghs_book(name, degrees_of_freedom=(None, 5.0)[law])
    found = accurate_margin(
        book.portfolio, book.market, book.model, name, seed=3, n_scenarios=16_384, horizon=f"{HORIZON_DAYS}d",
        drift=Drift.NONE,
    )  # fmt: skip
    var, es = GHS_EXACT[name][law]
    assert 0 < found.var_standard_error <= 0.006 * var and 0 < found.es_standard_error <= 0.006 * es
    assert abs(found.value_at_risk - var) <= 4 * found.var_standard_error
    assert abs(found.expected_shortfall - es) <= 4 * found.es_standard_error
    assert found.tilt > 0 and found.largest_weight <= 10


@pytest.mark.parametrize(("name", "plain", "stratified"), [("0.5yr ATM", 53, 333), ("0.1yr ATM", 46, 134)])
def test_published_variance_ratios(name, plain, stratified):
    """Of P(L > x), x the exact VaR99, over plain Monte Carlo, within 25%: the paper's delta and gamma, 40 strata."""
    years, strikes, quantities = {"0.5yr ATM": 0.5, "0.1yr ATM": 0.1}[name], (100.0, 100.0), (-10.0, -5.0)
    nu, h, x = 5.0, 0.04, GHS_EXACT[name][1][0]
    sd = 0.3 * np.sqrt(h) * np.sqrt((nu - 2) / nu)

    def value(s, t):
        out = 0.0
        for strike, quantity, sign in zip(strikes, quantities, (1, -1), strict=True):
            v = 0.3 * np.sqrt(t)
            d = (np.log(s / strike) + 0.05 * t) / v + v / 2
            out = out + quantity * sign * (
                s * special.ndtr(sign * d) - strike * np.exp(-0.05 * t) * special.ndtr(sign * (d - v))
            )
        return out

    delta = (value(100.01, years) - value(99.99, years)) / 0.02
    gamma = (value(100.1, years) + value(99.9, years) - 2 * value(100.0, years)) / 0.01
    decay = (value(100.0, years - 1e-5) - value(100.0, years + 1e-5)) / 2e-5
    q = Quadratic(
        float(-10 * decay * h),
        np.full(10, -delta * 100 * sd),
        np.full(10, -gamma / 2 * (100 * sd) ** 2),
        np.eye(10),
        nu,
    )
    theta, alpha, log_phi = _tilt(q, x)
    rng, n = np.random.default_rng(1), 1 << 19
    y = 2 * rng.standard_gamma(nu / 2, n) / (1 - 2 * alpha)
    root, spread = np.sqrt(y / nu), 1 / (1 - 2 * theta * q.square)
    z = rng.standard_normal((n, 10)) * np.sqrt(spread) + theta * q.linear * root[:, None] * spread
    tilted = y / nu * (q.constant - x) + root * (z @ q.linear) + z**2 @ q.square
    loss = np.zeros(n)
    for column in (z / root[:, None]).T:
        loss += value(100.0, years) - value(np.maximum(100 * (1 + sd * column), 1e-8), years - h)
    hit = np.exp(log_phi - theta * tilted) * (loss > x)
    assert hit.mean() == pytest.approx(0.01, abs=4 * hit.std() / np.sqrt(n) + 1e-6)
    strata = hit[np.argsort(tilted)][: n // 40 * 40].reshape(40, -1)
    assert 0.0099 / hit.var() == pytest.approx(plain, rel=0.25)
    assert 0.0099 / strata.var(axis=1).mean() == pytest.approx(stratified, rel=0.25)


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
