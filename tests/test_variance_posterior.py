"""Stochastic variance from returns: a particle filter, known parameters found again, and models that a run takes."""

import json
from functools import lru_cache
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special, stats

from pmvar.calibration import variance_posterior
from pmvar.calibration.calibrate import estimate
from pmvar.calibration.panel import Moves
from pmvar.calibration.variance_likelihood import Law, seen
from pmvar.calibration.variance_model import VarianceCalibration, calibrate_variances, yearly
from pmvar.calibration.variance_posterior import Sampler, VariancePosterior, law_of, sample_variance
from pmvar.errors import UsageError
from pmvar.io.model_file import model_json, read_model
from pmvar.io.problems import Problems
from pmvar.io.source import Source
from pmvar.models import build
from pmvar.types import DAY
from tests.test_cli import Cli, cli
from tests.test_rolling_backtest import write_panel

__all__ = ["cli"]

SHORT = Sampler(warmup=40, draws=60)
HESTON = {"mean": 0.03, "kappa": 0.08, "theta": 0.9, "vol_of_variance_squared": 0.04, "rho": -0.6}
# Eraker, Johannes and Polson (2003), table III, SVCJ of the S&P 500, but for jumps ten times as frequent.
SVCJ = {
    "mean": 0.055, "kappa": 0.026, "theta": 0.54, "vol_of_variance_squared": 0.0062, "rho": -0.48,
    "jump_probability": 0.066, "price_jump_mean": -1.75, "price_jump_variance": 8.3, "variance_jump_mean": 1.48,
    "jump_correlation": -0.6,
}  # fmt: skip


def law(at: dict[str, float]) -> Law:
    return law_of({name: jnp.asarray(value) for name, value in at.items()})


