"""Risk-factor models: joint laws of spot and vol, chosen by the name in `model.json`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pmvar.errors import InputError, Problem

if TYPE_CHECKING:
    from pmvar.models.base import RiskFactorModel
    from pmvar.models.specification import ModelSpecification

NAMES = ("gaussian", "t")
"""Models of this version."""


def build(specification: ModelSpecification) -> RiskFactorModel:
    """The model that a specification names; raises InputError for a name that this version does not have."""
    from pmvar.models.gaussian import gaussian
    from pmvar.models.student_t import student_t

    try:
        constructor = dict(zip(NAMES, (gaussian, student_t), strict=True))[specification.model]
    except KeyError:
        raise InputError(
            Problem(
                f"model must be one of {', '.join(NAMES)}",
                "choose one of these",
                file="model.json",
                column="model",
                value=specification.model,
            )
        ) from None
    return constructor(specification)
