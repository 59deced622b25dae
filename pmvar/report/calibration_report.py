"""The report of a calibration: what was fitted, how sure that is, and whether it is the law of its own history."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from pmvar.calibration import assumed, jump_fit, tails
from pmvar.calibration.calibrate import DRAWN, Calibration
from pmvar.calibration.dependence import t_tail_dependence
from pmvar.calibration.diagnostics import Gates, tail_uniformity
from pmvar.calibration.garch import FitStatus
from pmvar.calibration.goodness import JOINT_SHARE, joint_tails, probabilities, step_laws
from pmvar.calibration.jump_fit import JumpFit, market_move
from pmvar.calibration.panel import Quirk
from pmvar.calibration.posterior import VolatilityPosterior
from pmvar.calibration.posterior_summary import FAR, Marginal, marginals, prior_coordinates
from pmvar.calibration.volatility_likelihood import RECURSION, RISKMETRICS_DECAY, Volatility
from pmvar.io.times import format_day
from pmvar.models.composed import LEAST_DIFFUSION
from pmvar.models.garch import EWMA_DECAY
from pmvar.report import calibration_figures as figures
from pmvar.report import summary
from pmvar.report.page import page
from pmvar.types import FactorKind

FACTORS = 12
"""Factors whose law is drawn against their history."""
PAIRS = 15
"""Pairs whose joint tails are listed."""
CHAINED = 4
"""Factors whose chains are drawn."""
HEATED = 40
"""Factors in the heat map."""
JUMP_DAYS = 12
"""Days listed that probably had a jump."""
LABELS = {
    "mean": "μ, % a day",
    "omega": "ln ω, %² a day",
    "persistence": "p = α + γ/2 + β",
    "news_share": "(α + γ/2) / p",
    "falls_share": "(α + γ) / (2α + γ)",
    "excess_dof": "ν − 2",
}
"""Of the parameters of `priors`."""
FILTER_LAWS = {
    Volatility.GJR: "GJR-GARCH(1,1)",
    Volatility.GARCH: "GARCH(1,1)",
    Volatility.EWMA: "EWMA of its own decay",
    Volatility.RISKMETRICS: f"EWMA of decay {RISKMETRICS_DECAY}",
}


@dataclass(frozen=True)
class Sampled:
    """A posterior and the verdicts on it."""

    posterior: VolatilityPosterior
    gates: Gates


def render(made: Calibration, *, settings: Mapping[str, Any], sampled: Sampled | None = None) -> str:
    """The report as HTML, without scripts or references elsewhere. Equal arguments give equal text.

    `settings` says what the calibration was asked for: file, hash, window.
    """
    e, s = made.estimates, made.specification
    d = e.dependence
    fit = [] if s.model in DRAWN else _margins(made)
    pairs = joint_tails(made)
    shown = min(len(e.factors), HEATED)
    return page(
        "calibration.html.j2",
        model=s.model,
        first_day=format_day(float(e.moves.day[0])),
        last_day=format_day(float(e.moves.day[-1])),
        n_days=len(e.moves.day),
        steps_per_year=s.steps_per_year,
        filter_law=None if e.fit is None else FILTER_LAWS[e.fit.volatility],
        drawn=s.model in DRAWN,
        n_assumed=sum(f.source == assumed.SOURCE for f in s.factors),
        notes=[n for n in made.notes if not any(f"{f.name}: {f.quirk} (" in n for f in e.moves.findings)],
        quirks=_quirks(made),
        excluded=_grouped((x["reason"], x["name"]) for x in e.excluded),
        unknown=_unknown(made, sampled),
        factors=_factors(made, {row["name"]: row["p_value"] for row in fit}),
        decay=EWMA_DECAY,
        common=_common(made),
        jumps=None if made.jumps is None else _jumps(made, made.jumps),
        dependence=d,
        standard_error=_typical_error(made),
        correlations=figures.correlations(d.correlation[:shown, :shown], list(e.factors[:shown])) if shown > 3 else "",
        heated=shown,
        joint_share=JOINT_SHARE,
        observed=float(np.mean([p.observed for p in pairs])) if pairs else np.nan,
        fitted=float(np.mean([p.fitted for p in pairs])) if pairs else np.nan,
        n_pairs=len(pairs),
        pairs=_pairs(made, sorted(pairs, key=lambda p: -abs(p.distance))[:PAIRS]),
        fit=fit,
        n_drawn=FACTORS,
        bayes=None if sampled is None else _bayes(made, sampled),
        flat_settings=summary.flatten(settings),
    )


def _grouped(pairs: Any) -> list[tuple[str, str]]:
    """Values of each key, joined, in the order of the keys' first."""
    found: dict[str, list[str]] = {}
    for key, value in pairs:
        found.setdefault(key, []).append(value)
    return [(key, ", ".join(values)) for key, values in found.items()]


