"""Instruments: one struct-of-arrays table of everything that can be held."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from functools import cached_property

import numpy as np
from jaxtyping import Float

from pmvar.types import Kind, Payoff, Settlement

SHORT_AVERAGE = 3600.0
"""Seconds of averaging up to which an option is a European one with less time, see `variance_time`."""


def variance_time(left: Float[np.ndarray, "n"], window: Float[np.ndarray, "n"]) -> Float[np.ndarray, "n"]:
    """Time (as `left`, to expiry) in which a price has the variance of its average over the last `window` of it.

    The average of a Brownian motion over a window has a third of its variance, so two thirds of the window do not
    count: exact to first order in σ²·window. Inside the window what is over counts as known, 1 − left/window of it.
    """
    safe = np.where(window > 0, window, 1.0)
    return np.where(left >= window, left - 2 / 3 * window, left**3 / (3 * safe**2))


def _text() -> np.ndarray:
    return np.empty(0, dtype=object)


def _number() -> np.ndarray:
    return np.empty(0)


@dataclass(frozen=True)
class Instruments:
    """A table of instruments, one entry of each array per instrument, sorted by `instrument_id`."""

    instrument_id: np.ndarray
    """Strings."""
    kind: np.ndarray
    """`Kind` values as strings."""
    underlying: np.ndarray
    settlement: np.ndarray
    """`Settlement` values as strings."""
    quote_currency: np.ndarray
    settlement_currency: np.ndarray
    contract_size: Float[np.ndarray, "instrument"]
    """Units of the underlying per contract; for inverse futures and perpetuals, quote currency per contract."""
    expiry: Float[np.ndarray, "instrument"]
    """Epoch seconds; +inf where the instrument has none."""
    strike: Float[np.ndarray, "instrument"]
    """In quote currency; NaN where the instrument has none."""
    put_call: np.ndarray
    """`call`, `put` or an empty string."""
    exercise: np.ndarray
    """`Exercise` values of options, an empty string elsewhere."""
    deliverable: np.ndarray
    """`Deliverable` values of American options, an empty string elsewhere."""
    # Of single products: blank (an empty string, NaN) where an instrument has none, or the column is left out.
    coupon: Float[np.ndarray, "instrument"] = field(default_factory=_number)
    """Of bonds: fraction of the face a year."""
    frequency: Float[np.ndarray, "instrument"] = field(default_factory=_number)
    """Of bonds: coupons a year; 0 has none."""
    day_count: np.ndarray = field(default_factory=_text)
    """`DayCount` values of bonds with coupons, an empty string elsewhere."""
    payoff: np.ndarray = field(default_factory=_text)
    """`Payoff` values of digital options."""
    averaging_start: Float[np.ndarray, "instrument"] = field(default_factory=_number)
    """Epoch seconds: what settles on the average price from then to expiry."""
    average_so_far: Float[np.ndarray, "instrument"] = field(default_factory=_number)
    """Average price since `averaging_start`, in quote currency, of what has begun to average."""
    fx_rate: Float[np.ndarray, "instrument"] = field(default_factory=_number)
    """Settlement currency that a quanto pays for one unit of quote currency."""
    barrier: Float[np.ndarray, "instrument"] = field(default_factory=_number)
    """In quote currency, of barrier options."""
    barrier_type: np.ndarray = field(default_factory=_text)
    """`BarrierType` values of barrier options."""
    rebate: Float[np.ndarray, "instrument"] = field(default_factory=_number)
    """Of barrier options, in quote currency; NaN is none."""

    def __post_init__(self) -> None:
        for f in fields(self):
            column = getattr(self, f.name)
            if not len(column) and len(self):
                blank = "" if column.dtype == object else np.nan
                object.__setattr__(self, f.name, np.full(len(self), blank, column.dtype))

    def __len__(self) -> int:
        return len(self.instrument_id)

    @cached_property
    def averaging(self) -> Float[np.ndarray, "instrument"]:
        """Seconds that the settlement price is averaged over; 0 where it is that of the expiry."""
        return np.where(np.isnan(self.averaging_start), 0.0, self.expiry - self.averaging_start)

    @cached_property
    def formula(self) -> np.ndarray:
        """The kind whose formula values each: options on a long average, or one that has begun, are Asian ones."""
        begun = ~np.isnan(self.average_so_far)
        averaged = (self.kind == Kind.OPTION) & ((self.averaging > SHORT_AVERAGE) | begun)
        return np.where(averaged, str(Kind.ASIAN), self.kind).astype(object)

    @cached_property
    def amount(self) -> Float[np.ndarray, "instrument"]:
        """What one contract pays for a payoff of 1, in settlement currency: its size, times a quanto's rate."""
        return np.where(self.settlement == Settlement.QUANTO, self.fx_rate, 1.0) * self.contract_size

    @cached_property
    def discount_currency(self) -> np.ndarray:
        """Whose zero rates discount options: of a quanto what it settles in, else the quote currency."""
        quanto = self.settlement == Settlement.QUANTO
        return np.where(quanto, self.settlement_currency, self.quote_currency).astype(object)

    @cached_property
    def units(self) -> Float[np.ndarray, "instrument"]:
        """Contract sizes in units of the underlying; of a digital that pays cash, what that buys at the strike."""
        # Strikes of others may be zero.
        return self.contract_size / np.where(self.payoff == Payoff.CASH_OR_NOTHING, self.strike, 1.0)

    def take(self, index: np.ndarray) -> Instruments:
        """The rows at `index` (integers or a mask), in that order."""
        return Instruments(*(getattr(self, f.name)[index] for f in fields(self)))

    def join(self, other: Instruments) -> Instruments:
        """Both tables as one, sorted by id."""
        both = Instruments(*(np.concatenate([getattr(self, f.name), getattr(other, f.name)]) for f in fields(self)))
        return both.take(np.argsort(both.instrument_id, kind="stable"))


def cash(assets: np.ndarray) -> Instruments:
    """Balances as instruments: one `CASH:<asset>` for each name in `assets` (strings), one unit a contract."""
    n = len(assets)
    names = np.asarray(assets, dtype=object)

    def constant(value: str) -> np.ndarray:
        return np.full(n, value, dtype=object)

    return Instruments(
        instrument_id=np.array([f"CASH:{name}" for name in names], dtype=object),
        kind=constant(Kind.CASH),
        underlying=names,
        settlement=constant("linear"),
        quote_currency=names,
        settlement_currency=names,
        contract_size=np.ones(n),
        expiry=np.full(n, np.inf),
        strike=np.full(n, np.nan),
        put_call=constant(""),
        exercise=constant(""),
        deliverable=constant(""),
    )
