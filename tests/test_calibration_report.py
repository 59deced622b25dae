"""A calibration's report: laws against closed forms and simulated truth, and a page for every model."""

import re
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from pmvar.calibration.calibrate import DRAWN, Calibration, calibrate, estimate
from pmvar.calibration.dependence import t_joint_tail
from pmvar.calibration.diagnostics import Gate, GateName, Gates, tail_uniformity
from pmvar.calibration.garch import VolatilityFit
from pmvar.calibration.goodness import JOINT_SHARE, joint_tails, one_step, probabilities, step_laws
from pmvar.calibration.posterior import Course, Draws, VolatilityPosterior
from pmvar.calibration.posterior_summary import marginals
from pmvar.calibration.priors import priors
from pmvar.calibration.volatility_likelihood import Volatility
from pmvar.report.calibration_report import Sampled, render
from tests.test_calibrate import NAMES, moves_of, t_moves


def calibrated(model: str, x: np.ndarray, names: tuple[str, ...] = NAMES) -> Calibration:
    return calibrate(estimate(moves_of(x, names), model=model), model=model)


@pytest.mark.parametrize("model", ["t-multi", "t-garch-jump", "kou"])
def test_a_step_law_is_the_one_that_the_engine_simulates(model: str):
    """Quantiles of 65,536 paths of one step, within four standard errors of an empirical probability."""
    made = calibrated(model, t_moves(n=600))
    e, laws = made.estimates, step_laws(made)
    x, share = one_step(made.specification, seed=5), np.array([0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999])
    for i, law in enumerate(laws):
        q = np.quantile(x[:, i], share)
        sigma = np.full(len(share), e.deviation[-1, i] if e.fit else np.nanstd(e.x[:, i]))
        # Paths have no drift; the law is of x less its mean.
        found = law.tails(q - float(np.sum(law.jumps.weight * law.jumps.mean)), sigma)
        error = np.sqrt(share * (1 - share) / len(x))
        assert np.all(np.abs(found.lower - share) < 4 * error), model
        np.testing.assert_allclose(found.lower + found.upper, 1.0, atol=1e-12)


def test_the_law_of_a_t_is_exact_far_out():
    """Both tails against SciPy's t, relatively; quantiles back again."""
    made = calibrated("t-multi", t_moves(n=600))
    law, nu = step_laws(made)[0], made.specification.factors[0].degrees_of_freedom
    assert nu is not None
    z = np.array([-12.0, -5.0, -1.0, 0.5, 4.0, 15.0])
    scale = np.sqrt((nu - 2) / nu)
    found = law.tails(0.03 * z, np.full(len(z), 0.03))
    np.testing.assert_allclose(found.lower, stats.t.cdf(z, nu, scale=scale), rtol=1e-6)
    np.testing.assert_allclose(found.upper, stats.t.sf(z, nu, scale=scale), rtol=1e-6)
    share, pooled = np.array([1e-4, 0.01, 0.1]), law.pooled(np.array([0.02, 0.05]))
    np.testing.assert_allclose(pooled.exceeded(share), stats.t.isf(share, nu, scale=scale), rtol=2e-3)
    np.testing.assert_allclose(pooled.undercut(share), stats.t.ppf(share, nu, scale=scale), rtol=2e-3)


def test_double_exponential_jumps_follow_their_closed_form():
    """One jump: a normal and an exponential add up to SciPy's `exponnorm`; two are less likely than 1e-3."""
    made = calibrated("kou", t_moves(nu=3.0))
    law, jumps = step_laws(made)[0], made.jumps
    assert jumps is not None
    sigma, rate = made.specification.factors[0].volatility, jumps.intensity / made.specification.steps_per_year
    diffusing = np.sqrt(sigma**2 - law.jump_variance)
    size = made.specification.parameters["jumps"]
    beta, scatter = (size.get(k, {}).get("A:spot", 0.0) for k in ("loading", "scatter"))
    mean = rate * beta * (size["up_probability"] / size["up_rate"] - (1 - size["up_probability"]) / size["down_rate"])
    x, s = sigma * np.array([-6.0, -3.0, -1.0, 2.0, 5.0]), np.hypot(diffusing, scatter)
    up, down = (1 / (size[k] * s / beta) for k in ("up_rate", "down_rate"))
    one = size["up_probability"] * stats.exponnorm.cdf(x + mean, up, scale=s) + (
        1 - size["up_probability"]
    ) * stats.exponnorm.sf(-x - mean, down, scale=s)
    expected = np.exp(-rate) * (stats.norm.cdf(x + mean, scale=diffusing) + rate * one)
    two = stats.poisson.sf(1, rate)
    assert two < 1e-3
    found = law.tails(x, np.full(len(x), sigma)).lower
    assert np.all(found > expected - 1e-9) and np.all(found < expected + two + 1e-9)


