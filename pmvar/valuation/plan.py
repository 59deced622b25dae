"""The plan of a revaluation: which kernel values which instrument, and why some cannot be valued."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pmvar.instruments import Instruments
from pmvar.kernels.european import EuropeanTerms
from pmvar.kernels.smile import NODES
from pmvar.market.snapshot import MarketSnapshot
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import SECONDS_PER_YEAR, FactorKind, Kind, Precision, Settlement, factor_name
from pmvar.valuation.blocks import Block, CarriedBlock, EuropeanBlock, MarginedBlock
from pmvar.valuation.world import Layout, Slice

BLOCK = 256
"""Instruments in a block."""

SMILE_GROUPS = ((1, 256), (16, 16))
"""(groups, options a group) of the blocks of options with a smile; a group has one underlying."""


class Placed(NamedTuple):
    """A block and the column of each of its instruments in the portfolio's table; −1 pads."""

    index: Int[np.ndarray, " instrument"]
    block: Block


@dataclass(frozen=True)
class Plan:
    """All blocks of a table of instruments, and the instruments left out."""

    blocks: tuple[Placed, ...]
    layout: Layout
    unpriced: dict[int, str]
    """Column of an instrument -> why it cannot be valued. Its accounts must be withheld."""


@dataclass(frozen=True)
class Context:
    """What every builder of blocks needs."""

    instruments: Instruments
    layout: Layout

    @property
    def market(self) -> MarketSnapshot:
        """The snapshot valued from."""
        return self.layout.market

    def forward(self, i: int) -> float:
        """Today's forward of instrument `i` for its expiry."""
        return float(self.market.forwards[self.instruments.underlying[i]].at(self.instruments.expiry[i]))

    def settlement_price(self, i: int) -> float:
        """Today's price in base currency of what instrument `i` settles in."""
        return self.market.base_price(str(self.instruments.settlement_currency[i]))

    def rows(self, columns: np.ndarray) -> tuple[Int[Array, " instrument"], Int[Array, " instrument"]]:
        """Rows of a `World`: the slice and the settlement currency of each instrument."""
        slices = [self.layout.slice_row[slice_of(self.instruments, i)] for i in columns.tolist()]
        bases = [self.layout.base_row(str(c)) for c in self.instruments.settlement_currency[columns]]
        return jnp.asarray(np.array(slices)), jnp.asarray(np.array(bases))


def slice_of(instruments: Instruments, i: int) -> Slice:
    """The slice that instrument `i` moves with."""
    dated = instruments.kind[i] in (Kind.OPTION, Kind.FUTURE)
    return Slice(str(instruments.underlying[i]), float(instruments.expiry[i]) if dated else np.inf)


def make_plan(instruments: Instruments, market: MarketSnapshot, scenarios: ScenarioSet, precision: Precision) -> Plan:
    """Sort instruments into blocks by the pricer table; what lacks an input is left out by name, never guessed."""
    unpriced = {i: reason for i in range(len(instruments)) if (reason := _missing(instruments, i, market, scenarios))}
    priced = [i for i in range(len(instruments)) if i not in unpriced]
    slices = {slice_of(instruments, i) for i in priced} | {
        Slice(str(instruments.underlying[i]), np.inf) for i in priced
    }
    layout = Layout(market, scenarios, tuple(sorted(slices)), jnp.dtype(str(precision)))
    context = Context(instruments, layout)
    blocks: list[Placed] = []
    for kinds, builder in PRICERS.items():
        blocks.extend(builder(context, [i for i in priced if instruments.kind[i] in kinds]))
    return Plan(tuple(blocks), layout, unpriced)


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
    table, market = context.instruments, context.market
    for index, filled in _padded(columns):
        is_cash = table.kind[filled] == Kind.CASH
        # A spot may settle in another currency than its price is quoted in: its value is S·X, as everywhere.
        price = np.array(
            [
                1.0 if c else market.spot[market.column(str(u))]
                for u, c in zip(table.underlying[filled], is_cash, strict=True)
            ]
        )
        scale = table.contract_size[filled] * price * np.array([context.settlement_price(i) for i in filled.tolist()])
        yield Placed(index, CarriedBlock(jnp.asarray(scale), jnp.asarray(is_cash, float), *context.rows(filled)))


def _margined(context: Context, columns: Sequence[int]) -> Iterator[Placed]:
    table, market = context.instruments, context.market
    for index, filled in _padded(columns):
        dated = table.kind[filled] == Kind.FUTURE
        price = np.array(
            [
                context.forward(i) if d else market.spot[market.column(str(table.underlying[i]))]
                for i, d in zip(filled.tolist(), dated.tolist(), strict=True)
            ]
        )
        power = np.where(table.settlement[filled] == Settlement.LINEAR, 1.0, -1.0)
        scale = (
            table.contract_size[filled]
            * np.array([context.settlement_price(i) for i in filled.tolist()])
            * price**power
        )
        yield Placed(index, MarginedBlock(jnp.asarray(scale), jnp.asarray(power), *context.rows(filled)))


