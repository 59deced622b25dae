"""A book whose underlyings may fall below zero, and its valuation in plain NumPy, from the definitions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import stats

from pmvar.instruments import Instruments
from pmvar.market.curves import DiscountCurve, ForwardCurve
from pmvar.market.price_scale import PriceScale
from pmvar.market.snapshot import MarketSnapshot
from pmvar.market.surface import VolSlice, VolSurface
from pmvar.types import PriceModel
from tests.markets import AS_OF, DAY, YEAR, flat_vol, instrument, snapshot, specification, table

SOON, NEAR, FAR = AS_OF + 1.3 * DAY, AS_OF + 20 * DAY, AS_OF + 300 * DAY
"""Expiries: the first lies inside the horizon of two days."""

SCALES = {"WTI": PriceScale(PriceModel.BACHELIER, 20.0), "GAS": PriceScale(PriceModel.SHIFTED, 5.0)}
SPOT = {"WTI": -3.0, "GAS": -0.5, "EUR": 1.08}
QUOTE = {"WTI": "USD", "GAS": "EUR", "EUR": "USD"}
FORWARD = {"WTI": (1.0, 12.0), "GAS": (-1.0, 2.0)}
"""For NEAR and FAR."""


def smile(level: float) -> VolSurface:
    """Skewed and curved in x from forward to strike, on a fine grid: the tabulated smile is then the smile."""
    k = np.linspace(-3, 3, 1201)
    slices = (VolSlice(t, k, level * a * (1 - 0.1 * np.tanh(k) + 0.05 * k**2)) for t, a in ((NEAR, 1.1), (FAR, 0.9)))
    return VolSurface(AS_OF, tuple(slices))


def market(*, flat: bool = False, **changes: object) -> MarketSnapshot:
    """Oil on Bachelier's scale, quoted in dollars, and gas shifted, quoted in euros; both spots are below zero."""
    found = snapshot(
        {name: (price, QUOTE[name]) for name, price in SPOT.items()},
        forwards={
            u: ForwardCurve(AS_OF, SPOT[u], np.array([NEAR, FAR]), np.array(f), SCALES[u]) for u, f in FORWARD.items()
        },
        discounts={c: DiscountCurve(AS_OF, np.array([NEAR, FAR]), np.array([0.05, 0.03])) for c in ("USD", "EUR")},
        vols={u: flat_vol(v) if flat else smile(v) for u, v in (("WTI", 0.8), ("GAS", 0.6))},
    )
    return replace(found, scales=SCALES, **changes)


def products() -> Instruments:
    """Every product, before and after the horizon, strikes on both sides of zero."""
    rows = []
    for u, strikes in (("WTI", (-15.0, -3.0, 0.0, 10.0)), ("GAS", (-4.0, -0.5, 0.0, 2.0))):
        quote = {"quote": QUOTE[u], "size": 10.0}
        for expiry, label in ((SOON, "soon"), (NEAR, "near"), (FAR, "far")):
            for strike in strikes:
                for right in ("call", "put"):
                    rows.append(instrument(f"{u}-{label}-{strike:g}-{right}", "option", u, expiry=expiry, strike=strike,
                                           put_call=right, **quote))  # fmt: skip
            rows.append(instrument(f"{u}-{label}", "future", u, expiry=expiry, **quote))
        rows += [instrument(f"{u}-perpetual", "perpetual", u, **quote), instrument(f"{u}-spot", "spot", u, **quote)]
    rows.append(instrument("GAS-spot-USD", "spot", "GAS", quote="EUR", settled_in="USD"))
    return table(rows)


PRODUCTS = products()

MODEL = specification(
    {"WTI:spot": 0.12, "WTI:vol": 0.07, "GAS:spot": 0.06, "GAS:vol": 0.06, "EUR:spot": 0.006},
    model="t", degrees_of_freedom=4.0, correlation=0.6 * np.eye(5) + 0.4, term_exponent=0.4,
)  # fmt: skip


def option_price(forward, strike, deviation, sign, scale: PriceScale) -> np.ndarray:
    """Undiscounted, by the formula of each scale: `deviation` is σ√τ, of Bachelier's per unit of shift."""
    forward, strike, deviation = (np.asarray(x, float) for x in (forward, strike, deviation))
    if scale.model is PriceModel.BACHELIER:
        width = np.maximum(deviation * scale.shift, 1e-12)
        d = (forward - strike) / width
        return sign * (forward - strike) * stats.norm.cdf(sign * d) + width * stats.norm.pdf(d)
    f, k, s = forward + scale.shift, strike + scale.shift, np.maximum(deviation, 1e-12)
    d1 = np.log(f / k) / s + s / 2
    return sign * (f * stats.norm.cdf(sign * d1) - k * stats.norm.cdf(sign * (d1 - s)))


def displaced(u: str, price, x) -> np.ndarray:
    """The price after x."""
    scale = SCALES[u]
    if scale.model is PriceModel.BACHELIER:
        return price + scale.shift * x
    return (price + scale.shift) * np.exp(x) - scale.shift


def twin_value(
    table: Instruments, i: int, where: MarketSnapshot, *, time: float, x: np.ndarray, log_vol: np.ndarray, anchor: float
) -> np.ndarray:
    """Value in quote currency of one contract of instrument `i` at `time`, without its conversion.

    `x` is of the underlying since today, at `time` or where the instrument ended before; forwards move from those of
    today by x less the carry to `anchor`, the horizon or that end.
    """
    u, expiry, size = str(table.underlying[i]), float(table.expiry[i]), table.contract_size[i]
    if not np.isfinite(expiry):
        return size * displaced(u, SPOT[u], x)
    curve, scale = where.forwards[u], SCALES[u]
    forward = displaced(u, float(curve.at(expiry)), x - float(curve.carry(min(anchor, expiry))))
    if table.kind[i] == "future":
        return size * forward
    strike, sign = table.strike[i], 1.0 if table.put_call[i] == "call" else -1.0
    left = max(expiry - time, 0.0) / YEAR
    f0 = float(curve.at(expiry))
    vol = where.vols[u].vol(scale.move(displaced(u, f0, x - float(curve.carry(min(anchor, expiry)))), strike), expiry)
    discount = where.discounts[table.quote_currency[i]].discount_factor
    paid = float(discount(expiry) / discount(min(expiry, time)))
    return size * paid * option_price(forward, strike, vol * np.exp(log_vol) * np.sqrt(left), sign, scale)
