"""Calibration: what was simulated is found again, what cannot be fitted is named, and every model can be built."""

import json
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmvar.calibration.assumed import SPOT_VOL_CORRELATION
from pmvar.calibration.calibrate import (
    DRAWN,
    FILTERED,
    MODELS,
    MissingVols,
    calibrate,
    estimate,
    with_assumed_vols,
    x_of,
)
from pmvar.calibration.jump_fit import LEAST_DIFFUSIVE_DOF, JumpLaw, fit_jumps
from pmvar.calibration.panel import Finding, Moves, Quirk
from pmvar.errors import InputError, UsageError
from pmvar.io.model_file import model_json, read_model
from pmvar.io.problems import Problems
from pmvar.io.source import Source
from pmvar.models import build
from pmvar.models.price_map import log_price_ratio
from pmvar.models.specification import Factor, ModelSpecification
from pmvar.types import DAY, PriceMap

N = 2_000


def moves_of(x: np.ndarray, names: tuple[str, ...], findings: tuple[Finding, ...] = ()) -> Moves:
    """Moves whose x is given: the price map is undone."""
    spot = np.array([n.endswith(":spot") for n in names])
    ratio = np.where(spot & (x > 0), 1 + x, np.exp(x))
    return Moves(DAY * np.arange(1.0, 1 + len(x)), names, ratio, 365, findings)


def t_moves(nu: float = 4.0, rho: float = 0.6, seed: int = 1, n: int = N) -> np.ndarray:
    """Three factors of 3%, 4% and 5% a day, one mixing variable."""
    rng = np.random.default_rng(seed)
    c = np.full((3, 3), rho)
    np.fill_diagonal(c, 1.0)
    z = rng.standard_normal((n, 3)) @ np.linalg.cholesky(c).T
    return z * np.sqrt((nu - 2) / rng.chisquare(nu, (n, 1))) * [0.03, 0.04, 0.05]


NAMES = ("A:spot", "B:spot", "A:vol")


def test_x_is_the_price_map_undone():
    x = np.array([[-0.5, 0.3, 0.1], [0.2, -0.01, -0.2]])
    moves = moves_of(x, NAMES)
    np.testing.assert_allclose(x_of(moves), x, rtol=1e-14)
    spots = x_of(moves)[:, :2]
    np.testing.assert_allclose(
        log_price_ratio(PriceMap.EXP_LINEAR, jnp.asarray(spots)), np.log(moves.ratio[:, :2]), rtol=1e-13
    )


def test_a_t_law_is_found_again():
    """σ, ρ and ν within four standard errors: that of σ by the kurtosis 9 of t₅ or its like, ρ's as estimated."""
    x = t_moves(nu=6.0)
    made = calibrate(estimate(moves_of(x, NAMES), model="t"), model="t", missing_vols=MissingVols.OMIT)
    s = made.specification
    # Var of a sample variance is (κ − 1)/n, κ = 3(ν − 2)/(ν − 4) = 6.
    np.testing.assert_allclose([f.volatility for f in s.factors], [0.03, 0.04, 0.05], rtol=4 * np.sqrt(5 / N) / 2)
    error = made.estimates.dependence.standard_error
    off = ~np.eye(3, dtype=bool)
    assert np.all(np.abs(made.estimates.dependence.rank - 0.6)[off] < 4 * error[off])
    assert {f.degrees_of_freedom for f in s.factors} == {made.estimates.common_degrees_of_freedom}
    # 3·N values of one mixing variable a day: the error of N.
    assert 4.8 < made.estimates.common_degrees_of_freedom < 8.0


def test_own_tails_are_shrunk_between_own_and_common():
    x = np.column_stack([t_moves(4.0, seed=1)[:, 0], t_moves(30.0, seed=2)[:, 1], t_moves(4.0, seed=3)[:, 2]])
    e = estimate(moves_of(x, NAMES), model="t-multi")
    nu = e.tails.degrees_of_freedom
    assert nu[1] > 8 > 6 > max(nu[0], nu[2]) and e.tails.spread > 0


def test_a_garch_model_knows_tomorrow():
    """The state is the recursion run to the end; an independent loop agrees."""
    rng, v, x = np.random.default_rng(5), 4e-4, np.empty((N, 2))
    for t in range(N):
        x[t] = np.sqrt(v) * rng.standard_normal(2)
        v = 1e-5 + 0.1 * x[t, 0] ** 2 + 0.875 * v
    moves = moves_of(x, ("A:spot", "B:spot"))
    made = calibrate(estimate(moves, model="t-garch"), model="t-garch")
    row = made.specification.state["filter"]["A:spot"]
    fit = made.estimates.fit
    assert fit is not None
    mean, variance = fit.estimate.mean[0], made.estimates.deviation[0, 0] ** 2
    for r in x_of(moves)[:, 0] - mean:
        variance = row["omega"] + (row["alpha"] + row["gamma"] * (r < 0)) * r**2 + row["beta"] * variance
    assert row["variance"] == pytest.approx(variance, rel=1e-10)
    for name, true in (("alpha", 0.1), ("beta", 0.875)):
        error = getattr(fit.standard_error, name)[0]
        allowed = 4 * error + (fit.estimate.gamma[0] / 2 if name == "alpha" else 0)
        assert abs(getattr(fit.estimate, name)[0] - true) < allowed


