"""What a SPAN file says, whichever format it has, and how the parts that a reader drafts become it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
from jaxtyping import Float

from pmvar.errors import Problem
from pmvar.io.problems import Problems
from pmvar.methods.span.arrays import SpanArrays, SpanContracts
from pmvar.methods.span.parameters import POINTS, CombinedCommodity, Leg, SpanGrid, SpanParameters, Spread

PHYSICAL, FUTURE, OPTION, FUTURE_OPTION = "PHY", "FUT", "OOP", "OOF"
"""Products: what lies beneath, futures, options on physicals, options on futures."""


@dataclass(frozen=True)
class SpanFile:
    """What a file says. Contracts in the order of the file."""

    as_of: str
    """YYYYMMDD."""
    organisation: str
    contract_id: np.ndarray
    """Strings: `XU030 201606 C 86`; futures and physicals without right and strike: `XU030 FUT 201606`."""
    number: np.ndarray
    """The file's own ids of contracts (`cId`); in positional files the same as `contract_id`."""
    underlying_id: np.ndarray
    """The contract that an option or future is on; its own id otherwise."""
    product: np.ndarray
    """PHY, FUT, OOP or OOF."""
    american: np.ndarray
    """Whether an option may be exercised before its expiry: its published array knows, `contracts` does not."""
    settlement_date: np.ndarray
    """YYYYMMDD, "" where the file gives none."""
    contracts: SpanContracts
    arrays: SpanArrays
    """As published, weights of the extreme moves included."""
    parameters: SpanParameters


@dataclass
class ContractDraft:
    """One contract as it is read."""

    name: str
    product: str
    family: tuple[str, str]
    """(type, id) of its product family."""
    key: tuple[str, str]
    """(family id, contract id): what an option's underlying refers to."""
    underlying: tuple[str, str] | None
    month: str
    """Where its delta counts; of an option on a future that future's month comes first."""
    settles: str
    kind: int
    numbers: dict[str, float]
    american: bool = False
    loss: list[float] = field(default_factory=list)
    delta: float = 0.0


@dataclass(frozen=True)
class LegDraft:
    """One side of a spread, its commodity by name."""

    commodity: str
    side: int
    ratio: float
    tier: int = 0
    month: str = ""


@dataclass(frozen=True)
class SpreadDraft:
    """A spread, its rate a charge or a share."""

    rate: float
    legs: list[LegDraft]
    where: str


@dataclass
class CommodityDraft:
    """One combined commodity as it is read."""

    given: CombinedCommodity
    """All but months and spreads."""
    links: list[tuple[str, str, float]]
    """(type, id, scaling factor) of its product families."""
    spreads: list[SpreadDraft] = field(default_factory=list)
    """Between its months, in priority order."""
    tiers: list[tuple[int, str, str]] = field(default_factory=list)
    """Number, first and last month; of spreads between months."""
    credit_tiers: list[tuple[int, str, str]] = field(default_factory=list)
    """The same of credits between commodities."""


