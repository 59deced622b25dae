"""What accounts would have lost: today's portfolio and market under moves that came in the past."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int

from pmvar.calibration.panel import Moves
from pmvar.errors import InputError, Problem
from pmvar.market.snapshot import MarketSnapshot
from pmvar.models.specification import ModelSpecification
from pmvar.risk.accounts import account_blocks, block_height, block_loss
from pmvar.scenarios.clock import horizon_end
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import FactorKind
from pmvar.valuation.reprice import ProfitAndLoss
from pmvar.valuation.store import TileStore


def realised_scenarios(
    moves: Moves, starts: range, horizon: int, market: MarketSnapshot, like: ModelSpecification
) -> ScenarioSet:
    """The moves of the periods of `horizon` rows from each of `starts` on, as scenarios of equal weight.

    `like` names the factors, and how a move of a vol reaches other tenors; those that `moves` lacks are left out. Time
    passes as over one period. Raises InputError for a price that is not lognormal: moves are ratios.
    """
    odd = [f.underlying for f in like.factors if f.kind is FactorKind.SPOT and f.underlying in market.scales]
    if odd:
        rule = f"the past is replayed in price ratios, which say nothing of {odd[0]}: its price is not lognormal"
        raise InputError(Problem(rule, "leave the underlying out of the book for this", file="market/spots"))
    factors = [f for f in like.factors if f.name in moves.name]
    log = np.log(moves.ratio[:, [moves.name.index(f.name) for f in factors]])
    shock = np.stack([log[s : s + horizon].sum(axis=0) for s in starts])
    is_vol = np.array([f.kind is FactorKind.VOL for f in factors])
    # As in a scenario, whose vols are capped: atanh undoes what the cap would do to what really came.
    inside = np.clip(shock / like.vol_cap, -1 + 1e-9, 1 - 1e-9)
    shock = np.where(is_vol, like.vol_cap * np.arctanh(inside), shock)
    return ScenarioSet(
        factors=tuple(f.name for f in factors),
        as_of=market.as_of,
        horizon_end=horizon_end(market.as_of, float(horizon), like.steps_per_year, like.calendar),
        shock=jnp.asarray(shock)[:, None, :],
        weight=np.ones(len(shock)),
        n_replicates=1,
        term_exponent=np.array([f.term_exponent for f in factors]),
        tenor=np.array([f.tenor for f in factors]),
        vol_cap=like.vol_cap,
    )


def account_losses(pnl: ProfitAndLoss, accounts: Int[np.ndarray, " account"]) -> Float[np.ndarray, "account scenario"]:
    """Losses of the accounts in these rows of the portfolio, in their order, under every scenario, by the revaluation
    that margins have. What cannot be valued counts nothing: such accounts do not belong here."""
    store = TileStore(pnl, memory_bytes=np.inf)
    out = np.empty((pnl.portfolio.n_accounts, pnl.scenarios.n_scenarios))
    for block in account_blocks(pnl.portfolio.quantity, accounts, block_height(store.n_scenarios)):
        out[block.account] = block_loss(block, store, dtype=np.dtype(np.float64))[:]
    return out[accounts]
