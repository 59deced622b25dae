"""Contracts of a positional SPAN file: prices, series, and arrays in two records each."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from pmvar.io.span_file import FUTURE, FUTURE_OPTION, OPTION, PHYSICAL, ContractDraft, Draft, day_or_none, plain
from pmvar.io.span_pa2_parameters import Parameters
from pmvar.io.span_pa2_record import Product, Record, family
from pmvar.methods.span.parameters import POINTS, STANDARD, SpanGrid

_OPTIONS = (OPTION, FUTURE_OPTION)
_SECOND = {"81": "82", "83": "84"}
_NO_PRICE = 9_999_999
_QUARTERS = {0: 0.0, 2: 0.25, 5: 0.5, 7: 0.75}
"""What the last digit of a price in fractions stands for, in the unit of the digit before it."""
_FRACTIONS = ("C", "0")
"""Alignments of prices in fractions: points and 32nds (`C`, the locator counts the digits of the fraction), and units
with quarters (`0`, whatever the locator). The codes are not explained by CME's pages; an open parser of its archive
found these two, and the quarters, in agreement with the closes of Treasury and grain futures of 2019."""


@dataclass
class _Array:
    """A pair of records 8x."""

    first: Record
    second: Record
    product: Product


@dataclass
class Contracts:
    """Collects records of contracts; they are drafted at the end of the file, when all that they refer to is known."""

    draft: Draft
    parameters: Parameters
    prices: dict[Product, Record] = field(default_factory=dict)
    series: dict[tuple[Product, str, str], Record] = field(default_factory=dict)
    arrays: list[_Array] = field(default_factory=list)
    half: Record | None = None
    """The first record of a pair whose second is to follow."""
    unpriced: int = 0

    def take(self, record: str, r: Record) -> None:
        """Sort a record in: P, B or one of an array."""
        if record == "P ":
            self.prices[r.product()] = r
        elif record == "B ":
            self._series(r)
        else:
            self._array(record, r)

    def check_pair(self, record: str) -> None:
        """Refuse a half array before a record, "" at the end, that is not its second half."""
        if self.half is not None and record != _SECOND[self.half.line[:2]]:
            self._incomplete(self.half)

    def finish(self) -> None:
        """Draft the contracts."""
        for product, (code, _) in self.parameters.owner.items():
            currency = next(c.given.currency for c in self.draft.commodities if c.given.name == code)
            self._check_prices(product, currency)
        for pair in self.arrays:
            self._contract(pair)
        if self.unpriced:
            self.draft.notes.append(f"{self.unpriced} contracts without a settlement price are left out")

    def _series(self, r: Record) -> None:
        r.one_of("price_quoted", "", "A")
        r.one_of("vol_quoted", "", "A", "P")
        self.series[r.product(), r.month(), r.month("option_month", "option_day")] = r

    def _array(self, record: str, r: Record) -> None:
        if record in _SECOND:
            self.half = r
            return
        first, self.half = self.half, None
        if first is None or first.line[2:54] != r.line[2:54]:
            self._incomplete(first or r)
        elif (product := r.product()) in self.parameters.owner:
            self.arrays.append(_Array(first, r, product))
        elif not self.parameters.wanted:
            r.refuse("commodity", "belongs to no combined commodity", "add it to a type 2 record")

    def _incomplete(self, r: Record) -> None:
        self.half = None
        r.refuse("commodity", f"a contract has {POINTS} values in two records, 81 and 82 or 83 and 84", "supply both")

    def _contract(self, pair: _Array) -> None:
        """Draft one contract, with its product's prices and its series' parameters."""
        first, second, product = pair.first, pair.second, pair.product
        exchange, code, kind = product
        price = self.prices.get(product)
        if price is None:
            return second.refuse("commodity", "has no price conversion, record P", "add it")
        month, option_month = first.month(), first.month("option_month", "option_day")
        unit = self.parameters.owner[product][1]
        loss = [first.number(f"value_{i + 1}") * unit for i in range(9)]
        loss += [second.number(f"value_{i + 1}") * unit for i in range(POINTS - 9)]
        long = first.text("long_flag") == "Y"
        quoted = first.number("long_price") if long else second.number("price")
        if quoted == _NO_PRICE:
            self.unpriced += 1
            return
        r = self.series.get((product, month, option_month))
        numbers = _series_numbers(r) if r else {"scale": 1.0}
        numbers["multiplier"] = numbers.get("multiplier") or _scaled(price, "value", "exponent", "exponent_sign")
        if not numbers["multiplier"] > 0:
            return price.refuse("value", "a contract value factor is positive", "correct it")
        worth = _price(price, quoted)
        if worth is None or (long and price.text("alignment")):
            rule = f"is no price in fractions of alignment {price.text('alignment')}"
            return second.refuse("price", rule, "correct it")
        key = f"{exchange} {code} {kind}"
        settles = r.text("settles") if r else ""
        if settles and not day_or_none(settles):
            assert r is not None
            r.refuse("settles", "must be a day, CCYYMMDD", "correct it")
        if kind not in _OPTIONS:
            name = f"{code} {kind} {month}".strip()
            draft = ContractDraft(name, kind, (kind, family(product)), (key, month), None, month, settles, 0,
                                  {**numbers, "price": worth})  # fmt: skip
        else:
            right = first.one_of("right", "C", "P")
            sign = -1 if second.text("strike_sign") == "-" else 1
            strike = sign * first.number("strike") / 10 ** price.number("strike_decimals")
            vol = second.number("vol") * 10 ** second.number("vol_exponent") or numbers.get("vol", 0.0)
            beneath = PHYSICAL if kind == OPTION else FUTURE
            name = f"{code} {option_month or month} {right} {plain(strike)}"
            draft = ContractDraft(
                name, kind, (kind, family(product)), (key, name),
                (f"{exchange} {first.text('underlying')} {beneath}", month),
                month or option_month, settles, 1 if right == "C" else -1,
                {**numbers, "strike": strike, "vol": vol, "value": worth}, price.text("exercise") != "EURO",
            )  # fmt: skip
        draft.loss, draft.delta = loss, second.number("delta")
        self.draft.contracts.append(draft)

    def _check_prices(self, product: Product, currency: str) -> None:
        """Refuse what the values of a product's options cannot be read from."""
        if (r := self.prices.get(product)) is None:
            return
        # An option's value enters the margin, and its fractions are documented nowhere.
        r.one_of("alignment", *([""] if product[2] in _OPTIONS else ["", *_FRACTIONS]))
        r.one_of("strike_alignment", "")
        r.one_of("currency", "", currency)
        if product[2] in _OPTIONS:
            r.one_of("valuation", "", "EQTY")
            r.one_of("variable", "", "0")
            r.one_of("exercise", "", "AMER", "EURO")

    def grid(self) -> SpanGrid:
        """The standard scenarios, with the extreme moves of the file where all series have the same."""
        extremes = {(r.number("multiplier"), r.number("fraction")) for r in self.series.values()} - {(0.0, 0.0)}
        if len(extremes) != 1:
            self.draft.notes += ["extreme moves differ by series: labels name those of 3 scan ranges"] * bool(extremes)
            return STANDARD
        [(move, weight)] = extremes
        return replace(
            STANDARD, price=np.append(STANDARD.price[:-2], [move, -move]), weight=np.append(np.ones(14), [weight] * 2)
        )


