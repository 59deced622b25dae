"""GridRules: a venue's margin method as data. Adding a venue is adding a file of these (see `grid_file`).

Moves are fractions of the price, vol shocks fractions or points of 1.00, amounts base currency, rates fractions of
notional. Each class rejects what its rule forbids.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from pmvar.methods.grid_scenarios import SKEWS, GridBlock, Role, Scenario, Skew, VolShock, at_least_zero, need

EVERYTHING_ELSE = "*"
"""Stands in `underlyings` for all that no other class names."""


class Coin(StrEnum):
    """What a move does to the price of the coin that an inverse contract settles in."""

    HELD = "held"
    """Nothing: the venue margins in coin."""
    MOVES = "moves"


class Balances(StrEnum):
    """Balances in the underlying of a derivative: part of the scan, or collateral outside it."""

    OUTSIDE = "outside"
    SCANNED = "scanned"


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
        at_least_zero(self, "positive", "negative", "long_rate_scale", "long_rate_add")
        at_least_zero(self, "short_rate_scale", "short_rate_add")


@dataclass(frozen=True)
class Basis:
    """Σ over expiries of the worse of two moves, options alone, vol flat, × (level + slope·T): competes in the scan."""

    move: float
    level: float
    slope: float

    def __post_init__(self) -> None:
        need(0 < self.move < 1, "move", self.move, rule="must lie in (0, 1)")
        at_least_zero(self, "level", "slope")


@dataclass(frozen=True)
class Roll:
    """Σ over expiries of |delta| × max(least, slope·T) of spot; perpetuals are an expiry of their own, T = 0."""

    least: float
    slope: float

    def __post_init__(self) -> None:
        at_least_zero(self, "least", "slope")


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
        at_least_zero(self, "per_option", "net_delta", "hedged_delta")


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
        at_least_zero(self, "perpetual_initial", "perpetual_maintenance", "short_initial", "short_maintenance")
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
        at_least_zero(self, "initial", "maintenance", "peg_threshold", "peg_scale")


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