@dataclass
class Draft:
    """Contracts, commodities and problems of a file that is being read."""

    file: str
    problems: Problems = field(default_factory=Problems)
    contracts: list[ContractDraft] = field(default_factory=list)
    commodities: list[CommodityDraft] = field(default_factory=list)
    credits: list[SpreadDraft] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def refuse(self, where: str, rule: str, fix: str, value: str = "", row: int | None = None) -> None:
        self.problems.add(Problem(rule, fix, file=self.file, row=row, column=where, value=value[:100]))

    def finished(self, grid: SpanGrid, day: str, organisation: str) -> SpanFile:
        """Contracts with their underlyings' prices, and spreads between commodities that are there.

        Raises InputError for what refers to nothing, is there twice, or has broken a rule before.
        """
        family: dict[tuple[str, str], tuple[int, float]] = {}
        for c, commodity in enumerate(self.commodities):
            family |= {(kind, number): (c, scale) for kind, number, scale in commodity.links}
        by_key = {contract.key: contract for contract in self.contracts if contract.kind == 0}
        seen: set[str] = set()
        for contract in self.contracts:
            self._joined(contract, family, by_key, seen)
        self.problems.raise_any()
        places = [family[c.family] for c in self.contracts]
        index = {commodity.given.name: c for c, commodity in enumerate(self.commodities)}
        whole = [self._whole(c, commodity, places, index) for c, commodity in enumerate(self.commodities)]
        inside = [c for c in self.credits if all(leg.commodity in index for leg in c.legs)]
        if len(inside) < len(self.credits):
            gone = len(self.credits) - len(inside)
            self.notes.append(f"{gone} credits with commodities that the file does not hold are left out")
        known = {c.given.name: {0, *(n for n, _, _ in c.credit_tiers)} for c in self.commodities}
        for credit in inside:
            for leg in credit.legs:
                if leg.tier not in known[leg.commodity]:
                    self.refuse(credit.where, f"its tier of {leg.commodity} is not defined", "define the tier",
                                str(leg.tier))  # fmt: skip
        self.problems.raise_any()
        credits = tuple(_spread(c, index) for c in inside)
        source = f"{organisation} SPAN file of {day}"
        on = [by_key[c.underlying].name if c.underlying else c.name for c in self.contracts]
        contracts, arrays = self._columns(places)
        return SpanFile(
            day, organisation, _texts([c.name for c in self.contracts]), _texts([c.key[1] for c in self.contracts]),
            _texts(on), _texts([c.product for c in self.contracts]),
            np.array([c.american for c in self.contracts], dtype=bool), _texts([c.settles for c in self.contracts]),
            contracts, arrays,
            SpanParameters(grid, tuple(whole), credits, source, tuple(self.notes)),
        )  # fmt: skip

    def _joined(
        self, contract: ContractDraft, family: dict, by_key: dict[tuple[str, str], ContractDraft], seen: set[str]
    ) -> None:
        """Check a contract against the others, and give it its underlying's price and month."""
        if contract.name in seen:
            self.refuse(contract.name, "is there twice", "leave one out")
        seen.add(contract.name)
        if contract.family not in family:
            self.refuse(contract.name, "belongs to no combined commodity", "add its pfLink", " ".join(contract.family))
        if contract.underlying is None:
            return
        beneath = by_key.get(contract.underlying)
        if beneath is None:
            self.refuse(contract.name, "its underlying is not in the file", "add it", " ".join(contract.underlying))
        elif contract.kind:
            contract.numbers["price"] = beneath.numbers["price"]
            if contract.product == FUTURE_OPTION:
                # Black (1976): the forward is the future's price, so that the yield is the rate.
                contract.numbers["dividend"] = contract.numbers.get("rate", 0.0)
                contract.month = beneath.month

    def _whole(
        self, c: int, draft: CommodityDraft, places: list[tuple[int, float]], index: dict[str, int]
    ) -> CombinedCommodity:
        tiers = {0, *(n for n, _, _ in draft.tiers)}
        for spread in draft.spreads:
            for leg in spread.legs:
                if leg.commodity != draft.given.name:
                    self.refuse(spread.where, "a spread between months is within one commodity", "correct it")
                if leg.tier not in tiers:
                    self.refuse(spread.where, "its tier is not defined", "define the tier", str(leg.tier))
        self.problems.raise_any()
        months = sorted({contract.month for contract, (own, _) in zip(self.contracts, places, strict=True) if own == c})
        return replace(
            draft.given, months=_of_months(months, draft.tiers), credit_months=_of_months(months, draft.credit_tiers),
            spreads=tuple(_spread(s, index) for s in draft.spreads),
        )  # fmt: skip

    def _columns(self, places: list[tuple[int, float]]) -> tuple[SpanContracts, SpanArrays]:
        def column(name: str, default: float = 0.0) -> Float[np.ndarray, " contract"]:
            return np.array([c.numbers.get(name, default) for c in self.contracts])

        kind = np.array([c.kind for c in self.contracts], dtype=np.int64)
        contracts = SpanContracts(
            kind, column("price"), column("strike", np.nan), column("time"), column("vol"), column("rate"),
            column("dividend"), column("multiplier"), column("price_scan"), column("vol_scan"),
        )  # fmt: skip
        scale = column("scale", 1.0) * np.array([s for _, s in places])
        arrays = SpanArrays(
            np.array([c for c, _ in places], dtype=np.int64),
            _texts([c.month for c in self.contracts]),
            kind,
            np.array([c.loss for c in self.contracts]).reshape(-1, POINTS),
            np.array([c.delta for c in self.contracts]) * scale,
            column("value") * column("multiplier"),
            np.ones(len(kind)),
        )
        return contracts, arrays


def _of_months(months: list[str], tiers: list[tuple[int, str, str]]) -> tuple[tuple[str, tuple[int, ...]], ...]:
    """Months with the tiers that they lie in; a tier's last month covers its days, `202606` also `20260615`."""
    inside = ((m, tuple(n for n, first, last in tiers if first <= m <= last + "~")) for m in months)
    return tuple((m, own) for m, own in inside if own)


def _spread(draft: SpreadDraft, index: dict[str, int]) -> Spread:
    legs = (Leg(index[leg.commodity], leg.side, leg.ratio, leg.tier, leg.month) for leg in draft.legs)
    return Spread(draft.rate, tuple(legs))


def plain(number: float) -> str:
    """A strike in every digit that it has: `86`, `1250000`, `.0125` as `0.0125`."""
    return f"{number:.10f}".rstrip("0").rstrip(".")


def day_or_none(text: str) -> datetime | None:
    """A day written YYYYMMDD."""
    try:
        return datetime.strptime(text, "%Y%m%d") if len(text) == 8 else None
    except ValueError:
        return None


def _texts(values: list[str]) -> np.ndarray:
    return np.array(values, dtype=object)
