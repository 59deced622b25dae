"""RiskFactorModel: the one interface that every joint law of spot and vol factors has."""

from __future__ import annotations

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
from jaxtyping import Array, Float

from pmvar.models.price_map import NormalMixture


class PathShock(NamedTuple):
    """One path of the factors' x, before drift and price map; x of a step is `diffusion + jump`."""

    diffusion: Float[Array, "step factor"]
    """What moves all the time."""
    jump: Float[Array, "step factor"]
    """What arrives at one moment inside the step."""
    deviation: Float[Array, "step factor"]
    """Conditional standard deviation of the diffusion over each step, given all mixing variables: what a bridge inside
    the step needs."""
    count: Float[Array, " source"]
    """Jumps of each Poisson source over the whole path, for the likelihood ratio of its intensity."""


class Coordinates(NamedTuple):
    """Which coordinates of a step importance sampling may lean on; None where the model has no such thing."""

    mixing: int | None = None
    """Low values make every tail heavy."""
    count: int | None = None
    """High values make systemic jumps."""
    component: int | None = None
    """The first principal component; the others follow it, up to the count if there is one."""


class RiskFactorModel(eqx.Module):
    """A joint law of all factors over a horizon. Abstract; a concrete model is final.

    A path is a pure function of independent standard normals, so a model holds no random state, and whoever draws the
    normals decides how: pseudo-random, low-discrepancy, or leaning towards the tail.
    """

    @abstractmethod
    def bridge_loading(self) -> Float[Array, "factor component"]:
        """L with LLᵀ the correlation of the diffusion inside a step."""

    @abstractmethod
    def dimension(self) -> int:
        """Number of normals a step takes."""

    @abstractmethod
    def coordinates(self) -> Coordinates:
        """What some of them mean."""

    @abstractmethod
    def n_steps(self, steps: float) -> int:
        """In how many steps the model walks a horizon of `steps` model steps. Raises UsageError if it cannot."""

    @abstractmethod
    def path(self, normal: Float[Array, "step dimension"], steps: Float[Array, ""]) -> PathShock:
        """One path over a horizon of `steps` model steps (a fraction is allowed), in as many equal steps as `normal`
        has rows."""

    def owners(self, name: str) -> tuple[int, ...]:
        """The factors that the numbers of the array of parameters `name` belong to, in its order; (): to none, as that
        of a model's scalars."""
        return tuple(range(self.bridge_loading().shape[0]))

    def correlation_moves_marginals(self) -> bool:
        """Whether the law of a single factor depends on the correlation."""
        return False

    def mixing_truncated_at(self) -> float:
        """The uniform below which tails grow no heavier; 0: they are not mixed."""
        return 0.0

    def marginal(self, steps: float) -> NormalMixture | None:
        """The exact marginal law of each factor's x after `steps` model steps, on the host; None: none is known."""
        return None
