"""The plan of a revaluation: which kernel values which instrument, and why some cannot be valued."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from pmvar.instruments import Instruments, variance_time
from pmvar.kernels.american_dividends import DividendTable, dividend_table
from pmvar.kernels.european import Bump, EuropeanTerms, Formula
from pmvar.kernels.exercise_table import ExerciseTable, tabulated
from pmvar.kernels.smile import NODES
from pmvar.market.snapshot import MarketSnapshot
from pmvar.market.surface import SviSlice
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import (
    DAY,
    OPTION_KINDS,
    SECONDS_PER_YEAR,
    Exercise,
    Kind,
    Precision,
    PriceModel,
    PutCall,
    Settlement,
    Stickiness,
)
from pmvar.valuation.average import average_block
from pmvar.valuation.barrier import barrier_block
from pmvar.valuation.blocks import (
    AmericanBlock,
    Block,
    CarriedBlock,
    DisplacedBlock,
    EuropeanBlock,
    MarginedBlock,
    Smile,
)
from pmvar.valuation.bonds import bond_block
from pmvar.valuation.cash_flows import cash_flows, curve_factors
from pmvar.valuation.dividends import NEVER, paying
from pmvar.valuation.fitted_smile import FittedSmile
from pmvar.valuation.missing import missing
from pmvar.valuation.payoffs import Listed, digital_block, quanto_block
from pmvar.valuation.today import Product, Terms, american_rates, early_exercise, local, terms_today
from pmvar.valuation.world import Layout, Slice

BLOCK = 256
"""Instruments in a block."""

REACH = 2.0
"""Largest move of ln σ that exercise boundaries are tabulated for, beside the smile's range; larger ones, of a stress
list alone, are exercised by the boundary of this."""

SMILE_GROUPS = ((1, 256), (16, 16))
"""(groups, options a group) of the blocks of options on fitted smiles; a group has one underlying."""


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
    """What every builder of blocks needs. Arrays are by instrument of the table, NaN where they mean nothing."""

    instruments: Instruments
    layout: Layout
    priced: Int[np.ndarray, " priced"]
    """Columns of the instruments that can be valued."""

    @property
    def market(self) -> MarketSnapshot:
        """The snapshot valued from."""
        return self.layout.market

    @cached_property
    def forward(self) -> Float[np.ndarray, " instrument"]:
        """Today's forward of options and futures for their expiry; the spot of what has none."""
        table, market = self.instruments, self.market
        priced = self.priced[~np.isin(table.kind[self.priced], (Kind.CASH, Kind.BOND))]
        out = np.full(len(table), np.nan)
        for underlying, members in grouped(table.underlying, priced).items():
            dated = members[is_dated(table.kind[members])]
            out[members] = market.spot[market.column(underlying)]
            if len(dated):
                out[dated] = market.forwards[underlying].at(table.expiry[dated])
        return out

    @cached_property
    def unit(self) -> Float[np.ndarray, " instrument"]:
        """What x = 1 would move `forward` by, at first; `forward` itself of a lognormal price."""
        out = self.forward.copy()
        for underlying, members in grouped(self.instruments.underlying, self.priced).items():
            out[members] = self.market.scale(underlying).unit(self.forward[members])
        return out

    @cached_property
    def settlement_price(self) -> Float[np.ndarray, " instrument"]:
        """Today's price in base currency of what each instrument settles in."""
        out = np.full(len(self.instruments), np.nan)
        for currency, members in grouped(self.instruments.settlement_currency, self.priced).items():
            out[members] = self.market.base_price(currency)
        return out

    def rows(self, columns: np.ndarray) -> tuple[Int[Array, " instrument"], Int[Array, " instrument"]]:
        """Rows of a `World`: the slice and the settlement currency of each instrument."""
        slices = [self.layout.slice_row[slice_of(self.instruments, i)] for i in columns.tolist()]
        return jnp.asarray(np.array(slices)), jnp.asarray(self.base_row[columns])

    @cached_property
    def base_row(self) -> Int[np.ndarray, " instrument"]:
        """Row of each settlement currency in `World.log_base`."""
        out = np.full(len(self.instruments), -1)
        for currency, members in grouped(self.instruments.settlement_currency, self.priced).items():
            out[members] = self.layout.base_row(currency)
        return out


