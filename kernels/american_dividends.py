"""American options on shares that pay dividends on given days: finite differences, tabulated by moneyness and vol.

Dividends are shares of the price. The forward F to the option's expiry then knows none of them: it is a martingale,
and the share's price is S = F·e^(g(u)), where g steps down on ex-dates. So this is an option on F whose exercise pays
sign·(F·e^g − K). A call is exercised on the eve of a
dividend, a put after it. Prices are bounded: of puts per unit of strike, functions of m = ln(F/K), of calls per unit of
forward, functions of m = ln(K/F), which under the measure of the share moves alike (McDonald and Schroder 1998).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pmvar.kernels.black import normalised_black

STEPS = 32
"""Of time, from each ex-date to the one before: shorter the nearer to the later one."""

REACH, PER_DEVIATION = 7, 16
"""The grid of m: ± total deviations, and points in each."""

VOL_NODES = 16
"""Even steps of ln σ."""

CHUNK = 32
"""Options that are tabulated together: as many ex-dates are gone through as one of them has."""

_NODE = np.arange(-REACH * PER_DEVIATION, REACH * PER_DEVIATION + 1) / PER_DEVIATION


class EarlyExercise(NamedTuple):
    """What exercise pays and when, in shares u of the time T that is left."""

    sign: Float[Array, " option"]
    """+1 call, −1 put."""
    total_rate: Float[Array, " option"]
    """rT."""
    carry: Float[Array, " option"]
    """(r − q)T with q what forwards say of the yield beside the dividends: ln(F/S) + Σ `drop`."""
    when: Float[Array, "option dividend"]
    """Ex-dates, ascending in 0 < u ≤ 1; 1 for none."""
    drop: Float[Array, "option dividend"]
    """ln of the price before over the price after, ≥ 0; 0 for none."""
    missed: Float[Array, " option"]
    """The drops since today of ex-dates that have passed, of calls: exercise on their eve is decided now."""


class DividendTable(NamedTuple):
    """Premiums of early exercise for volatilities in a range, from `dividend_table`; may be cast to float32."""

    premium: Float[Array, "option vol_node"]
    """For each vol, at each node of m/(σ√T)."""
    lowest: Float[Array, " option"]
    """ln of the lowest vol."""
    per_log_vol: Float[Array, " option"]
    """Steps of ln σ in 1."""
    root_time: Float[Array, " option"]
    """√T."""
    sign: Float[Array, " option"]
    log_price: Float[Array, "choice option"]
    """g now, and where exercise is due on each ex-date: of calls before the drop, of puts after it."""
    log_discount: Float[Array, "moment option"]
    """ln of the discount factors of these moments, and last of the expiry's."""

    def value(
        self, log_moneyness: Float[Array, "option scenario"], vol: Float[Array, "option scenario"]
    ) -> Float[Array, "option scenario"]:
        """Price per unit of strike, of calls of forward, at m and `vol` per √year ≥ 0, in the dtype of the table.

        At least what exercise at the best moment pays if the forward stands still, which is the price beyond the grid.
        A vol beyond the range has the premium of the range's end.
        """
        m, deviation = log_moneyness, vol * self.root_time[:, None]
        row = (jnp.log(jnp.maximum(vol, 1e-12)) - self.lowest[:, None]) * self.per_log_vol[:, None]
        premium = _interpolated(self.premium, jnp.clip(row, 0.0, VOL_NODES - 1.0), m, deviation)
        return _at_least(premium, m, deviation, self.sign, self.log_price, self.log_discount)


def dividend_table(
    terms: EarlyExercise,
    time: Float[Array, " option"],
    lowest_vol: Float[Array, " option"],
    highest_vol: Float[Array, " option"],
) -> DividendTable:
    """Tables for 0 < `lowest_vol` < `highest_vol`, float64; `time` in years ≥ 0.

    Where the range is a factor of 64, calls on one dividend are within 3e-5 of max(S, K) of quadrature.
    """
    low, width = jnp.log(lowest_vol), jnp.log(highest_vol / lowest_vol)
    vol = jnp.exp(low[:, None] + width[:, None] * (np.arange(VOL_NODES) / (VOL_NODES - 1))[None])
    chunk = math.gcd(len(time), CHUNK)
    parts = jax.tree.map(lambda x: x.reshape(-1, chunk, *x.shape[1:]), (terms, vol * jnp.sqrt(time)[:, None]))
    premium = jax.lax.map(lambda part: jnp.moveaxis(premium_at_nodes(*part), 0, -1), parts)
    across = (VOL_NODES - 1) / width, jnp.sqrt(time), terms.sign
    return DividendTable(premium.reshape(len(time), -1), low, *across, *_choices(terms))


