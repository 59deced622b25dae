"""What a SPAN file or a default says: the sixteen scenarios, spreads, credits and minima of combined commodities.

Field names and the reference values of the grid: SPAN 4.00 XML of Takasbank (2016-05-17); CME, SPAN technical
documentation. Every month of a commodity belongs to tiers by number; tier 0 is all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Float, Int

from pmvar.errors import InputError, Problem

POINTS, DELTA_POINTS = 16, 7


@dataclass(frozen=True)
class SpanGrid:
    """Scenarios of the risk array, and the points of the composite delta."""

    price: Float[np.ndarray, "16"]
    """Price moves in price scan ranges."""
    vol: Float[np.ndarray, "16"]
    """Vol moves in vol scan ranges."""
    weight: Float[np.ndarray, "16"]
    """Share of the loss that counts."""
    paired: Int[np.ndarray, "16"]
    """The scenario with the same price move and the opposite vol move, from 0; the extremes pair with themselves."""
    delta_price: Float[np.ndarray, "7"]
    delta_weight: Float[np.ndarray, "7"]

    def __post_init__(self) -> None:
        sound = np.array_equal(np.sort(self.paired), np.arange(POINTS)) and np.all(
            (self.weight > 0) & (self.weight <= 1)
        )
        total = float(self.delta_weight.sum())
        if not (sound and np.all(np.isfinite(self.price)) and np.all(np.isfinite(self.vol)) and 0.98 < total < 1.02):
            raise refused(
                "weights lie in (0, 1], points pair up, delta weights sum to 1", "pointDef", f"sum {total:.4f}"
            )


_THIRDS = np.repeat([0, 1, -1, 2, -2, 3, -3], 2) / 3
STANDARD = SpanGrid(
    price=np.append(_THIRDS, [3.0, -3.0]),
    vol=np.append(np.tile([1.0, -1.0], 7), [0.0, 0.0]),
    weight=np.append(np.ones(14), [0.32, 0.32]),
    paired=np.append(np.arange(14) ^ 1, [14, 15]),
    delta_price=np.arange(-3, 4) / 3,
    delta_weight=np.array([0.037, 0.111, 0.217, 0.270, 0.217, 0.111, 0.037]),
)
"""Extreme moves of three scan ranges at 32%: Takasbank's file. Others have two at 35%."""


def scenario_label(grid: SpanGrid, point: int) -> str:
    """Of point `point` from 0, in words: `#15 price +3 × PSR, 32%`."""
    thirds = {0.0: "0", 1.0: "+1/3", -1.0: "−1/3", 2.0: "+2/3", -2.0: "−2/3"}
    move = float(grid.price[point])
    price = thirds.get(round(3 * move, 6), f"{move:+g}".replace("-", "−"))
    vol = {1.0: ", vol up", -1.0: ", vol down"}.get(float(grid.vol[point]), "")
    share = f", {grid.weight[point]:.0%}" if grid.weight[point] < 1 else ""
    return f"#{point + 1} price {price} PSR{vol}{share}"


class ShortOptionMethod(StrEnum):
    """How short options count towards the minimum."""

    GROSS = "GROSS"
    """Short calls and short puts together."""
    MAX = "MAX"
    """The larger of the two."""


@dataclass(frozen=True)
class Leg:
    """One side of a spread: `ratio` deltas of the months of `tier`."""

    commodity: int
    """Index among the combined commodities."""
    side: int
    """+1 (A) or −1 (B): opposite sides offset each other, whichever of them is long."""
    ratio: float
    tier: int = 0
    month: str = ""
    """Where it is given: that month alone, whatever the tier."""

    def __post_init__(self) -> None:
        if self.side not in (1, -1) or not 0 < self.ratio < 1e9 or self.tier < 0:
            raise refused("a leg has side A or B, a positive ratio and a tier", "tLeg", f"{self.side} × {self.ratio}")

    @property
    def months(self) -> str:
        """In words."""
        return self.month or ("all months" if self.tier == 0 else f"tier {self.tier}")


@dataclass(frozen=True)
class Spread:
    """Deltas that offset each other, in the order in which they are formed."""

    rate: float
    """Between months: charge for each spread, in currency. Between commodities: share credited, in [0, 1]."""
    legs: tuple[Leg, ...]

    def __post_init__(self) -> None:
        if not 0 <= self.rate < 1e15 or len(self.legs) < 2 or len({leg.side for leg in self.legs}) < 2:
            raise refused("a spread has a rate ≥ 0 and legs on both sides", "dSpread", str(self.rate))


@dataclass(frozen=True)
class SpotRate:
    """Charge for deltas in a month near delivery: of each that a spread took, and of each that is left."""

    month: str
    spread: float
    outright: float


@dataclass(frozen=True)
class CombinedCommodity:
    """Products whose deltas offset each other fully."""

    name: str
    currency: str
    months: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """Months with the tiers they belong to, tier 0 apart; a month that is absent is in tier 0 alone."""
    credit_months: tuple[tuple[str, tuple[int, ...]], ...] = ()
    """The same of the tiers that credits between commodities name, which are numbered apart."""
    spreads: tuple[Spread, ...] = ()
    """Between its months, in priority order."""
    spot: tuple[SpotRate, ...] = ()
    short_option_minimum: float = 0.0
    """In currency, for each short option."""
    short_option_method: ShortOptionMethod = ShortOptionMethod.GROSS
    initial_ratio: float = 1.0
    """Initial margin over risk."""
    maintenance_ratio: float = 1.0
    """Maintenance margin over risk."""

    def __post_init__(self) -> None:
        if not (0 <= self.short_option_minimum < 1e15 and 1 <= self.initial_ratio <= 100):
            raise refused(
                "a short option minimum is ≥ 0, an initial ratio ≥ 1", self.name,
                f"{self.short_option_minimum}, {self.initial_ratio}",
            )  # fmt: skip
        if not 0 < self.maintenance_ratio <= 1:
            raise refused("a maintenance ratio lies in (0, 1]", self.name, str(self.maintenance_ratio))

    def covers(self, leg: Leg, months: Sequence[str]) -> np.ndarray:
        """Which of `months` a leg of a spread between months may take deltas of."""
        return _covers(leg, months, dict(self.months))

    def credits(self, leg: Leg, months: Sequence[str]) -> np.ndarray:
        """Which of `months` a leg of a credit may take deltas of."""
        return _covers(leg, months, dict(self.credit_months))


def _covers(leg: Leg, months: Sequence[str], tiers: Mapping[str, tuple[int, ...]]) -> np.ndarray:
    if leg.month:
        return np.array([m == leg.month for m in months], dtype=bool)
    return np.array([leg.tier == 0 or leg.tier in tiers.get(m, ()) for m in months], dtype=bool)


@dataclass(frozen=True)
class SpanParameters:
    """All that the aggregation needs beside risk arrays."""

    grid: SpanGrid
    commodities: tuple[CombinedCommodity, ...]
    credits: tuple[Spread, ...]
    """Between commodities, in priority order; rates are shares."""
    source: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for credit in self.credits:
            if credit.rate > 1 or any(leg.commodity >= len(self.commodities) for leg in credit.legs):
                raise refused("a credit is a share of known commodities", "interSpreads", str(credit.rate))


def refused(rule: str, where: str, value: str) -> InputError:
    """Parameters that cannot be."""
    return InputError(Problem(rule, "correct the parameters", file="SPAN", column=where, value=value[:100]))
