"""Volatility filters: forecasts in closed form, the recursion against a plain loop, with jumps and without."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pmvar.errors import InputError, UsageError
from pmvar.models import build
from pmvar.models.composed import LEAST_DIFFUSION
from pmvar.models.specification import ModelSpecification
from tests.laws import N, assert_mean, normals, total, walk
from tests.markets import specification

SIGMA = {"A:spot": 0.03, "B:spot": 0.05}
GARCH = {"omega": 4e-5, "alpha": 0.1, "beta": 0.85, "variance": 4e-4}
GJR = {"omega": 2e-5, "alpha": 0.02, "gamma": 0.16, "beta": 0.88, "variance": 2e-3}
EWMA: dict[str, Any] = {"ewma": True}
STEPS = 8


def filtered(
    model: str = "gaussian", *, nu: float | None = None, rho: float = 0.0, jumps: Any = None, **filters: Any
) -> ModelSpecification:
    """A specification under filters of the factors A and B."""
    law = specification(SIGMA, model=model, degrees_of_freedom=nu, correlation=np.array([[1, rho], [rho, 1]]))
    state = {"filter": {f"{name}:spot": given for name, given in filters.items()}}
    return replace(law, state=state, parameters={"jumps": jumps} if jumps else {})


def forecast(given: dict[str, float], steps: int) -> np.ndarray:
    """E σ²_{t+k}, k = 0 … steps − 1: ω·(1 + p + … + p^{k−1}) + p^k·σ²_t, p = α + γ/2 + β."""
    p, out = given["alpha"] + given.get("gamma", 0.0) / 2 + given["beta"], [given["variance"]]
    for _ in range(steps - 1):
        out.append(given["omega"] + p * out[-1])
    return np.array(out)


@pytest.mark.parametrize(("model", "nu"), [("gaussian", None), ("t-garch", 9.0)])
def test_variance_forecasts(model, nu):
    """E x²_k and E σ²_k of each step inside four standard errors: GARCH beside GJR, then EWMA."""
    ewma = {"omega": 0.0, "alpha": 0.03, "beta": 0.97, "variance": 0.03**2}
    for a, b, plain in ((GARCH, GJR, (GARCH, GJR)), (EWMA, {}, (ewma, None))):
        law = build(filtered(model, nu=nu, rho=0.5, A=a, B=b))
        path = walk(law, normals(law, steps=STEPS), steps=STEPS)
        for i, given in enumerate(plain):
            expected = np.full(STEPS, 0.05**2) if given is None else forecast(given, STEPS)
            assert_mean(path.diffusion[:, :, i] ** 2, expected)
            # The mixing variable is in the conditional deviation, independent of the variance of its step.
            assert_mean(path.deviation[:, :, i] ** 2, expected)
    assert forecast(GARCH, STEPS)[-1] > 1.2 * GARCH["variance"], "the forecast moves, or the test says nothing"


def test_the_recursion_path_by_path():
    """A plain loop over the simulated steps gives every deviation of 500 paths."""
    law = build(filtered(A=GARCH, B=GJR))
    path = walk(law, normals(law, steps=STEPS, n=500), steps=STEPS)
    for i, given in enumerate((GARCH | {"gamma": 0.0}, GJR)):
        for x, deviation in zip(path.diffusion[:, :, i], path.deviation[:, :, i], strict=True):
            variance = given["variance"]
            for k in range(STEPS):
                assert deviation[k] ** 2 == pytest.approx(variance, rel=1e-12)
                lean = given["alpha"] + (given["gamma"] if x[k] < 0 else 0.0)
                variance = given["omega"] + lean * x[k] ** 2 + given["beta"] * variance


def test_falls_raise_volatility_more_than_rises():
    """Paths of opposite first steps: the next variance differs by γ·x², and not at all without γ."""
    law = build(filtered(A=GJR, B=GARCH))
    z = np.abs(normals(law, steps=2, n=200))
    fall, rise = (walk(law, s * z, steps=2) for s in (-1, 1))
    np.testing.assert_array_equal(fall.diffusion[:, 0], -rise.diffusion[:, 0])
    gap = fall.deviation[:, 1] ** 2 - rise.deviation[:, 1] ** 2
    np.testing.assert_allclose(gap[:, 0], GJR["gamma"] * fall.diffusion[:, 0, 0] ** 2, rtol=1e-9)
    np.testing.assert_allclose(gap[:, 1], 0, atol=1e-18)


def test_a_filter_that_stands_still_is_none():
    """ω = σ², α = β = 0, and a factor that is not listed: h steps have the law of one step of h times the variance."""
    still = {"omega": 0.03**2, "alpha": 0.0, "beta": 0.0}
    x = total(build(filtered(rho=0.6, A=still)), steps=5)
    for column, sigma in zip(x.T, SIGMA.values(), strict=True):
        assert stats.kstest(column / sigma / np.sqrt(5), stats.norm.cdf).pvalue > 1e-3
    assert_mean(x[:, 0] * x[:, 1], 5 * 0.6 * 0.03 * 0.05)
    one, none = build(filtered("t-garch", nu=4.0, A=still)), build(filtered("t-multi", nu=4.0))
    z = normals(one, n=256)
    for a, b in zip(walk(one, z), walk(none, z), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-15)


def test_the_first_step_has_todays_variance():
    """`variance` is that of the next step; the factor's volatility, where it is not given."""
    without = {key: value for key, value in GARCH.items() if key != "variance"}
    law = build(filtered(A=GARCH, B=without))
    path = walk(law, normals(law, n=8))
    np.testing.assert_allclose(path.deviation[:, 0] ** 2, np.broadcast_to([4e-4, 0.05**2], (8, 2)), rtol=1e-14)


