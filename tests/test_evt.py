"""Peaks over threshold: SciPy's maximum, exact quantiles of known laws inside standard errors, failures as data."""

from typing import Any

import numpy as np
import pytest
from scipy import stats

from pmvar.calibration.evt import TailStatus, expected_shortfall, fit_tail, value_at_risk
from pmvar.errors import UsageError


@pytest.mark.parametrize("shape", [-0.2, 0.0, 0.25, 0.7])
def test_maximum_likelihood_against_scipy(shape):
    """Never a lower likelihood than SciPy's simplex, and the same place."""
    loss = stats.genpareto(shape, scale=2.0).rvs(3000, random_state=np.random.default_rng(1))
    found = fit_tail(loss, share=0.2)
    peaks = np.sort(loss)[-found.n_peaks :] - found.threshold
    assert found.n_peaks == 600 and found.status is TailStatus.FITTED
    theirs_shape, _, theirs_scale = stats.genpareto.fit(peaks, shape, floc=0, scale=2.0)
    ours, theirs = (
        np.sum(stats.genpareto.logpdf(peaks, a, scale=b))
        for a, b in ((found.shape, found.scale), (theirs_shape, theirs_scale))
    )
    assert ours >= theirs - 1e-7
    assert found.shape == pytest.approx(theirs_shape, abs=2e-3)
    assert found.scale == pytest.approx(theirs_scale, rel=2e-3)


def test_standard_errors_are_those_of_theory():
    """Var ξ̂ = (1+ξ)²/n, Var β̂ = 2β²(1+ξ)/n, Cov = −β(1+ξ)/n: McNeil, Frey and Embrechts, section 5.2.2."""
    xi, beta, n = 0.3, 1.5, 20_000
    found = fit_tail(stats.genpareto(xi, scale=beta).rvs(2 * n, random_state=np.random.default_rng(2)), share=0.5)
    at, scale = found.shape, found.scale
    theory = np.array([[(1 + at) ** 2, -scale * (1 + at)], [-scale * (1 + at), 2 * scale**2 * (1 + at)]]) / n
    np.testing.assert_allclose(found.covariance, theory, rtol=0.05)


@pytest.mark.parametrize("nu", [3.0, 5.0])
def test_quantiles_of_student_t(nu):
    """100 samples of 4,000 losses: VaR and ES at 99% and 99.5% centre on the exact ones, with the errors they state.

    The Pareto law holds in the limit alone: its bias at a threshold of 10% is up to a few per cent.
    """
    law: Any = stats.t(nu)
    rng = np.random.default_rng(3)
    tails = [fit_tail(law.rvs(4000, random_state=rng)) for _ in range(100)]
    for level in (0.99, 0.995):
        q = law.ppf(level)
        exact_es = law.pdf(q) * (nu + q * q) / ((nu - 1) * (1 - level))
        for measure, exact in ((value_at_risk, q), (expected_shortfall, exact_es)):
            found, error = np.array([measure(tail, level) for tail in tails]).T
            assert np.median(found) == pytest.approx(exact, rel=0.03)
            assert np.median(error) == pytest.approx(np.subtract(*np.percentile(found, [75, 25])) / 1.349, rel=0.35)


def test_formulae():
    """Against SciPy's quantile and conditional mean of the fitted law."""
    loss = stats.genpareto(0.4, scale=1.0).rvs(5000, random_state=np.random.default_rng(4))
    tail = fit_tail(loss)
    law = stats.genpareto(tail.shape, loc=tail.threshold, scale=tail.scale)
    beyond = 1 - 0.005 / tail.share
    var, es = value_at_risk(tail, 0.995)[0], expected_shortfall(tail, 0.995)[0]
    assert var == pytest.approx(law.ppf(beyond), rel=1e-12)
    assert es == pytest.approx(law.expect(lambda x: x, lb=var, conditional=True, epsabs=1e-10), rel=1e-6)
    assert value_at_risk(tail, 1 - tail.share)[0] == pytest.approx(tail.threshold)


def test_units_do_not_matter():
    loss = stats.t(4).rvs(2000, random_state=np.random.default_rng(5))
    one, other = fit_tail(loss), fit_tail(1e6 * loss)
    assert other.shape == pytest.approx(one.shape, abs=1e-6)
    np.testing.assert_allclose(value_at_risk(other, 0.99), 1e6 * np.array(value_at_risk(one, 0.99)), rtol=1e-4)


def test_failures_are_data():
    """Few peaks, ties alone, a law that ends at a bound; each with its remedy. Wrong calls raise."""
    rng = np.random.default_rng(6)
    few = fit_tail(rng.standard_normal(150))
    assert few.status is TailStatus.TOO_FEW and "lower it" in few.status.message
    assert np.all(np.isnan(value_at_risk(few, 0.99)))
    assert fit_tail(np.ones(1000)).status is TailStatus.TOO_FEW
    assert fit_tail(1 - rng.random(2000) ** 4).status is TailStatus.NOT_REGULAR
    with pytest.raises(UsageError, match="begins at level 0.9"):
        value_at_risk(fit_tail(rng.standard_normal(1000)), 0.5)
    with pytest.raises(UsageError, match="finite losses"):
        fit_tail(np.array([1.0, np.nan]))