def american_on_dividends(
    log_moneyness: Float[Array, " option"], total_deviation: Float[Array, " option"], terms: EarlyExercise
) -> Float[Array, " option"]:
    """Prices per unit of strike, of calls of forward, each by a grid of its own; float64.

    `log_moneyness` m; `total_deviation` σ√T ≥ 0. Within 5e-5 of max(S, K) of trees, 2.5e-5 of quadrature.
    """
    premium = premium_at_nodes(terms, total_deviation[:, None])[..., 0].T
    m, deviation = log_moneyness[:, None], total_deviation[:, None]
    at = _interpolated(premium, jnp.zeros_like(m), m, deviation)
    return _at_least(at, m, deviation, terms.sign, *_choices(terms))[:, 0]


def premium_at_nodes(terms: EarlyExercise, deviation: Float[Array, "option vol"]) -> Float[Array, "node option vol"]:
    """American less European price at m = node × `deviation`.

    Both by the same Crank–Nicolson steps, so that errors of the grid cancel; the first two after each ex-date are fully
    implicit (Rannacher 1984). Exercise by Brennan and Schwartz (1977), "The valuation of American put options",
    J. Finance 32.
    """
    # Everything is [node, style, option, vol].
    a, h, rate = jnp.maximum(deviation, 1e-9)[None, None], 1 / PER_DEVIATION, _across(terms.total_rate)
    sign, m = _across(terms.sign), jnp.asarray(_NODE)[:, None, None, None] * a
    below, here, above = 0.5 / h**2 + 0.25 * a / h, 1 / h**2 + rate, 0.5 / h**2 - 0.25 * a / h

    def floor(log_price: Float[Array, " option"]) -> Float[Array, "node style option vol"]:
        """What exercise pays; of the European style, nothing counts."""
        paid = _exercised(sign, m, _across(log_price))
        return jnp.concatenate([paid, jnp.full_like(paid, -jnp.inf)], axis=1)

    def step(value: Array, at: tuple[Array, Array, Array]) -> tuple[Array, None]:
        """Back by `dt`."""
        dt, least, implicit = _across(at[0]), floor(at[1]), at[2]
        ends = value[np.array([0, -1])] * (1 - (1 - implicit) * dt * rate) / (1 + implicit * dt * rate)
        ends = jnp.where(ends > least[np.array([0, -1])], ends, least[np.array([0, -1])])
        change = below * value[:-2] - here * value[1:-1] + above * value[2:]
        right, weight = value[1:-1] + (1 - implicit) * dt * change, implicit * dt
        sub, diagonal, over = (x[0] for x in (-weight * below, 1 + weight * here, -weight * above))
        return jnp.concatenate([ends[:1], _solved(sub, diagonal, over, right, ends, least[1:-1]), ends[1:]]), None

    moment, implicit = (np.arange(STEPS + 1) / STEPS) ** 1.5, np.where(np.arange(STEPS) < 2, 1.0, 0.5)

    def segment(i: Array, value: Array) -> Array:
        """Back over the time between two ex-dates, from the eve of the later one."""
        start, end, left = bound[i], bound[i + 1], to_come[i]
        u = start[None] - (start - end)[None] * moment[:, None]
        log_price = left[None] - terms.carry[None] * (1 - u)
        eve = floor(log_price[0])
        value = jnp.where(value > eve, value, eve)
        along = u[:-1] - u[1:], log_price[1:], jnp.asarray(implicit)
        return jax.lax.scan(step, value, along)[0]

    one, none = jnp.ones_like(terms.when[:, :1]), jnp.zeros_like(terms.when[:, :1])
    bound = jnp.concatenate([one, terms.when[:, ::-1], none], axis=1).T
    to_come = jnp.cumsum(jnp.concatenate([none, terms.drop[:, ::-1]], axis=1), axis=1).T
    paid = _exercised(sign, m, jnp.zeros_like(m))
    # No time passes before the first of their ex-dates, seen from the expiry: this changes no bit.
    first = jnp.min(jnp.sum(terms.when >= 1, axis=1))
    value = jax.lax.fori_loop(first, len(to_come), segment, jnp.concatenate([paid, paid], axis=1))
    return value[:, 0] - value[:, 1]


def _across(x: Float[Array, " option"]) -> Float[Array, "1 1 option 1"]:
    return x[None, None, :, None]


