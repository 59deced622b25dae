"""Instruments and marks: what each product needs, and whether its price can be meant as written."""

from __future__ import annotations

from dataclasses import fields

import numpy as np

from pmvar.instruments import Instruments
from pmvar.io.bond_terms import check_bond_terms
from pmvar.io.market_tables import Notes, check_dates
from pmvar.io.payoff_tables import check_averages, check_payoffs, check_quantos
from pmvar.io.problems import Problems
from pmvar.io.settings import BookHead
from pmvar.io.tables import Table
from pmvar.io.times import format_time
from pmvar.market.snapshot import MarketSnapshot
from pmvar.market.surface import Quoted
from pmvar.types import (
    OPTION_KINDS,
    Deliverable,
    Exercise,
    FactorKind,
    Kind,
    Payoff,
    PutCall,
    Settlement,
    factor_name,
)

MARK_FACTOR = 10.0
"""A mark outside its no-arbitrage bounds by this factor is in the wrong unit."""
DEEP = 0.01
"""Intrinsic value, as a fraction of the forward, from which the lower bound holds; nearer the money it is
noise."""


def check_terms(table: Table, *, problems: Problems) -> None:
    """Reject rows whose columns do not make up the product that they name."""
    kind, settlement = table["kind"], table["settlement"]
    option, future, bond = np.isin(kind, OPTION_KINDS), kind == Kind.FUTURE, kind == Kind.BOND
    vanilla = kind == Kind.OPTION
    no_expiry, no_strike = np.isnan(table["expiry"]), np.isnan(table["strike"])

    def reject(mask: np.ndarray, column: str, rule: str, fix: str = "correct the row") -> None:
        table.reject(problems, mask, column=column, rule=rule, fix=fix)

    reject((option | future | bond) & no_expiry, "expiry", "an option, a future or a bond needs an expiry", "supply it")
    reject(~(option | future | bond) & ~no_expiry, "expiry", "a spot or a perpetual has no expiry", "leave it blank")
    reject(option & no_strike, "strike", "an option needs a strike", "supply it")
    reject(~option & ~no_strike, "strike", "only an option has a strike", "leave it blank")
    reject(option & (table["put_call"] == ""), "put_call", "an option is a call or a put", "supply it")
    reject(~option & (table["put_call"] != ""), "put_call", "only an option is a call or a put", "leave it blank")
    reject(
        vanilla & (table["exercise"] == ""), "exercise", "an option names its exercise", "write european or american"
    )
    reject(
        ~vanilla & (table["exercise"] != ""),
        "exercise",
        "only an option of kind option has an exercise",
        "leave it blank",
    )
    american, inverse = table["exercise"] == Exercise.AMERICAN, settlement == Settlement.INVERSE
    rule = "only an American option names what it delivers"
    reject(~american & (table["deliverable"] != ""), "deliverable", rule, "leave it blank")
    reject(american & inverse, "exercise", "an American option is linear", "write european, or settle it linearly")
    reject((kind == Kind.SPOT) & inverse, "settlement", "a spot instrument is linear", "write linear")
    check_bond_terms(table, problems=problems)
    column = "settlement_currency"
    reject(
        inverse & (table[column] != table["underlying"]),
        column,
        "an inverse instrument settles in its underlying",
    )
    reject(
        (settlement == Settlement.LINEAR) & (table[column] != table["quote_currency"]),
        column,
        "a linear instrument settles in its quote_currency",
    )
    check_payoffs(table, problems=problems)


def check_names(table: Table, spots: Table, head: BookHead, *, problems: Problems) -> None:
    """Reject rows whose underlying or quote currency has no price, or is priced in another currency."""
    quoted_in = dict(zip(spots["name"].tolist(), spots["currency"].tolist(), strict=True))
    known = [*quoted_in, head.base_currency]
    underlying, quote = table["underlying"], table["quote_currency"]
    bond = table["kind"] == Kind.BOND
    lacking = ~bond & ~np.isin(underlying.astype(str), list(quoted_in))
    fix = "add it to market/spots"
    table.reject(problems, lacking, column="underlying", rule="the underlying has no price", fix=fix)
    unknown = ~np.isin(quote.astype(str), known)
    table.reject(problems, unknown, column="quote_currency", rule="the currency has no price", fix=fix)
    paid = table["settlement_currency"]
    unpaid = (table["settlement"] == Settlement.QUANTO) & ~np.isin(paid.astype(str), known)
    rule = "the currency has no price"
    table.reject(problems, unpaid, column="settlement_currency", rule=rule, fix=fix)
    prices = np.array([quoted_in.get(name, "") for name in underlying.tolist()], dtype=object)
    other = ~bond & ~lacking & ~unknown & (prices != quote)
    rule = "an instrument is quoted in the currency that market/spots prices its underlying in"
    table.reject(problems, other, column="quote_currency", rule=rule, fix="correct one of the two")


