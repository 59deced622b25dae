"""Formulas on arrays: Bachelier prices and implied volatilities in bulk, pmvar and QuantLib one by one."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from _peers import Peer

from pmvar.kernels.bachelier import normalised_bachelier
from pmvar.kernels.black import normalised_black
from pmvar.kernels.implied_vol import implied_total_deviation

TILE = 1 << 18
"""Options in one call: they stay in the cache."""


class Quotes(NamedTuple):
    """Options out of the money, within five deviations, and their Black prices per unit of forward."""

    moneyness: np.ndarray
    deviation: np.ndarray
    sign: np.ndarray
    price: np.ndarray


def quotes(n: int) -> Quotes:
    """Random ones whose prices are above 1e-12."""
    draw = np.random.default_rng(13)
    s = np.exp(draw.uniform(np.log(1e-2), np.log(2), n))
    k = s * draw.uniform(-5, 5, n)
    sign = np.where(k >= 0, 1.0, -1.0)
    price = np.asarray(normalised_black(*(jnp.asarray(x) for x in (k, s, sign))))
    return Quotes(*(x[price > 1e-12] for x in (k, s, sign, price)))


def _tiled(kernel: Peer, *columns: np.ndarray, dtype: type) -> Peer:
    whole = max(1, len(columns[0]) // TILE) * TILE
    parts = [tuple(jnp.asarray(np.resize(c, whole)[i : i + TILE], dtype) for c in columns)
             for i in range(0, whole, TILE)]  # fmt: skip
    return lambda: [kernel(*part) for part in parts]


def formula_calls(given: Quotes) -> dict[str, tuple[Peer, int]]:
    """Name -> call, and the number of prices or volatilities in it."""
    whole = max(1, len(given.price) // TILE) * TILE
    bachelier, implied = jax.jit(normalised_bachelier), jax.jit(implied_total_deviation)
    k, s, sign, price = given
    calls: dict[str, tuple[Peer, int]] = {
        "bachelier": (_tiled(bachelier, k, s, sign, dtype=np.float64), whole),
        "bachelier_f32": (_tiled(bachelier, k, s, sign, dtype=np.float32), whole),
        "implied_vol": (_tiled(implied, price, k, dtype=np.float64), whole),
    }
    try:
        import QuantLib as ql
    except ImportError:
        return calls
    few = 10_000
    kinds = [ql.Option.Call if c > 0 else ql.Option.Put for c in sign[:few]]
    rows = list(zip(kinds, k[:few].tolist(), s[:few].tolist(), price[:few].tolist(), strict=True))

    def prices() -> float:
        return sum(ql.bachelierBlackFormula(kind, x, 0.0, width) for kind, x, width, _ in rows)

    def implied_one_by_one() -> float:
        return sum(
            ql.blackFormulaImpliedStdDev(kind, float(np.exp(x)), 1.0, p, 1.0, 0.0, 0.2, 1e-12) for kind, x, _, p in rows
        )

    return calls | {"quantlib_bachelier": (prices, len(rows)), "quantlib_implied_vol": (implied_one_by_one, len(rows))}