def _solved(sub: Array, diagonal: Array, above: Array, right: Array, ends: Array, least: Array) -> Array:
    """Tridiagonal systems along the first axis, the same coefficients at every node, of what is not below `least`.

    Exercise is due below some m: elimination from the top leaves there, node by node, the value of holding.
    """
    right = right.at[0].add(-sub * ends[0]).at[-1].add(-above * ends[1])

    def downward(state: tuple[Array, Array], row: Array) -> tuple[tuple[Array, Array], tuple[Array, Array]]:
        ratio, value = state
        pivot = 1 / (diagonal - above * ratio)
        found = sub * pivot, (row - above * value) * pivot
        return found, found

    def upward(value: Array, row: tuple[tuple[Array, Array], Array]) -> tuple[Array, Array]:
        (ratio, known), exercised = row
        held = known - ratio * value
        found = jnp.where(held > exercised, held, exercised)
        return found, found

    zero = jnp.zeros_like(right[0])
    _, rows = jax.lax.scan(downward, (jnp.zeros_like(above), zero), right, reverse=True)
    return jax.lax.scan(upward, zero, (rows, least))[1]


def _exercised(sign: Array, m: Array, log_price: Array) -> Array:
    """What exercise pays at g = `log_price`, at least 0."""
    paid = jnp.where(sign > 0, jnp.exp(log_price) - jnp.exp(m), -jnp.expm1(m + log_price))
    return jnp.where(paid > 0, paid, 0.0)


def _choices(terms: EarlyExercise) -> tuple[Float[Array, "choice option"], Float[Array, "moment option"]]:
    """Moments at which exercise may be best if the forward stands still: g, and ln of the discount factor."""
    drop, gone = terms.drop.T, terms.when.T
    to_come = jnp.cumsum(drop[::-1], axis=0)[::-1]
    then = jnp.where(terms.sign[None] > 0, to_come, to_come - drop) - terms.carry[None] * (1 - gone)
    now = jnp.sum(drop, axis=0) - terms.carry + terms.missed
    moment = jnp.concatenate([jnp.zeros_like(gone[:1]), gone, jnp.ones_like(gone[:1])])
    return jnp.concatenate([now[None], then]), -terms.total_rate[None] * moment


def _at_least(
    premium: Float[Array, "option scenario"],
    m: Float[Array, "option scenario"],
    deviation: Float[Array, "option scenario"],
    sign: Float[Array, " option"],
    log_price: Float[Array, "choice option"],
    log_discount: Float[Array, "moment option"],
) -> Float[Array, "option scenario"]:
    put = jnp.exp(m) * normalised_black(-m, deviation, -jnp.ones_like(m))
    value = jnp.exp(log_discount[-1])[:, None] * put + jnp.where(premium > 0, premium, 0.0)
    for price, discount in zip(log_price, log_discount[:-1], strict=True):
        certain = jnp.exp(discount)[:, None] * _exercised(sign[:, None], m, price[:, None])
        value = jnp.where(certain > value, certain, value)
    return value


def _interpolated(
    table: Float[Array, "option vol_node"],
    row: Float[Array, "option scenario"],
    m: Float[Array, "option scenario"],
    deviation: Float[Array, "option scenario"],
) -> Float[Array, "option scenario"]:
    """Cubic in both; 0 beyond the nodes of m."""
    rows = table.shape[-1] // len(_NODE)
    place = (m / jnp.maximum(deviation, 1e-9) + REACH) * PER_DEVIATION
    inside = (place >= 0) & (place <= len(_NODE) - 1)
    column, across = _cubic(jnp.where(inside, place, 0.0), len(_NODE))
    first, down = _cubic(row, rows)
    total = jnp.zeros_like(m)
    for i, outer in enumerate(down):
        base = (first + i) * len(_NODE) + column
        total = total + outer * sum(
            inner * jnp.take_along_axis(table, base + j, axis=1) for j, inner in enumerate(across)
        )
    return jnp.where(inside, total, 0.0)


def _cubic(place: Array, n: int) -> tuple[Int[Array, "option scenario"], list[Array]]:
    """The first of four places out of `n` around `place`, and their weights (Lagrange); of one place, itself."""
    if n == 1:
        return jnp.zeros_like(place, jnp.int32), [jnp.ones_like(place)]
    first = jnp.clip(jnp.floor(place).astype(jnp.int32) - 1, 0, n - 4)
    t = place - first.astype(place.dtype)
    weights = []
    for i in range(4):
        others = [j for j in range(4) if j != i]
        weights.append(math.prod((t - j for j in others), start=1.0) / math.prod(i - j for j in others))
    return first, weights
