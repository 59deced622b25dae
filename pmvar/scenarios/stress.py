"""Stress lists as a scenario set: named, instantaneous, relative moves of any factors; the others stand still."""

from __future__ import annotations

from collections.abc import Mapping

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from pmvar.errors import InputError, Problem
from pmvar.market.snapshot import MarketSnapshot
from pmvar.models.specification import ModelSpecification
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import FactorKind


def stress_scenarios(
    stress: Mapping[str, Mapping[str, float]], model: ModelSpecification, market: MarketSnapshot
) -> ScenarioSet:
    """One scenario per name, in order; each shock is S₁/S₀ − 1 of a price, σ₁/σ₀ − 1 of all vols of an underlying,
    q − 1 of a curvature, or a shift of atanh ρ of a skew.

    Raises InputError for a factor that the model does not have and for a move of −100% or below.
    """
    column = {name: i for i, name in enumerate(model.factor_names)}
    shock = np.zeros((len(stress), len(column)))
    problems = []
    for row, (scenario, moves) in enumerate(stress.items()):
        for factor, move in moves.items():
            if factor not in column or not -1 < move < np.inf:
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
                # A skew is no ratio: its shock is a shift of atanh ρ.
                shock[row, column[factor]] = move if factor.endswith(f":{FactorKind.SKEW}") else np.log1p(move)
    if problems:
        raise InputError(problems)
    return instantaneous(model.factor_names, market.as_of, shock, tuple(stress))


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
