"""Plain historical simulation: the next h steps are h consecutive steps of the past, as they were."""

from __future__ import annotations

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pmvar.errors import InputError, Problem, UsageError
from pmvar.models.base import Coordinates, PathShock, RiskFactorModel
from pmvar.models.bootstrap import Observed, by_severity, observed, past, past_loading, pick
from pmvar.models.price_map import NormalMixture
from pmvar.models.specification import ModelSpecification


class Historical(RiskFactorModel):
    """x_s = row (k + s) of the history, s = 0 … h−1, the window k drawn once; windows overlap, all equally likely."""

    loading: Float[Array, "factor component"]
    """Of the correlation of the rows."""
    history: Observed
    start: Int[Array, " window"]
    """First row of each window of `horizon` rows, that of the most severe total first."""
    horizon: int = eqx.field(static=True)

    def bridge_loading(self) -> Float[Array, "factor component"]:
        """That of the history."""
        return self.loading

    def dimension(self) -> int:
        """The uniform that picks the window."""
        return 1

    def coordinates(self) -> Coordinates:
        """See the base."""
        return Coordinates(mixing=0)

    def n_steps(self, steps: float) -> int:
        """One for each row."""
        if steps != round(steps):
            raise UsageError(f"model historical replays whole steps; the horizon is {steps:g} steps")
        if steps > self.horizon:
            raise UsageError(f"this model was built for {self.horizon} steps; the horizon is {steps:g}")
        return int(steps)

    def path(self, normal: Float[Array, "step dimension"], steps: Float[Array, ""]) -> PathShock:
        """See the base. One normal picks the window: ∑ z_s/√h over the rows, which is coordinate 0 of the rotated
        draws, so that Sobol' points and importance sampling act on it; the others are not used."""
        rows = self.history.rows()
        z = jnp.sum(normal[:, 0]) / np.sqrt(normal.shape[0])
        first = self.start[pick(z, self.start.shape[0])]
        x = rows[first + jnp.arange(normal.shape[0])]
        # What a bridge inside a step needs: halfway its variance is ¼·Var x + ¼·σ² = ½·σ².
        deviation = jnp.broadcast_to(jnp.std(rows, axis=0), x.shape)
        return PathShock(x, jnp.zeros_like(x), deviation, jnp.zeros(0))

    def marginal(self, steps: float) -> NormalMixture:
        """The windows' first `steps` steps; inside a step the bridge spreads each of them."""
        rows, start = np.asarray(self.history.rows()), np.asarray(self.start)
        whole = int(steps)
        part = steps - whole
        x = sum((rows[start + s] for s in range(whole)), np.zeros((len(start), rows.shape[1])))
        if part > 0:
            x = x + part * rows[start + whole]
        deviation = np.broadcast_to(np.sqrt(part * (1 - part)) * rows.std(axis=0), x.shape)
        return NormalMixture(x.T, deviation.T, np.full(x.T.shape, 1 / len(start)))


def historical(specification: ModelSpecification, steps: float = 1.0) -> Historical:
    """Windows of `steps` consecutive rows of the specification's history.

    Raises InputError where the history is absent, short, or shorter than the horizon.
    """
    rows, horizon = past(specification), max(int(np.ceil(steps)), 1)
    n = len(rows) - horizon + 1
    if n < 1:
        rule = f"a horizon of {horizon} steps is longer than the history"
        fix, value = "supply a longer history, or shorten the horizon", str(len(rows))
        raise InputError(Problem(rule, fix, file="model.json", column="history", value=value))
    totals = np.lib.stride_tricks.sliding_window_view(rows, horizon, axis=0).sum(axis=-1)
    return Historical(
        loading=jnp.asarray(past_loading(rows)),
        history=observed(rows),
        start=jnp.asarray(by_severity(totals)),
        horizon=horizon,
    )