def grouped(names: np.ndarray, columns: np.ndarray) -> dict[str, Int[np.ndarray, " member"]]:
    """The columns that share a name, by name."""
    found: dict[str, list[int]] = {}
    for name, column in zip(names[columns].tolist(), columns.tolist(), strict=True):
        found.setdefault(str(name), []).append(column)
    return {name: np.array(members) for name, members in found.items()}


def is_dated(kind: np.ndarray) -> Bool[np.ndarray, " instrument"]:
    """Whether instruments of these kinds have an expiry."""
    return np.isin(kind, [*OPTION_KINDS, Kind.FUTURE])


def slice_of(instruments: Instruments, i: int) -> Slice:
    """The slice that instrument `i` moves with."""
    dated = instruments.kind[i] in (*OPTION_KINDS, Kind.FUTURE)
    return Slice(str(instruments.underlying[i]), float(instruments.expiry[i]) if dated else np.inf)


def make_plan(instruments: Instruments, market: MarketSnapshot, scenarios: ScenarioSet, precision: Precision) -> Plan:
    """Sort instruments into blocks by the pricer table; what lacks an input is left out by name, never guessed."""
    unpriced = {i: reason for i in range(len(instruments)) if (reason := missing(instruments, i, market, scenarios))}
    priced = [i for i in range(len(instruments)) if i not in unpriced]
    of_price = [i for i in priced if instruments.kind[i] != Kind.BOND]
    slices = {slice_of(instruments, i) for i in of_price} | {
        Slice(str(instruments.underlying[i]), np.inf) for i in of_price
    }
    # An expiry bounds those after it: all of a fitted surface, whoever holds options on it.
    for underlying in {str(instruments.underlying[i]) for i in priced if instruments.kind[i] in OPTION_KINDS}:
        slices |= {Slice(underlying, s.expiry) for s in market.vols[underlying].slices if isinstance(s, SviSlice)}
    bonds = (i for i in priced if instruments.kind[i] == Kind.BOND)
    curve = {f for i in bonds for f in curve_factors(instruments, i, scenarios.factors)}
    layout = Layout(market, scenarios, tuple(sorted(slices)), jnp.dtype(str(precision)), tuple(sorted(curve)))
    context = Context(instruments, layout, np.array(priced, dtype=np.int64))
    blocks: list[Placed] = []
    pricer = {i: _pricer(instruments, i, market) for i in priced}
    for builder in dict.fromkeys([*PRICERS.values(), *DISPLACED.values()]):
        blocks.extend(builder(context, [i for i in priced if pricer[i] is builder]))
    return Plan(tuple(blocks), layout, unpriced)


def _pricer(
    instruments: Instruments, i: int, market: MarketSnapshot
) -> Callable[[Context, Sequence[int]], Iterator[Placed]]:
    kind, model = instruments.formula[i], market.scale(instruments.underlying[i]).model
    if model is not PriceModel.LOGNORMAL:
        return DISPLACED[kind, model]
    if kind == Kind.OPTION and instruments.settlement[i] == Settlement.QUANTO:
        return PRICERS[kind, Settlement.QUANTO]
    return PRICERS[kind, instruments.exercise[i] if kind == Kind.OPTION else ""]


