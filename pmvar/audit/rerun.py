"""Rerun: the book that a manifest names, as the run took it, and its margins once more."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pmvar.engine import Charged, Priced, Progress, model_stresses, price_all, protecting, quiet
from pmvar.errors import AuditError, UsageError
from pmvar.io.book import Book, load_book
from pmvar.io.run import MANIFEST, Run, hash_file, read_run
from pmvar.io.tables import ROWS
from pmvar.market.snapshot import MarketSnapshot
from pmvar.methods.standard import unit_requirements
from pmvar.models.specification import ModelSpecification
from pmvar.portfolio import Portfolio
from pmvar.risk.accounts import LOSS_BYTES
from pmvar.risk.rules import MarginRules
from pmvar.scenarios import simulate, stress_scenarios
from pmvar.types import Detail, Drift, Parameters, Precision, Sampling
from pmvar.valuation import reprice
from pmvar.valuation.reprice import ProfitAndLoss

RUN_SETTINGS = (
    "horizon", "seed", "sampling", "netting", "precision", "surface", "decorrelation", "volatility",
    "parameters", "plug_in_stress", "calendar", "stickiness",
)  # fmt: skip
RULES = (
    "level", "measure", "multiplier", "floor", "maintenance_ratio", "apc", "stress_share", "stress_of", "liquidity"
)  # fmt: skip
TOLERANCE = 1e-6
"""Of an account's gross notional: what another machine or version may move."""


@dataclass(frozen=True, eq=False)
class Recorded:
    """A verified run with the book that it was made from."""

    run: Run
    book: Book

    @property
    def charged(self) -> Charged:
        """What the run knew of the margins charged before."""
        table = self.run.tables["anti_procyclicality"]
        columns = (table[c].tolist() for c in ("account_id", "previous_margin", "previous_days"))
        return {str(a): (m, d) for a, m, d in zip(*columns, strict=True)}

    @property
    def settings(self) -> Mapping[str, Any]:
        """The effective settings of the run."""
        return self.run.manifest["settings"]


def recorded(path: str | Path, *, book: str | Path | None = None) -> Recorded:
    """The run at `path` (its folder or its manifest) and its book, which lies at `book`, else where the manifest says.

    Every file of both is checked against the hashes of the manifest. Raises UsageError where there is no run or no
    book, AuditError naming the first file that is not what the manifest says.
    """
    folder = Path(path).parent if Path(path).name == MANIFEST else Path(path)
    run = read_run(folder)
    manifest = run.manifest
    if book is None and not manifest["book"]:
        raise UsageError(f"{folder / MANIFEST} does not say where its book lies; name it with --book")
    place = Path(book) if book is not None else Path(os.path.normpath(folder.resolve() / manifest["book"]))
    inputs: Mapping[str, str] = manifest["hashes"]["inputs"]
    for name, digest in inputs.items():
        if name.endswith(ROWS):
            continue
        if not (place / name).is_file():
            raise AuditError(f"{place / name} is missing: {folder} was made from it. Name the book with --book")
        if hash_file(place / name) != digest:
            raise AuditError(f"{place / name} is not the file that {folder} was made from: its hash differs")
    settings = manifest["settings"]
    overrides = {key: settings[key] for key in (*RUN_SETTINGS, *RULES) if key in settings}
    found = load_book(place, overrides={**overrides, "scenarios": settings["n_scenarios"]})
    if more := sorted(set(found.input_hashes) - set(inputs)):
        raise AuditError(f"{place / more[0]} is not among the files that {folder} was made from")
    for name, digest in found.input_hashes.items():
        if digest != inputs[name]:
            raise AuditError(f"{place / name} are not those that {folder} was made from: their hash differs")
    # What the gates of the run set aside is no part of the book.
    set_aside = {**found.market.quarantined, **settings.get("quarantined", {})}
    return Recorded(run, replace(found, market=replace(found.market, quarantined=set_aside)))


def profit_again(
    portfolio: Portfolio,
    market: MarketSnapshot,
    model: ModelSpecification,
    settings: Mapping[str, Any],
    parameters: Parameters | None = None,
) -> ProfitAndLoss:
    """The P&L of `portfolio` under the scenarios that the effective `settings` of a manifest ask for; `parameters`,
    where given, stand in for theirs."""
    own = Parameters(settings.get("parameters", Parameters.PREDICTIVE))
    scenarios = simulate(
        model, market, seed=settings["seed"], n_scenarios=settings["n_scenarios"], horizon=settings["horizon"],
        drift=Drift(settings["drift"]), sampling=Sampling(settings["sampling"]), parameters=parameters or own,
    )  # fmt: skip
    return reprice(portfolio, market, scenarios, precision=Precision(settings["precision"]))


def priced_again(
    portfolio: Portfolio,
    market: MarketSnapshot,
    model: ModelSpecification,
    rules: MarginRules,
    settings: Mapping[str, Any],
    *,
    stress: Mapping[str, Mapping[str, float]],
    charged: Charged,
    detail: Detail,
    memory_bytes: float | None = None,
    loss_bytes: float = LOSS_BYTES,
    progress: Progress = quiet,
) -> Priced:
    """What the margins of `portfolio` need under the effective `settings` of a manifest, by the engine's one path.

    `stress` is the book's list, `charged` that of `Recorded`. Raises what `simulate`, `reprice` and `margin_report`
    raise.
    """
    profit = partial(profit_again, portfolio, market, settings=settings)
    share = settings.get("decorrelation", 0.0)
    less = profit(model.decorrelated(share)) if share else None
    plug_in = profit(model, parameters=Parameters.PLUG_IN) if settings.get("plug_in_stress", False) else None
    return price_all(
        profit(model), portfolio, rules,
        stress=stress_scenarios(stress, model, market), beside=model_stresses(less, plug_in),
        protective={tool: profit(of) for tool, of in protecting(model, rules).items()},
        last_good=settings.get("last_good", {}), charged=charged, detail=detail, memory_bytes=memory_bytes,
        loss_bytes=loss_bytes, progress=progress,
    )  # fmt: skip


def gross_notional(portfolio: Portfolio, market: MarketSnapshot) -> Float[np.ndarray, " account"]:
    """Notional of all positions of each account, long and short alike, in base currency."""
    unit = unit_requirements(portfolio.instruments, market, np.full(len(portfolio.instruments), np.nan))
    return np.asarray(abs(portfolio.quantity) @ unit.notional)


def environment_of(manifest: Mapping[str, Any]) -> dict[str, str]:
    """All that must be equal for equal bits, by name."""
    found = {"code": manifest["hashes"]["code"], "lock": manifest["hashes"]["lock"], "device": manifest["device"]}
    found |= {f"version of {name}": version for name, version in manifest["versions"].items()}
    return {name: str(value) for name, value in (found | dict(manifest.get("environment", {}))).items()}
