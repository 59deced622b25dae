"""Scenarios of a grid: moves of price and volatility, and how a shock of volatility depends on the time to expiry."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from pmvar.errors import InputError, Problem


class VolMove(StrEnum):
    """What a scenario does to volatility; `linear_skew` and `abs_skew` scale it by ln(K/F) or its size."""

    UP = "up"
    FLAT = "flat"
    DOWN = "down"
    LINEAR_SKEW = "linear_skew"
    ABS_SKEW = "abs_skew"


SKEWS = (VolMove.LINEAR_SKEW, VolMove.ABS_SKEW)


class VolUnit(StrEnum):
    """Whether a shock multiplies the volatility or adds to it."""

    RELATIVE = "relative"
    POINTS = "points"


class Role(StrEnum):
    """The worst loss of all scenarios of a role is the scan, is added to it, or competes with scan and charges."""

    SCAN = "scan"
    ADDED = "added"
    ALTERNATIVE = "alternative"


def need(sound: bool, name: str, value: object, *, rule: str) -> None:
    """Raise InputError saying that `name` breaks `rule`, unless `sound`."""
    if not sound:
        raise InputError(Problem(rule, "correct it", column=name, value=str(value)[:100]))


def at_least_zero(owner: object, *names: str) -> None:
    """Raise InputError unless the fields `names` of `owner` are finite and 0 or more."""
    for name in names:
        value = getattr(owner, name)
        need(0 <= value < math.inf, name, value, rule="must be a number, 0 or more")


@dataclass(frozen=True)
class Scenario:
    """One column of a grid."""

    label: str
    move: float
    vol: VolMove
    weight: float
    """Of the P&L."""
    anchor: float
    """Move at whose price an inverse contract's P&L is converted into coin; NaN: at its own."""
    dampener: float
    """What the size of an underlying's P&L shrinks by, at most to zero."""
    days: float
    """That pass."""
    role: Role


@dataclass(frozen=True)
class GridBlock:
    """Scenarios: every move under every vol move."""

    moves: tuple[float, ...]
    vols: tuple[VolMove, ...]
    weight: float = 1.0
    scale_to: float = 0.0
    """If positive, the P&L counts as if the price had moved so far only: times scale_to/|move|."""
    dampener: float = 0.0
    """Base currency for every further multiple of `scale_to` that the price moves."""
    days: float = 0.0
    role: Role = Role.SCAN

    def __post_init__(self) -> None:
        need(len(self.moves) > 0 and all(-1 < x < math.inf for x in self.moves), "moves", self.moves,
             rule="must be moves above -1, at least one")  # fmt: skip
        need(len(self.vols) > 0, "vols", self.vols, rule="must name at least one vol move")
        at_least_zero(self, "weight", "scale_to", "dampener", "days")
        need(self.scale_to > 0 or self.dampener == 0, "dampener", self.dampener, rule="needs scale_to")
        need(self.scale_to < 1, "scale_to", self.scale_to, rule="must be below 1")
        need(self.scale_to == 0 or 0.0 not in self.moves, "moves", self.moves, rule="cannot hold 0 with scale_to")

    def scenarios(self) -> tuple[Scenario, ...]:
        """The block written out."""
        return tuple(self._scenario(move, vol) for move in self.moves for vol in self.vols)

    def _scenario(self, move: float, vol: VolMove) -> Scenario:
        multiple = abs(move) / self.scale_to if self.scale_to else 1.0
        return Scenario(
            label=f"{move:+.4g} vol {vol}" + (f" {self.days:g}d" if self.days else ""),
            move=move,
            vol=vol,
            weight=self.weight / multiple,
            anchor=math.copysign(self.scale_to, move) if self.scale_to else math.nan,
            dampener=max(multiple - 1, 0.0) * self.dampener,
            days=self.days,
            role=self.role,
        )


@dataclass(frozen=True)
class VolShock:
    """Size of a vol move by days to expiry: (30/days)^power, or a table of days and scales."""

    up: float = 0.0
    down: float = 0.0
    unit: VolUnit = VolUnit.RELATIVE
    short_power: float = 0.0
    """Up to 30 days."""
    long_power: float = 0.0
    floor_days: float = 1.0
    """Fewer days to expiry count as this."""
    least_up: float = 0.0
    """Volatility that a move up reaches at least."""
    term_days: tuple[float, ...] = ()
    term_scale: tuple[float, ...] = ()
    """Of the shock at `term_days`; linear between, flat beyond. Instead of the powers."""

    def __post_init__(self) -> None:
        at_least_zero(self, "up", "down", "short_power", "long_power", "least_up")
        need(0 < self.floor_days < math.inf, "floor_days", self.floor_days, rule="must be positive")
        rising = all(a < b for a, b in zip(self.term_days, self.term_days[1:], strict=False))
        need(rising and len(self.term_days) == len(self.term_scale), "term_days", self.term_days,
             rule="must rise and have one scale each")  # fmt: skip
        need(all(x >= 0 for x in self.term_scale), "term_scale", self.term_scale, rule="must be 0 or more")


@dataclass(frozen=True)
class Skew:
    """σ × max(0, 1 + clip(k·cap/k*, ±cap)): cap = cap_slope·√T + cap_level, k* = √T·width·(level + slope·√T)."""

    cap_level: float
    cap_slope: float
    width: float
    level: float
    slope: float
    least_width: float
    """k* is this at least."""

    def __post_init__(self) -> None:
        need(self.least_width > 0, "least_width", self.least_width, rule="must be positive")
