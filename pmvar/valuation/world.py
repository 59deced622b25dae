"""The state of the world in one tile of scenarios, as a few matrices whose rows the instruments point at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import groupby
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pmvar.kernels.smile import Place, place
from pmvar.kernels.svi import Svi
from pmvar.market.snapshot import MarketSnapshot
from pmvar.market.surface import SviSlice
from pmvar.models.factor_points import kind_and_point, point_time
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import DAY, PATH_TILE, SECONDS_PER_YEAR, FactorKind, factor_name
from pmvar.valuation.fitted_smile import Fitted, leans, shocked

ALL = frozenset(FactorKind)

TOGETHER = {
    FactorKind.SPOT: frozenset({FactorKind.SPOT, FactorKind.BASIS, FactorKind.RATE, FactorKind.SPREAD}),
    FactorKind.VOL: frozenset({FactorKind.VOL, FactorKind.TERM, FactorKind.SKEW, FactorKind.CURVATURE}),
}
"""Kinds of factors that P&L is told apart by: what discounts and prices are made of, and smiles."""

FEWEST_ROWS, WHOLE_OCTAVES = 16, 256
"""Rows of a `World` are filled up with zeros to the first, twice it, … up to the second, from there to quarters of
such octaves: books of similar size share compiled kernels."""

LEAST_LOG_PRICE = -60.0
"""Prices fall to 1e-26 of today's and no further: what is left is worth nothing, and its inverse overflows float32."""


class World(NamedTuple):
    """One tile of scenarios, in the precision of the tile."""

    log_forward: Float[Array, "slice scenario"]
    """ln(F₁/F₀) of each slice: an underlying for one expiry, or its spot; x where `PriceScale` is another."""
    vol_multiplier: Float[Array, "slice scenario"]
    """σ₁/σ₀ of each slice."""
    log_base: Float[Array, "currency scenario"]
    """Log changes of prices in base currency at the horizon: assets, then the base currency itself (zeros)."""
    base: Float[Array, "currency scenario"]
    """Its exponential, taken once for all instruments: who moves one moves both."""
    place: Place
    """Where `log_forward` of the spots stands among the nodes of tabulated smiles, see `Layout.place_row`; derivatives
    follow `log_forward` itself, see `smile_vol`."""
    curve: Float[Array, "curve_factor scenario"]
    """Absolute moves of zero rates and spreads at the horizon, per year."""
    svi: Svi | None = None
    """Fitted smiles, one row each, see `Shocked.svi`; None where surfaces are raw."""


class Slice(NamedTuple):
    """One underlying for one expiry (epoch seconds), +inf for its spot."""

    underlying: str
    expiry: float


