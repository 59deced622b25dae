"""From a model and a market to a scenario set: draws, drift and price map."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from pmvar.errors import NumericsError, UsageError
from pmvar.kernels.random import run_key
from pmvar.market.snapshot import MarketSnapshot
from pmvar.models import build
from pmvar.models.base import RiskFactorModel
from pmvar.models.correlation import nearest_correlation
from pmvar.models.sampling import SamplingParameters, sampling_parameters, tuned
from pmvar.models.specification import ModelSpecification
from pmvar.scenarios.clock import horizon_end, horizon_steps
from pmvar.scenarios.draws import check_count, n_replicates
from pmvar.scenarios.paths import Draw, Paths
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import PATH_TILE, Drift, FactorKind, Parameters, Sampling

MIN_SCENARIOS = 1024
MAX_SCENARIOS = 2**31
"""Path ids are 32-bit counters."""

MAX_STEPS = 60.0


def simulate(
    model: ModelSpecification,
    market: MarketSnapshot,
    *,
    seed: int,
    n_scenarios: int = 65_536,
    horizon: str = "2d",
    drift: Drift = Drift.FORWARD,
    sampling: Sampling = Sampling.SOBOL_IS,
    parameters: Parameters = Parameters.PREDICTIVE,
) -> ScenarioSet:
    """Joint scenarios of all factors of `model` from `market.as_of` over `horizon` (such as `2d`).

    Each path is a pure function of (seed, path id): a smaller set is a prefix of a larger one. Under
    `Drift.FORWARD` each price grows to its forward on average; vols have mean zero in ln σ. Under
    `Parameters.PREDICTIVE` the uncertainty that a model's posterior holds is in the paths. Raises UsageError for a
    request out of range and NumericsError for a non-finite shock.
    """
    if not MIN_SCENARIOS <= n_scenarios <= MAX_SCENARIOS:
        raise UsageError(f"scenarios must lie between {MIN_SCENARIOS:,} and {MAX_SCENARIOS:,}, not {n_scenarios:,}")
    check_count(n_scenarios, sampling)
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed must be an integer in [0, 2³²), not {seed}")
    steps = horizon_steps(horizon)
    if steps > MAX_STEPS:
        raise UsageError(f"horizon {horizon!r} is longer than {MAX_STEPS:.0f} steps")
    if parameters is Parameters.PLUG_IN:
        model = replace(model, posterior=None)
    law = build(model, steps)
    leaning = sampling_parameters(model.sampling, tuned(model.model, steps))
    is_price, is_linear = price_factors(model, market)
    end = horizon_end(market.as_of, steps, model.steps_per_year, model.calendar)
    paths = Paths(
        law=law,
        price_map=model.price_map,
        is_price=is_price,
        is_linear=is_linear,
        growth=None if drift is Drift.NONE else lambda time: growth(model, market, time),
        as_of=market.as_of,
        end=end,
        steps=steps,
        steps_per_year=model.steps_per_year,
        calendar=model.calendar,
        draw=Draw(law.n_steps(steps), sampling, leaning, run_key(seed), jnp.float64(steps)),
    )
    shocks, weights = zip(*(paths.tile(i, end) for i in range(-(-n_scenarios // PATH_TILE))), strict=True)
    shock, weight = jnp.concatenate(shocks)[:n_scenarios], np.concatenate(weights)[:n_scenarios]
    finite = np.asarray(jnp.all(jnp.isfinite(shock), axis=0))
    if not finite.all():
        bad = model.factor_names[int(np.flatnonzero(~finite)[0])]
        raise NumericsError(f"a simulated shock of {bad} is not finite; check its volatility in model.json")
    return ScenarioSet(
        factors=model.factor_names,
        as_of=market.as_of,
        horizon_end=end,
        shock=shock[:, None, :],
        weight=weight,
        n_replicates=n_replicates(sampling),
        term_exponent=np.array([f.term_exponent for f in model.factors]),
        tenor=np.array([f.tenor for f in model.factors]),
        vol_cap=model.vol_cap,
        paths=paths,
        provenance={
            "model": _description(model, law),
            "seed": seed,
            "n_scenarios": n_scenarios,
            "horizon": horizon,
            "drift": str(drift),
            "sampling": str(sampling),
            "replicates": n_replicates(sampling),
            **_leaning(sampling, leaning, weight),
            "generator": "threefry2x32",
        },
    )


def _description(model: ModelSpecification, law: RiskFactorModel) -> dict[str, Any]:
    """The model as a report shows it, JSON-ready."""
    repair = nearest_correlation(model.correlation)[1]
    return {
        "name": model.model,
        "as_of": datetime.fromtimestamp(model.as_of, UTC).isoformat().replace("+00:00", "Z"),
        "steps_per_year": model.steps_per_year,
        "price_map": str(model.price_map),
        "vol_cap": model.vol_cap,
        "factors": [asdict(f) for f in model.factors],
        "excluded": [dict(e) for e in model.excluded],
        **({"calendar": model.calendar} if model.calendar else {}),
        **({"parameters": dict(model.parameters)} if model.parameters else {}),
        **({"correlation_repaired_by": repair} if repair else {}),
        **({"posterior_draws": len(model.posterior.omega)} if model.posterior is not None else {}),
        **({"mixing_truncated_at": u_min} if (u_min := law.mixing_truncated_at()) else {}),
    }


def _leaning(sampling: Sampling, parameters: SamplingParameters, weight: np.ndarray) -> dict[str, Any]:
    """What importance sampling did, for the record."""
    if sampling is not Sampling.SOBOL_IS:
        return {}
    bounds = {"largest_weight": float(weight.max()), "weight_bound": parameters.weight_bound}
    return {"importance": {**asdict(parameters), "inflation": list(parameters.inflation), **bounds}}


def price_factors(
    model: ModelSpecification, market: MarketSnapshot
) -> tuple[Bool[np.ndarray, " factor"], Bool[np.ndarray, " factor"]]:
    """Which factors are prices that the price map makes from x, and which are prices that move by x itself."""
    spot = np.array([f.kind is FactorKind.SPOT for f in model.factors])
    linear = np.array([market.scale(f.underlying).is_linear for f in model.factors])
    return spot & ~linear, spot & linear


def growth(model: ModelSpecification, market: MarketSnapshot, time: float) -> Float[np.ndarray, " factor"]:
    """Forward over spot of each price for `time`, of a shifted one with its shift, of a Bachelier price the x from one
    to the other; where the market has no forward curve, and of vols, nothing happens."""
    out = np.ones(len(model.factors))
    for i, f in enumerate(model.factors):
        curve, scale = market.forwards.get(f.underlying), market.scale(f.underlying)
        if scale.is_linear:
            out[i] = 0.0 if curve is None else float(curve.carry(time))
        elif curve is not None:
            out[i] = float((curve.at(time) + scale.shift) / (curve.spot + scale.shift))
    return out
