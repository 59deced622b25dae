"""From moves to a model: volatility, dependence, tails and jumps, each by the part of this package that fits it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import optimize, stats

from pmvar.calibration.assumed import LOG_VOL_VOLATILITY, SOURCE, SPOT_VOL_CORRELATION, TERM_EXPONENT, VOL_TENOR
from pmvar.calibration.dependence import Dependence, rank_correlation
from pmvar.calibration.garch import VolatilityFit, continued, filtered, fit_volatility
from pmvar.calibration.jump_fit import LEAST_DIFFUSIVE_DOF, JumpFit, JumpLaw, fit_jumps
from pmvar.calibration.panel import Moves, Quirk
from pmvar.calibration.tails import LEAST_DOF, MOST_DOF, SharedTails, shrunk_degrees_of_freedom
from pmvar.calibration.volatility_likelihood import Volatility
from pmvar.errors import InputError, Problem, UsageError
from pmvar.models.garch import EWMA_DECAY
from pmvar.models.specification import LEAST_HISTORY, Factor, ModelSpecification
from pmvar.types import FactorKind, factor_name

MODELS = ("gaussian", "t", "t-multi", "t-garch", "t-jump", "t-garch-jump", "merton", "kou", "fhs", "historical")
"""What `calibrate` can fit."""
SAMPLED = ("heston", "svcj")
"""What `variance_model.calibrate_variances` fits, in minutes."""
FILTERED = ("t-garch", "t-garch-jump", "fhs")
DRAWN = ("fhs", "historical")
"""These draw whole past days, so all their factors need the same ones."""
CALIBRATED = "calibrated"
"""`source` of a factor that was fitted here."""


class MissingVols(StrEnum):
    """What to do with a price that has no history of implied vols."""

    ASSUME = "assume"
    OMIT = "omit"


@dataclass(frozen=True)
class Estimates:
    """What models share: moves of the factors that can be fitted, devolatilised, and how they depend."""

    moves: Moves
    factors: tuple[str, ...]
    x: Float[np.ndarray, "day factor"]
    """ln of the ratio for a fall of a price and ratio − 1 for a rise, as the price map has them; ln ratio of a vol."""
    excluded: tuple[Mapping[str, str], ...]
    fit: VolatilityFit | None
    """None: of constant volatility."""

    def deviations(self, x: Float[np.ndarray, "day factor"]) -> Float[np.ndarray, "later factor"]:
        """σ of each day of `x` and of the day after: the days that were fitted, and any that came later, parameters
        unchanged."""
        if self.fit is None:
            return np.broadcast_to(np.nanstd(self.x, axis=0), (len(x) + 1, x.shape[1]))
        # Where the recursion starts is the fitted days' alone: the mean of later ones must not reach back.
        seen = filtered(self.fit, self.x)
        later = continued(self.fit, x[len(self.x) :], seen.forecast)
        out = np.concatenate([seen.deviation, later.deviation, np.sqrt(later.forecast)[None]])
        for i in np.flatnonzero(~self.fit.usable):
            variance = float(np.nanvar(self.x[:, i]))
            for t, move in enumerate(np.append(x[:, i] - np.nanmean(self.x[:, i]), np.nan)):
                out[t, i] = np.sqrt(variance)
                variance = variance if np.isnan(move) else EWMA_DECAY * variance + (1 - EWMA_DECAY) * move**2
        return out

    @cached_property
    def deviation(self) -> Float[np.ndarray, "later factor"]:
        """σ of each day that was fitted, forecast the day before, and of tomorrow."""
        return self.deviations(self.x)

    @cached_property
    def residual(self) -> Float[np.ndarray, "day factor"]:
        """x less its mean, over σ; NaN where there is none."""
        mean = np.nanmean(self.x, axis=0)
        if self.fit is not None:
            mean = np.where(self.fit.usable, self.fit.estimate.mean, mean)
        return (self.x - mean) / self.deviation[:-1]

    @cached_property
    def dependence(self) -> Dependence:
        """Rank correlation of the residuals."""
        return rank_correlation(self.residual)

    @cached_property
    def tails(self) -> SharedTails:
        """Degrees of freedom of each factor, shrunk towards the common ones."""
        if self.fit is not None and self.fit.usable.any():
            own, error = self.fit.estimate.degrees_of_freedom, self.fit.robust_error.degrees_of_freedom
            return shrunk_degrees_of_freedom(own, error)
        found = [_tail(z[~np.isnan(z)]) for z in self.residual.T]
        return shrunk_degrees_of_freedom(*map(np.array, zip(*found, strict=True)))

    @cached_property
    def common_degrees_of_freedom(self) -> float:
        """One ν for all factors: the likelihood of all residuals taken as independent is greatest there."""
        return _tail(self.residual[~np.isnan(self.residual)])[0]

    def jumps(self, law: JumpLaw, degrees_of_freedom: float) -> JumpFit:
        """Systemic jumps in the residuals."""
        return fit_jumps(
            self.residual, law=law, degrees_of_freedom=degrees_of_freedom, steps_per_year=self.moves.steps_per_year
        )


@dataclass(frozen=True)
class Calibration:
    """A model, and what it was made from."""

    specification: ModelSpecification
    estimates: Estimates
    jumps: JumpFit | None = None
    notes: tuple[str, ...] = ()
    history_day: Float[np.ndarray, " row"] = field(default_factory=lambda: np.zeros(0))
    """Epoch seconds of each row of the specification's history."""


