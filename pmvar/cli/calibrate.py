"""`pmvar calibrate`: from histories to the model.json that a run uses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmvar.errors import UsageError
from pmvar.types import DAY

if TYPE_CHECKING:
    from pmvar.calibration.calibrate import Calibration
    from pmvar.calibration.dependence import Dependence
    from pmvar.calibration.panel import Moves
    from pmvar.calibration.variance_model import VarianceCalibration
    from pmvar.models.specification import ModelSpecification

SHOWN = 30
"""Factors and notes printed."""
_WINDOW = re.compile(r"([1-9]\d{0,4})([dy])", re.ASCII)


def calibrate_history(
    history: Path,
    vols: Path | None,
    out: Path,
    model: str,
    assets: Sequence[str] | None,
    as_of: str | None,
    window: str | None,
    *,
    assume_vols: bool,
    bayes: bool = False,
    seed: int = 1,
    overrides: Sequence[str] = (),
    log_json: bool = False,
) -> str:
    """Fit `model` to the panel in `history` and write it at `out`; returns what to print.

    With `bayes` its filters are sampled, too; heston and svcj are sampled always. Raises QualityGate, and writes
    nothing, where a posterior fails a gate that is not among `overrides`.
    """
    from pmvar.calibration.calibrate import SAMPLED, MissingVols, calibrate, estimate
    from pmvar.cli.run import keep_compiled
    from pmvar.io.atomic import whole_file
    from pmvar.io.history_file import write_history
    from pmvar.io.model_file import model_json
    from pmvar.io.table_files import TableFormat

    keep_compiled()
    moves, source, _ = read_moves(history, vols, assets, as_of=as_of, window=window)
    if model in SAMPLED:
        return _variances(moves, source, out, model, seed, overrides, log_json)
    missing = MissingVols.ASSUME if assume_vols else MissingVols.OMIT
    made = calibrate(estimate(moves, model=model), model=model, missing_vols=missing)
    sampled: dict[str, Any] = {}
    if bayes:
        sampled = _sampled(made, out.parent, seed, overrides, log_json)
    beside = None
    if made.specification.history is not None:
        beside = write_history(out.parent, made.specification, made.history_day, table_format=TableFormat.PARQUET)
    text = model_json(made.specification, source=source, history=beside, extra=sampled)
    with whole_file(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return f"{_table(made)}\n{out}: model {model} of {len(made.specification.factors)} factors"


def _variances(
    moves: Moves, source: dict[str, str], out: Path, model: str, seed: int, overrides: Sequence[str], log_json: bool
) -> str:
    """Sample the variance of each price, and write the model; returns what to print."""
    from pmvar.calibration.variance_model import calibrate_variances
    from pmvar.calibration.variance_posterior import SAMPLER
    from pmvar.cli.progress import progress
    from pmvar.io.atomic import whole_file
    from pmvar.io.model_file import model_json

    with progress(log_json=log_json) as advance:
        made = calibrate_variances(
            moves, model=model, seed=seed, sampler=SAMPLER, progress=lambda done, all_: advance("posterior", done, all_)
        )
    judged = made.gates.overridden(overrides)
    judged.require()
    text = model_json(made.specification, source=source, extra=judged.document())
    with whole_file(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    gates = "\n".join(g.message for g in judged.gates)
    return f"{_variance_table(made)}\n{gates}\n{out}: model {model} of {len(made.specification.factors)} factors"


def _variance_table(made: VarianceCalibration) -> str:
    """Each asset's parameters, a year, and notes."""
    s = made.specification
    jumps = s.parameters.get("jumps")
    lines = [f"{'asset':<12}{'σ today':>9}{'σ of θ':>9}{'κ':>8}{'ξ':>8}{'ρ':>8}"]
    if jumps is not None:
        lines[0] += f"{'μ_s':>9}{'σ_s':>9}{'μ_v':>9}{'ρ_J':>9}"
    for i, (asset, row) in enumerate(list(s.parameters["variance"].items())[:SHOWN]):
        rho = s.correlation[i, i + len(s.factors) // 2]
        line = f"{asset:<12}{row['initial'] ** 0.5:>9.1%}{row['theta'] ** 0.5:>9.1%}{row['kappa']:>8.1f}"
        line += f"{row['vol_of_variance']:>8.2f}{rho:>8.2f}"
        if jumps is not None:
            own = jumps["by_underlying"][asset]
            line += f"{own['mean']:>9.2%}{own['deviation']:>9.2%}{own['variance_mean']:>9.3f}{own['correlation']:>9.3f}"
        lines.append(line)
    if len(made.posteriors) > SHOWN:
        lines.append(f"… and {len(made.posteriors) - SHOWN} more")
    if jumps is not None:
        lines.append(f"jumps of all at once: {jumps['intensity']:.1f} a year")
    return "\n".join([*lines, *_notes(made.dependence, made.notes, s)])


def _sampled(made: Calibration, folder: Path, seed: int, overrides: Sequence[str], log_json: bool) -> dict[str, Any]:
    """The posterior of the model's volatility filters, written into `folder`; its keys of model.json."""
    from pmvar.calibration.calibrate import FILTERED
    from pmvar.calibration.diagnostics import gates
    from pmvar.calibration.posterior import SAMPLER, sample_posterior
    from pmvar.cli.progress import progress
    from pmvar.io.posterior_file import write_posterior

    e = made.estimates
    if e.fit is None:
        raise UsageError(f"--bayes samples the volatility filters of {', '.join(FILTERED)}; this model has none")
    with progress(log_json=log_json) as advance:
        posterior = sample_posterior(
            e.x, seed=seed, sampler=SAMPLER, progress=lambda done: advance("posterior", done, len(e.factors))
        )
    judged = gates(posterior, e.x, names=e.factors).overridden(overrides)
    judged.require()
    folder.mkdir(parents=True, exist_ok=True)
    return {"posterior": write_posterior(folder, posterior, e.factors), **judged.document()}


def read_moves(
    history: Path,
    vols: Path | None,
    assets: Sequence[str] | None,
    *,
    as_of: str | None = None,
    window: str | None = None,
) -> tuple[Moves, dict[str, str], dict[str, float]]:
    """Moves of the factors in two panels, the source's {file, sha256}, and the last vol of each asset that has one.

    Raises UsageError for a date or a window that is none.
    """
    import numpy as np

    from pmvar.calibration.panel import Panel, factor_panel, moves
    from pmvar.io.panel import Quantity, read_panel
    from pmvar.io.times import parse_day

    prices, source = read_panel(history, Quantity.PRICE, assets=assets)
    implied = read_panel(vols, Quantity.VOL)[0] if vols else None
    if implied:
        own = [n for n in implied.name if n in prices.name]
        implied = Panel(implied.day, tuple(own), implied.value[:, [implied.name.index(n) for n in own]])
    panel = factor_panel(prices, implied)
    try:
        end = parse_day(as_of) if as_of else float(panel.day[-1])
    except ValueError as error:
        raise UsageError(f"--as-of: {error}") from error
    kept = (panel.day <= end) & (panel.day > end - _seconds(window))
    if kept.sum() < 2:
        raise UsageError(f"{history} has {int(kept.sum())} days in the window up to {as_of or 'its last day'}")
    last = {n: v[~np.isnan(v)][-1] for n, v in zip(implied.name, implied.value.T, strict=True)} if implied else {}
    within = Panel(panel.day[kept], panel.name, panel.value[kept])
    return moves(within), source, {n: float(v) for n, v in last.items()}


def _seconds(window: str | None) -> float:
    if window is None:
        return float("inf")
    match = _WINDOW.fullmatch(window)
    if not match:
        raise UsageError(f"window {window!r}: write days or years, such as 1000d or 4y")
    return int(match[1]) * DAY * (365.25 if match[2] == "y" else 1.0)


def _table(made: Calibration) -> str:
    """Factors, what was fitted with its standard error, and notes."""
    e, s = made.estimates, made.specification
    fitted = "".join(f"{name:>18}" for name in "αγβ") if e.fit else ""
    lines = [f"{'factor':<16}{'moves':>8}{'σ a year':>10}{'ν':>8}{fitted}"]
    for f in s.factors[:SHOWN]:
        volatility = f.volatility * s.steps_per_year**0.5
        nu = "–" if f.degrees_of_freedom is None else f"{f.degrees_of_freedom:.2f}"
        line = f"{f.name:<16}{f.n_obs or f.source:>8}{volatility:>10.1%}{nu:>8}"
        if e.fit and f.name in e.factors:
            i = e.factors.index(f.name)
            for k in ("alpha", "gamma", "beta"):
                value, error = getattr(e.fit.estimate, k)[i], getattr(e.fit.robust_error, k)[i]
                line += f"{value:>10.3f} ±{error:>6.3f}" if error > 0 else f"{value:>10.3f}  bound "
        lines.append(line)
    if len(s.factors) > SHOWN:
        lines.append(f"… and {len(s.factors) - SHOWN} more")
    return "\n".join([*lines, *_notes(e.dependence, made.notes, s)])


def _notes(d: Dependence, notes: Sequence[str], s: ModelSpecification) -> list[str]:
    """How factors depend, what was noticed, and what is left out."""
    lines = [
        f"rank correlation: mean {d.target:.2f}, shrunk towards it by {d.intensity:.1%}, repaired by {d.distance:.1g}"
    ]
    said = [*notes, *(f"{x['name']} is left out: {x['reason']}" for x in s.excluded)]
    lines += [f"note: {n}" for n in said[:SHOWN]]
    if len(said) > SHOWN:
        lines.append(f"… and {len(said) - SHOWN} more notes")
    return lines
