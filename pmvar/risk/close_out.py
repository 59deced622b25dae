"""What it costs to close an account out: half the spread, and the impact of more than the market trades in a day.

Spread Σ|q|·½s over positions. Impact by factor, on the net exposure X = Σ q·e of an underlying's price and of its
implied vol: Y·σ·|X|·√(|X|/V), σ the factor's deviation over a day, V what a day trades in the same unit. The square
root and Y ≈ 1 are those of Tóth et al. (2011), "Anomalous price impact and the critical nature of liquidity". The
spread has degree 1 in the positions, the impact 1.5.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import sparse

from pmvar.errors import some_of
from pmvar.instruments import Instruments
from pmvar.market.snapshot import MarketSnapshot
from pmvar.scenarios.clock import horizon_steps
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import DAY, SPLIT, FactorKind, Greek, Kind, Settlement, factor_name
from pmvar.valuation.today import Sensitivity, terms_today

IMPACT = 1.0
"""Y: the impact of a day's volume, in daily deviations."""
DEGREE = 1.5
"""Of the impact in the size of the positions."""


@dataclass(frozen=True)
class CloseOut:
    """Costs of one contract, base currency; balances have none, their haircut is for that."""

    half_spread: Float[np.ndarray, " instrument"]
    """NaN where nothing says it."""
    factors: tuple[str, ...]
    """Prices and vols of underlyings."""
    exposure: Float[np.ndarray, "instrument factor"]
    """Base currency per 1.00 of the factor's log move."""
    deviation: Float[np.ndarray, " factor"]
    """Of the log move over a day."""
    volume: Float[np.ndarray, " factor"]
    """Exposure that a day trades, long and short alike; 0 where nothing says it."""


class Cost(NamedTuple):
    """Of all accounts, base currency, ≥ 0."""

    spread: Float[np.ndarray, " account"]
    impact: Float[np.ndarray, "account factor"]
    absent: list[str]
    """What of each account's cost is not in these, and why; empty if nothing."""


def close_out(
    instruments: Instruments,
    market: MarketSnapshot,
    scenarios: ScenarioSet,
    sensitivities: Sequence[Sensitivity],
    priced: np.ndarray,
) -> CloseOut:
    """Costs of one contract by the market's half-spreads and daily volumes; the rows `priced` have Greeks."""
    n, ids = len(instruments), [str(i) for i in instruments.instrument_id]
    tradable = instruments.kind != Kind.CASH
    spread = np.array([market.half_spread.get(i, np.nan) for i in ids]) * _unit_price(instruments, market)
    traded = np.array([market.daily_volume.get(i, 0.0) for i in ids]) * tradable
    underlyings = sorted(set(map(str, instruments.underlying[tradable])))
    factors = [factor_name(u, kind) for u in underlyings for kind in SPLIT]
    factors = [f for f in factors if f in scenarios.factors]
    exposure = np.zeros((n, len(factors)))
    by = {(s.factor, s.greek): s.value for s in sensitivities}
    shift = _vol_shift(instruments, market, scenarios, priced)
    for f, name in enumerate(factors):
        underlying, _, kind = name.rpartition(":")
        own = tradable & (instruments.underlying == underlying)
        if kind == FactorKind.SPOT:
            per_log = by.get((name, Greek.DELTA), np.zeros(n)) * market.spot[market.column(underlying)]
        else:
            per_log = by.get((name, Greek.VEGA), np.zeros(n)) * shift
        exposure[:, f] = np.where(own, per_log, 0.0)
    return CloseOut(
        np.where(tradable, spread, 0.0), tuple(factors), exposure, _daily_deviation(scenarios, factors),
        traded @ np.abs(exposure),
    )  # fmt: skip


