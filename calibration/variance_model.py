"""From moves to Heston's or SVCJ's model: each asset's variance from its own returns, the rest from their residuals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import special

from pmvar.calibration.assumed import TERM_EXPONENT, VOL_TENOR
from pmvar.calibration.calibrate import CALIBRATED, SAMPLED, screened
from pmvar.calibration.dependence import Dependence, rank_correlation
from pmvar.calibration.diagnostics import PIT_LEVEL, Gate, Gates, mixing, tail_fit, worst
from pmvar.calibration.panel import Moves
from pmvar.calibration.variance_likelihood import cells, seen
from pmvar.calibration.variance_posterior import SAMPLER, Sampler, VariancePosterior, law_of, priors, sample_variance
from pmvar.errors import InputError, Problem, UsageError
from pmvar.models.factor_points import is_level
from pmvar.models.specification import Factor, ModelSpecification
from pmvar.types import FactorKind, factor_name

IDENTIFIED = 2 / 3
"""Of a prior's standard deviation: what data left wider says as much about the prior as about the data."""
JUMP_SIZES = 16
"""Equal classes of J_v over which a distribution function is averaged."""


@dataclass(frozen=True)
class VarianceCalibration:
    """A model, and what it was made from."""

    specification: ModelSpecification
    posteriors: Mapping[str, VariancePosterior]
    """By underlying."""
    dependence: Dependence
    gates: Gates
    notes: tuple[str, ...]


