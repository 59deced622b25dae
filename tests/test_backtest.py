"""Backtests: published digits, sizes and powers by exact sums and simulation, what each test cannot see."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pmvar.backtest import (
    Zone,
    acerbi_szekely_1,
    acerbi_szekely_2,
    christoffersen_independence,
    conditional_coverage,
    diebold_mariano,
    fz0_score,
    kupiec,
    kupiec_accepts,
    kupiec_power,
    margin_metrics,
    non_overlapping,
    simulated_test,
    traffic_light,
)
from pmvar.errors import UsageError

# ---- coverage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("breaches", "expected"), [(5, 1.95681), (8, 7.73355), (10, 12.95549)])
def test_kupiec_digits(breaches, expected):
    found = kupiec(breaches, 250, level=0.99)
    assert found.statistic == pytest.approx(expected, abs=5e-6)
    assert found.p_value == pytest.approx(stats.chi2.sf(expected, 1), rel=1e-4)


def test_kupiec_at_its_ends():
    """0·ln 0 = 0: no breach gives −2·T·ln(level), only breaches −2·T·ln(1 − level); as expected gives 0."""
    assert kupiec(0, 250, level=0.99).statistic == pytest.approx(-500 * np.log(0.99))
    assert kupiec(250, 250, level=0.99).statistic == pytest.approx(-500 * np.log(0.01))
    assert kupiec(10, 1000, level=0.99).statistic == pytest.approx(0, abs=1e-10)
    with pytest.raises(UsageError, match="breaches ≤ days"):
        kupiec(3, 2, level=0.99)


@pytest.mark.parametrize(("days", "accepted"), [(255, (1, 6)), (510, (2, 10)), (1000, (5, 16))])
def test_kupiec_acceptance(days, accepted):
    """Kupiec's table 3 at 1%, n < 7, 1 < n < 11, 4 < n < 17."""
    assert kupiec_accepts(days, level=0.99) == accepted


@pytest.mark.parametrize(("days", "power"), [(250, 0.24), (1000, 0.78), (2500, 0.98)])
def test_kupiec_power(days, power):
    """A true rate of 2% where 1% is claimed; the exact sum against simulated counts."""
    exact = kupiec_power(0.02, days, level=0.99)
    assert exact == pytest.approx(power, abs=0.006)
    counts = np.random.default_rng(1).binomial(days, 0.02, 4000)
    low, high = kupiec_accepts(days, level=0.99)
    share = np.mean((counts < low) | (counts > high))
    assert abs(share - exact) < 4 * np.sqrt(exact * (1 - exact) / 4000)


@pytest.mark.parametrize(
    ("breaches", "zone", "probability"),
    [(0, Zone.GREEN, 0.0811), (4, Zone.GREEN, 0.8922), (5, Zone.YELLOW, 0.9588), (9, Zone.YELLOW, 0.9997),
     (10, Zone.RED, 0.9999)],
)  # fmt: skip
def test_traffic_light(breaches, zone, probability):
    found = traffic_light(breaches, 250)
    assert found[0] is zone
    assert found[1] == pytest.approx(probability, abs=6e-5)


def sequence(pattern: str) -> np.ndarray:
    return np.array([c == "1" for c in pattern])


def test_christoffersen_by_hand():
    """0011010000: transitions 00: 4, 01: 2, 10: 2, 11: 1, so π₀₁ = 1/3, π₁₁ = 1/3, and the test sees nothing; then a
    cluster, whose likelihoods are written out."""
    assert christoffersen_independence(sequence("0011010000")).statistic == pytest.approx(0, abs=1e-12)
    found = christoffersen_independence(sequence("00001111000"))
    apart = 6 * 0 + 5 * np.log(5 / 6) + np.log(1 / 6) + 3 * np.log(3 / 4) + np.log(1 / 4)
    together = 4 * np.log(4 / 10) + 6 * np.log(6 / 10)
    assert found.statistic == pytest.approx(2 * (apart - together), rel=1e-12)


@given(st.lists(st.booleans(), min_size=2, max_size=60))
def test_christoffersen_never_fails(breaches):
    """No breach, only breaches, one at either end: finite, never negative; the joint test is the sum."""
    breach = np.array(breaches)
    alone, joint = christoffersen_independence(breach), conditional_coverage(breach, level=0.95)
    assert 0 <= alone.statistic < np.inf and 0 <= alone.p_value <= 1
    expected = kupiec(int(breach.sum()), len(breach), level=0.95).statistic + alone.statistic
    assert joint.statistic == pytest.approx(expected)
    assert joint.p_value == pytest.approx(np.exp(-expected / 2))


