"""SPAN for any book without a SPAN file: risk arrays of our pricer, ranges of our model, rates of span-default.toml.

Amounts are in base currency. Deltas count in base currency, too: what one unit of return of the underlying would move.
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib import resources
from itertools import combinations
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from pmvar.errors import UsageError
from pmvar.instruments import Instruments
from pmvar.market.snapshot import MarketSnapshot
from pmvar.methods.fallback import at_least_standard, debt_margin, unpriceable, value_today
from pmvar.methods.result import Method, MethodMargin, Origin, Step
from pmvar.methods.span.aggregate import span_margin
from pmvar.methods.span.arrays import AGEING, SpanArrays
from pmvar.methods.span.parameters import STANDARD, CombinedCommodity, Leg, SpanGrid, SpanParameters, Spread
from pmvar.models.specification import ModelSpecification
from pmvar.portfolio import Portfolio
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import DAY, OPTION_KINDS, FactorKind, Kind, factor_name
from pmvar.valuation.today import STILL, Moves, terms_today, values_under

LEAST_PRICE = 1e-3
"""Of today's: no scan range moves a price further down."""
STEP = 1e-4
"""Of ln S, for the differences that deltas are."""


@dataclass(frozen=True)
class SpanDefault:
    """`span-default.toml`: what no model says. Shares, unless said."""

    date: date
    source: str
    scan_quantile: float
    inter_month_share: float
    short_option_share: float
    credit_share: float
    credit_least_correlation: float
    initial_ratio: float

    def __post_init__(self) -> None:
        shares = (self.inter_month_share, self.short_option_share, self.credit_share, self.credit_least_correlation)
        if not (0.5 < self.scan_quantile < 1 and all(0 <= s <= 1 for s in shares) and 1 <= self.initial_ratio < 100):
            raise UsageError(f"span-default.toml: a share outside [0, 1], or a quantile outside (.5, 1): {self}")


def span_default() -> SpanDefault:
    """The rules that come with pmvar."""
    text = (resources.files("pmvar.methods") / "span-default.toml").read_text(encoding="utf-8")
    return SpanDefault(**tomllib.loads(text))


def default_span(
    market: MarketSnapshot, model: ModelSpecification, scenarios: ScenarioSet, rules: SpanDefault | None = None
) -> Method:
    """SPAN over `market` with scan ranges from `scenarios`, and credits from the correlations of `model`."""
    given = rules or span_default()

    def margin(portfolio: Portfolio) -> MethodMargin:
        table = portfolio.instruments
        missing = unpriceable(table, market)
        known = set(scenarios.factors)
        for i in range(len(table)):
            if table.kind[i] != Kind.CASH and factor_name(table.underlying[i], FactorKind.SPOT) not in known:
                missing.setdefault(i, f"the model has no factor {factor_name(table.underlying[i], FactorKind.SPOT)}")
        value = value_today(table, market, missing)
        rows = np.array(
            [i for i in range(len(table)) if i not in missing and table.kind[i] != Kind.CASH], dtype=np.int64
        )
        some = table.take(rows)
        arrays, parameters = default_arrays(some, market, model, scenarios, given)
        found = span_margin(portfolio.quantity[:, rows], arrays, parameters)
        debt = debt_margin(portfolio, market, value, table.kind != Kind.CASH)
        (extra, kept), notes = at_least_standard(
            portfolio, market, value, missing, found.initial + debt, found.maintenance + debt
        )
        added = [
            Step(int(a), "", name, label, float(amount[a]))
            for name, label, amount in (("debt", "balances below zero", debt), ("fallback", "standard margin", extra))
            for a in np.flatnonzero(amount)
        ]
        return MethodMargin(
            "span",
            f"{given.source} ({given.date}); {_ranges(market, scenarios, given)}",
            found.initial + debt + extra,
            found.maintenance + debt + kept,
            tuple(sorted((*found.steps, *added), key=lambda s: (s.account, s.group))),
            ("no SPAN file was given: scan ranges are the model's own quantiles, spread rates are assumed;"
             " balances above zero are not scanned", *notes),
            given.scan_quantile,
            Origin.MODEL,
        )  # fmt: skip

    return margin


