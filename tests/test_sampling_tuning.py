"""Tuning of importance sampling: what models are given leans where they have something to lean on, and never makes
tails worse."""

from dataclasses import replace

import numpy as np
import pytest

from pmvar.calibration.sampling import PLAIN, _legs, _variance, tune
from pmvar.models import NAMES, build
from pmvar.models.sampling import SHORT, TUNED, SamplingParameters, sampling_parameters, tuned
from pmvar.models.specification import ModelSpecification
from tests.markets import specification

FACTORS = {"A:spot": 0.03, "A:vol": 0.05, "B:spot": 0.04, "B:vol": 0.05, "C:spot": 0.02}
C = np.kron(0.5 + 0.5 * np.eye(3), np.array([[1, -0.4], [-0.4, 1.0]]))[:5, :5]
JUMPS = {"intensity": 3.0, "mean": -0.04, "deviation": 0.02}


def law_named(model: str) -> ModelSpecification:
    """The factors under each law that `model.json` can name."""
    nu = 5.0 if model.startswith("t") else None
    pairs = {k: v for k, v in FACTORS.items() if k[0] != "C"} if model in ("heston", "svcj") else FACTORS
    m = specification(pairs, model=model, degrees_of_freedom=nu, correlation=C[: len(pairs), : len(pairs)])
    filters = {n: {"omega": 0.02 * v**2, "alpha": 0.05, "gamma": 0.06, "beta": 0.9} for n, v in FACTORS.items()}
    variance = {u: {"kappa": 4.0, "theta": 0.4, "vol_of_variance": 0.6, "initial": 0.4} for u in "AB"}
    own = {"mean": -0.04, "deviation": 0.03, "variance_mean": 0.05, "correlation": -0.4}
    parameters = {
        "merton": {"jumps": JUMPS},
        "kou": {"jumps": {"intensity": 3.0, "up_probability": 0.3, "up_rate": 60.0, "down_rate": 30.0}},
        "t-jump": {"jumps": JUMPS},
        "t-garch-jump": {"jumps": JUMPS},
        "heston": {"variance": variance},
        "svcj": {"variance": variance, "jumps": {"intensity": 6.0, "by_underlying": {"A": own, "B": own}}},
    }
    if model in ("fhs", "historical"):
        rng = np.random.default_rng(1)
        heavy = np.sqrt(3 / rng.chisquare(5, (1000, 1)))
        past = rng.standard_normal((1000, 5)) @ np.linalg.cholesky(C).T * heavy * list(FACTORS.values())
        m = replace(m, history=past)
    state = {"filter": filters} if model in ("t-garch", "t-garch-jump", "fhs") else {}
    return replace(m, parameters=parameters.get(model, {}), state=state)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "days"), [*((m, 2.0) for m in NAMES), ("t-garch", 10.0), ("svcj", 10.0), ("fhs", 10.0)]
)
def test_no_model_is_made_worse(model, days):
    """With the parameters that a run uses, the 10th-percentile reference portfolio has no larger a variance than by
    plain Monte Carlo, and the geometric mean is well below."""
    specified = law_named(model)
    law, legs = build(specified, days), list(_legs(specified))
    _, monte_carlo = _variance(law, days, PLAIN, legs, 0.99)
    used, _ = _variance(law, days, tuned(model, days), legs, 0.99)
    ratio = monte_carlo / used
    print(model, days, np.exp(np.mean(np.log(ratio))), np.percentile(ratio, 10))
    assert np.percentile(ratio, 10) >= 1
    assert np.exp(np.mean(np.log(ratio))) >= 1.5


@pytest.mark.slow
@pytest.mark.parametrize("model", ["merton", "svcj"])
def test_leaning_to_jumps_pays(model):
    """Where jumps make the tail: the density of their count alone lowers the geometric mean variance."""
    specified = law_named(model)
    law, legs = build(specified, 2.0), list(_legs(specified))
    found, without = tuned(model, 2.0), replace(tuned(model, 2.0), count_share=1.0)
    assert found.count_share < 1
    with_count, plain = (_variance(law, 2.0, p, legs, 0.99)[0] for p in (found, without))
    print(model, np.exp(np.mean(np.log(plain / with_count))))
    assert np.exp(np.mean(np.log(plain / with_count))) > 1


def test_every_model_has_parameters_for_what_it_can_lean_on():
    """Each leans on something that it has; both horizon classes; model.json comes first."""
    assert set(TUNED) == set(NAMES)
    for model in NAMES:
        at = build(law_named(model), 2.0).coordinates()
        for found in (tuned(model, SHORT), tuned(model, SHORT + 1)):
            assert found.mixing_share == 1 or at.mixing is not None
            assert found.count_share == 1 or at.count is not None
            assert not found.inflation or at.component is not None
            assert found.weight_bound > 1
    said = sampling_parameters({"mixing_share": 0.5}, tuned("t", 2.0))
    assert said == replace(tuned("t", 2.0), mixing_share=0.5)


@pytest.mark.slow
@pytest.mark.parametrize(("model", "gain"), [("t", 3.0), ("gaussian", 1.5)])
def test_what_tuning_buys(model, gain):
    """The variance falls to a part of plain Sobol' points'; the table, made for larger models, gives most of it."""
    specified = law_named(model)
    found = tune(specified, 2.0)
    law, legs = build(specified, 2.0), list(_legs(specified))
    plain, best, used = (_variance(law, 2.0, p, legs, 0.99)[0] for p in (PLAIN, found, tuned(model, 2.0)))
    assert np.exp(np.mean(np.log(plain / best))) >= gain
    assert np.exp(np.mean(np.log(used / best))) <= 2.2
    assert (found.mixing_share == 1.0) == (model == "gaussian") and found.count_share == 1.0


def test_it_is_a_function_of_the_model_alone():
    specified = law_named("t")
    law, legs = build(specified, 2.0), list(_legs(specified))[:8]
    first, second = (_variance(law, 2.0, SamplingParameters(), legs, 0.99)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert np.all(first > 0)
