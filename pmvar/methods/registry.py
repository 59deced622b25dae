"""Margin methods by the names of the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from pmvar.errors import UsageError
from pmvar.market.snapshot import MarketSnapshot
from pmvar.methods.collateral import collateral_margin
from pmvar.methods.comparison import GROSS, MONTE_CARLO
from pmvar.methods.grid import grid_margin
from pmvar.methods.grid_file import load_rules, venues
from pmvar.methods.isolated import isolated_margin
from pmvar.methods.result import Method
from pmvar.methods.span.default import default_span
from pmvar.models.specification import ModelSpecification
from pmvar.scenarios.scenario_set import ScenarioSet

FIXED = ("span", "isolated", "collateral")
"""Methods that are code; a venue is a file."""


def methods_named(
    names: Sequence[str],
    market: MarketSnapshot,
    model: ModelSpecification,
    scenarios: ScenarioSet,
    *,
    given: Mapping[str, Method] | None = None,
) -> list[Method]:
    """The methods of `names`, each once, in their order; a name that ends in `.toml` is a venue's file.

    `given` are methods made already, by name: they stand in for those of the same name.

    `mc` and `gross` are always there and skipped. Raises UsageError for a name that is none, InputError for a file that
    breaks a rule.
    """
    always = (MONTE_CARLO, GROSS)
    known = (*always, *FIXED, *venues())
    unknown = [n for n in names if n not in known and not n.endswith(".toml")]
    if unknown:
        raise UsageError(f"no method {', '.join(unknown)}: there are {', '.join(known)}, and TOML files of venues")
    made: dict[str, Method] = {}
    for name in names:
        if name in (given or {}):
            made[name] = (given or {})[name]
        elif name == "span":
            made[name] = default_span(market, model, scenarios)
        elif name == "isolated":
            made[name] = lambda portfolio: isolated_margin(portfolio, market)
        elif name == "collateral":
            made[name] = lambda portfolio: collateral_margin(portfolio, market, scenarios)
        elif name not in always:
            rules = load_rules(Path(name) if name.endswith(".toml") else name)
            made[name] = lambda portfolio, rules=rules: grid_margin(portfolio, market, rules)
    return list(made.values())