class Ranges(NamedTuple):
    """Scan ranges of one underlying."""

    price: float
    """S₁/S₀ − 1."""
    log_vol: float
    """At the factor's tenor, before the cap."""


def scan_ranges(scenarios: ScenarioSet, underlying: str, quantile: float, *, linear: bool = False) -> Ranges:
    """Quantiles of the sizes of an underlying's moves over the horizon; 0 for a vol that no factor moves. Shares of its
    price, of a `linear` one (Bachelier) of its shift."""
    total = np.asarray(scenarios.shock.sum(axis=1))

    def size(kind: FactorKind) -> np.ndarray:
        name = factor_name(underlying, kind)
        return total[:, scenarios.factors.index(name)] if name in scenarios.factors else np.zeros(len(total))

    x = size(FactorKind.SPOT)
    price, vol = np.abs(x if linear else np.expm1(x)), np.abs(size(FactorKind.VOL))
    return Ranges(*(weighted_quantile(x, scenarios.weight, quantile) for x in (price, vol)))


def weighted_quantile(x: np.ndarray, weight: np.ndarray, q: float) -> float:
    """The least x with a share of at least q of the weight at or below it."""
    order = np.argsort(x, kind="stable")
    share = np.cumsum(weight[order]) / weight.sum()
    return float(x[order[min(np.searchsorted(share, q), len(x) - 1)]])


def _ranges(market: MarketSnapshot, scenarios: ScenarioSet, rules: SpanDefault) -> str:
    known = [u for u in sorted(market.forwards) if factor_name(u, FactorKind.SPOT) in scenarios.factors]
    ranges = (_ranges_of(u, market, scenarios, rules) for u in known)
    return ", ".join(f"{u} {r.price:.1%}" for u, r in zip(known, ranges, strict=True))


def _ranges_of(underlying: str, market: MarketSnapshot, scenarios: ScenarioSet, rules: SpanDefault) -> Ranges:
    return scan_ranges(scenarios, underlying, rules.scan_quantile, linear=market.scale(underlying).is_linear)


def default_arrays(
    instruments: Instruments,
    market: MarketSnapshot,
    model: ModelSpecification,
    scenarios: ScenarioSet,
    rules: SpanDefault | None = None,
) -> tuple[SpanArrays, SpanParameters]:
    """Risk arrays and parameters of instruments that have a price and a factor, balances apart; base currency."""
    rules, terms = rules or span_default(), terms_today(instruments, market)
    names = sorted(set(map(str, instruments.underlying)))
    ranges = [_ranges_of(u, market, scenarios, rules) for u in names]
    commodity = np.array([names.index(str(u)) for u in instruments.underlying], dtype=np.int64)
    price = np.array([r.price for r in ranges])[commodity]
    is_option = np.isin(instruments.kind, OPTION_KINDS)
    vol = np.where(is_option, _vol_range(instruments, names, ranges, commodity, market, scenarios), 0.0)
    clock = np.where(is_option, AGEING, 0.0)[:, None]
    linked = _linked(instruments, market)
    linear = np.asarray(terms.bachelier)[:, None] > 0

    def values(price_move: np.ndarray, vol_move: np.ndarray) -> Float[np.ndarray, "contract point"]:
        log = np.where(linear, price_move, np.log(np.maximum(1 + price_move, LEAST_PRICE)))
        shift = np.asarray(terms.vol)[:, None] * np.maximum(vol_move, -1.0)
        return values_under(instruments, terms, Moves(log, linked[:, None] * log, shift, 0.0, clock))

    now = values_under(instruments, terms, STILL)
    grid: SpanGrid = STANDARD
    moved = values(grid.price * price[:, None], grid.vol * vol[:, None])
    at = grid.delta_price * price[:, None]
    nearby = (np.where(linear, at + h, (1 + at) * np.exp(h) - 1) for h in (STEP, -STEP))
    up, down = (values(x, np.zeros_like(at)) for x in nearby)
    delta = ((up - down) / (2 * STEP) / np.where(linear, 1.0, np.maximum(1 + at, LEAST_PRICE))) @ grid.delta_weight
    arrays = SpanArrays(
        commodity=commodity,
        month=np.array([_month(e, k) for e, k in zip(instruments.expiry, instruments.kind, strict=True)], dtype=object),
        kind=np.where(is_option, np.where(instruments.put_call == "call", 1, -1), 0),
        loss=grid.weight * (now - moved),
        delta=delta,
        value=np.where(is_option, now[:, 0], 0.0),
        count=instruments.units,
    )
    parameters = SpanParameters(
        grid,
        tuple(
            CombinedCommodity(
                name,
                market.base_currency,
                spreads=(Spread(rules.inter_month_share * r.price, (Leg(c, 1, 1.0), Leg(c, -1, 1.0))),),
                short_option_minimum=rules.short_option_share * r.price * market.base_unit(name),
                initial_ratio=rules.initial_ratio,
            )
            for c, (name, r) in enumerate(zip(names, ranges, strict=True))
        ),
        _credits(names, ranges, model, rules),
        rules.source,
    )
    return arrays, parameters


