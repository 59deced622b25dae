"""Priors of a volatility filter's parameters, and the coordinates without bounds in which a sampler walks.

They are written for daily returns counted in per cent.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from pmvar.calibration.volatility_likelihood import Innovation, Natural, Volatility, coordinates, natural
from pmvar.errors import UsageError

if TYPE_CHECKING:
    from numpyro.distributions import Distribution


def priors(volatility: Volatility) -> dict[str, Distribution]:
    """The prior of each parameter, independent of the others.

    `persistence` is p = α + γ/2 + β, most of whose prior lies close to 1; `news_share` is (α + γ/2)/p; `excess_dof` is
    ν − 2. Of GJR, `falls_share` is (α + γ)/(2α + γ), the part of falls in the news: its prior is symmetric about ½,
    where GJR is GARCH, so that data alone say which side moves volatility more. Raises UsageError for EWMA, whose
    recursion has nothing to sample.
    """
    from numpyro import distributions as d

    if volatility in (Volatility.EWMA, Volatility.RISKMETRICS):
        raise UsageError("EWMA has no posterior: choose garch or gjr")
    shared = {
        "mean": d.Normal(0.0, 1.0),
        "omega": d.LogNormal(-4.0, 1.5),
        "persistence": d.Beta(20.0, 1.0),
        "news_share": d.Beta(1.5, 8.0),
        "excess_dof": d.Gamma(2.0, 0.1),
    }
    return shared | ({"falls_share": d.Beta(2.0, 2.0)} if volatility is Volatility.GJR else {})


def free_start(variance: Float[Array, ""], *, volatility: Volatility) -> Float[Array, " parameter"]:
    """A point from which a search reaches the mode, given the variance of the returns."""
    from numpyro.distributions import biject_to

    at = {"mean": 0.0, "omega": 0.03 * variance, "persistence": 0.97, "news_share": 0.08, "excess_dof": 4.0}
    at["falls_share"] = 0.6
    return jnp.stack([biject_to(p.support).inv(jnp.asarray(at[name])) for name, p in priors(volatility).items()])


def bounded(free: Float[Array, " parameter"], *, volatility: Volatility) -> tuple[Natural, Float[Array, ""]]:
    """The filter at a point of the free coordinates, and ln of the prior's density there, in those coordinates."""
    from numpyro.distributions import biject_to

    at, density = {}, jnp.zeros(())
    for x, (name, prior) in zip(free, priors(volatility).items(), strict=True):
        onto = biject_to(prior.support)
        at[name] = onto(x)
        density += prior.log_prob(at[name]) + onto.log_abs_det_jacobian(x, at[name])
    return filter_of(at, volatility=volatility), density


def filter_of(at: dict[str, Array], *, volatility: Volatility) -> Natural:
    """The filter of parameters under the names of `priors`."""
    box = coordinates(volatility, Innovation.STUDENT_T)
    known = at | {"log_omega": jnp.log(at["omega"]), "inverse_dof": 1 / (2 + at["excess_dof"])}
    return natural(jnp.stack([known[c.name] for c in box]), box=box)


def prior_draws(key: Array, *, volatility: Volatility) -> Natural:
    """One filter from the prior."""
    names = priors(volatility)
    keys = jax.random.split(key, len(names))
    return filter_of(
        {n: jnp.asarray(p.sample(k)) for k, (n, p) in zip(keys, names.items(), strict=True)}, volatility=volatility
    )
