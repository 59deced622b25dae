"""How importance sampling leans towards the tail of a model: parameters of the model, never of a run's accounts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from pmvar.errors import InputError, Problem
from pmvar.kernels.importance import heavy_mixing_normal, inflated, mean_rotation
from pmvar.models.base import Coordinates

MOST = 8.0
"""Largest weight that parameters may give a path: beyond, one path would carry the tail."""


@dataclass(frozen=True)
class SamplingParameters:
    """Densities of the coordinates that `sobol-is` leans on; the weight of a path is one over their product.

    The defaults lean on nothing; `tuned` has what suits a model and a horizon.
    """

    mixing_share: float = 1.0
    """η of g(u) = η + (1 − η)·c·u^(c−1), the density of the mixing uniform; 1 leaves it alone."""
    mixing_exponent: float = 0.4
    """c."""
    inflation: tuple[float, ...] = ()
    """Standard deviations of the first principal components."""
    count_share: float = 1.0
    """η of the same density for the count of systemic jumps, leaning to many."""
    count_exponent: float = 0.3

    @property
    def weight_bound(self) -> float:
        """No path weighs more."""
        bound = float(np.prod(self.inflation))
        for share, exponent in ((self.mixing_share, self.mixing_exponent), (self.count_share, self.count_exponent)):
            bound /= share + (1 - share) * exponent
        return bound

    def __post_init__(self) -> None:
        shares = (self.mixing_share, self.mixing_exponent, self.count_share, self.count_exponent)
        if not all(0.05 <= s <= 1 for s in shares):
            raise _refused("shares and exponents lie in [0.05, 1]", shares)
        if not all(1 <= s <= 2 for s in self.inflation):
            raise _refused("inflation lies in [1, 2]", self.inflation)
        if not self.weight_bound <= MOST:
            raise _refused(f"the largest weight may be {MOST:g}", f"{self.weight_bound:.3g}")


SHORT = 4.0
"""Model steps up to which a horizon is short."""

_SPREAD = (1.4, *[1.05] * 6)
_NORMAL = SamplingParameters(inflation=(1.5, *[1.1] * 6))
_JUMPS = SamplingParameters(inflation=_SPREAD, count_share=0.3)
_T = SamplingParameters(mixing_share=0.05, inflation=(1.4, *[1.05] * 10))
# With a mixing variable for each step a path's weight says less of its loss: lean little.
_T_STEPS = SamplingParameters(mixing_share=0.6, inflation=(1.2,))
_SVCJ = SamplingParameters(inflation=(1.2,), count_share=0.6)

TUNED: Mapping[str, tuple[SamplingParameters, SamplingParameters]] = {
    "gaussian": (_NORMAL, _NORMAL),
    "heston": (_NORMAL, _NORMAL),
    "svcj": (_SVCJ, SamplingParameters(inflation=(1.2,))),
    "merton": (_JUMPS, _JUMPS),
    "kou": (_JUMPS, _JUMPS),
    "t": (_T, _T),
    "t-multi": (_T, _T),
    "t-garch": (_T_STEPS, _T_STEPS),
    "t-jump": (_T_STEPS, _T_STEPS),
    "t-garch-jump": (_T_STEPS, _T_STEPS),
    "fhs": (SamplingParameters(mixing_share=0.45), SamplingParameters(mixing_share=0.3)),
    "historical": (SamplingParameters(mixing_share=0.15), SamplingParameters(mixing_share=0.15)),
}
"""By model, for short horizons and longer ones: chosen among a few by the variance of the ES over the reference
portfolios of `pmvar.calibration.sampling` at two days (`t-garch`, `svcj` and `fhs` at ten, too), those of `t` over
mixed books as well; the 10th percentile is never worse than plain Monte Carlo."""


def tuned(model: str, steps: float) -> SamplingParameters:
    """The parameters of a model's name over a horizon of `steps` model steps, where `model.json` gives none."""
    return TUNED[model][int(steps > SHORT)]


def sampling_parameters(
    given: Mapping[str, Any], otherwise: SamplingParameters = SamplingParameters()
) -> SamplingParameters:
    """What `sampling` of model.json says; a key that is absent is as in `otherwise`. Raises InputError."""
    known = SamplingParameters.__dataclass_fields__
    found: dict[str, Any] = {}
    for key, value in given.items():
        many = isinstance(value, list | tuple)
        numbers = tuple(value) if many else (value,)
        sound = all(isinstance(x, int | float) and not isinstance(x, bool) for x in numbers)
        if key not in known or not sound or many != (key == "inflation"):
            raise _refused(f"sampling has {', '.join(known)}: numbers, inflation a list", f"{key}: {value}")
        found[key] = tuple(map(float, numbers)) if many else float(value)
    return replace(otherwise, **found)


def _refused(rule: str, value: object) -> InputError:
    return InputError(Problem(rule, "correct it", file="model.json", column="sampling", value=str(value)[:100]))


def leaning(
    z: Float[Array, "step dimension"], at: Coordinates, parameters: SamplingParameters
) -> tuple[Float[Array, "step dimension"], Float[Array, ""]]:
    """Coordinates whose first row, the mean over the steps, is moved towards the tail; and the path's weight."""
    first, weight = z[0], jnp.ones(())
    if at.mixing is not None:
        moved, w = heavy_mixing_normal(
            first[at.mixing], share=parameters.mixing_share, exponent=parameters.mixing_exponent
        )
        first, weight = first.at[at.mixing].set(moved), weight * w
    if at.count is not None:
        moved, w = heavy_mixing_normal(
            -first[at.count], share=parameters.count_share, exponent=parameters.count_exponent
        )
        first, weight = first.at[at.count].set(-moved), weight * w
    if at.component is not None:
        last = z.shape[1] if at.count is None else at.count
        for i, scale in enumerate(parameters.inflation[: last - at.component]):
            moved, w = inflated(first[at.component + i], scale)
            first, weight = first.at[at.component + i].set(moved), weight * w
    return z.at[0].set(first), weight


@partial(jax.jit, static_argnames=("at", "parameters"))
def leaned(
    z: Float[Array, "path step dimension"], at: Coordinates, parameters: SamplingParameters
) -> tuple[Float[Array, "path step dimension"], Float[Array, " path"]]:
    """Normals of the steps of paths that lean, and the weight of each path."""
    moved, weight = jax.vmap(lambda one: leaning(one, at, parameters))(z)
    return jnp.asarray(mean_rotation(z.shape[1])) @ moved, weight
