"""Fitted smiles under scenarios: parameters are shocked and brought back to the set without arbitrage, then read at
each option's moneyness.

A shock of the underlying's `vol` multiplies total variance by c, the passing of time included; one of its `skew` is
added to atanh ρ; one of its `curvature`, to ln q of w(qk): for SSVI these are ρ and η. None moves the variance at the
money but c. Durrleman's condition then bounds q by c and ρ in closed form (see `pmvar.kernels.svi`): a smile that a
shock would take beyond is widened to that bound, and its variance at the money stands. A leaning of ρ stops where A
would come near 0, which no width repairs. Expiries are put in order last, at each moneyness: the largest total variance
of this and all earlier expiries is a largest of convex call prices, so convex, and the least surface above without
calendar arbitrage.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from pmvar.kernels.european import Bump
from pmvar.kernels.svi import Svi, butterfly, least_variance, stretched, tilted, total_variance, variance_above, wings
from pmvar.market.slope import WIDTH
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.types import PATH_TILE, FactorKind

if TYPE_CHECKING:
    from pmvar.valuation.world import Layout, World

NODES = 240
"""Points of a smile at which a scenario's width is bounded."""
SAFETY = 0.995
"""Of that bound: what may lie between the nodes. A fitted smile has 1.0099 of its width left, so that no shock changes
nothing."""
LEANS = np.linspace(0.0, 2.0, 81)
"""Leanings tried for the range of each smile."""
SHAPES = frozenset({FactorKind.SKEW, FactorKind.CURVATURE, FactorKind.TERM})
"""Factors that move surfaces otherwise than all vols at once; exposures to them are not known."""
TILES_CHECKED = 4
"""Tiles whose scenarios a run counts."""
LEAST_SHARE = 0.25
"""Of its least A and of its least variance that a leaning may leave of a smile."""


class Fitted(NamedTuple):
    """Today's fitted smiles that a world needs, one entry each, by underlying and expiry. Host arrays."""

    row: Int[np.ndarray, " smile"]
    """Slice of each smile in the world."""
    svi: Svi
    decay: Float[np.ndarray, " smile"]
    """Time to expiry at the horizon over that of the fit."""
    skew: Int[np.ndarray, " smile"]
    """Factor column, one past the last where the model has none; likewise `curvature`."""
    curvature: Int[np.ndarray, " smile"]
    least_lean: Float[np.ndarray, " smile"]
    most_lean: Float[np.ndarray, " smile"]


class Shocked(NamedTuple):
    """Smiles in scenarios."""

    svi: Svi
    """At the horizon; `a` holds the least variance instead, and both are without the square of the world's
    `vol_multiplier`."""
    width: Float[Array, "smile scenario"]
    """What the projection left of the shocked width: 1 where it changed nothing."""
    lean: Float[Array, "smile scenario"]
    """How much of the leaning it took away; 0 where nothing."""


def leans(svi: Svi) -> tuple[Float[np.ndarray, " smile"], Float[np.ndarray, " smile"]]:
    """The least and the most leaning that each smile bears."""
    with jax.default_device(jax.devices("cpu")[0]):
        ends = [sign * np.asarray(_bearable(svi, jnp.asarray(sign * LEANS))) for sign in (-1.0, 1.0)]
    return ends[0], ends[1]


@jax.jit
def _bearable(svi: Svi, lean: Float[Array, " lean"]) -> Float[Array, " smile"]:
    def one(p: Svi) -> Array:
        def floor(x: Array) -> tuple[Array, Array]:
            moved = tilted(p, x)
            level = butterfly(moved, moved.m + moved.s * jnp.asarray(wings(400))).level
            return jnp.min(level), least_variance(moved)

        level, least = jax.vmap(floor)(lean)
        sound = (level >= LEAST_SHARE * level[0]) & (least >= LEAST_SHARE * least[0])
        return jnp.abs(lean)[jnp.sum(jnp.cumprod(sound.astype(jnp.int32))) - 1]

    return jax.vmap(one)(svi)


