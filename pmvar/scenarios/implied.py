"""Today's volatility from option quotes, where they say more than the model's history does."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from pmvar.market.snapshot import MarketSnapshot
from pmvar.models.at_volatility import at_volatility, today
from pmvar.models.specification import ModelSpecification
from pmvar.scenarios.clock import horizon_end, horizon_steps
from pmvar.types import FactorKind


def with_implied_volatility(
    model: ModelSpecification, market: MarketSnapshot, *, horizon: str
) -> tuple[ModelSpecification, tuple[str, ...]]:
    """`model` with the volatility of each price at least that of its options at the money, and a note that says which.

    Of the tenor nearest to the horizon: the surface's variance there at the forward, in the model's steps a year. It is
    the start of a filter and, under a constant volatility, all of it; every draw of a posterior starts no lower. An
    implied variance holds a premium for its risk (Carr and Wu 2009, Review of Financial Studies 22), so that it
    overstates the mean of what will come; it is a floor, never a forecast that lowers a margin. Prices without a
    surface keep the model's. Raises InputError for a model whose volatility is not its factors'.
    """
    end = horizon_end(market.as_of, horizon_steps(horizon), model.steps_per_year, model.calendar)
    own, implied, said = today(model), np.full(len(model.factors), np.nan), []
    for i, f in enumerate(model.factors):
        surface = market.vols.get(f.underlying) if f.kind is FactorKind.SPOT else None
        vol = float(surface.vol(np.zeros(1), end)[0]) if surface is not None else 0.0
        if vol / np.sqrt(model.steps_per_year) > own[i]:
            implied[i] = vol / np.sqrt(model.steps_per_year)
            said.append(f"{f.underlying} {vol:.0%} (model {own[i] * np.sqrt(model.steps_per_year):.0%})")
    if not said:
        return model, ("option quotes imply no volatility above the model's",)
    raised = at_volatility(model, implied)
    if model.posterior is not None and raised.posterior is not None:
        variance = np.maximum(model.posterior.variance, raised.posterior.variance)
        raised = replace(raised, posterior=replace(raised.posterior, variance=variance))
    note = "volatility a year from option quotes, which hold a risk premium, where it is above the model's: "
    return raised, (note + ", ".join(said),)
