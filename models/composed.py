"""The composed model: innovations of unit variance, scaled by a volatility that may be filtered, with jumps.

Gaussian or t or bootstrapped innovations, constant or GARCH volatility, no jumps, Merton's or Kou's: each is a part
with a file of its own, and every combination is a model.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmvar.errors import UsageError
from pmvar.models.base import Coordinates, PathShock, RiskFactorModel
from pmvar.models.garch import VolatilityFilter
from pmvar.models.jumps import Jumps
from pmvar.models.price_map import NormalMixture

LEAST_DIFFUSION = 0.01
"""Share of a step's variance that diffuses at least, where a filtered variance falls below that of the jumps. A
constant volatility never does: see `jumps`."""

ROUNDING = 1e-9
"""Of a number of steps."""


class Innovation(NamedTuple):
    """One draw of all factors, of mean 0 and variance 1."""

    value: Float[Array, " factor"]
    deviation: Float[Array, " factor"]
    """Conditional standard deviation given the mixing variable."""


class InnovationLaw(eqx.Module):
    """A joint law of innovations. Abstract; a concrete law is final."""

    loading: eqx.AbstractVar[Float[Array, "factor component"]]

    @abstractmethod
    def dimension(self) -> int:
        """Number of normals a draw takes."""

    @abstractmethod
    def coordinates(self) -> Coordinates:
        """What some of them mean."""

    @abstractmethod
    def draw(self, normal: Float[Array, " dimension"]) -> Innovation:
        """One draw."""

    @abstractmethod
    def marginal(self) -> NormalMixture | None:
        """The exact marginal law of each factor, on the host; None: none is known."""

    def owners(self, name: str) -> tuple[int, ...]:
        """See `RiskFactorModel`."""
        return tuple(range(self.loading.shape[0]))


class ComposedModel(RiskFactorModel):
    """x_s = √(σ_s²h − Var J)·ε_s + J_s: the variance of the jumps is taken out of the forecast, not added to it."""

    volatility: Float[Array, " factor"]
    """Standard deviation of x over one model step, all sources together; ignored under a filter."""
    innovation: InnovationLaw
    jumps: Jumps | None
    filter: VolatilityFilter | None
    step: float | None = eqx.field(static=True)
    """The longest step, in model steps; None: any horizon is one."""

    def bridge_loading(self) -> Float[Array, "factor component"]:
        """That of the innovations."""
        return self.innovation.loading

    def dimension(self) -> int:
        """Innovation first, then jumps."""
        return self.innovation.dimension() + (0 if self.jumps is None else self.jumps.dimension())

    def coordinates(self) -> Coordinates:
        """See the base."""
        own = self.innovation.coordinates()
        return own if self.jumps is None else own._replace(count=self.innovation.dimension())

    def owners(self, name: str) -> tuple[int, ...]:
        """See the base."""
        return self.innovation.owners(name)

    def mixing_truncated_at(self) -> float:
        """See the base."""
        return getattr(self.innovation, "u_min", 0.0)

    def n_steps(self, steps: float) -> int:
        """As few equal ones as `step` allows; under a filter days, and whole ones."""
        if self.step is None:
            return 1
        if self.filter is not None and steps != round(steps):
            raise UsageError(f"a model with a volatility filter walks whole days; the horizon is {steps:g} days")
        return max(1, int(np.ceil(steps / self.step - ROUNDING)))

    def path(self, normal: Float[Array, "step dimension"], steps: Float[Array, ""]) -> PathShock:
        """See the base."""
        h = steps / normal.shape[0]
        n = self.innovation.dimension()
        quiet = jnp.zeros_like(self.volatility)

        def step(
            variance: Float[Array, " factor"], z: Float[Array, " dimension"]
        ) -> tuple[Float[Array, " factor"], PathShock]:
            jump, count = (quiet, jnp.zeros(0)) if self.jumps is None else self.jumps.draw(z[n:], h)
            total = self._diffusing(variance * h, h)
            epsilon, deviation = self.innovation.draw(z[:n])
            scale = _root(total)
            diffusion = scale * epsilon
            if self.filter is not None:
                surprise = diffusion + jump - (quiet if self.jumps is None else self.jumps.mean(h))
                variance = self.filter.update(variance, surprise)
            return variance, PathShock(diffusion, jump, scale * deviation, count)

        if self.filter is None and normal.shape[0] == 1:
            _, path = step(self.volatility**2, normal[0])
            return PathShock(path.diffusion[None], path.jump[None], path.deviation[None], path.count)
        start = self.volatility**2 if self.filter is None else self.filter.variance
        _, path = jax.lax.scan(step, start, normal)
        return path._replace(count=path.count.sum(axis=0))

    def _diffusing(self, total: Float[Array, " factor"], steps: Float[Array, ""]) -> Float[Array, " factor"]:
        """What the jumps leave of the variance of `steps` model steps."""
        if self.jumps is None:
            return total
        least = 0.0 if self.filter is None else LEAST_DIFFUSION
        return jnp.maximum(total - self.jumps.variance(steps), least * total)

    def marginal(self, steps: float) -> NormalMixture | None:
        """Innovation and jumps convolved, where both are mixtures of normals, over one step of constant volatility."""
        if self.filter is not None or self.n_steps(steps) > 1:
            return None
        law = self.innovation.marginal()
        jumps = None if self.jumps is None else self.jumps.marginal(steps)
        if law is None or (self.jumps is not None and jumps is None):
            return None
        variance = self._diffusing(self.volatility**2 * steps, jnp.float64(steps))
        scale = np.sqrt(np.asarray(variance))[:, None]
        diffusion = NormalMixture(scale * law.mean, scale * law.deviation, law.weight)
        return diffusion if jumps is None else diffusion.times(jumps)


def _root(x: Float[Array, " factor"]) -> Float[Array, " factor"]:
    """√x with derivative 0 at 0: a factor that stands still has no gradient instead of NaN."""
    safe = jnp.where(x > 0, x, 1.0)
    return jnp.where(x > 0, jnp.sqrt(safe), 0.0)
