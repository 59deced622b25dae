"""One account of special interest, accurately: importance sampling on its own delta–gamma loss, stratified.

Glasserman, Heidelberger and Shahabuddin (2002), "Portfolio value-at-risk with heavy-tailed risk factors", Mathematical
Finance 12: with L ≈ a₀ + b'X + X'ΛX, X = Z/√(Y/ν), the variable Q_x = (Y/ν)(Q − x) is tilted exponentially to the tail,
which stays a law that can be drawn from; what is drawn is stratified by Q_x. For models gaussian and t.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from scipy import optimize

from pmvar.errors import UsageError
from pmvar.market.snapshot import MarketSnapshot
from pmvar.models import build
from pmvar.models.correlation import principal_loading
from pmvar.models.specification import ModelSpecification
from pmvar.portfolio import Portfolio
from pmvar.risk.tail import interval_half_width, standard_errors, tail
from pmvar.scenarios.clock import horizon_end, horizon_steps
from pmvar.scenarios.paths import drifts, mapped
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.scenarios.simulate import growth, price_factors
from pmvar.types import Drift, Precision
from pmvar.valuation.reprice import reprice

REPLICATES, STRATA = 16, 64
DEFENSIVE = 0.05
"""Share of paths drawn from the plain law: no weight exceeds its inverse, however wrong the quadratic is."""

BUMP = 2.5
"""Standard deviations: as far as the moves of a tail, where the quadratic has to be good."""

GAUSSIAN = 1e7
"""Degrees of freedom that stand for infinitely many: 1e-7 of a tail."""

PILOT = 1 << 17
"""Cheap draws of the quadratic, for its quantile and, anew in each replicate, the edges of the strata."""


class AccurateMargin(NamedTuple):
    """Tail of one account in base currency, losses positive; intervals are ± `half_width` standard errors (95%)."""

    value_at_risk: float
    var_standard_error: float
    expected_shortfall: float
    es_standard_error: float
    half_width: float
    tilt: float
    """θ; 0: the quadratic has no tail to lean to, and paths are plain."""
    largest_weight: float


class Quadratic(NamedTuple):
    """L ≈ a₀ + Σ b_i X_i + Σ λ_i X_i², X = Z/√(Y/ν), in coordinates that have made Λ diagonal."""

    constant: float
    linear: Float[np.ndarray, " component"]
    square: Float[np.ndarray, " component"]
    rotation: Float[np.ndarray, "factor component"]
    """Factor moves in their standard deviations are this times √((ν−2)/ν)·X."""
    degrees_of_freedom: float


def accurate_margin(
    portfolio: Portfolio,
    market: MarketSnapshot,
    model: ModelSpecification,
    account: str,
    *,
    seed: int,
    level: float = 0.99,
    n_scenarios: int = 65_536,
    horizon: str = "2d",
    drift: Drift = Drift.FORWARD,
) -> AccurateMargin:
    """VaR and ES of `account` with the errors of its own importance sampling.

    Raises UsageError for a model other than gaussian and t, an unknown account, a number of scenarios that is not a
    multiple of 1,024, and an account whose holdings expire inside the horizon, where paths would be needed.
    """
    if model.model not in ("gaussian", "t"):
        raise UsageError(f"the accurate mode knows models gaussian and t, not {model.model}; use an ordinary run")
    cells = REPLICATES * STRATA
    if n_scenarios % cells or n_scenarios < 4 * cells:
        raise UsageError(f"scenarios must be a multiple of {cells:,}, at least {4 * cells:,}, not {n_scenarios:,}")
    rows = np.flatnonzero(portfolio.account_id.astype(str) == account)
    if not len(rows):
        raise UsageError(f"the book has no account {account}")
    steps = horizon_steps(horizon)
    end = horizon_end(market.as_of, steps, model.steps_per_year, model.calendar)
    quantity = np.asarray(portfolio.quantity[[int(rows[0])]].todense())[0]
    held = np.flatnonzero(quantity)
    if np.any(portfolio.instruments.expiry[held] <= end):
        raise UsageError(f"holdings of {account} expire inside the horizon; use an ordinary run")
    own = portfolio.accounts(rows)
    scale = np.array([f.volatility for f in model.factors]) * np.sqrt(steps)
    shift = _shift(model, market, steps, end, drift)

    def losses(
        moves: Float[np.ndarray, "scenario factor"], weight: Float[np.ndarray, " scenario"]
    ) -> Float[np.ndarray, " scenario"]:
        drawn = _scenarios(model, market, end, scale * moves, shift, weight)
        pnl = reprice(own, market, drawn, precision=Precision.FLOAT64)
        tiles = [-(own.quantity @ np.asarray(tile)[pnl.row]) for tile in pnl]
        return np.concatenate(tiles, axis=1)[0, : len(moves)]

    quadratic = _quadratic(losses, model)
    moves, weight, tilt = _draws(quadratic, level, n_scenarios, np.random.default_rng(seed))
    loss = losses(moves, weight)[None]
    ids = np.arange(n_scenarios)[None]
    found = tail(loss, weight[None], n_scenarios=n_scenarios, level=level)
    errors = standard_errors(loss, ids, found, level=level, n_scenarios=n_scenarios, n_replicates=REPLICATES)
    return AccurateMargin(
        float(found.value_at_risk[0]), float(errors[0][0]), float(found.expected_shortfall[0]), float(errors[1][0]),
        interval_half_width(REPLICATES), tilt, float(weight.max()),
    )  # fmt: skip


def _shift(model: ModelSpecification, market: MarketSnapshot, steps: float, end: float, drift: Drift) -> np.ndarray:
    marginal = build(model, steps).marginal(steps)
    if drift is Drift.NONE or marginal is None:
        return np.zeros(len(model.factors))
    return drifts(model.price_map, *price_factors(model, market), marginal, growth(model, market, end))


def _scenarios(
    model: ModelSpecification, market: MarketSnapshot, end: float, x: np.ndarray, shift: np.ndarray, weight: np.ndarray
) -> ScenarioSet:
    is_price, _ = map(jnp.asarray, price_factors(model, market))
    moved = jax.vmap(lambda one: mapped(model.price_map, is_price, one, jnp.asarray(shift)))(jnp.asarray(x))
    return ScenarioSet(
        factors=model.factor_names,
        as_of=market.as_of,
        horizon_end=end,
        shock=moved[:, None, :],
        weight=weight,
        n_replicates=REPLICATES,
        term_exponent=np.array([f.term_exponent for f in model.factors]),
        tenor=np.array([f.tenor for f in model.factors]),
        vol_cap=model.vol_cap,
    )


def _quadratic(losses: Callable[[np.ndarray, np.ndarray], np.ndarray], model: ModelSpecification) -> Quadratic:
    """Central differences of `BUMP` standard deviations about the drifted centre, time decay included."""
    n = len(model.factors)
    nu = {f.degrees_of_freedom for f in model.factors} if model.model == "t" else {None}
    dof = next(iter(nu)) or GAUSSIAN
    unit = BUMP * np.eye(n)
    pairs = [(i, j) for i in range(n) for j in range(i)]
    bumps = np.concatenate([np.zeros((1, n)), unit, -unit, *(unit[[i]] + unit[[j]] for i, j in pairs)])
    value = losses(bumps, np.ones(len(bumps)))
    centre, up, down = value[0], value[1 : n + 1], value[n + 1 : 2 * n + 1]
    slope, curve = (up - down) / (2 * BUMP), ((up + down) / 2 - centre) / BUMP**2
    gamma = np.diag(curve)
    for (i, j), both in zip(pairs, value[2 * n + 1 :], strict=True):
        gamma[i, j] = gamma[j, i] = (both - up[i] - up[j] + centre) / (2 * BUMP**2)
    loading = principal_loading(model.correlation) * np.sqrt((dof - 2) / dof)
    square, basis = np.linalg.eigh(loading.T @ gamma @ loading)
    rotation = loading @ basis
    return Quadratic(float(centre), rotation.T @ slope, square, rotation, float(dof))


def _tilt(q: Quadratic, x: float) -> tuple[float, float, float]:
    """θ, α(θ) and ln φ(θ) with (ln φ)'(θ) = 0; zeros where leaning gains nothing."""
    nu, a, b, lam = q.degrees_of_freedom, q.constant, q.linear, q.square

    def alpha(t: float) -> float:
        return float(t * (a - x) + 0.5 * np.sum((t * b) ** 2 / (1 - 2 * t * lam))) / nu

    def log_phi(t: float) -> float:
        if np.any(1 - 2 * t * lam <= 0) or 1 - 2 * alpha(t) <= 0:
            return np.inf
        return float(-nu / 2 * np.log1p(-2 * alpha(t)) - 0.5 * np.sum(np.log1p(-2 * t * lam)))

    scale = 1 / max(float(np.sqrt(np.sum(b * b) + 2 * np.sum(lam * lam))), 1e-300)
    top = min(50 * scale, 0.5 / lam.max() if lam.max() > 0 else np.inf)
    # ln φ is convex and infinite from some θ on.
    while not np.isfinite(log_phi(top)):
        top *= 0.97
    step = {"xatol": 1e-10 * top}
    best: Any = optimize.minimize_scalar(log_phi, bounds=(0.0, top), method="bounded", options=step)
    theta, least = float(best.x), float(best.fun)
    if not (np.isfinite(least) and least < 0):
        return 0.0, 0.0, 0.0
    return theta, alpha(theta), least


