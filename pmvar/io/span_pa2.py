"""read_pa2: a positional SPAN file (expanded unpacked, `U2`) to contracts, risk arrays and parameters; strict and safe.

Columns are those of `span_pa2_layout`. A record or a method that the aggregation does not know is refused by line and
column; what has no bearing on a margin is on the layout's list of ignored records.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np

from pmvar.errors import InputError, Problem, SecurityError
from pmvar.io.span_file import (
    FUTURE,
    FUTURE_OPTION,
    OPTION,
    PHYSICAL,
    CommodityDraft,
    ContractDraft,
    Draft,
    LegDraft,
    SpanFile,
    SpreadDraft,
    day_or_none,
    plain,
)
from pmvar.io.span_pa2_layout import IGNORED, LAYOUT, Field
from pmvar.methods.span.parameters import POINTS, STANDARD, CombinedCommodity, ShortOptionMethod, SpanGrid, SpotRate

HEADER = b"0 "
MAX_LINE = 1024
"""Longest line accepted; the longest record has 192 columns."""
_OPTIONS, _PRODUCTS = (OPTION, FUTURE_OPTION), (PHYSICAL, FUTURE, OPTION, FUTURE_OPTION)
_SECOND = {"81": "82", "83": "84"}
_NO_PRICE = 9_999_999
_PLAIN = re.compile(rb"[\x20-\x7e]*")

Product = tuple[str, str, str]
"""Exchange, code and type."""


@dataclass
class _Record:
    """One line; `at` names the file for what is wrong with it."""

    line: str
    row: int
    at: Draft
    fields: dict[str, Field]

    def refuse(self, name: str, rule: str, fix: str = "margin it elsewhere") -> None:
        """A problem of one field: line, columns and value."""
        f = self.fields[name]
        where = f"record {f.record.strip()} {name} (columns {f.first}–{f.last})"
        self.at.refuse(where, rule, fix, self.line[f.first - 1 : f.last].strip(), self.row)

    def text(self, name: str) -> str:
        f = self.fields[name]
        return self.line[f.first - 1 : f.last].strip()

    def one_of(self, name: str, *allowed: str) -> str:
        """Text that must be one of `allowed`."""
        found = self.text(name)
        if found not in allowed:
            known = ", ".join(a or "blank" for a in allowed)
            self.refuse(name, f"only {known} {'is' if len(allowed) == 1 else 'are'} known")
        return found

    def number(self, name: str) -> float:
        """Digits with their implied point and sign; NaN, and a problem, if they are not."""
        f = self.fields[name]
        raw = self.line[f.first - 1 : f.last]
        digits, sign = raw, " "
        if not raw.strip() and (f.kind.endswith("?") or f.kind == "L"):
            return 0.0
        if len(raw) < f.last - f.first + 1 and not ("b" in f.kind and len(raw) == f.last - f.first):
            self.refuse(name, "the line ends within this field", "supply the whole file")
            return np.nan
        if "s" in f.kind or "b" in f.kind:
            digits, sign = raw[: f.last - f.first], raw[f.last - f.first :] or " "
        if f.kind == "L":
            digits, sign = (digits[1:], "-") if digits.startswith("-") else (digits, " ")
        if not digits.isdigit() or sign not in ("+-" if "s" in f.kind else "+- "):
            rule = "must be digits" + (" and then + or −" if "s" in f.kind else "")
            self.refuse(name, rule, "correct it")
            return np.nan
        places = int(f.kind[2]) if f.kind != "L" else 0
        return (-1 if sign == "-" else 1) * int(digits) / 10**places

    def month(self, month: str = "month", day: str = "day") -> str:
        """CCYYMM and the day or week code; "" where the month is blank or zero."""
        found = self.text(month)
        if not found.strip("0"):
            return ""
        if not re.fullmatch(r"[12]\d{3}(0[1-9]|1[0-2])", found):
            self.refuse(month, "must be a month, CCYYMM", "correct it")
        return found + self.text(day)

    def product(self) -> Product:
        return self.text("exchange"), self.text("commodity"), self.text("product")


@dataclass
class _Array:
    """A pair of records 8x."""

    first: _Record
    second: _Record
    product: Product


@dataclass
class _Reader(Draft):
    """Collects records; what depends on several of them waits for the end of the file."""

    wanted: Collection[str] = ()
    """Combined commodities to read; all if there are none."""
    header: _Record | None = None
    block: CommodityDraft | None = None
    """That to which the records after its type 2 belong; None while skipping."""
    exponent: dict[str, float] = field(default_factory=dict)
    """Power of ten of amounts, by commodity."""
    owner: dict[Product, tuple[str, float]] = field(default_factory=dict)
    """Commodity of a product, and what a unit of its arrays amounts to."""
    prices: dict[Product, _Record] = field(default_factory=dict)
    series: dict[tuple[Product, str, str], _Record] = field(default_factory=dict)
    by_series: dict[str, list[tuple[float, SpreadDraft]]] = field(default_factory=dict)
    by_tier: dict[str, list[tuple[float, SpreadDraft]]] = field(default_factory=dict)
    between: list[tuple[float, SpreadDraft]] = field(default_factory=list)
    arrays: list[_Array] = field(default_factory=list)
    half: _Record | None = None
    unpriced: int = 0

    # -- records ------------------------------------------------------------------------------------------------------

    def take(self, record: str, r: _Record) -> None:
        """Sort a record in."""
        if self.half is not None and record != _SECOND[self.half.line[:2]]:
            self._incomplete(self.half)
        if record[0] == "8":
            self._array(record, r)
        elif record == "0 ":
            self.header = r
            r.one_of("format", "U2")
            r.one_of("cap", "", "N")
            r.one_of("level", "", "M")
        elif record == "P ":
            self.prices[r.product()] = r
        elif record == "2 ":
            self._commodity(r)
        elif record == "6 ":
            self._credit(r)
        elif self.block is not None:
            if record != "B " and r.text("code") != self.block.given.name:
                return r.refuse("code", f"belongs to {self.block.given.name}, whose records these are", "sort the file")
            {"S ": self._scanning, "3 ": self._tiers, "C ": self._by_tier, "E ": self._by_series, "4 ": self._delivery,
             "B ": self._series}[record](r, self.block)  # fmt: skip

    def _commodity(self, r: _Record) -> None:
        code = r.text("code")
        if self.wanted and code not in self.wanted:
            self.block = None
            return
        r.one_of("style", "", "P")
        r.one_of("cap", "", "N")
        r.one_of("combination", "")
        if self.block is None or self.block.given.name != code:
            if code in self.exponent:
                r.refuse("code", "is there twice, on two exchanges or apart", "cut the file to one of them")
            self.exponent[code] = 10 ** float(np.nan_to_num(r.number("exponent")))
            self.block = CommodityDraft(CombinedCommodity(code, r.text("currency")), [])
            self.commodities.append(self.block)
        for k in range(1, 7):
            name = r.text(f"commodity_{k}")
            if not name:
                continue
            kind = r.one_of(f"product_{k}", *_PRODUCTS)
            places = r.number(f"locator_{k}")
            r.one_of(f"locator_sign_{k}", "", "+")
            if places and self.exponent[code] != 1:
                r.refuse(f"locator_{k}", "is not known beside a risk exponent")
            product = r.text("exchange"), name, kind
            self.owner[product] = code, self.exponent[code] / 10 ** float(np.nan_to_num(places))
            self.block.links.append((kind, _family(product), 1.0))

    def _scanning(self, r: _Record, _: CommodityDraft) -> None:
        r.one_of("method", "01")
        r.one_of("price_risk", "", "1")

    def _tiers(self, r: _Record, block: CommodityDraft) -> None:
        r.one_of("method", "01", "10")
        for k in range(1, 5):
            if number := r.number(f"tier_{k}"):
                first, last = (r.month(f"{end}_{k}", f"{end}_day_{k}") for end in ("start", "end"))
                if not first or first > last + "~":
                    r.refuse(f"end_{k}", "a tier is a range of months", "correct it")
                block.tiers.append((int(np.nan_to_num(number)), first, last))
        ratio = max(1.0, *(float(np.nan_to_num(r.number(f"ratio_{k}"))) for k in range(1, 4)))
        block.given = replace(block.given, initial_ratio=max(ratio, block.given.initial_ratio))

    def _by_tier(self, r: _Record, block: CommodityDraft) -> None:
        r.one_of("method", "", "10")
        legs = [
            LegDraft(
                block.given.name, self._side(r, k), r.number(f"ratio_{k}"), int(np.nan_to_num(r.number(f"tier_{k}")))
            )
            for k in range(1, 9)
            if r.number(f"leg_{k}")
        ]
        self._spread(r, self.by_tier, block, legs)

    def _by_series(self, r: _Record, block: CommodityDraft) -> None:
        legs = []
        for k in range(1, 5):
            month = r.text(f"month_{k}")
            if not month.strip("0"):
                continue
            r.one_of(f"period_{k}", "", "000", "00")
            if not re.fullmatch(r"\d\d(0[1-9]|1[0-2])", month):
                r.refuse(f"month_{k}", "must be a month, YYMM", "correct it")
            legs.append(LegDraft(block.given.name, self._side(r, k), r.number(f"ratio_{k}"), month=f"20{month}"))
        self._spread(r, self.by_series, block, legs)

    def _spread(
        self, r: _Record, into: dict[str, list[tuple[float, SpreadDraft]]], block: CommodityDraft, legs: list[LegDraft]
    ) -> None:
        if not all(leg.ratio > 0 for leg in legs) or len({leg.side for leg in legs}) < 2:
            r.refuse("rate", "a spread has legs with ratios on both sides", "correct it")
            return
        code = block.given.name
        spread = SpreadDraft(r.number("rate") * self.exponent[code], legs, f"line {r.row}")
        into.setdefault(code, []).append((r.number("priority"), spread))

    def _side(self, r: _Record, k: int) -> int:
        return 1 if r.one_of(f"side_{k}", "A", "B") == "A" else -1

    def _delivery(self, r: _Record, block: CommodityDraft) -> None:
        unit, spot = self.exponent[block.given.name], []
        if r.one_of("method", "01", "10") == "10":
            for k in (1, 2):
                if month := r.month(f"month_{k}", f"day_{k}"):
                    amounts = (float(np.nan_to_num(r.number(f"{n}_{k}"))) * unit for n in ("consumed", "outright"))
                    spot.append(SpotRate(month, *amounts))
        for k in range(1, 4):
            if r.number(f"adjustment_{k}") not in (0, 1):
                r.refuse(f"adjustment_{k}", "only a factor of 1.00 is known")
        r.one_of("aggregation", "")
        method = ShortOptionMethod.MAX if r.one_of("counted", "", "1", "2") == "1" else ShortOptionMethod.GROSS
        minimum = float(np.nan_to_num(r.number("minimum"))) * unit
        block.given = replace(
            block.given, spot=(*block.given.spot, *spot), short_option_method=method,
            short_option_minimum=max(minimum, block.given.short_option_minimum),
        )  # fmt: skip

    def _series(self, r: _Record, _: CommodityDraft) -> None:
        r.one_of("price_quoted", "", "A")
        r.one_of("vol_quoted", "", "A", "P")
        self.series[r.product(), r.month(), r.month("option_month", "option_day")] = r

    def _credit(self, r: _Record) -> None:
        legs = []
        for k in range(1, 5):
            if code := r.text(f"code_{k}"):
                legs.append(LegDraft(code, self._side(r, k), r.number(f"ratio_{k}")))
        if self.wanted and not all(leg.commodity in self.wanted for leg in legs):
            return
        r.one_of("method", "", "01")
        r.one_of("credit", "", "W")
        r.one_of("super", "", "N")
        r.one_of("separate", "", "N")
        if r.text("eligible") in ("N", "H"):
            r.refuse("eligible", "credits for some accounts only are not known")
        for k in range(1, 5):
            if r.number(f"tier_{k}"):
                r.refuse(f"tier_{k}", "credits by tier are not known")
        if not all(leg.ratio > 0 for leg in legs) or len({leg.side for leg in legs}) < 2:
            return r.refuse("rate", "a spread has legs with ratios on both sides", "correct it")
        self.between.append((r.number("priority"), SpreadDraft(r.number("rate") / 100, legs, f"line {r.row}")))

    def _array(self, record: str, r: _Record) -> None:
        if record in _SECOND:
            self.half = r
            return
        first, self.half = self.half, None
        if first is None or first.line[2:54] != r.line[2:54]:
            self._incomplete(first or r)
        elif (product := r.product()) in self.owner:
            self.arrays.append(_Array(first, r, product))
        elif not self.wanted:
            r.refuse("commodity", "belongs to no combined commodity", "add it to a type 2 record")

    def _incomplete(self, r: _Record) -> None:
        self.half = None
        r.refuse("commodity", f"a contract has {POINTS} values in two records, 81 and 82 or 83 and 84", "supply both")

    # -- contracts ----------------------------------------------------------------------------------------------------

    def contract(self, pair: _Array) -> None:
        """Draft one contract, with its product's prices and its series' parameters."""
        first, second, product = pair.first, pair.second, pair.product
        exchange, code, kind = product
        price = self.prices.get(product)
        if price is None:
            return second.refuse("commodity", "has no price conversion, record P", "add it")
        month, option_month = first.month(), first.month("option_month", "option_day")
        unit = self.owner[product][1]
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
        worth = quoted / 10 ** price.number("decimals")
        family, key = _family(product), f"{exchange} {code} {kind}"
        settles = r.text("settles") if r else ""
        if settles and not day_or_none(settles):
            assert r is not None
            r.refuse("settles", "must be a day, CCYYMMDD", "correct it")
        if kind not in _OPTIONS:
            name = f"{code} {kind} {month}".strip()
            draft = ContractDraft(name, kind, (kind, family), (key, month), None, month, settles, 0,
                                  {**numbers, "price": worth})  # fmt: skip
        else:
            right = first.one_of("right", "C", "P")
            sign = -1 if second.text("strike_sign") == "-" else 1
            strike = sign * first.number("strike") / 10 ** price.number("strike_decimals")
            vol = second.number("vol") * 10 ** second.number("vol_exponent") or numbers.get("vol", 0.0)
            beneath = PHYSICAL if kind == OPTION else FUTURE
            name = f"{code} {option_month or month} {right} {plain(strike)}"
            draft = ContractDraft(
                name, kind, (kind, family), (key, name), (f"{exchange} {first.text('underlying')} {beneath}", month),
                month or option_month, settles, 1 if right == "C" else -1,
                {**numbers, "strike": strike, "vol": vol, "value": worth}, price.text("exercise") != "EURO",
            )  # fmt: skip
        draft.loss, draft.delta = loss, second.number("delta")
        self.contracts.append(draft)

    def check_prices(self, product: Product, currency: str) -> None:
        """Refuse what the values of a product's options cannot be read from."""
        if (r := self.prices.get(product)) is None:
            return
        for name in ("alignment", "strike_alignment"):
            r.one_of(name, "")
        r.one_of("currency", "", currency)
        if product[2] in _OPTIONS:
            r.one_of("valuation", "", "EQTY")
            r.one_of("variable", "", "0")
            r.one_of("exercise", "", "AMER", "EURO")

    def grid(self) -> SpanGrid:
        """The standard scenarios, with the extreme moves of the file where all series have the same."""
        extremes = {(r.number("multiplier"), r.number("fraction")) for r in self.series.values()} - {(0.0, 0.0)}
        if len(extremes) != 1:
            self.notes += ["extreme moves differ by series: labels name those of 3 scan ranges"] * bool(extremes)
            return STANDARD
        [(move, weight)] = extremes
        return replace(
            STANDARD, price=np.append(STANDARD.price[:-2], [move, -move]), weight=np.append(np.ones(14), [weight] * 2)
        )


