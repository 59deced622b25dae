"""From a model and a market to a scenario set: draws, drift and price map."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key, UInt32

from pmvar.errors import NumericsError, UsageError
from pmvar.kernels.mixing import U_MIN
from pmvar.kernels.random import Stream, run_key, stream, uniforms
from pmvar.market.snapshot import MarketSnapshot
from pmvar.models import build
from pmvar.models.base import PathShock, RiskFactorModel
from pmvar.models.bridge import bridge
from pmvar.models.price_map import NormalMixture, log_price_ratio, mean_shift
from pmvar.models.specification import ModelSpecification
from pmvar.scenarios.clock import elapsed_steps, horizon_end, horizon_steps
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import DAY, PATH_TILE, Drift, FactorKind, PriceMap, Sampling

REPLICATES = 64
"""Plain Monte Carlo is split into this many replicates for its standard errors."""

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
    sampling: Sampling = Sampling.MC,
) -> ScenarioSet:
    """Joint scenarios of all factors of `model` from `market.as_of` over `horizon` (such as `2d`).

    Each path is a pure function of (seed, path id): a smaller set is a prefix of a larger one. Under
    `Drift.FORWARD` each price grows to its forward on average; vols have mean zero in ln σ. Raises UsageError for a
    request out of range and NumericsError for a non-finite shock.
    """
    if not MIN_SCENARIOS <= n_scenarios <= MAX_SCENARIOS:
        raise UsageError(f"scenarios must lie between {MIN_SCENARIOS:,} and {MAX_SCENARIOS:,}, not {n_scenarios:,}")
    if not 0 <= seed < 2**32:
        raise UsageError(f"seed must be an integer in [0, 2³²), not {seed}")
    steps = horizon_steps(horizon)
    if steps > MAX_STEPS:
        raise UsageError(f"horizon {horizon!r} is longer than {MAX_STEPS:.0f} steps")
    law = build(model)
    end = horizon_end(market.as_of, steps, model.steps_per_year)
    is_price = np.array([f.kind is FactorKind.SPOT for f in model.factors])
    key = run_key(seed)

    def shift(time: float, elapsed: float) -> Float[np.ndarray, " factor"]:
        out = np.zeros(len(is_price))
        if drift is Drift.FORWARD:
            marginal = law.marginal(elapsed)
            growth = [_growth(market, f.underlying, time) for f in model.factors if f.kind is FactorKind.SPOT]
            prices = NormalMixture(marginal.deviation[is_price], marginal.weight)
            out[is_price] = mean_shift(model.price_map, prices, np.array(growth))
        return out

    def tile_shock(index: int, time: float, shift_there: np.ndarray) -> Float[Array, "scenario factor"]:
        elapsed = elapsed_steps(market.as_of, time, model.steps_per_year)
        # Named by the model's clock: two expiries of one weekend are one moment to a session clock.
        inside = (jnp.float64(elapsed / steps), jnp.uint32(round(elapsed * DAY))) if time < end else None
        return _tile(
            law, model.price_map, jnp.asarray(is_price), key, jnp.uint32(index * PATH_TILE), jnp.float64(steps),
            jnp.asarray(shift_there), inside,
        )  # fmt: skip

    shift_at_end = shift(end, steps)
    n_tiles = -(-n_scenarios // PATH_TILE)
    shock = jnp.concatenate([tile_shock(i, end, shift_at_end) for i in range(n_tiles)])[:n_scenarios]
    if not bool(jnp.all(jnp.isfinite(shock))):
        raise NumericsError("a simulated shock is not finite; check the volatilities of model.json")

    def bridge_at(index: int, time: float) -> Float[Array, "scenario factor"]:
        elapsed = elapsed_steps(market.as_of, time, model.steps_per_year)
        return tile_shock(index, time, shift(time, elapsed))

    return ScenarioSet(
        factors=model.factor_names,
        as_of=market.as_of,
        horizon_end=end,
        shock=shock[:, None, :],
        weight=np.ones(n_scenarios),
        n_replicates=REPLICATES,
        term_exponent=np.array([f.term_exponent for f in model.factors]),
        tenor=np.array([f.tenor for f in model.factors]),
        vol_cap=model.vol_cap,
        bridge=bridge_at,
        provenance={
            "model": _description(model),
            "seed": seed,
            "n_scenarios": n_scenarios,
            "horizon": horizon,
            "drift": str(drift),
            "sampling": str(sampling),
            "generator": "threefry2x32",
        },
    )


def _description(model: ModelSpecification) -> dict[str, Any]:
    """The model as a report shows it, JSON-ready."""
    return {
        "name": model.model,
        "as_of": datetime.fromtimestamp(model.as_of, UTC).isoformat().replace("+00:00", "Z"),
        "steps_per_year": model.steps_per_year,
        "price_map": str(model.price_map),
        "vol_cap": model.vol_cap,
        "factors": [asdict(f) for f in model.factors],
        "excluded": [dict(e) for e in model.excluded],
        **({"mixing_truncated_at": U_MIN} if model.model == "t" else {}),
    }


def _growth(market: MarketSnapshot, underlying: str, time: float) -> float:
    """Forward over spot of an underlying for `time`; 1 where the market has no forward curve."""
    curve = market.forwards.get(underlying)
    return 1.0 if curve is None else float(curve.at(time)) / curve.spot


@eqx.filter_jit
def _tile(
    law: RiskFactorModel,
    price_map: PriceMap,
    is_price: Bool[Array, " factor"],
    key: Key[Array, ""],
    start: UInt32[Array, ""],
    steps: Float[Array, ""],
    shift: Float[Array, " factor"],
    inside: tuple[Float[Array, ""], UInt32[Array, ""]] | None,
) -> Float[Array, "scenario factor"]:
    """Log changes of one tile of paths, at the horizon or `inside` it at (fraction of its steps, seconds into it)."""

    def one_path(path_id: UInt32[Array, ""]) -> Float[Array, " factor"]:
        path_key = stream(key, Stream.PATH, path_id)
        path: PathShock = law.path(uniforms(path_key, law.dimension()), steps)
        x = path.shock[0]
        if inside is not None:
            x = bridge(stream(key, Stream.BRIDGE, path_id), x, path.deviation[0], law.loading, *inside)
        return jnp.where(is_price, log_price_ratio(price_map, x + shift), x)

    return jax.vmap(one_path)(start + jnp.arange(PATH_TILE, dtype=jnp.uint32))