def simulated(at: dict[str, float], n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns, and the variance of each day and of the day after, by Euler steps of v itself, 20 a day."""
    rng = np.random.default_rng(seed)
    v, returns, variances = at["theta"], [], [at["theta"]]
    parts, xi, rho = 20, np.sqrt(at["vol_of_variance_squared"]), at["rho"]
    for _ in range(n):
        r = at["mean"]
        for price, own in rng.standard_normal((parts, 2)):
            deviation = np.sqrt(v / parts)
            r += deviation * price
            noise = xi * deviation * (rho * price + np.sqrt(1 - rho**2) * own)
            v = max(v + at["kappa"] / parts * (at["theta"] - v) + noise, 1e-6)
        if rng.random() < at.get("jump_probability", 0.0):
            jump = rng.exponential(at["variance_jump_mean"])
            mean = at["price_jump_mean"] + at["jump_correlation"] * jump
            v, r = v + jump, r + rng.normal(mean, np.sqrt(at["price_jump_variance"]))
        returns.append(r)
        variances.append(v)
    return np.array(returns), np.array(variances)


def by_particles(at: dict[str, float], y: np.ndarray, n: int, seed: int) -> tuple[float, float]:
    """ln likelihood and tomorrow's variance by a bootstrap filter: the law as its definition has it, no grid."""
    rng = np.random.default_rng(seed)
    v = np.exp(rng.standard_normal(n))
    xi, rho, total = np.sqrt(at["vol_of_variance_squared"]), at["rho"], 0.0
    for r in y - at["mean"]:
        expected = v + at["kappa"] * (at["theta"] - v)
        reached = np.sqrt(np.maximum(expected - xi**2 / 4, xi**2 / 16))
        noise = rho * r / np.sqrt(v) + np.sqrt(1 - rho**2) * rng.standard_normal(n)
        after, weight = (reached + xi / 2 * noise) ** 2, stats.norm.pdf(r, 0, np.sqrt(v))
        if "jump_probability" in at:
            jumps = rng.random(n) < at["jump_probability"]
            size = rng.exponential(at["variance_jump_mean"], n)
            mean = at["price_jump_mean"] + at["jump_correlation"] * size
            after = np.where(jumps, expected + size, after)
            weight = np.where(jumps, stats.norm.pdf(r, mean, np.sqrt(v + at["price_jump_variance"])), weight)
        total += np.log(weight.mean())
        v = rng.choice(after, n, p=weight / weight.sum())
    return total, v.mean()


@pytest.mark.parametrize("at", [HESTON, SVCJ], ids=["heston", "svcj"])
def test_the_filter_is_that_of_particles(at: dict[str, float]):
    """Likelihood and today's variance within four standard errors of eight particle filters."""
    y, _ = simulated(at, 40, seed=1)
    y[20] = -7.0
    found = seen(law(at), jnp.asarray(y), jnp.asarray(6.0), n_cells=256)
    runs = np.array([by_particles(at, y, 20_000, seed) for seed in range(8)])
    variance = found.weight[-1] @ ((np.arange(256) + 0.5) * 6 / 256) ** 2
    error = runs.std(axis=0, ddof=1) / np.sqrt(8)
    assert abs(float(found.log_density.sum()) - runs[:, 0].mean()) < 4 * error[0]
    assert abs(float(variance) - runs[:, 1].mean()) < 4 * error[1]
    assert np.all(error < [0.05, 0.05])


@pytest.mark.parametrize(("narrow", "n_cells"), [(1.0, 128), (0.01, 48)])
def test_densities_hold_all_probability(narrow: float, n_cells: int):
    """A day's density integrates to 1, also where the noise of the variance is far below a cell."""
    own = law(SVCJ | {"vol_of_variance_squared": narrow * SVCJ["vol_of_variance_squared"]})
    grid = np.linspace(-18, 18, 300)
    pairs = jnp.asarray(np.column_stack([np.full(300, 0.3), grid]))
    log_density = jax.vmap(lambda y: seen(own, y, jnp.asarray(6.0), n_cells=n_cells).log_density[1])(pairs)
    np.testing.assert_allclose(np.trapezoid(np.exp(log_density), grid), 1.0, atol=2e-3)


def test_known_parameters_are_found_again():
    """Heston: each parameter and today's variance within three posterior deviations; the data narrow most of them."""
    y, v = simulated(HESTON, 400, seed=3)
    found = sample_variance(y, model="heston", seed=1, sampler=SHORT)
    unit2 = found.unit**2
    truth = {
        "mean": HESTON["mean"] / found.unit,
        "kappa": HESTON["kappa"],
        "theta": HESTON["theta"] / unit2,
        "vol_of_variance_squared": HESTON["vol_of_variance_squared"] / unit2,
        "rho": HESTON["rho"],
    }
    for name, value in truth.items():
        assert abs(found.mean[name] - value) < 3 * found.deviation[name], name
    assert found.acceptance > 0.2
    assert found.deviation["rho"] < 0.35
    # A filter of a walk of daily deviation s = ξ/√v, each return telling ln v with information ½, has variance s/√½.
    error = np.sqrt(np.sqrt(2 * HESTON["vol_of_variance_squared"] / v[-1]))
    assert abs(np.log(found.mean["variance"] * unit2 / v[-1])) < 3 * error


NAMES = ("A:spot", "B:spot", "A:vol")


@lru_cache(maxsize=1)
def moves() -> Moves:
    """Two prices of one law and common noise, and a history of vols."""
    first, _ = simulated(SVCJ, 260, seed=5)
    second = 0.7 * first + 0.5 * simulated(SVCJ, 260, seed=6)[0]
    x = np.column_stack([0.01 * first, 0.03 * second, 0.01 * second])
    ratio = np.where((x > 0) & (np.arange(3) < 2), 1 + x, np.exp(x))
    return Moves(DAY * np.arange(1.0, 261), NAMES, ratio, 365)


@lru_cache(maxsize=1)
def made() -> VarianceCalibration:
    """Too few draws for any gate."""
    return calibrate_variances(moves(), model="svcj", seed=1, sampler=Sampler(warmup=20, draws=20))


def test_a_model_that_a_run_takes(tmp_path: Path):
    """It is written, read again and built; prices depend as their residuals do, and variances on their own prices."""
    s = made().specification
    assert s.factor_names == ("A:spot", "B:spot", "A:vol", "B:vol")
    build(s, 2.0)
    problems = Problems()
    back = read_model(model_json(s).encode(), source=Source(tmp_path), problems=problems)
    problems.raise_any()
    assert back is not None and json.loads(model_json(back)) == json.loads(model_json(s))
    np.testing.assert_allclose(s.correlation[:2, :2], made().dependence.correlation)
    for i, asset in enumerate("AB"):
        assert s.correlation[i, i + 2] == pytest.approx(made().posteriors[asset].mean["rho"])
    assert np.linalg.eigvalsh(s.correlation).min() > 0
    assert 0.5 < s.correlation[0, 1] < 0.95
    assert any("A:vol: its history is not used" in n for n in made().notes)
    assert any("informative priors" in n for n in made().notes)
    assert any("from the prior as much" in n for n in made().notes)
    assert {"r-hat", "bulk-ess", "tail-ess", "tail-pit"} == {str(g.name) for g in made().gates.gates}


def test_jumps_of_all_at_once_keep_their_variance():
    """λ·μ_v and λ·E[J_s²] of each underlying are those of its own posterior, under the common λ."""
    jumps = made().specification.parameters["jumps"]

    def moments(intensity: float, j: dict[str, float]) -> tuple[float, float]:
        rho, size = j["correlation"], j["variance_mean"]
        mean = j["mean"] + rho * size
        return intensity * size, intensity * (mean**2 + rho**2 * size**2 + j["deviation"] ** 2)

    own = {a: yearly(p, 365)["jumps"] for a, p in made().posteriors.items()}
    assert jumps["intensity"] == pytest.approx(np.mean([j["intensity"] for j in own.values()]))
    for asset, j in own.items():
        expected = moments(j["intensity"], j)
        assert moments(jumps["intensity"], jumps["by_underlying"][asset]) == pytest.approx(expected)


def test_a_year_is_as_the_day_was():
    """Units: a law of 1% a day, whose every number is known."""
    ones = {name: np.full((1, 2), value) for name, value in (SVCJ | {"variance": 2.0}).items()}
    row = yearly(VariancePosterior(0.01, ones, 1.0, 4.0, 64), 252)
    kappa = -np.log(1 - 0.026)
    assert row["kappa"] == pytest.approx(252 * kappa)
    assert row["theta"] == pytest.approx(252 * 0.54e-4) and row["initial"] == pytest.approx(252 * 2e-4)
    # Variance of v after a day at θ: ξ²θ(1 − e^(−2κt))/(2κ), Cox, Ingersoll and Ross (1985), equation 19.
    k, t = row["kappa"], 1 / 252
    daily = row["vol_of_variance"] ** 2 * row["theta"] * -special.expm1(-2 * k * t) / (2 * k)
    assert daily == pytest.approx(252**2 * 0.0062e-4 * 0.54e-4)
    j = row["jumps"]
    assert j["intensity"] == pytest.approx(0.066 * 252) and j["mean"] == pytest.approx(-0.0175)
    assert j["deviation"] == pytest.approx(0.01 * 8.3**0.5) and j["variance_mean"] == pytest.approx(252 * 1.48e-4)
    assert j["correlation"] * j["variance_mean"] == pytest.approx(-0.6 * 1.48 * 0.01)


def test_refusals():
    with pytest.raises(UsageError, match="minutes"):
        estimate(moves(), model="svcj")
    with pytest.raises(UsageError, match="calibrate fits it"):
        calibrate_variances(moves(), model="t", seed=1)


def test_the_command(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Too few draws fail the gates, and nothing is written; overridden, a model is, with its verdicts."""
    monkeypatch.setattr(variance_posterior, "SAMPLER", Sampler(warmup=20, draws=20))
    x = np.append(0.0, 0.01 * simulated(HESTON, 400, seed=3)[0])
    price = 100 * np.cumprod(np.where(x > 0, 1 + x, np.exp(x)))
    history, out = write_panel(tmp_path / "prices.csv", 401, price[:, None], ("A",)), tmp_path / "model.json"
    refused = cli("calibrate", history, "--model", "heston", "--out", out)
    assert refused.code == 4 and "--override bulk-ess" in refused.err and not out.exists()
    gates = [part for name in ("r-hat", "bulk-ess", "tail-ess", "tail-pit") for part in ("--override", name)]
    done = cli("calibrate", history, "--model", "heston", "--out", out, *gates)
    assert done.code == 0, done.err
    assert "model heston of 2 factors" in done.out and "σ today" in done.out
    written = json.loads(out.read_text())
    assert written["gates"]["bulk-ess"]["passed"] is False and "bulk-ess" in written["overrides"]
    assert set(written["parameters"]["variance"]["A"]) == {"kappa", "theta", "vol_of_variance", "initial"}