def read_pa2(content: bytes, *, file: str, commodities: Collection[str] = ()) -> SpanFile:
    """The positional SPAN file that `content` holds; `file` is its name, `commodities` the ones to read, if not all.

    Raises InputError with every wrong record by line and column, SecurityError for a line that no honest file has.
    """
    reader = _Reader(file, wanted=commodities)
    for row, raw in enumerate(content.split(b"\n"), start=1):
        raw = raw.removesuffix(b"\r")
        if len(raw) > MAX_LINE:
            raise SecurityError(f"{file}:{row}: a line is longer than {MAX_LINE} bytes")
        plain_bytes = _PLAIN.match(raw)
        if plain_bytes is None or plain_bytes.end() < len(raw):
            at = 1 + (plain_bytes.end() if plain_bytes else 0)
            raise InputError(
                Problem(f"column {at} is no printable ASCII", "save the file as ASCII", file=file, row=row,
                        value=repr(raw[at - 1 : at + 3]))
            )  # fmt: skip
        line = raw.decode("ascii")
        if not line.strip():
            continue
        record = line[:2].ljust(2)
        if record in LAYOUT:
            reader.take(record, _Record(line, row, reader, LAYOUT[record]))
        elif record not in IGNORED:
            reader.refuse("record (columns 1–2)", "is not known, and could bear on a margin", "margin these elsewhere",
                          record, row)  # fmt: skip
    if reader.half is not None:
        reader._incomplete(reader.half)
    header = reader.header
    day = header.text("date") if header else ""
    if header is None or not day_or_none(day):
        reader.refuse("record 0 date (columns 9–16)", "must be a day, CCYYMMDD", "correct it", day, 1)
    missing = sorted(set(commodities) - set(reader.exponent))
    if missing:
        reader.refuse("record 2 code", "is not in the file", "name one that is", ", ".join(missing))
    reader.problems.raise_any()
    assert header is not None
    for product, (code, _) in reader.owner.items():
        currency = next(c.given.currency for c in reader.commodities if c.given.name == code)
        reader.check_prices(product, currency)
    for pair in reader.arrays:
        reader.contract(pair)
    for commodity in reader.commodities:
        for found in (reader.by_series, reader.by_tier):
            ordered = sorted(found.get(commodity.given.name, []), key=lambda one: one[0])
            commodity.spreads += [spread for _, spread in ordered]
    reader.credits = [spread for _, spread in sorted(reader.between, key=lambda one: one[0])]
    if reader.unpriced:
        reader.notes.append(f"{reader.unpriced} contracts without a settlement price are left out")
    reader.problems.raise_any()
    return reader.finished(reader.grid(), day, header.text("organisation"))


def _family(product: Product) -> str:
    return f"{product[0]} {product[1]}"


def _scaled(r: _Record, name: str, exponent: str, sign: str = "") -> float:
    """A number times a power of ten."""
    power = r.number(exponent)
    return r.number(name) * 10 ** (-power if sign and r.text(sign) == "-" else power)


def _series_numbers(r: _Record) -> dict[str, float]:
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
