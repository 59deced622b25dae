"""Risk-factor models: joint laws of spot and vol, chosen by the name in `model.json`."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import TYPE_CHECKING

from pmvar.errors import InputError, Problem

if TYPE_CHECKING:
    from pmvar.models.base import RiskFactorModel
    from pmvar.models.specification import ModelSpecification

NAMES = (
    "gaussian", "t", "t-multi", "t-garch", "t-jump", "t-garch-jump", "merton", "kou", "svcj", "heston", "fhs",
    "historical",
)  # fmt: skip
"""The models of `model.json`."""


def build(specification: ModelSpecification, steps: float = 1.0) -> RiskFactorModel:
    """The model that a specification names, for horizons of up to `steps` model steps.

    With a posterior it is the predictive one. Raises InputError for a name that this version does not have, and for
    parameters that are missing or out of range.
    """
    law = _build(specification, steps)
    if specification.posterior is None:
        return law
    from pmvar.models.predictive import predictive

    return predictive(law, specification, specification.posterior)


def _build(specification: ModelSpecification, steps: float) -> RiskFactorModel:
    name = specification.model
    if name not in NAMES:
        rule = f"this version has the models {', '.join(NAMES)}"
        raise InputError(Problem(rule, "choose one of these", file="model.json", column="model", value=name))
    if name in ("heston", "svcj"):
        from pmvar.models.heston import heston

        return heston(specification, steps)
    if name == "historical":
        from pmvar.models.historical import historical

        _check_keys(specification, parameters=(), state=())
        return historical(specification, steps)
    return _composed(specification, steps)


def _check_keys(specification: ModelSpecification, *, parameters: tuple[str, ...], state: tuple[str, ...]) -> None:
    """Refuse what the model would ignore in silence."""
    for column, known in (("parameters", parameters), ("state", state)):
        unknown = sorted(set(getattr(specification, column)) - set(known))
        if unknown:
            rule = f"model {specification.model} has no {column}" + (f" but {', '.join(known)}" if known else "")
            fix, at = "remove it, or choose the model that has it", f"{column}.{unknown[0]}"
            raise InputError(Problem(rule, fix, file="model.json", column=at))


def _composed(specification: ModelSpecification, steps: float) -> RiskFactorModel:
    import jax.numpy as jnp

    from pmvar.models.composed import ComposedModel
    from pmvar.models.garch import volatility_filter
    from pmvar.models.gaussian import gaussian
    from pmvar.models.jumps import jumps
    from pmvar.models.kou import double_exponential_jump, own_double_exponential_jumps
    from pmvar.models.merton import normal_jump, own_normal_jumps
    from pmvar.models.student_t import individuated_t, student_t

    name = specification.model
    jumping, own_tails = name in ("merton", "kou", "t-jump", "t-garch-jump"), name.startswith("t")
    keys = (*(("jumps",) if jumping else ()), *(("skew",) if own_tails else ()))
    _check_keys(specification, parameters=keys, state=("filter",))
    innovation = {"gaussian": gaussian, "merton": gaussian, "kou": gaussian, "t": student_t}.get(name, individuated_t)
    if name == "fhs":
        from pmvar.models.bootstrap import bootstrap as innovation
    filtered = volatility_filter(specification)
    if filtered is None and name in ("t-garch", "t-garch-jump", "fhs"):
        rule, fix = f"model {name} needs state.filter", "calibrate it, or choose a model of constant volatility"
        raise InputError(Problem(rule, fix, file="model.json", column="state.filter", value=""))
    step = None
    if filtered is not None:
        step = 1.0
    elif jumping and own_tails:
        # Normals and Poisson sums add up over days, a t mixed once with jumps does not: a new U every day.
        step = steps / ceil(steps)
    found = None
    if jumping:
        given = specification.parameters.get("jumps")
        double = name == "kou" or (own_tails and _is_double(given))
        size = (double_exponential_jump if double else normal_jump)(specification)
        rows = given.get("own") if isinstance(given, Mapping) else None
        double = isinstance(rows, Mapping) and any(map(_is_double, rows.values()))
        own_size = (own_double_exponential_jumps if double else own_normal_jumps)(specification)
        found = jumps(specification, steps if step is None else step, size, own_size)
    return ComposedModel(
        volatility=jnp.asarray([f.volatility for f in specification.factors]),
        innovation=innovation(specification),
        jumps=found,
        filter=filtered,
        step=step,
    )


def _is_double(jumps: object) -> bool:
    return isinstance(jumps, Mapping) and "up_rate" in jumps