def check_curves(table: Table, market: MarketSnapshot, *, problems: Problems) -> None:
    """Reject live instruments whose underlying has no forwards, no vols, or no rates where they are
    needed."""
    check_averages(table, market.as_of, problems=problems)
    check_quantos(table, market, problems=problems)
    bond = table["kind"] == Kind.BOND
    due = bond & (table["expiry"] > market.as_of)
    live = ~bond & (table["expiry"] > market.as_of)
    option = live & np.isin(table["kind"], OPTION_KINDS)
    linear = option & (table["settlement"] != Settlement.INVERSE)
    quanto = table["settlement"] == Settlement.QUANTO
    payment = np.where(quanto, table["settlement_currency"], table["quote_currency"])
    underlying = table["underlying"]

    # What is quarantined or rejected already has no curve, and is not to be mentioned twice.
    prices = zip(market.asset, market.spot.tolist(), strict=True)
    excused = [name for name, price in prices if not market.scale(name).admits(price)]
    no_quotes = [name for name in set(underlying.tolist()) if factor_name(name, FactorKind.VOL) in market.quarantined]
    # A surface is built on forwards: where these are missing, that is the one thing to say.
    no_forward = ~np.isin(underlying.astype(str), [*market.forwards, *excused])
    no_vol = ~np.isin(underlying.astype(str), [*market.vols, *excused, *no_quotes])
    for mask, column, rule, fix in (
        (
            live & no_forward,
            "underlying",
            "a dated instrument needs forwards of its underlying after as_of",
            "market/forwards",
        ),
        (
            option & ~no_forward & no_vol,
            "underlying",
            "an option needs vols of its underlying after as_of",
            "market/vols",
        ),
        (
            (linear | due) & ~np.isin(payment.astype(str), list(market.discounts)),
            "quote_currency",
            "a linear option or a bond needs zero rates of its quote currency, a quanto of its settlement currency",
            "market/rates",
        ),
        (
            due & ~np.isin(underlying.astype(str), list(market.spread)),
            "underlying",
            "a bond needs the spread of its issuer over the zero rates; 0 is one",
            "market/spreads",
        ),
    ):
        table.reject(problems, mask, column=column, rule=rule, fix=f"add rows to {fix}")


def build_instruments(table: Table) -> Instruments:
    """The table as instruments, sorted by id."""
    order = np.argsort(table["instrument_id"].astype(str), kind="stable")
    expiry = np.where(np.isnan(table["expiry"]), np.inf, table["expiry"])
    unsaid = (table["exercise"] == Exercise.AMERICAN) & (table["deliverable"] == "")
    deliverable = np.where(unsaid, str(Deliverable.SPOT), table["deliverable"]).astype(object)
    # No frequency is none: a bill.
    bill = (table["kind"] == Kind.BOND) & np.isnan(table["frequency"])
    frequency = np.where(bill, 0.0, table["frequency"])
    columns = {**table.columns, "expiry": expiry, "deliverable": deliverable, "frequency": frequency}
    return Instruments(**{field.name: columns[field.name][order] for field in fields(Instruments)})


def check_marks(
    marks: Table,
    instruments: Instruments,
    market: MarketSnapshot,
    head: BookHead,
    *,
    problems: Problems,
    notes: Notes,
) -> None:
    """Reject marks of another date or in another unit; flag zero marks, crossed quotes and marks of unlisted
    names.

    A mark is per unit of the underlying: of an option in its settlement currency, otherwise in its quote
    currency.
    """
    check_dates(marks, head, problems=problems)
    index = {name: i for i, name in enumerate(instruments.instrument_id.tolist())}
    at = np.array([index.get(name, -1) for name in marks["instrument_id"].tolist()], np.int64)
    mark = marks["mark"]
    for mask, what in (
        (at < 0, "belong to instruments that are not listed"),
        (mark == 0, "are 0"),
        (marks["bid"] > marks["ask"], "have a bid above the ask"),
    ):
        if mask.any():
            notes.flags.append(f"{marks.file}: {int(mask.sum())} marks {what}, the first in row {marks.row[mask][0]}")

    listed = np.flatnonzero(at >= 0)
    priced = instruments.take(at[listed])
    low, high = _bounds(priced, market)
    value = np.zeros(len(marks))
    too_high, too_low = value.astype(bool), value.astype(bool)
    # NaN bounds, where the market has none, reject nothing; nor does a zero mark: there was none.
    too_high[listed] = mark[listed] > MARK_FACTOR * high
    too_low[listed] = (mark[listed] > 0) & (mark[listed] < low / MARK_FACTOR)
    fix = "write it per unit of the underlying, in the settlement currency; check cents against dollars"
    rule = f"the mark is more than {MARK_FACTOR:g} times the most it can be worth"
    marks.reject(problems, too_high, column="mark", rule=rule, fix=fix)
    rule = f"the mark is less than 1/{MARK_FACTOR:g} of the least it can be worth"
    marks.reject(problems, too_low, column="mark", rule=rule, fix=fix)


