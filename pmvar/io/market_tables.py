"""The market's tables to a MarketSnapshot: what is absurd is rejected, what is unusable quarantined, the rest
flagged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from pmvar.errors import InputError, Problem
from pmvar.io.price_models import check_scales, read_scales
from pmvar.io.problems import Problems
from pmvar.io.schemas import MAX_MEDIAN_VOL, PERCENT_FIX
from pmvar.io.settings import BookHead
from pmvar.io.tables import Table
from pmvar.io.times import format_time
from pmvar.market.arbitrage import arbitrage_notes
from pmvar.market.curves import DiscountCurve, ForwardCurve
from pmvar.market.fit_smile import Quotes
from pmvar.market.fit_surface import Expiry, SurfaceFit, fit_surface
from pmvar.market.price_scale import LOGNORMAL, PriceScale
from pmvar.market.snapshot import Dividends, MarketSnapshot, Quanto
from pmvar.market.surface import VolSlice, VolSurface
from pmvar.types import DAY, SECONDS_PER_YEAR, FactorKind, SurfaceKind, factor_name

LEAST_YIELD = -0.01
"""Of a share, per year: where dividends leave less beside them, forwards seem not to carry them."""

MAX_AGE = DAY
"""Oldest price or mark of one valuation date, in seconds before `as_of`."""


@dataclass
class Notes:
    """What the checks leave behind beside problems."""

    flags: list[str] = field(default_factory=list)
    quarantined: dict[str, str] = field(default_factory=dict)
    """Factor name -> reason."""
    fits: list[SurfaceFit] = field(default_factory=list)
    """Fitted surfaces."""


def groups(table: Table, column: str) -> dict[str, np.ndarray]:
    """Value of a text column -> indices of its rows; values sorted, so that the order of rows cannot
    matter."""
    code = table.codes[column]
    order = np.argsort(code, kind="stable")
    parts = np.split(order, np.flatnonzero(np.diff(code[order])) + 1) if len(order) else []
    return dict(sorted((str(table[column][part[0]]), part) for part in parts))


def check_dates(table: Table, head: BookHead, *, problems: Problems) -> None:
    """Reject the rows whose `time` is after `as_of` or more than `MAX_AGE` before it."""
    time, shown = table["time"], format_time(head.as_of)
    rule, fix = f"must not be after as_of {shown}", "use one valuation date throughout"
    table.reject(problems, time > head.as_of, column="time", rule=rule, fix=fix)
    rule = f"must be within 24 h before as_of {shown}: mixed valuation dates"
    table.reject(problems, time < head.as_of - MAX_AGE, column="time", rule=rule, fix=fix)


def _check_spots(
    spots: Table, scales: Mapping[str, PriceScale], head: BookHead, *, problems: Problems, notes: Notes
) -> None:
    price, base = spots["price"], head.base_currency
    rule = "the base currency has the price 1 and no row"
    spots.reject(problems, spots["name"] == base, column="name", rule=rule, fix="remove the row")
    check_dates(spots, head, problems=problems)

    quarantined = {str(name): "price is 0" for name in spots["name"][price == 0] if name not in scales}
    limit = head.limits.get("max_price_age")
    if limit is not None:
        age = head.as_of - spots["time"]
        for name, seconds in zip(spots["name"][age > limit], age[age > limit].tolist(), strict=True):
            quarantined.setdefault(str(name), f"price is {seconds:.0f} s old, above max_price_age {limit:.0f} s")
    for name, reason in quarantined.items():
        notes.quarantined[factor_name(name, FactorKind.SPOT)] = reason


def _check_chains(spots: Table, head: BookHead, *, problems: Problems) -> None:
    """Reject each name whose chain of currencies does not end at the base currency."""
    currency = dict(zip(spots["name"].tolist(), spots["currency"].tolist(), strict=True))

    def reaches(name: str) -> bool:
        seen: set[str] = set()
        while name != head.base_currency:
            if name in seen or name not in currency:
                return False
            seen.add(name)
            name = currency[name]
        return True

    broken = np.array([not reaches(name) for name in spots["name"].tolist()], bool)
    rule = f"the chain of currencies must reach the base currency {head.base_currency}"
    spots.reject(problems, broken, column="currency", rule=rule, fix="add the missing currency to market/spots")


def _forwards(
    forwards: Table, spot: Mapping[str, float], scales: Mapping[str, PriceScale], head: BookHead, *, notes: Notes
) -> dict[str, ForwardCurve]:
    curves: dict[str, ForwardCurve] = {}
    for underlying, rows in groups(forwards, "underlying").items():
        live = rows[forwards["expiry"][rows] > head.as_of]
        if len(live) < len(rows):
            notes.flags.append(f"forwards of {underlying}: {len(rows) - len(live)} expired, not used")
        live = live[np.argsort(forwards["expiry"][live])]
        scale = scales.get(underlying, LOGNORMAL)
        # Without a positive spot there is no curve; the spot is quarantined, or rejected elsewhere.
        if len(live) and underlying in spot and scale.admits(spot[underlying]):
            curves[underlying] = ForwardCurve(
                head.as_of, spot[underlying], forwards["expiry"][live], forwards["forward"][live], scale
            )
    return curves


def _discounts(rates: Table, head: BookHead) -> dict[str, DiscountCurve]:
    curves = {}
    for currency, rows in groups(rates, "currency").items():
        rows = rows[np.argsort(rates["maturity"][rows])]
        curves[currency] = DiscountCurve(head.as_of, rates["maturity"][rows], rates["zero_rate"][rows])
    return curves


def _surfaces(
    vols: Table, forwards: Mapping[str, ForwardCurve], head: BookHead, *, problems: Problems, notes: Notes
) -> dict[str, VolSurface]:
    surfaces: dict[str, VolSurface] = {}
    for underlying, rows in groups(vols, "underlying").items():
        vol = vols["implied_vol"][rows]
        median = float(np.median(vol))
        if median > MAX_MEDIAN_VOL:
            rule = f"the median vol of {underlying} must not exceed {MAX_MEDIAN_VOL:g}; it is {median:g}"
            first = int(vols.row[rows[0]])
            where = {"file": vols.file, "row": first, "column": "implied_vol", "value": f"{vol[0]:g}"}
            problems.add(Problem(rule, PERCENT_FIX, **where))
        zero = rows[vol == 0]
        if len(zero):
            reason = f"vol is 0 at strike {vols['strike'][zero[0]]:g} ({vols.file}:{vols.row[zero[0]]})"
            notes.quarantined[factor_name(underlying, FactorKind.VOL)] = reason
        expired = vols["expiry"][rows] <= head.as_of
        if expired.any():
            notes.flags.append(f"vols of {underlying}: {int(expired.sum())} rows of past expiries, not used")
        rows = rows[(vol > 0) & ~expired]
        if underlying not in forwards:
            continue
        rows = rows[forwards[underlying].scale.admits(vols["strike"][rows])]  # the others are rejected already
        if not len(rows):
            continue
        curve, slices, chain = forwards[underlying], [], []
        for expiry in np.unique(vols["expiry"][rows]).tolist():
            at = rows[vols["expiry"][rows] == expiry]
            at = at[np.argsort(vols["strike"][at])]
            if not np.any(curve.expiry == expiry):
                notes.flags.append(f"vols of {underlying} for {format_time(expiry)}: forward interpolated")
            k = curve.moneyness(vols["strike"][at], expiry)
            slices.append(VolSlice(expiry, k, vols["implied_vol"][at]))
            quotes = Quotes(k, *(vols[name][at] for name in ("bid_vol", "implied_vol", "ask_vol")))
            chain.append(Expiry(expiry, vols["strike"][at], quotes))
        # Where no surface can be fitted, too: that is then the one thing to say.
        surfaces[underlying] = VolSurface(head.as_of, tuple(slices))
        linear = curve.scale.is_linear
        if head.settings.surface is SurfaceKind.RAW or linear:
            surfaces[underlying] = replace(surfaces[underlying], stickiness=head.settings.stickiness)
            notes.flags.extend(arbitrage_notes(underlying, surfaces[underlying], linear=linear))
            if head.settings.surface is not SurfaceKind.RAW:
                notes.flags.append(f"vols of {underlying}: stay raw, since a fit is for lognormal or shifted prices")
        elif not problems:
            try:
                fit = fit_surface(underlying, chain, as_of=head.as_of, kind=head.settings.surface)
                surfaces[underlying] = replace(fit.surface, stickiness=head.settings.stickiness)
            except InputError as error:
                problems.extend(error, file=vols.file)
                continue
            notes.fits.append(fit)
            notes.flags.extend(fit.notes())
    return surfaces


def _known(table: Table | None, column: str) -> dict[str, float]:
    """Instrument -> number, of the rows that have one."""
    if table is None:
        return {}
    rows = np.flatnonzero(~np.isnan(table[column]))
    return dict(zip(map(str, table["instrument_id"][rows]), table[column][rows].tolist(), strict=True))


def _dividends(
    table: Table | None,
    spots: Table,
    forwards: Mapping[str, ForwardCurve],
    discounts: Mapping[str, DiscountCurve],
    head: BookHead,
    *,
    problems: Problems,
    notes: Notes,
) -> dict[str, Dividends]:
    found: dict[str, Dividends] = {}
    if table is None:
        return found
    quoted = dict(zip(spots["name"].tolist(), spots["currency"].tolist(), strict=True))
    unknown = np.array([u not in quoted for u in table["underlying"].tolist()], bool) & spots.complete
    rule, fix = "the underlying has no price", "add it to market/spots"
    table.reject(problems, unknown, column="underlying", rule=rule, fix=fix)
    pairs = zip(table["underlying"].tolist(), table["currency"].tolist(), strict=True)
    foreign = np.array([quoted.get(u, c) != c for u, c in pairs], bool)
    rule, fix = "a dividend is in the currency that its share is quoted in", "convert the amount"
    table.reject(problems, foreign, column="currency", rule=rule, fix=fix)
    for underlying, rows in groups(table, "underlying").items():
        rows = rows[np.argsort(table["ex_date"][rows])]
        when, amount, curve = table["ex_date"][rows], table["amount"][rows], forwards.get(underlying)
        if curve is None:
            continue
        whole = np.isin(np.arange(len(table)), rows[amount >= curve.at(when)])
        rule, fix = "a dividend is less than the forward price", "write the amount per share, in the quote currency"
        table.reject(problems, whole, column="amount", rule=rule, fix=fix)
        found[underlying] = Dividends(when, amount)
        discount, end = discounts.get(quoted.get(underlying, "")), curve.expiry[-1]
        due = (when > head.as_of) & (when < end)
        if discount is not None and due.any() and not whole.any():
            years = (end - head.as_of) / SECONDS_PER_YEAR
            paid = -float(np.sum(np.log1p(-amount[due] / curve.at(when[due])))) / years
            held = -float(np.log(discount.discount_factor(end)) + curve.carry(end)) / years
            left = held - paid
            if left < LEAST_YIELD <= held:
                notes.flags.append(
                    f"forwards of {underlying} leave a yield of {left:.1%} beside its dividends: do they carry them?"
                )
    return found


def _spreads(table: Table | None) -> dict[str, float]:
    """Issuer -> spread."""
    return {} if table is None else dict(zip(map(str, table["underlying"]), table["spread"].tolist(), strict=True))


def _quanto(table: Table | None) -> dict[tuple[str, str], Quanto]:
    if table is None:
        return {}
    columns = (table[name].tolist() for name in ("underlying", "settlement_currency", "correlation", "fx_vol"))
    return {(u, c): Quanto(rho, vol) for u, c, rho, vol in zip(*columns, strict=True)}


def build_market(
    tables: Mapping[str, Table | None], head: BookHead, *, problems: Problems, notes: Notes
) -> MarketSnapshot | None:
    """The snapshot of `market/*`, or None where it cannot be had; all that is wrong goes to `problems`.

    A price of 0 or older than `max_price_age` and a vol of 0 are quarantined by factor; expired pillars,
    forwards interpolated for a surface's expiry are flagged, and those that seem to carry no dividends.
    """
    spots = tables.get("market/spots")
    if spots is None or not len(spots):
        return None
    scales = read_scales(spots, problems=problems)
    _check_spots(spots, scales, head, problems=problems, notes=notes)
    if spots.complete:
        _check_chains(spots, head, problems=problems)
    check_scales(tables, scales, problems=problems)
    order = np.argsort(spots["name"].astype(str))
    spot = dict(zip(spots["name"].tolist(), spots["price"].tolist(), strict=True))
    forwards, rates, vols = (tables.get(f"market/{name}") for name in ("forwards", "rates", "vols"))
    try:
        curves = _forwards(forwards, spot, scales, head, notes=notes) if forwards is not None else {}
        if forwards is not None and spots.complete:
            unknown = ~np.isin(forwards["underlying"].astype(str), list(spot))
            rule, fix = "the underlying has no price", "add it to market/spots"
            forwards.reject(problems, unknown, column="underlying", rule=rule, fix=fix)
        discounts = _discounts(rates, head) if rates is not None else {}
        surfaces = _surfaces(vols, curves, head, problems=problems, notes=notes) if vols is not None else {}
        dividends = _dividends(
            tables.get("market/dividends"), spots, curves, discounts, head, problems=problems, notes=notes
        )
        return MarketSnapshot(
            as_of=head.as_of,
            base_currency=head.base_currency,
            asset=tuple(spots["name"][order].tolist()),
            spot=spots["price"][order],
            quote_currency=tuple(spots["currency"][order].tolist()),
            haircut=spots["haircut"][order],
            forwards=curves,
            discounts=discounts,
            vols=surfaces,
            quanto=_quanto(tables.get("market/quanto")),
            half_spread=_known(tables.get("market/liquidity"), "half_spread"),
            daily_volume=_known(tables.get("market/liquidity"), "daily_volume"),
            dividends=dividends,
            funding=_known(tables.get("market/funding"), "daily_rate"),
            spread=_spreads(tables.get("market/spreads")),
            quarantined=dict(notes.quarantined),
            scales=scales,
        )
    except InputError as error:
        # With other problems at hand this one only repeats them.
        if not problems:
            problems.extend(error)
        return None
