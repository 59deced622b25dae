"""Parameters of a positional SPAN file: combined commodities, tiers, spreads, spot months, minima, credits."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass, field, replace

import numpy as np

from pmvar.io.span_file import FUTURE, FUTURE_OPTION, OPTION, PHYSICAL, CommodityDraft, Draft, LegDraft, SpreadDraft
from pmvar.io.span_pa2_record import Product, Record, family
from pmvar.methods.span.parameters import CombinedCommodity, ShortOptionMethod, SpotRate

RECORDS = ("2 ", "S ", "3 ", "C ", "E ", "4 ", "6 ")
"""Those that `Parameters.take` takes."""
_PRODUCTS = (PHYSICAL, FUTURE, OPTION, FUTURE_OPTION)


@dataclass
class Parameters:
    """Collects records of parameters into `draft`; spreads and credits wait for their order."""

    draft: Draft
    wanted: Collection[str] = ()
    """Combined commodities to read; all if there are none."""
    block: CommodityDraft | None = None
    """That to which the records after its type 2 belong; None while skipping."""
    exponent: dict[str, float] = field(default_factory=dict)
    """Power of ten of amounts, by commodity."""
    owner: dict[Product, tuple[str, float]] = field(default_factory=dict)
    """Commodity of a product, and what a unit of its arrays amounts to."""
    by_series: dict[str, list[tuple[float, SpreadDraft]]] = field(default_factory=dict)
    by_tier: dict[str, list[tuple[float, SpreadDraft]]] = field(default_factory=dict)
    between: list[tuple[float, SpreadDraft]] = field(default_factory=list)

    def take(self, record: str, r: Record) -> None:
        """Sort a record in."""
        if record == "2 ":
            self._commodity(r)
        elif record == "6 ":
            self._credit(r)
        elif self.block is not None:
            if r.text("code") != self.block.given.name:
                return r.refuse("code", f"belongs to {self.block.given.name}, whose records these are", "sort the file")
            {"S ": self._scanning, "3 ": self._tiers, "C ": self._by_tier, "E ": self._by_series,
             "4 ": self._delivery}[record](r, self.block)  # fmt: skip

    def finish(self) -> None:
        """Give the draft its spreads and credits, each in the order of priority."""
        for commodity in self.draft.commodities:
            for found in (self.by_series, self.by_tier):
                ordered = sorted(found.get(commodity.given.name, []), key=lambda one: one[0])
                commodity.spreads += [spread for _, spread in ordered]
        self.draft.credits = [spread for _, spread in sorted(self.between, key=lambda one: one[0])]

    def _commodity(self, r: Record) -> None:
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
            self.draft.commodities.append(self.block)
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
            self.block.links.append((kind, family(product), 1.0))

    def _scanning(self, r: Record, block: CommodityDraft) -> None:
        """20 has tiers for credits alone; all other methods but 01 scan by tier."""
        if r.one_of("method", "01", "20") == "20":
            block.credit_tiers += _ranges(r, 5)
        r.one_of("price_risk", "", "1")

    def _tiers(self, r: Record, block: CommodityDraft) -> None:
        r.one_of("method", "01", "10")
        block.tiers += _ranges(r, 4)
        ratio = max(1.0, *(float(np.nan_to_num(r.number(f"ratio_{k}"))) for k in range(1, 4)))
        block.given = replace(block.given, initial_ratio=max(ratio, block.given.initial_ratio))

    def _by_tier(self, r: Record, block: CommodityDraft) -> None:
        r.one_of("method", "", "10")
        legs = [
            LegDraft(
                block.given.name, self._side(r, k), r.number(f"ratio_{k}"), int(np.nan_to_num(r.number(f"tier_{k}")))
            )
            for k in range(1, 9)
            if r.number(f"leg_{k}")
        ]
        self._spread(r, self.by_tier, block, legs)

    def _by_series(self, r: Record, block: CommodityDraft) -> None:
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
        self, r: Record, into: dict[str, list[tuple[float, SpreadDraft]]], block: CommodityDraft, legs: list[LegDraft]
    ) -> None:
        if not all(leg.ratio > 0 for leg in legs) or len({leg.side for leg in legs}) < 2:
            r.refuse("rate", "a spread has legs with ratios on both sides", "correct it")
            return
        code = block.given.name
        spread = SpreadDraft(r.number("rate") * self.exponent[code], legs, f"line {r.row}")
        into.setdefault(code, []).append((r.number("priority"), spread))

    def _side(self, r: Record, k: int) -> int:
        return 1 if r.one_of(f"side_{k}", "A", "B") == "A" else -1

    def _delivery(self, r: Record, block: CommodityDraft) -> None:
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

    def _credit(self, r: Record) -> None:
        legs = []
        for k in range(1, 5):
            if code := r.text(f"code_{k}"):
                tier = int(np.nan_to_num(r.number(f"tier_{k}")))
                legs.append(LegDraft(code, self._side(r, k), r.number(f"ratio_{k}"), tier))
        if self.wanted and not all(leg.commodity in self.wanted for leg in legs):
            return
        # Of another method than 20 the columns of tiers hold something else, or nothing.
        if r.one_of("method", "", "01", "20") != "20" and any(leg.tier for leg in legs):
            r.refuse("method", "credits by tier are method 20", "correct it")
        r.one_of("credit", "", "W")
        r.one_of("super", "", "N")
        r.one_of("separate", "", "N")
        if r.text("eligible") in ("N", "H"):
            r.refuse("eligible", "credits for some accounts only are not known")
        if not all(leg.ratio > 0 for leg in legs) or len({leg.side for leg in legs}) < 2:
            return r.refuse("rate", "a spread has legs with ratios on both sides", "correct it")
        self.between.append((r.number("priority"), SpreadDraft(r.number("rate") / 100, legs, f"line {r.row}")))


def _ranges(r: Record, most: int) -> list[tuple[int, str, str]]:
    """Number, first and last month of up to `most` tiers."""
    found = []
    for k in range(1, most + 1):
        if number := r.number(f"tier_{k}"):
            first, last = (r.month(f"{end}_{k}", f"{end}_day_{k}") for end in ("start", "end"))
            if not first or first > last + "~":
                r.refuse(f"end_{k}", "a tier is a range of months", "correct it")
            found.append((int(np.nan_to_num(number)), first, last))
    return found
