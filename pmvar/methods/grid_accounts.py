"""One underlying's grid under the positions of all accounts: P&L by scenario, and the charges beside it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import sparse

from pmvar.methods.grid_rules import Discount, UnderlyingClass
from pmvar.methods.grid_scenarios import SKEWS
from pmvar.methods.grid_values import GridValues
from pmvar.types import OPTION_KINDS, Kind


class UnderlyingRisk(NamedTuple):
    """Of all accounts in one underlying; base currency, charges ≥ 0."""

    pnl: Float[np.ndarray, "account scenario"]
    """Weighted and dampened."""
    basis: Float[np.ndarray, " account"]
    """Loss by the basis charge."""
    roll: Float[np.ndarray, " account"]
    minimum: Float[np.ndarray, " account"]
    contingency_initial: Float[np.ndarray, " account"]
    contingency_maintenance: Float[np.ndarray, " account"]
    oracle: Float[np.ndarray, " account"]
    """For low confidence; initial only."""


def underlying_risk(
    quantity: sparse.csr_array, values: GridValues, cls: UnderlyingClass, *, confidence: float
) -> UnderlyingRisk:
    """P&L and charges of positions `quantity` [account, instrument] in the instruments of `values`."""
    pnl, basis = scenario_pnl(quantity, values, cls)
    kind, price = values.instruments.kind, values.price
    is_option, is_future = np.isin(kind, OPTION_KINDS), np.isin(kind, [Kind.FUTURE, Kind.PERPETUAL])
    units = values.instruments.units
    size = abs(quantity)
    option_units = _dot(size, is_option * units)
    future_notional = _dot(size, is_future * np.abs(values.delta)) * price
    naked = _naked_shorts(quantity, values) * price
    net = np.abs(_dot(quantity, values.delta))
    hedged = np.maximum(_dot(size, np.abs(values.delta)) - net, 0.0) / 2
    c, m = cls.contingency, cls.minimum
    doubt = 1 - confidence if confidence < c.confidence else 0.0
    return UnderlyingRisk(
        pnl=pnl,
        basis=basis,
        roll=_roll(quantity, values, cls),
        minimum=m.per_option * option_units + (m.net_delta * net + m.hedged_delta * hedged) * price,
        contingency_initial=c.perpetual_initial * future_notional + c.short_initial * naked,
        contingency_maintenance=c.perpetual_maintenance * future_notional + c.short_maintenance * naked,
        oracle=doubt * (future_notional + option_units * price),
    )


def _dot(quantity: sparse.csr_array, column: np.ndarray) -> Float[np.ndarray, " account"]:
    return np.asarray(quantity @ column)


def scenario_pnl(
    quantity: sparse.csr_array, values: GridValues, cls: UnderlyingClass
) -> tuple[Float[np.ndarray, "account scenario"], Float[np.ndarray, " account"]]:
    """P&L by scenario, and the loss by the basis charge.

    Options are added up by expiry, where discounts, skews and the basis charge look at their sum.
    """
    columns = cls.scenarios()
    weight, dampener = (np.array([getattr(s, f) for s in columns]) for f in ("weight", "dampener"))
    skewed = np.array([s.vol in SKEWS for s in columns])
    is_option = np.isin(values.instruments.kind, OPTION_KINDS)
    others = np.flatnonzero(~is_option)
    pnl = np.asarray(quantity[:, others] @ (values.value - values.today[:, None])[others]) * weight
    basis = np.zeros(len(pnl))
    for own in _expiries(values, is_option):
        held, time = quantity[:, own], float(values.time[own[0]])
        today = _dot(held, values.today[own])[:, None]
        shocked = np.asarray(held @ values.value[own])
        if cls.discount:
            shocked = _discounted(shocked, cls.discount, time=time, rate=float(values.rate[own[0]]))
        moved = (shocked - today) * weight
        # The skew may turn either way: every expiry loses.
        pnl += np.where(skewed, -np.abs(moved), moved)
        if cls.basis:
            worse = np.min(np.asarray(held @ values.basis[own]) - today, axis=1)
            basis += np.maximum(-worse, 0.0) * (cls.basis.level + cls.basis.slope * time)
    return np.sign(pnl) * np.maximum(np.abs(pnl) - dampener, 0.0), basis


def _expiries(values: GridValues, among: Bool[np.ndarray, " instrument"]) -> list[np.ndarray]:
    """Instruments of one expiry and one discount rate each."""
    keys = np.stack([values.instruments.expiry, values.rate], axis=1)
    rows = np.flatnonzero(among)
    _, which = np.unique(keys[rows], axis=0, return_inverse=True)
    return [rows[which.reshape(-1) == i] for i in range(int(which.max(initial=-1)) + 1)]


def _discounted(
    value: Float[np.ndarray, "account scenario"], rule: Discount, *, time: float, rate: float
) -> Float[np.ndarray, "account scenario"]:
    long = rule.positive * np.exp(-time * (rule.long_rate_scale * rate + rule.long_rate_add))
    short = rule.negative * np.exp(time * (rule.short_rate_scale * rate + rule.short_rate_add))
    return value * np.where(value >= 0, long, min(np.exp(rate * time), short))


def _roll(quantity: sparse.csr_array, values: GridValues, cls: UnderlyingClass) -> Float[np.ndarray, " account"]:
    """Σ over expiries of |delta|·max(least, slope·T), at the spot; perpetuals and spot have T = 0."""
    times, which = np.unique(values.time, return_inverse=True)
    by_expiry = np.where(which.reshape(-1, 1) == np.arange(len(times)), values.delta[:, None], 0.0)
    return np.abs(np.asarray(quantity @ by_expiry)) @ np.maximum(cls.roll.least, cls.roll.slope * times) * values.price


def _naked_shorts(quantity: sparse.csr_array, values: GridValues) -> Float[np.ndarray, " account"]:
    """Σ over strikes and expiries of the net short calls and puts, in units of the underlying."""
    table = values.instruments
    rows = np.flatnonzero(np.isin(table.kind, OPTION_KINDS))
    keys = np.stack([table.expiry[rows], table.strike[rows]], axis=1)
    _, strike = np.unique(keys, axis=0, return_inverse=True)
    strike = strike.reshape(-1)
    entries = (table.units[rows], (np.arange(len(rows)), strike))
    to_strike = sparse.csr_array(entries, shape=(len(rows), int(strike.max(initial=-1)) + 1))
    return np.asarray((-(quantity[:, rows] @ to_strike)).maximum(0).sum(axis=1)).reshape(-1)