def calibrate_variances(
    moves: Moves,
    *,
    model: str,
    seed: int,
    sampler: Sampler = SAMPLER,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> VarianceCalibration:
    """The specification of `model`, heston or svcj, by posterior means of each asset's parameters.

    Histories of vols are not used: a vol moves as the variance of its price does. All underlyings of the model jump at
    once: their common intensity is the mean of their own, and sizes are scaled so that the variance from jumps of price
    and the mean of those of variance stay. `progress` is called with assets done and all. Raises UsageError for another
    model, InputError where no price can be fitted.
    """
    if model not in SAMPLED:
        raise UsageError(f"model {model} has no variance to sample; calibrate fits it")
    x, names, excluded = screened(moves, model=model)
    spot = [i for i, name in enumerate(names) if name.endswith(f":{FactorKind.SPOT}")]
    if not spot:
        raise InputError(Problem("no price can be fitted", "supply a history of prices", file="history"))
    assets = [names[i].rpartition(":")[0] for i in spot]
    posteriors: dict[str, VariancePosterior] = {}
    residual, judged = np.full((len(x), len(spot)), np.nan), list[Gate]()
    for j, (asset, i) in enumerate(zip(assets, spot, strict=True)):
        there = ~np.isnan(x[:, i])
        posteriors[asset] = p = sample_variance(x[there, i], model=model, seed=[seed, j], sampler=sampler)
        residual[there, j], pit = _against_law(p, x[there, i])
        judged += [*mixing(asset, p.draws), tail_fit(asset, pit, level=PIT_LEVEL / len(spot))]
        progress(j + 1, len(spot))
    dependence = rank_correlation(residual)
    per_year = moves.steps_per_year
    rows = {asset: yearly(p, per_year) for asset, p in posteriors.items()}
    parameters: dict[str, Any] = {
        "variance": {a: {k: r[k] for k in ("kappa", "theta", "vol_of_variance", "initial")} for a, r in rows.items()}
    }
    if model == "svcj":
        parameters["jumps"] = _common_jumps({a: r["jumps"] for a, r in rows.items()})
    deviation, n_obs = np.nanstd(x[:, spot], axis=0), np.sum(~np.isnan(x[:, spot]), axis=0)
    prices = [
        Factor(names[i], float(s), None, CALIBRATED, int(n)) for i, s, n in zip(spot, deviation, n_obs, strict=True)
    ]
    vols = [
        Factor(factor_name(a, FactorKind.VOL), _vol_deviation(rows[a], per_year), None, CALIBRATED, int(n), VOL_TENOR,
               TERM_EXPONENT)
        for a, n in zip(assets, n_obs, strict=True)
    ]  # fmt: skip
    specification = ModelSpecification(
        model=model,
        as_of=float(moves.day[-1]),
        factors=(*prices, *vols),
        correlation=_with_variances(dependence.correlation, np.array([rows[a]["rho"] for a in assets])),
        steps_per_year=per_year,
        parameters=parameters,
        excluded=excluded,
    )
    notes = [f"{f.name}: {f.quirk} ({f.count}): {f.quirk.meaning}" for f in moves.findings]
    unused = [n for n in names if n.endswith(f":{FactorKind.VOL}")]
    notes += [f"{n}: its history is not used; the vol moves as the variance of the price does" for n in unused]
    notes += [f"{n}: left out, model {model} moves prices and their vols alone" for n in names if is_level(n)]
    notes += _prior_notes(posteriors, model)
    return VarianceCalibration(specification, posteriors, dependence, worst(judged), tuple(notes))


def yearly(posterior: VariancePosterior, steps_per_year: int) -> dict[str, Any]:
    """Posterior means as `parameters` have them: of fractions, a year; `jumps` None for Heston's model.

    The daily law becomes the continuous one that has its decay and, at θ, its variance of the variance after a day.
    """
    d = {name: x.reshape(-1) for name, x in posterior.draws.items()}
    n, unit2 = steps_per_year, posterior.unit**2
    kappa = -np.log1p(-d["kappa"])
    # ξ²·(1 − e^(−2κ))/(2κ) is the daily variance of the variance at θ, for θ = 1.
    xi2 = d["vol_of_variance_squared"] * unit2 * 2 * kappa / -np.expm1(-2 * kappa)
    found: dict[str, Any] = {
        "kappa": float(kappa.mean() * n),
        "theta": float(d["theta"].mean() * unit2 * n),
        "vol_of_variance": float(np.sqrt(xi2).mean() * n),
        "initial": float(d["variance"].mean() * unit2 * n),
        "rho": float(d["rho"].mean()),
        "jumps": None,
    }
    if "jump_probability" in d:
        found["jumps"] = {
            "intensity": float(d["jump_probability"].mean() * n),
            "mean": float(d["price_jump_mean"].mean() * posterior.unit),
            "deviation": float(np.sqrt(d["price_jump_variance"]).mean() * posterior.unit),
            "variance_mean": float(d["variance_jump_mean"].mean() * unit2 * n),
            "correlation": float(d["jump_correlation"].mean() / (posterior.unit * n)),
        }
    return found


def _common_jumps(own: Mapping[str, Mapping[str, float]]) -> dict[str, Any]:
    """One intensity for all: λ·μ_v and λ·E[J_s²] of each underlying stay what they were."""
    intensity = float(np.mean([j["intensity"] for j in own.values()]))
    by = {}
    for asset, j in own.items():
        more = j["intensity"] / intensity
        by[asset] = {
            "mean": j["mean"] * more**0.5,
            "deviation": j["deviation"] * more**0.5,
            "variance_mean": j["variance_mean"] * more,
            "correlation": j["correlation"] * more**-0.5,
        }
    return {"intensity": intensity, "by_underlying": by}


def _with_variances(
    prices: Float[np.ndarray, "asset asset"], rho: Float[np.ndarray, " asset"]
) -> Float[np.ndarray, "factor factor"]:
    """Correlation of all prices, then all variances: each variance is ρ·(its price) + √(1 − ρ²)·u, u independent of the
    prices and correlated as they are."""
    across, left = prices * rho, np.sqrt(1 - rho**2)
    return np.block([[prices, across], [across.T, prices * (np.outer(rho, rho) + np.outer(left, left))]])


def _vol_deviation(row: Mapping[str, float], steps_per_year: int) -> float:
    """Of ½ ln of the mean variance to the tenor, over a step from today's, but for jumps."""
    years = VOL_TENOR / 365.25
    weight = -np.expm1(-row["kappa"] * years) / (row["kappa"] * years)
    far = row["theta"] + (row["initial"] - row["theta"]) * weight
    noise = row["vol_of_variance"] * np.sqrt(row["initial"] / steps_per_year)
    return float(0.5 * weight * noise / far)


def _against_law(
    posterior: VariancePosterior, x: Float[np.ndarray, " day"]
) -> tuple[Float[np.ndarray, " day"], Float[np.ndarray, " day"]]:
    """Each return less its mean over its deviation, and P(return ≤ the one that came), both given the returns before,
    at the posterior means."""
    at, y = posterior.mean, x / posterior.unit
    law = law_of({name: jnp.asarray(value) for name, value in at.items()})
    weight = np.asarray(seen(law, jnp.asarray(y), jnp.asarray(posterior.top), n_cells=posterior.n_cells).weight)[:-1]
    variance = np.asarray(cells(jnp.asarray(posterior.top), posterior.n_cells)) ** 2
    move = y - at["mean"]
    quiet = np.sum(weight * special.ndtr(move[:, None] / np.sqrt(variance)), axis=1)
    if law.jump is None:
        return move / np.sqrt(weight @ variance), quiet
    p, mean, spread, size, rho = (float(part) for part in law.jump)
    sizes = -size * np.log1p(-(np.arange(JUMP_SIZES) + 0.5) / JUMP_SIZES)
    deviation = np.sqrt(variance + spread**2)
    jumping = np.mean(
        [np.sum(weight * special.ndtr((move - mean - rho * j)[:, None] / deviation), axis=1) for j in sizes], axis=0
    )
    jump_mean = mean + rho * size
    jump_variance = p * (spread**2 + rho**2 * size**2 + jump_mean**2) - (p * jump_mean) ** 2
    residual = (move - p * jump_mean) / np.sqrt(weight @ variance + jump_variance)
    return residual, (1 - p) * quiet + p * jumping


def _prior_notes(posteriors: Mapping[str, VariancePosterior], model: str) -> list[str]:
    """The informative priors, and which parameters of which asset hang on them."""
    if model != "svcj":
        return []
    out = [
        "informative priors (after Eraker, Johannes and Polson 2003; s: standard deviation of the daily move): a day "
        "jumps with probability Beta(2, 40); a price jump's mean N(0, 3²)·s, variance InverseGamma(5, 20)·s²; the "
        "variance's mean jump Gamma(20, 10)·s²; ρ_J N(0, 2²); ξ² a day InverseGamma(2.5, 0.1)·s²"
    ]
    wide = {name: float(np.sqrt(prior.variance)) for name, prior in priors(model).items()}
    for asset, p in posteriors.items():
        hanging = [name for name, d in p.deviation.items() if name in wide and d > IDENTIFIED * wide[name]]
        if hanging:
            what = ", ".join(name.replace("_", " ") for name in hanging)
            out.append(f"{asset}: {what}: from the prior as much as from the data")
    return out