class Choice(NamedTuple):
    """What a name such as `t-garch` or `fhs:ewma` asks for."""

    model: str
    filter: Volatility | None
    """None: of constant volatility."""


def choice(name: str) -> Choice:
    """MODEL, or MODEL:FILTER of a model that has one. Raises UsageError for a name that is none."""
    model, colon, own = name.partition(":")
    if model in SAMPLED:
        rule = "takes minutes to sample for each asset: too long to be fitted anew every few steps"
        raise UsageError(f"model {model} {rule}; `pmvar calibrate` fits it once")
    if model not in MODELS:
        known = ", ".join((*MODELS, *SAMPLED))
        raise UsageError(f"model {model!r} is not calibrated by this version; it fits {known}")
    if colon and (model not in FILTERED or own not in set(Volatility)):
        models, filters = ", ".join(FILTERED), ", ".join(Volatility)
        raise UsageError(f"{name!r}: a filter is one of {filters}, and the models that have one are {models}")
    return Choice(model, Volatility(own or Volatility.GJR) if model in FILTERED else None)


def family(name: str) -> str:
    """Models of one family share their estimates."""
    model, own = choice(name)
    return f"{own or 'constant'}{', whole days' if model in DRAWN else ''}"


def x_of(moves: Moves) -> Float[np.ndarray, "day factor"]:
    """x of each factor of `moves`, whose names are those of factors."""
    with np.errstate(invalid="ignore"):
        log = np.log(moves.ratio)
        rises = np.array([name.endswith(f":{FactorKind.SPOT}") for name in moves.name])
        return np.where(rises & (moves.ratio > 1), moves.ratio - 1, log)


def estimate(moves: Moves, *, model: str) -> Estimates:
    """What `model` (and any other of its family: by its filter, drawn from whole days or not) is made from.

    `model` is a name as `choice` reads it. Factors that have ended, with fewer than 250 moves, or that do not move are
    left out and say so. Raises UsageError for a model that is not fitted here, InputError where no factor is left.
    """
    model, own = choice(model)
    x, kept, excluded = screened(moves, model=model)
    fit = None if own is None else fit_volatility(x, volatility=own)
    return Estimates(moves, kept, x, excluded, fit)


