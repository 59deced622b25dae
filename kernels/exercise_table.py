"""American puts in bulk: the exercise boundary tabulated in volatility, the premium summed at the true spot and vol.

The boundary depends on (T, σ, r, q) only and is smooth in ln σ, where prices have the kink of exercise: it is the
boundary that is interpolated, never a price.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmvar.kernels.american import PutTerms, put_terms, put_value
from pmvar.kernels.exercise_boundary import depth, interpolated, interpolation, quadrature

POINTS = 16
"""Points of the premium's quadrature."""

VOL_NODES = 16
"""Chebyshev nodes of ln σ."""


class ExerciseTable(NamedTuple):
    """Boundaries of puts for volatilities in a range, from `tabulated`; may be cast to float32."""

    terms: PutTerms
    coefficient: Float[Array, "place power option"]
    """ln(X/B) as a polynomial in (ln σ − `centre`)/`half_width`, at the points of the quadrature and last today."""
    centre: Float[Array, " option"]
    half_width: Float[Array, " option"]
    root_time: Float[Array, " option"]
    """√T."""

    def value(
        self, log_moneyness: Float[Array, "option scenario"], vol: Float[Array, "option scenario"]
    ) -> Float[Array, "option scenario"]:
        """Value of American puts per unit of strike at m = ln(S/K) and `vol` per √year ≥ 0, in the dtype of the table.

        A vol beyond the table's range is exercised by the boundary of the range's end, and otherwise taken as it is.
        """
        log_vol = jnp.log(jnp.maximum(vol, 1e-12))
        v = jnp.clip((log_vol - self.centre[:, None]) / self.half_width[:, None], -1.0, 1.0)

        def depth_at(place: Array | int) -> Float[Array, "option scenario"]:
            total = jnp.zeros_like(v)
            for power in reversed(range(VOL_NODES)):
                total = total * v + self.coefficient[place, power, :, None]
            return total

        dtype = log_moneyness.dtype
        root = jnp.asarray(quadrature(POINTS)[0], dtype)
        return put_value(
            self.terms, log_moneyness, vol * self.root_time[:, None], depth_at, root, unroll=dtype == jnp.float32
        )


def tabulated(
    rate: Float[Array, " option"],
    dividend_yield: Float[Array, " option"],
    time: Float[Array, " option"],
    lowest_vol: Float[Array, " option"],
    highest_vol: Float[Array, " option"],
) -> ExerciseTable:
    """Tables of puts for 0 < `lowest_vol` < `highest_vol`, float64; `time` in years ≥ 0, of calls see `as_put`.

    Prices are within 2e-6 of max(S, K) where the range is a factor of 25, 4e-6 where it is 80 (up to two years).
    """
    low, high = jnp.log(lowest_vol), jnp.log(highest_vol)
    centre, half_width = (high + low) / 2, (high - low) / 2
    node = np.cos(np.pi * (np.arange(VOL_NODES) + 0.5) / VOL_NODES)
    vol = jnp.exp(centre[:, None] + half_width[:, None] * node[None])
    total_rate, total_yield, root_time = rate * time, dividend_yield * time, jnp.sqrt(time)

    def every(x: Float[Array, " option"]) -> Float[Array, " option_vol"]:
        return jnp.broadcast_to(x[:, None], vol.shape).reshape(-1)

    _, cosine, _ = quadrature(POINTS)
    at_node = interpolated(
        depth((vol * root_time[:, None]).reshape(-1), every(total_rate), every(total_yield)),
        interpolation(np.append(cosine, 1.0)),
    ).reshape((*vol.shape, POINTS + 1))
    powers = np.linalg.inv(np.vander(node, increasing=True))
    return ExerciseTable(
        put_terms(total_rate, total_yield, POINTS),
        jnp.einsum("pn,onj->jpo", powers, at_node),
        centre,
        half_width,
        root_time,
    )
