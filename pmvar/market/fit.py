"""From two-sided quotes to curves and a raw surface: discount factors and forwards by put–call parity, then
vols.

For European options of one expiry C − P = D·(F − K), a straight line in K (Stoll 1969). Its slope gives the
discount factor, but only as well as the spreads allow: an expiry whose zero rate is not known to
`RATE_ERROR` takes the rate that the other expiries interpolate. Given D, the forward is a weighted median
over the strikes nearest the money.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

from pmvar.errors import InputError, Problem
from pmvar.kernels.implied_vol import implied_total_deviation
from pmvar.market.curves import DiscountCurve, ForwardCurve
from pmvar.market.surface import VolSlice, VolSurface
from pmvar.types import SECONDS_PER_YEAR

FEWEST_PAIRS = 6
"""Strikes with a call and a put, both two-sided, that a parity regression needs."""
NEAREST = 25
"""Strikes nearest the money that the forward is a median of."""
RATE_ERROR = 0.0005
"""Largest standard error of a zero rate read off a regression."""
RATE_BOUNDS = (-0.03, 0.20)
"""Zero rates believed."""
REWEIGHTINGS = 12
"""Of the robust regression; Huber's constant is `HUBER` standard errors."""
HUBER = 1.5
RIGHTS = ("call", "put")
_implied = jax.jit(implied_total_deviation)


@dataclass(frozen=True)
class ExpiryQuotes:
    """Quotes of one expiry in quote currency per unit, by strike; NaN or 0 where there is none."""

    expiry: float
    """Epoch seconds."""
    strike: Float[np.ndarray, "strike"]
    """Strictly increasing."""
    call_bid: Float[np.ndarray, "strike"]
    call_ask: Float[np.ndarray, "strike"]
    put_bid: Float[np.ndarray, "strike"]
    put_ask: Float[np.ndarray, "strike"]


@dataclass(frozen=True)
class Smile:
    """Vols of one expiry at the strikes whose out-of-the-money side is quoted on both sides."""

    expiry: float
    strike: Float[np.ndarray, "strike"]
    bid_vol: Float[np.ndarray, "strike"]
    """NaN where the bid lies below the intrinsic value."""
    implied_vol: Float[np.ndarray, "strike"]
    """Of the mid price."""
    ask_vol: Float[np.ndarray, "strike"]
    dropped: int
    """Strikes whose out-of-the-money side is one-sided, crossed, or has no volatility."""
    impossible: Float[np.ndarray, "lost"]
    """Those of them that are quoted on both sides, at a price that no volatility has."""


@dataclass(frozen=True)
class FittedChain:
    """One underlying's market as its option quotes give it."""

    forwards: ForwardCurve
    discounts: DiscountCurve
    """Pillars are the expiries whose rate the quotes know."""
    smiles: tuple[Smile, ...]
    interpolated_forward: tuple[float, ...]
    """Expiries with too few pairs for parity: their carry is interpolated."""

    @property
    def surface(self) -> VolSurface:
        """The raw surface through the mid vols."""
        return VolSurface(
            self.forwards.as_of,
            tuple(
                VolSlice(s.expiry, np.log(s.strike / self.forwards.at(s.expiry)), s.implied_vol) for s in self.smiles
            ),
        )


def two_sided(bid: Float[np.ndarray, "*shape"], ask: Float[np.ndarray, "*shape"]) -> Bool[np.ndarray, "*shape"]:
    """Where a quote has a positive bid below its ask; False where either is missing."""
    return (bid > 0) & (ask > bid)


def fit_chain(chain: Sequence[ExpiryQuotes], *, spot: float, as_of: float) -> FittedChain:
    """Curves and smiles of one underlying from the quotes of its expiries, in increasing order and all
    after `as_of`.

    `spot` in quote currency. Expiries without a single usable vol have no smile. Raises InputError if no
    expiry has `FEWEST_PAIRS` pairs, or none has a vol.
    """
    pairs = {q.expiry: _Pairs.of(q) for q in chain}
    paired = [q.expiry for q in chain if len(pairs[q.expiry].strike) >= FEWEST_PAIRS]
    if not paired:
        raise _refuse(f"at least one expiry needs {FEWEST_PAIRS} strikes with a two-sided call and put")
    discounts = _discount_curve({t: pairs[t] for t in paired}, as_of=as_of)
    forward = np.array([pairs[t].forward(float(discounts.discount_factor(t)), near=spot) for t in paired])
    known = ForwardCurve(as_of, spot, np.array(paired), forward)
    every = np.array([q.expiry for q in chain])
    forwards = ForwardCurve(as_of, spot, every, known.at(every))
    smiles = _smiles(chain, forwards.forward, discounts.discount_factor(every), as_of=as_of)
    if not any(len(s.strike) for s in smiles):
        raise _refuse("at least one strike needs a two-sided quote on its out-of-the-money side")
    return FittedChain(
        forwards, discounts, tuple(s for s in smiles if len(s.strike)), tuple(sorted(set(every) - set(paired)))
    )


def _refuse(rule: str) -> InputError:
    return InputError(Problem(rule, "supply a chain with live quotes"))