def test_the_right_law_is_kept_and_the_wrong_one_is_not():
    """Moves of t₄: uniform under t with a p-value that no level rejects, far from it under a normal law."""
    x = t_moves(nu=4.0)
    p = {}
    for model in ("t-multi", "gaussian"):
        made = calibrated(model, x)
        pit = probabilities(made.estimates, step_laws(made))
        p[model] = [tail_uniformity(u) for u in pit.T]
    assert min(p["t-multi"]) > 0.001 and max(p["gaussian"]) < 1e-10


def test_joint_tails_have_their_closed_form():
    """Of model `t`, one ν: the model's share is that of a t copula; a fall of A comes with a rise of what is against
    it."""
    x = t_moves() * np.array([1.0, 1.0, -1.0])
    made = calibrated("t", x)
    found, nu = joint_tails(made), made.estimates.common_degrees_of_freedom
    assert [(p.first, p.second) for p in found] == [(0, 1), (0, 2), (1, 2)]
    for p in found:
        rho = abs(made.estimates.dependence.correlation[p.first, p.second])
        truth = t_joint_tail(rho, nu, share=JOINT_SHARE)
        assert abs(p.fitted - truth) < 4 * np.sqrt(truth * (1 - truth) / (JOINT_SHARE * 65_536))
        assert abs(p.distance) < 4 and p.n_days == len(x)


def check_page(text: str) -> None:
    """Stands alone: no script, nothing from elsewhere, no id twice, no reference to an id that is not there."""
    assert "<script" not in text and not re.search(r"""(src|href)=["'](?!#)""", text) and "url(http" not in text
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', text)) <= set(ids)
    assert not re.search(r">\s*(nan|inf|None|Undefined)\s*<", text)


@pytest.mark.parametrize("model", ["t-garch-jump", "t-garch:riskmetrics", "fhs"])
def test_every_model_has_a_page(model: str):
    x = t_moves(n=400)
    x[:130, 1] = np.nan
    made = calibrated(model, x)
    text = render(made, settings={"model": model, "history": {"file": "<b>.csv"}})
    check_page(text)
    assert "<b>.csv" not in text
    assert text.count("<svg") == (0 if model in DRAWN else 9) and len(text) < 250_000
    assert ("Systemic jumps" in text) == (model == "t-garch-jump")
    assert ("EWMA of decay 0.94" in text) == (model == "t-garch:riskmetrics")
    assert "Gamma with mean 4 and deviation 2 a year" in text or made.jumps is None
    assert ("Implied vols without a history" in text) == (model not in DRAWN)
    assert text == render(made, settings={"model": model, "history": {"file": "<b>.csv"}})


def test_one_factor_that_cannot_be_filtered_has_a_page(monkeypatch: pytest.MonkeyPatch):
    """Nothing to correlate, no GARCH fit: the page says EWMA."""
    made = calibrated("t-garch", t_moves(n=400)[:, :1], NAMES[:1])
    fit = made.estimates.fit
    assert fit is not None
    bare = type(fit)(**{**fit.__dict__, "status": (type(fit.status[0]).NOT_CONVERGED,)})
    e = type(made.estimates)(made.estimates.moves, made.estimates.factors, made.estimates.x, (), bare)
    text = render(calibrate(e, model="t-garch"), settings={})
    check_page(text)
    assert "no fit: EWMA of decay" in text and "Joint tails" not in text


