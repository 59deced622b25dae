"""Stress lists as a scenario set: named, instantaneous, relative moves of any factors; the others stand still."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from pmvar.errors import InputError, Problem
from pmvar.market.price_scale import LOGNORMAL, PriceScale
from pmvar.market.snapshot import MarketSnapshot
from pmvar.models.factor_points import kind_and_point
from pmvar.models.specification import ModelSpecification
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import FactorKind


def stress_scenarios(
    stress: Mapping[str, Mapping[str, float]], model: ModelSpecification, market: MarketSnapshot
) -> ScenarioSet:
    """One scenario per name, in order; each shock is S₁/S₀ − 1 of a price, σ₁/σ₀ − 1 of all vols of an underlying,
    q − 1 of a curvature, a shift of atanh ρ of a skew, or the absolute move of a basis, a rate or a spread.

    A shifted price moves by that share of price + shift, a Bachelier price by that share of its shift: −50% is −.5·A.
    Raises InputError for a factor that the model does not have and for a move of −100% or below, which only a
    Bachelier price can make.
    """
    column = {name: i for i, name in enumerate(model.factor_names)}
    shock = np.zeros((len(stress), len(column)))
    problems = []
    for row, (scenario, moves) in enumerate(stress.items()):
        for factor, move in moves.items():
            scale = price_scale(factor, market)
            least = -np.inf if scale.is_linear else -1.0
            if factor not in column or not least < move < np.inf:
                rule = (
                    "a stress moves a factor of the model" if factor not in column else "a move must exceed −1 (−100%)"
                )
                problems.append(
                    Problem(
                        rule,
                        f"factors are {', '.join(sorted(column)[:8])}…"
                        if factor not in column
                        else "correct the shock",
                        file="market/stress",
                        column=f"{scenario}: {factor}",
                        value=str(move),
                    )
                )
            else:
                relative = kind_and_point(factor)[0] in (FactorKind.SPOT, FactorKind.VOL, FactorKind.CURVATURE)
                shock[row, column[factor]] = float(scale.of_share(move)) if relative else move
    if problems:
        raise InputError(problems)
    return instantaneous(model.factor_names, market.as_of, shock, tuple(stress))


def price_scale(factor: str, market: MarketSnapshot) -> PriceScale:
    """The scale that a factor moves on: of its price, and the lognormal of volatilities."""
    underlying, _, kind = factor.rpartition(":")
    return market.scale(underlying) if kind == FactorKind.SPOT else LOGNORMAL


def instantaneous(
    factors: tuple[str, ...], as_of: float, shock: Float[np.ndarray, "scenario factor"], labels: tuple[str, ...]
) -> ScenarioSet:
    """Named log changes of all factors at once, as a scenario set: a stress list, or a grid."""
    n = len(factors)
    return ScenarioSet(
        factors=factors,
        as_of=as_of,
        horizon_end=as_of,
        shock=jnp.asarray(shock)[:, None, :],
        weight=np.ones(len(shock)),
        n_replicates=1,
        term_exponent=np.zeros(n),
        tenor=np.full(n, 30.0),
        vol_cap=np.inf,
        labels=labels,
    )