def screened(
    moves: Moves, *, model: str
) -> tuple[Float[np.ndarray, "day factor"], tuple[str, ...], tuple[Mapping[str, str], ...]]:
    """x of the factors that `model` can be fitted to, their names, and what is left out and why.

    Raises InputError where no factor is left.
    """
    x = x_of(moves)
    ended = {f.name for f in moves.findings if f.quirk is Quirk.ENDED}
    excluded = [
        {"name": name, "reason": reason}
        for name, column in zip(moves.name, x.T, strict=True)
        if (reason := _unfit(column, name in ended))
    ]
    kept = [i for i, name in enumerate(moves.name) if name not in {e["name"] for e in excluded}]
    if model in DRAWN:
        kept, late = _in_common(x, kept, moves.name)
        excluded += late
    if not kept:
        reasons = "; ".join(f"{e['name']}: {e['reason']}" for e in excluded)
        rule = f"no factor has a history that can be fitted: {reasons}"
        raise InputError(Problem(rule, f"supply at least {LEAST_HISTORY} moves up to the last day", file="history"))
    return x[:, kept], tuple(moves.name[i] for i in kept), tuple(excluded)


def calibrate(estimates: Estimates, *, model: str, missing_vols: MissingVols = MissingVols.ASSUME) -> Calibration:
    """The specification of `model` from what was estimated for its family.

    A price without a history of vols gets an assumed vol factor (source `assumed`), but for models that draw whole past
    days, which cannot have one.
    """
    e, (name, own) = estimates, choice(model)
    if own is not (None if e.fit is None else e.fit.volatility):
        raise UsageError(f"model {model} needs estimates of its own family: estimate(moves, model={model!r})")
    model = name
    nu = _degrees_of_freedom(e, model)
    std = np.nanstd(e.x, axis=0)
    notes = [f"{f.name}: {f.quirk} ({f.count}): {f.quirk.meaning}" for f in e.moves.findings]
    parameters: dict[str, Any] = {}
    jumps = None
    if model.endswith("jump") or model in ("merton", "kou"):
        law = JumpLaw.DOUBLE_EXPONENTIAL if model == "kou" else JumpLaw.NORMAL
        jumps = e.jumps(law, np.inf if nu is None else LEAST_DIFFUSIVE_DOF)
        parameters["jumps"] = _jump_parameters(jumps, e.factors, std)
        if not jumps.identified:
            notes.append(
                f"jumps: λ = {jumps.intensity:.1f} ± {jumps.intensity_error:.1f} a year comes from its prior as much "
                "as from the data, which cannot tell jumps from fat tails"
            )
    factors = tuple(
        Factor(name, float(s), v, CALIBRATED, int(n), VOL_TENOR, TERM_EXPONENT if name.endswith(":vol") else 0.0)
        for name, s, v, n in zip(e.factors, std, nu or [None] * len(std), np.sum(~np.isnan(e.x), axis=0), strict=True)
    )
    specification = ModelSpecification(
        model=model,
        as_of=float(e.moves.day[-1]),
        factors=factors,
        correlation=e.dependence.correlation,
        steps_per_year=e.moves.steps_per_year,
        parameters=parameters,
        state={} if own is None else filter_state(e, e.deviation[-1]),
        excluded=e.excluded,
    )
    if e.fit is not None:
        unfitted = [f for f, ok in zip(e.factors, e.fit.usable, strict=True) if not ok]
        notes += [f"{f}: no GARCH fit; EWMA of decay {EWMA_DECAY} instead" for f in unfitted]
    if model in DRAWN:
        whole = ~np.isnan(e.x).any(axis=1)
        return Calibration(
            replace(specification, history=e.x[whole]), e, jumps, tuple(notes), history_day=e.moves.day[whole]
        )
    if missing_vols is MissingVols.ASSUME:
        specification = with_assumed_vols(specification)
    return Calibration(specification, e, jumps, tuple(notes))


def with_assumed_vols(specification: ModelSpecification) -> ModelSpecification:
    """`specification` with an assumed vol factor for each price that has none.

    Each such vol is ρ·(its price) + √(1−ρ²)·u, u independent of all that was fitted and correlated as the prices are:
    so the matrix stays a correlation matrix whatever was fitted.
    """
    names = specification.factor_names
    without = [
        i
        for i, f in enumerate(specification.factors)
        if f.kind is FactorKind.SPOT and factor_name(f.underlying, FactorKind.VOL) not in names
    ]
    if not without:
        return specification
    own = tuple(
        Factor(
            factor_name(f.underlying, FactorKind.VOL), LOG_VOL_VOLATILITY / np.sqrt(specification.steps_per_year),
            f.degrees_of_freedom, SOURCE, 0, VOL_TENOR, TERM_EXPONENT,
        )
        for f in (specification.factors[i] for i in without)
    )  # fmt: skip
    c, rho = specification.correlation, SPOT_VOL_CORRELATION
    across = rho * c[without]
    both = np.block([[c, across.T], [across, c[np.ix_(without, without)]]])
    return replace(specification, factors=specification.factors + own, correlation=both)