def _bounds(priced: Instruments, market: MarketSnapshot) -> tuple[np.ndarray, np.ndarray]:
    """Lower and upper no-arbitrage bound of each instrument's mark; NaN where the market does not tell."""
    n = len(priced)
    low, high = np.full(n, np.nan), np.full(n, np.nan)
    spot = dict(zip(market.asset, market.spot.tolist(), strict=True))
    for i in range(n):
        name, expiry, strike = str(priced.underlying[i]), float(priced.expiry[i]), float(priced.strike[i])
        curve = market.forwards.get(name)
        dated = np.isfinite(expiry)
        # A price that may be zero or less bounds nothing by a factor, and a strike that may not be is rejected already.
        if name in market.scales or strike <= 0:
            continue
        if spot.get(name, 0.0) <= 0 or (dated and (curve is None or expiry <= market.as_of)):
            continue
        forward = float(curve.at(expiry)) if dated and curve is not None else spot[name]
        if priced.kind[i] not in OPTION_KINDS:
            low[i] = high[i] = forward
            continue
        discount = market.discounts.get(str(priced.discount_currency[i]))
        if priced.settlement[i] == Settlement.INVERSE:
            unit = 1 / forward
        elif discount is not None:
            unit = float(discount.discount_factor(expiry)) * priced.amount[i] / priced.contract_size[i]
        else:
            continue
        if priced.exercise[i] == Exercise.AMERICAN:
            # Exercised at once, where that is more: the discount that a European one waits for is then none.
            forward, unit = (forward, 1.0) if priced.deliverable[i] == Deliverable.FUTURE else (spot[name], 1.0)
        call = priced.put_call[i] == PutCall.CALL
        if priced.kind[i] == Kind.DIGITAL:
            low[i], high[i] = 0.0, unit * (1.0 if priced.payoff[i] == Payoff.CASH_OR_NOTHING else forward)
            continue
        if priced.kind[i] == Kind.BARRIER:
            low[i], high[i] = 0.0, unit * (forward if call else strike) + np.nan_to_num(priced.rebate[i])
            continue
        if priced.formula[i] == Kind.ASIAN:
            low[i], high[i] = 0.0, unit * (np.fmax(forward, priced.average_so_far[i]) if call else strike)
            continue
        intrinsic = max(forward - strike, 0.0) if call else max(strike - forward, 0.0)
        high[i] = unit * (forward if call else strike)
        low[i] = unit * intrinsic if intrinsic > DEEP * forward else 0.0
    return low, high


def strike_flags(instruments: Instruments, held: np.ndarray, market: MarketSnapshot, vols: Table | None) -> list[str]:
    """The strikes of held options whose vol is not quoted on both sides (interpolated, extrapolated, one-sided, …), a
    note for each expiry and kind.

    `held` is a mask over the instruments.
    """
    one_sided: dict[tuple[str, float, float], str] = {}
    if vols is not None:
        lacking = np.isnan(vols["bid_vol"]) ^ np.isnan(vols["ask_vol"])
        crossed = vols["bid_vol"] > vols["ask_vol"]
        for i in np.flatnonzero(lacking | crossed | (vols["flag"] != "")).tolist():
            key = (str(vols["underlying"][i]), float(vols["expiry"][i]), float(vols["strike"][i]))
            one_sided[key] = str(vols["flag"][i]) or ("crossed" if crossed[i] else "one-sided")
    flags: list[str] = []
    surfaced = np.isin(instruments.underlying.astype(str), list(market.vols))
    smiles: dict[tuple[str, float], list[int]] = {}
    for i in np.flatnonzero(held & surfaced & np.isin(instruments.kind, OPTION_KINDS)).tolist():
        smiles.setdefault((str(instruments.underlying[i]), float(instruments.expiry[i])), []).append(i)
    for (underlying, expiry), rows in sorted(smiles.items()):
        strikes = instruments.strike[rows].tolist()
        k = market.forwards[underlying].moneyness(np.array(strikes), expiry)
        flagged: dict[str, set[float]] = {}
        for strike, quoted in zip(strikes, market.vols[underlying].quoted(k, expiry), strict=True):
            kind = one_sided.get((underlying, expiry, strike)) if quoted is Quoted.QUOTED else quoted.value
            if kind:
                flagged.setdefault(kind, set()).add(strike)
        for kind, those in sorted(flagged.items()):
            named = ", ".join(f"{strike:g}" for strike in sorted(those))
            flags.append(f"{underlying} {format_time(expiry)}: vol {kind} at strikes held {named}")
    return flags
