"""Risk-factor models: joint laws of spot and vol, chosen by the name in `model.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmvar.errors import InputError, Problem

if TYPE_CHECKING:
    from pmvar.models.base import RiskFactorModel
    from pmvar.models.specification import ModelSpecification


def build(specification: ModelSpecification) -> RiskFactorModel:
    """The model that a specification names; raises InputError for a name that this version does not have."""
    from pmvar.models.gaussian import gaussian
    from pmvar.models.student_t import student_t

    models = {"gaussian": gaussian, "t": student_t}
    if specification.model not in models:
        rule = f"this version has the models {', '.join(models)}"
        raise InputError(
            Problem(rule, "choose one of these", file="model.json", column="model", value=specification.model)
        )
    return models[specification.model](specification)
