"""From risk arrays and positions to margins: scan, months, delivery, credits, minimum; all accounts at once.

Risk of a commodity = max(scan + inter-month + spot month − credits, short option minimum); a commodity that is long
options alone risks their net value at most. CME, SPAN technical documentation (formulae as recalled there).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import sparse

from pmvar.methods.result import Step
from pmvar.methods.span.arrays import SpanArrays
from pmvar.methods.span.parameters import Leg, ShortOptionMethod, SpanParameters, Spread, scenario_label

LEAST = 1e-12
"""Deltas below this share of an account's largest are the rounding of a hedge."""


@dataclass(frozen=True)
class SpanMargin:
    """Margins of all accounts, in the currency of the commodities (which must be one)."""

    risk: Float[np.ndarray, "account commodity"]
    """SPAN risk: what the account may lose from today's values."""
    net_option_value: Float[np.ndarray, "account commodity"]
    initial: Float[np.ndarray, " account"]
    """Σ initial ratio · risk."""
    maintenance: Float[np.ndarray, " account"]
    """Σ maintenance ratio · risk."""
    steps: tuple[Step, ...]
    """They add up to `initial`."""

    @property
    def requirement(self) -> Float[np.ndarray, " account"]:
        """SPAN's own requirement, risk less net option value, for equity that counts no option value."""
        return np.maximum((self.risk - self.net_option_value).sum(axis=1), 0.0)


@dataclass
class _Deltas:
    """Deltas by month that spreads have not taken yet."""

    months: list[str]
    left: Float[np.ndarray, "account month"]
    taken: Float[np.ndarray, "account month"]
    creditable: Float[np.ndarray, " account"]
    """Of the net delta, what no credit has taken yet."""


def span_margin(position: sparse.csr_array, arrays: SpanArrays, parameters: SpanParameters) -> SpanMargin:
    """Margins of accounts [account, contract] in long contracts."""
    n, commodities = len(position.indptr) - 1, parameters.commodities
    steps: list[Step] = []
    scan, other = np.zeros((n, len(commodities))), np.zeros((n, len(commodities)))
    price_risk, minimum, value = np.zeros_like(scan), np.zeros_like(scan), np.zeros_like(scan)
    capped = np.zeros(scan.shape, dtype=bool)
    deltas: list[_Deltas] = []
    for c, commodity in enumerate(commodities):
        rows = np.flatnonzero(arrays.commodity == c)
        held = sparse.csr_array(position[:, rows])
        loss = held @ arrays.loss[rows]
        active = np.argmax(loss, axis=1)
        scan[:, c] = np.maximum(loss[np.arange(n), active], 0.0)
        months = sorted(set(map(str, arrays.month[rows])))
        member = np.array([[m == month for m in months] for month in arrays.month[rows]], dtype=float)
        delta = held @ (arrays.delta[rows][:, None] * member) if months else np.zeros((n, 0))
        largest = np.abs(delta).max(axis=1, initial=0.0, keepdims=True)
        delta = np.where(np.abs(delta) > LEAST * largest, delta, 0.0)
        deltas.append(_Deltas(months, delta.copy(), np.zeros_like(delta), np.abs(delta.sum(axis=1))))
        price_risk[:, c] = _price_risk(loss, active, delta.sum(axis=1), parameters)
        for a in np.flatnonzero(scan[:, c] > 0):
            label = scenario_label(parameters.grid, int(active[a]))
            steps.append(Step(int(a), commodity.name, "scan", label, float(scan[a, c])))
        kind = arrays.kind[rows]
        short = [(-held).maximum(0) @ (arrays.count[rows] * (kind == k)) for k in (1, -1)]
        both = np.maximum(*short) if commodity.short_option_method is ShortOptionMethod.MAX else short[0] + short[1]
        minimum[:, c] = commodity.short_option_minimum * both
        value[:, c] = held @ arrays.value[rows]
        futures = abs(held[:, np.flatnonzero(kind == 0)]).sum(axis=1)
        capped[:, c] = (short[0] + short[1] == 0) & (futures == 0)
        for spread in commodity.spreads:
            _charge(spread, deltas, c, commodity.name, other, steps, parameters)
        for rate in commodity.spot:
            if rate.month in months:
                m = months.index(rate.month)
                amount = rate.spread * np.abs(deltas[c].taken[:, m]) + rate.outright * np.abs(deltas[c].left[:, m])
                other[:, c] += amount
                _step(steps, commodity.name, "spot month", rate.month, amount)
    # What a spread between months took is a hedge within its commodity, and offsets nothing of another.
    for credit in parameters.credits:
        _credit(credit, deltas, price_risk, other, steps, parameters)
    return _margin(scan + other, minimum, value, capped, steps, parameters)


