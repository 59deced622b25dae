"""Tail measures against their definition in exact rational arithmetic, their axioms, and their standard errors."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pmvar.errors import NumericsError
from pmvar.risk.selection import tail_ids
from pmvar.risk.tail import Tail, replicate_deviation, replicate_sums, standard_errors, tail
from pmvar.risk.tail_sums import centred_error

LEVELS = {
    0.99: Fraction(1, 100),
    0.975: Fraction(1, 40),
    0.9: Fraction(1, 10),
    0.95: Fraction(1, 20),
    0.6: Fraction(2, 5),
}
"""Level -> 1 − level, exactly: what a person means by .99, which binary floating point cannot hold."""


def reference(loss, weight, level: float) -> tuple[Fraction, Fraction, list[Fraction]]:
    """VaR, ES and the share of each scenario in the ES, from the definitions, over the rationals.

    VaR = inf{x : N⁻¹ Σ w·1{L > x} ≤ 1 − α}; ES = [Σ_{L>v} w·L + v·(N(1−α) − Σ_{L>v} w)]/(N(1−α)); the scenarios at the
    VaR fill what is missing in the order of their ids.
    """
    losses, weights = ([Fraction(float(x)) for x in values] for values in (loss, weight))
    mass = len(losses) * LEVELS[level]
    var = next(x for x in sorted(set(losses)) if sum(w for y, w in zip(losses, weights, strict=True) if y > x) <= mass)
    worse = [(y, w) for y, w in zip(losses, weights, strict=True) if y > var]
    beyond = sum((w for _, w in worse), Fraction(0))
    es = (sum((y * w for y, w in worse), Fraction(0)) + var * (mass - beyond)) / mass
    share, left = [], mass - beyond
    for y, w in zip(losses, weights, strict=True):
        part = w if y > var else min(w, left) if y == var else Fraction(0)
        left -= part if y == var else 0
        share.append(part / mass)
    return var, es, share


def measured(loss: np.ndarray, level: float, weight: np.ndarray | None = None) -> Tail:
    """The tail from all scenarios of one account."""
    loss = np.asarray(loss, float)
    weight = np.ones(len(loss)) if weight is None else weight
    return tail(loss[None], weight[None], n_scenarios=len(loss), level=level)


def check(loss: np.ndarray, level: float, weight: np.ndarray | None = None) -> None:
    found = measured(loss, level, weight)
    var, es, share = reference(loss, np.ones(len(loss)) if weight is None else weight, level)
    size = float(np.max(np.abs(loss))) + 1e-300
    assert found.value_at_risk[0] == float(var)
    # N(1−α) in binary is off by an ulp of N; it moves the ES by as much of the spread of losses.
    assert found.expected_shortfall[0] == pytest.approx(float(es), abs=1e-12 * size)
    np.testing.assert_allclose(found.weight[0], [float(s) for s in share], atol=1e-12)
    assert found.weight[0].sum() == pytest.approx(1.0, rel=1e-14)


# ---- exactness -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("n", [1, 2, 3, 10, 39, 40, 41, 100, 101, 250, 1000])
def test_against_the_definition(n, level):
    """N(1−α) an integer or not, below one, and exactly one; distinct losses and ties."""
    rng = np.random.default_rng(n)
    check(rng.normal(size=n), level)
    check(np.round(rng.normal(size=n)), level)
    check(np.zeros(n), level)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("seed", range(5))
def test_weighted_against_the_definition(level, seed):
    """Likelihood ratios are not normalised: their sum need not be N."""
    rng = np.random.default_rng(seed)
    n = 300
    # Dyadic weights add up exactly, so that ties between sums and N(1−α) are real.
    for weight in (rng.uniform(0.05, 1.8, n), rng.choice([0.25, 0.5, 1.0, 1.75], n)):
        check(rng.standard_t(3, n), level, weight)
        check(np.round(2 * rng.normal(size=n)), level, weight)


@given(st.lists(st.integers(-5, 5), min_size=1, max_size=60), st.sampled_from(sorted(LEVELS)))
def test_ties_of_every_kind(losses, level):
    check(np.array(losses, float), level)


def test_by_hand():
    """100 losses 1…100 at 99%: the tail holds one scenario; VaR is the next one, for only one is strictly worse."""
    found = measured(np.arange(1.0, 101.0), 0.99)
    assert (found.value_at_risk[0], found.expected_shortfall[0]) == (99.0, 100.0)
    # At 97.5%, two and a half scenarios: (100 + 99 + 98/2)/2.5.
    found = measured(np.arange(1.0, 101.0), 0.975)
    assert found.value_at_risk[0] == 98.0
    assert found.expected_shortfall[0] == pytest.approx((100 + 99 + 49) / 2.5, rel=1e-14)


def test_one_scenario_is_its_own_tail():
    found = measured(np.array([-3.5]), 0.99)
    assert found.value_at_risk[0] == found.expected_shortfall[0] == -3.5
    assert np.all(np.isfinite(np.concatenate([np.ravel(x) for x in found])))


def test_too_few_scenarios_kept_are_refused():
    with pytest.raises(NumericsError, match="do not cover the tail"):
        tail(np.ones((1, 9)), np.ones((1, 9)), n_scenarios=1000, level=0.99)
    with pytest.raises(NumericsError, match="do not cover the tail"):
        tail(np.ones((1, 20)), np.full((1, 20), 0.4), n_scenarios=1000, level=0.99)


# ---- axioms --------------------------------------------------------------------------------------------------------

LOSS = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=80)
LEVEL = st.sampled_from(sorted(LEVELS))


def both(loss: np.ndarray, level: float) -> tuple[float, float]:
    found = measured(loss, level)
    return float(found.value_at_risk[0]), float(found.expected_shortfall[0])


@given(LOSS, LEVEL)
def test_shortfall_is_between_var_and_the_worst(loss, level):
    var, es = both(np.array(loss), level)
    slack = 1e-9 * max(map(abs, loss))
    assert var - slack <= es <= max(loss) + slack
    assert es >= np.mean(loss) - slack


@given(LOSS, LEVEL, st.floats(-1e6, 1e6))
def test_cash_translates(loss, level, cash):
    var, es = both(np.array(loss), level)
    moved = both(np.array(loss) + cash, level)
    slack = 1e-9 * (max(map(abs, loss)) + abs(cash))
    assert moved == pytest.approx((var + cash, es + cash), abs=slack)


@given(LOSS, LEVEL, st.floats(0, 1e3))
def test_positively_homogeneous(loss, level, size):
    var, es = both(np.array(loss), level)
    slack = 1e-9 * max(map(abs, loss)) * (1 + size)
    assert both(size * np.array(loss), level) == pytest.approx((size * var, size * es), abs=slack)


@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6)), min_size=2, max_size=80), LEVEL)
def test_shortfall_is_subadditive(losses, level):
    """On the same scenarios, always; VaR need not be."""
    a, b = np.array(losses).T
    slack = 1e-9 * (np.abs(a).max() + np.abs(b).max())
    assert both(a + b, level)[1] <= both(a, level)[1] + both(b, level)[1] + slack


def test_var_is_not_subadditive():
    """Two digital risks of 2.4% each at 97.5%: alone neither has a VaR, together they have one."""
    a, b = np.zeros(1000), np.zeros(1000)
    a[:24], b[24:48] = 100.0, 100.0
    assert both(a, 0.975)[0] + both(b, 0.975)[0] == 0.0 < both(a + b, 0.975)[0]
    assert both(a + b, 0.975)[1] <= both(a, 0.975)[1] + both(b, 0.975)[1]


@given(LOSS, st.randoms(use_true_random=False))
def test_the_order_of_scenarios_changes_nothing(loss, random):
    shuffled = list(loss)
    random.shuffle(shuffled)
    size = max(map(abs, loss))
    assert both(np.array(shuffled), 0.9) == pytest.approx(both(np.array(loss), 0.9), abs=1e-12 * size)


@given(LOSS, st.lists(st.floats(0, 1e3), min_size=80, max_size=80), LEVEL)
def test_monotone(loss, more, level):
    """Losses that are nowhere smaller have no smaller measures."""
    worse = np.array(loss) + more[: len(loss)]
    slack = 1e-9 * (max(map(abs, loss)) + 1e3)
    for a, b in zip(both(np.array(loss), level), both(worse, level), strict=True):
        assert b >= a - slack


def test_unequal_weights_equal_repetition():
    """A scenario of weight 2 is two scenarios."""
    rng = np.random.default_rng(3)
    loss, times = rng.normal(size=400), rng.integers(1, 4, 400)
    once = tail(loss[None], times[None].astype(float), n_scenarios=int(times.sum()), level=0.95)
    many = measured(np.repeat(loss, times), 0.95)
    assert once.value_at_risk[0] == many.value_at_risk[0]
    assert once.expected_shortfall[0] == pytest.approx(many.expected_shortfall[0], rel=1e-13)


def test_components_add_up_and_take_the_same_fraction_at_the_boundary():
    """Σ E[position | tail] = ES, N(1−α) fractional, ties at the VaR included."""
    rng = np.random.default_rng(4)
    n, level = 1030, 0.975
    positions = np.round(rng.normal(size=(5, n)), 1)
    loss = positions.sum(0)
    found = measured(loss, level)
    ids = np.arange(n)[None]
    parts = [conditional_mean(p[None], ids, found, n_replicates=10)[0][0] for p in positions]
    assert sum(parts) == pytest.approx(found.expected_shortfall[0], rel=1e-13)
    _, _, share = reference(loss, np.ones(n), level)
    for part, p in zip(parts, positions, strict=True):
        assert part == pytest.approx(
            float(sum(s * Fraction(float(x)) for s, x in zip(share, p, strict=True))), abs=1e-12
        )


def conditional_mean(value, ids, found: Tail, *, n_replicates: int) -> tuple[np.ndarray, np.ndarray]:
    """E[value | tail] of each row and its standard error, in plain NumPy."""
    sums = replicate_sums(found.weight * value, ids, n_replicates)
    mass = replicate_sums(found.weight, ids, n_replicates)
    return sums.sum(axis=-1), centred_error(sums, (found.at_var * value).sum(axis=-1), mass)


# ---- standard errors -----------------------------------------------------------------------------------------------

REPLICATES = 64


@pytest.mark.parametrize(
    ("law", "name"),
    [(stats.norm(), "normal"), (stats.t(4), "t4"), (stats.expon(), "exponential")],
    ids=lambda x: x if isinstance(x, str) else "law",
)
@pytest.mark.parametrize("level", [0.975, 0.99])
def test_standard_errors_are_the_spread_over_repetitions(law, name, level):
    """400 runs of 8,192 scenarios of a known law: the mean standard error against the spread of the estimates.

    Within 15%: the spread of 400 has a relative error of 3.5%, so four of its errors are 14%. The VaR's density is read
    off a band of 60% to 140% of the tail, a bias of +6% (exponential) to +8% (t4), and that uses up some of it.
    """
    runs, n = 400, 8_192
    loss = law.rvs((runs, n), random_state=np.random.default_rng(12))
    ids = tail_ids(loss, np.ones(n), level)
    kept = np.take_along_axis(loss, ids, 1)
    found = tail(kept, np.ones(ids.shape), n_scenarios=n, level=level)
    errors = standard_errors(kept, ids, found, level=level, n_scenarios=n, n_replicates=REPLICATES)
    exact_var = law.ppf(level)
    u = 1 - (1 - level) * (np.arange(200_000) + 0.5) / 200_000
    exact_es = law.ppf(u).mean()
    for estimate, error, exact in zip(
        (found.value_at_risk, found.expected_shortfall), errors, (exact_var, exact_es), strict=True
    ):
        spread = estimate.std(ddof=1)
        assert np.sqrt(np.mean(error**2)) == pytest.approx(spread, rel=0.15)
        # Coverage of ±1.998 errors (Student, 63 degrees of freedom): 95% in the limit. 400 runs know it to 1.1%; the
        # tail of a finite sample is skewed, which costs up to 3% more for t4's 82 scenarios at 99%.
        covered = np.mean(np.abs(estimate - exact) <= stats.t(REPLICATES - 1).ppf(0.975) * error)
        assert 0.90 <= covered <= 0.985
        # Bias is smaller than the error that is reported.
        assert abs(estimate.mean() - exact) <= 0.35 * spread


def test_standard_errors_under_weights():
    """Importance sampling: draws with twice the deviation, weighted back. The same calibration, with smaller errors."""
    runs, n, level = 300, 8_192, 0.99
    rng = np.random.default_rng(13)
    loss = 1.5 * rng.normal(size=(runs, n))
    weight = 1.5 * np.exp(-0.5 * loss**2 * (1 - 1 / 1.5**2))
    found = tail(loss, weight, n_scenarios=n, level=level)
    ids = np.tile(np.arange(n), (runs, 1))
    errors = standard_errors(loss, ids, found, level=level, n_scenarios=n, n_replicates=REPLICATES)
    es = stats.norm.pdf(stats.norm.ppf(level)) / (1 - level)
    for estimate, error, exact in zip(
        (found.value_at_risk, found.expected_shortfall), errors, (stats.norm.ppf(level), es), strict=True
    ):
        # Four errors of a spread of 300 are 16%, and the band of the density adds its 4%.
        assert np.sqrt(np.mean(error**2)) == pytest.approx(estimate.std(ddof=1), rel=0.2)
        assert abs(estimate.mean() - exact) <= 4 * estimate.std() / np.sqrt(runs) + 0.1 * estimate.std()
    plain = np.sqrt(0.01 * 0.99 / n) / stats.norm.pdf(stats.norm.ppf(level))
    assert errors[0].mean() < 0.7 * plain


def test_component_errors_are_the_spread_over_repetitions():
    """E[X | tail] of one of two correlated positions: its influence function takes the estimated VaR into account."""
    runs, n, level = 400, 8_192, 0.975
    rng = np.random.default_rng(14)
    x = rng.normal(size=(runs, n))
    loss = x + 0.5 * rng.normal(size=(runs, n))
    found = tail(loss, np.ones(loss.shape), n_scenarios=n, level=level)
    ids = np.tile(np.arange(n), (runs, 1))
    mean, error = conditional_mean(x, ids, found, n_replicates=REPLICATES)
    # E[X | L > v] = ES·Cov(X, L)/Var(L), by normality.
    sigma = np.sqrt(1.25)
    exact = stats.norm.pdf(stats.norm.ppf(level)) / (1 - level) / sigma
    assert np.sqrt(np.mean(error**2)) == pytest.approx(mean.std(ddof=1), rel=0.15)
    assert abs(mean.mean() - exact) <= 4 * mean.std() / np.sqrt(runs) + 0.1 * mean.std()


def test_replicates_are_interleaved():
    """Scenario i belongs to replicate i mod R; kept scenarios are told by their ids, the others contribute nothing."""
    rng = np.random.default_rng(5)
    n, r = 640, 8
    values = np.where(rng.uniform(size=(2, n)) < 0.1, rng.normal(size=(2, n)), 0.0)
    means = values.reshape(2, n // r, r).mean(1)
    expected = means.std(1, ddof=1) / np.sqrt(r)
    whole = replicate_deviation(replicate_sums(values, np.tile(np.arange(n), (2, 1)), r), n)
    np.testing.assert_allclose(whole, expected, rtol=1e-13)
    ids = np.sort(np.stack([rng.permutation(n) for _ in range(2)]), axis=1)
    few = np.stack([np.flatnonzero(v)[:50] for v in values])
    kept = np.take_along_axis(values, few, 1)
    only = np.zeros_like(values)
    np.put_along_axis(only, few, kept, 1)
    np.testing.assert_allclose(
        replicate_deviation(replicate_sums(kept, few, r), n),
        replicate_deviation(replicate_sums(only, ids, r), n),
        rtol=1e-13,
    )
