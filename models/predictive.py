"""The posterior-predictive model: each path takes its parameters from one draw of their posterior.

Uncertainty of the parameters is then inside every quantile of the paths, at no further scenarios: one coordinate more
picks the draw (Aït-Sahalia and Brandt 2001, Journal of Finance 56, on the predictive law of returns).
"""

from __future__ import annotations

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmvar.errors import InputError, Problem
from pmvar.models.base import Coordinates, PathShock, RiskFactorModel
from pmvar.models.bootstrap import Observed, observed, pick
from pmvar.models.composed import ComposedModel
from pmvar.models.garch import KEYS, VolatilityFilter
from pmvar.models.posterior_draws import PosteriorDraws
from pmvar.models.specification import ModelSpecification
from pmvar.models.student_t import StudentT, mixing_tables


class PredictiveModel(RiskFactorModel):
    """A composed model whose filter, and whose tails where factors have their own and nothing jumps, are drawn.

    Each draw is kept as its difference from the point estimates: a derivative by an estimate moves all draws along.
    """

    law: ComposedModel
    """Under the point estimates."""
    filter_shift: Observed
    """By draw: ω, α, γ, β and σ² of every factor."""
    tail_shift: Observed | None
    """By draw: 1/ν of every factor."""
    mixing: Observed | None
    """By draw: the coefficients of ln W, and their slopes."""

    def bridge_loading(self) -> Float[Array, "factor component"]:
        """See the base."""
        return self.law.bridge_loading()

    def dimension(self) -> int:
        """One more than the model has."""
        return self.law.dimension() + 1

    def coordinates(self) -> Coordinates:
        """Those of the model; the new one is the last."""
        return self.law.coordinates()

    def n_steps(self, steps: float) -> int:
        """See the base."""
        return self.law.n_steps(steps)

    def owners(self, name: str) -> tuple[int, ...]:
        """See the base."""
        return self.law.owners(name)

    def mixing_truncated_at(self) -> float:
        """See the base."""
        return self.law.mixing_truncated_at()

    def path(self, normal: Float[Array, "step dimension"], steps: Float[Array, ""]) -> PathShock:
        """See the base. The mean of the last coordinate over the steps picks the draw: one Sobol' dimension."""
        choice = jnp.sum(normal[:, -1]) / np.sqrt(len(normal))
        return self._drawn(choice).path(normal[:, :-1], steps)

    def _drawn(self, choice: Float[Array, ""]) -> ComposedModel:
        assert self.law.filter is not None
        shift = self.filter_shift.rows()
        draw = pick(choice, len(shift))
        moved = shift[draw].reshape(len(KEYS), -1)
        estimates = (getattr(self.law.filter, key) for key in KEYS)
        law = replace(self.law, filter=VolatilityFilter(*(e + m for e, m in zip(estimates, moved, strict=True))))
        if self.tail_shift is None or self.mixing is None:
            return law
        innovation = self.law.innovation
        assert isinstance(innovation, StudentT)
        table = self.mixing.rows()[draw].reshape(2, *innovation.log_mixing.shape)
        tails = replace(
            innovation,
            inverse_dof=innovation.inverse_dof + self.tail_shift.rows()[draw],
            log_mixing=table[0],
            log_mixing_slope=table[1],
        )
        return replace(law, innovation=tails)


def predictive(law: RiskFactorModel, specification: ModelSpecification, posterior: PosteriorDraws) -> PredictiveModel:
    """`law`, built from `specification`, under the draws; a factor without draws keeps its estimates.

    Raises InputError for a model without a volatility filter, and for one with a skew.
    """
    if not isinstance(law, ComposedModel) or law.filter is None:
        rule = f"model {specification.model} has no volatility filter for the posterior to move"
        fix = "remove the posterior, or choose a model with state.filter"
        raise InputError(Problem(rule, fix, file="model.json", column="posterior"))
    if isinstance(law.innovation, StudentT) and np.any(np.asarray(law.innovation.skew)):
        rule = "the draws of a posterior were made without skew"
        raise InputError(Problem(rule, "remove the skew, or the posterior", file="model.json", column="posterior"))
    names, n = specification.factor_names, len(posterior.omega)
    at = [names.index(name) for name in posterior.factors]
    shift = np.zeros((n, len(KEYS), len(names)))
    for k, key in enumerate(KEYS):
        shift[:, k, at] = getattr(posterior, key) - np.asarray(getattr(law.filter, key))[at]
    tails = mixing = None
    if isinstance(law.innovation, StudentT) and len(law.innovation.inverse_dof) == len(names) and law.jumps is None:
        estimate = np.asarray(law.innovation.inverse_dof)
        tails = np.zeros((n, len(names)))
        tails[:, at] = 1 / posterior.degrees_of_freedom - estimate[at]
        nu = np.tile([np.inf if k == 0 else 1 / k for k in estimate], (n, 1))
        nu[:, at] = posterior.degrees_of_freedom
        mixing = np.stack([mixing_tables(row) for row in nu])
    return PredictiveModel(
        law=law,
        filter_shift=observed(shift.reshape(n, -1)),
        tail_shift=None if tails is None else observed(tails),
        mixing=None if mixing is None else observed(mixing.reshape(n, -1)),
    )
