"""The plan of a revaluation: which kernel values which instrument, and why some cannot be valued."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Int

from pmvar.instruments import Instruments
from pmvar.kernels.european import EuropeanTerms
from pmvar.kernels.smile import NODES
from pmvar.market.snapshot import MarketSnapshot
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import FactorKind, Kind, Precision, Settlement, factor_name
from pmvar.valuation.blocks import Block, CarriedBlock, EuropeanBlock, MarginedBlock, term_scale, years
from pmvar.valuation.world import Rows

BLOCK = 256
"""Instruments in a block."""

SLICE_SHAPES = ((4, 64), (32, 8), (256, 1))
"""(slices, options a slice) of the blocks of options; each holds `BLOCK` instruments."""


class Placed(NamedTuple):
    """A block and the column of each of its instruments in the portfolio's table; −1 pads."""

    index: Int[np.ndarray, " instrument"]
    block: Block


@dataclass(frozen=True)
class Plan:
    """All blocks of a table of instruments, and the instruments left out."""

    blocks: tuple[Placed, ...]
    rows: Rows
    unpriced: dict[int, str]
    """Column of an instrument -> why it cannot be valued. Its accounts must be withheld."""


@dataclass(frozen=True)
class Context:
    """What every builder of blocks needs."""

    instruments: Instruments
    rows: Rows
    dtype: jnp.dtype

    @property
    def market(self) -> MarketSnapshot:
        """The snapshot valued from."""
        return self.rows.market

    @property
    def scenarios(self) -> ScenarioSet:
        """The scenarios valued under."""
        return self.rows.scenarios

    def settled_at(self, i: int) -> float | None:
        """Expiry of instrument `i` if that is at or before the horizon."""
        expiry = float(self.instruments.expiry[i])
        return expiry if expiry <= self.scenarios.horizon_end else None

    def forward(self, i: int) -> float:
        """Today's forward of instrument `i` for its expiry."""
        return float(self.market.forwards[self.instruments.underlying[i]].at(self.instruments.expiry[i]))

    def carry(self, i: int) -> float:
        """ln of what a standing spot would make of F₁/F₀: a forward is a martingale, a settled one ends at the spot."""
        curve = self.market.forwards[self.instruments.underlying[i]]
        reference = self.instruments.expiry[i] if self.settled_at(i) is not None else self.scenarios.horizon_end
        return float(np.log(curve.at(float(reference)) / curve.spot))

    def settlement_price(self, i: int) -> float:
        """Today's price in base currency of what instrument `i` settles in."""
        return self.market.base_price(self.instruments.settlement_currency[i])


def make_plan(
    instruments: Instruments, market: MarketSnapshot, scenarios: ScenarioSet, precision: Precision
) -> Plan:
    """Sort instruments into blocks by the pricer table; what lacks an input is left out by name, never guessed."""
    unpriced = {i: reason for i in range(len(instruments)) if (reason := _missing(instruments, i, market, scenarios))}
    inside = instruments.expiry[(instruments.expiry > market.as_of) & (instruments.expiry <= scenarios.horizon_end)]
    rows = Rows(market, scenarios, tuple(np.unique(inside).tolist()))
    context = Context(instruments, rows, jnp.dtype(str(precision)))
    blocks: list[Placed] = []
    for kinds, builder in PRICERS.items():
        columns = [i for i in range(len(instruments)) if i not in unpriced and instruments.kind[i] in kinds]
        blocks.extend(builder(context, columns))
    return Plan(tuple(blocks), rows, unpriced)


def _missing(instruments: Instruments, i: int, market: MarketSnapshot, scenarios: ScenarioSet) -> str:
    """Why instrument `i` cannot be valued; empty if it can."""
    kind, underlying = instruments.kind[i], instruments.underlying[i]
    links = [market.asset[c] for c in market.chain(instruments.settlement_currency[i])]
    needed = [factor_name(a, FactorKind.SPOT) for a in dict.fromkeys([underlying, *links]) if a != market.base_currency]
    if kind == Kind.OPTION:
        needed.append(factor_name(underlying, FactorKind.VOL))
        if underlying not in market.vols:
            return f"no vol surface for {underlying}"
        if instruments.settlement[i] == Settlement.LINEAR and instruments.quote_currency[i] not in market.discounts:
            return f"no discount curve for {instruments.quote_currency[i]}"
    if kind in (Kind.OPTION, Kind.FUTURE):
        if instruments.expiry[i] <= market.as_of:
            return f"{instruments.instrument_id[i]} has expired"
        if underlying not in market.forwards:
            return f"no forward curve for {underlying}"
    for factor in needed:
        if factor in market.quarantined:
            return f"{factor}: {market.quarantined[factor]}"
        if factor not in scenarios.factors:
            return f"the model has no factor {factor}"
    return ""