def _quirks(made: Calibration) -> list[tuple[str, str, str]]:
    """Each quirk of the data, what was done about it, and the factors that are in the model and have it."""
    kept = [f for f in made.estimates.moves.findings if f.name in made.estimates.factors]
    groups = _grouped((str(f.quirk), f"{f.name} ({f.count}, from {format_day(f.day)})") for f in kept)
    return [(quirk, Quirk(quirk).meaning, names) for quirk, names in groups]


def _factors(made: Calibration, p_value: Mapping[str, float]) -> list[dict[str, Any]]:
    """The table of factors: estimates with their robust errors; None for what was not estimated."""
    e, rows = made.estimates, []
    own_tails = made.specification.model not in ("gaussian", "merton", "kou", *DRAWN)
    for i, name in enumerate(e.factors):
        factor = made.specification.factors[i]
        row: dict[str, Any] = {
            "name": name,
            "n_obs": factor.n_obs,
            "volatility": factor.volatility * made.specification.steps_per_year**0.5,
            "used": factor.degrees_of_freedom,
            "share": float(e.tails.intensity[i]) if own_tails else None,
            "p_value": p_value.get(name),
            "parameters": None,
            "bounds": "",
        }
        if e.fit is not None:
            row["tomorrow"] = float(e.deviation[-1, i]) * made.specification.steps_per_year**0.5
            if e.fit.usable[i]:
                row["parameters"] = {
                    key: (float(value[i]), float(error[i]))
                    for key, value, error in zip(
                        e.fit.estimate._fields, e.fit.estimate, e.fit.robust_error, strict=True
                    )
                }
                if e.fit.status[i] is FitStatus.ON_BOUND:
                    at = {k: v for k, (v, _) in row["parameters"].items()}
                    row["bounds"] = ", ".join(_bounds(at, {c.name for c in RECURSION[e.fit.volatility]}))
        rows.append(row)
    return rows


def _bounds(p: Mapping[str, float], searched: set[str]) -> list[str]:
    """Which bounds of the search, over these of its coordinates, the parameters lie on."""
    reached = {
        "α + γ/2 + β = 1": "persistence" in searched and p["alpha"] + p["gamma"] / 2 + p["beta"] > 1 - 1e-9,
        "α = 0": p["alpha"] < 1e-12,
        "α + γ = 0": "falls_share" in searched and p["alpha"] + p["gamma"] < 1e-12,
        "β = 0": p["beta"] < 1e-12,
        "normal": p["degrees_of_freedom"] > 0.999 * tails.MOST_DOF,
        "ν least": p["degrees_of_freedom"] < 1.001 * tails.LEAST_DOF,
    }
    return [name for name, is_so in reached.items() if is_so] or ["ω ≈ 0"]


def _common(made: Calibration) -> dict[str, float] | None:
    """Degrees of freedom and how they were shrunk, where the model has any."""
    e, model = made.estimates, made.specification.model
    if model in ("gaussian", "merton", "kou", *DRAWN):
        return None
    if model == "t":
        return {"nu": e.common_degrees_of_freedom}
    t = e.tails
    return {"nu": t.common, "spread": t.spread, "share": float(np.mean(t.intensity))}


