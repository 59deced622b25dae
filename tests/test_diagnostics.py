"""Gates of a posterior: each fails on the fault it is there for, and on nothing else."""

import json
from dataclasses import replace

import numpy as np
import pytest

from pmvar.calibration.diagnostics import Gate, GateName, Gates, gates, inference_data, judge, tail_uniformity
from pmvar.calibration.garch import FitStatus
from pmvar.calibration.posterior import Course, Draws, VolatilityPosterior
from pmvar.calibration.volatility_likelihood import Volatility
from pmvar.errors import QualityGate, UsageError

CHAINS, DRAWS, DAYS = 4, 500, 400


def sound() -> dict:
    """What a healthy sampler of a right law gives."""
    rng = np.random.default_rng(1)
    x = rng.standard_normal((CHAINS, DRAWS))
    y = rng.standard_normal(DAYS)
    return {
        "draws": {"location": x, "still": np.zeros_like(x)},
        "energy": rng.standard_normal((CHAINS, DRAWS)),
        "diverging": np.zeros((CHAINS, DRAWS), bool),
        # Posterior of a normal's mean: of deviation 1/√DAYS.
        "log_likelihood": -0.5 * (y - x[..., None] / np.sqrt(DAYS)) ** 2,
        "pit": (np.arange(DAYS) + 0.5) / DAYS,
    }


def failed(case: dict) -> set[GateName]:
    """The gates that a case fails."""
    case = dict(case)
    return {g.name for g in judge("A", case.pop("draws"), **case) if not g.passed}


def faults() -> dict[str, tuple[dict, set[GateName]]]:
    """One fault a case, and the gates it must fail."""
    good, rng = sound(), np.random.default_rng(2)
    x = good["draws"]["location"]
    apart = x + np.array([[0.0], [0.0], [0.0], [0.3]])
    slow = np.empty((CHAINS, DRAWS))
    slow[:, 0] = rng.standard_normal(CHAINS)
    for i in range(1, DRAWS):
        slow[:, i] = 0.9 * slow[:, i - 1] + np.sqrt(1 - 0.9**2) * rng.standard_normal(CHAINS)
    lost = np.where(np.arange(DRAWS)[None] == 7, np.nan, x)
    outlier = good["log_likelihood"].copy()
    outlier[..., 3] = -0.5 * (60.0 - 4 * x / np.sqrt(DAYS) * 10) ** 2
    once = good["diverging"].copy()
    once[2, 3] = True
    ess, chain = {GateName.BULK_ESS, GateName.TAIL_ESS}, {GateName.R_HAT, GateName.BULK_ESS, GateName.TAIL_ESS}
    return {
        "none": (good, set()),
        "chains apart": (good | {"draws": {"location": apart}}, {GateName.R_HAT}),
        "slow": (good | {"draws": {"location": slow}}, chain),
        "not a number": (good | {"draws": {"location": lost}}, chain),
        "few": (
            {k: v[:, :60] for k, v in good.items() if k not in ("draws", "pit")}
            | {
                "draws": {"location": x[:, :60]},
                "pit": good["pit"],
            },
            ess,
        ),
        "a divergence": (good | {"diverging": once}, {GateName.DIVERGENCES}),
        "slow energy": (good | {"energy": np.cumsum(good["energy"], axis=1)}, {GateName.BFMI}),
        "an outlier": (good | {"log_likelihood": outlier}, {GateName.PARETO_K}),
        "thin tails": (good | {"pit": good["pit"] ** 1.5}, {GateName.TAIL_PIT}),
        "no pit": (good | {"pit": np.full(DAYS, np.nan)}, {GateName.TAIL_PIT}),
    }


@pytest.mark.parametrize("name", faults())
def test_each_fault_fails_its_gate(name):
    case, expected = faults()[name]
    found = failed(case)
    # Chains that are apart have few independent draws too.
    assert (
        expected
        <= found
        <= expected
        | ({GateName.BULK_ESS} if name == "chains apart" else set())
        | ({GateName.R_HAT} if name == "few" else set())
    )


