"""ModelSpecification: what `model.json` says, checked; the one thing a model is built from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

import numpy as np
from jaxtyping import Float

from pmvar.errors import InputError, Problem
from pmvar.models.factor_points import kind_and_point, sound_name
from pmvar.models.posterior_draws import PosteriorDraws
from pmvar.types import FactorKind, PriceMap

CORRELATION_TOLERANCE = 1e-10
"""Largest |C − Cᵀ| and |diag C − 1| accepted as rounding."""

LEAST_HISTORY = 250
"""Fewer past steps say nothing about a 99% tail."""

VOL_IMPORTANCE = 0.25
"""Of a vol factor against the price of its underlying, for the order of principal components."""

LEAST_IMPORTANCE = 0.05
"""Of the most important factor: less would cost digits of the correlation."""


def _reject(rule: str, fix: str, column: str = "", value: object = "") -> InputError:
    return InputError(Problem(rule, fix, file="model.json", column=column, value=str(value)))


class ReferenceVolatility(StrEnum):
    """Which volatility a factor may have instead of today's; the field of `Factor`."""

    STRESSED = "stressed_volatility"
    LONG_RUN = "long_run_volatility"


@dataclass(frozen=True)
class Factor:
    """One risk factor. `volatility` is the standard deviation of its x over one step, all sources together."""

    name: str
    """`<underlying>:spot | vol | term | skew | curvature | basis.<expiry or tenor> | spread`, or
    `<currency>:rate.<tenor>`."""
    volatility: float
    degrees_of_freedom: float | None = None
    source: str = ""
    n_obs: int = 0
    tenor: float = 30.0
    """Vol factors: the tenor in days at which x is Δ ln σ; of a term structure's slope, at which it moves nothing."""
    term_exponent: float = 0.0
    """Vol factors: Δ ln σ(τ) = x·(tenor/τ)^term_exponent; 0 is a parallel shift."""
    stressed_volatility: float | None = None
    """As `volatility`, in a stressed period; None: nobody estimated it."""
    long_run_volatility: float | None = None
    """As `volatility`, over ten years."""

    @property
    def underlying(self) -> str:
        """The part of the name before the colon."""
        return self.name.rpartition(":")[0]

    @property
    def kind(self) -> FactorKind:
        """What it moves, as the name says after the colon."""
        return FactorKind(kind_and_point(self.name)[0])

    def __post_init__(self) -> None:
        if not sound_name(self.name):
            raise _reject(
                "a factor is named <underlying>:spot, :vol, :term, :skew, :curvature, :spread, "
                ":basis.<date or tenor> or <currency>:rate.<tenor>",
                "rename it; a tenor is written as in 3m or 2y, a date as in 2026-06-26",
                "factors.name",
                self.name,
            )
        for key in ("volatility", *ReferenceVolatility):
            value = getattr(self, key)
            if value is not None and not 0 <= value < np.inf:
                raise _reject(f"{key} of {self.name} must be finite and ≥ 0", "correct it", f"factors.{key}", value)
        if self.degrees_of_freedom is not None and not self.degrees_of_freedom > 2:
            raise _reject(
                f"degrees_of_freedom of {self.name} must be above 2, where the variance exists, or null for Gaussian",
                "raise it or write null",
                "factors.degrees_of_freedom",
                self.degrees_of_freedom,
            )
        if not (self.tenor > 0 and 0 <= self.term_exponent <= 1):
            raise _reject(
                f"{self.name} needs tenor > 0 days and term_exponent in [0, 1]",
                "correct them",
                "factors.tenor",
                (self.tenor, self.term_exponent),
            )


