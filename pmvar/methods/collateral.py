"""The collateral-factor method: every asset alone, cut by what its volatility can take from it over a horizon.

Factor of an asset: the quantile q of its log price's move, q = z·σ·√n per link of its chain to the base currency, with
σ the model's standard deviation a step, n the steps of the horizon and z the quantile of the model's marginal at unit
variance (Student t, or normal). Long, a share 1 − e^{−q} is lost; short, e^{q} − 1. Links add up, as if they fell
together. An asset that the model does not know has the factor 1 both ways.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.stats import norm
from scipy.stats import t as student_t

from pmvar.errors import NumericsError, UsageError
from pmvar.market.snapshot import MarketSnapshot
from pmvar.methods.result import MethodMargin, Step
from pmvar.methods.standard import standard_margin, unit_requirements
from pmvar.models.specification import Factor, ModelSpecification
from pmvar.portfolio import Portfolio
from pmvar.types import FactorKind, Kind, Settlement, factor_name
from pmvar.valuation.plan import missing_today
from pmvar.valuation.today import values_and_greeks


class _Line(NamedTuple):
    """One kind of step of all accounts."""

    group: str
    name: str
    initial: Float[np.ndarray, " account"]
    maintenance: Float[np.ndarray, " account"]


class CollateralFactor(NamedTuple):
    """Shares of an asset's notional, ≥ 0."""

    long: float
    """The haircut: 1 less the collateral factor."""
    short: float


def collateral_factors(
    model: ModelSpecification, market: MarketSnapshot, *, level: float, steps: int
) -> Mapping[str, CollateralFactor]:
    """Factor of each asset of `market` at the upper-tail `level` over `steps` of the model, such as 0.99 and 2.

    Raises UsageError if there is no such tail or horizon.
    """
    if not (0.5 < level < 1 and steps > 0):
        raise UsageError(f"level {level} and steps {steps}: the level must lie in (0.5, 1), the steps be positive")
    by_name = {f.name: f for f in model.factors}
    found: dict[str, CollateralFactor] = {}
    for asset in market.asset:
        links = [by_name.get(factor_name(market.asset[c], FactorKind.SPOT)) for c in market.chain(asset)]
        if any(f is None for f in links):
            found[asset] = CollateralFactor(1.0, 1.0)
            continue
        move = sum(_quantile(f, level) for f in links if f is not None) * np.sqrt(steps)
        found[asset] = CollateralFactor(float(-np.expm1(-move)), float(np.expm1(move)))
    return found


def _quantile(factor: Factor, level: float) -> float:
    nu = factor.degrees_of_freedom
    z = norm.ppf(level) if nu is None else student_t.ppf(level, nu) * np.sqrt((nu - 2) / nu)
    return float(z * factor.volatility)


def collateral_margin(
    portfolio: Portfolio,
    market: MarketSnapshot,
    *,
    initial: Mapping[str, CollateralFactor],
    maintenance: Mapping[str, CollateralFactor],
) -> MethodMargin:
    """Margin of every account by collateral factors, in base currency.

    Balances, spots, futures and perpetuals net within an asset and need its factor; assets never offset. A long option
    counts nothing, a short one needs its standard margin. An account that holds what is unknown or cannot be valued
    gets at least its standard margin, and a note. Raises NumericsError if a margin is not finite.
    """
    if not np.isfinite(portfolio.quantity.data).all():
        raise NumericsError("a position has a quantity that is not finite; correct positions and balances")
    table, quantity = portfolio.instruments, portfolio.quantity
    missing = {i: reason for i in range(len(table)) if (reason := missing_today(table, i, market))}
    priced = np.array([i for i in range(len(table)) if i not in missing], dtype=np.int64)
    value = np.full(len(table), np.nan)
    if len(priced):
        value[priced], _ = values_and_greeks(table.take(priced), market)
    lines = [_options(portfolio, market, value)]
    linear = priced[(table.kind[priced] != Kind.OPTION) & (table.underlying[priced] != market.base_currency)]
    for asset in sorted({str(u) for u in table.underlying[linear]}):
        own = linear[table.underlying[linear] == asset]
        futures = np.isin(table.kind[own], [Kind.FUTURE, Kind.PERPETUAL])
        inverse = futures & (table.settlement[own] == Settlement.INVERSE)
        spot = float(market.spot[market.column(asset)])
        units = np.where(inverse, table.contract_size[own] / spot, table.contract_size[own])
        exposure = np.asarray(quantity[:, own] @ units) * market.base_price(asset)
        lines.append(_Line(asset, "factor", _cut(exposure, initial[asset]), _cut(exposure, maintenance[asset])))
    nothing = np.zeros(portfolio.n_accounts)
    first = sum((line.initial for line in lines), nothing)
    second = sum((line.maintenance for line in lines), nothing)
    held = np.asarray(abs(quantity[:, sorted(missing)]).sum(axis=1)).reshape(-1) > 0
    affected = held | np.array([str(a) in portfolio.withheld for a in portfolio.account_id], dtype=bool)
    standard = np.where(affected, standard_margin(portfolio, market, value), 0.0)
    lines.append(_Line("", "fallback", np.maximum(standard - first, 0.0), np.maximum(standard - second, 0.0)))
    first, second = np.maximum(first, standard), np.maximum(second, standard)
    if not np.isfinite([first, second]).all():
        raise NumericsError("a margin by collateral factors is not finite; correct positions and the market's prices")
    found = [
        Step(account, line.group, line.name, "", float(line.initial[account]))
        for line in lines
        for account in np.flatnonzero(line.initial).tolist()
    ]
    reasons = sorted(set(missing.values()) | set(portfolio.withheld.values()))
    return MethodMargin(
        "collateral",
        "quantile of each asset's volatility over the horizon; see pmvar.methods.collateral",
        first,
        second,
        tuple(sorted(found, key=lambda s: (s.account, s.group))),
        tuple(f"{reason}: at least the standard margin" for reason in reasons[:20]),
    )


def _cut(exposure: Float[np.ndarray, " account"], factor: CollateralFactor) -> Float[np.ndarray, " account"]:
    return np.maximum(exposure, 0.0) * factor.long + np.maximum(-exposure, 0.0) * factor.short


def _options(portfolio: Portfolio, market: MarketSnapshot, value: Float[np.ndarray, " instrument"]) -> _Line:
    """Long options lose their value; short ones need their standard margin, less the value owed already."""
    table, quantity = portfolio.instruments, portfolio.quantity
    known = np.isfinite(value) & (table.kind == Kind.OPTION)
    short = unit_requirements(table, market, value).short - value
    amount = np.asarray(
        quantity.maximum(0) @ np.where(known, value, 0.0)
        + (-quantity).maximum(0) @ np.where(known, np.maximum(short, 0.0), 0.0)
    )
    return _Line("", "options", amount, amount)
