"""Why an instrument cannot be valued: what lacks an input is withheld by name, never guessed."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from pmvar.instruments import Instruments
from pmvar.kernels.exercise_boundary import has_two_boundaries
from pmvar.market.snapshot import MarketSnapshot
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import (
    OPTION_KINDS,
    SECONDS_PER_YEAR,
    BarrierType,
    Exercise,
    FactorKind,
    Kind,
    PriceModel,
    PutCall,
    Settlement,
    factor_name,
)
from pmvar.valuation.bonds import unmoved, unpayable
from pmvar.valuation.dividends import drops
from pmvar.valuation.today import american_rates


def missing(instruments: Instruments, i: int, market: MarketSnapshot, scenarios: ScenarioSet) -> str:
    """Why instrument `i` cannot be valued; empty if it can."""
    if reason := missing_today(instruments, i, market) or _unexercisable(instruments, i, market, scenarios.horizon_end):
        return reason
    shape = [factor_name(instruments.underlying[i], kind) for kind in (FactorKind.SKEW, FactorKind.CURVATURE)]
    moved = [f for f in shape if f in scenarios.factors] if instruments.kind[i] in OPTION_KINDS else []
    if moved and not market.vols[instruments.underlying[i]].is_fitted:
        return f"{moved[0]} moves a fitted smile, and the surface of {instruments.underlying[i]} is raw"
    absent = [f for f in _factors(instruments, i, market) if f not in scenarios.factors]
    if instruments.kind[i] == Kind.BOND:
        absent += [f for f in [unmoved(instruments, i, scenarios.factors)] if f]
    return f"the model has no factor {absent[0]}" if absent else ""


def _factors(instruments: Instruments, i: int, market: MarketSnapshot) -> list[str]:
    """Factors that move the value of instrument `i`."""
    underlying = instruments.underlying[i]
    links = [market.asset[c] for c in market.chain(instruments.settlement_currency[i])]
    own = [] if instruments.kind[i] == Kind.BOND else [underlying]
    needed = [factor_name(a, FactorKind.SPOT) for a in dict.fromkeys([*own, *links]) if a != market.base_currency]
    return needed + [factor_name(underlying, FactorKind.VOL)] * (instruments.kind[i] in OPTION_KINDS)


def missing_today(instruments: Instruments, i: int, market: MarketSnapshot) -> str:
    """Why the market cannot value instrument `i` today, whatever the scenarios; empty if it can."""
    kind, underlying = instruments.kind[i], instruments.underlying[i]
    needed = _factors(instruments, i, market)
    if kind == Kind.BOND and (reason := unpayable(instruments, i, market)):
        return reason
    if kind in OPTION_KINDS:
        if underlying not in market.vols:
            return f"no vol surface for {underlying}"
        currency = instruments.discount_currency[i]
        if instruments.settlement[i] != Settlement.INVERSE and currency not in market.discounts:
            return f"no discount curve for {currency}"
        if reason := _unpayable(instruments, i, market):
            return reason
    begun = instruments.averaging_start[i] <= market.as_of and kind in OPTION_KINDS
    if begun and np.isnan(instruments.average_so_far[i]):
        return f"{instruments.instrument_id[i]} has begun to average, and has no average so far"
    if kind in (*OPTION_KINDS, Kind.FUTURE):
        if instruments.expiry[i] <= market.as_of:
            return f"{instruments.instrument_id[i]} has expired"
        if underlying not in market.forwards:
            return f"no forward curve for {underlying}"
    funded = kind == Kind.PERPETUAL and market.funding.get(str(instruments.instrument_id[i]))
    if funded and market.scale(underlying).model is not PriceModel.LOGNORMAL:
        return f"{instruments.instrument_id[i]} pays funding on a price that is not lognormal, which is not priced"
    if reason := next((f"{f}: {market.quarantined[f]}" for f in needed if f in market.quarantined), ""):
        return reason
    if reason := _undisplaceable(instruments, i, market):
        return reason
    return _unexercisable(instruments, i, market, market.as_of)


def _undisplaceable(instruments: Instruments, i: int, market: MarketSnapshot) -> str:
    """Why instrument `i` cannot be valued on its underlying's scale, or settle as it does; empty if it can."""
    name, model = instruments.instrument_id[i], market.scale(instruments.underlying[i]).model
    if model is not PriceModel.LOGNORMAL and (
        instruments.settlement[i] != Settlement.LINEAR
        or instruments.exercise[i] == Exercise.AMERICAN
        or instruments.formula[i] in (Kind.DIGITAL, Kind.ASIAN, Kind.BARRIER)
    ):
        return f"{name} is of a kind, settlement or exercise that is not priced under price_model {model}"
    settled = [market.asset[c] for c in market.chain(instruments.settlement_currency[i])]
    odd = [a for a in settled if market.scale(a).model is not PriceModel.LOGNORMAL]
    return f"{name} settles by way of {odd[0]}, whose price may be zero or less" if odd else ""


def _unpayable(instruments: Instruments, i: int, market: MarketSnapshot) -> str:
    """Why the market does not say what the payoff of option `i` is worth; empty if it does."""
    name, settlement = instruments.instrument_id[i], instruments.settlement_currency[i]
    if instruments.settlement[i] == Settlement.QUANTO and (instruments.underlying[i], settlement) not in market.quanto:
        return f"no quanto correlation of {instruments.underlying[i]} with {settlement}"
    at_hit = instruments.rebate[i] > 0 and instruments.barrier_type[i] in (BarrierType.UP_OUT, BarrierType.DOWN_OUT)
    if at_hit and market.discounts[instruments.discount_currency[i]].discount_factor(instruments.expiry[i]) > 1:
        return f"{name} pays a rebate at the hit under a negative rate, which is not priced"
    return ""


def _unexercisable(instruments: Instruments, i: int, market: MarketSnapshot, start: float) -> str:
    """Why the exercise of instrument `i` from `start` on cannot be valued; empty if it can, or there is nothing to."""
    if instruments.exercise[i] != Exercise.AMERICAN:
        return ""
    name = instruments.instrument_id[i]
    if instruments.settlement[i] != Settlement.LINEAR:
        return f"{name} is an American option that settles in its underlying, which is not priced"
    paid = drops(instruments, i, market)
    rate, held = american_rates(instruments, i, market, market.as_of if len(paid) else start)
    if len(paid):
        # Beside the dividends. Rounded as there.
        year = (instruments.expiry[i] - market.as_of) / SECONDS_PER_YEAR
        held = round(held - float(paid[:, 1].sum()) / year, 12)
    one, other = (held, rate) if instruments.put_call[i] == PutCall.CALL else (rate, held)
    if not has_two_boundaries(jnp.asarray(one), jnp.asarray(other)):
        return ""
    return (
        f"{name} is an American {instruments.put_call[i]} under a rate of {rate:.3%} and a yield of {held:.3%}: it is "
        "exercised between two boundaries, which is not priced"
    )