def test_figures():
    """The information in energy by its formula; ArviZ's data by group; a p-value's law under uniformity."""
    case = sound()
    values = {g.name: g.value for g in judge("A", case.pop("draws"), **case)}
    energy = case["energy"]
    expected = np.min(np.mean(np.diff(energy, axis=1) ** 2, axis=1) / np.var(energy, axis=1))
    assert values[GateName.BFMI] == pytest.approx(expected, rel=5e-3)
    assert inference_data({"posterior": {"x": energy}}).posterior["x"].shape == (CHAINS, DRAWS)
    rng = np.random.default_rng(3)
    p = [tail_uniformity(rng.random(DAYS)) for _ in range(2000)]
    assert abs(np.mean(np.array(p) < 0.05) - 0.05) < 4 * np.sqrt(0.05 * 0.95 / 2000) + 0.01


def verdicts() -> Gates:
    """One gate passed, two failed, one of them by not being a number."""
    return Gates(
        (
            Gate(GateName.R_HAT, 1.002, 1.01, "A, omega"),
            Gate(GateName.BULK_ESS, np.nan, 400.0, "A, beta"),
            Gate(GateName.TAIL_PIT, 0.002, 0.01, "B, p-value"),
        )
    )


def test_a_failed_gate_refuses_publication():
    """With what to do; overridden by name it lets pass, and the model file says so."""
    with pytest.raises(QualityGate, match="not published") as refused:
        verdicts().require()
    text = str(refused.value)
    assert "bulk-ess nan < 400 (A, beta): too few independent draws: sample longer" in text
    assert "tail-pit 0.002 < 0.01 (B, p-value): the law misses the tail" in text and "r-hat" not in text
    assert text.endswith("--override bulk-ess --override tail-pit")
    with pytest.raises(QualityGate, match="tail-pit"):
        verdicts().overridden(["bulk-ess"]).require()
    taken = verdicts().overridden(["bulk-ess", "tail-pit"])
    taken.require()
    document = json.loads(json.dumps(taken.document(), allow_nan=False))
    assert document["overrides"] == ["bulk-ess", "tail-pit"]
    assert document["gates"]["bulk-ess"] == {"value": None, "bound": 400.0, "passed": False, "at": "A, beta"}
    assert document["gates"]["r-hat"]["passed"] is True
    with pytest.raises(UsageError, match="there is no gate 'rhat'; the gates are r-hat"):
        verdicts().overridden(["rhat"])


def test_the_worst_of_all_assets():
    """Verdicts on a panel: exact draws of a law that made the returns, of one asset with a chain apart, and of none."""
    rng, shape = np.random.default_rng(4), (3, CHAINS, DRAWS)
    returns = 0.01 * rng.standard_normal((DAYS, 3))
    mean = 0.01 * rng.standard_normal(shape) / np.sqrt(DAYS)
    mean[1, 0] += 0.01
    flat = np.ones(shape)
    draws = Draws(mean, 1e-4 * flat, 0 * flat, 0 * flat, 0 * flat, 1e6 * flat, 1e-4 * flat)
    course = Course(rng.standard_normal(shape), np.zeros(shape, bool), np.ones(shape, np.int64))
    status = (FitStatus.FITTED, FitStatus.FITTED, FitStatus.TOO_SHORT)
    made = VolatilityPosterior(Volatility.GARCH, status, np.full(3, DAYS), 0.01, draws, course)
    found = gates(made, returns, names=["A", "B", "C"])
    assert [g.name for g in found.gates] == list(GateName)
    by_name = {g.name: g for g in found.gates}
    assert by_name[GateName.R_HAT].at == "B, mean" and not by_name[GateName.R_HAT].passed
    assert by_name[GateName.TAIL_PIT].bound == 0.005 and by_name[GateName.DIVERGENCES].passed
    only = replace(made, status=(FitStatus.FITTED, FitStatus.STILL, FitStatus.TOO_SHORT))
    assert not gates(only, returns, names=["A", "B", "C"]).failed
    with pytest.raises(UsageError, match="no asset has a posterior"):
        gates(replace(made, status=(FitStatus.STILL,) * 3), returns, names=["A", "B", "C"])