@dataclass(frozen=True)
class ModelSpecification:
    """A risk-factor model by name, with its factors, their correlation and its parameters."""

    model: str
    as_of: float
    """Epoch seconds."""
    factors: tuple[Factor, ...]
    correlation: Float[np.ndarray, "factor factor"]
    """In the order of `factors`."""
    steps_per_year: int = 365
    """365: calendar days. 252: trading sessions, Monday to Friday."""
    calendar: str = ""
    """Of the exchange whose holidays are no sessions, by its market code; empty: all weekdays are."""
    price_map: PriceMap = PriceMap.EXP_LINEAR
    vol_cap: float = 1.6
    """Shocks of ln σ are capped smoothly at ± this."""
    parameters: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    sampling: Mapping[str, Any] = field(default_factory=dict)
    """Parameters of importance sampling; see `pmvar.models.sampling`."""
    history: Float[np.ndarray, "observation factor"] | None = None
    """x of each factor on past steps, oldest first, in the order of `factors`; what fhs and historical draw from."""
    excluded: tuple[Mapping[str, str], ...] = ()
    posterior: PosteriorDraws | None = None
    """Draws of the parameters of factors of this model: with them its law is the predictive one."""

    def __post_init__(self) -> None:
        names, c = [f.name for f in self.factors], self.correlation
        if not names or len(set(names)) != len(names):
            raise _reject("factors must be present, each once", "remove the duplicates", "factors.name", names)
        if self.steps_per_year not in (365, 252):
            raise _reject("steps_per_year is 365 or 252", "choose one", "steps_per_year", self.steps_per_year)
        if not self.vol_cap > 0:
            raise _reject("vol_cap must be positive", "1.6 is the default", "vol_cap", self.vol_cap)
        if self.history is not None and not (
            self.history.ndim == 2 and self.history.shape[1] == len(names) and np.all(np.isfinite(self.history))
        ):
            rule = f"history must be a finite matrix of {len(names)} columns, one for each factor"
            raise _reject(rule, "supply complete rows", "history", self.history.shape)
        if self.posterior is not None and not set(self.posterior.factors) <= set(names):
            unknown = min(set(self.posterior.factors) - set(names))
            raise _reject("a posterior is of the model's own factors", "calibrate again", "posterior", unknown)
        if c.shape != (len(names), len(names)):
            raise _reject(
                f"correlation must be {len(names)} × {len(names)}", "one row per factor", "correlation", c.shape
            )
        bad = np.argwhere(~(np.abs(c) <= 1 + CORRELATION_TOLERANCE))
        asymmetric = np.argwhere(~(np.abs(c - c.T) <= CORRELATION_TOLERANCE))
        diagonal = np.flatnonzero(~(np.abs(np.diag(c) - 1) <= CORRELATION_TOLERANCE))
        for what, where in (("within [−1, 1]", bad), ("symmetric", asymmetric)):
            if len(where):
                i, j = where[0]
                raise _reject(
                    f"correlations must be {what}", "correct the pair", f"correlation[{names[i]}, {names[j]}]", c[i, j]
                )
        if len(diagonal):
            i = diagonal[0]
            raise _reject("a factor's correlation with itself is 1", "correct it", f"correlation[{names[i]}]", c[i, i])

    @property
    def importance(self) -> Float[np.ndarray, " factor"]:
        """How much of the sampling's care a factor deserves: a price by its volatility, for so it moves money, and a
        vol a part of what its underlying's price does. Unequal weights also turn principal components towards single
        underlyings, so that an account depends on few of them: a third off the standard errors of mixed books."""
        own = {f.underlying: f.volatility for f in self.factors if f.kind is FactorKind.SPOT}
        largest = max(own.values(), default=0.0) or 1.0
        scale = [
            own.get(f.underlying, largest) * (1.0 if f.kind is FactorKind.SPOT else VOL_IMPORTANCE)
            for f in self.factors
        ]
        # In steps of √2: a small change of a volatility must not turn the components, which differences would see.
        steps = np.round(2 * np.log2(np.maximum(np.array(scale) / largest, LEAST_IMPORTANCE)))
        return 2.0 ** (steps / 2)

    @property
    def factor_names(self) -> tuple[str, ...]:
        """Names in order."""
        return tuple(f.name for f in self.factors)

    def decorrelated(self, share: float) -> ModelSpecification:
        """The same factors with `share`, in [0, 1], of the correlation between different underlyings gone.

        C' = (1 − s)·C + s·(its blocks by underlying), positive semi-definite as C is. Each factor keeps its law, and
        each underlying its own spot–vol correlation; mixing and systemic jumps stay common. Raises InputError for a
        model that draws whole past steps, whose dependence is no matrix.
        """
        if self.history is not None:
            rule = f"model {self.model} draws whole past steps: it has no correlation to lower"
            raise _reject(rule, "set decorrelation to 0", "history")
        own = np.array([f.underlying for f in self.factors])
        kept = np.where(own[:, None] == own, 1.0, 1.0 - share)
        return replace(self, correlation=self.correlation * kept)
