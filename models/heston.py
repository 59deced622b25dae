"""Heston's stochastic variance by Andersen's QE scheme, martingale-corrected; svcj.py adds jumps of price and variance.

Andersen (2008), "Simple and efficient simulation of the Heston stochastic volatility model", Journal of Computational
Finance 11; equation numbers are his. The vol factor of an underlying moves with the mean variance to its tenor.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr
from jaxtyping import Array, Float

from pmvar.errors import InputError, Problem
from pmvar.models.base import Coordinates, PathShock, RiskFactorModel
from pmvar.models.correlation import principal_loading
from pmvar.models.specification import ModelSpecification
from pmvar.models.svcj import VarianceJumps, variance_jumps
from pmvar.types import DAY, SECONDS_PER_YEAR, FactorKind, factor_name

SWITCH = 1.5
"""ψ up to which the next variance is a squared normal, beyond it an exponential with an atom at 0."""

KEYS = ("kappa", "theta", "vol_of_variance", "initial")


class Variance(NamedTuple):
    """dv = κ(θ − v)dt + ξ√v dW of each underlying; time in years."""

    kappa: Float[Array, " underlying"]
    theta: Float[Array, " underlying"]
    vol_of_variance: Float[Array, " underlying"]
    initial: Float[Array, " underlying"]


class Heston(RiskFactorModel):
    """Pairs of price and variance, driven by Brownian motions of one correlation; other prices are Gaussian.

    The correlation of an underlying's price with its own variance is ρ. Volatilities and degrees of freedom of the
    pairs' factors are not used: the variance parameters say it all.
    """

    loading: Float[Array, "factor component"]
    volatility: Float[Array, " factor"]
    """Per step, of prices without a variance process; 0 for the others."""
    variance: Variance
    jumps: VarianceJumps | None
    tenor: tuple[float, ...] = eqx.field(static=True)
    """Years, of each underlying's vol factor."""
    price_at: tuple[int, ...] = eqx.field(static=True)
    variance_at: tuple[int, ...] = eqx.field(static=True)
    """Factors of each underlying."""
    steps_per_year: int = eqx.field(static=True)
    steps_per_day: int = eqx.field(static=True)

    def bridge_loading(self) -> Float[Array, "factor component"]:
        """That of the Brownian motions."""
        return self.loading

    def dimension(self) -> int:
        """Principal components, then jumps."""
        return self.loading.shape[1] + (0 if self.jumps is None else self.jumps.dimension())

    def coordinates(self) -> Coordinates:
        """See the base."""
        return Coordinates(component=0, count=None if self.jumps is None else self.loading.shape[1])

    def owners(self, name: str) -> tuple[int, ...]:
        """Each underlying's vol factor owns its variance and that variance's jumps, its spot factor the price's."""
        if name in ("price_mean", "price_deviation"):
            return self.price_at
        of_variance = name in (*Variance._fields, "variance_mean", "jump_correlation")
        return self.variance_at if of_variance else super().owners(name)

    def correlation_moves_marginals(self) -> bool:
        """ρ is the skew of the price."""
        return True

    def n_steps(self, steps: float) -> int:
        """`steps_per_day` a day, at least one."""
        return max(1, int(np.ceil(steps * self.steps_per_day)))

    def path(self, normal: Float[Array, "step dimension"], steps: Float[Array, ""]) -> PathShock:
        """See the base."""
        h = steps / normal.shape[0]
        years = h / self.steps_per_year
        n, price, vol = self.loading.shape[1], np.array(self.price_at), np.array(self.variance_at)
        rho = jnp.sum(self.loading[price] * self.loading[vol], axis=1)
        still = jnp.zeros_like(self.volatility)

        def step(v: Float[Array, " underlying"], z: Float[Array, " dimension"]) -> tuple[Array, PathShock]:
            w = self.loading @ z[:n]
            after, move = _quadratic_exponential(self.variance, v, w[price], w[vol], rho, years)
            price_jump, variance_jump, count = jnp.zeros_like(v), jnp.zeros_like(v), jnp.zeros(0)
            if self.jumps is not None:
                price_jump, variance_jump, count = self.jumps.draw(z[n:], years)
                move = move - self.jumps.compensator() * years
            end = after + variance_jump
            before_level, after_level, end_level = (self._log_level(x) for x in (v, after, end))
            diffusion = (self.volatility * jnp.sqrt(h) * w).at[price].set(move)
            diffusion = diffusion.at[vol].set(after_level - before_level)
            jump = still.at[price].set(price_jump).at[vol].set(end_level - after_level)
            spread = jnp.sqrt(jnp.maximum(v, 1e-12) * years)
            slope = 0.5 * self._weight() * jnp.exp(-2 * before_level) * self.variance.vol_of_variance
            deviation = (self.volatility * jnp.sqrt(h)).at[price].set(spread).at[vol].set(slope * spread)
            return end, PathShock(diffusion, jump, deviation, count)

        _, path = jax.lax.scan(step, self.variance.initial, normal)
        return path._replace(count=path.count.sum(axis=0))

    def _weight(self) -> Float[Array, " underlying"]:
        """(1 − e^(−κτ))/(κτ): how much of today's variance is left in its mean to the tenor."""
        x = self.variance.kappa * jnp.array(self.tenor)
        return -jnp.expm1(-x) / x

    def _log_level(self, v: Float[Array, " underlying"]) -> Float[Array, " underlying"]:
        """Half the log of the expected mean variance to the tenor."""
        far = self.variance.theta
        if self.jumps is not None:
            far = far + self.jumps.intensity * self.jumps.variance_mean / self.variance.kappa
        return 0.5 * jnp.log(far + (v - far) * self._weight())


