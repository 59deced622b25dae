"""Tail means of what instruments say, account by account: dense weights tile by tile, and what reaches an account."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pmvar.kernels.aggregate import add_positions
from pmvar.kernels.tail_sums import position_sums, product_sums
from pmvar.risk.accounts import AccountBlock
from pmvar.types import PATH_TILE
from pmvar.valuation.store import STRIP

HEIGHTS = (16, 64)
"""Accounts in one call, padded: the canonical shapes. Weights of the last fit a core's cache."""

WIDTHS = (32, 8)
"""Positions in one call, padded: with the heights, few shapes to compile."""

PIECE = HEIGHTS[-1]
"""Most accounts in one piece of work."""

_SPARE = threading.local()
"""Of each thread, what the sums of the last positions of a kind were written to, for the next ones."""


class TailWeights:
    """Weights of several kinds that a piece of accounts gives to its kept scenarios; the others weigh nothing."""

    def __init__(self, ids: Int[np.ndarray, "account kept"], kinds: Sequence[Float[np.ndarray, "account kept"]]):
        account, place = np.nonzero(np.any([k != 0 for k in kinds], axis=0))
        scenario = ids[account, place]
        order = np.argsort(scenario // PATH_TILE, kind="stable")
        self._account, self._scenario = account[order], scenario[order]
        self._tile = self._scenario // PATH_TILE
        self._value = np.stack([k[account, place][order] for k in kinds])
        self.height = next(h for h in HEIGHTS if h >= len(ids))

    def tile(self, index: int) -> Float[Array, "kind strip account path"]:
        """Those of scenarios index·PATH_TILE and on, accounts padded to a canonical height."""
        first, last = np.searchsorted(self._tile, [index, index + 1])
        strip, path = np.divmod(self._scenario[first:last] % PATH_TILE, STRIP)
        out = np.zeros((len(self._value), PATH_TILE // STRIP, self.height, STRIP))
        out[:, strip, self._account[first:last], path] = self._value[:, first:last]
        return jnp.asarray(out)

    def mass(self, n_replicates: int) -> Float[np.ndarray, "kind account replicate"]:
        """What the scenarios of each replicate weigh together."""
        group = self._account * n_replicates + self._scenario % n_replicates
        size = self.height * n_replicates
        return np.stack([np.bincount(group, v, minlength=size) for v in self._value]).reshape(
            len(self._value), -1, n_replicates
        )


class PositionSums:
    """Running sums, by kind of weight and replicate, of one tile after the other at a piece's positions."""

    def __init__(self, block: AccountBlock, row: Int[np.ndarray, " instrument"], height: int, n_replicates: int):
        """`row` is that of each instrument in a tile."""
        self._shape, self._replicates = block.instrument.shape, n_replicates
        self._row = list(_lanes(_padded(row[block.instrument], height).astype(np.int32)))
        self._total: Float[np.ndarray, "kind account position replicate"] | float = 0.0

    def add(self, weight: Float[Array, "kind strip account path"], tile: Float[Array, "strip row path"]) -> None:
        """One tile and its weights."""
        parts = [position_sums(weight, tile, rows, n_replicates=self._replicates) for rows in self._row]
        self._total = self._total + np.concatenate([np.asarray(p) for p in parts], axis=2)

    def result(self) -> Float[np.ndarray, "kind account position replicate"]:
        """The sums, float64."""
        assert isinstance(self._total, np.ndarray)
        return self._total[:, : self._shape[0], : self._shape[1]]


@dataclass(frozen=True)
class Slot:
    """One way in which a displacement reaches instruments: through one field of their exposures."""

    first_row: int
    """Where the field begins in a tile of exposures."""
    per_unit: Float[np.ndarray, " instrument"]
    """d(field)/d(displacement), 0 where it does not reach."""


class Reach:
    """The accounts of a piece that one displacement reaches through their positions, and by how much."""

    def __init__(
        self,
        block: AccountBlock,
        row: Int[np.ndarray, " instrument"],
        slots: Sequence[Slot],
        dtype: np.dtype,
        n_replicates: int,
    ):
        """`row` is that of each instrument in a tile."""
        some = block.instrument[:, :, None]
        # Position by position, and slot by slot within it: what cancels in one instrument cancels exactly.
        per_unit, first = np.stack([s.per_unit for s in slots], axis=1), np.array([s.first_row for s in slots])
        amount = (block.quantity[:, :, None] * per_unit[block.instrument]).reshape(len(block.account), -1)
        rows = (row[some] + first).reshape(amount.shape)
        self.account = np.flatnonzero(np.any(amount != 0, axis=1))
        """Rows of the piece."""
        self._replicates = n_replicates
        amount, rows = amount[self.account], rows[self.account]
        most = int(np.count_nonzero(amount, axis=1).max(initial=1))
        order = np.argsort(amount == 0, axis=1, kind="stable")[:, :most]
        amount, rows = (np.take_along_axis(x, order, 1) for x in (amount, rows))
        height = next(h for h in HEIGHTS if h >= len(self.account))
        with np.errstate(over="ignore"):  # an infinite amount makes a gradient that is refused by name
            own = _padded(amount, height).astype(dtype)
        self._lanes = list(zip(_lanes(_padded(rows, height).astype(np.int32)), _lanes(own), strict=True))
        self._like = (PATH_TILE // STRIP, height, STRIP), str(dtype)
        self._account = jnp.asarray(np.pad(self.account, (0, height - len(self.account))).astype(np.int32))
        self._total: Float[np.ndarray, "kind account colour replicate"] | float = 0.0

    def add(
        self,
        weight: Float[Array, "kind strip account path"],
        exposed: Float[Array, "strip row path"],
        slope: Float[Array, "colour strip path"],
    ) -> None:
        """One tile: its weights, the exposures of all instruments, and what to multiply the losses' derivative by."""
        spare: dict[str, Array] = vars(_SPARE)
        key = f"{self._like} {exposed.device}"
        value = spare.pop(key) if key in spare else jnp.zeros(*self._like, device=exposed.device)
        for i, (rows, amount) in enumerate(self._lanes):
            value = add_positions(value, exposed, rows, amount, first=i == 0)
        found = product_sums(weight, self._account, value, slope, n_replicates=self._replicates)
        spare[key] = value
        self._total = self._total + np.asarray(found, dtype=np.float64)

    def result(self) -> Float[np.ndarray, "kind account colour replicate"]:
        """Sums of the weighted derivative, float64."""
        assert isinstance(self._total, np.ndarray)
        return self._total[:, : len(self.account)]


def centred_error(
    by_replicate: Float[np.ndarray, "*batch replicate"],
    at_var: Float[np.ndarray, "*batch"],
    mass: Float[np.ndarray, "*#batch replicate"],
) -> Float[np.ndarray, "*batch"]:
    """Standard error of a tail mean Σ by_replicate, by its influence w·1{L > VaR}(X − E[X | L = VaR]): the VaR is
    estimated too. `mass` is what the replicates weigh."""
    n = by_replicate.shape[-1]
    return np.std((by_replicate - mass * at_var[..., None]) * n, axis=-1, ddof=1) / np.sqrt(n)


def _padded(x: np.ndarray, height: int) -> np.ndarray:
    """Rows to a canonical height, columns to a multiple of the least width."""
    return np.pad(x, ((0, height - len(x)), (0, -x.shape[1] % WIDTHS[-1])))


def _lanes(x: np.ndarray) -> Iterator[Array]:
    """Columns in pieces of the canonical widths, the widest first."""
    start = 0
    while start < x.shape[1]:
        width = next(w for w in WIDTHS if w <= x.shape[1] - start)
        yield jnp.asarray(x[:, start : start + width])
        start += width
