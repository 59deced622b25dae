"""read_span: a SPAN 4.00 risk parameter file (XML) to contracts, risk arrays and parameters; strict, and safe.

No DTD, entity or external reference is read; depth and size are capped. What the aggregation does not know is refused
by name: ignoring it could lower a margin. Element names as in Takasbank's files: `spanFile/pointInTime/clearingOrg/
{pointDef, ccDef, interSpreads, exchange/{phyPf, futPf, oopPf}}`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from pmvar.errors import InputError, Problem, SecurityError
from pmvar.io.problems import Problems
from pmvar.io.source import Source
from pmvar.methods.span.arrays import SpanArrays, SpanContracts
from pmvar.methods.span.parameters import (
    DELTA_POINTS,
    POINTS,
    CombinedCommodity,
    Leg,
    ShortOptionMethod,
    SpanGrid,
    SpanParameters,
    Spread,
)

MAX_DEPTH = 32
"""Elements within elements; files have ten."""
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d{1,3})?")


@dataclass(frozen=True)
class SpanFile:
    """What a file says. Contracts in the order of the file."""

    as_of: str
    """YYYYMMDD."""
    organisation: str
    contract_id: np.ndarray
    """Strings: `XU030 201606 C 86`; futures and physicals without right and strike."""
    number: np.ndarray
    """The file's own ids of contracts (`cId`)."""
    underlying_id: np.ndarray
    """The contract that an option or future is on; its own id otherwise."""
    settlement_date: np.ndarray
    """YYYYMMDD, "" for a physical."""
    contracts: SpanContracts
    arrays: SpanArrays
    """As published, weights of the extreme moves included."""
    parameters: SpanParameters


@dataclass
class _Contract:
    """One contract as it is read."""

    name: str
    portfolio: tuple[str, str]
    """(type, id) of its product family."""
    key: tuple[str, str]
    """(family id, contract id): what an option's underlying refers to."""
    underlying: tuple[str, str] | None
    month: str
    settles: str
    kind: int
    numbers: dict[str, float]
    loss: list[float]
    delta: float