def shocked(
    fitted: Fitted,
    log_vol: Float[Array, "smile scenario"],
    moves: Float[Array, "factor scenario"],
    *,
    vol_cap: float,
    projected: bool,
) -> Shocked:
    """The smiles under the shocks of ln σ of their slices, and of skew and curvature among `moves`, whose last row is
    zero, capped like those of vols; as they are or `projected` on what is free of butterfly arbitrage."""
    column = lambda x: jnp.asarray(x)[:, None]  # noqa: E731
    base, decay = Svi(*map(column, fitted.svi)), column(fitted.decay)
    wanted, bend = (moves[x] for x in (fitted.skew, fitted.curvature))
    if np.isfinite(vol_cap):
        wanted, bend = (vol_cap * jnp.tanh(x / vol_cap) for x in (wanted, bend))
    width = jnp.exp(bend)
    lean = jnp.clip(wanted, column(fitted.least_lean), column(fitted.most_lean)) if projected else wanted
    p = tilted(base, lean)
    kept = jnp.ones_like(width)
    if projected:
        most = SAFETY * jnp.sqrt(_least_width(p, decay * jnp.exp(2 * log_vol)))
        kept = jnp.minimum(1.0, most / width)
    p = stretched(p, decay, width * kept)
    return Shocked(p._replace(a=least_variance(p)), kept, wanted - lean)


def _least_width(p: Svi, growth: Float[Array, "smile scenario"]) -> Float[Array, "smile scenario"]:
    """The least over the smile of the largest q²."""
    nodes = jnp.asarray(wings(NODES))

    def at(i: Array, least: Array) -> Array:
        return jnp.minimum(least, butterfly(p, p.m + p.s * nodes[i]).width(growth))

    return jax.lax.fori_loop(0, NODES, at, jnp.full_like(growth, jnp.inf))


class FittedSmile(eqx.Module):
    """Vols of a block of options on fitted surfaces; see the module."""

    log_moneyness: Float[Array, " option"]
    """ln(K/F) today."""
    slice_row: Int[Array, " option"]
    first: Int[Array, " group"]
    """Smile of the first expiry of each group's underlying."""
    near: Int[Array, " option"]
    """Expiries after the first to the one at or before an option's, or to the one that it takes its vol from."""
    share: Float[Array, " option"]
    """Of the next expiry's total variance; 0 at an expiry, before the first and after the last."""
    time: Float[Array, " option"]
    """Years to expiry at the horizon of that total variance."""
    row: Int[Array, " smile"]
    """Slice of each of the world's smiles."""
    n_expiries: int = eqx.field(static=True)
    """Most expiries that an option looks at."""

    def vol(self, world: World, bump: Bump) -> Float[Array, "option scenario"]:
        """Per √year. A bump of today's vols is scaled by the scenario like the vols themselves."""
        svi, dtype, groups = world.svi, world.log_base.dtype, len(self.first)
        assert svi is not None, "a layout of fitted surfaces has smiles"
        move = world.log_forward[self.slice_row] + bump.log_spot
        k = (self.log_moneyness.astype(dtype)[:, None] - move).reshape(groups, -1, move.shape[-1])
        near = self.near.reshape(groups, -1, 1)

        def at(i: Array, so_far: tuple[Array, Array]) -> tuple[Array, Array]:
            here = jnp.minimum(self.first + i, len(self.row) - 1)
            p = Svi(*(x[here][:, None, :] for x in svi))
            w = variance_above(p, k) * world.vol_multiplier[self.row[here]][:, None, :] ** 2
            low, high = so_far
            return jnp.where(i <= near, jnp.maximum(low, w), low), jnp.where(i <= near + 1, jnp.maximum(high, w), high)

        low, high = jax.lax.fori_loop(0, self.n_expiries, at, (jnp.zeros_like(k), jnp.zeros_like(k)))
        share = self.share.astype(dtype).reshape(groups, -1, 1)
        total = ((1 - share) * low + share * high).reshape(move.shape)
        vol = jnp.sqrt(total / self.time.astype(dtype)[:, None])
        return vol + bump.vol * world.vol_multiplier[self.slice_row]


    def slope(self, world: World, bump: Bump) -> Float[Array, "option scenario"]:
        """∂σ/∂k, as `pmvar.market.slope.smile_slope` takes it of a surface."""
        up, down = (replace(self, log_moneyness=self.log_moneyness + x).vol(world, bump) for x in (WIDTH, -WIDTH))
        return (up - down) / (2 * WIDTH)


