"""Value-at-risk and expected shortfall with their standard errors, weighted, for many accounts at once.

p̂(x) = N⁻¹ Σ w·1{L > x};  VaR = inf{x : p̂(x) ≤ 1 − α};  ES = VaR + [N(1−α)]⁻¹ Σ w (L − VaR)⁺, so that a fractional tail
is counted in part. Weights are likelihood ratios and are not normalised. Rockafellar and Uryasev (2002); standard
errors from independent replicates at the pooled VaR, Glasserman (2003), section 9.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from pmvar.errors import NumericsError

RUN = 128
"""Numbers that are summed in whatever order is fastest."""

BAND = 0.4
"""The density at the VaR and means given L = VaR use losses whose tail probability is within (1 ± BAND)(1 − α)."""


class Tail(NamedTuple):
    """The upper tail of each account's loss. Axes: account, kept scenario, in the order they were given."""

    value_at_risk: Float[np.ndarray, " account"]
    expected_shortfall: Float[np.ndarray, " account"]
    weight: Float[np.ndarray, "account kept"]
    """Share of each scenario in the ES: E[X | tail] = Σ weight·X; sums to 1."""
    at_var: Float[np.ndarray, "account kept"]
    """Weights of scenarios around the VaR: E[X | L = VaR] ≈ Σ at_var·X; sums to 1."""
    in_tail: Float[np.ndarray, "account kept"]
    """Likelihood ratio where L > VaR, else 0."""
    spacing: Float[np.ndarray, " account"]
    """1/f̂(VaR): loss per unit of probability."""


def tail(
    loss: Float[np.ndarray, "account kept"],
    weight: Float[np.ndarray, "account kept"],
    *,
    n_scenarios: int,
    level: float,
) -> Tail:
    """The tail of each account from its largest losses; of equal ones those further left count first.

    `loss` in any currency, positive is bad; `weight` the likelihood ratios. Raises NumericsError if the kept scenarios
    do not cover the tail.
    """
    n_tail = n_scenarios * (1 - level)
    order = None if np.all(loss[:, 1:] <= loss[:, :-1]) else np.argsort(-loss, axis=1, kind="stable")
    sorted_loss, sorted_weight = (x if order is None else np.take_along_axis(x, order, 1) for x in (loss, weight))
    through = np.cumsum(sorted_weight, axis=1)
    before = through - sorted_weight
    if not np.all(through[:, -1] >= n_tail * (1 - 1e-12)):
        raise NumericsError("the scenarios kept do not cover the tail; keep more")
    # The boundary is the last scenario whose strictly worse ones weigh at most the tail; 1e-9 forgives rounding.
    boundary = np.count_nonzero(before <= n_tail * (1 + 1e-9), axis=1) - 1
    share = np.clip(n_tail - before, 0.0, sorted_weight)
    share[np.arange(loss.shape[1]) > boundary[:, None]] = 0.0
    share /= total(share, np.ones_like(share))[:, None]
    var = np.take_along_axis(sorted_loss, boundary[:, None], 1)

    near = (through > (1 - BAND) * n_tail) & (before < (1 + BAND) * n_tail)
    at_var = np.where(near, sorted_weight, 0.0)
    mass = total(at_var, np.ones_like(at_var))[:, None]
    first = np.argmax(near, axis=1)[:, None]
    last = loss.shape[1] - 1 - np.argmax(near[:, ::-1], axis=1)[:, None]
    width = np.take_along_axis(sorted_loss, first, 1) - np.take_along_axis(sorted_loss, last, 1)
    spacing = (width * n_scenarios / mass)[:, 0]

    def as_given(values: np.ndarray) -> np.ndarray:
        if order is None:
            return values
        out = np.empty_like(values)
        np.put_along_axis(out, order, values, 1)
        return out

    return Tail(
        value_at_risk=var[:, 0],
        expected_shortfall=total(share, sorted_loss),
        weight=as_given(share),
        at_var=as_given(at_var / mass),
        in_tail=as_given(np.where(sorted_loss > var, sorted_weight, 0.0)),
        spacing=spacing,
    )


def total(
    terms: Float[np.ndarray, "*#batch kept"], factors: Float[np.ndarray, "*#batch kept"]
) -> Float[np.ndarray, "*batch"]:
    """Σ terms·factors over the last axis, in runs of `RUN` that are added one after the other: how many scenarios
    without weight follow the others must not change a bit."""
    pad = -terms.shape[-1] % RUN
    if pad:
        terms, factors = (np.pad(x, [(0, 0)] * (x.ndim - 1) + [(0, pad)]) for x in (terms, factors))
    runs = [x.reshape(*x.shape[:-1], -1, RUN) for x in (terms, factors)]
    return np.cumsum(np.vecdot(*runs), axis=-1)[..., -1]


def replicate_sums(
    contribution: Float[np.ndarray, "*batch account kept"],
    ids: Int[np.ndarray, "account kept"],
    n_replicates: int,
) -> Float[np.ndarray, "*batch account replicate"]:
    """Σ contribution over the scenarios of each replicate; scenario i is in i mod R."""
    n_accounts = len(ids)
    flat = (np.arange(n_accounts)[:, None] * n_replicates + ids % n_replicates).ravel()
    each = contribution.reshape(-1, ids.size)
    sums = [np.bincount(flat, part, minlength=n_accounts * n_replicates) for part in each]
    return np.reshape(sums, (*contribution.shape[:-1], n_replicates))


def replicate_deviation(sums: Float[np.ndarray, "*batch replicate"], n_scenarios: int) -> Float[np.ndarray, "*batch"]:
    """Standard error of N⁻¹ Σ contribution from the spread of its means over replicates, given their sums."""
    n_replicates = sums.shape[-1]
    return np.std(sums * (n_replicates / n_scenarios), axis=-1, ddof=1) / np.sqrt(n_replicates)


def standard_errors(
    loss: Float[np.ndarray, "account kept"],
    ids: Int[np.ndarray, "account kept"],
    found: Tail,
    *,
    level: float,
    n_scenarios: int,
    n_replicates: int,
) -> tuple[Float[np.ndarray, " account"], Float[np.ndarray, " account"]]:
    """Standard errors of VaR and of ES, in the currency of `loss`."""
    excess = found.in_tail * (loss - found.value_at_risk[:, None])
    var_error, es_error = (
        replicate_deviation(replicate_sums(x, ids, n_replicates), n_scenarios) for x in (found.in_tail, excess)
    )
    return var_error * found.spacing, es_error / (1 - level)


def interval_half_width(n_replicates: int, confidence: float = 0.95) -> float:
    """Half width of a confidence interval in standard errors: Student's t with R − 1 degrees of freedom."""
    return float(special.stdtrit(n_replicates - 1, (1 + confidence) / 2))