def _european(context: Context, columns: Sequence[int]) -> Iterator[Placed]:
    """Options by underlying; those with a smile cut into groups of the canonical widths, flat ones as they come."""
    table = context.instruments

    def order(i: int) -> tuple:
        return str(table.underlying[i]), float(table.expiry[i]), float(table.strike[i]), str(table.instrument_id[i])

    ordered = sorted(columns, key=order)
    smiles = {i: smile for i, smile in zip(ordered, _smiles(context, ordered), strict=True)}
    flat = [i for i in ordered if smiles[i].is_flat]
    for index, filled in _padded(flat):
        yield Placed(index, _european_block(context, filled, smiles, groups=0))
    pieces: dict[int, list[list[int]]] = {groups: [] for groups, _ in SMILE_GROUPS}
    for _, members in groupby([i for i in ordered if not smiles[i].is_flat], key=lambda i: table.underlying[i]):
        rest = list(members)
        for (groups, width), least in zip(SMILE_GROUPS, (160, 1), strict=True):
            while len(rest) >= least:
                pieces[groups].append(rest[:width])
                rest = rest[width:]
    for groups, width in SMILE_GROUPS:
        for start in range(0, len(pieces[groups]), groups):
            stack = pieces[groups][start : start + groups]
            stack += [stack[0][:1]] * (groups - len(stack))
            real = len(pieces[groups][start : start + groups])
            index = np.array([p + [-1] * (width - len(p)) if g < real else [-1] * width for g, p in enumerate(stack)])
            filled = np.array([p + [p[0]] * (width - len(p)) for p in stack])
            yield Placed(index.reshape(-1), _european_block(context, filled.reshape(-1), smiles, groups=groups))


class Smile(NamedTuple):
    """Volatility of one option: today, its slope by the log forward, and after each of the moves `NODES`."""

    today: float
    slope: float
    at_node: Float[np.ndarray, " node"]

    @property
    def is_flat(self) -> bool:
        """Whether no move changes it."""
        return bool(np.ptp(self.at_node) <= 1e-12 * self.today)


def _smiles(context: Context, columns: Sequence[int]) -> Iterator[Smile]:
    """The smile of each option, sticky in k = ln(K/F): what a move does not change."""
    table, width = context.instruments, 1e-4
    for i in columns:
        surface, expiry = context.market.vols[table.underlying[i]], float(table.expiry[i])
        k = float(np.log(table.strike[i] / context.forward(i)))
        carry = context.layout.carry(slice_of(table, i))
        # The forward falls by the carry when the spot stands still.
        vol = surface.vol(k - np.concatenate([[0.0, -width, width], NODES - carry]), expiry)
        yield Smile(float(vol[0]), float(vol[2] - vol[1]) / (2 * width), vol[3:])


def _european_block(context: Context, filled: np.ndarray, smiles: Mapping[int, Smile], *, groups: int) -> EuropeanBlock:
    """A block of `BLOCK` options; `groups` of one underlying each, or 0 for flat smiles."""
    table, market, layout = context.instruments, context.market, context.layout
    end, linear = layout.scenarios.horizon_end, table.settlement[filled] == Settlement.LINEAR
    forward = np.array([context.forward(i) for i in filled.tolist()])
    money = np.array([context.settlement_price(i) for i in filled.tolist()])
    discount, log_discount_then = np.ones(len(filled)), np.zeros(len(filled))
    for p in np.flatnonzero(linear):
        curve, expiry = market.discounts[str(table.quote_currency[filled[p]])], table.expiry[filled[p]]
        discount[p] = curve.discount_factor(expiry)
        # D₁ = D₀(T)/D₀(h), the forward discount factor; 1 once the option has paid.
        log_discount_then[p] = -np.log(curve.discount_factor(min(expiry, end)))
    expiry = table.expiry[filled]
    at_node = np.stack([smiles[i].at_node for i in filled])
    first = filled.reshape(max(groups, 1), -1)[:, 0]
    slices, bases = context.rows(filled)
    return EuropeanBlock(
        terms=EuropeanTerms(
            scale=jnp.asarray(table.contract_size[filled] * money * np.where(linear, forward * discount, 1.0)),
            log_moneyness=jnp.asarray(np.log(table.strike[filled] / forward)),
            sign=jnp.asarray(np.where(table.put_call[filled] == "call", 1.0, -1.0)),
            linear=jnp.asarray(linear.astype(float)),
        ),
        vol_today=jnp.asarray(np.array([smiles[i].today for i in filled])),
        vol_slope=jnp.asarray(np.array([smiles[i].slope for i in filled])),
        vol_at_node=jnp.asarray(at_node.reshape(groups, -1, len(NODES)) if groups else at_node[None, :, :1]),
        time_today=jnp.asarray((expiry - market.as_of) / SECONDS_PER_YEAR),
        time_then=jnp.asarray(np.maximum(expiry - end, 0.0) / SECONDS_PER_YEAR),
        log_discount_then=jnp.asarray(log_discount_then),
        slice_row=slices,
        base_row=bases,
        spot_row=jnp.asarray(np.array([layout.slice_row[Slice(str(table.underlying[i]), np.inf)] for i in first])),
    )


PRICERS: dict[tuple[Kind, ...], Callable[[Context, Sequence[int]], Iterator[Placed]]] = {
    (Kind.SPOT, Kind.CASH): _carried,
    (Kind.FUTURE, Kind.PERPETUAL): _margined,
    (Kind.OPTION,): _european,
}
"""The pricer table: a new product is one kernel, one builder and one row."""