@dataclass(frozen=True)
class Layout:
    """Where things stand in a `World`: fixed by the market, the scenario set and the slices that instruments need."""

    market: MarketSnapshot
    scenarios: ScenarioSet
    slices: tuple[Slice, ...]
    dtype: jnp.dtype
    curve: tuple[str, ...] = ()
    """Factors of zero rates and spreads that bonds are valued by: the rows of `World.curve`."""

    def base_row(self, currency: str) -> int:
        """Row of `World.log_base`."""
        return len(self.market.asset) if currency == self.market.base_currency else self.market.column(currency)

    @cached_property
    def slice_row(self) -> dict[Slice, int]:
        """Row of each slice."""
        return {s: i for i, s in enumerate(self.slices)}

    @cached_property
    def place_row(self) -> dict[str, int]:
        """Row in `World.place` of each underlying that has a surface of quotes."""
        vols, names = self.market.vols, dict.fromkeys(s.underlying for s in self.slices)
        return {u: i for i, u in enumerate(u for u in names if u in vols and not vols[u].is_fitted)}

    def settles_inside(self, s: Slice) -> bool:
        """Whether a slice expires at or before the horizon: it then ends at the spot of that moment."""
        return s.expiry <= self.scenarios.horizon_end

    @cached_property
    def carry(self) -> Float[np.ndarray, " slice"]:
        """ln of what a standing spot would make of F₁/F₀: a forward is a martingale, a settled one ends at the spot."""
        expiry = np.array([s.expiry for s in self.slices])
        out = np.zeros(len(self.slices))
        for underlying, members in groupby(range(len(self.slices)), key=lambda i: self.slices[i].underlying):
            dated = [i for i in members if np.isfinite(expiry[i])]
            if dated:
                curve = self.market.forwards[underlying]
                out[dated] = curve.carry(np.minimum(expiry[dated], self.scenarios.horizon_end))
        return out

    @cached_property
    def bases(self) -> dict[str, list[tuple[str, float]]]:
        """Basis factors of each underlying and the days since the horizon that they stand at, in order."""
        found: dict[str, list[tuple[str, float]]] = {}
        for name in self.scenarios.factors:
            kind, point = kind_and_point(name)
            if kind == FactorKind.BASIS:
                # By whole days: a date in a name says nothing of the hour at which that day's contracts expire.
                day = _day(point_time(point, self.scenarios.horizon_end)) - _day(self.scenarios.horizon_end)
                found.setdefault(name.rpartition(":")[0], []).append((name, day))
        return {u: sorted(points, key=lambda p: p[1]) for u, points in found.items()}

    @property
    def has_basis(self) -> bool:
        """Whether the model moves the basis of any forward."""
        return bool(self.bases)

    def basis_weights(self, s: Slice) -> dict[str, float]:
        """Weight of each basis factor in ln(F/S) of a slice at the horizon: linear in days from 0 at the spot through
        the factors, flat beyond the last; a factor whose date has come counts only where there is no later one."""
        points = self.bases.get(s.underlying, [])
        if not points or np.isinf(s.expiry) or self.settles_inside(s):
            return {}
        points = [p for p in points if p[1] > 0] or points[-1:]
        days = np.array([0.0, *(max(p[1], 0.0) for p in points)])
        at = _day(s.expiry) - _day(self.scenarios.horizon_end)
        each = (np.interp(at, days, row) if days[-1] > 0 else row[-1] for row in np.eye(len(days))[1:])
        return {name: float(w) for (name, _), w in zip(points, each, strict=True) if w}

    @cached_property
    def with_basis(self) -> Float[np.ndarray, " row"]:
        """1 for rows of a `World` whose slice a basis factor moves, 0 for spots, what has settled and what fills up."""
        out = np.zeros(rows(len(self.slices)))
        out[: len(self.slices)] = [bool(self.basis_weights(s)) for s in self.slices]
        return out

    @cached_property
    def factor_column(self) -> dict[str, int]:
        """Column of each factor in a scenario."""
        return {name: i for i, name in enumerate(self.scenarios.factors)}

    def world(self, tile: int, *, moving: frozenset[FactorKind] = ALL) -> World:
        """The world in tile `tile`, with only the kinds of factors in `moving` moving."""
        shock = [self.scenarios.tile(tile).shock]
        shock += [self.scenarios.at(tile, time) for time in self._settlement_times]
        return _world(tuple(shock), self._arrays, moving=moving, vol_cap=self.scenarios.vol_cap, dtype=self.dtype)

    @cached_property
    def _settlement_times(self) -> tuple[float, ...]:
        return tuple(sorted({s.expiry for s in self.slices if self.settles_inside(s)}))

    @cached_property
    def _arrays(self) -> _Arrays:
        market, n = self.market, len(self.market.asset)
        chains = [market.chain(a) for a in market.asset]
        depth = max((len(c) for c in chains), default=1)
        price_row, term_scale, log_tenor = [], [], []
        for s in self.slices:
            moment = 0 if not self.settles_inside(s) else 1 + self._settlement_times.index(s.expiry)
            # Prices stand moment by moment: assets, then a row of zeros for the base currency.
            own = n if s.underlying == market.base_currency else market.column(s.underlying)
            price_row.append(moment * (n + 1) + own)
            term_scale.append(self.term_scale(s))
            log_tenor.append(self.log_tenor(s))
        names = [name for points in self.bases.values() for name, _ in points]
        weight = np.array([[w.get(f, 0.0) for f in names] for w in map(self.basis_weights, self.slices)])
        spots = np.array([self.slice_row[Slice(u, np.inf)] for u in self.place_row], dtype=np.int32)
        # What fills up stands still: the base currency, without a carry.
        fill = (0, rows(len(self.slices)) - len(self.slices))
        return _Arrays(
            spot_row=np.pad(spots, (0, rows(len(spots)) - len(spots))),
            price_factor=self._factors(FactorKind.SPOT),
            vol_factor=self._factors(FactorKind.VOL),
            term_factor=self._factors(FactorKind.TERM) if any(log_tenor) else None,
            chain=np.array([[*c, *[n] * (depth - len(c))] for c in chains], dtype=np.int32).reshape(-1, depth),
            price_row=np.pad(np.array(price_row, dtype=np.int32), fill, constant_values=n),
            vol_row=np.pad(np.array([own % (n + 1) for own in price_row], dtype=np.int32), fill, constant_values=n),
            carry=np.pad(self.carry, fill),
            term_scale=np.pad(np.array(term_scale), fill),
            log_tenor=np.pad(np.array(log_tenor), fill),
            curve_factor=np.array([self.factor_column[f] for f in self.curve], dtype=np.int32),
            basis_factor=np.array([self.factor_column[f] for f in names], dtype=np.int32),
            basis_weight=np.pad(weight.reshape(-1, len(names)), (fill, (0, 0))) if names else np.zeros((0, 0)),
            least=np.array([-np.inf if market.scale(a).is_linear else LEAST_LOG_PRICE for a in (*market.asset, "")]),
            fitted=self.fitted,
        )

    @cached_property
    def fitted(self) -> Fitted | None:
        """The fitted smiles alive at the horizon of the underlyings that have slices; None where there are none."""
        found: list[tuple[int, SviSlice]] = []
        for i, s in enumerate(self.slices):
            surface = self.market.vols.get(s.underlying)
            for piece in surface.slices if surface is not None and not self.settles_inside(s) else ():
                if isinstance(piece, SviSlice) and piece.expiry == s.expiry:
                    found.append((i, piece))
        if not found:
            return None
        svi = Svi(*np.array([piece.svi for _, piece in found]).T)
        own = [self.slices[i].underlying for i, _ in found]
        skew, curvature = (
            np.array([self.factor_column.get(factor_name(u, kind), len(self.factor_column)) for u in own])
            for kind in (FactorKind.SKEW, FactorKind.CURVATURE)
        )
        left = [(piece.expiry - self.scenarios.horizon_end) / SECONDS_PER_YEAR / piece.time for _, piece in found]
        return Fitted(np.array([i for i, _ in found]), svi, np.array(left), skew, curvature, *leans(svi))

    def _factors(self, kind: FactorKind) -> np.ndarray:
        """Factor column of each asset, one past the last where the model has none; last, that of the base currency."""
        none = len(self.factor_column)
        found = (self.factor_column.get(factor_name(a, kind), none) for a in self.market.asset)
        return np.array([*found, none], dtype=np.int32)

    def term_scale(self, s: Slice) -> float:
        """(tenor/τ)^exponent: what the slice makes of the shock of ln σ; τ at the horizon and at least a day, since
        shorter options would move without bound."""
        f = self.factor_column.get(factor_name(s.underlying, FactorKind.VOL))
        if f is None or np.isinf(s.expiry) or self.settles_inside(s):
            return 0.0
        return self._tenors(s, f) ** -float(self.scenarios.term_exponent[f])

    def log_tenor(self, s: Slice) -> float:
        """ln(τ/tenor): what the slice makes of a shock of the slope of ln σ in ln τ; τ as in `term_scale`."""
        f = self.factor_column.get(factor_name(s.underlying, FactorKind.TERM))
        return 0.0 if f is None or np.isinf(s.expiry) or self.settles_inside(s) else math.log(self._tenors(s, f))

    def _tenors(self, s: Slice, f: int) -> float:
        """τ over the tenor of a factor."""
        return max(s.expiry - self.scenarios.horizon_end, DAY) / (float(self.scenarios.tenor[f]) * DAY)