def cost(quantity: sparse.csr_array, unit: CloseOut, instrument_id: np.ndarray) -> Cost:
    """Cost of closing out every account of `quantity` [account, instrument]. What an input is missing for counts
    nothing and is named in `absent`."""
    known = np.nan_to_num(unit.half_spread, nan=0.0)
    net = np.asarray(quantity @ unit.exposure)
    liquid = unit.volume > 0
    depth = np.sqrt(np.abs(net) / np.where(liquid, unit.volume, 1.0))
    impact = np.where(liquid, IMPACT * unit.deviation * np.abs(net) * depth, 0.0)
    absent = []
    for a in range(len(net)):
        held = quantity.indices[quantity.indptr[a] : quantity.indptr[a + 1]]
        unquoted = instrument_id[held[np.isnan(unit.half_spread[held])]]
        untraded = [f for f, x, v in zip(unit.factors, net[a], liquid, strict=True) if x and not v]
        said = [f"no half_spread of {some_of(unquoted)}"] * bool(len(unquoted))
        said += [f"no daily_volume for {some_of(untraded)}"] * bool(untraded)
        absent.append("; ".join(said))
    return Cost(np.asarray(abs(quantity) @ known), impact, absent)


def euler_shares(
    quantity: Float[np.ndarray, " instrument"], unit: CloseOut
) -> tuple[Float[np.ndarray, " instrument"], Float[np.ndarray, " instrument"]]:
    """Each position's part of one account's spread and impact; they add up to both.

    q·∂C/∂q is the spread's part and 1.5 times the impact's, by Euler's theorem: divided by the degree. A hedge's part
    of the impact is negative.
    """
    net = quantity @ unit.exposure
    liquid = unit.volume > 0
    marginal = IMPACT * unit.deviation * np.sign(net) * np.sqrt(np.abs(net) / np.where(liquid, unit.volume, 1.0))
    parts = quantity[:, None] * unit.exposure * DEGREE * np.where(liquid, marginal, 0.0)
    return np.abs(quantity) * np.nan_to_num(unit.half_spread, nan=0.0), parts.sum(axis=1) / DEGREE


def _unit_price(instruments: Instruments, market: MarketSnapshot) -> Float[np.ndarray, " instrument"]:
    """Base currency that one contract's value moves by for 1 of its quoted price: as marks, of an option in its
    settlement currency, else in its quote currency, per unit of the underlying."""
    out = np.zeros(len(instruments))
    for i in range(len(instruments)):
        is_option = instruments.kind[i] == Kind.OPTION
        currency = instruments.settlement_currency[i] if is_option else instruments.quote_currency[i]
        out[i] = instruments.contract_size[i] * market.base_price(str(currency))
        if not is_option and instruments.settlement[i] == Settlement.INVERSE:
            # A contract is an amount of quote currency: Q/F coins, which ds/F of the price moves.
            out[i] /= market.spot[market.column(str(instruments.underlying[i]))]
    return out


def _vol_shift(
    instruments: Instruments, market: MarketSnapshot, scenarios: ScenarioSet, priced: np.ndarray
) -> Float[np.ndarray, " instrument"]:
    """Change of each option's volatility for 1.00 of its vol factor's log move: σ·(tenor/τ)^exponent."""
    out = np.zeros(len(instruments))
    place = {name: f for f, name in enumerate(scenarios.factors)}
    rows = np.array([
        i for i in priced
        if instruments.kind[i] == Kind.OPTION and factor_name(str(instruments.underlying[i]), FactorKind.VOL) in place
    ], dtype=np.int64)  # fmt: skip
    if len(rows):
        f = np.array([place[factor_name(str(u), FactorKind.VOL)] for u in instruments.underlying[rows]])
        days = np.maximum((instruments.expiry[rows] - market.as_of) / DAY, 1.0)
        scale = (scenarios.tenor[f] / days) ** scenarios.term_exponent[f]
        out[rows] = np.asarray(terms_today(instruments.take(rows), market).vol) * scale
    return out


def _daily_deviation(scenarios: ScenarioSet, factors: list[str]) -> Float[np.ndarray, " factor"]:
    """Standard deviation of the factors' log moves over a day, from that over the horizon."""
    total = np.asarray(scenarios.shock.sum(axis=1))[:, [scenarios.factors.index(f) for f in factors]]
    weight = scenarios.weight / scenarios.weight.sum()
    spread = np.sqrt(weight @ (total - weight @ total) ** 2)
    return spread / np.sqrt(horizon_steps(str(scenarios.provenance["horizon"])))

