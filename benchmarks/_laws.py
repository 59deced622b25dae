"""The factors of the mixed book under every law that pmvar has: the models that `tail_error.py` reports."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from _mixed import SEED

from pmvar.models.specification import ModelSpecification
from pmvar.types import FactorKind

HISTORY = 1000
"""Rows of made-up history, of a t with five degrees of freedom and the model's own correlation."""


def other_laws(model: ModelSpecification) -> dict[str, ModelSpecification]:
    """`model` under the other laws, by name: own degrees of freedom from 4 to 8, GARCH that remembers 95% of a
    variance, six systemic jumps a year of −5% ± 3% (Kou: down 5%, up 2.5%), mean reversion of variances in a
    quarter."""
    factors = model.factors
    own = tuple(replace(f, degrees_of_freedom=4.0 + i % 5) for i, f in enumerate(factors))
    filters = {f.name: {"omega": 0.02 * f.volatility**2, "alpha": 0.05, "gamma": 0.06, "beta": 0.90} for f in factors}
    normal = {"intensity": 6.0, "mean": -0.05, "deviation": 0.03}
    double = {"intensity": 6.0, "up_probability": 0.3, "up_rate": 40.0, "down_rate": 20.0}
    annual = {f.underlying: f.volatility * np.sqrt(365) for f in factors if f.kind is FactorKind.SPOT}
    variance = {
        u: {"kappa": 4.0, "theta": v**2, "vol_of_variance": 0.9 * v, "initial": v**2} for u, v in annual.items()
    }
    own_jump = {"mean": -0.04, "deviation": 0.03, "variance_mean": 0.05, "correlation": -0.4}
    jumps_of_both = {"intensity": 6.0, "by_underlying": dict.fromkeys(annual, own_jump)}
    filtered: dict[str, Any] = {"state": {"filter": filters}}
    past: dict[str, Any] = {"history": _history(model)}

    def law(name: str, **changes: Any) -> ModelSpecification:
        return replace(model, model=name, **changes)

    return {
        "gaussian": law("gaussian"),
        "t-multi": law("t-multi", factors=own),
        "t-garch": law("t-garch", factors=own, **filtered),
        "t-jump": law("t-jump", factors=own, parameters={"jumps": normal}),
        "t-garch-jump": law("t-garch-jump", factors=own, parameters={"jumps": normal}, **filtered),
        "merton": law("merton", parameters={"jumps": normal}),
        "kou": law("kou", parameters={"jumps": double}),
        "heston": law("heston", parameters={"variance": variance}),
        "svcj": law("svcj", parameters={"variance": variance, "jumps": jumps_of_both}),
        "fhs": law("fhs", **filtered, **past),
        "historical": law("historical", **past),
    }


def _history(model: ModelSpecification) -> np.ndarray:
    rng, nu = np.random.default_rng(SEED), 5.0
    normal = rng.standard_normal((HISTORY, len(model.factors))) @ np.linalg.cholesky(model.correlation).T
    heavy = np.sqrt((nu - 2) / rng.chisquare(nu, (HISTORY, 1)))
    return normal * heavy * np.array([f.volatility for f in model.factors])