def _price_risk(
    loss: Float[np.ndarray, "account 16"],
    active: np.ndarray,
    net_delta: Float[np.ndarray, " account"],
    parameters: SpanParameters,
) -> Float[np.ndarray, " account"]:
    """Weighted futures price risk: (volatility-adjusted − time risk)/|net delta|, ≥ 0."""
    every = np.arange(len(loss))
    adjusted = 0.5 * (loss[every, active] + loss[every, parameters.grid.paired[active]])
    time = 0.5 * (loss[:, 0] + loss[:, 1])
    size = np.abs(net_delta)
    return np.where(size > 0, np.maximum(adjusted - time, 0.0) / np.where(size > 0, size, 1.0), 0.0)


def _charge(
    spread: Spread, deltas: list[_Deltas], c: int, name: str, other: np.ndarray, steps: list[Step],
    parameters: SpanParameters,
) -> None:  # fmt: skip
    """A spread between months of commodity `c`: first side A long, then side B."""
    commodity, d = parameters.commodities[c], deltas[c]
    label = " / ".join(leg.months for leg in spread.legs)
    for direction in (1, -1):
        where = [commodity.covers(leg, d.months) for leg in spread.legs]
        sides = [direction * leg.side for leg in spread.legs]
        room = [
            np.maximum(side * d.left, 0.0)[:, own].sum(axis=1) / leg.ratio
            for leg, own, side in zip(spread.legs, where, sides, strict=True)
        ]
        formed = np.min(room, axis=0)
        for leg, own, side in zip(spread.legs, where, sides, strict=True):
            available = np.where(own, np.maximum(side * d.left, 0.0), 0.0)
            # The earliest months give first.
            before = np.cumsum(available, axis=1) - available
            used = np.clip(formed[:, None] * leg.ratio - before, 0.0, available)
            d.left -= side * used
            d.taken += used
        other[:, c] += spread.rate * formed
        _step(steps, name, "inter-month", label, spread.rate * formed)


def _credit(
    credit: Spread, deltas: list[_Deltas], price_risk: np.ndarray, other: np.ndarray, steps: list[Step],
    parameters: SpanParameters,
) -> None:  # fmt: skip
    """A spread between commodities: credits each leg its price risk on the deltas that it gives."""
    names = [parameters.commodities[leg.commodity].name for leg in credit.legs]

    def net(leg: Leg) -> np.ndarray:
        d = deltas[leg.commodity]
        return d.left[:, parameters.commodities[leg.commodity].credits(leg, d.months)].sum(axis=1)

    for direction in (1, -1):
        room = [np.maximum(direction * leg.side * net(leg), 0.0) / leg.ratio for leg in credit.legs]
        formed = np.min(room, axis=0)
        for leg, name in zip(credit.legs, names, strict=True):
            d, used = deltas[leg.commodity], formed * leg.ratio
            own = parameters.commodities[leg.commodity].credits(leg, d.months)
            side = direction * leg.side
            # Net of the months' other side, which stands against them already.
            available = np.where(own, np.maximum(side * d.left, 0.0), 0.0)
            before = np.cumsum(available, axis=1) - available
            d.left -= side * np.clip(used[:, None] - before, 0.0, available)
            if leg.tier:
                # A tier's deltas may exceed the net of all months, for which alone there is a price risk to credit.
                used = np.minimum(used, d.creditable)
            d.creditable = np.maximum(d.creditable - used, 0.0)
            amount = -credit.rate * used * price_risk[:, leg.commodity]
            other[:, leg.commodity] += amount
            _step(steps, name, "credit", " / ".join(names), amount)


def _margin(
    risk: np.ndarray, minimum: np.ndarray, value: np.ndarray, capped: np.ndarray, steps: list[Step],
    parameters: SpanParameters,
) -> SpanMargin:  # fmt: skip
    """Minimum, cap and ratio, each a step."""
    final = np.maximum(risk, minimum)
    final = np.where(capped, np.minimum(final, np.maximum(value, 0.0)), final)
    ratio = np.array([c.initial_ratio for c in parameters.commodities])
    for c, commodity in enumerate(parameters.commodities):
        lifted = np.maximum(risk[:, c], minimum[:, c]) - risk[:, c]
        _step(steps, commodity.name, "short option minimum", str(commodity.short_option_method), lifted)
        _step(
            steps, commodity.name, "long option cap", "net option value", final[:, c] - np.maximum(risk, minimum)[:, c]
        )
        _step(steps, commodity.name, "initial ratio", f"{ratio[c]:g}", (ratio[c] - 1) * final[:, c])
    order = sorted(range(len(steps)), key=lambda i: (steps[i].account, steps[i].group))
    kept = (final * np.array([c.maintenance_ratio for c in parameters.commodities])).sum(axis=1)
    return SpanMargin(final, value, (final * ratio).sum(axis=1), kept, tuple(steps[i] for i in order))


def _step(steps: list[Step], group: str, name: str, label: str, amount: np.ndarray) -> None:
    steps += [Step(int(a), group, name, label, float(amount[a])) for a in np.flatnonzero(amount)]
