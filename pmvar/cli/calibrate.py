"""`pmvar calibrate`: from histories to the model.json that a run uses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pmvar.errors import UsageError
from pmvar.types import DAY

if TYPE_CHECKING:
    from pmvar.calibration.calibrate import Calibration
    from pmvar.calibration.dependence import Dependence
    from pmvar.calibration.lookback import Lookback
    from pmvar.calibration.panel import Moves, Panel
    from pmvar.calibration.variance_model import VarianceCalibration
    from pmvar.models.specification import ModelSpecification
    from pmvar.report.calibration_report import Sampled

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
    stressed: str | None = None,
    bayes: bool = False,
    seed: int = 1,
    overrides: Sequence[str] = (),
    report: Path | None = None,
    log_json: bool = False,
) -> str:
    """Fit `model` to the panel in `history` and write it at `out`; returns what to print.

    With `bayes` its filters are sampled, too; heston and svcj are sampled always. `report` is where to write a page
    about the fit. Raises QualityGate, and writes nothing but the report, where a posterior fails a gate that is not
    among `overrides`.
    """
    from pmvar.calibration.calibrate import SAMPLED, MissingVols, calibrate, estimate
    from pmvar.calibration.lookback import with_lookback
    from pmvar.calibration.panel import moves
    from pmvar.cli.run import keep_compiled
    from pmvar.io.atomic import whole_file
    from pmvar.io.history_file import write_history
    from pmvar.io.model_file import model_json
    from pmvar.io.posterior_file import write_posterior
    from pmvar.io.table_files import TableFormat

    keep_compiled()
    period = None if stressed is None else _period(stressed)
    panel, source, _ = read_factors(history, vols, assets)
    last = _last_day(panel, as_of)
    if model in SAMPLED:
        if report or stressed:
            raise UsageError(f"--report and --stressed are not for {model}, whose variance has a law of its own")
        return _variances(moves(_within(panel, last, window)), source, out, model, seed, overrides, log_json)
    missing = MissingVols.ASSUME if assume_vols else MissingVols.OMIT
    made = calibrate(estimate(moves(_within(panel, last, window)), model=model), model=model, missing_vols=missing)
    looking_back, found = with_lookback(made.specification, moves(_within(panel, last, None)), period=period)
    made = replace(made, specification=looking_back, notes=(*made.notes, *_looked_back(found, made.estimates.factors)))
    sampled = _sampled(made, seed, overrides, log_json) if bayes else None
    if report is not None:
        from pmvar.report.calibration_report import render

        asked = {"model": model, "history": source, "vols": vols.name if vols else "", "window": window or "all"}
        # Before the gates: whoever is stopped there needs it most.
        with whole_file(report) as temporary:
            temporary.write_text(render(made, settings=asked, sampled=sampled), encoding="utf-8")
    extra: dict[str, Any] = {}
    if sampled is not None:
        sampled.gates.require()
        out.parent.mkdir(parents=True, exist_ok=True)
        written = write_posterior(out.parent, sampled.posterior, made.estimates.factors)
        extra = {"posterior": written, **sampled.gates.document()}
    beside = None
    if made.specification.history is not None:
        beside = write_history(out.parent, made.specification, made.history_day, table_format=TableFormat.PARQUET)
    text = model_json(made.specification, source=source, history=beside, extra=extra)
    with whole_file(out) as temporary:
        temporary.write_text(text, encoding="utf-8")
    said = f"{_table(made)}\n{out}: model {model} of {len(made.specification.factors)} factors"
    return said if report is None else f"{said}\nreport: {report}"


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


def _sampled(made: Calibration, seed: int, overrides: Sequence[str], log_json: bool) -> Sampled:
    """The posterior of the model's volatility filters, judged."""
    from pmvar.calibration.calibrate import FILTERED
    from pmvar.calibration.diagnostics import gates
    from pmvar.calibration.posterior import SAMPLER, sample_posterior
    from pmvar.cli.progress import progress
    from pmvar.report.calibration_report import Sampled

    e = made.estimates
    if e.fit is None:
        raise UsageError(f"--bayes samples the volatility filters of {', '.join(FILTERED)}; this model has none")
    with progress(log_json=log_json) as advance:
        posterior = sample_posterior(
            e.x, seed=seed, volatility=e.fit.volatility, sampler=SAMPLER,
            progress=lambda done: advance("posterior", done, len(e.factors)),
        )
    return Sampled(posterior, gates(posterior, e.x, names=e.factors).overridden(overrides))