def _padded(columns: Sequence[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Chunks of BLOCK columns: (index with −1 for padding, columns with the first repeated as valid padding)."""
    for start in range(0, len(columns), BLOCK):
        chunk = np.array(columns[start : start + BLOCK])
        pad = BLOCK - len(chunk)
        yield np.pad(chunk, (0, pad), constant_values=-1), np.pad(chunk, (0, pad), constant_values=chunk[0])


def _carried(context: Context, columns: Sequence[int]) -> Iterator[Placed]:
    table, rows = context.instruments, context.rows
    for index, filled in _padded(columns):
        is_cash = [table.kind[i] == Kind.CASH for i in filled]
        block = CarriedBlock(
            context.dtype,
            jnp.array([table.contract_size[i] * context.market.base_price(table.underlying[i]) for i in filled]),
            # The price of cash is that of its own currency, and that moves with the settlement currency already.
            jnp.array([rows.standing if c else rows.price(table.underlying[i]) for i, c in zip(filled, is_cash, strict=True)]),
            jnp.array([rows.base(table.settlement_currency[i]) for i in filled]),
        )
        yield Placed(index, block)


def _margined(context: Context, columns: Sequence[int]) -> Iterator[Placed]:
    table, rows, market = context.instruments, context.rows, context.market
    for index, filled in _padded(columns):
        dated = [table.kind[i] == Kind.FUTURE for i in filled]
        price = np.array(
            [context.forward(i) if d else market.spot[market.column(table.underlying[i])] for i, d in zip(filled, dated, strict=True)]
        )
        power = np.array([1.0 if table.settlement[i] == Settlement.LINEAR else -1.0 for i in filled])
        money = np.array([context.settlement_price(i) for i in filled])
        block = MarginedBlock(
            context.dtype,
            jnp.asarray(table.contract_size[filled] * money * price**power),
            jnp.asarray(power),
            jnp.array([context.carry(i) if d else 0.0 for i, d in zip(filled, dated, strict=True)]),
            jnp.array([rows.price(table.underlying[i], context.settled_at(i)) for i in filled]),
            jnp.array([rows.base(table.settlement_currency[i]) for i in filled]),
        )
        yield Placed(index, block)


def _european(context: Context, columns: Sequence[int]) -> Iterator[Placed]:
    """Options by slice, slices cut into the canonical widths, pieces of one width stacked into blocks."""
    table = context.instruments

    def slice_key(i: int) -> tuple:
        return (
            table.underlying[i], float(table.expiry[i]), table.settlement[i], table.quote_currency[i], table.settlement_currency[i],
        )  # fmt: skip

    def order(i: int) -> tuple:
        return (*slice_key(i), float(table.strike[i]), table.put_call[i], table.instrument_id[i])

    pieces: dict[tuple[int, bool], list[tuple[list[int], np.ndarray]]] = {}
    for _, members in groupby(sorted(columns, key=order), key=slice_key):
        members = list(members)
        smile = _smile(context, members)
        flat = bool(np.all(np.ptp(smile, axis=1) <= 1e-12 * smile[:, 0]))
        start = 0
        for width, count in _cut(len(members)):
            piece = members[start : start + count]
            pieces.setdefault((width, flat), []).append((piece, smile[start : start + count, : 1 if flat else None]))
            start += count
    for (width, _), stack in sorted(pieces.items()):
        height = dict((w, h) for h, w in SLICE_SHAPES)[width]
        for start in range(0, len(stack), height):
            yield _european_block(context, stack[start : start + height], height, width)


def _cut(n: int) -> Iterator[tuple[int, int]]:
    """(width, options in it) of the pieces that a slice of `n` options is cut into, wide ones first."""
    for (_, width), least in zip(SLICE_SHAPES, (40, 5, 1), strict=True):
        while n >= least:
            count = min(n, width)
            yield width, count
            n -= count


def _smile(context: Context, members: list[int]) -> np.ndarray:
    """Volatility of each option of one slice after each of the moves `NODES` of its log-forward, sticky in k."""
    table, first = context.instruments, members[0]
    k = np.log(table.strike[members] / context.forward(first))
    surface = context.market.vols[table.underlying[first]]
    return surface.vol(k[:, None] - NODES, float(table.expiry[first]))


def _european_block(
    context: Context, stack: list[tuple[list[int], np.ndarray]], height: int, width: int
) -> Placed:
    table, rows, market, scenarios = context.instruments, context.rows, context.market, context.scenarios
    n_nodes = stack[0][1].shape[1]
    index = np.full((height, width), -1)
    scale, moneyness, sign = np.zeros((height, width)), np.zeros((height, width)), np.ones((height, width))
    vol = np.ones((height, width, n_nodes))
    # Padding slices repeat the first: valid terms at scale zero.
    first = [(stack[g] if g < len(stack) else stack[0])[0][0] for g in range(height)]
    for g, (members, smile) in enumerate(stack):
        n, lead = len(members), members[0]
        forward, linear = context.forward(lead), table.settlement[lead] == Settlement.LINEAR
        unit = context.settlement_price(lead)
        if linear:
            discount = market.discounts[table.quote_currency[lead]]
            unit *= forward * float(discount.discount_factor(table.expiry[lead]))
        index[g, :n] = members
        scale[g, :n] = table.contract_size[members] * unit
        moneyness[g, :n] = np.log(table.strike[members] / forward)
        sign[g, :n] = np.where(table.put_call[members] == "call", 1.0, -1.0)
        vol[g, :n] = smile

    def per_slice(value: Callable[[int], float]) -> np.ndarray:
        return np.array([value(i) for i in first])

    def log_discount(i: int) -> float:
        if table.settlement[i] != Settlement.LINEAR:
            return 0.0
        curve = market.discounts[table.quote_currency[i]]
        # D₁ = D₀(T)/D₀(h), the forward discount factor; 1 once the option has paid.
        return -float(np.log(curve.discount_factor(min(table.expiry[i], scenarios.horizon_end))))

    def vol_column(i: int) -> int:
        return scenarios.factors.index(factor_name(table.underlying[i], FactorKind.VOL))

    block = EuropeanBlock(
        dtype=context.dtype,
        terms=EuropeanTerms(
            *map(jnp.asarray, (scale, moneyness, sign, vol)),
            linear=jnp.asarray(per_slice(lambda i: float(table.settlement[i] == Settlement.LINEAR))),
        ),
        time_today=jnp.asarray(per_slice(lambda i: years(market.as_of, table.expiry[i]))),
        time_then=jnp.asarray(per_slice(lambda i: years(scenarios.horizon_end, table.expiry[i]))),
        log_discount_then=jnp.asarray(per_slice(log_discount)),
        carry=jnp.asarray(per_slice(context.carry)),
        price_row=jnp.array([rows.price(table.underlying[i], context.settled_at(i)) for i in first]),
        settlement_row=jnp.array([rows.base(table.settlement_currency[i]) for i in first]),
        vol_row=jnp.array([market.column(table.underlying[i]) for i in first]),
        term_scale=jnp.asarray(
            per_slice(
                lambda i: term_scale(
                    float(scenarios.tenor[vol_column(i)]),
                    float(scenarios.term_exponent[vol_column(i)]),
                    float(table.expiry[i]) - scenarios.horizon_end,
                )
            )
        ),
        vol_cap=scenarios.vol_cap,
    )
    return Placed(index.reshape(-1), block)


PRICERS: dict[tuple[Kind, ...], Callable[[Context, Sequence[int]], Iterator[Placed]]] = {
    (Kind.SPOT, Kind.CASH): _carried,
    (Kind.FUTURE, Kind.PERPETUAL): _margined,
    (Kind.OPTION,): _european,
}
"""The pricer table: a new product is one kernel, one builder and one row."""