@dataclass
class _Reader:
    """Collects contracts, commodities and problems while elements end."""

    file: str
    problems: Problems = field(default_factory=Problems)
    contracts: list[_Contract] = field(default_factory=list)
    commodities: list[tuple[CombinedCommodity, list[tuple[str, str, float]], list[tuple[float, list]]]] = field(
        default_factory=list
    )
    credits: list[tuple[float, list]] = field(default_factory=list)
    grid: SpanGrid | None = None
    notes: list[str] = field(default_factory=list)

    def refuse(self, where: str, rule: str, fix: str, value: str = "") -> None:
        self.problems.add(Problem(rule, fix, file=self.file, column=where, value=value[:100]))

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
        try:
            datetime.strptime(text, "%Y%m%d")
        except ValueError:
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
        if element.find("spotRate") is not None:
            self.refuse(f"{where}/spotRate", "spot month rates of files are not known", "margin it elsewhere")
        for tier in (*element.findall("intraTiers/tier"), *element.findall("interTiers/tier")):
            if (tier.findtext("tn") or "").strip() != "0":
                self.refuse(
                    f"{where}/tier", "tiers by month are not known", "margin it elsewhere", tier.findtext("tn") or ""
                )
        if element.find("adjRate") is not None:
            self.notes.append(f"{name}: adjRate is not applied, initial is maintenance margin")
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
        spreads = [self._spread(s, "F", where) for s in element.findall("dSpread")]
        currency = self.text(element, "currency", where)
        given = CombinedCommodity(
            name, currency, short_option_minimum=float(np.nan_to_num(minimum)),
            short_option_method=ShortOptionMethod(method or "GROSS"),
        )  # fmt: skip
        self.commodities.append((given, links, spreads))

    def only_deltas(self, element: Any, where: str) -> None:
        """Refuse spreads of another kind than of deltas, such as scanning ones."""
        for child in element:
            if child.tag.lower().endswith("spread") and child.tag != "dSpread":
                self.refuse(f"{where}/{child.tag}", "only dSpread is known", "margin these commodities elsewhere")

    def _spread(self, element: Any, charge: str, where: str) -> tuple[float, list]:
        where = f"{where}/dSpread {element.findtext('spread')}"
        method = self.text(element, "chargeMeth", where)
        if method and method != charge:
            self.refuse(f"{where}/chargeMeth", f"only {charge} is known here", "margin it elsewhere", method)
        legs = []
        for leg in element.findall("tLeg"):
            side = self.text(leg, "rs", where)
            if side and side not in "AB":
                self.refuse(f"{where}/tLeg/rs", "must be A or B", "correct it", side)
            if (leg.findtext("tn") or "").strip() != "0":
                self.refuse(f"{where}/tLeg/tn", "tiers by month are not known", "margin it elsewhere")
            ratio = self.number(leg, "i", where, least=1e-12)
            legs.append((self.text(leg, "cc", where), 1 if side == "A" else -1, ratio))
        return self.number(element, "rate/val", where, least=0.0), legs

    def family(self, element: Any) -> None:
        """A phyPf, futPf or oopPf."""
        kind = {"phyPf": "PHY", "futPf": "FUT", "oopPf": "OOP"}[element.tag]
        code, family = self.text(element, "pfCode", element.tag), self.text(element, "pfId", element.tag)
        if kind == "OOP":
            style = (element.findtext("exercise") or "").strip()
            if style != "EURO":
                self.refuse(f"oopPf {code}/exercise", "only EURO options are priced", "margin them elsewhere", style)
            for series in element.findall("series"):
                self._series(series, code, family)
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
            self._add(item, _Contract(name, (kind, family), key, on, month, settles, 0, numbers, [], 0.0))

    def _series(self, series: Any, code: str, family: str) -> None:
        where = f"oopPf {code} {series.findtext('pe')}"
        month = self.text(series, "pe", where)
        underlying = self.text(series, "undC/pfId", where), self.text(series, "undC/cId", where)
        settles = self.date(self.text(series, "setlDate", where), f"{where}/setlDate")
        shared = {
            "time": self.number(series, "t", where, least=0.0),
            "multiplier": self.number(series, "svf", where, least=1e-12),
            "rate": self.number(series, "intrRate/val", where),
            "dividend": self.number(series, "divRate/val", where),
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
            name = f"{code} {month} {right} {strike:g}"
            key = family, self.text(option, "cId", here)
            self._add(option, _Contract(name, ("OOP", family), key, underlying, month, settles, kind, numbers, [], 0.0))

    def _add(self, element: Any, contract: _Contract) -> None:
        """With its published array."""
        values = element.findall("ra/a")
        if len(values) != POINTS:
            self.refuse(f"{contract.name}/ra", "has 16 values", "complete the array", str(len(values)))
            return
        contract.loss = [self.as_number((v.text or "").strip(), f"{contract.name}/ra") for v in values]
        contract.delta = self.number(element, "ra/d", contract.name)
        self.contracts.append(contract)


def read_span(path: str | Path) -> SpanFile:
    """The SPAN file at `path`.

    Raises InputError with every missing or wrong element, SecurityError for a DTD, an entity, nesting or a size that no
    honest file has.
    """
    from defusedxml import DefusedXmlException
    from defusedxml.ElementTree import ParseError, iterparse

    path = Path(path)
    content = Source(path.parent).read(path.name)
    reader = _Reader(path.name)
    head: dict[str, str] = {}
    parts: dict[str, Callable[[Any], None]] = {
        "pointDef": reader.point_def, "ccDef": reader.commodity, "phyPf": reader.family, "futPf": reader.family,
        "oopPf": reader.family,
    }  # fmt: skip
    open_tags: list[str] = []
    try:
        for event, element in iterparse(io.BytesIO(content), events=("start", "end"), forbid_dtd=True):
            if event == "start":
                open_tags.append(element.tag)
                if len(open_tags) > MAX_DEPTH:
                    raise SecurityError(f"{path.name}: elements nest deeper than {MAX_DEPTH}")
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
        raise SecurityError(f"{path.name}: {type(error).__name__}: a SPAN file needs no DTD and no entities") from error
    except ParseError as error:
        raise InputError(
            Problem(f"is not well-formed XML: {error}", "supply the whole file", file=path.name)
        ) from error
    if not reader.grid:
        reader.refuse("pointDef", "is missing or incomplete", "supply the whole file")
    reader.date(head.get("date", ""), "pointInTime/date")
    if "spanFile" not in head:
        reader.refuse("spanFile", "is the root of a SPAN file", "supply a SPAN 4.00 XML file")
    reader.problems.raise_any()
    return _assembled(reader, head)


def _assembled(reader: _Reader, head: dict[str, str]) -> SpanFile:
    """Contracts with their underlyings' prices, and spreads between commodities that are there."""
    assert reader.grid is not None
    family: dict[tuple[str, str], tuple[int, float]] = {}
    for c, (_, links, _) in enumerate(reader.commodities):
        family |= {(kind, number): (c, scale) for kind, number, scale in links}
    by_key = {contract.key: contract for contract in reader.contracts if contract.kind == 0}
    for contract in reader.contracts:
        if contract.portfolio not in family:
            reader.refuse(
                contract.name, "belongs to no combined commodity", "add its pfLink", " ".join(contract.portfolio)
            )
        if contract.underlying is not None:
            if contract.underlying not in by_key:
                reader.refuse(
                    contract.name, "its underlying is not in the file", "add it", " ".join(contract.underlying)
                )
            elif contract.kind:
                contract.numbers["price"] = by_key[contract.underlying].numbers["price"]
    reader.problems.raise_any()

    def column(name: str, default: float = 0.0) -> Float[np.ndarray, " contract"]:
        return np.array([c.numbers.get(name, default) for c in reader.contracts])

    places = [family[c.portfolio] for c in reader.contracts]
    kind = np.array([c.kind for c in reader.contracts], dtype=np.int64)
    contracts = SpanContracts(
        kind, column("price"), column("strike", np.nan), column("time"), column("vol"), column("rate"),
        column("dividend"), column("multiplier"), column("price_scan"), column("vol_scan"),
    )  # fmt: skip
    scale = column("scale", 1.0) * np.array([s for _, s in places])
    arrays = SpanArrays(
        np.array([c for c, _ in places], dtype=np.int64),
        _texts([c.month for c in reader.contracts]),
        kind,
        np.array([c.loss for c in reader.contracts]).reshape(-1, POINTS),
        np.array([c.delta for c in reader.contracts]) * scale,
        column("value") * column("multiplier"),
        np.ones(len(kind)),
    )
    index = {given.name: c for c, (given, _, _) in enumerate(reader.commodities)}
    dropped = [legs for _, legs in reader.credits if not all(name in index for name, _, _ in legs)]
    if dropped:
        reader.notes.append(f"{len(dropped)} credits with commodities that the file does not hold are left out")

    def spread(rate: float, legs: list) -> Spread:
        return Spread(rate, tuple(Leg(index[name], side, ratio) for name, side, ratio in legs))

    commodities = tuple(
        CombinedCommodity(
            given.name, given.currency, spreads=tuple(spread(*s) for s in own),
            short_option_minimum=given.short_option_minimum, short_option_method=given.short_option_method,
        )
        for given, _, own in reader.commodities
    )  # fmt: skip
    credits = tuple(spread(*c) for c in reader.credits if all(name in index for name, _, _ in c[1]))
    day, name = head["date"], head.get("ec", "")
    parameters = SpanParameters(reader.grid, commodities, credits, f"{name} SPAN file of {day}", tuple(reader.notes))
    on = [by_key[c.underlying].name if c.underlying else c.name for c in reader.contracts]
    return SpanFile(
        day, name, _texts([c.name for c in reader.contracts]), _texts([c.key[1] for c in reader.contracts]), _texts(on),
        _texts([c.settles for c in reader.contracts]), contracts, arrays, parameters,
    )  # fmt: skip


def _texts(values: list[str]) -> np.ndarray:
    return np.array(values, dtype=object)
