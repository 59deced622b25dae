"""The state of the world in one tile of scenarios, as a few matrices whose rows the instruments point at."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pmvar.market.snapshot import MarketSnapshot
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import PATH_TILE, FactorKind, factor_name


class World(NamedTuple):
    """One tile of scenarios. Rows are given by `Rows`; the last scenario axis has `PATH_TILE` entries."""

    log_price: Float[Array, "row scenario"]
    """Log changes of prices in their quote currency: assets at the horizon, a row of zeros, assets at each expiry
    inside the horizon."""
    log_base: Float[Array, "currency scenario"]
    """Log changes of prices in base currency at the horizon: assets, then the base currency itself (zeros)."""
    log_vol: Float[Array, "asset scenario"]
    """Shocks of ln σ at the reference tenor, of each asset that has any; else zeros."""


@dataclass(frozen=True)
class Rows:
    """Where things stand in a `World`: built once per (market, scenario set, expiries inside the horizon)."""

    market: MarketSnapshot
    scenarios: ScenarioSet
    settlement_times: tuple[float, ...]
    """Expiries inside the horizon, epoch seconds, increasing."""

    @property
    def standing(self) -> int:
        """The row of `log_price` and of `log_base` that never moves."""
        return len(self.market.asset)

    def price(self, asset: str, settled_at: float | None = None) -> int:
        """Row of an asset's price, at the horizon or at an expiry inside it; the base currency stands."""
        if asset == self.market.base_currency:
            return self.standing
        block = 0 if settled_at is None else (self.standing + 1) + self.settlement_times.index(settled_at) * self.standing
        return block + self.market.column(asset)

    def base(self, currency: str) -> int:
        """Row of `log_base`."""
        return self.standing if currency == self.market.base_currency else self.market.column(currency)

    def _columns(self, kind: FactorKind) -> np.ndarray:
        """Factor column of each asset, or one past the last where the model has none."""
        index = {name: i for i, name in enumerate(self.scenarios.factors)}
        return np.array([index.get(factor_name(a, kind), len(index)) for a in self.market.asset], dtype=np.int32)

    def _chains(self) -> np.ndarray:
        """Rows of `log_price` that add up to each asset's base price, padded with the standing row."""
        chains = [self.market.chain(a) for a in self.market.asset]
        depth = max((len(c) for c in chains), default=1)
        return np.array([[*c, *[self.standing] * (depth - len(c))] for c in chains], dtype=np.int32).reshape(-1, depth)

    def world(self, tile: int) -> World:
        """The world in tile `tile` of the scenarios."""
        shock = [self.scenarios.tile(tile).shock, *(self.scenarios.at(tile, t) for t in self.settlement_times)]
        return _world(
            tuple(shock), self._columns(FactorKind.SPOT), self._columns(FactorKind.VOL), self._chains()
        )


@jax.jit
def _world(
    shock: tuple[Float[Array, "scenario factor"], ...],
    price_column: Int[np.ndarray, " asset"],
    vol_column: Int[np.ndarray, " asset"],
    chain: Int[np.ndarray, "asset depth"],
) -> World:
    moves = [jnp.pad(s, ((0, 0), (0, 1))).T for s in shock]
    standing = jnp.zeros((1, PATH_TILE))
    prices = jnp.concatenate([moves[0][price_column], standing, *(m[price_column] for m in moves[1:])])
    base = jnp.zeros((chain.shape[0], PATH_TILE))
    for link in range(chain.shape[1]):
        base = base + prices[chain[:, link]]
    return World(prices, jnp.concatenate([base, standing]), moves[0][vol_column])


@partial(jax.jit, static_argnames="keep")
def only(world: World, *, keep: FactorKind) -> World:
    """The same world with one kind of factor moving and the other standing still."""
    if keep is FactorKind.SPOT:
        return world._replace(log_vol=jnp.zeros_like(world.log_vol))
    return world._replace(log_price=jnp.zeros_like(world.log_price), log_base=jnp.zeros_like(world.log_base))