def _draws(
    q: Quadratic, level: float, n: int, rng: np.random.Generator
) -> tuple[Float[np.ndarray, "scenario factor"], Float[np.ndarray, " scenario"], float]:
    """Factor moves in standard deviations, their weights, and the tilt; scenario i in replicate i mod `REPLICATES`."""
    nu, size = q.degrees_of_freedom, len(q.linear)

    def candidates(count: int, tilt: float, alpha: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        leans = rng.random(count) >= DEFENSIVE
        y = 2 * rng.standard_gamma(nu / 2, count) / np.where(leans, 1 - 2 * alpha, 1.0)
        root = np.sqrt(y / nu)
        spread = 1 / (1 - 2 * tilt * q.square)
        z = rng.standard_normal((count, size))
        z = np.where(leans[:, None], z * np.sqrt(spread) + tilt * q.linear * root[:, None] * spread, z)
        return y, z, q.constant * y / nu + root * (z @ q.linear) + z**2 @ q.square

    y, _, scaled = candidates(PILOT, 0.0, 0.0)
    x = float(np.quantile(scaled * nu / y, level))
    tilt, alpha, log_phi = _tilt(q, x)

    per_cell = n // (REPLICATES * STRATA)
    moves, weight = np.empty((n, q.rotation.shape[0])), np.empty(n)
    for r in range(REPLICATES):
        # Edges are estimates: each replicate has its own, so that their error shows in the spread of the replicates.
        y, _, scaled = candidates(PILOT, tilt, alpha)
        edges = np.quantile(scaled - x * y / nu, np.arange(1, STRATA) / STRATA)
        kept: list[tuple[np.ndarray, np.ndarray]] = [(np.empty((0, size)), np.empty(0)) for _ in range(STRATA)]
        while min(len(w) for _, w in kept) < per_cell:
            # Tossed into bins until every one is full; what overflows is dropped, whatever it is.
            y, z, scaled = candidates(2 * per_cell * STRATA, tilt, alpha)
            tilted = scaled - x * y / nu
            ratio = 1 / (DEFENSIVE + (1 - DEFENSIVE) * np.exp(tilt * tilted - log_phi))
            stratum = np.searchsorted(edges, tilted)
            points = z / np.sqrt(y / nu)[:, None]
            for s in range(STRATA):
                some = stratum == s
                old = kept[s]
                kept[s] = (np.concatenate([old[0], points[some]]), np.concatenate([old[1], ratio[some]]))
        place = slice(r, None, REPLICATES)
        moves[place] = np.concatenate([p[:per_cell] for p, _ in kept]) @ q.rotation.T
        weight[place] = np.concatenate([w[:per_cell] for _, w in kept])
    return moves, weight, tilt
