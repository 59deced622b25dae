"""TileStore: the P&L of a run, priced once and kept; in memory if it fits, else in a scratch file."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Hashable, Iterator
from functools import cached_property

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pmvar.errors import ResourceError, exhausted
from pmvar.types import PATH_TILE
from pmvar.valuation.plan import BLOCK
from pmvar.valuation.reprice import ProfitAndLoss, tile_device

STRIP = 64
"""Scenarios that stand together: a strip of a thousand instruments fits a core's cache while accounts are summed."""

_ALIGNMENT = 64
"""Bytes: what JAX wants of a host buffer to read it without a copy."""


class TileStore:
    """All tiles of a `ProfitAndLoss`, each in strips: [tile, strip, row, path]."""

    def __init__(
        self,
        pnl: ProfitAndLoss,
        *,
        memory_bytes: float,
        advance: Callable[[], None] = lambda: None,
        log: Callable[[str], None] = lambda text: None,
    ):
        """Price every tile; beyond half of `memory_bytes` the tiles go to an unnamed scratch file.

        Where the device does not hold a tile it is priced in halves, to the same bits, and `log` told of it; raises
        ResourceError where it does not hold one block of instruments.
        """
        shape = (pnl.scenarios.n_tiles, PATH_TILE // STRIP, pnl.n_rows, STRIP)
        dtype = np.dtype(str(pnl.precision))
        size = int(np.prod(shape)) * dtype.itemsize
        self.pnl = pnl
        self._tiles = _aligned(shape, dtype) if size <= memory_bytes / 2 else _scratch(shape, dtype)
        self.largest: Float[np.ndarray, " row"] = np.zeros(pnl.n_rows)
        """Of each row, in size, over all scenarios."""
        self._at_once = len(pnl.plan.blocks)
        """Blocks of instruments that the device prices together, as far as is known."""
        self._keeps_tiles = True
        self.spare: dict[Hashable, list[Array]] = {}
        """Arrays as large as a tile's results, which the next results of their kind may be written over."""
        whole = iter(pnl)
        for i in range(self.n_tiles):
            self._price(i, whole, log)
            advance()

    def _price(self, index: int, whole: Iterator[Float[Array, "row scenario"]], log: Callable[[str], None]) -> None:
        """Fill a tile, the next of `whole`, or in as many parts as memory asks for: a block is priced alike in any
        company."""
        n = len(self.pnl.plan.blocks)
        while True:
            try:
                if self._at_once >= n:
                    self._put(index, 0, next(whole))
                    return
                # The last row is that of what cannot be valued.
                self._tiles[index, :, -1] = 0.0
                for first in range(0, n, self._at_once):
                    blocks = range(first, min(first + self._at_once, n))
                    self._put(index, BLOCK * first, self.pnl.part(index, blocks))
                return
            except Exception as error:
                if not exhausted(error):
                    raise
                if self._at_once <= 1:
                    said = "the device's memory does not hold one block of instruments; use another, or the CPU"
                    raise ResourceError(said) from error
            self._at_once = -(-self._at_once // 2)
            log(f"out of memory while pricing: from now on {BLOCK * self._at_once:,} instruments at once")

    def _put(self, index: int, first: int, rows: Float[Array, "row scenario"]) -> None:
        place = slice(first, first + len(rows))
        self._tiles[index][:, place] = np.asarray(in_strips(rows))
        self.largest[place] = np.maximum(self.largest[place], np.asarray(_largest(rows), np.float64))

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
        if self._keeps_tiles:
            try:
                return self._on_device[index]
            except Exception as error:
                if not exhausted(error):
                    raise
                self.release()
        return jax.device_put(self._tiles[index], tile_device(index))

    @cached_property
    def _on_device(self) -> list[Array]:
        return [jax.block_until_ready(jax.device_put(tile, tile_device(i))) for i, tile in enumerate(self._tiles)]

    def release(self) -> bool:
        """Keep no tiles on the device any more, but send each when it is asked for; whether that frees any memory."""
        kept = self.__dict__.pop("_on_device", None) is not None
        self._keeps_tiles = False
        self.spare.clear()
        return kept

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
