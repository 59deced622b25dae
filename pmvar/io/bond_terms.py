"""Bonds in the table of instruments: which columns make one up; and what rates move beside them."""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool

from pmvar.instruments import Instruments
from pmvar.io.problems import Problems
from pmvar.io.tables import Table
from pmvar.models.specification import ModelSpecification
from pmvar.types import FactorKind, Kind, Settlement
from pmvar.valuation.cash_flows import FREQUENCIES


def check_bond_terms(table: Table, *, problems: Problems) -> None:
    """Reject bonds that settle in anything but their quote currency or whose coupons are not fully said, and coupons
    of what is no bond."""
    bond = table["kind"] == Kind.BOND
    blank = {name: np.isnan(table[name]) for name in ("coupon", "frequency")} | {"day_count": table["day_count"] == ""}

    def reject(mask: np.ndarray, column: str, rule: str, fix: str) -> None:
        table.reject(problems, mask, column=column, rule=rule, fix=fix)

    reject(bond & (table["settlement"] == Settlement.INVERSE), "settlement", "a bond is linear", "write linear")
    known = ", ".join(map(str, FREQUENCIES))
    odd = bond & ~blank["frequency"] & ~np.isin(table["frequency"], FREQUENCIES)
    reject(odd, "frequency", f"coupons a year are {known}; 0 or blank is a bill", "correct it")
    paying = bond & (table["frequency"] > 0)
    for column in ("coupon", "day_count"):
        reject(paying & blank[column], column, "a bond with coupons needs a coupon and a day_count", "supply it")
    bill = bond & ~paying & ~odd
    reject(bill & (np.nan_to_num(table["coupon"]) != 0), "coupon", "a bill has no coupon", "supply the frequency")
    for column, is_blank in blank.items():
        reject(~bond & ~is_blank, column, "only a bond has a coupon, a frequency and a day_count", "leave it blank")


def rate_flags(instruments: Instruments, held: Bool[np.ndarray, " instrument"], model: ModelSpecification) -> list[str]:
    """What to tell of the rate factors of `model` where linear options are held that they do not move."""
    moved = sorted({f.underlying for f in model.factors if f.kind is FactorKind.RATE})
    linear = (instruments.kind == Kind.OPTION) & (instruments.settlement == Settlement.LINEAR)
    still = held & linear & np.isin(instruments.quote_currency.astype(str), moved)
    if not still.any():
        return []
    return [f"rate factors of {', '.join(moved)} move bonds alone: options are discounted at today's rates"]