def test_christoffersen_sees_clusters():
    """A two-state chain with the right rate: Kupiec accepts it, independence rejects; independent breaches pass."""
    rng = np.random.default_rng(2)
    state, chain = False, []
    for u in rng.random(5000):
        state = u < (0.5 if state else 0.0263)
        chain.append(state)
    breach = np.array(chain)
    assert kupiec(int(breach.sum()), 5000, level=0.95).p_value > 0.01
    assert christoffersen_independence(breach).p_value < 1e-6
    rejected = [christoffersen_independence(rng.random(1000) < 0.05).p_value < 0.05 for _ in range(400)]
    # The χ² law holds in the limit; its size at 1,000 days is .05 to about a fifth.
    assert abs(np.mean(rejected) - 0.05) < 0.01 + 4 * np.sqrt(0.05 * 0.95 / 400)


def test_non_overlapping():
    np.testing.assert_array_equal(non_overlapping(np.arange(7.0), 3), [1 + 2 + 3, 4 + 5 + 6])
    assert len(non_overlapping(np.arange(2.0), 3)) == 0


# ---- expected shortfall --------------------------------------------------------------------------------------------


def tail_of(law: Any, level: float) -> tuple[float, float]:
    """VaR and ES of a loss with this symmetric law."""
    q = float(law.ppf(level))
    return q, float(law.expect(lambda x: x, lb=q, epsabs=1e-10)) / (1 - level)


@pytest.mark.parametrize(
    ("nu", "five", "one"), [(3.0, -0.81, -1.33), (5.0, -0.74, -1.11), (10.0, -0.71, -1.06), (np.inf, -0.70, -1.04)]
)
def test_critical_values_of_z2(nu, five, one):
    """T = 250, level 97.5%: quantiles of 40,000 simulations, within .01 for the digits and four standard errors."""
    law: Any = stats.norm() if np.isinf(nu) else stats.t(nu)
    var, es = (np.full(250, m) for m in tail_of(law, 0.975))
    z = acerbi_szekely_2(law.rvs((40_000, 250), random_state=np.random.default_rng(3)), var, es, 0.975)
    assert abs(z.mean()) < 4 * z.std() / 200
    for p, expected in ((0.05, five), (0.01, one)):
        # se = √(p(1 − p)/N)/density, the density by the quantiles around.
        around = np.quantile(z, [p * 0.8, p * 1.2])
        error = np.sqrt(p * (1 - p) / 40_000) * np.diff(around)[0] / (0.4 * p)
        assert abs(np.quantile(z, p) - expected) < 0.01 + 4 * error


def test_statistics_by_hand():
    """Four days, breaches of 3 and 5 with ES 2 and 4: Z₁ = 1 − (1.5 + 1.25)/2, Z₂ = 1 − 2.75/(4·.25)."""
    loss, var, es = np.array([3.0, 0.5, 5.0, -9.0]), np.array([1.0, 1.0, 2.0, 1.0]), np.array([2.0, 2.0, 4.0, 2.0])
    assert acerbi_szekely_1(loss, var, es, 0.75) == pytest.approx(1 - 2.75 / 2)
    assert acerbi_szekely_2(loss, var, es, 0.75) == pytest.approx(1 - 2.75)
    assert np.isnan(acerbi_szekely_1(loss - 10, var, es, 0.75))
    assert acerbi_szekely_2(loss - 10, var, es, 0.75) == 1


