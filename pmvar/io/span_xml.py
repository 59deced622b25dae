"""read_xml: a SPAN 4.00 risk parameter file (XML) to contracts, risk arrays and parameters; strict, and safe.

No DTD, entity or external reference is read; depth and size are capped. What the aggregation does not know is refused
by name: ignoring it could lower a margin. Element names as in Takasbank's files: `spanFile/pointInTime/clearingOrg/
{pointDef, ccDef, interSpreads, exchange/{phyPf, futPf, oopPf}}`; those that it lacks (`oofPf`, `spotRate`, `pLeg`,
tiers' `sPe` and `ePe`) as the open parser rpolton/span-for-margin lists them.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from pmvar.errors import InputError, Problem, SecurityError
from pmvar.io.span_file import (
    FUTURE_OPTION,
    OPTION,
    CommodityDraft,
    ContractDraft,
    Draft,
    LegDraft,
    SpanFile,
    SpreadDraft,
    day_or_none,
    plain,
)
from pmvar.methods.span.parameters import (
    DELTA_POINTS,
    POINTS,
    CombinedCommodity,
    ShortOptionMethod,
    SpanGrid,
    SpotRate,
)

MAX_DEPTH = 32
"""Elements within elements; files have ten."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")


@dataclass
class _Reader(Draft):
    """Drafts contracts and commodities while elements end."""

    grid: SpanGrid | None = None

    def text(self, element: Any, path: str, where: str) -> str:
        """The text of one sub-element; a problem if it is missing, empty or there more than once."""
        found = element.findall(path)
        if len(found) != 1 or not (found[0].text or "").strip():
            self.refuse(f"{where}/{path}", f"is there {len(found)} times", "one element with a value is needed")
            return ""
        return (found[0].text or "").strip()

    def number(self, element: Any, path: str, where: str, *, least: float = -np.inf) -> float:
        """A plain decimal number that is not below `least`; a problem, and NaN, if it is not."""
        text = self.text(element, path, where)
        return self.as_number(text, f"{where}/{path}", least=least) if text else np.nan

    def as_number(self, text: str, where: str, *, least: float = -np.inf) -> float:
        value = float(text) if NUMBER.fullmatch(text) else np.nan
        if not (np.isfinite(value) and value >= least):
            limit = f" of at least {least:g}" if np.isfinite(least) else ""
            self.refuse(where, f"must be a plain decimal number{limit}", "correct it", text)
            return np.nan
        return value

    def date(self, text: str, where: str) -> str:
        """A day as YYYYMMDD."""
        if not day_or_none(text):
            self.refuse(where, "must be a day, YYYYMMDD", "correct it", text)
        return text

    # -- parts of a file ----------------------------------------------------------------------------------------------

    def point_def(self, element: Any) -> None:
        """The sixteen scenarios and seven delta points."""
        scans, deltas = element.findall("scanPointDef"), element.findall("deltaPointDef")
        if len(scans) != POINTS or len(deltas) != DELTA_POINTS:
            counts = f"{len(scans)} and {len(deltas)}"
            return self.refuse("pointDef", "has 16 scan points and 7 delta points", "complete it", counts)

        def fraction(point: Any, name: str, where: str) -> float:
            over = self.number(point, f"{name}/denominator", where, least=1e-9)
            return self.number(point, f"{name}/numerator", where) / over

        def column(points: list, read: Callable[[Any, str], float], name: str) -> np.ndarray:
            return np.array([read(p, f"{name} {i + 1}") for i, p in enumerate(points)])

        order = column(scans, lambda p, w: self.number(p, "point", w, least=1.0), "scanPointDef")
        paired = column(scans, lambda p, w: self.number(p, "pairedPoint", w, least=1.0), "scanPointDef")
        if not np.array_equal(order, np.arange(1, POINTS + 1)) or not np.all(np.isin(paired, order)):
            return self.refuse("pointDef", "lists points 1 to 16 in order, each paired with one of them", "correct it")
        self.grid = SpanGrid(
            column(scans, lambda p, w: fraction(p, "priceScanDef", w), "scanPointDef"),
            column(scans, lambda p, w: fraction(p, "volScanDef", w), "scanPointDef"),
            column(scans, lambda p, w: self.number(p, "weight", w, least=0.0), "scanPointDef"),
            paired.astype(np.int64) - 1,
            column(deltas, lambda p, w: fraction(p, "priceScanDef", w), "deltaPointDef"),
            column(deltas, lambda p, w: self.number(p, "weight", w, least=0.0), "deltaPointDef"),
        )

    def commodity(self, element: Any) -> None:
        """A ccDef: its product families, spreads and minimum."""
        name = self.text(element, "cc", "ccDef")
        where = f"ccDef {name}"
        for path, allowed in (
            ("riskExponent", {"0"}), ("capAnov", {"0"}), ("procMeth", {"NORMAL"}), ("wfprMeth", {"NORMAL"}),
            ("spotMeth", {"NORMAL"}), ("cmbMeth", {"NONE"}),
        ):  # fmt: skip
            value = element.findtext(path)
            if value is not None and value.strip() not in allowed:
                self.refuse(
                    f"{where}/{path}", f"only {', '.join(allowed)} is known", "margin this commodity elsewhere", value
                )
        self.only_deltas(element, where)
        for tier in element.findall("scanTiers/tier"):
            if (tier.findtext("tn") or "").strip() != "0":
                rule = "scanning by tier is not known"
                self.refuse(f"{where}/scanTiers", rule, "margin it elsewhere", tier.findtext("tn") or "")
        method = self.text(element, "somMeth", where)
        if method and method not in set(ShortOptionMethod):
            self.refuse(
                f"{where}/somMeth", f"must be one of {', '.join(ShortOptionMethod)}", "margin it elsewhere", method
            )
            method = ShortOptionMethod.GROSS
        links = [
            (
                self.text(link, "pfType", where),
                self.text(link, "pfId", where),
                self.number(link, "sc", where, least=0.0),
            )
            for link in element.findall("pfLink")
        ]
        rates = element.findall("somTiers/tier/rate")
        if len(rates) > 1:
            self.refuse(
                f"{where}/somTiers", "one short option minimum is known", "margin it elsewhere", str(len(rates))
            )
        minimum = self.number(rates[0], "val", f"{where}/somTiers", least=0.0) if len(rates) == 1 else 0.0
        given = CombinedCommodity(
            name, self.text(element, "currency", where), short_option_minimum=float(np.nan_to_num(minimum)),
            short_option_method=ShortOptionMethod(method or "GROSS"), spot=self.spot_rates(element, where),
            maintenance_ratio=self.adjustment(element, where),
        )  # fmt: skip
        spreads = [self._spread(s, "F", where) for s in element.findall("dSpread")]
        self.commodities.append(CommodityDraft(
            given, links, spreads, self.tiers(element, "intraTiers", where), self.tiers(element, "interTiers", where)
        ))  # fmt: skip

    def tiers(self, element: Any, kind: str, where: str) -> list[tuple[int, str, str]]:
        """Tiers of spreads between months, or of credits; tier 0, all months, apart."""
        found, where = [], f"{where}/{kind}"
        for tier in element.findall(f"{kind}/tier"):
            number = self.number(tier, "tn", where, least=0.0)
            if number > 0:
                for child in tier:
                    if child.tag not in ("tn", "sPe", "ePe"):
                        self.refuse(f"{where}/{child.tag}", "tiers are ranges of months", "write sPe and ePe")
                first, last = (self.text(tier, end, where) for end in ("sPe", "ePe"))
                if first > last:
                    self.refuse(where, "ends before it starts", "correct it", f"{first} {last}")
                found.append((int(number), first, last))
        return found

    def spot_rates(self, element: Any, where: str) -> tuple[SpotRate, ...]:
        """Charges for deltas near delivery, one for each month."""
        found = []
        for rate in element.findall("spotRate"):
            amounts = [self.number(rate, name, f"{where}/spotRate", least=0.0) for name in ("sprd", "outr")]
            found.append(SpotRate(self.text(rate, "pe", f"{where}/spotRate"), *amounts))
        if len({rate.month for rate in found}) < len(found):
            self.refuse(f"{where}/spotRate", "one rate for each month is known", "keep one of them")
        return tuple(found)

    def adjustment(self, element: Any, where: str) -> float:
        """Maintenance margin over risk, the largest `adjRate`: 75% at Takasbank until 2017, when both became equal."""
        rates = [
            self.as_number((r.findtext("val") or "").strip(), f"{where}/adjRate") for r in element.findall("adjRate")
        ]
        if not all(0 < rate <= 1 for rate in rates):
            self.refuse(f"{where}/adjRate", "lies in (0, 1]", "margin it elsewhere", ", ".join(map(str, rates)))
            return 1.0
        return max(rates, default=1.0)

    def only_deltas(self, element: Any, where: str) -> None:
        """Refuse spreads of another kind than of deltas, such as scanning ones."""
        for child in element:
            if child.tag.lower().endswith("spread") and child.tag != "dSpread":
                self.refuse(f"{where}/{child.tag}", "only dSpread is known", "margin these commodities elsewhere")

    def _spread(self, element: Any, charge: str, where: str) -> SpreadDraft:
        where = f"{where}/dSpread {element.findtext('spread')}"
        method = self.text(element, "chargeMeth", where)
        if method and method != charge:
            self.refuse(f"{where}/chargeMeth", f"only {charge} is known here", "margin it elsewhere", method)
        legs = []
        for leg in (*element.findall("tLeg"), *element.findall("pLeg")):
            side = self.text(leg, "rs", where)
            if side and side not in "AB":
                self.refuse(f"{where}/{leg.tag}/rs", "must be A or B", "correct it", side)
            tier = self.number(leg, "tn", where, least=0.0) if leg.tag == "tLeg" else 0.0
            month = self.text(leg, "pe", where) if leg.tag == "pLeg" else ""
            if charge == "W" and month:
                self.refuse(f"{where}/{leg.tag}", "credits by month are not known", "margin it elsewhere")
            ratio = self.number(leg, "i", where, least=1e-12)
            commodity = self.text(leg, "cc", where)
            legs.append(LegDraft(commodity, 1 if side == "A" else -1, ratio, int(np.nan_to_num(tier)), month))
        return SpreadDraft(self.number(element, "rate/val", where, least=0.0), legs, where)

    def family(self, element: Any) -> None:
        """A phyPf, futPf, oopPf or oofPf."""
        kind = element.tag[:3].upper()
        code, family = self.text(element, "pfCode", element.tag), self.text(element, "pfId", element.tag)
        if kind in (OPTION, FUTURE_OPTION):
            style, valued = ((element.findtext(tag) or "").strip() for tag in ("exercise", "valueMeth"))
            if style not in ("EURO", "AMER"):
                self.refuse(f"{element.tag} {code}/exercise", "must be EURO or AMER", "correct it", style)
            if valued not in ("", "EQTY"):
                self.refuse(f"{element.tag} {code}/valueMeth", "only options paid at once, EQTY, are known",
                            "margin them elsewhere", valued)  # fmt: skip
            if (element.findtext("isVariableTick") or "0").strip() != "0":
                self.refuse(
                    f"{element.tag} {code}/isVariableTick", "variable ticks are not known", "margin it elsewhere"
                )
            for series in element.findall("series"):
                self._series(series, code, (kind, family), american=style == "AMER")
            return
        for item in element.findall(element.tag[:3]):
            where = f"{element.tag} {code} {item.findtext('pe')}"
            month = self.text(item, "pe", where)
            numbers = {
                "price": self.number(item, "p", where), "multiplier": self.number(item, "cvf", where, least=1e-12),
                "price_scan": self.number(item, "scanRate/priceScan", where, least=0.0),
                "scale": self.number(item, "sc", where, least=0.0),
                "time": self.number(item, "t", where, least=0.0) if kind == "FUT" else 0.0,
            }  # fmt: skip
            settles = self.date(self.text(item, "setlDate", where), f"{where}/setlDate") if kind == "FUT" else ""
            key = family, self.text(item, "cId", where)
            own = [(item.findtext("undC/pfId") or "").strip(), (item.findtext("undC/cId") or "").strip()]
            name = f"{code} {kind} {month}"
            on = (own[0], own[1]) if all(own) else None
            self._add(item, ContractDraft(name, kind, (kind, family), key, on, month, settles, 0, numbers))

    def _series(self, series: Any, code: str, family: tuple[str, str], *, american: bool) -> None:
        where = f"{family[0].lower()}Pf {code} {series.findtext('pe')}"
        month = self.text(series, "pe", where)
        underlying = self.text(series, "undC/pfId", where), self.text(series, "undC/cId", where)
        settles = self.date(self.text(series, "setlDate", where), f"{where}/setlDate")
        shared = {
            "time": self.number(series, "t", where, least=0.0),
            "multiplier": self.number(series, "svf", where, least=1e-12),
            "rate": self.number(series, "intrRate/val", where),
            "dividend": self.number(series, "divRate/val", where) if family[0] == OPTION else 0.0,
            "price_scan": self.number(series, "scanRate/priceScan", where, least=0.0),
            "vol_scan": self.number(series, "scanRate/volScanPct", where, least=0.0),
            "scale": self.number(series, "sc", where, least=0.0),
        }
        for option in series.findall("opt"):
            right, strike = self.text(option, "o", where), self.number(option, "k", where, least=1e-12)
            here = f"{where} {right} {strike:g}"
            if right not in ("C", "P"):
                self.refuse(f"{here}/o", "must be C or P", "correct it", right)
            numbers = {
                **shared, "strike": strike, "vol": self.number(option, "v", here, least=0.0),
                "value": self.number(option, "p", here, least=0.0),
            }  # fmt: skip
            kind = 1 if right == "C" else -1
            name = f"{code} {month} {right} {plain(strike)}"
            key = family[1], self.text(option, "cId", here)
            self._add(option, ContractDraft(name, family[0], family, key, underlying, month, settles, kind, numbers,
                                            american))  # fmt: skip

    def _add(self, element: Any, contract: ContractDraft) -> None:
        """With its published array."""
        values = element.findall("ra/a")
        if len(values) != POINTS:
            self.refuse(f"{contract.name}/ra", "has 16 values", "complete the array", str(len(values)))
            return
        contract.loss = [self.as_number((v.text or "").strip(), f"{contract.name}/ra") for v in values]
        contract.delta = self.number(element, "ra/d", contract.name)
        self.contracts.append(contract)


