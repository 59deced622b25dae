"""A model at another volatility: what a stressed or a long-run estimate would make of today's law."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float

from pmvar.errors import InputError, Problem
from pmvar.models.specification import ModelSpecification, ReferenceVolatility
from pmvar.types import ApcTool, FactorKind

VOLATILITY = {ApcTool.STRESSED: ReferenceVolatility.STRESSED, ApcTool.FLOOR: ReferenceVolatility.LONG_RUN}
"""What each tool against procyclicality draws scenarios from."""
FIXED = ("heston", "svcj")
"""Their volatility is a process of its own, not a number for each factor."""
RATES = ("up_rate", "down_rate")
"""Of exponential jumps: sizes in inverse units of x."""


def under(specification: ModelSpecification, volatility: ReferenceVolatility) -> ModelSpecification:
    """`specification` with every factor at its stressed or its long-run volatility.

    Raises InputError naming a factor that has none.
    """
    for f in specification.factors:
        if getattr(f, volatility) is None:
            rule = f"{f.name} has no {volatility}, which the margin is to be protected by"
            fix = "calibrate again from a history that holds it, or switch the tool off"
            raise InputError(Problem(rule, fix, file="model.json", column=f"factors.{volatility}"))
    return at_volatility(specification, np.array([getattr(f, volatility) for f in specification.factors]))


def at_volatility(
    specification: ModelSpecification, deviation: Float[np.ndarray, " factor"]
) -> ModelSpecification:
    """`specification` with these standard deviations of x over the next step, dependence and tails unchanged.

    A filter starts there, under every draw of a posterior, and goes on by its own recursion; jumps of a model of
    constant volatility scale with it; past steps of `historical` are rescaled. Raises InputError for a model whose
    volatility is not its factors'.
    """
    s, names = specification, specification.factor_names
    if s.model in FIXED:
        rule = f"model {s.model} has no volatility for each factor that could be set to another"
        raise InputError(Problem(rule, "switch the tool off, or calibrate another model", file="model.json"))
    filtered = s.state.get("filter")
    if filtered is not None:
        today = dict(zip(names, (deviation**2).tolist(), strict=True))
        rows = {name: {**row, "variance": today[name]} for name, row in filtered.items()}
        state, posterior = {**s.state, "filter": rows}, s.posterior
        if posterior is not None:
            own = deviation[[names.index(n) for n in posterior.factors]]
            posterior = replace(posterior, variance=np.broadcast_to(own**2, posterior.variance.shape))
        still = tuple(
            f if f.name in filtered else replace(f, volatility=float(d))
            for f, d in zip(s.factors, deviation, strict=True)
        )
        return replace(s, factors=still, state=state, posterior=posterior)
    today = np.array([f.volatility for f in s.factors]) if s.history is None else s.history.std(axis=0)
    ratio = np.where(today > 0, deviation / np.where(today > 0, today, 1.0), 1.0)
    factors = tuple(replace(f, volatility=float(d)) for f, d in zip(s.factors, deviation, strict=True))
    parameters = dict(s.parameters)
    if "jumps" in parameters:
        parameters["jumps"] = _scaled(s, dict(zip(names, ratio.tolist(), strict=True)))
    history = None if s.history is None else s.history * ratio
    return replace(s, factors=factors, parameters=parameters, history=history)


def _scaled(specification: ModelSpecification, ratio: Mapping[str, float]) -> dict[str, Any]:
    """`parameters.jumps` with every factor's part of them multiplied."""
    given = specification.parameters["jumps"]
    # A price that is not listed takes the whole jump, a vol that is not listed none: see `jumps`.
    listed = {f.name: float(f.kind is FactorKind.SPOT) for f in specification.factors} | given.get("loading", {})
    scaled = {"loading": {n: b * ratio[n] for n, b in listed.items()}}
    if "scatter" in given:
        scaled["scatter"] = {n: s * ratio[n] for n, s in given["scatter"].items()}
    if "own" in given:
        scaled["own"] = {n: {k: _size(k, v, ratio[n]) for k, v in row.items()} for n, row in given["own"].items()}
    return {**given, **scaled}


def _size(key: str, value: float, ratio: float) -> float:
    if key in ("intensity", "up_probability"):
        return value
    return value / ratio if key in RATES else value * ratio
