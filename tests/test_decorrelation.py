"""The decorrelation stress: what a spread loses when its legs no longer move together."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

import pmvar
from pmvar.engine import DECORRELATION
from pmvar.errors import InputError, UsageError
from pmvar.models.specification import ModelSpecification
from pmvar.risk.rules import MarginRules
from pmvar.types import Drift, PriceMap
from tests.markets import instrument, portfolio, snapshot, specification, table

RHO, SIGMA = 0.98, 0.02
UNIT_ES = float(stats.norm.pdf(stats.norm.ppf(0.99)) / 0.01)


def model() -> ModelSpecification:
    """Two prices that move nearly as one, linear and normal: the loss of a spread has a closed form."""
    correlation = np.array([[1.0, RHO], [RHO, 1.0]])
    own = {"A:spot": SIGMA, "B:spot": SIGMA}
    return specification(own, correlation=correlation, price_map=PriceMap.LINEAR)


def stressed(share: float) -> dict[tuple[str, str], float]:
    """(account, scenario) -> loss, of a spread and of both legs long."""
    market = snapshot({"A": (100.0, "USD"), "B": (100.0, "USD")})
    listed = table([instrument("A-SPOT", "spot", "A"), instrument("B-SPOT", "spot", "B")])
    held = portfolio(listed, {"both": {"A-SPOT": 1.0, "B-SPOT": 1.0}, "spread": {"A-SPOT": 1.0, "B-SPOT": -1.0}})
    plain, less = (
        pmvar.reprice(held, market, pmvar.simulate(m, market, seed=1, n_scenarios=8192, horizon="1d", drift=Drift.NONE))
        for m in (model(), model().decorrelated(share))
    )
    report = pmvar.margin_report(plain, held, MarginRules(), decorrelated=less, greeks=False)
    t = report.tables["stress"]
    return dict(zip(zip(t["account_id"], t["scenario"], strict=True), t["loss"], strict=True))


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
def test_a_spread_pays_for_correlation_that_goes(share):
    """σ√(2 ∓ 2ρ(1−s)) per unit; 8,192 weighted Sobol' paths are within .2% of it."""
    found = stressed(share)
    for account, sign in (("spread", -1), ("both", 1)):
        exact = 100 * SIGMA * np.sqrt(2 + sign * 2 * RHO * (1 - share)) * UNIT_ES
        assert found[account, DECORRELATION] == pytest.approx(exact, rel=4e-3)


def test_each_underlying_keeps_its_own():
    """Only blocks between underlyings shrink, and what was positive semi-definite stays so."""
    rng = np.random.default_rng(1)
    loading = rng.normal(size=(4, 2))
    c = loading @ loading.T
    c /= np.sqrt(np.outer(np.diag(c), np.diag(c)))
    names = {"A:spot": SIGMA, "A:vol": 0.1, "B:spot": SIGMA, "B:vol": 0.1}
    given = specification(names, correlation=c)
    found = given.decorrelated(0.4).correlation
    own = np.kron(np.eye(2, dtype=bool), np.ones((2, 2), dtype=bool))
    np.testing.assert_array_equal(found[own], c[own])
    np.testing.assert_allclose(found[~own], 0.6 * c[~own], rtol=1e-15)
    assert np.linalg.eigvalsh(found).min() > -1e-12
    np.testing.assert_array_equal(given.decorrelated(0.0).correlation, c)


def test_a_model_without_a_matrix_is_refused():
    with pytest.raises(InputError, match="no correlation to lower"):
        replace(model(), history=np.zeros((300, 2))).decorrelated(0.5)


def test_the_name_is_taken():
    market = snapshot({"A": (100.0, "USD"), "B": (100.0, "USD")})
    listed = table([instrument("A-SPOT", "spot", "A")])
    held = portfolio(listed, {"a": {"A-SPOT": 1.0}})
    pnl = pmvar.reprice(held, market, pmvar.simulate(model(), market, seed=1, n_scenarios=4096, horizon="1d"))
    stress = pmvar.stress_scenarios({DECORRELATION: {"A:spot": -0.1}}, model(), market)
    with pytest.raises(UsageError, match="name of a stress of the model"):
        pmvar.margin_report(pnl, held, MarginRules(), stress=stress, decorrelated=pnl, greeks=False)