def test_size_and_power_of_the_simulated_test():
    """Losses from the predictive law pass 95% of the time; fatter tails are rejected; Z₁ is blind to the number."""
    rng, level, days = np.random.default_rng(4), 0.975, 250
    scale = np.exp(0.5 * np.sin(np.arange(days) / 20))
    var, es = (scale * m for m in tail_of(stats.norm(), level))
    forecast: Any = {"var": var, "es": es, "level": level, "simulated": scale * rng.standard_normal((2000, days))}
    p = [simulated_test(acerbi_szekely_2, scale * rng.standard_normal(days), **forecast).p_value for _ in range(400)]
    assert abs(np.mean(np.array(p) < 0.05) - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 400)
    heavy = scale * rng.standard_t(3, (200, days))
    found = [simulated_test(acerbi_szekely_2, loss, **forecast).p_value < 0.05 for loss in heavy]
    assert np.mean(found) > 0.8
    # Every breach is exactly its ES, and there are four times too many.
    loss = np.where(np.arange(days) % 10 == 0, es, 0.0)
    one, two = (simulated_test(z, loss, **forecast) for z in (acerbi_szekely_1, acerbi_szekely_2))
    assert one.statistic == pytest.approx(0) and one.p_value > 0.3
    assert two.statistic == pytest.approx(-3) and two.p_value < 1e-3
    with pytest.raises(UsageError, match="must be positive"):
        simulated_test(acerbi_szekely_2, loss, **(forecast | {"es": es - es}))


# ---- scores --------------------------------------------------------------------------------------------------------


def test_fz0_is_least_at_the_truth():
    """On a grid round the true VaR and ES of a t, in expectation by quadrature over its quantiles; and its formula."""
    law: Any = stats.t(5)
    level, p = 0.975, (np.arange(400_000) + 0.5) / 400_000
    loss = law.ppf(p)
    var, es = tail_of(law, level)

    def mean_score(v: float, e: float) -> float:
        return float(fz0_score(loss, np.full(len(p), v), np.full(len(p), e), level=level).mean())

    best = mean_score(var, es)
    for dv, de in ((0.9, 1), (1.1, 1), (1, 0.9), (1, 1.1), (0.95, 0.95), (1.05, 1.05)):
        assert mean_score(dv * var, de * es) > best + 1e-5
    y, v, e = -3.0, -2.0, -2.5
    published = (y - v) / ((1 - level) * e) + v / e + np.log(-e) - 1
    assert fz0_score(np.array([3.0]), np.array([2.0]), np.array([2.5]), level=level)[0] == pytest.approx(published)
    with pytest.raises(UsageError, match="0 < VaR ≤ ES"):
        fz0_score(np.ones(1), np.ones(1), np.zeros(1), level=level)


def test_diebold_mariano():
    """Without lags it is a t-statistic; its size holds under autocorrelation, where the plain one's does not."""
    rng = np.random.default_rng(5)
    a, b = rng.standard_normal((2, 500))
    plain = diebold_mariano(a, b, lags=0)
    d = a - b
    assert plain.statistic == pytest.approx(d.mean() / (d.std() / np.sqrt(500)))
    assert plain.p_value == pytest.approx(2 * stats.norm.sf(abs(plain.statistic)))
    noise = rng.standard_normal((1000, 1004))
    moving = np.sum([noise[:, k : k + 1000] for k in range(5)], axis=0)
    zero = np.zeros(1000)
    hac, naive = (np.mean([diebold_mariano(m, zero, lags=lags).p_value < 0.05 for m in moving]) for lags in (20, 0))
    # Bartlett's weights leave out a part of five equal covariances: a size of up to .08.
    assert 0.03 < hac < 0.09 and naive > 0.3
    worse = diebold_mariano(a + 0.5, b)
    assert worse.statistic > 3 and diebold_mariano(b, a + 0.5).statistic == -worse.statistic
    assert np.isnan(diebold_mariano(a, a).p_value)


# ---- margin metrics ------------------------------------------------------------------------------------------------


def test_margin_metrics_by_hand():
    margin = np.array([100.0, 100, 150, 120, 120, 300, 300])
    loss = np.array([50.0, 110, -500, 120, 160, 0, 10])
    found = margin_metrics(loss, margin)
    assert (found.days, found.breaches) == (7, 2)
    assert found.coverage == pytest.approx(5 / 7)
    assert found.mean_shortfall == pytest.approx((10 + 40) / 2)
    assert found.mean_shortfall_share == pytest.approx((10 / 100 + 40 / 120) / 2)
    assert found.average_cost == pytest.approx(1190 / 7)
    assert found.peak_to_trough == 3
    assert found.max_rise[1] == pytest.approx(1.5) and found.max_rise[5] == pytest.approx(2.0)
    assert found.max_rise[20] == 0
    quiet = margin_metrics(-loss, margin + 1000)
    assert quiet.breaches == 0 and quiet.mean_shortfall == 0 and quiet.coverage == 1
    with pytest.raises(UsageError, match="positive margins"):
        margin_metrics(loss, margin - 100)
