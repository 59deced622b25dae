"""Options on an arithmetic average of a lognormal price: a lognormal average with the exact first two moments."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmvar.kernels.black import SMALLEST_DEVIATION, normalised_black

_root, _weight = np.polynomial.legendre.leggauss(8)
NODES: Float[np.ndarray, " node"] = (_root + 1) / 2
"""Of the quadrature over the window, as fractions of it; with `_SHARE` exact to 1e-10 up to σ²·window = 9."""
_SHARE = _weight / 2

MOST = 60.0
"""Variance over the window beyond this is this: the average is then worth its mean, and its exponential finite."""


def exponential_mean(z: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
    """∫₀¹ e^(zx) dx = (e^z − 1)/z."""
    small = jnp.abs(z) < 1e-3
    safe = jnp.where(small, 1.0, z)
    return jnp.where(small, 1 + z / 2 * (1 + z / 3 * (1 + z / 4)), jnp.expm1(safe) / safe)


def earlier_share(growth: Float[Array, "*shape"]) -> Float[Array, "node *shape"]:
    """Weights at `NODES` of the earlier of two moments of the average, whose price grows by e^(`growth` x).

    `growth` is of the forward over the window: two moments x, y with density e^(gx)/∫e^(gx) have min(x, y) with density
    2 f(m) (1 − F(m)).
    """
    shape = (-1,) + (1,) * growth.ndim
    m, share = (jnp.asarray(x, growth.dtype).reshape(shape) for x in (NODES, _SHARE))
    g = growth[None]
    later = (1 - m) * exponential_mean(g * (1 - m))
    return 2 * share * jnp.exp(2 * g * m) * later / exponential_mean(g) ** 2


def window_variance(variance: Float[Array, "*#shape"], share: Float[Array, "node *#shape"]) -> Float[Array, "*#shape"]:
    """Variance of the log of the average, over a window that begins now: ln(E[A²]/E[A]²).

    `variance` is σ² times the window, `share` from `earlier_share`: E[A²]/E[A]² = E[e^(σ² min(s, u))]. Flat forwards:
    2 (e^v − 1 − v)/v², about e^(v/3). Source: Turnbull and Wakeman (1991); Levy (1992).
    """
    v = jnp.minimum(variance, MOST)
    total = jnp.zeros_like(v)
    for j, node in enumerate(NODES.tolist()):
        total = total + share[j] * jnp.expm1(v * node)
    return jnp.log1p(total)


def average_price(
    ahead: Float[Array, "*#shape"],
    strike: Float[Array, "*#shape"],
    variance: Float[Array, "*#shape"],
    sign: Float[Array, "*#shape"],
) -> Float[Array, "*#shape"]:
    """Undiscounted price of an option on `ahead`·Z struck at `strike`, Z lognormal of mean 1 and this log variance.

    `ahead` ≥ 0 is what the rest of the window adds to the average, 0 once it is over; `strike` is that less what is
    known of the average already, of any sign: at or below 0 a call is certain to pay. `sign` +1 call, −1 put.
    """
    live = (ahead > 0) & (strike > 0)
    mean, k = jnp.where(live, ahead, 1.0), jnp.where(live, strike, 1.0)
    deviation = jnp.sqrt(jnp.maximum(variance, SMALLEST_DEVIATION**2))
    price = mean * normalised_black(jnp.log(k / mean), deviation, sign)
    gain = sign * (ahead - strike)
    return jnp.where(live, price, jnp.where(gain < 0, 0.0, gain))
