"""E1 as one would first write it in JAX: vmap of norm.cdf, a t draw for every option, a sparse product, a full sort."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from _books import AS_OF, RATE, Book
from jax.experimental import sparse
from jax.scipy.stats import norm

from pmvar.types import DAY, SECONDS_PER_YEAR

DEGREES = 4.0


def _price(spot, vol, strike, time, sign):  # noqa: ANN001, ANN202
    deviation = vol * jnp.sqrt(time)
    discount = jnp.exp(-RATE * time)
    d1 = (jnp.log(spot / strike) + RATE * time) / deviation + deviation / 2
    return sign * (spot * norm.cdf(sign * d1) - strike * discount * norm.cdf(sign * (d1 - deviation)))


@partial(jax.jit, static_argnames=("n", "n_options"))
def _scenarios(key, *, n: int, n_options: int):  # noqa: ANN001, ANN202
    normal, mixing = jax.random.split(key)
    z = jax.random.normal(normal, (2, n_options, n), jnp.float32)
    w = DEGREES / jax.random.chisquare(mixing, DEGREES, (n,), jnp.float32)
    x = z * jnp.sqrt(w * (DEGREES - 2) / DEGREES)
    return jnp.exp(0.035 * x[0]), jnp.exp(0.07 * x[1])


@jax.jit
def _pnl(spot, vol, strike, time, sign, move, multiplier):  # noqa: ANN001, ANN202
    horizon = 2 * DAY / SECONDS_PER_YEAR
    today = jax.vmap(_price)(spot, vol, strike, time, sign)
    scenario = jax.vmap(_price, (0, 0, None, None, None))
    then = jax.vmap(scenario)(
        spot[:, None] * move, vol[:, None] * multiplier, strike, time - jnp.float32(horizon), sign
    )
    return then - today[:, None]


@partial(jax.jit, static_argnames="n_tail")
def _measures(pnl, quantity, *, n_tail: int):  # noqa: ANN001, ANN202
    ordered = jnp.sort(-(quantity @ pnl), axis=1)
    return ordered[:, -n_tail - 1], ordered[:, -n_tail:].mean(axis=1)


class Naive:
    """The book as float32 arrays, ready to run."""

    def __init__(self, book: Book, n_scenarios: int):
        table, market = book.portfolio.instruments, book.market
        year = (table.expiry - AS_OF) / SECONDS_PER_YEAR
        columns = (
            [market.spot[market.column(u)] for u in table.underlying],
            [
                float(market.vols[u].vol(np.array([np.log(k / market.forwards[u].at(t))]), t)[0])
                for u, t, k in zip(table.underlying, table.expiry, table.strike, strict=True)
            ],
            table.strike,
            year,
            np.where(table.put_call == "call", 1.0, -1.0),
        )
        self.options = [jnp.asarray(np.asarray(c, np.float32)) for c in columns]
        self.quantity = sparse.BCOO.from_scipy_sparse(book.portfolio.quantity.astype(np.float32))
        self.n = n_scenarios

    def __call__(self) -> tuple[jax.Array, jax.Array]:
        """VaR and ES of every account."""
        move, multiplier = _scenarios(jax.random.key(1), n=self.n, n_options=len(self.options[0]))
        return _measures(_pnl(*self.options, move, multiplier), self.quantity, n_tail=self.n // 100)
