"""Add-ons: what an initial margin holds beside its measure, account by account, and what of it could not be told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from pmvar.risk.close_out import Cost
from pmvar.risk.result import Columns
from pmvar.risk.rules import MarginRules

NO_LIST = "no stress list"


class AddOn(NamedTuple):
    """One add-on of the accounts that are not withheld, in their order."""

    name: str
    factor: str
    """What it comes from; "" for the account."""
    amount: Float[np.ndarray, " account"]
    """Base currency, ≥ 0."""
    absent: Sequence[str]
    """Why it, or a part of it, is not in the amount; "" where all is."""


def stress_add_on(
    measure: Float[np.ndarray, " account"], stressed: Float[np.ndarray, " account"] | None, rules: MarginRules
) -> AddOn:
    """The share of what a stressed measure exceeds the measure by: margin = (1 − s)·measure + s·the larger of both.

    STANS adds a quarter of the excess (OCC's share as recalled); SPAN 2 weighs historical and stress risk x to 1 − x
    (CME, "SPAN 2 Methodology", which does not publish x). Without a stressed measure nothing is added, and that said.
    """
    nothing = np.zeros(len(measure))
    if stressed is None:
        return AddOn("stress", "", nothing, [NO_LIST] * len(measure))
    amount = rules.stress_share * np.maximum(np.maximum(stressed, 0.0) - np.maximum(measure, 0.0), 0.0)
    return AddOn("stress", "", amount, [""] * len(measure))


def close_out_add_ons(found: Cost, factors: Sequence[str]) -> list[AddOn]:
    """The cost of closing out: the spread, and the impact by factor. What is absent stands with the spread."""
    none = [""] * len(found.spread)
    impact = [AddOn("impact", f, column, none) for f, column in zip(factors, found.impact.T, strict=True)]
    return [AddOn("spread", "", found.spread, found.absent), *impact]


def add_on_table(account_id: np.ndarray, live: Int[np.ndarray, " live"], add_ons: Sequence[AddOn]) -> Columns:
    """The table `add_ons`: what is not zero, and what is absent, of the accounts `live`."""
    rows = sorted(
        (int(row), order, i)
        for order, one in enumerate(add_ons)
        for i, row in enumerate(live)
        if one.amount[i] or one.absent[i]
    )

    def text(values: list[str]) -> np.ndarray:
        return np.array(values, dtype=object)

    return {
        "account_id": account_id[[row for row, _, _ in rows]],
        "add_on": text([add_ons[o].name for _, o, _ in rows]),
        "factor": text([add_ons[o].factor for _, o, _ in rows]),
        "amount": np.array([add_ons[o].amount[i] for _, o, i in rows], dtype=np.float64),
        "absent": text([add_ons[o].absent[i] for _, o, i in rows]),
    }