def read_factors(
    history: Path, vols: Path | None, assets: Sequence[str] | None
) -> tuple[Panel, dict[str, str], dict[str, float]]:
    """The factors' values in two panels, the source's {file, sha256}, and the last vol of each asset that has one."""
    import numpy as np

    from pmvar.calibration.panel import Panel, factor_panel
    from pmvar.io.panel import Quantity, read_panel

    prices, source = read_panel(history, Quantity.PRICE, assets=assets)
    implied = read_panel(vols, Quantity.VOL)[0] if vols else None
    if implied:
        own = [n for n in implied.name if n in prices.name]
        implied = Panel(implied.day, tuple(own), implied.value[:, [implied.name.index(n) for n in own]])
    last = {n: v[~np.isnan(v)][-1] for n, v in zip(implied.name, implied.value.T, strict=True)} if implied else {}
    return factor_panel(prices, implied), source, {n: float(v) for n, v in last.items()}


def _last_day(panel: Panel, as_of: str | None) -> float:
    from pmvar.io.times import parse_day

    try:
        return parse_day(as_of) if as_of else float(panel.day[-1])
    except ValueError as error:
        raise UsageError(f"--as-of: {error}") from error


def _within(panel: Panel, last: float, window: str | None) -> Panel:
    """The days of the window up to `last`. Raises UsageError for a window that is none, or holds nothing."""
    from pmvar.calibration.panel import Panel
    from pmvar.io.times import format_day

    kept = (panel.day <= last) & (panel.day > last - _seconds(window))
    if kept.sum() < 2:
        raise UsageError(f"the history has {int(kept.sum())} days in the window up to {format_day(last)}")
    return Panel(panel.day[kept], panel.name, panel.value[kept])


def _looked_back(found: Lookback, factors: Sequence[str]) -> list[str]:
    from pmvar.calibration.lookback import LONG_RUN_YEARS
    from pmvar.io.times import format_day

    first, last = map(format_day, found.period)
    short = [f"{n} {y:.1f}" for n, y in zip(factors, found.years.tolist(), strict=True) if y < LONG_RUN_YEARS - 0.1]
    said = f"long-run volatility looks back less than {LONG_RUN_YEARS} years, all there are: {', '.join(short)}"
    return [f"stressed volatility is that of {first} to {last}", *([said] if short else [])]


def _period(text: str) -> tuple[float, float]:
    from pmvar.io.times import parse_day

    first, _, last = text.partition("..")
    try:
        begin, end = parse_day(first), parse_day(last)
    except ValueError as error:
        raise UsageError(f"--stressed {text!r}: write two days, such as 2020-02-15..2020-06-15: {error}") from error
    if not begin < end:
        raise UsageError(f"--stressed {text!r}: the first day must come before the last")
    return begin, end


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
    lines = [f"{'factor':<16}{'moves':>8}{'σ a year':>10}{'long run':>10}{'stressed':>10}{'ν':>8}{fitted}"]
    for f in s.factors[:SHOWN]:
        volatility, *others = (
            (v or 0.0) * s.steps_per_year**0.5 for v in (f.volatility, f.long_run_volatility, f.stressed_volatility)
        )
        nu = "–" if f.degrees_of_freedom is None else f"{f.degrees_of_freedom:.2f}"
        line = f"{f.name:<16}{f.n_obs or f.source:>8}{volatility:>10.1%}{others[0]:>10.1%}{others[1]:>10.1%}{nu:>8}"
        if e.fit and f.name in e.factors:
            i = e.factors.index(f.name)
            for k in ("alpha", "gamma", "beta"):
                value, error = getattr(e.fit.estimate, k)[i], getattr(e.fit.robust_error, k)[i]
                line += f"{value:>10.3f} ±{error:>6.3f}" if error > 0 else f"{value:>10.3f}   held "
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
