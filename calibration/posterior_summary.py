"""What a posterior says beside its prior, parameter by parameter, in the coordinates that the priors are written in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from pmvar.calibration.diagnostics import effective_size, r_hat
from pmvar.calibration.garch import Parameters
from pmvar.calibration.posterior import Draws, VolatilityPosterior
from pmvar.calibration.priors import priors
from pmvar.calibration.volatility_likelihood import Volatility

PRIOR_DRAWS = 20_000
NARROWED = 2 / 3
"""A posterior narrower than this share of its prior's deviation comes from the data."""
FAR = 0.01
"""Of the prior's mass beyond a posterior's median: less, and prior and data disagree."""


class Marginal(NamedTuple):
    """One parameter of one asset, in the prior's units."""

    name: str
    """As in `priors`; of `omega` the logarithm, whose prior is normal."""
    draws: Float[np.ndarray, "chain draw"]
    grid: Float[np.ndarray, " point"]
    prior: Float[np.ndarray, " point"]
    """The prior's density on `grid`, which spans the draws."""
    prior_deviation: float
    prior_range: tuple[float, float]
    """Its 5 and 95% quantiles."""
    beyond: float
    """The prior's mass on the far side of the posterior's median."""
    r_hat: float
    bulk: float
    tail: float

    @property
    def narrowed(self) -> float:
        """The posterior's deviation over the prior's."""
        return float(self.draws.std() / self.prior_deviation)

    @property
    def identified(self) -> bool:
        """Whether the data narrowed the prior."""
        return self.narrowed < NARROWED


def prior_coordinates(draws: Draws | Parameters, *, unit: float, volatility: Volatility) -> dict[str, np.ndarray]:
    """The names of `priors` for parameters per day in the units of the returns, ln ω for ω; undoes `filter_of`."""
    news = draws.alpha + draws.gamma / 2
    with np.errstate(invalid="ignore"):
        # An estimate without news has no share of falls in it.
        falls = (draws.alpha + draws.gamma) / (2 * news)
    found = {
        "mean": draws.mean / unit,
        "omega": np.log(draws.omega / unit**2),
        "persistence": news + draws.beta,
        "news_share": news / (news + draws.beta),
        "excess_dof": draws.degrees_of_freedom - 2,
        "falls_share": falls,
    }
    return {name: found[name] for name in priors(volatility)}


def marginals(posterior: VolatilityPosterior, assets: Sequence[int]) -> list[list[Marginal]]:
    """Every parameter of each of `assets`, which have draws."""
    prior = priors(posterior.volatility)
    keys = jax.random.split(jax.random.key(0), len(prior))
    known = {n: np.asarray(p.sample(k, (PRIOR_DRAWS,))) for k, (n, p) in zip(keys, prior.items(), strict=True)}
    known["omega"] = np.log(known["omega"])
    out = []
    for i in assets:
        own = Draws(*(part[i] for part in posterior.draws))
        rows = []
        for name, x in prior_coordinates(own, unit=posterior.unit, volatility=posterior.volatility).items():
            low, high = np.quantile(x, (0.001, 0.999)).tolist()
            grid = np.linspace(low, high, 121)
            below = float(np.mean(known[name] < np.median(x)))
            at = jnp.asarray(np.exp(grid) if name == "omega" else grid)
            density = np.exp(np.asarray(jax.vmap(prior[name].log_prob)(at)) + (grid if name == "omega" else 0.0))
            rows.append(
                Marginal(
                    name, x, grid, density, float(known[name].std()),
                    tuple(np.quantile(known[name], (0.05, 0.95)).tolist()), min(below, 1 - below),
                    r_hat(x), effective_size(x, "bulk"), effective_size(x, "tail"),
                )  # fmt: skip
            )
        out.append(rows)
    return out
