"""MarginResult: all that a run found out, as columns ready to be written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

Columns = Mapping[str, np.ndarray]
"""A table: name -> one array per column (object arrays of str, float64 or int64), equal lengths."""

TABLES: Mapping[str, tuple[str, ...]] = {
    "margins": (
        "account_id", "level", "value_at_risk", "var_standard_error", "expected_shortfall", "es_standard_error",
        "initial_margin", "maintenance_margin", "equity", "excess", "isolated_margin", "isolated_standard_error",
        "diversification_benefit", "status", "reason",
    ),
    "components": (
        "account_id", "instrument_id", "underlying", "quantity", "component_es", "standard_error",
        "spot_es", "vol_es", "time_es",
    ),
    "greeks": ("account_id", "of", "instrument_id", "factor", "greek", "value", "standard_error"),
    "model_greeks": ("account_id", "parameter", "factor", "other_factor", "value", "standard_error"),
    "worst": ("account_id", "rank", "scenario", "weight", "loss"),
    "shocks": ("scenario", "factor", "shock"),
    "stress": ("account_id", "scenario", "loss"),
    "add_ons": ("account_id", "add_on", "factor", "amount", "absent"),
    "anti_procyclicality": (
        "account_id", "current_margin", "stressed_margin", "stressed_standard_error", "long_run_margin",
        "long_run_standard_error", "calculated_margin", "previous_margin", "previous_days", "initial_margin",
    ),
}  # fmt: skip
"""Tables of a run and their columns, in order. `model_greeks` holds the derivatives of the initial margin by parameters
of the model (a correlation has two factors, a parameter of all factors none), `worst` each account's worst scenarios
(rank 1 is the worst), `shocks` the log changes of all factors in those scenarios (long form), `stress` the losses under
the stress list, `add_ons` what an initial margin holds beside its measure, and what of it could not be told,
`anti_procyclicality` what the tools that are switched on make of each margin before add-ons (0: not this tool, or no
previous margin)."""


@dataclass(frozen=True)
class AccountDetail:
    """What the report draws of one account. Losses in base currency, positive is bad."""

    account_id: str
    histogram_edges: np.ndarray
    """[bin + 1]"""
    histogram_count: np.ndarray
    """[bin], weighted number of scenarios."""
    path_counts: np.ndarray
    """[point] numbers of scenarios at which the margin was estimated, increasing, the last being all."""
    expected_shortfall: np.ndarray
    """[point] estimate from the first `path_counts` scenarios."""
    standard_error: np.ndarray
    """[point]"""


@dataclass(frozen=True)
class MarginResult:
    """Tables of a run (see `TABLES`), what the report draws, and the settings they came from."""

    tables: Mapping[str, Columns]
    details: tuple[AccountDetail, ...]
    """The accounts with the largest initial margins, largest first."""
    settings: Mapping[str, Any]
    """JSON-ready: as_of, base_currency, spots, level, measure, multiplier, floor, maintenance_ratio, precision, device,
    horizon, n_scenarios, seed, sampling, generator, drift, model {name, factors, …}."""
    notes: tuple[str, ...] = field(default=())
    """Sentences a reader must see: assumed parameters, extrapolated strikes, withheld accounts."""
