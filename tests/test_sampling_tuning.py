"""Tuning of importance sampling: it leans where a model has something to lean on, and never makes tails worse."""

import numpy as np
import pytest

from pmvar.calibration.sampling import PLAIN, _legs, _variance, tune
from pmvar.models import build
from pmvar.models.sampling import SamplingParameters
from tests.markets import specification

FACTORS = {"A:spot": 0.03, "A:vol": 0.05, "B:spot": 0.04, "B:vol": 0.05, "C:spot": 0.02}
C = np.kron(0.5 + 0.5 * np.eye(3), np.array([[1, -0.4], [-0.4, 1.0]]))[:5, :5]


@pytest.mark.slow
@pytest.mark.parametrize(("model", "nu", "gain"), [("t", 4.0, 3.0), ("gaussian", None, 1.0)])
def test_what_tuning_buys(model, nu, gain):
    """Under a t the variance falls to a third of plain Sobol' points' or better; the law has the last word on what
    may be leaned on; the 10th percentile is no worse; the defaults are near the best."""
    specified = specification(FACTORS, model=model, degrees_of_freedom=nu, correlation=C)
    found = tune(specified, 2.0)
    law, legs = build(specified, 2.0), list(_legs(specified))
    plain, best, default = (_variance(law, 2.0, p, legs, 0.99) for p in (PLAIN, found, SamplingParameters()))
    monte_carlo, (plain, best, default) = plain[1], (v[0] for v in (plain, best, default))
    assert np.exp(np.mean(np.log(plain / best))) >= gain
    assert np.percentile(monte_carlo / best, 10) >= 1
    print(found, *(np.exp(np.mean(np.log(monte_carlo / v))) for v in (plain, best, default)))
    assert np.exp(np.mean(np.log(default / best))) <= 1.6
    assert found.count_share == 1.0 and (found.mixing_share == 1.0) == (nu is None)


def test_it_is_a_function_of_the_model_alone():
    specified = specification(FACTORS, model="t", degrees_of_freedom=5.0, correlation=C)
    law, legs = build(specified, 2.0), list(_legs(specified))[:8]
    first, second = (_variance(law, 2.0, SamplingParameters(), legs, 0.99)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.all(first > 0)