def _unknown(made: Calibration, sampled: Sampled | None) -> list[tuple[str, str]]:
    """What daily data do not identify, and what stands in its place."""
    s, out = made.specification, []
    if made.jumps is not None:
        error = made.jumps.intensity_error
        sizes = (
            f"their mean by N(0, {jump_fit.SIZE:g}²) and their deviation"
            if made.jumps.law is jump_fit.JumpLaw.NORMAL
            else "their direction by Beta(2, 2) and their mean sizes up and down"
        )
        out.append((
            "How often it jumps",
            "A day with a jump looks like a day of fat tails. The intensity λ has the prior Gamma with mean "
            f"{jump_fit.JUMPS_A_YEAR:g} and deviation {jump_fit.JUMPS_SPREAD:g} a year; the data narrowed it to a "
            f"deviation of {error:.2g}, {'so that it is theirs' if made.jumps.identified else 'hardly at all'}.",
        ))  # fmt: skip
        out.append((
            "How large jumps are",
            f"Few days speak. In deviations of the market’s move {sizes} by a lognormal of median {jump_fit.SIZE:g} "
            f"and log-deviation {jump_fit.SIZE_SPREAD:g}. At most one jump a day.",
        ))  # fmt: skip
        if s.model.endswith("jump"):
            out.append((
                "Fat tails beside jumps",
                f"ν is held at {jump_fit.LEAST_DIFFUSIVE_DOF:g} or above: a fatter tail would take the jumps for "
                "itself.",
            ))  # fmt: skip
    if (common := _common(made)) and "share" in common and not s.model.endswith("jump"):
        out.append((
            "Each factor’s own ν",
            "A few days decide it. Empirical Bayes: 1/ν is normal between factors, about the common value; the mean "
            f"factor takes {common['share']:.0%} of it from there. Where none has an estimate, ν = "
            f"{tails.MISSING_DOF:g}.",
        ))  # fmt: skip
    out.append(("Drift", "No history of this length knows a mean. Prices grow to their forwards; μ is fitted to centre "
                "the moves, and not used."))  # fmt: skip
    if any(f.source == assumed.SOURCE for f in s.factors):
        out.append((
            "Implied vols without a history",
            f"Assumed, not estimated: {assumed.LOG_VOL_VOLATILITY:.0%} per √year in ln σ, correlation "
            f"{assumed.SPOT_VOL_CORRELATION:g} with the own price, ν as its price.".replace("-", "−"),
        ))  # fmt: skip
    if s.model not in DRAWN and any(f.kind is FactorKind.VOL for f in s.factors):
        out.append(("Term structure of vol shocks", f"Assumed: (30 days/τ)^{assumed.TERM_EXPONENT:g}."))
    if sampled is not None:
        instead = "Informative, for returns in per cent; below, each posterior stands beside its prior."
        out.append(("Priors of the filters", instead))
    return out


def _jumps(made: Calibration, found: JumpFit) -> dict[str, Any]:
    e = made.estimates
    move, p = market_move(e.residual), np.nan_to_num(found.probability)
    days = [int(t) for t in np.argsort(-p, kind="stable")[:JUMP_DAYS] if p[t] > 0.5]
    swamped = []
    if e.fit is not None:
        taken = np.array([law.jump_variance for law in step_laws(made)])
        often = np.mean((1 - LEAST_DIFFUSION) * e.deviation[:-1] ** 2 < taken, axis=0)
        swamped = [(f, float(v)) for f, v in zip(e.factors, often, strict=True) if v > 0.01]
    return {
        "fit": found,
        "size": {k.replace("_", " "): v for k, v in found.size.items()},
        "n_days": int(np.sum(p > 0.5)),
        "days": [(format_day(float(e.moves.day[t])), float(move[t]), float(p[t])) for t in sorted(days)],
        "shares": list(zip(e.factors, found.share.tolist(), found.scatter.tolist(), strict=True)),
        "swamped": swamped,
    }