def read_xml(content: bytes, *, file: str) -> SpanFile:
    """The SPAN file that `content` holds; `file` is its name.

    Raises InputError with every missing or wrong element, SecurityError for a DTD, an entity or nesting that no honest
    file has.
    """
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, iterparse

    reader = _Reader(file)
    head: dict[str, str] = {}
    parts: dict[str, Callable[[Any], None]] = {
        "pointDef": reader.point_def, "ccDef": reader.commodity, "phyPf": reader.family, "futPf": reader.family,
        "oopPf": reader.family, "oofPf": reader.family,
    }  # fmt: skip
    open_tags: list[str] = []
    try:
        for event, element in iterparse(io.BytesIO(content), events=("start", "end"), forbid_dtd=True):
            if event == "start":
                open_tags.append(element.tag)
                if len(open_tags) > MAX_DEPTH:
                    raise SecurityError(f"{file}: elements nest deeper than {MAX_DEPTH}")
                continue
            open_tags.pop()
            if element.tag in parts:
                parts[element.tag](element)
                element.clear()
            elif element.tag == "interSpreads":
                reader.only_deltas(element, "interSpreads")
                reader.credits = [reader._spread(s, "W", "interSpreads") for s in element.findall("dSpread")]
                element.clear()
            elif open_tags[-1:] == ["exchange"] and element.tag not in ("exch", "name"):
                reader.refuse(element.tag, "such contracts are not known", "margin them elsewhere")
                element.clear()
            elif open_tags[-1:] in (["pointInTime"], ["clearingOrg"], []):
                head.setdefault(element.tag, (element.text or "").strip())
    except DefusedXmlException as error:
        raise SecurityError(f"{file}: {type(error).__name__}: a SPAN file needs no DTD and no entities") from error
    except ParseError as error:
        raise InputError(Problem(f"is not well-formed XML: {error}", "supply the whole file", file=file)) from error
    if not reader.grid:
        reader.refuse("pointDef", "is missing or incomplete", "supply the whole file")
    reader.date(head.get("date", ""), "pointInTime/date")
    if "spanFile" not in head:
        reader.refuse("spanFile", "is the root of a SPAN file", "supply a SPAN 4.00 XML file")
    reader.problems.raise_any()
    assert reader.grid is not None
    return reader.finished(reader.grid, head["date"], head.get("ec", ""))
