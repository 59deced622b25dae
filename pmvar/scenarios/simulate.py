"""From a model and a market to a scenario set: draws, drift and price map."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt32

from pmvar.errors import NumericsError, UsageError
from pmvar.kernels.mixing import U_MIN
from pmvar.kernels.random import Stream, run_key, stream, uniforms
from pmvar.market.snapshot import MarketSnapshot
from pmvar.models import build
from pmvar.models.base import RiskFactorModel
from pmvar.models.bridge import bridge
from pmvar.models.correlation import nearest_correlation
from pmvar.models.price_map import NormalMixture, log_price_ratio, mean_shift
from pmvar.models.sampling import SamplingParameters, sampling_parameters
from pmvar.models.specification import ModelSpecification
from pmvar.scenarios.clock import elapsed_steps, horizon_end, horizon_steps
from pmvar.scenarios.draws import check_count, draws, n_replicates
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import DAY, PATH_TILE, Drift, FactorKind, PriceMap, Sampling

MIN_SCENARIOS = 1024
MAX_SCENARIOS = 2**31
"""Path ids are 32-bit counters."""

MAX_STEPS = 60.0

REFERENCE_SEED = 0x9E3779B9
REFERENCE_TILES = 16
"""The drift of a model whose law has no closed form comes from this many tiles of Sobol' points of their own, so that
no path of a run depends on how many others there are."""


class Moment(NamedTuple):
    """A time inside the horizon, by the model's clock."""

    step: Int[Array, ""]
    fraction: Float[Array, ""]
    """Of that step, in (0, 1]."""
    seconds: UInt32[Array, ""]
    """Since the step began: names the moment to the bridge."""