# ---- with jumps ----------------------------------------------------------------------------------------------------

JUMPS = {"intensity": 60.0, "mean": -0.02, "deviation": 0.02}


@pytest.mark.parametrize(
    ("jumps", "first", "second"),
    [
        (JUMPS, -0.02, 8e-4),
        ({"intensity": 60.0, "up_probability": 0.4, "up_rate": 60.0, "down_rate": 50.0}, 0.4 / 60 - 0.6 / 50,
         0.8 / 60**2 + 1.2 / 50**2),
    ],
)  # fmt: skip
def test_jumps_are_part_of_the_forecast(jumps, first, second):
    """t-garch-jump: each step's variance is the filter's, jumps included, and jumps feed the next day's variance less
    their mean; path by path against a loop."""
    given = GARCH | {"variance": 6e-4}
    law = build(filtered("t-garch-jump", nu=10.0, jumps=jumps, A=given))
    path = walk(law, normals(law, steps=STEPS), steps=STEPS)
    rate = 60.0 / 365
    surprise = (path.diffusion + path.jump)[:, :, 0] - rate * first
    # The variance of jumps stays below what the filter can fall to, or the floor would add to the forecast.
    assert rate * second < forecast(given | {"alpha": 0.0}, STEPS)[-1]
    assert_mean(surprise, 0.0)
    assert_mean(surprise**2, forecast(given, STEPS))
    assert_mean(path.count[:, 0], rate * STEPS)
    variance = np.full(N, given["variance"])
    for k in range(STEPS):
        assert_mean(path.deviation[:, k, 0] ** 2 / (variance - rate * second), 1.0)
        variance = given["omega"] + given["alpha"] * surprise[:, k] ** 2 + given["beta"] * variance


def test_a_quiet_day_still_diffuses():
    """Where the filtered variance falls below that of the jumps, a hundredth of it diffuses."""
    law = build(filtered("t-garch-jump", jumps=JUMPS, A=GARCH | {"variance": 1e-5}))
    path = walk(law, normals(law, n=64))
    np.testing.assert_allclose(path.deviation[:, 0, 0] ** 2, LEAST_DIFFUSION * 1e-5, rtol=1e-12)


# ---- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "rule"),
    [
        ({"C:spot": GARCH}, "for factors of the model"),
        ([GARCH], "for factors of the model"),
        ({"A:spot": 0.9}, "a filter has omega, alpha, gamma, beta, variance or ewma"),
        ({"A:spot": GARCH | {"delta": 1.0}}, "a filter has omega"),
        ({"A:spot": {"variance": 1e-4}}, "a filter needs omega, alpha and beta, or ewma"),
        ({"A:spot": {"ewma": False}}, "a filter needs omega, alpha and beta, or ewma"),
        ({"A:spot": GARCH | {"alpha": "0.1"}}, "must be a finite number"),
        ({"A:spot": GARCH | {"alpha": True}}, "must be a finite number"),
        ({"A:spot": GARCH | {"omega": np.nan}}, "must be a finite number"),
        ({"A:spot": GARCH | {"omega": -1e-9}}, "beta ≥ 0"),
        ({"A:spot": GARCH | {"alpha": -0.1}}, "beta ≥ 0"),
        ({"A:spot": GARCH | {"gamma": -0.2}}, r"alpha \+ gamma, beta ≥ 0"),
        ({"A:spot": GARCH | {"beta": 0.96}}, r"alpha \+ gamma/2 \+ beta ≤ 1"),
        ({"A:spot": GARCH | {"variance": 0.0}}, "variance > 0"),
        ({"A:spot": EWMA | {"alpha": 0.2}}, r"alpha \+ gamma/2 \+ beta ≤ 1"),
    ],
)
def test_a_bad_filter_names_the_rule(given, rule):
    with pytest.raises(InputError, match=rule):
        build(replace(specification(SIGMA), state={"filter": given}))


def test_models_that_need_a_filter_and_horizons_of_part_of_a_day():
    for name in ("t-garch", "t-garch-jump", "fhs"):
        with pytest.raises(InputError, match=f"model {name} needs state.filter"):
            build(specification(SIGMA, model=name))
    with pytest.raises(InputError, match="model gaussian has no state but filter"):
        build(replace(specification(SIGMA), state={"filters": {}}))
    assert build(filtered(A=GARCH)).n_steps(3.0) == 3
    with pytest.raises(UsageError, match=r"walks whole days; the horizon is 1\.5 days"):
        build(filtered(A=GARCH)).n_steps(1.5)
