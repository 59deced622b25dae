"""GridRules: a venue's margin method as data. Adding a venue is adding a file of these (see `grid_file`).

Moves are fractions of the price, vol shocks fractions or points of 1.00, amounts base currency, rates fractions of
notional. Each class rejects what its rule forbids.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum

from pmvar.errors import InputError, Problem

EVERYTHING_ELSE = "*"
"""Stands in `underlyings` for all that no other class names."""


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


class Coin(StrEnum):
    """What a move does to the price of the coin that an inverse contract settles in."""

    HELD = "held"
    """Nothing: the venue margins in coin."""
    MOVES = "moves"


class Balances(StrEnum):
    """Balances in the underlying of a derivative: part of the scan, or collateral outside it."""

    OUTSIDE = "outside"
    SCANNED = "scanned"


class Role(StrEnum):
    """The worst loss of all scenarios of a role is the scan, is added to it, or competes with scan and charges."""

    SCAN = "scan"
    ADDED = "added"
    ALTERNATIVE = "alternative"


def need(sound: bool, name: str, value: object, *, rule: str) -> None:
    """Raise InputError saying that `name` breaks `rule`, unless `sound`."""
    if not sound:
        raise InputError(Problem(rule, "correct it", column=name, value=str(value)[:100]))


def _at_least_zero(owner: object, *names: str) -> None:
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
        _at_least_zero(self, "weight", "scale_to", "dampener", "days")
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
        _at_least_zero(self, "up", "down", "short_power", "long_power", "least_up")
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


@dataclass(frozen=True)
class Discount:
    """What the shocked value of an expiry's options is multiplied by before today's value is taken off.

    Value ≥ 0: positive·e^{−T(long_rate_scale·r + long_rate_add)}; below: the smaller of 1/df and
    negative·e^{T(short_rate_scale·r + short_rate_add)}, df = e^{−rT}, r ≥ 0.
    """

    positive: float
    negative: float
    long_rate_scale: float
    long_rate_add: float
    short_rate_scale: float
    short_rate_add: float

    def __post_init__(self) -> None:
        _at_least_zero(self, "positive", "negative", "long_rate_scale", "long_rate_add")
        _at_least_zero(self, "short_rate_scale", "short_rate_add")


@dataclass(frozen=True)
class Basis:
    """Σ over expiries of the worse of two moves, options alone, vol flat, × (level + slope·T): competes in the scan."""

    move: float
    level: float
    slope: float

    def __post_init__(self) -> None:
        need(0 < self.move < 1, "move", self.move, rule="must lie in (0, 1)")
        _at_least_zero(self, "level", "slope")


@dataclass(frozen=True)
class Roll:
    """Σ over expiries of |delta| × max(least, slope·T) of spot; perpetuals are an expiry of their own, T = 0."""

    least: float
    slope: float

    def __post_init__(self) -> None:
        _at_least_zero(self, "least", "slope")


@dataclass(frozen=True)
class Minimum:
    """Least requirement of an underlying, before the factors."""

    per_option: float = 0.0
    """Base currency per unit of the underlying, long and short."""
    net_delta: float = 0.0
    """Of spot, times |Σ delta|."""
    hedged_delta: float = 0.0
    """Of spot, times (Σ|delta| − |Σ delta|)/2."""

    def __post_init__(self) -> None:
        _at_least_zero(self, "per_option", "net_delta", "hedged_delta")


@dataclass(frozen=True)
class Contingency:
    """Charges of spot notional beside the scan, outside the factors."""

    perpetual_initial: float = 0.0
    perpetual_maintenance: float = 0.0
    short_initial: float = 0.0
    """Per net short option, calls and puts of a strike and expiry netted."""
    short_maintenance: float = 0.0
    confidence: float = 0.0
    """Oracle confidence below which 1 − confidence of the notional of perpetuals and options is added to initial."""

    def __post_init__(self) -> None:
        _at_least_zero(self, "perpetual_initial", "perpetual_maintenance", "short_initial", "short_maintenance")
        need(0 <= self.confidence <= 1, "confidence", self.confidence, rule="must lie in [0, 1]")


@dataclass(frozen=True)
class Factors:
    """Multiples of the scan and its charges."""

    initial: float = 1.0
    maintenance: float = 1.0
    peg_threshold: float = 0.0
    peg_scale: float = 0.0
    """Added to `initial` for every 1.00 that the stablecoin trades below the threshold."""

    def __post_init__(self) -> None:
        _at_least_zero(self, "initial", "maintenance", "peg_threshold", "peg_scale")


@dataclass(frozen=True)
class UnderlyingClass:
    """The grid and the charges of some underlyings."""

    name: str
    underlyings: tuple[str, ...]
    grid: tuple[GridBlock, ...]
    vol: VolShock = field(default_factory=VolShock)
    skew: Skew | None = None
    discount: Discount | None = None
    basis: Basis | None = None
    roll: Roll = Roll(0.0, 0.0)
    minimum: Minimum = field(default_factory=Minimum)
    contingency: Contingency = field(default_factory=Contingency)

    def __post_init__(self) -> None:
        need(len(self.underlyings) > 0, "underlyings", self.name, rule="must name at least one")
        roles = [s.role for s in self.scenarios()]
        need(Role.SCAN in roles, "grid", self.name, rule="must hold a scenario of role scan")
        skewed = any(s.vol in SKEWS for s in self.scenarios())
        need(self.skew is not None or not skewed, "skew", self.name, rule="is needed by vol moves with skew")

    def scenarios(self) -> tuple[Scenario, ...]:
        """All columns of the grid."""
        return tuple(s for block in self.grid for s in block.scenarios())


@dataclass(frozen=True)
class ProductGroup:
    """Underlyings whose losses a share of the others' gains offsets, point by point of grids of the same length."""

    name: str
    underlyings: tuple[str, ...]
    offset: float

    def __post_init__(self) -> None:
        need(0 <= self.offset <= 1, "offset", self.offset, rule="must lie in [0, 1]")


