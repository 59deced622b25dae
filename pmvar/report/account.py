"""One account's rows of all tables, sorted and summed: what the report and the explanation both tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pmvar.report.gradients import Gradient, by_market, by_model
from pmvar.risk.result import Columns
from pmvar.risk.tail import interval_half_width

REPLICATES = 16
"""Where the settings do not say: the fewest, which make the widest intervals."""


@dataclass(frozen=True)
class Component:
    """A position's share of expected shortfall, in base currency; positive adds to the margin."""

    name: str
    underlying: str
    quantity: float
    expected_shortfall: float
    standard_error: float
    spot: float
    vol: float
    time: float


@dataclass(frozen=True)
class Scenario:
    """One of the account's worst scenarios, with the log changes of the factors in it."""

    rank: int
    number: int
    weight: float
    loss: float
    shocks: Mapping[str, float]


@dataclass(frozen=True)
class AddOn:
    """What the margin holds beside its measure, in base currency."""

    label: str
    amount: float
    absent: str
    """What the amount lacks, and for want of what."""


@dataclass(frozen=True)
class Account:
    """Everything a run says about one account. Losses and amounts in base currency, positive is bad."""

    account_id: str
    margin: Mapping[str, Any]
    """Its row of `margins`."""
    components: tuple[Component, ...]
    """By size, the largest first."""
    underlyings: tuple[Component, ...]
    """Subtotals of `components`, by size; `quantity` holds the number of positions."""
    gradients: tuple[Gradient, ...]
    """By market inputs."""
    parameters: tuple[Gradient, ...]
    """By parameters of the model, the largest effect first."""
    worst: tuple[Scenario, ...]
    stress: tuple[tuple[str, float], ...]
    protection: Mapping[str, Any]
    """Its row of `anti_procyclicality`; empty where no tool is switched on."""
    add_ons: tuple[AddOn, ...]
    half_width: float
    """Of a 95% interval, in standard errors."""

    @property
    def is_split(self) -> bool:
        """Whether the components are split by cause: a run without gradients books all of them on spot."""
        return bool(self.gradients) or any(c.vol or c.time for c in self.components)

    @property
    def total(self) -> Component:
        """The sum of all components, which is to be expected shortfall."""
        return _sum("total", "", self.components)


def column(table: Columns, name: str) -> np.ndarray:
    """A column of a table, empty where the table has none."""
    return table[name] if name in table else np.array([], dtype=object)


def select(table: Columns, account_id: str) -> dict[str, np.ndarray]:
    """The rows of one account."""
    found = np.flatnonzero(column(table, "account_id") == account_id)
    return {name: values[found] for name, values in table.items()}


def build_account(tables: Mapping[str, Columns], account_id: str, settings: Mapping[str, Any]) -> Account:
    """Collects one account's rows; the run's `settings` have the prices and volatilities that turn slopes into moves.

    Raises KeyError where `margins` has no such account.
    """
    row = select(tables["margins"], account_id)
    if not len(column(row, "account_id")):
        raise KeyError(account_id)
    margin = {name: values[0] for name, values in row.items()}
    components = _components(select(tables.get("components", {}), account_id))
    stress, protection = (select(tables.get(name, {}), account_id) for name in ("stress", "anti_procyclicality"))
    return Account(
        account_id,
        margin,
        components,
        _subtotals(components),
        by_market(select(tables.get("greeks", {}), account_id), settings.get("spots", {})),
        by_model(select(tables.get("model_greeks", {}), account_id), settings.get("model", {})),
        _worst(select(tables.get("worst", {}), account_id), tables.get("shocks", {})),
        tuple(zip(map(str, column(stress, "scenario")), map(float, column(stress, "loss")), strict=True)),
        {name: values[0] for name, values in protection.items() if len(values)},
        _add_ons(select(tables.get("add_ons", {}), account_id)),
        interval_half_width(int(settings.get("replicates", REPLICATES))),
    )


def _add_ons(rows: Columns) -> tuple[AddOn, ...]:
    columns = (column(rows, name) for name in ("add_on", "factor", "amount", "absent"))
    return tuple(
        AddOn(f"{kind} of {factor}" if factor else str(kind), float(amount), str(absent))
        for kind, factor, amount, absent in zip(*columns, strict=True)
    )


def _components(rows: Columns) -> tuple[Component, ...]:
    numbers = [
        column(rows, name) for name in ("quantity", "component_es", "standard_error", "spot_es", "vol_es", "time_es")
    ]
    found = [
        Component(str(name), str(underlying), *map(float, values))
        for name, underlying, *values in zip(
            column(rows, "instrument_id"), column(rows, "underlying"), *numbers, strict=True
        )
    ]
    return tuple(sorted(found, key=lambda c: (-abs(c.expected_shortfall), c.name)))


def _sum(name: str, underlying: str, parts: tuple[Component, ...]) -> Component:
    # Positions share their scenarios, so that errors do not add in squares: a sum has none to show.
    totals = [float(sum(getattr(p, part) for p in parts)) for part in ("expected_shortfall", "spot", "vol", "time")]
    return Component(name, underlying, float(len(parts)), totals[0], float("nan"), *totals[1:])


def _subtotals(components: tuple[Component, ...]) -> tuple[Component, ...]:
    names = dict.fromkeys(c.underlying for c in components)
    found = [_sum(name, name, tuple(c for c in components if c.underlying == name)) for name in names]
    return tuple(sorted(found, key=lambda c: (-abs(c.expected_shortfall), c.name)))


def _worst(rows: Columns, shocks: Columns) -> tuple[Scenario, ...]:
    number, factor, shock = (column(shocks, name) for name in ("scenario", "factor", "shock"))
    found = []
    names = ("rank", "scenario", "weight", "loss")
    for rank, scenario, weight, loss in zip(*(column(rows, n) for n in names), strict=True):
        here = np.flatnonzero(number == scenario)
        moves = {str(factor[i]): float(shock[i]) for i in here}
        found.append(Scenario(int(rank), int(scenario), float(weight), float(loss), moves))
    return tuple(sorted(found, key=lambda s: s.rank))
