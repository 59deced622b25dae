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
    """`specification` with these standard deviations of x over the next step (NaN: its own), dependence and tails as
    they are.

    A filter starts there, under every draw of a posterior, and goes on by its own recursion; jumps of a model of
    constant volatility scale with it; past steps of `historical` are rescaled. Raises InputError for a model whose
    volatility is not its factors'.
    """
    s, names = specification, specification.factor_names
    if s.model in FIXED:
        rule = f"model {s.model} has no volatility for each factor that could be set to another"
        raise InputError(Problem(rule, "switch the tool off, or calibrate another model", file="model.json"))
    filtered, given = s.state.get("filter"), ~np.isnan(deviation)
    deviation = np.where(given, deviation, today(s))
    if filtered is not None:
        variance = dict(zip(names, (deviation**2).tolist(), strict=True))
        rows = {name: {**row, "variance": variance[name]} for name, row in filtered.items()}
        state, posterior = {**s.state, "filter": rows}, s.posterior
        if posterior is not None:
            own = [names.index(n) for n in posterior.factors]
            posterior = replace(posterior, variance=np.where(given[own], deviation[own] ** 2, posterior.variance))
        still = tuple(
            f if f.name in filtered else replace(f, volatility=float(d))
            for f, d in zip(s.factors, deviation, strict=True)
        )
        return replace(s, factors=still, state=state, posterior=posterior)
    before = today(s)
    ratio = np.where(before > 0, deviation / np.where(before > 0, before, 1.0), 1.0)
    factors = tuple(replace(f, volatility=float(d)) for f, d in zip(s.factors, deviation, strict=True))
    parameters = dict(s.parameters)
    if "jumps" in parameters:
        parameters["jumps"] = _scaled(s, dict(zip(names, ratio.tolist(), strict=True)))
    history = None if s.history is None else s.history * ratio
    return replace(s, factors=factors, parameters=parameters, history=history)


def today(specification: ModelSpecification) -> Float[np.ndarray, " factor"]:
    """Standard deviation of each factor's x over the next step, by the estimates."""
    s, filtered = specification, specification.state.get("filter", {})
    if s.history is not None and not filtered:
        return s.history.std(axis=0)
    return np.array([np.sqrt(filtered.get(f.name, {}).get("variance", f.volatility**2)) for f in s.factors])


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