@dataclass(frozen=True)
class GridRules:
    """A venue's method."""

    name: str
    date: str
    """Of its numbers, YYYY-MM-DD."""
    source: str
    coin: Coin
    balances: Balances
    classes: tuple[UnderlyingClass, ...]
    factors: Factors = field(default_factory=Factors)
    product_groups: tuple[ProductGroup, ...] = ()
    notes: tuple[str, ...] = ()
    """Readings and omissions, repeated with every result."""

    def __post_init__(self) -> None:
        named = [u for c in self.classes for u in c.underlyings]
        need(len(named) == len(set(named)), "underlyings", named, rule="must name each underlying once")
        need(EVERYTHING_ELSE in named, "underlyings", named, rule=f"of one class must hold {EVERYTHING_ELSE!r}")
        held = self.coin is Coin.HELD and self.balances is Balances.SCANNED
        need(not held, "balances", self.balances, rule="cannot be scanned where the coin's price is held")
        grouped = [u for g in self.product_groups for u in g.underlyings]
        need(len(grouped) == len(set(grouped)), "underlyings", grouped, rule="must be in one product group each")
        for group in self.product_groups:
            roles = {tuple(s.role for s in self.class_of(u).scenarios()) for u in group.underlyings}
            need(len(roles) == 1, "product_groups", group.name, rule="must join grids of the same length and roles")

    def class_of(self, underlying: str) -> UnderlyingClass:
        """The class of an underlying."""
        by_name = {u: c for c in self.classes for u in c.underlyings}
        return by_name.get(underlying, by_name[EVERYTHING_ELSE])

    def group_of(self, underlying: str) -> ProductGroup | None:
        """The product group of an underlying, if it is in one."""
        return next((g for g in self.product_groups if underlying in g.underlyings), None)