def _month(expiry: float, kind: str) -> str:
    """The day of expiry; a perpetual and the underlying itself count as one month before all others."""
    return datetime.fromtimestamp(expiry, UTC).strftime("%Y%m%d") if np.isfinite(expiry) else "00000000"


def _vol_range(
    instruments: Instruments, names: list[str], ranges: list[Ranges], commodity: np.ndarray, market: MarketSnapshot,
    scenarios: ScenarioSet,
) -> Float[np.ndarray, " contract"]:  # fmt: skip
    """Relative vol scan range of each contract at its own tenor, capped as scenarios are."""
    out = np.zeros(len(instruments))
    days = np.maximum((instruments.expiry - market.as_of) / DAY, 1.0)
    for c, name in enumerate(names):
        factor = factor_name(name, FactorKind.VOL)
        if factor in scenarios.factors:
            f, own = scenarios.factors.index(factor), commodity == c
            move = ranges[c].log_vol * (scenarios.tenor[f] / days[own]) ** scenarios.term_exponent[f]
            cap = scenarios.vol_cap
            out[own] = np.expm1(cap * np.tanh(move / cap) if np.isfinite(cap) else move)
    return out


def _linked(instruments: Instruments, market: MarketSnapshot) -> Float[np.ndarray, " contract"]:
    """1 where the price of what a contract settles in moves with its underlying."""
    return np.array(
        [u in {market.asset[c] for c in market.chain(s)}
         for u, s in zip(instruments.underlying, instruments.settlement_currency, strict=True)], dtype=float,
    )  # fmt: skip


def _credits(
    names: list[str], ranges: list[Ranges], model: ModelSpecification, rules: SpanDefault
) -> tuple[Spread, ...]:
    """Spreads between underlyings, the most correlated first: legs of equal scan range, opposite ways."""
    index = [model.factor_names.index(factor_name(u, FactorKind.SPOT)) for u in names]
    pairs = [(float(model.correlation[index[a], index[b]]), a, b) for a, b in combinations(range(len(names)), 2)]
    return tuple(
        Spread(rules.credit_share * rho, (Leg(a, 1, 1 / ranges[a].price), Leg(b, -1, 1 / ranges[b].price)))
        for rho, a, b in sorted(pairs, key=lambda p: (-p[0], p[1:]))
        if rho >= rules.credit_least_correlation and min(ranges[a].price, ranges[b].price) > 0
    )
