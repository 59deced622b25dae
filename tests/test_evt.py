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


DANISH = """
11.3748 26.2146 14.1221 11.7130 12.4656 17.5695 13.6208 21.9619 263.2504 19.0703 19.4729 34.1415 20.9699 12.8952 56.2254
10.2228 14.6789 50.0655 10.1780 10.8205 24.9703 11.8906 20.0499 65.7075 27.2626 15.9263 22.2582 10.0111 10.0723 12.6318
13.3482 11.4316 11.1235 11.6230 14.2932 13.6230 18.6465 15.8115 19.1623 18.8482 22.1376 16.3000 46.5000 10.5000 12.2250
14.2390 57.4106 14.3000 13.5000 10.7000 19.4000 12.0540 16.4417 29.0260 12.5362 18.3221 10.2700 17.0685 17.7435 23.2839
11.1317 12.5232 32.4675 29.0371 18.5529 16.8831 27.8293 12.0594 11.5955 16.4153 18.4241 38.1544 27.3381 11.8012 25.2884
10.2041 20.4525 47.0195 24.5785 15.8829 25.9539 10.8252 31.0559 24.5555 42.0914 14.3946 20.8637 14.3946 10.1372 12.8019
16.0881 152.4132 14.0135 12.7011 11.6850 32.3878 10.5843 18.6283 10.9983 12.3762 15.2847 10.1848 13.2013 20.8267 14.8515
144.6576 28.6304 19.2657 17.7393
"""
"""Fire losses above 10 million kroner, Copenhagen Re, 1980–1990: 109 of 2,167."""


def test_danish_fire_losses():
    """McNeil (1997), "Estimating the tails of loss severity distributions using extreme value theory", ASTIN Bulletin
    27: above a threshold of 10, ξ = .50 and β = 6.98; VaR and ES beyond it by their formulae, with those parameters."""
    peaks = np.array(DANISH.split(), dtype=float)
    assert len(peaks) == 109 and peaks.min() > 10
    # Smaller losses count by their number alone.
    found = fit_tail(np.concatenate([peaks, np.full(2_167 - len(peaks), 10.0)]), share=109 / 2_167)
    assert found.status is TailStatus.FITTED and found.threshold == 10.0 and found.n_peaks == 109
    assert found.shape == pytest.approx(0.50, abs=0.005) and found.scale == pytest.approx(6.98, abs=0.005)
    var = 10 + 6.98 / 0.5 * ((2_167 / 109 * 0.01) ** -0.5 - 1)
    assert value_at_risk(found, 0.99)[0] == pytest.approx(var, rel=0.005)
    assert expected_shortfall(found, 0.99)[0] == pytest.approx((var + 6.98 - 0.5 * 10) / 0.5, rel=0.01)