def _padded(columns: Sequence[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Chunks of BLOCK columns: (index with −1 for padding, columns with the first repeated as valid padding)."""
    for start in range(0, len(columns), BLOCK):
        chunk = np.array(columns[start : start + BLOCK])
        pad = BLOCK - len(chunk)
        yield np.pad(chunk, (0, pad), constant_values=-1), np.pad(chunk, (0, pad), constant_values=chunk[0])


def _carried(context: Context, columns: Sequence[int]) -> Iterator[Placed]:
    table = context.instruments
    for index, filled in _padded(columns):
        is_cash = table.kind[filled] == Kind.CASH
        # A spot may settle in another currency than its price is quoted in: its value is S·X, as everywhere.
        price = np.where(is_cash, 1.0, context.forward[filled])
        scale = table.contract_size[filled] * price * context.settlement_price[filled]
        yield Placed(index, CarriedBlock(jnp.asarray(scale), jnp.asarray(is_cash, float), *context.rows(filled)))


def _margined(context: Context, columns: Sequence[int]) -> Iterator[Placed]:
    table = context.instruments
    for index, filled in _padded(columns):
        power = np.where(table.settlement[filled] == Settlement.INVERSE, -1.0, 1.0)
        scale = table.amount[filled] * context.settlement_price[filled] * context.forward[filled] ** power
        days = (context.layout.scenarios.horizon_end - context.market.as_of) / DAY
        paid = days * np.array([context.market.funding.get(str(name), 0.0) for name in table.instrument_id[filled]])
        slices, bases = context.rows(filled)
        yield Placed(
            index, MarginedBlock(jnp.asarray(scale), jnp.asarray(power), jnp.asarray(paid), slices, bases)
        )


def _bonds(context: Context, columns: Sequence[int]) -> Iterator[Placed]:
    table, as_of = context.instruments, context.market.as_of
    # A block is as long as its longest bond.
    ordered = sorted(columns, key=lambda i: len(cash_flows(table, i, as_of).time))
    for index, filled in _padded(ordered):
        rows = context.base_row[filled]
        yield Placed(index, bond_block(table.take(filled), context.layout, context.settlement_price[filled], rows))


def _european(context: Context, columns: Sequence[int]) -> Iterator[Placed]:
    inverse = context.instruments.settlement == Settlement.INVERSE
    for formula in (Formula.LINEAR, Formula.INVERSE):
        own = [i for i in columns if inverse[i] == (formula is Formula.INVERSE)]
        yield from _optioned(context, own, partial(_european_block, formula=formula))


def _optioned(context: Context, columns: Sequence[int], build: Callable[..., Block]) -> Iterator[Placed]:
    """Options by underlying: on flat smiles, on tabulated ones, and in groups of canonical widths on fitted ones."""
    table, vols = context.instruments, context.market.vols

    def order(i: int) -> tuple:
        return str(table.underlying[i]), float(table.expiry[i]), float(table.strike[i]), str(table.instrument_id[i])

    ordered = sorted(columns, key=order)
    options = _options(context, np.array(ordered, dtype=np.int64))
    is_flat = _is_flat(options)
    flat, rest = ([i for i in ordered if is_flat[i] == kind] for kind in (True, False))
    tabulated, fitted = ([i for i in rest if vols[table.underlying[i]].is_fitted == kind] for kind in (False, True))
    for index, filled in (*_padded(flat), *_padded(tabulated)):
        yield Placed(index, build(context, options, filled, groups=0))
    pieces: dict[int, list[list[int]]] = {groups: [] for groups, _ in SMILE_GROUPS}
    for _, members in groupby(fitted, key=lambda i: table.underlying[i]):
        left = list(members)
        for (groups, width), least in zip(SMILE_GROUPS, (160, 1), strict=True):
            while len(left) >= least:
                pieces[groups].append(left[:width])
                left = left[width:]
    for (groups, width), found in zip(SMILE_GROUPS, pieces.values(), strict=True):
        for start in range(0, len(found), groups):
            stack = found[start : start + groups]
            stack += [stack[0][:1]] * (groups - len(stack))
            real = len(found[start : start + groups])
            index = np.array([p + [-1] * (width - len(p)) if g < real else [-1] * width for g, p in enumerate(stack)])
            filled = np.array([p + [p[0]] * (width - len(p)) for p in stack])
            yield Placed(index.reshape(-1), build(context, options, filled.reshape(-1), groups=groups))


class Options(NamedTuple):
    """What options need besides their terms, by instrument of the table. Smiles are sticky in k = ln(K/F), or in K."""

    moneyness: Float[np.ndarray, " instrument"]
    vol_today: Float[np.ndarray, " instrument"]
    vol_slope: Float[np.ndarray, " instrument"]
    """Of `vol_today` by the log forward."""
    vol_at_node: Float[np.ndarray, "instrument node"]
    """After each of the moves `NODES`."""
    discount: Float[np.ndarray, " instrument"]
    """Factor to expiry; 1 for inverse options."""
    log_discount_then: Float[np.ndarray, " instrument"]
    """ln of the forward discount factor over `discount`."""


def _is_flat(options: Options, at: np.ndarray | slice = slice(None)) -> Bool[np.ndarray, " option"]:
    """Whether the vols of options `at` are the same after all of the moves."""
    return np.ptp(options.vol_at_node[at], axis=1) <= 1e-12 * options.vol_today[at]


def _options(context: Context, columns: Int[np.ndarray, " option"]) -> Options:
    """Of the options at `columns`; log prices and moneyness are x where the scale is another than the lognormal."""
    table, market, layout, width = context.instruments, context.market, context.layout, 1e-4
    n, end = len(table), layout.scenarios.horizon_end
    found = Options(np.zeros(n), np.zeros(n), np.zeros(n), np.zeros((n, len(NODES))), np.ones(n), np.zeros(n))
    # The forward falls by the carry when the spot stands still.
    points = np.concatenate([[0.0, -width, width], NODES])
    for underlying, members in grouped(table.underlying, columns).items():
        for expiry in np.unique(table.expiry[members]).tolist():
            own = members[table.expiry[members] == expiry]
            at = points.copy()
            at[3:] -= layout.carry[layout.slice_row[Slice(underlying, expiry)]]
            if market.vols[underlying].stickiness is Stickiness.STRIKE:
                at[:] = 0.0
            k = market.forwards[underlying].moneyness(table.strike[own], expiry)
            vol = market.vols[underlying].vol(k[:, None] - at, expiry)
            found.moneyness[own] = k
            found.vol_today[own], found.vol_at_node[own] = vol[:, 0], vol[:, 3:]
            found.vol_slope[own] = (vol[:, 2] - vol[:, 1]) / (2 * width)
    linear = columns[table.settlement[columns] != Settlement.INVERSE]
    for currency, members in grouped(table.discount_currency, linear).items():
        curve, expiry = market.discounts[currency], table.expiry[members]
        found.discount[members] = curve.discount_factor(expiry)
        # D₁ = D₀(T)/D₀(h), the forward discount factor; 1 once the option has paid.
        found.log_discount_then[members] = -np.log(curve.discount_factor(np.minimum(expiry, end)))
    return found


def _smile(
    context: Context, options: Options, filled: np.ndarray, slices: Int[Array, " option"], *, groups: int
) -> Smile | FittedSmile:
    """Of the options `filled` on rows `slices` of a `World`: fitted ones, of `groups` underlyings, or where that is 0
    all flat or all tabulated."""
    if groups:
        return _fitted_smile(context, options, filled, slices, groups=groups)
    names, layout = context.instruments.underlying[filled].tolist(), context.layout
    is_flat = _is_flat(options, filled)[0]
    return Smile(
        vol_at_node=jnp.asarray(options.vol_at_node[filled, : 1 if is_flat else None]),
        slice_row=slices,
        spot_row=jnp.asarray(np.array([layout.slice_row[Slice(u, np.inf)] for u in names])),
        # A flat smile may be that of a fitted surface, and looks nothing up.
        place_row=jnp.asarray(np.array([0 if is_flat else layout.place_row[u] for u in names])),
    )


def _fitted_smile(
    context: Context, options: Options, filled: np.ndarray, slices: Int[Array, " option"], *, groups: int
) -> FittedSmile:
    """Of the options `filled`, whose surfaces are fitted, on rows `slices` of a `World`."""
    table, layout, fitted = context.instruments, context.layout, context.layout.fitted
    assert fitted is not None, "the layout holds all slices of fitted surfaces"
    rows_of: dict[str, list[int]] = {}
    for row, i in enumerate(fitted.row.tolist()):
        rows_of.setdefault(layout.slices[i].underlying, []).append(row)
    end = layout.scenarios.horizon_end
    first, near, share, time = (np.zeros(len(filled), kind) for kind in (int, int, float, float))
    for n, i in enumerate(filled.tolist()):
        rows = rows_of.get(str(table.underlying[i]), [])
        # All settled by the horizon: so are the options.
        expiries = np.array([layout.slices[fitted.row[row]].expiry for row in rows] or [end + DAY])
        expiry = float(table.expiry[i])
        first[n] = rows[0] if rows else 0
        near[n] = max(int(np.searchsorted(expiries, expiry, side="right")) - 1, 0)
        at, after = expiries[near[n]], expiries[min(near[n] + 1, len(expiries) - 1)]
        share[n] = (expiry - at) / (after - at) if at < expiry < after else 0.0
        time[n] = (at + share[n] * (after - at) - end) / SECONDS_PER_YEAR
    return FittedSmile(
        jnp.asarray(options.moneyness[filled]),
        slices,
        *(jnp.asarray(x) for x in (first.reshape(groups, -1)[:, 0], near, share, time, fitted.row)),
        n_expiries=int(np.max(near + (share > 0))) + 1,
    )


def _european_block(
    context: Context, options: Options, filled: np.ndarray, *, groups: int, formula: Formula
) -> EuropeanBlock:
    """A block of `BLOCK` options whose smiles are as `_smile` says."""
    table, market, layout = context.instruments, context.market, context.layout
    end, linear = layout.scenarios.horizon_end, table.settlement[filled] == Settlement.LINEAR
    unit, expiry = context.unit[filled], table.expiry[filled]
    money = np.where(linear, unit * options.discount[filled], 1.0)
    slices, bases = context.rows(filled)
    window, left, then = table.averaging[filled], expiry - market.as_of, np.maximum(expiry - end, 0.0)
    # Vols are quoted for all of the time, though not all of it counts where the price is averaged.
    averaged = left * (variance_time(then, window) / variance_time(left, window))
    return EuropeanBlock(
        terms=EuropeanTerms(
            scale=jnp.asarray(table.contract_size[filled] * context.settlement_price[filled] * money),
            log_moneyness=jnp.asarray(options.moneyness[filled]),
            sign=jnp.asarray(np.where(table.put_call[filled] == PutCall.CALL, 1.0, -1.0)),
        ),
        smile=_smile(context, options, filled, slices, groups=groups),
        vol_today=jnp.asarray(options.vol_today[filled]),
        vol_slope=jnp.asarray(options.vol_slope[filled]),
        time_today=jnp.asarray(left / SECONDS_PER_YEAR),
        time_then=jnp.asarray(np.where(window > 0, averaged, then) / SECONDS_PER_YEAR),
        log_discount_then=jnp.asarray(options.log_discount_then[filled]),
        base_row=bases,
        formula=formula,
    )


def _bachelier(context: Context, columns: Sequence[int]) -> Iterator[Placed]:
    return _optioned(context, columns, partial(_european_block, formula=Formula.BACHELIER))


def _displaced(context: Context, columns: Sequence[int]) -> Iterator[Placed]:
    table = context.instruments
    for index, filled in _padded(columns):
        size = table.contract_size[filled] * context.settlement_price[filled]
        slices, bases = context.rows(filled)
        block = DisplacedBlock(
            unit=jnp.asarray(size * context.unit[filled]),
            level=jnp.asarray(size * context.forward[filled]),
            carried=jnp.asarray(table.kind[filled] == Kind.SPOT, float),
            linear=jnp.asarray([float(context.market.scale(u).is_linear) for u in table.underlying[filled]]),
            slice_row=slices,
            base_row=bases,
        )
        yield Placed(index, block)


def _american(context: Context, columns: Sequence[int]) -> Iterator[Placed]:
    pays = paying(context.instruments.take(np.array(columns, np.int64)), context.market)
    for dividends in (False, True):
        own = [i for i, it_pays in zip(columns, pays, strict=True) if it_pays == dividends]
        yield from _optioned(context, own, partial(_american_block, dividends=dividends))


def _american_block(
    context: Context, options: Options, filled: np.ndarray, *, groups: int, dividends: bool
) -> AmericanBlock:
    """A block of `BLOCK` options whose smiles are as `_smile` says. All or none have `dividends`."""
    table, market, layout = context.instruments, context.market, context.layout
    end, expiry = layout.scenarios.horizon_end, table.expiry[filled]
    rate, held = np.array([american_rates(table, i, market, end) for i in filled.tolist()]).T
    time = np.maximum(expiry - end, 0.0) / SECONDS_PER_YEAR
    price = context.forward[filled] * np.exp(0.0 if dividends else -(rate - held) * time)
    call, strike = table.put_call[filled] == PutCall.CALL, table.strike[filled]
    reach = np.exp(min(layout.scenarios.vol_cap, REACH))
    at_node = options.vol_at_node[filled]
    terms = terms_today(table.take(filled), market)
    lowest, highest = at_node.min(axis=1) / reach, at_node.max(axis=1) * reach
    if dividends:
        # What fills up is spared its ex-dates.
        real = np.isin(np.arange(len(filled)), np.unique(filled, return_index=True)[1])
        terms = terms._replace(dividends=jnp.where(real[:, None, None], terms.dividends, jnp.array([NEVER, 0.0])))
        clock = np.full(len(filled), (end - market.as_of) / SECONDS_PER_YEAR)
        tables, by_rate = _dividend_tables(terms, *map(jnp.asarray, (clock, rate, lowest, highest)))
    else:
        puts = np.where(call, held, rate), np.where(call, rate, held)
        tables, by_rate = _exercise_tables(*map(jnp.asarray, (*puts, time, lowest, highest)))
    today = local(terms, product=Product(Kind.OPTION, linear=True, american=True, dividends=dividends))
    slices, bases = context.rows(filled)
    slope = options.vol_slope[filled]
    return AmericanBlock(
        smile=_smile(context, options, filled, slices, groups=groups),
        table=tables,
        table_by_rate=by_rate,
        scale=terms.units * terms.settlement * jnp.asarray(np.where(call, price, strike)),
        log_moneyness=jnp.asarray(np.log(price / strike)),
        sign=terms.sign,
        today=jnp.asarray(today.value),
        # The smile is sticky in moneyness: a strike's volatility moves with the spot.
        today_by=jnp.stack(
            Bump(*map(jnp.asarray, (today.log_spot + today.vol * slope, today.vol, today.rate, today.value)))
        ),
        base_row=bases,
    )


@jax.jit
def _exercise_tables(
    rate: Float[Array, " option"],
    held: Float[Array, " option"],
    time: Float[Array, " option"],
    lowest: Float[Array, " option"],
    highest: Float[Array, " option"],
) -> tuple[ExerciseTable, ExerciseTable]:
    """`tabulated`, and its derivative where rate and yield rise together."""
    return jax.jvp(
        lambda shift: tabulated(rate + shift, held + shift, time, lowest, highest), (jnp.zeros(()),), (jnp.ones(()),)
    )


@jax.jit
def _dividend_tables(
    terms: Terms,
    clock: Float[Array, " option"],
    rate: Float[Array, " option"],
    lowest: Float[Array, " option"],
    highest: Float[Array, " option"],
) -> tuple[DividendTable, DividendTable]:
    """Tables of what is left at `clock`, in years from today, and their derivative by the rate, forwards held."""

    def table(shift: Array) -> DividendTable:
        time = jnp.maximum(terms.time - clock, 0.0)
        return dividend_table(early_exercise(terms, clock, rate + shift), time, lowest, highest)

    return jax.jvp(table, (jnp.zeros(()),), (jnp.ones(()),))


def _payoff(context: Context, columns: Sequence[int], *, block: Callable[[Listed], Block]) -> Iterator[Placed]:
    def build(context: Context, options: Options, filled: np.ndarray, *, groups: int) -> Block:
        layout = context.layout
        slices, bases = context.rows(filled)
        return block(
            Listed(
                instruments=context.instruments.take(filled),
                market=context.market,
                end=layout.scenarios.horizon_end,
                forward=context.forward[filled],
                settlement_price=context.settlement_price[filled],
                carry=layout.carry[np.asarray(slices)],
                discount=options.discount[filled],
                log_discount_then=options.log_discount_then[filled],
                vol_today=options.vol_today[filled],
                vol_slope=options.vol_slope[filled],
                smile=_smile(context, options, filled, slices, groups=groups),
                base_row=bases,
            )
        )

    return _optioned(context, columns, build)


PRICERS: dict[tuple[str, str], Callable[[Context, Sequence[int]], Iterator[Placed]]] = {
    (Kind.SPOT, ""): _carried,
    (Kind.CASH, ""): _carried,
    (Kind.FUTURE, ""): _margined,
    (Kind.PERPETUAL, ""): _margined,
    (Kind.OPTION, Exercise.EUROPEAN): _european,
    (Kind.OPTION, Exercise.AMERICAN): _american,
    (Kind.BOND, ""): _bonds,
    (Kind.DIGITAL, ""): partial(_payoff, block=digital_block),
    (Kind.ASIAN, ""): partial(_payoff, block=average_block),
    (Kind.OPTION, Settlement.QUANTO): partial(_payoff, block=quanto_block),
    (Kind.BARRIER, ""): partial(_payoff, block=barrier_block),
}
"""The pricer table: a new product is one kernel, one builder and one row."""

DISPLACED: dict[tuple[str, PriceModel], Callable[[Context, Sequence[int]], Iterator[Placed]]] = {
    **{(kind, model): _displaced for kind in (Kind.SPOT, Kind.FUTURE, Kind.PERPETUAL) for model in PriceModel},
    (Kind.OPTION, PriceModel.SHIFTED): _european,
    (Kind.OPTION, PriceModel.BACHELIER): _bachelier,
}
"""Where the underlying's price is not lognormal."""