def _scaled(r: Record, name: str, exponent: str, sign: str = "") -> float:
    """A number times a power of ten."""
    power = r.number(exponent)
    return r.number(name) * 10 ** (-power if sign and r.text(sign) == "-" else power)


def _series_numbers(r: Record) -> dict[str, float]:
    """What a record B says of a series: rates a year, ranges in currency and as a share of the volatility."""
    vol = _scaled(r, "vol", "vol_exponent")
    vol_scan = _scaled(r, "vol_scan", "vol_scan_exponent")
    if r.text("vol_quoted") != "P":
        vol_scan = vol_scan / vol if vol > 0 else 0.0
    return {
        "vol": vol, "vol_scan": vol_scan, "price_scan": _scaled(r, "price_scan", "price_scan_exponent"),
        "rate": r.number("rate"), "dividend": r.number("dividend"), "time": r.number("time"),
        "scale": r.number("scaling") or 1.0, "multiplier": _scaled(r, "value", "value_exponent"),
    }  # fmt: skip


def _price(r: Record, quoted: float) -> float | None:
    """A settlement price by its product's record P; None if its digits are no fraction of its alignment."""
    decimals, alignment = r.number("decimals"), r.text("alignment")
    if not alignment or np.isnan(quoted + decimals):
        return quoted / 10**decimals
    whole, quarter = divmod(abs(int(quoted)), 10)
    if quarter not in _QUARTERS:
        return None
    units = whole + _QUARTERS[quarter]
    if alignment == "C":
        points, units = divmod(units, 10 ** (decimals - 1))
        if units >= 32:
            return None
        units = points + units / 32
    return -units if quoted < 0 else units