def _typical_error(made: Calibration) -> float:
    """Median standard error of a rank correlation; NaN with one factor."""
    error = made.estimates.dependence.standard_error[np.triu_indices(len(made.estimates.factors), 1)]
    known = error[~np.isnan(error)]
    return float(np.median(known)) if len(known) else np.nan


def _pairs(made: Calibration, pairs: list[Any]) -> list[dict[str, Any]]:
    e, d = made.estimates, made.estimates.dependence
    nu = np.array([f.degrees_of_freedom or np.inf for f in made.specification.factors])
    rows = []
    for p in pairs:
        rho, own = float(d.correlation[p.first, p.second]), float(stats.hmean(nu[[p.first, p.second]]))
        limit = float(t_tail_dependence(np.array(abs(rho)), own)) if own < np.inf and made.jumps is None else None
        rows.append({
            "first": e.factors[p.first], "second": e.factors[p.second], "n_days": p.n_days,
            "rank": float(d.rank[p.first, p.second]), "error": float(d.standard_error[p.first, p.second]),
            "fitted_rho": rho, "observed": p.observed, "fitted": p.fitted, "distance": p.distance, "limit": limit,
        })  # fmt: skip
    return rows


def _margins(made: Calibration) -> list[dict[str, Any]]:
    """Each factor against its own law, the worst first; the figures of the first dozen."""
    e, laws = made.estimates, step_laws(made)
    pit = probabilities(e, laws)
    there = ~np.isnan(pit)
    p_value = [tail_uniformity(pit[there[:, i], i]) for i in range(len(e.factors))]
    rows = []
    for place, i in enumerate(np.argsort(p_value, kind="stable").tolist()):
        z = e.residual[there[:, i], i]
        row = {"name": e.factors[i], "p_value": p_value[i], "low": float(z.min()), "high": float(z.max())}
        if place < FACTORS:
            law = laws[i].pooled(e.deviation[:-1][there[:, i], i])
            row["figures"] = (
                figures.probabilities(pit[there[:, i], i], name=f"u{i}"),
                figures.tail(z, law, lower=True, name=f"l{i}"),
                figures.tail(z, law, lower=False, name=f"h{i}"),
            )
        rows.append(row)
    return rows


def _bayes(made: Calibration, sampled: Sampled) -> dict[str, Any]:
    """Gates, posteriors beside priors and estimates, and the chains of the factors that mix worst."""
    posterior, e = sampled.posterior, made.estimates
    usable = np.flatnonzero(posterior.usable).tolist()
    found = dict(zip(usable, marginals(posterior, usable), strict=True))
    worst = sorted(usable, key=lambda i: -max(m.r_hat for m in found[i]))
    estimate = None
    if e.fit is not None and e.fit.volatility is posterior.volatility:
        estimate = prior_coordinates(e.fit.estimate, unit=posterior.unit, volatility=posterior.volatility)
    rows = []
    for i in worst:
        for m in found[i]:
            low, middle, high = np.quantile(m.draws, (0.05, 0.5, 0.95))
            rows.append({
                "factor": e.factors[i], "label": LABELS[m.name], "marginal": m, "low": low, "median": middle,
                "high": high, "estimate": None if estimate is None else float(estimate[m.name][i]),
                "far": m.beyond < FAR,
            })  # fmt: skip
    return {
        "gates": sampled.gates.gates,
        "overrides": sampled.gates.overrides,
        "refused": [g.name for g in sampled.gates.failed if g.name not in sampled.gates.overrides],
        "sampler": posterior.draws.omega.shape[1:],
        "volatility": str(posterior.volatility).upper(),
        "rows": rows,
        "chains": [(e.factors[i], [_chains(i, m) for m in found[i]]) for i in worst[:CHAINED]],
    }


def _chains(asset: int, m: Marginal) -> tuple[str, str, str]:
    name = f"{asset}{m.name.replace('_', '')}"
    label = LABELS[m.name]
    return (
        figures.density(m, label, name=f"d{name}"),
        figures.trace(m, label, name=f"t{name}"),
        figures.ranks(m, name=f"r{name}"),
    )