@dataclass(frozen=True)
class _Pairs:
    """Strikes at which call and put are both two-sided."""

    strike: Float[np.ndarray, "pair"]
    difference: Float[np.ndarray, "pair"]
    """C − P of the mids."""
    spread: Float[np.ndarray, "pair"]
    """Sum of both spreads."""

    @classmethod
    def of(cls, q: ExpiryQuotes) -> _Pairs:
        both = two_sided(q.call_bid, q.call_ask) & two_sided(q.put_bid, q.put_ask)
        cb, ca, pb, pa = (side[both] for side in (q.call_bid, q.call_ask, q.put_bid, q.put_ask))
        return cls(q.strike[both], (cb + ca - pb - pa) / 2, (ca - cb) + (pa - pb))

    def slope(self) -> tuple[float, float]:
        """The discount factor and its standard error, by Huber regression weighted by 1/spread."""
        design = np.stack([np.ones_like(self.strike), self.strike - self.strike.mean()], axis=1)
        robust = np.ones_like(self.strike)
        for _ in range(REWEIGHTINGS):
            weight = np.sqrt(robust) / self.spread
            beta, *_ = np.linalg.lstsq(design * weight[:, None], self.difference * weight, rcond=None)
            residual = (self.difference - design @ beta) / self.spread
            scale = 1.4826 * float(np.median(np.abs(residual))) + 1e-12
            robust = np.minimum(1.0, HUBER * scale / np.maximum(np.abs(residual), 1e-300))
        information = (design * weight[:, None]).T @ (design * weight[:, None])
        return -float(beta[1]), scale * float(np.sqrt(np.linalg.inv(information)[1, 1]))

    def forward(self, discount_factor: float, *, near: float) -> float:
        """Weighted median of K + (C − P)/D over the strikes nearest the money, `near` a first guess."""
        implied = self.strike + self.difference / discount_factor
        guess = near
        for _ in range(2):
            at = np.argsort(np.abs(self.strike - guess), kind="stable")[:NEAREST]
            order = at[np.argsort(implied[at], kind="stable")]
            share = np.cumsum(1 / self.spread[order])
            guess = float(implied[order][np.searchsorted(share, share[-1] / 2)])
        return guess


def _discount_curve(pairs: dict[float, _Pairs], *, as_of: float) -> DiscountCurve:
    """Zero rates of the expiries that know theirs, adjusted so that no discount factor rises with maturity.

    Where none knows it to `RATE_ERROR`, the best known one serves.
    """
    maturity, rate, error = [], [], []
    for expiry, p in pairs.items():
        year = (expiry - as_of) / SECONDS_PER_YEAR
        slope, deviation = p.slope()
        if slope > 0 and RATE_BOUNDS[0] <= -np.log(slope) / year <= RATE_BOUNDS[1]:
            maturity.append(expiry)
            rate.append(-np.log(slope) / year)
            error.append(deviation / slope / year)
    if not maturity:
        return DiscountCurve(as_of, np.array([max(pairs)]), np.zeros(1))
    kept = np.array(error) <= max(RATE_ERROR, min(error))
    time = np.array(maturity)[kept]
    year = (time - as_of) / SECONDS_PER_YEAR
    total = _increasing(np.array(rate)[kept] * year, weight=1 / (np.array(error)[kept] * year) ** 2)
    return DiscountCurve(as_of, time, total / year)


def _increasing(
    value: Float[np.ndarray, "pillar"], *, weight: Float[np.ndarray, "pillar"]
) -> Float[np.ndarray, "pillar"]:
    """The nearest non-decreasing sequence in weighted least squares (pool adjacent violators)."""
    blocks: list[tuple[float, float, int]] = []
    for v, w in zip(value.tolist(), weight.tolist(), strict=True):
        n = 1
        while blocks and blocks[-1][0] > v:
            before, heavy, count = blocks.pop()
            v, w, n = (before * heavy + v * w) / (heavy + w), heavy + w, n + count
        blocks.append((v, w, n))
    return np.repeat([b[0] for b in blocks], [b[2] for b in blocks])


def _smiles(
    chain: Sequence[ExpiryQuotes],
    forward: Float[np.ndarray, "expiry"],
    discount_factor: Float[np.ndarray, "expiry"],
    *,
    as_of: float,
) -> list[Smile]:
    """Vols of the out-of-the-money side: the put below the forward, the call from it on. All expiries in one batch."""
    size = [len(q.strike) for q in chain]
    strike = np.concatenate([q.strike for q in chain])
    f, unit = np.repeat(forward, size), np.repeat(discount_factor * forward, size)
    year = np.repeat([(q.expiry - as_of) / SECONDS_PER_YEAR for q in chain], size)
    bid, ask = (
        np.where(strike >= f, *(np.concatenate([getattr(q, f"{right}_{side}") for q in chain]) for right in RIGHTS))
        for side in ("bid", "ask")
    )
    price = np.stack([bid, (bid + ask) / 2, ask]) / unit
    k = np.broadcast_to(np.log(strike / f), price.shape)
    deviation, _ = _implied(jnp.asarray(price), jnp.asarray(k))
    vol = np.asarray(deviation) / np.sqrt(year)
    quoted = two_sided(bid, ask)
    kept = quoted & np.isfinite(vol[1])
    smiles = []
    for q, part in zip(chain, np.split(np.arange(len(strike)), np.cumsum(size)[:-1]), strict=True):
        at = part[kept[part]]
        impossible = strike[part[quoted[part] & ~kept[part]]]
        n = len(part) - len(at)
        smiles.append(Smile(q.expiry, strike[at], *vol[:, at], dropped=n, impossible=impossible))
    return smiles