class ScenarioCheck(NamedTuple):
    """Scenarios of one tile whose shocks leave arbitrage in some smile of a surface."""

    butterfly: tuple[int, int]
    """Before the projection, and after it."""
    calendar: int
    """Before; after, each expiry is the largest so far, so that there is nothing to count."""
    least_width: float
    """What the projection left of a smile's width at least; 1 where it changed none."""
    most_lean: float
    """Most of a shift of atanh ρ that it took away."""


def check_scenarios(layout: Layout, index: int) -> ScenarioCheck:
    """Arbitrage in the fitted smiles of tile `index`: Durrleman's condition at points that the projection does not see,
    and the order of expiries at ±5 standard deviations."""
    fitted, world = layout.fitted, layout.world(index)
    assert fitted is not None, "only fitted surfaces are checked"
    moves = jnp.pad(layout.scenarios.tile(index).shock, ((0, 0), (0, 1))).T
    log_vol = jnp.log(world.vol_multiplier[fitted.row]).astype(jnp.float64)
    cap = layout.scenarios.vol_cap
    before, after = (_shocked(fitted, log_vol, moves, vol_cap=cap, projected=choice) for choice in (False, True))
    own = np.array([layout.slices[i].underlying for i in fitted.row.tolist()])
    later = own[1:] == own[:-1]
    found = [_disorder(smiles.svi, jnp.exp(2 * log_vol)) for smiles in (before, after)]
    broken, left = (int(np.sum(np.any(np.asarray(g) < -1e-12, axis=0))) for g, _ in found)
    crossed = int(np.sum(np.any(np.asarray(found[0][1])[later] < -1e-12, axis=0)))
    width, lean = (np.asarray(x) for x in (after.width, after.lean))
    return ScenarioCheck((broken, left), crossed, float(width.min()), float(np.abs(lean).max()))


_shocked = jax.jit(shocked, static_argnames=("projected", "vol_cap"))


@jax.jit
def _disorder(svi: Svi, growth: Float[Array, "smile scenario"]) -> tuple[Array, Array]:
    """The least of g over each smile, and the least rise of total variance to the next over its own."""
    rest = jnp.sqrt(1 - svi.rho * svi.rho)
    p = svi._replace(a=growth * (svi.a - svi.b * svi.s * rest), b=growth * svi.b)
    nodes = jnp.asarray(wings(333))

    def g(i: Array, least: Array) -> Array:
        return jnp.minimum(least, butterfly(p, p.m + p.s * nodes[i]).condition())

    deviation = jnp.sqrt(total_variance(p, jnp.zeros_like(p.m)))

    def rise(i: Array, least: Array) -> Array:
        k = deviation[:-1] * (i / 8.0 - 5.0)
        w = [total_variance(Svi(*(x[part] for x in p)), k) for part in (slice(None, -1), slice(1, None))]
        return jnp.minimum(least, w[1] / w[0] - 1)

    infinite = jnp.full_like(growth, jnp.inf)
    return jax.lax.fori_loop(0, len(nodes), g, infinite), jax.lax.fori_loop(0, 81, rise, infinite[1:])


def moves_shapes(scenarios: ScenarioSet) -> bool:
    """Whether scenarios move a skew, a curvature or a term structure."""
    return any(f.rpartition(":")[2] in SHAPES for f in scenarios.factors)


def projection_notes(layout: Layout) -> tuple[str, ...]:
    """What a reader of margins must be told of fitted smiles under the scenarios; nothing where surfaces are raw."""
    undone = "margins are not differentiated by the model: it moves the shape of vol surfaces"
    notes = (undone,) if moves_shapes(layout.scenarios) else ()
    if layout.fitted is None:
        return notes
    tiles = range(min(layout.scenarios.n_tiles, TILES_CHECKED))
    found = [check_scenarios(layout, i) for i in tiles]
    n = min(layout.scenarios.n_scenarios, len(tiles) * PATH_TILE)
    before, after = (sum(counts) for counts in zip(*(c.butterfly for c in found), strict=True))
    return (
        f"fitted smiles: of the first {n:,} scenarios, shocks would leave butterfly arbitrage in {before:,}, projected "
        f"in {after:,}, and calendar arbitrage in {sum(c.calendar for c in found):,}, whose expiries are put in order. "
        f"Of a smile's width {min(c.least_width for c in found):.0%} is kept at least",
        *notes,
    )