def _quadratic_exponential(
    law: Variance,
    v: Float[Array, " underlying"],
    z_price: Float[Array, " underlying"],
    z_variance: Float[Array, " underlying"],
    rho: Float[Array, " underlying"],
    years: Float[Array, ""],
) -> tuple[Float[Array, " underlying"], Float[Array, " underlying"]]:
    """The variance after a step, and the log price's move, whose exponential has mean 1."""
    kappa, theta, xi = law.kappa, law.theta, law.vol_of_variance
    decay = jnp.exp(-kappa * years)
    m = theta + (v - theta) * decay  # (17)
    s2 = (v * decay + theta * (1 - decay) / 2) * xi**2 * (1 - decay) / kappa  # (18)
    m = jnp.maximum(m, 1e-14)
    psi = s2 / m**2
    # Each branch gets a ψ that it can take: the one not chosen must not make NaN in the derivative.
    ratio = 2 / jnp.clip(psi, 1e-12, SWITCH)
    b2 = ratio - 1 + jnp.sqrt(ratio * (ratio - 1))  # (27)
    a = m / (1 + b2)  # (28)
    quadratic = a * (jnp.sqrt(b2) + z_variance) ** 2
    thick = jnp.maximum(psi, SWITCH)
    p = (thick - 1) / (thick + 1)  # (29)
    beta = (1 - p) / m  # (30)
    exponential = jnp.maximum(jnp.log1p(-p) - log_ndtr(-z_variance), 0.0) / beta  # (25)
    thin = psi <= SWITCH
    after = jnp.where(thin, quadratic, exponential)

    drag = years / 2 * (kappa * rho / xi - 0.5)
    k1, k2 = drag - rho / xi, drag + rho / xi  # (33), γ₁ = γ₂ = ½
    k3 = years / 2 * (1 - rho**2)
    # E exp(A·v') in closed form makes the price a martingale (39); where it does not exist, the plain drift stays.
    exponent = k2 + 0.5 * k3
    room = jnp.where(thin, 1 - 2 * exponent * a, 1 - exponent / beta)
    safe = jnp.where(room > 1e-6, room, 1.0)
    log_mean = jnp.where(thin, exponent * b2 * a / safe - 0.5 * jnp.log(safe), jnp.log(p + (1 - p) / safe))
    corrected = -log_mean - (k1 + 0.5 * k3) * v
    k0 = jnp.where(room > 1e-6, corrected, -rho * kappa * theta * years / xi)
    left = jnp.sqrt(jnp.maximum(1 - rho**2, 1e-12))
    noise = jnp.sqrt(jnp.maximum(k3 * (v + after), 1e-300)) * (z_price - rho * z_variance) / left
    return after, k0 + k1 * v + k2 * after + noise


