"""ProfitAndLoss: a re-iterable source of P&L tiles, one row per instrument, one column per scenario."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pmvar.errors import NumericsError, some_of
from pmvar.market.snapshot import MarketSnapshot
from pmvar.portfolio import Portfolio
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import PATH_TILE, SPLIT, FactorKind, Precision
from pmvar.valuation.blocks import block_pnl
from pmvar.valuation.plan import BLOCK, Plan, make_plan
from pmvar.valuation.world import World


@dataclass(frozen=True)
class ProfitAndLoss:
    """P&L per contract in base currency, priced tile by tile on demand and never kept.

    Rows of a tile stand in the order of the plan's blocks; `row` says where an instrument is.
    """

    plan: Plan
    precision: Precision
    portfolio: Portfolio
    """Whose instruments are priced."""

    @property
    def n_instruments(self) -> int:
        """Number of instruments."""
        return len(self.portfolio.instruments)

    @property
    def scenarios(self) -> ScenarioSet:
        """The scenarios revalued under."""
        return self.plan.layout.scenarios

    @property
    def market(self) -> MarketSnapshot:
        """The market revalued from."""
        return self.plan.layout.market

    @property
    def n_rows(self) -> int:
        """Rows of a tile: blocks with their padding, and a last row of zeros for what cannot be valued."""
        return BLOCK * len(self.plan.blocks) + 1

    @cached_property
    def row(self) -> Int[np.ndarray, " instrument"]:
        """Row of each instrument in a tile."""
        row = np.full(self.n_instruments, self.n_rows - 1, dtype=np.int32)
        for b, (index, _) in enumerate(self.plan.blocks):
            real = np.flatnonzero(index >= 0)
            row[index[real]] = b * BLOCK + real
        return row

    def tile(self, index: int) -> Float[Array, "row scenario"]:
        """P&L of all instruments under scenarios index·PATH_TILE and on. Raises NumericsError if any is not finite."""
        return self._checked(self._tile(self.plan.layout.world(index)), index)

    def part(self, index: int, blocks: range) -> Float[Array, "row scenario"]:
        """The rows of some of the plan's blocks in a tile, bit by bit; for where memory does not hold a whole one."""
        with jax.default_device(tile_device(index)):
            world = self.plan.layout.world(index)
            rows = jnp.concatenate([block_pnl(self.plan.blocks[b].block, world) for b in blocks])
        return self._checked(rows, index, first=BLOCK * blocks.start)

    def __iter__(self) -> Iterator[Float[Array, "row scenario"]]:
        """Tiles in order, each on its own device (see `tile_device`): all devices work at once."""
        under_way: deque[Float[Array, "row scenario"]] = deque()
        n = self.scenarios.n_tiles
        for i in range(n):
            for ahead in range(i + len(under_way), min(i + len(jax.local_devices()), n)):
                device = tile_device(ahead)
                with jax.default_device(device):
                    tile = self._tile(self.plan.layout.world(ahead))
                # Where it is already, but what reads it will not move it now.
                under_way.append(jax.device_put(tile, device))
            yield self._checked(under_way.popleft(), i)

    def attribution(self, index: int) -> dict[FactorKind, Float[Array, "row scenario"]]:
        """P&L of a tile with only the prices moving, and with only the vols moving."""
        return {kind: self._tile(self.plan.layout.world(index, moving=frozenset({kind}))) for kind in SPLIT}

    @cached_property
    def standing(self) -> Float[np.ndarray, " row"]:
        """P&L of the passage of time alone, float64."""
        return np.asarray(self._tile(self.plan.layout.world(0, moving=frozenset()))[:, 0], dtype=np.float64)

    def stacked(self, parts: Sequence[Float[Array, "instrument scenario"]]) -> Float[Array, "row scenario"]:
        """A tile from what each block says, zeros for what cannot be valued."""
        return _stack(tuple(parts), jnp.zeros((1, PATH_TILE), str(self.precision)))

    def _tile(self, world: World) -> Float[Array, "row scenario"]:
        return self.stacked([block_pnl(block, world) for _, block in self.plan.blocks])

    def _checked(
        self, tile: Float[Array, "row scenario"], index: int, *, first: int = 0
    ) -> Float[Array, "row scenario"]:
        """Refuse rows, from `first` on, with a NaN or an infinity: `top_k` and comparisons would drop it in silence."""
        finite = np.ones(self.n_rows, bool)
        finite[first : first + len(tile)] = np.asarray(_finite_rows(tile))
        if not finite.all():
            bad = np.flatnonzero(~finite[self.row])
            holders = np.unique(self.portfolio.quantity[:, bad].nonzero()[0])
            what = some_of(self.portfolio.instruments.instrument_id[bad])
            who = some_of(self.portfolio.account_id[holders]) or "nobody"
            raise NumericsError(
                f"the P&L of {what}, held by {who}, is not finite in scenario "
                f"tile {index}; check the terms and vols, the volatilities of model.json, or use "
                "--precision float64"
            )
        return tile


def tile_device(index: int) -> Any:
    """Where tile `index` is priced and kept: scenarios are spread over the devices of this process, tile by tile.

    A tile is the same program wherever it runs, and what is summed over tiles is summed on the host, in order."""
    devices = jax.local_devices()
    return devices[index % len(devices)]


@jax.jit
def _stack(
    parts: tuple[Float[Array, "instrument scenario"], ...], zeros: Float[Array, "one scenario"]
) -> Float[Array, "row scenario"]:
    return jnp.concatenate([*parts, zeros])


@jax.jit
def _finite_rows(tile: Float[Array, "row scenario"]) -> Array:
    # A sum is finite only if every term is (or they overflow, which is as bad) and reads the tile once.
    return jnp.isfinite(jnp.sum(jnp.abs(tile), axis=1))


def reprice(
    portfolio: Portfolio,
    market: MarketSnapshot,
    scenarios: ScenarioSet,
    *,
    precision: Precision = Precision.FLOAT32,
) -> ProfitAndLoss:
    """All instruments of `portfolio` revalued under all `scenarios` at the horizon, time decay included.

    Nothing is computed until tiles are asked for. Instruments that lack an input are named in `.plan.unpriced`.
    """
    plan = make_plan(portfolio.instruments, market, scenarios, precision)
    return ProfitAndLoss(plan, precision, portfolio)