def simulate(
    model: ModelSpecification,
    market: MarketSnapshot,
    *,
    seed: int,
    n_scenarios: int = 65_536,
    horizon: str = "2d",
    drift: Drift = Drift.FORWARD,
    sampling: Sampling = Sampling.SOBOL_IS,
) -> ScenarioSet:
    """Joint scenarios of all factors of `model` from `market.as_of` over `horizon` (such as `2d`).

    Each path is a pure function of (seed, path id): a smaller set is a prefix of a larger one. Under
    `Drift.FORWARD` each price grows to its forward on average; vols have mean zero in ln σ. Raises UsageError for a
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
    law = build(model, steps)
    parameters = sampling_parameters(model.sampling)
    n_steps = law.n_steps(steps)
    end = horizon_end(market.as_of, steps, model.steps_per_year)
    is_price = np.array([f.kind is FactorKind.SPOT for f in model.factors])

    def moment(time: float) -> Moment | None:
        if time >= end:
            return None
        elapsed = elapsed_steps(market.as_of, time, model.steps_per_year) * n_steps / steps
        step = max(int(np.ceil(elapsed)) - 1, 0)
        # Named by the model's clock: two expiries of one weekend are one moment to a session clock.
        seconds = round((elapsed - step) * steps / n_steps * DAY)
        return Moment(jnp.asarray(step), jnp.float64(elapsed - step), jnp.uint32(seconds))

    def shift(time: float) -> Float[np.ndarray, " factor"]:
        out = np.zeros(len(is_price))
        if drift is Drift.FORWARD:
            elapsed = steps if time >= end else elapsed_steps(market.as_of, time, model.steps_per_year)
            marginal = law.marginal(elapsed) or _reference(law, n_steps, steps, moment(time))
            growth = [_growth(market, f.underlying, time) for f in model.factors if f.kind is FactorKind.SPOT]
            prices = NormalMixture(*(part[is_price] for part in marginal))
            out[is_price] = mean_shift(model.price_map, prices, np.array(growth))
        return out

    def tile(index: int, time: float, shift_there: np.ndarray) -> tuple[Array, Array]:
        return _tile(
            law, n_steps, model.price_map, jnp.asarray(is_price), sampling, parameters, run_key(seed),
            jnp.uint32(index * PATH_TILE), jnp.float64(steps), jnp.asarray(shift_there), moment(time),
        )  # fmt: skip

    shift_at_end = shift(end)
    n_tiles = -(-n_scenarios // PATH_TILE)
    shocks, weights = zip(*(tile(i, end, shift_at_end) for i in range(n_tiles)), strict=True)
    shock, weight = jnp.concatenate(shocks)[:n_scenarios], np.concatenate(weights)[:n_scenarios]
    if not bool(jnp.all(jnp.isfinite(shock))):
        raise NumericsError("a simulated shock is not finite; check the volatilities of model.json")

    def bridge_at(index: int, time: float) -> Float[Array, "scenario factor"]:
        return tile(index, time, shift(time))[0]

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
        bridge=bridge_at,
        provenance={
            "model": _description(model, law),
            "seed": seed,
            "n_scenarios": n_scenarios,
            "horizon": horizon,
            "drift": str(drift),
            "sampling": str(sampling),
            **_leaning(sampling, parameters, weight),
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
        **({"parameters": dict(model.parameters)} if model.parameters else {}),
        **({"correlation_repaired_by": repair} if repair else {}),
        **({"mixing_truncated_at": U_MIN} if law.coordinates().mixing is not None else {}),
    }


def _leaning(sampling: Sampling, parameters: SamplingParameters, weight: np.ndarray) -> dict[str, Any]:
    """What importance sampling did, for the record."""
    if sampling is not Sampling.SOBOL_IS:
        return {}
    bounds = {"largest_weight": float(weight.max()), "weight_bound": parameters.weight_bound}
    return {"importance": {**asdict(parameters), "inflation": list(parameters.inflation), **bounds}}


def _growth(market: MarketSnapshot, underlying: str, time: float) -> float:
    """Forward over spot of an underlying for `time`; 1 where the market has no forward curve."""
    curve = market.forwards.get(underlying)
    return 1.0 if curve is None else float(curve.at(time)) / curve.spot


def _reference(law: RiskFactorModel, n_steps: int, steps: float, moment: Moment | None) -> NormalMixture:
    """The marginal law as a fixed sample."""
    key, plain = run_key(REFERENCE_SEED), SamplingParameters()
    x = np.concatenate(
        [
            _x(law, n_steps, Sampling.SOBOL, plain, key, jnp.uint32(i * PATH_TILE), jnp.float64(steps), moment)[0]
            for i in range(REFERENCE_TILES)
        ]
    ).T
    return NormalMixture(x, np.zeros_like(x), np.full_like(x, 1 / x.shape[1]))


@eqx.filter_jit
def _x(
    law: RiskFactorModel,
    n_steps: int,
    sampling: Sampling,
    parameters: SamplingParameters,
    key: Key[Array, ""],
    start: UInt32[Array, ""],
    steps: Float[Array, ""],
    moment: Moment | None,
) -> tuple[Float[Array, "scenario factor"], Float[Array, " scenario"]]:
    """x of one tile of paths, at the horizon or at a moment inside it, and their weights."""
    draw = draws(law, n_steps, key, sampling, parameters)

    def one_path(path_id: UInt32[Array, ""]) -> tuple[Float[Array, " factor"], Float[Array, ""]]:
        normal, weight = draw(path_id)
        path = law.path(normal, steps)
        move = path.diffusion + path.jump
        if moment is None:
            return move.sum(axis=0), weight
        place = path_id, moment.step.astype(jnp.uint32)
        before = jnp.sum(jnp.where(jnp.arange(n_steps)[:, None] < moment.step, move, 0.0), axis=0)
        inside = bridge(
            stream(key, Stream.BRIDGE, *place), path.diffusion[moment.step], path.deviation[moment.step], law.loading,
            moment.fraction, moment.seconds,
        )  # fmt: skip
        jumped = uniforms(stream(key, Stream.JUMP, *place), 1)[0] <= moment.fraction
        return before + inside + jnp.where(jumped, path.jump[moment.step], 0.0), weight

    return jax.vmap(one_path)(start + jnp.arange(PATH_TILE, dtype=jnp.uint32))


@eqx.filter_jit
def _tile(
    law: RiskFactorModel,
    n_steps: int,
    price_map: PriceMap,
    is_price: Bool[Array, " factor"],
    sampling: Sampling,
    parameters: SamplingParameters,
    key: Key[Array, ""],
    start: UInt32[Array, ""],
    steps: Float[Array, ""],
    shift: Float[Array, " factor"],
    moment: Moment | None,
) -> tuple[Float[Array, "scenario factor"], Float[Array, " scenario"]]:
    """Log changes of one tile of paths, at the horizon or at a moment inside it, and their weights."""
    x, weight = _x(law, n_steps, sampling, parameters, key, start, steps, moment)
    return jnp.where(is_price, log_price_ratio(price_map, x + shift), x), weight
