"""MethodMargin: what every margin method returns, so that methods stand side by side, account by account."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from pmvar.portfolio import Portfolio


class Step(NamedTuple):
    """One line of an account's calculation, such as the scan of one underlying; amounts in base currency."""

    account: int
    """Row of the account."""
    group: str
    """What the line is about: an underlying or a combined commodity; "" for the account."""
    name: str
    """`scan`, `roll`, `contingency`, `credit`, …: the field's word."""
    label: str
    """What it came from: the active scenario, the pair of months."""
    amount: float
    """Adds to the margin if positive."""


class Origin(StrEnum):
    """Where a method's numbers come from."""

    FIXED = "fixed"
    """Rules: they do not follow the market."""
    MODEL = "model"
    """The run's model."""


@dataclass(frozen=True)
class MethodMargin:
    """Margins of all accounts by one method: base currency, finite, ≥ 0."""

    method: str
    """As named on the command line: `deribit`."""
    source: str
    """Whose rules, of which date."""
    initial: Float[np.ndarray, " account"]
    maintenance: Float[np.ndarray, " account"]
    steps: tuple[Step, ...]
    """How each came about, sorted by account and group; by account they lead to the margin."""
    notes: tuple[str, ...] = ()
    """Sentences a reader must see: positions outside the method, approximations."""
    level: float | None = None
    """Share of periods that the margin means to hold, at least; None where its rules name none."""
    origin: Origin = Origin.FIXED


Method = Callable[[Portfolio], MethodMargin]
"""Margins of all accounts of a portfolio, in its order; everything else is settled when the method is made."""
