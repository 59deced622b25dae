"""A whole surface from its quotes, free of butterfly and calendar arbitrage: SVI by expiry, or one SSVI; and how far
each quote is from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import minimize

from pmvar.errors import InputError, Problem
from pmvar.kernels.svi import Svi, from_ssvi, one_svi, power_law, total_variance
from pmvar.market.fit_smile import MARK_WEIGHT, STAGES, Quotes, cost, fit_smile, rises, room
from pmvar.market.surface import SviSlice, VolSurface
from pmvar.types import SECONDS_PER_YEAR, SurfaceKind

FEWEST = 5
"""Strikes of an expiry that SVI's five parameters need."""
TOLERANCE = 0.1
"""Largest median distance of an expiry's quotes from its smile, beyond bid and ask, as a share of vol: quotes with more
are not of one such surface."""
SSVI_BOUND = 3.9
"""Of θφ(1 + |ρ|) and θφ²(1 + |ρ|), which must not pass 4 (Gatheral and Jacquier 2014, theorem 4.2)."""
FIX = 'correct the quotes, or set surface = "raw" in book.toml: it takes them as they are and flags arbitrage'


class Expiry(NamedTuple):
    """Quotes of one expiry, to be fitted."""

    expiry: float
    """Epoch seconds."""
    strike: Float[np.ndarray, " quote"]
    quotes: Quotes


@dataclass(frozen=True)
class ExpiryFit:
    """How a fitted smile stands to its quotes."""

    slice: SviSlice
    strike: Float[np.ndarray, " quote"]
    quotes: Quotes
    raised: float
    """Most, in vol, that restoring the order of expiries lifted a quoted strike beyond the search."""

    @property
    def outside(self) -> Float[np.ndarray, " quote"]:
        """Vol above ask (positive) or below bid (negative); 0 inside; NaN where a quote is not two-sided."""
        vol, q = self.slice.vol(self.quotes.k), self.quotes
        out = np.maximum(vol - q.ask, 0.0) - np.maximum(q.bid - vol, 0.0)
        return np.where(q.two_sided, np.where(np.abs(out) < 1e-12, 0.0, out), np.nan)

    @property
    def inside(self) -> tuple[int, int]:
        """Two-sided quotes inside bid and ask, and all of them."""
        return int(np.sum(self.outside == 0)), int(self.quotes.two_sided.sum())


@dataclass(frozen=True)
class SurfaceFit:
    """A fitted surface of one underlying."""

    underlying: str
    kind: SurfaceKind
    surface: VolSurface
    expiries: tuple[ExpiryFit, ...]
    parameters: Mapping[str, float]
    """ρ, η and γ of an SSVI surface."""

    @property
    def worst(self) -> list[tuple[float, float, float]]:
        """Expiry, strike and distance from the spread of the quotes outside it, the furthest first."""
        found = [
            (e.slice.expiry, k, x)
            for e in self.expiries
            for k, x in zip(e.strike.tolist(), e.outside.tolist(), strict=True)
            if x < 0 or x > 0
        ]
        return sorted(found, key=lambda f: (-abs(f[2]), f))

    def notes(self) -> list[str]:
        """What a reader of margins must be told of the fit."""
        inside, quotes = map(sum, zip(*(e.inside for e in self.expiries), strict=True))
        said = f"vols of {self.underlying}: {self.kind}, {len(self.expiries)} expiries free of arbitrage"
        if quotes:
            said += f"; {inside} of {quotes} two-sided quotes inside bid and ask"
        if self.worst:
            said += ", furthest outside " + ", ".join(
                f"{_day(expiry)} {k:g} ({x * 100:+.2f} vol points)" for expiry, k, x in self.worst[:3]
            )
        return [said] + [
            f"vols of {self.underlying} {_day(e.slice.expiry)}: raised by up to {e.raised * 100:.2f} vol points over "
            "the expiry before"
            for e in self.expiries
            if e.raised > 1e-4
        ]


def _day(time: float) -> str:
    return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d")


def fit_surface(underlying: str, chain: Sequence[Expiry], *, as_of: float, kind: SurfaceKind) -> SurfaceFit:
    """The surface of `kind` (SVI or SSVI) of the quotes in `chain`, by increasing expiry after `as_of` (epoch seconds).

    Raises InputError for an expiry with fewer than `FEWEST` strikes, and for quotes that lie further than `TOLERANCE`
    from every such surface free of arbitrage.
    """
    for e in chain:
        if len(e.strike) < FEWEST:
            raise _refused(underlying, e, f"a fitted smile needs {FEWEST} strikes; this expiry has {len(e.strike)}")
    time = np.array([(e.expiry - as_of) / SECONDS_PER_YEAR for e in chain])
    by_expiry = kind is SurfaceKind.SVI
    smiles, parameters = (_smiles(underlying, chain, time), {}) if by_expiry else _ssvi(chain, time)
    fits = []
    for e, years, (svi, lift) in zip(chain, time.tolist(), smiles, strict=True):
        fitted = SviSlice(e.expiry, svi, years, e.quotes.k)
        vol, q = fitted.vol(e.quotes.k), e.quotes
        fits.append(ExpiryFit(fitted, e.strike, q, raised=float(np.max(vol) * (1 - lift**-0.5))))
        counted = q.two_sided if q.two_sided.any() else np.ones(len(vol), bool)
        beyond = float(np.median((np.maximum(np.abs(vol - q.mid) - q.half_spread, 0.0) / q.mid)[counted]))
        if beyond > TOLERANCE:
            rule = f"half the quotes lie {beyond:.0%} of their vol or more off an {kind} smile free of arbitrage"
            raise _refused(underlying, e, f"{rule}; {TOLERANCE:.0%} is tolerated")
    surface = VolSurface(as_of, tuple(f.slice for f in fits))
    return SurfaceFit(underlying, kind, surface, tuple(fits), parameters)


