"""Bonds as a block, and why some cannot be valued."""

from __future__ import annotations

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pmvar.instruments import Instruments
from pmvar.kernels.bond import BondFlows, bond_gain
from pmvar.kernels.european import Bump
from pmvar.market.snapshot import MarketSnapshot
from pmvar.types import SECONDS_PER_YEAR, FactorKind, factor_name
from pmvar.valuation.blocks import Block
from pmvar.valuation.cash_flows import MOST_FLOWS, between, bond_terms, cash_flows, curve_factors, rate_factors
from pmvar.valuation.world import Layout, World


class BondBlock(Block):
    """Bonds: V₁X₁ − V₀X₀, with what they have paid by the horizon in V₁ at its face."""

    on_curve: ClassVar[bool] = True
    flows: BondFlows
    value_today: Float[Array, "flow bond"]
    """Base currency."""
    time_today: Float[Array, "flow bond"]
    """Years."""
    base_row: Int[Array, " bond"]

    def pnl(self, world: World, bump: Bump) -> Float[Array, "instrument scenario"]:
        """See the base. The rate of a bump is that of the currency's zero rates, or of the spread: all of either."""
        dtype = world.log_base.dtype
        wide = Bump(*(x.astype(jnp.float64) for x in bump))
        money = jnp.exp(wide.log_settlement)
        then = self.flows.value * jnp.exp(-wide.rate * self.flows.time)
        # One column each: float64 keeps its rounding out of every scenario.
        still = money * then.sum(axis=0)
        waited = still - money * (self.value_today * jnp.exp(-wide.rate * self.time_today)).sum(axis=0)
        flows = self.flows._replace(
            value=(money * then).astype(dtype),
            time=self.flows.time.astype(dtype),
            weight=self.flows.weight.astype(dtype),
        )
        move = world.log_base[self.base_row]
        gain = bond_gain(flows, world.curve)
        return jnp.exp(move) * gain + still.astype(dtype)[:, None] * jnp.expm1(move) + waited.astype(dtype)[:, None]


def bond_block(
    instruments: Instruments, layout: Layout, settlement_price: Float[np.ndarray, " bond"], base_row: np.ndarray
) -> BondBlock:
    """The block of all of `instruments`; rates pass to the horizon as today's curve has it, spreads stand still."""
    market, end = layout.market, layout.scenarios.horizon_end
    terms = bond_terms(instruments, market)
    short = MOST_FLOWS - terms.shape[1]
    terms = np.pad(terms, ((0, 0), (0, short), (0, 0)))
    amount, year, rate = terms[..., 0], terms[..., 1], terms[..., 2]
    waited = (end - market.as_of) / SECONDS_PER_YEAR
    left = np.maximum(year - waited, 0.0)
    today = settlement_price[:, None] * amount * np.exp(-rate * year)
    spread = np.array([market.spread[u] for u in instruments.underlying])[:, None]
    growth = np.array([-np.log(market.discounts[c].discount_factor(end)) for c in instruments.quote_currency])[:, None]
    # D₀(T)/D₀(h), the forward discount factor, as of options; a payment inside the horizon waits without interest.
    then = today * np.where(left > 0, np.exp(growth + spread * waited), np.exp(rate * year))
    low, high, weight = (np.zeros(amount.shape, kind) for kind in (np.int32, np.int32, np.float64))
    for i in range(len(instruments)):
        rates = rate_factors(instruments.quote_currency[i], layout.curve)
        rows = np.array([layout.curve.index(f) for f in rates], np.int32)
        before, after, weight[i] = between(left[i] * SECONDS_PER_YEAR, rates)
        low[i], high[i] = rows[before], rows[after]
    names = [factor_name(u, FactorKind.SPREAD) for u in instruments.underlying]
    flows = BondFlows(
        value=jnp.asarray(then.T),
        time=jnp.asarray(left.T),
        low=jnp.asarray(low.T),
        high=jnp.asarray(high.T),
        weight=jnp.asarray(weight.T),
        spread=jnp.asarray(np.array([layout.curve.index(f) for f in names], np.int32)),
        n=jnp.asarray(np.int32(MOST_FLOWS - short)),
    )
    return BondBlock(flows, jnp.asarray(today.T), jnp.asarray(year.T), jnp.asarray(base_row))


def unpayable(instruments: Instruments, i: int, market: MarketSnapshot) -> str:
    """Why the market cannot value bond `i` today; empty if it can."""
    name, currency, issuer = instruments.instrument_id[i], instruments.quote_currency[i], instruments.underlying[i]
    if currency not in market.discounts:
        return f"no discount curve for {currency}"
    if issuer not in market.spread:
        return f"no spread of {issuer}"
    if instruments.expiry[i] <= market.as_of:
        return f"{name} has expired"
    if len(cash_flows(instruments, i, market.as_of).time) > MOST_FLOWS:
        return f"{name} has more than {MOST_FLOWS} payments left"
    return ""


def unmoved(instruments: Instruments, i: int, factors: tuple[str, ...]) -> str:
    """A factor that bond `i` needs and `factors` lack; empty if there is none."""
    found = curve_factors(instruments, i, factors)
    spread = factor_name(instruments.underlying[i], FactorKind.SPREAD)
    if spread not in found:
        return spread
    return "" if len(found) > 1 else factor_name(instruments.quote_currency[i], FactorKind.RATE, "<tenor>")