def _unfit(x: Float[np.ndarray, " day"], ended: bool) -> str:
    """Why a factor is left out; "" if it is not."""
    x = x[~np.isnan(x)]
    if ended:
        return "no price on the last day"
    if len(x) < LEAST_HISTORY:
        return f"{len(x)} moves; {LEAST_HISTORY} are needed"
    return "it never moves" if not x.std() > 0 else ""


def _in_common(
    x: Float[np.ndarray, "day factor"], kept: list[int], names: tuple[str, ...]
) -> tuple[list[int], list[dict[str, str]]]:
    """Factors without the youngest, until enough days hold a move of all; and those left out."""
    late = []
    while len(kept) > 1 and np.sum(~np.isnan(x[:, kept]).any(axis=1)) < LEAST_HISTORY:
        youngest = min(kept, key=lambda i: int(np.sum(~np.isnan(x[:, i]))))
        kept = [i for i in kept if i != youngest]
        reason = f"fewer than {LEAST_HISTORY} days hold moves of it and of all older factors"
        late.append({"name": names[youngest], "reason": reason})
    return kept, late


def _tail(z: Float[np.ndarray, " value"]) -> tuple[float, float]:
    """ν of standardised values by maximum likelihood, and its standard error; NaN error on a bound."""
    z = z / z.std()

    def minus(kappa: float) -> float:
        nu = 1 / kappa
        return -float(np.sum(stats.t.logpdf(z, nu, scale=np.sqrt((nu - 2) / nu))))

    low, high = 1 / MOST_DOF, 1 / LEAST_DOF - 1e-6
    kappa = float(np.asarray(optimize.fminbound(minus, low, high, xtol=1e-6)))
    h = 1e-3 * kappa
    curvature = (minus(kappa - h) - 2 * minus(kappa) + minus(kappa + h)) / h**2
    inside = low * 1.01 < kappa < high * 0.99 and curvature > 0
    return 1 / kappa, float(1 / np.sqrt(curvature) / kappa**2) if inside else np.nan


def _degrees_of_freedom(e: Estimates, model: str) -> list[float] | None:
    """Of each factor; None for models that have none."""
    if model in ("gaussian", "merton", "kou", *DRAWN):
        return None
    if model == "t":
        return [e.common_degrees_of_freedom] * len(e.factors)
    own = e.tails.degrees_of_freedom
    return list(map(float, np.maximum(own, LEAST_DIFFUSIVE_DOF) if model.endswith("jump") else own))


def filter_state(e: Estimates, deviation: Float[np.ndarray, " factor"]) -> dict[str, Any]:
    """`state` of a filtered model: each factor's recursion, and its σ of the next day."""
    assert e.fit is not None, "a model of constant volatility has no state"
    rows = {}
    for i, name in enumerate(e.factors):
        own = {k: float(getattr(e.fit.estimate, k)[i]) for k in ("omega", "alpha", "gamma", "beta")}
        rows[name] = {**(own if e.fit.usable[i] else {"ewma": True}), "variance": float(deviation[i] ** 2)}
    return {"filter": rows}


def _jump_parameters(jumps: JumpFit, factors: tuple[str, ...], std: Float[np.ndarray, " factor"]) -> dict[str, Any]:
    """`parameters.jumps`: sizes in deviations of the market's move, loadings in units of each factor's x."""
    scatter = {f: float(s * v) for f, s, v in zip(factors, jumps.scatter, std, strict=True) if s > 0}
    return {
        "intensity": jumps.intensity,
        **jumps.size,
        "loading": {f: float(b * v) for f, b, v in zip(factors, jumps.share, std, strict=True)},
        **({"scatter": scatter} if scatter else {}),
    }