def _day(time: float) -> float:
    return float(np.floor(time / DAY))


def rows(n: int) -> int:
    """Rows of a `World` that hold n."""
    octave = max(FEWEST_ROWS, 1 << (n - 1).bit_length())
    step = octave if octave <= WHOLE_OCTAVES else octave // 8
    return -(-n // step) * step


class _Arrays(NamedTuple):
    """A layout as integers and floats."""

    spot_row: Int[np.ndarray, " place"]
    price_factor: Int[np.ndarray, " asset_or_base"]
    vol_factor: Int[np.ndarray, " asset_or_base"]
    term_factor: Int[np.ndarray, " asset_or_base"] | None
    """None where no underlying has one."""
    chain: Int[np.ndarray, "asset depth"]
    price_row: Int[np.ndarray, " slice"]
    vol_row: Int[np.ndarray, " slice"]
    carry: Float[np.ndarray, " slice"]
    term_scale: Float[np.ndarray, " slice"]
    log_tenor: Float[np.ndarray, " slice"]
    curve_factor: Int[np.ndarray, " curve_factor"]
    basis_factor: Int[np.ndarray, " basis"]
    basis_weight: Float[np.ndarray, "slice basis"]
    least: Float[np.ndarray, " asset_or_base"]
    fitted: Fitted | None


@partial(jax.jit, static_argnames=("moving", "vol_cap", "dtype"))
def _world(
    shock: tuple[Float[Array, "scenario factor"], ...],
    arrays: _Arrays,
    *,
    moving: frozenset[FactorKind],
    vol_cap: float,
    dtype: jnp.dtype,
) -> World:
    # One more row of zeros: where a factor is none, and the base currency, nothing moves.
    moves = [jnp.pad(s, ((0, 0), (0, 1))).T for s in shock]
    prices = jnp.concatenate([jnp.maximum(m[arrays.price_factor], arrays.least[:, None]) for m in moves])
    if FactorKind.SPOT not in moving:
        prices = jnp.zeros_like(prices)
    n = arrays.chain.shape[0]
    base = jnp.zeros((rows(n + 1), PATH_TILE))
    for link in range(arrays.chain.shape[1]):
        base = base.at[:n].add(prices[arrays.chain[:, link]])
    vol = moves[0][arrays.vol_factor][arrays.vol_row] * arrays.term_scale[:, None]
    if arrays.term_factor is not None:
        vol = vol + moves[0][arrays.term_factor][arrays.vol_row] * arrays.log_tenor[:, None]
    if FactorKind.VOL not in moving:
        vol = jnp.zeros_like(vol)

    def capped(x: Array) -> Array:
        return vol_cap * jnp.tanh(x / vol_cap) if np.isfinite(vol_cap) else x

    forward = prices[arrays.price_row] - arrays.carry[:, None]
    if len(arrays.basis_factor) and FactorKind.BASIS in moving:
        forward = forward + jnp.matmul(arrays.basis_weight, moves[0][arrays.basis_factor])
    curve = moves[0][arrays.curve_factor]
    if FactorKind.RATE not in moving:
        curve = jnp.zeros_like(curve)
    forward, growth = forward.astype(dtype), jnp.exp(base).astype(dtype)
    # There are many more slices than assets: their exponentials in the precision that they are wanted in.
    multiplier = jnp.exp(capped(vol.astype(dtype)))
    # Spots are among the forwards, but found again their look-up does not wait for those of all slices.
    at = place(prices[arrays.price_row[arrays.spot_row]].astype(dtype))
    world = World(forward, multiplier, base.astype(dtype), growth, at, curve.astype(dtype))
    if arrays.fitted is None:
        return world
    shape = moves[0] if FactorKind.VOL in moving else jnp.zeros_like(moves[0])
    smiles = shocked(arrays.fitted, capped(vol[arrays.fitted.row]), shape, vol_cap=vol_cap, projected=True)
    return world._replace(svi=Svi(*(x.astype(dtype) for x in smiles.svi)))
