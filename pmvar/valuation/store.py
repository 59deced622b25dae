"""TileStore: the P&L of a run, priced once and kept; in memory if it fits, else in a scratch file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pmvar.types import PATH_TILE
from pmvar.valuation.reprice import ProfitAndLoss, tile_device

STRIP = 64
"""Scenarios that stand together: a strip of a thousand instruments fits a core's cache while accounts are summed."""

_ALIGNMENT = 64
"""Bytes: what JAX wants of a host buffer to read it without a copy."""


class TileStore:
    """All tiles of a `ProfitAndLoss`, each in strips: [tile, strip, row, path]."""

    def __init__(self, pnl: ProfitAndLoss, *, memory_bytes: float, advance: Callable[[], None] = lambda: None):
        """Price every tile; beyond half of `memory_bytes` the tiles go to an unnamed scratch file."""
        shape = (pnl.scenarios.n_tiles, PATH_TILE // STRIP, pnl.n_rows, STRIP)
        dtype = np.dtype(str(pnl.precision))
        size = int(np.prod(shape)) * dtype.itemsize
        self.pnl = pnl
        self._tiles = _aligned(shape, dtype) if size <= memory_bytes / 2 else _scratch(shape, dtype)
        self.largest: Float[np.ndarray, " row"] = np.zeros(pnl.n_rows)
        """Of each row, in size, over all scenarios."""
        for i, tile in enumerate(pnl):
            self._tiles[i] = np.asarray(in_strips(tile))
            np.maximum(self.largest, np.asarray(_largest(tile), np.float64), out=self.largest)
            advance()

    @property
    def n_tiles(self) -> int:
        """Number of tiles."""
        return len(self._tiles)

    @property
    def n_scenarios(self) -> int:
        """Number of scenarios, padding not counted."""
        return self.pnl.scenarios.n_scenarios

    @property
    def dtype(self) -> np.dtype:
        """Of the tiles."""
        return self._tiles.dtype

    def device(self, index: int) -> Float[Array, "strip row path"]:
        """Tile `index` as a JAX array on its `tile_device`; on a CPU without a copy."""
        if jax.default_backend() == "cpu" and jax.local_device_count() == 1:
            return jax.dlpack.from_dlpack(self._tiles[index])
        return self._on_device[index]

    @cached_property
    def _on_device(self) -> list[Array]:
        return [jax.device_put(tile, tile_device(i)) for i, tile in enumerate(self._tiles)]

    def rows(self, rows: Int[np.ndarray, " n"]) -> Float[np.ndarray, "n scenario"]:
        """Whole rows over all scenarios, in the store's dtype."""
        return self._strips[:, rows].transpose(1, 0, 2).reshape(len(rows), -1)[:, : self.n_scenarios]

    @property
    def _strips(self) -> Float[np.ndarray, "strip row path"]:
        return self._tiles.reshape(-1, *self._tiles.shape[2:])


@jax.jit
def in_strips(tile: Float[Array, "row scenario"]) -> Float[Array, "strip row path"]:
    """A tile as the kernels of accounts read it."""
    return tile.reshape(tile.shape[0], -1, STRIP).transpose(1, 0, 2)


@jax.jit
def _largest(tile: Float[Array, "row scenario"]) -> Float[Array, " row"]:
    return jnp.max(jnp.abs(tile), axis=1)


def _aligned(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size = int(np.prod(shape)) * dtype.itemsize
    raw = np.empty(size + _ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % _ALIGNMENT
    return raw[start : start + size].view(dtype).reshape(shape)


def _scratch(shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    # The file has no name any more once open: it goes with the process, however that ends.
    with tempfile.TemporaryFile(prefix="pmvar-") as file:
        return np.memmap(file, dtype=dtype, mode="w+", shape=shape)
