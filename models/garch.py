"""Volatility filters: GARCH(1,1), GJR and EWMA, one recursion with three sets of parameters, for any innovations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmvar.errors import InputError, Problem
from pmvar.models.specification import ModelSpecification

EWMA_DECAY = 0.97
"""β of the fallback; α = 1 − β, ω = 0."""

KEYS = ("omega", "alpha", "gamma", "beta", "variance")


class VolatilityFilter(eqx.Module):
    """σ²_{t+1} = ω + (α + γ·1{r_t < 0})·r_t² + β·σ²_t per factor, r the step's x less its mean.

    Glosten, Jagannathan and Runkle (1993); γ = 0 is GARCH, ω = 0 and α + β = 1 is EWMA. Variances are per model step.
    """

    omega: Float[Array, " factor"]
    alpha: Float[Array, " factor"]
    gamma: Float[Array, " factor"]
    beta: Float[Array, " factor"]
    variance: Float[Array, " factor"]
    """Of the first step, known today."""

    def update(self, variance: Float[Array, " factor"], r: Float[Array, " factor"]) -> Float[Array, " factor"]:
        """The next step's variance."""
        return self.omega + (self.alpha + jnp.where(r < 0, self.gamma, 0.0)) * r * r + self.beta * variance


def volatility_filter(specification: ModelSpecification) -> VolatilityFilter | None:
    """What `state.filter` says, {factor: {omega, alpha, gamma, beta, variance}}; None where it is absent.

    A factor that is not listed keeps its volatility; `variance`, where it is not given, is the factor's volatility
    squared; {"ewma": true} stands for ω = 0, α = .03, β = .97. ω, α and β are required otherwise, γ is 0 by default.
    """
    given = specification.state.get("filter")
    if given is None:
        return None
    if not isinstance(given, Mapping) or not set(given) <= set(specification.factor_names):
        raise _refused("filter is {factor: {…}} for factors of the model", "correct the names", "state.filter", given)
    rows = [_row(given.get(f.name, {}), f.name, f.volatility) for f in specification.factors]
    return VolatilityFilter(**{key: jnp.asarray([row[key] for row in rows]) for key in KEYS})


def _row(given: Any, name: str, volatility: float) -> dict[str, float]:
    column = f"state.filter[{name}]"
    if not isinstance(given, Mapping) or not set(given) <= {*KEYS, "ewma"}:
        raise _refused(f"a filter has {', '.join(KEYS)} or ewma", "correct the keys", column, given)
    if given.get("ewma") is True:
        ewma = {"omega": 0.0, "alpha": 1 - EWMA_DECAY, "beta": EWMA_DECAY}
        given = ewma | {k: v for k, v in given.items() if k != "ewma"}
    if given and not {"omega", "alpha", "beta"} <= set(given):
        raise _refused("a filter needs omega, alpha and beta, or ewma", "supply them", column, given)
    still = {} if given else {"omega": volatility**2}
    row = dict.fromkeys(KEYS, 0.0) | {"variance": volatility**2} | still | dict(given)
    for key, value in row.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not np.isfinite(value):
            raise _refused("must be a finite number", "correct it", f"{column}.{key}", value)
    low = min(row["omega"], row["alpha"], row["alpha"] + row["gamma"], row["beta"], row["variance"])
    persistence = row["alpha"] + row["gamma"] / 2 + row["beta"]
    if low < 0 or (given and row["variance"] == 0) or persistence > 1 + 1e-9:
        rule = "needs omega, alpha, alpha + gamma, beta ≥ 0, variance > 0, alpha + gamma/2 + beta ≤ 1"
        raise _refused(rule, "calibrate again", column, row)
    return {key: float(value) for key, value in row.items()}


def _refused(rule: str, fix: str, column: str, value: Any) -> InputError:
    return InputError(Problem(rule, fix, file="model.json", column=column, value=str(value)))