@pytest.mark.parametrize("model", MODELS)
def test_every_model_is_built_and_read_back(model: str, tmp_path):
    """What is calibrated is a model of the engine, and its file says the same."""
    made = calibrate(estimate(moves_of(t_moves(n=600), NAMES), model=model), model=model)
    s = made.specification
    assert build(s, 2.0).n_steps(2.0) >= 1
    assert set(s.factor_names) == set(NAMES) | (set() if model in DRAWN else {"B:vol"})
    assert ("filter" in s.state) == (model in FILTERED)
    assert (s.history is not None) == (model in DRAWN)
    if s.history is not None:
        assert len(made.history_day) == len(s.history) == 600
        s = replace(s, history=None)
    problems = Problems()
    back = read_model(model_json(s).encode(), source=Source(tmp_path), problems=problems)
    problems.raise_any()
    assert back is not None and json.loads(model_json(back)) == json.loads(model_json(s))


def test_what_cannot_be_fitted_is_named():
    x = t_moves(n=600)
    x[:400, 1] = np.nan
    ended = Finding("A:vol", Quirk.ENDED, DAY * 500, 100)
    made = calibrate(estimate(moves_of(x, NAMES, (ended,)), model="t"), model="t", missing_vols=MissingVols.OMIT)
    assert made.specification.factor_names == ("A:spot",)
    reasons = {e["name"]: e["reason"] for e in made.specification.excluded}
    assert reasons == {"B:spot": "200 moves; 250 are needed", "A:vol": "no price on the last day"}
    with pytest.raises(InputError, match="no factor has a history"):
        estimate(moves_of(x[:100], NAMES), model="t")
    with pytest.raises(UsageError, match="svcj"):
        estimate(moves_of(x, NAMES), model="svcj")


def test_whole_days_need_common_ones():
    x = t_moves(n=900)
    x[:700, 1] = np.nan
    e = estimate(moves_of(x[:, :2], NAMES[:2]), model="historical")
    assert e.factors == ("A:spot",)
    assert [v["name"] for v in e.excluded] == ["B:spot"] and "moves; 250 are needed" in e.excluded[0]["reason"]
    y = t_moves(n=900)
    y[600:, 0], y[:500, 1] = np.nan, np.nan
    e = estimate(moves_of(y[:, :2], NAMES[:2]), model="historical")
    assert e.factors == ("A:spot",) and "fewer than 250 days" in e.excluded[0]["reason"]


@given(st.integers(1, 5), st.integers(0, 10_000))
def test_assumed_vols_leave_a_correlation_matrix(n: int, seed: int):
    """Whatever was fitted, and with the assumed correlation of a price and its own vol."""
    a = np.random.default_rng(seed).standard_normal((n, n + 1))
    c = a @ a.T
    c /= np.sqrt(np.outer(np.diag(c), np.diag(c)))
    np.fill_diagonal(c, 1.0)
    c = (c + c.T) / 2
    factors = tuple(Factor(f"{i}:spot", 0.02, 5.0) for i in range(n))
    s = with_assumed_vols(ModelSpecification("t", 0.0, factors, c))
    assert len(s.factors) == 2 * n and all(f.source == "assumed" for f in s.factors[n:])
    assert np.linalg.eigvalsh(s.correlation)[0] > -1e-12
    np.testing.assert_allclose(s.correlation[np.arange(n), n + np.arange(n)], SPOT_VOL_CORRELATION)


@pytest.mark.parametrize("law", JumpLaw)
def test_jumps_are_found_again(law: JumpLaw):
    """Twelve jumps a year of four deviations in ten years: λ within four of its errors, the days and the shares."""
    rng, n = np.random.default_rng(3), 3_650
    common = rng.standard_normal((n, 1))
    z = np.sqrt(0.5) * common + np.sqrt(0.5) * rng.standard_normal((n, 4))
    jumped = rng.random(n) < 12 / 365
    size = np.where(
        jumped, -rng.exponential(4.0, n) if law is JumpLaw.DOUBLE_EXPONENTIAL else rng.normal(-4, 1.0, n), 0.0
    )
    share = np.array([0.5, 1.0, 1.0, 1.5])
    x = z + size[:, None] * share
    unit = x.std(axis=0)
    fit = fit_jumps(x / unit, law=law, degrees_of_freedom=np.inf, steps_per_year=365)
    assert fit.identified
    assert abs(fit.intensity - 12) < 4 * fit.intensity_error + 12 * 0.2, "the prior of 4 ± 2 pulls"
    clear = np.abs(size) > 4
    assert np.mean(fit.probability[clear] > 0.5) > 0.95 and np.mean(fit.probability[~jumped] > 0.5) < 0.01
    found = fit.share * unit
    np.testing.assert_allclose(found / found[1], share, atol=0.12)
    if law is JumpLaw.DOUBLE_EXPONENTIAL:
        assert fit.size["up_probability"] < 0.2 and fit.size["up_rate"] > 0
    else:
        assert fit.size["mean"] < 0


def test_jump_models_diffuse_with_thin_tails_and_keep_the_variance():
    x = t_moves(nu=3.0)
    s = calibrate(estimate(moves_of(x, NAMES), model="t-jump"), model="t-jump").specification
    assert min(f.degrees_of_freedom or np.inf for f in s.factors if f.source != "assumed") >= LEAST_DIFFUSIVE_DOF
    np.testing.assert_allclose([f.volatility for f in s.factors[:3]], x.std(axis=0), rtol=1e-12)
