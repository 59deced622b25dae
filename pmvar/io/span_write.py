"""write_span: a book's risk arrays by pmvar's own pricer, as a SPAN 4.00 XML file that `read_span` reads back.

Amounts are in base currency, deltas in base currency for one unit of return. A family holds one underlying's contracts
of one kind and settlement; `cId` is the instrument's id, a perpetual is delivered on `NEVER`.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import numpy as np

from pmvar.errors import UsageError
from pmvar.instruments import Instruments
from pmvar.io.atomic import whole_file
from pmvar.market.snapshot import MarketSnapshot
from pmvar.methods.span.arrays import SpanArrays
from pmvar.methods.span.parameters import SpanGrid, SpanParameters, Spread
from pmvar.types import OPTION_KINDS, SECONDS_PER_YEAR, Exercise, Kind
from pmvar.valuation.today import Terms, terms_today

NEVER = "99991231"
Element = ElementTree.Element


def write_span(
    path: str | Path,
    instruments: Instruments,
    market: MarketSnapshot,
    arrays: SpanArrays,
    parameters: SpanParameters,
) -> Path:
    """Write arrays of `instruments` and the parameters beside them; a file that is there is replaced whole.

    Raises UsageError for an underlying whose price may be zero or less, since the file says prices by ratios, and for
    options that the file's families have no place for.
    """
    odd = sorted(set(map(str, instruments.underlying)) & set(market.scales))
    if odd:
        raise UsageError(f"a SPAN file holds no price that may be zero or less, such as {odd[0]}'s; leave it out")
    other = np.flatnonzero(np.isin(instruments.kind, OPTION_KINDS) & (instruments.kind != Kind.OPTION))
    if len(other):
        name, kind = instruments.instrument_id[other[0]], instruments.kind[other[0]]
        raise UsageError(f"{name} is a {kind} option, which this writer of SPAN files does not know; leave it out")
    root, terms = Element("spanFile"), terms_today(instruments, market)
    _texts(root, fileFormat="4.00")
    point = ElementTree.SubElement(root, "pointInTime")
    _texts(point, date=_day(market.as_of))
    house = ElementTree.SubElement(point, "clearingOrg")
    _texts(house, ec="PMVAR", name=parameters.source)
    _grid(house, parameters.grid)
    families = _families(instruments)
    for commodity in parameters.commodities:
        given = ElementTree.SubElement(house, "ccDef")
        _texts(given, cc=commodity.name, currency=commodity.currency, riskExponent="0", capAnov="0",
               somMeth=str(commodity.short_option_method))  # fmt: skip
        for (underlying, kind, *_), number in families.items():
            if underlying == commodity.name:
                _texts(ElementTree.SubElement(given, "pfLink"), pfId=str(number), pfType=kind, sc="1")
        tier = ElementTree.SubElement(ElementTree.SubElement(given, "somTiers"), "tier")
        _texts(tier, tn="0")
        _texts(ElementTree.SubElement(tier, "rate"), val=_number(commodity.short_option_minimum))
        for s, spread in enumerate(commodity.spreads):
            _spread(given, spread, s + 1, "F", parameters)
    between = ElementTree.SubElement(house, "interSpreads")
    for s, credit in enumerate(parameters.credits):
        _spread(between, credit, s + 1, "W", parameters)
    exchange = ElementTree.SubElement(house, "exchange")
    _texts(exchange, exch="PMVAR")
    for (underlying, kind, settlement, exercise), number in families.items():
        rows = np.flatnonzero(
            (instruments.underlying == underlying)
            & (instruments.settlement == settlement)
            & (instruments.exercise == exercise)
            & (_type(instruments) == kind)
        )
        _family(exchange, underlying, kind, number, rows, instruments, terms, arrays, market, families)
    ElementTree.indent(root, "")
    with whole_file(path) as temporary:
        ElementTree.ElementTree(root).write(temporary, encoding="utf-8", xml_declaration=True)
    return Path(path)


def _type(instruments: Instruments) -> np.ndarray:
    kinds = {Kind.OPTION: "OOP", Kind.SPOT: "PHY"}
    return np.array([kinds.get(Kind(k), "FUT") for k in instruments.kind], dtype=object)


Family = tuple[str, str, str, str]


def _families(instruments: Instruments) -> dict[Family, int]:
    """(underlying, type, settlement, exercise) -> number; every underlying has a physical, which options refer to."""
    columns = (instruments.underlying, _type(instruments), instruments.settlement, instruments.exercise)
    found: set[Family] = {(str(u), str(k), str(s), str(e)) for u, k, s, e in zip(*columns, strict=True)}
    found |= {(str(u), "PHY", "linear", "") for u in instruments.underlying}
    return {family: i + 1 for i, family in enumerate(sorted(found))}


def _family(
    exchange: Element, underlying: str, kind: str, number: int, rows: np.ndarray, instruments: Instruments,
    terms: Terms, arrays: SpanArrays, market: MarketSnapshot, families: dict[Family, int],
) -> None:  # fmt: skip
    """A phyPf, futPf or oopPf."""
    tag = {"PHY": "phyPf", "FUT": "futPf", "OOP": "oopPf"}[kind]
    family = ElementTree.SubElement(exchange, tag)
    _texts(family, pfId=str(number), pfCode=underlying)
    base = market.base_price(underlying)
    if kind == "PHY":
        _item(family, "phy", "0", underlying, base, 1.0, np.zeros(16), 0.0)
    if kind != "OOP":
        for i in rows.tolist():
            month = _month(instruments, i)
            item = _item(family, tag[:3], month, str(instruments.instrument_id[i]), base,
                         float(terms.units[i]), arrays.loss[i], float(arrays.delta[i]))  # fmt: skip
            if kind == "FUT":
                _texts(item, setlDate=month, t=_number(_years(instruments, i, market)))
        return
    american = len(rows) and instruments.exercise[rows[0]] == Exercise.AMERICAN
    _texts(family, exercise="AMER" if american else "EURO")
    for month in sorted({_month(instruments, i) for i in rows.tolist()}):
        own = [i for i in rows.tolist() if _month(instruments, i) == month]
        series = ElementTree.SubElement(family, "series")
        _texts(series, pe=month, setlDate=month, t=_number(_years(instruments, own[0], market)),
               svf=_number(terms.units[own[0]]), sc="1")  # fmt: skip
        physical = families[underlying, "PHY", "linear", ""]
        _texts(ElementTree.SubElement(series, "undC"), pfId=str(physical), cId=underlying)
        rate = float(terms.rate[own[0]])
        carry = float(np.log(terms.forward[own[0]] / terms.spot[own[0]])) / _years(instruments, own[0], market)
        _texts(ElementTree.SubElement(series, "intrRate"), val=_number(rate))
        _texts(ElementTree.SubElement(series, "divRate"), val=_number(rate - carry))
        _texts(ElementTree.SubElement(series, "scanRate"), priceScan="0", volScanPct="0")
        for i in own:
            option = ElementTree.SubElement(series, "opt")
            _texts(option, cId=str(instruments.instrument_id[i]), o="C" if arrays.kind[i] > 0 else "P",
                   k=_number(terms.strike[i]), p=_number(arrays.value[i] / float(terms.units[i])),
                   v=_number(terms.vol[i]))  # fmt: skip
            _array(option, arrays.loss[i], float(arrays.delta[i]))


def _item(
    family: Element, tag: str, month: str, name: str, price: float, size: float, loss: np.ndarray, delta: float
) -> Element:
    item = ElementTree.SubElement(family, tag)
    _texts(item, cId=name, pe=month, p=_number(price), cvf=_number(size), sc="1")
    _texts(ElementTree.SubElement(item, "scanRate"), priceScan="0")
    _array(item, loss, delta)
    return item


def _array(item: Element, loss: np.ndarray, delta: float) -> None:
    array = ElementTree.SubElement(item, "ra")
    for value in loss:
        ElementTree.SubElement(array, "a").text = _number(value)
    _texts(array, d=_number(delta))


def _grid(house: Element, grid: SpanGrid) -> None:
    given = ElementTree.SubElement(house, "pointDef")
    for i in range(len(grid.price)):
        point = ElementTree.SubElement(given, "scanPointDef")
        _texts(point, point=str(i + 1))
        for tag, move in (("priceScanDef", grid.price[i]), ("volScanDef", grid.vol[i])):
            _texts(ElementTree.SubElement(point, tag), numerator=_number(move), denominator="1")
        _texts(point, weight=_number(grid.weight[i]), pairedPoint=str(int(grid.paired[i]) + 1))
    for i in range(len(grid.delta_price)):
        point = ElementTree.SubElement(given, "deltaPointDef")
        _texts(ElementTree.SubElement(point, "priceScanDef"), numerator=_number(grid.delta_price[i]), denominator="1")
        _texts(point, weight=_number(grid.delta_weight[i]))


def _spread(parent: Element, spread: Spread, number: int, charge: str, parameters: SpanParameters) -> None:
    given = ElementTree.SubElement(parent, "dSpread")
    _texts(given, spread=str(number), chargeMeth=charge)
    _texts(ElementTree.SubElement(given, "rate"), val=_number(spread.rate))
    for leg in spread.legs:
        name = parameters.commodities[leg.commodity].name
        side = "A" if leg.side > 0 else "B"
        _texts(ElementTree.SubElement(given, "tLeg"), cc=name, tn="0", rs=side, i=_number(leg.ratio))


def _texts(parent: Element, **texts: str) -> None:
    for tag, text in texts.items():
        ElementTree.SubElement(parent, tag).text = text


def _number(value: object) -> str:
    """Every digit: what is read back is what was written."""
    return repr(float(value)) if value else "0"  # pyright: ignore[reportArgumentType]


def _day(moment: float) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y%m%d")


def _month(instruments: Instruments, i: int) -> str:
    return _day(instruments.expiry[i]) if np.isfinite(instruments.expiry[i]) else NEVER


def _years(instruments: Instruments, i: int, market: MarketSnapshot) -> float:
    expiry = float(instruments.expiry[i])
    return (expiry - market.as_of) / SECONDS_PER_YEAR if np.isfinite(expiry) else 0.0