def draws_near(fit: VolatilityFit, spread: float = 0.1) -> VolatilityPosterior:
    """As if sampled: four chains of 100 draws around α = .05, γ = .02, β = .9."""
    rng, shape = np.random.default_rng(1), (len(fit.status), 4, 100)
    at = {"mean": 0.001, "omega": 1e-5, "alpha": 0.05, "gamma": 0.02, "beta": 0.9, "variance": 1e-3}
    parts = {k: v * np.exp(spread * rng.standard_normal(shape)) for k, v in at.items()}
    parts["beta"] = np.minimum(parts["beta"], 0.93)
    course = Course(rng.standard_normal(shape), np.zeros(shape, bool), np.ones(shape, np.int64))
    draws = Draws(**parts, degrees_of_freedom=2 + rng.gamma(9, 0.3, shape))
    return VolatilityPosterior(Volatility.GJR, fit.status, fit.n_obs, 0.01, draws, course)


def test_a_posterior_stands_beside_its_prior():
    """Priors have their own deviation and density, and both sides of an override are told from a pass."""
    made = calibrated("t-garch", t_moves(n=300)[:, :1], NAMES[:1])
    fit = made.estimates.fit
    assert fit is not None
    posterior = draws_near(fit)
    (found,) = marginals(posterior, [0])
    assert [m.name for m in found] == list(priors(posterior.volatility))
    by = {m.name: m for m in found}
    # N(0, 1), ln LogNormal(−4, 1.5), Beta(20, 1): their deviations, from 20,000 draws.
    np.testing.assert_allclose(by["mean"].prior_deviation, 1.0, rtol=0.03)
    np.testing.assert_allclose(by["omega"].prior_deviation, 1.5, rtol=0.03)
    np.testing.assert_allclose(by["persistence"].prior_deviation, stats.beta.std(20, 1), rtol=0.04)
    np.testing.assert_allclose(by["omega"].prior, stats.norm.pdf(by["omega"].grid, -4, 1.5), rtol=1e-10)
    np.testing.assert_allclose(by["falls_share"].prior, stats.beta.pdf(by["falls_share"].grid, 2, 2), rtol=1e-10)
    np.testing.assert_allclose(np.median(by["omega"].draws), np.log(0.1), atol=0.05)
    assert by["mean"].identified and abs(by["mean"].beyond - stats.norm.sf(0.1)) < 0.02
    gates = Gates((Gate(GateName.R_HAT, 1.5, 1.01, "A"), Gate(GateName.BFMI, 0.9, 0.3, "A")))
    text = render(made, settings={}, sampled=Sampled(posterior, gates))
    check_page(text)
    assert text.count("<svg") == 3 + 6 * 3 and len(text) < 350_000
    assert "no model was written" in text and "failed, overridden" not in text
    text = render(made, settings={}, sampled=Sampled(posterior, gates.overridden([GateName.R_HAT])))
    assert "no model was written" not in text and "failed, overridden" in text and ">passed<" in text


def test_real_coins(shared_data: Path):
    """BTC and ETH to November 2022: a normal law is rejected, GARCH-t is not; BTC fell 12 σ on 2020-03-12."""
    from pmvar.calibration.panel import moves as moves_of
    from pmvar.cli.calibrate import _within, read_factors
    from pmvar.io.times import parse_day

    prices = shared_data / "crypto" / "daily_close.csv"
    moves = moves_of(_within(read_factors(prices, None, ["BTC", "ETH"])[0], parse_day("2022-11-01"), "4y"))
    p = {}
    for model in ("gaussian", "t-garch"):
        made = calibrate(estimate(moves, model=model), model=model)
        pit = probabilities(made.estimates, step_laws(made))
        p[model] = [tail_uniformity(u) for u in pit.T]
    assert max(p["gaussian"]) < 1e-4 and min(p["t-garch"]) > 0.01
    text = render(made, settings={})
    check_page(text)
    assert "BTC:spot" in text and "largest fall 12.5" in text