def _refused(underlying: str, e: Expiry, rule: str) -> InputError:
    return InputError(Problem(rule, FIX, column="expiry", value=f"{underlying} {_day(e.expiry)}"))


def _smiles(underlying: str, chain: Sequence[Expiry], time: np.ndarray) -> list[tuple[Svi, float]]:
    """SVI smiles from the first expiry on, each above the one before, and the factor that repairs put on variance."""
    found: list[tuple[Svi, float]] = []
    for e, years in zip(chain, time.tolist(), strict=True):
        fit = fit_smile(e.quotes, years, before=found[-1][0] if found else None)
        if fit is None:
            raise _refused(underlying, e, "no smile free of arbitrage was found near the quotes")
        found.append((fit.svi, fit.raised))
    return found


class _Chain(NamedTuple):
    """Quotes of all expiries, padded with zero weight."""

    k: Float[Array, "expiry quote"]
    mid: Float[Array, "expiry quote"]
    half_spread: Float[Array, "expiry quote"]
    weight: Float[Array, "expiry quote"]
    time: Float[Array, "expiry one"]


def _ssvi(chain: Sequence[Expiry], time: np.ndarray) -> tuple[list[tuple[Svi, float]], dict[str, float]]:
    """ρ, η, γ of the whole surface and θ by expiry, non-decreasing, under the conditions of Gatheral and Jacquier."""
    most = max(len(e.strike) for e in chain)

    def padded(of: Sequence[np.ndarray], mode: Literal["edge", "constant"] = "edge") -> np.ndarray:
        return np.stack([np.pad(v, (0, most - len(v)), mode=mode) for v in of])

    q = [e.quotes for e in chain]
    weight = padded([np.where(x.two_sided, 1.0, MARK_WEIGHT) for x in q], "constant")
    points = (padded([getattr(x, name) for x in q]) for name in ("k", "mid", "half_spread"))
    t = _Chain(*map(jnp.asarray, (*points, weight, time[:, None])))
    atm = np.array([float(np.interp(0.0, x.k, x.mid)) for x in q])
    theta = np.maximum.accumulate(atm**2 * time)
    # |ρ|, η and γ of no market in particular; the conditions hold for them.
    start = np.array([-0.3, 0.0, 0.4, *np.log(theta)])
    bounds = [(-3.0, 3.0), (-4.0, 3.0), (0.02, 0.98), *[(x - 2, x + 2) for x in np.log(theta)]]
    found = minimize(
        lambda x: tuple(map(np.asarray, _ssvi_cost(x, t))),
        start,
        jac=True,
        method="SLSQP",
        bounds=bounds,
        constraints={"type": "ineq", "fun": lambda x: np.asarray(_room(x)), "jac": lambda x: np.asarray(_room_by(x))},
        options={"maxiter": 200, "ftol": 1e-7},
    ).x
    x = found if np.all(np.isfinite(found)) else start
    x = np.concatenate([x[:3], np.maximum.accumulate(x[3:])])
    rho, eta, gamma, theta = np.tanh(x[0]), np.exp(x[1]), x[2], np.exp(x[3:])
    for _ in range(60):
        phi = np.asarray(_phi(theta, eta, gamma))
        if np.max(np.maximum(theta * phi, theta * phi**2)) * (1 + abs(rho)) <= SSVI_BOUND + 1e-6:
            break
        eta *= 0.98
    slices = (one_svi(_slice(v, rho, p)) for v, p in zip(theta, phi, strict=True))
    return [(p, 1.0) for p in slices], {"rho": float(rho), "eta": float(eta), "gamma": float(gamma)}


@jax.jit
@jax.value_and_grad
def _ssvi_cost(x: Float[Array, " parameter"], t: _Chain) -> Array:
    theta = jnp.exp(x[3:, None])
    p = from_ssvi(theta, jnp.tanh(x[0]), power_law(theta, jnp.exp(x[1]), x[2]))
    vol = jnp.sqrt(total_variance(p, t.k) / t.time)
    return jnp.sum(t.weight * cost(vol, t.mid, t.half_spread, *map(jnp.float64, STAGES[-1]))) / jnp.sum(t.weight)


def _ssvi_room(x: Float[Array, " parameter"]) -> Float[Array, " constraint"]:
    """All to be ≥ 0."""
    theta, rho = jnp.exp(x[3:]), jnp.tanh(x[0])
    phi, most = power_law(theta, jnp.exp(x[1]), x[2]), SSVI_BOUND / (1 + jnp.sqrt(rho**2 + 1e-12))
    return jnp.concatenate([1 - theta * phi / most, 1 - theta * phi**2 / most, jnp.diff(x[3:])])


_room, _room_by = jax.jit(_ssvi_room), jax.jit(jax.jacfwd(_ssvi_room))
_phi, _slice = jax.jit(power_law), jax.jit(from_ssvi)


def arbitrage(surface: VolSurface) -> tuple[float, float]:
    """How a fitted surface stands to its bounds: the least `room` of its smiles, and the least ratio of an expiry's
    total variance to that of the one before; free of arbitrage where both are at least 1."""
    smiles = [s.svi for s in surface.slices if isinstance(s, SviSlice)]
    return min(map(room, smiles)), min((rises(b, a) for a, b in pairwise(smiles)), default=np.inf)
