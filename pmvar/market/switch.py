"""The switch of a price's scale: volatilities under which every option keeps its price, as when oil fell below zero.

CME announced on 8 April 2020 that it might price and margin energy options by Bachelier's model, and did from the 22nd
(Clearing Advisories 20-152 and 20-171, as recalled).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from pmvar.kernels.bachelier import implied_bachelier_deviation, normalised_bachelier
from pmvar.kernels.black import normalised_black
from pmvar.kernels.implied_vol import implied_total_deviation
from pmvar.market.price_scale import PriceScale


class Converted(NamedTuple):
    """Volatilities on another scale."""

    implied_vol: Float[np.ndarray, " quote"]
    """NaN where there is none."""
    price: Float[np.ndarray, " quote"]
    """Undiscounted, of the option out of the money."""
    known: Bool[np.ndarray, " quote"]
    """Whether a volatility has that price: not where the price is lost to rounding."""


def convert_vols(
    implied_vol: Float[np.ndarray, " quote"],
    forward: Float[np.ndarray, " quote"],
    strike: Float[np.ndarray, " quote"],
    year: Float[np.ndarray, " quote"],
    *,
    old: PriceScale,
    new: PriceScale,
) -> Converted:
    """Volatilities per √year on the scale `new` that give options the prices that `implied_vol` gives on `old`.

    `forward` and `strike` in the quote currency, admitted by both scales; `year` is the time to expiry. A price is
    kept to the rounding of its own formula, 1e-14 of the larger unit.
    """
    root, sign = np.sqrt(year), np.where(strike >= forward, 1.0, -1.0)
    k, s = old.move(forward, strike), implied_vol * root
    price = np.asarray(_PRICE[old.is_linear](*map(jnp.asarray, (k, s, sign)))) * old.unit(forward)
    per_unit, moneyness = price / new.unit(forward), new.move(forward, strike)
    found, known = _IMPLIED[new.is_linear](jnp.asarray(per_unit), jnp.asarray(moneyness))
    return Converted(np.asarray(found) / root, price, np.asarray(known))


_PRICE = {False: jax.jit(normalised_black), True: jax.jit(normalised_bachelier)}
_IMPLIED = {False: jax.jit(implied_total_deviation), True: jax.jit(implied_bachelier_deviation)}
"""By whether the scale is linear."""
