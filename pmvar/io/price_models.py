"""price_model and shift of market/spots: the scale of each price, and what may not be at or below zero without one."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pmvar.io.problems import Problems
from pmvar.io.tables import Table
from pmvar.market.price_scale import LOGNORMAL, PriceScale
from pmvar.types import Exercise, Kind, PriceModel, Settlement

SWITCH = "correct it, or choose price_model bachelier, or shifted with a larger shift, in market/spots"


def read_scales(spots: Table, *, problems: Problems) -> dict[str, PriceScale]:
    """Name -> scale, of the prices that are not lognormal; what is wrong with a shift goes to `problems`."""
    model, shift = spots["price_model"], spots["shift"]
    displaced = model != PriceModel.LOGNORMAL
    rule = "a shifted or Bachelier price needs a shift above 0: what is added to it, or what x = 1 moves it by"
    lacking = displaced & ~(shift > 0)
    spots.reject(problems, lacking, column="shift", rule=rule, fix="supply it; the usual price is a good size")
    rule = "only a shifted or Bachelier price has a shift"
    spots.reject(problems, ~displaced & ~np.isnan(shift), column="shift", rule=rule, fix="leave it blank")
    return {
        str(spots["name"][i]): PriceScale(PriceModel(model[i]), float(shift[i]))
        for i in np.flatnonzero(displaced & ~lacking)
    }


def check_scales(tables: Mapping[str, Table | None], scales: Mapping[str, PriceScale], *, problems: Problems) -> None:
    """Reject prices, strikes, forwards and marks that their underlying's scale does not admit, and uses of a price that
    may fall to zero which need one that cannot: as a currency, as a balance, inverse settlement, American exercise."""
    instruments, balances, marks = (tables.get(name) for name in ("instruments", "balances", "market/marks"))
    spots = tables["market/spots"]
    assert spots is not None, "scales are read from it"
    for table_name, name, column in (
        ("market/spots", "name", "price"),
        ("market/forwards", "underlying", "forward"),
        ("market/vols", "underlying", "strike"),
        ("instruments", "underlying", "strike"),
    ):
        table = tables.get(table_name)
        if table is not None:
            price = table[column]
            bad = ~np.isnan(price) & ~_admitted(table[name], price, scales)
            if table is spots:
                bad &= (price != 0) | np.isin(spots["name"].astype(str), list(scales))  # a plain 0 is quarantined
            rule = "must be above 0, of a shifted price above −shift"
            table.reject(problems, bad, column=column, rule=rule, fix=SWITCH)
    _check_marks(marks, instruments, scales, problems=problems)
    rule = "a price that may be zero or less is no currency"
    spots.reject(problems, np.isin(spots["currency"].astype(str), list(scales)), column="currency", rule=rule,
                 fix="quote the asset in another, or leave price_model lognormal")  # fmt: skip
    if balances is not None:
        rule = "a balance needs a price that cannot be zero or less"
        balances.reject(problems, np.isin(balances["asset"].astype(str), list(scales)), column="asset", rule=rule,
                        fix="hold a spot instrument on it, or leave its price_model lognormal")  # fmt: skip
    if instruments is not None:
        displaced = np.isin(instruments["underlying"].astype(str), list(scales))
        fix = "settle it linearly, or leave the price_model of its underlying lognormal"
        rule = "an inverse instrument needs a lognormal underlying: it is worth 1/F coins"
        inverse = displaced & (instruments["settlement"] == Settlement.INVERSE)
        instruments.reject(problems, inverse, column="settlement", rule=rule, fix=fix)
        rule = "a quanto needs a lognormal underlying"
        quanto = displaced & (instruments["settlement"] == Settlement.QUANTO)
        instruments.reject(problems, quanto, column="settlement", rule=rule, fix=fix)
        rule = "a digital, Asian or barrier option needs a lognormal underlying"
        other = displaced & np.isin(instruments["kind"], [Kind.DIGITAL, Kind.ASIAN, Kind.BARRIER])
        fix = "leave the price_model of its underlying lognormal"
        instruments.reject(problems, other, column="kind", rule=rule, fix=fix)
        rule = "an American option needs a lognormal underlying: its exercise boundary is that of one"
        american = displaced & (instruments["exercise"] == Exercise.AMERICAN)
        fix = "write european, or leave the price_model of its underlying lognormal"
        instruments.reject(problems, american, column="exercise", rule=rule, fix=fix)


def _admitted(names: np.ndarray, price: np.ndarray, scales: Mapping[str, PriceScale]) -> np.ndarray:
    out = LOGNORMAL.admits(price)
    for name, scale in scales.items():
        own = names == name
        out[own] = scale.admits(price[own])
    return out


def _check_marks(
    marks: Table | None, instruments: Table | None, scales: Mapping[str, PriceScale], *, problems: Problems
) -> None:
    """Only what is priced like a displaced underlying itself may have a mark below 0; an option never."""
    if marks is None:
        return
    free: set[str] = set()
    if instruments is not None:
        own = np.isin(instruments["underlying"].astype(str), list(scales)) & (instruments["kind"] != Kind.OPTION)
        free = set(instruments["instrument_id"][own].tolist())
    bound = ~np.isin(marks["instrument_id"].astype(str), list(free))
    for column in ("mark", "bid", "ask"):
        rule = "must be at least 0, but of futures, perpetuals and spots whose price may be less"
        marks.reject(problems, bound & (marks[column] < 0), column=column, rule=rule, fix=SWITCH)