def heston(specification: ModelSpecification, steps: float) -> Heston:
    """`parameters.variance`, {underlying: {kappa, theta, vol_of_variance, initial}} a year, `initial` from
    `state.variance` where it is; `parameters.steps_per_day` (1), and `parameters.jumps` of svcj.

    Raises InputError where an underlying with a vol factor has no variance, or the other way round.
    """
    names, factors = specification.factor_names, specification.factors
    given = specification.parameters.get("variance", {})
    if not isinstance(given, Mapping):
        raise _refused("variance is by underlying", "supply it", "variance", given)
    known = {"variance", "steps_per_day", *(("jumps",) if specification.model == "svcj" else ())}
    unknown = sorted((set(specification.parameters) - known) | (set(specification.state) - {"variance"}))
    if unknown:
        raise _refused(f"model {specification.model} has no such parameter or state", "remove it", unknown[0], "")
    paired = [f.underlying for f in factors if f.kind is FactorKind.VOL]
    for u in sorted({*given, *paired}):
        if u not in given or any(factor_name(u, kind) not in names for kind in (FactorKind.SPOT, FactorKind.VOL)):
            rule = f"{u} needs a spot factor, a vol factor and parameters.variance together"
            raise _refused(rule, "supply what is missing", f"variance[{u}]", given.get(u, ""))
    if not paired:
        raise _refused("no underlying has a variance", "supply one, or choose gaussian", "variance", given)
    now = specification.state.get("variance", {})
    rows = [_row({**given[u], **({"initial": now[u]} if u in now else {})}, u) for u in paired]
    per_day = specification.parameters.get("steps_per_day", 1)
    if isinstance(per_day, bool) or not isinstance(per_day, int) or not 1 <= per_day <= 96:
        raise _refused("steps_per_day is an integer from 1 to 96", "correct it", "steps_per_day", per_day)
    price_at = tuple(names.index(factor_name(u, FactorKind.SPOT)) for u in paired)
    variance_at = tuple(names.index(factor_name(u, FactorKind.VOL)) for u in paired)
    driven = {*price_at, *variance_at}
    years = steps / specification.steps_per_year
    return Heston(
        loading=jnp.asarray(principal_loading(specification.correlation, specification.importance)),
        volatility=jnp.asarray([0.0 if i in driven else f.volatility for i, f in enumerate(factors)]),
        variance=Variance(*(jnp.asarray([r[key] for r in rows]) for key in KEYS)),
        jumps=variance_jumps(specification, tuple(paired), years) if specification.model == "svcj" else None,
        tenor=tuple(factors[i].tenor * DAY / SECONDS_PER_YEAR for i in variance_at),
        price_at=price_at,
        variance_at=variance_at,
        steps_per_year=specification.steps_per_year,
        steps_per_day=per_day,
    )


def _row(given: Any, underlying: str) -> dict[str, float]:
    column = f"variance[{underlying}]"
    if not isinstance(given, Mapping) or set(given) != set(KEYS):
        raise _refused(f"a variance has {', '.join(KEYS)}", "supply them, and nothing else", column, given)
    for key, value in given.items():
        low = 0.0 if key == "initial" else 1e-6
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value < np.inf:
            raise _refused(f"must be a number of at least {low:g}", "correct it", f"{column}.{key}", value)
    return {key: float(value) for key, value in given.items()}


def _refused(rule: str, fix: str, column: str, value: object) -> InputError:
    return InputError(Problem(rule, fix, file="model.json", column=f"parameters.{column}", value=str(value)[:100]))
