"""MarketSnapshot: everything the engine knows of the market, at one instant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from pmvar.errors import InputError, Problem
from pmvar.market.curves import DiscountCurve, ForwardCurve
from pmvar.market.price_scale import LOGNORMAL, PriceScale
from pmvar.market.surface import VolSurface


class Quanto(NamedTuple):
    """How a price moves with the currency that a quanto on it is paid in."""

    correlation: float
    """Of the price and `fx_vol`'s rate of exchange: units of the settlement currency for one of the quote currency."""
    fx_vol: float
    """Per √year."""


class Dividends(NamedTuple):
    """What one share pays its holders of the eve of each day; forwards have them deducted."""

    ex_date: Float[np.ndarray, " dividend"]
    """Epoch seconds, increasing."""
    amount: Float[np.ndarray, " dividend"]
    """In the share's quote currency, ≥ 0, below the forward to the day."""


@dataclass(frozen=True)
class MarketSnapshot:
    """Prices, curves and surfaces as of one instant. Assets, underlyings and currencies share one namespace.

    The base currency is not an asset of the snapshot: its price is 1.
    """

    as_of: float
    """Epoch seconds, UTC."""
    base_currency: str
    asset: tuple[str, ...]
    """Names, sorted."""
    spot: Float[np.ndarray, "asset"]
    """Price of one unit in `quote_currency`; positive, except where `quarantined` or on another scale."""
    quote_currency: tuple[str, ...]
    haircut: Float[np.ndarray, "asset"]
    """Fraction in [0, 1] taken off a positive balance when it counts as equity."""
    forwards: Mapping[str, ForwardCurve] = field(default_factory=dict)
    """By underlying."""
    discounts: Mapping[str, DiscountCurve] = field(default_factory=dict)
    """By currency."""
    vols: Mapping[str, VolSurface] = field(default_factory=dict)
    """By underlying."""
    half_spread: Mapping[str, float] = field(default_factory=dict)
    """By instrument: half of ask less bid, in the unit of its mark, where known."""
    daily_volume: Mapping[str, float] = field(default_factory=dict)
    """By instrument: contracts that trade in a day, where known."""
    spread: Mapping[str, float] = field(default_factory=dict)
    """By issuer of bonds: continuous rate over the zero rates of the currency, per year; an issuer is no asset."""
    funding: Mapping[str, float] = field(default_factory=dict)
    """By perpetual: fraction of the notional that a long pays a short in a day, as expected over the horizon."""
    dividends: Mapping[str, Dividends] = field(default_factory=dict)
    """By underlying, where known; American options are exercised by them."""
    quanto: Mapping[tuple[str, str], Quanto] = field(default_factory=dict)
    """By (underlying, settlement currency)."""
    quarantined: Mapping[str, str] = field(default_factory=dict)
    """Factor name -> reason: inputs that are present but must not be used; their accounts are withheld."""

    scales: Mapping[str, PriceScale] = field(default_factory=dict)
    """By asset, where not lognormal. Nothing settles in such an asset, and nobody has a balance in it."""

    def __post_init__(self) -> None:
        for name in self.asset:
            self.chain(name)

    def dated(self, as_of: float) -> MarketSnapshot:
        """The same prices, curves and surfaces as of another instant, in epoch seconds; pillars keep their dates.

        Raises InputError where a forward curve has a pillar that is not after it.
        """
        curves = {
            name: {k: replace(curve, as_of=as_of) for k, curve in getattr(self, name).items()}
            for name in ("forwards", "discounts", "vols")
        }
        return replace(self, as_of=as_of, **curves)

    def column(self, name: str) -> int:
        """Index of an asset; raises InputError if the snapshot has no price of it."""
        try:
            return self.asset.index(name)
        except ValueError:
            raise InputError(
                Problem(
                    "every asset, underlying and currency needs a price",
                    f"add a row for {name} to market/spots",
                    file="market/spots",
                    column="name",
                    value=name,
                )
            ) from None

    def chain(self, name: str) -> tuple[int, ...]:
        """Columns whose prices multiply to the price of `name` in base currency; empty for the base itself."""
        columns: list[int] = []
        while name != self.base_currency:
            column = self.column(name)
            if column in columns:
                raise InputError(
                    Problem(
                        "every chain of currencies must reach the base currency",
                        f"quote one of them in {self.base_currency}",
                        file="market/spots",
                        column="currency",
                        value=" → ".join(self.asset[c] for c in (*columns, column)),
                    )
                )
            columns.append(column)
            name = self.quote_currency[column]
        return tuple(columns)

    def scale(self, name: str) -> PriceScale:
        """The scale on which the price of an asset moves."""
        return self.scales.get(str(name), LOGNORMAL)

    def unit(self, name: str) -> float:
        """What x = 1 would move the price of an asset by, at first; the price itself of a lognormal one."""
        return float(self.scale(name).unit(float(self.spot[self.column(name)])))

    def base_unit(self, name: str) -> float:
        """`unit` in base currency: the size that a share of a price is a share of; `base_price` of a lognormal one."""
        if name not in self.scales:
            return self.base_price(name)
        return self.unit(name) * self.base_price(self.quote_currency[self.column(name)])

    def base_price(self, name: str) -> float:
        """Price of one unit of `name` in base currency."""
        return float(np.prod([self.spot[c] for c in self.chain(name)]))
