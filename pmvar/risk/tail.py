"""Value-at-risk and expected shortfall with their standard errors, weighted, for many accounts at once.

p̂(x) = N⁻¹ Σ w·1{L > x};  VaR = inf{x : p̂(x) ≤ 1 − α};  ES = VaR + [N(1−α)]⁻¹ Σ w (L − VaR)⁺, so that a fractional tail
is counted in part. Weights are likelihood ratios and are not normalised. Rockafellar and Uryasev (2002); standard
errors from independent replicates at the pooled VaR, Glasserman (2003), section 9.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from scipy import special

from pmvar.errors import NumericsError

THREADS = 2
"""Host threads for selection, which is bound by memory."""

BAND = 0.4
"""The density at the VaR and means given L = VaR use losses whose tail probability is within (1 ± BAND)(1 − α)."""


class Tail(NamedTuple):
    """The upper tail of each account's loss. Axes: account, kept scenario (any order, ids increasing)."""

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


def n_kept(n_scenarios: int, level: float) -> int:
    """Scenarios that an equally weighted tail at `level` needs, with those just below it."""
    return min(n_scenarios, int(np.ceil((1 + BAND) * n_scenarios * (1 - level))) + 16)


def largest(loss: Float[np.ndarray, "account scenario"], keep: int) -> Int[np.ndarray, "account kept"]:
    """Ids of the `keep` largest losses of each account, increasing; of equal losses the lower ids. No NaN allowed."""
    least = loss.shape[1] - keep
    # NumPy partitions outside the interpreter's lock; the loop below holds it and would only be slowed by company.
    with ThreadPoolExecutor(THREADS) as pool:
        split = list(pool.map(lambda part: np.partition(part, least, axis=1)[:, least], np.array_split(loss, THREADS)))
    threshold = np.concatenate(split)
    ids = np.empty((len(loss), keep), dtype=np.int64)
    for row, (values, bound) in enumerate(zip(loss, threshold, strict=True)):
        found = np.flatnonzero(values >= bound)
        if len(found) > keep:
            above = np.flatnonzero(values > bound)
            found = np.sort(np.concatenate([above, np.flatnonzero(values == bound)[: keep - len(above)]]))
        if len(found) != keep:
            raise NumericsError("a loss is not a number")
        ids[row] = found
    return ids


def tail(
    loss: Float[np.ndarray, "account kept"],
    weight: Float[np.ndarray, "account kept"],
    *,
    n_scenarios: int,
    level: float,
) -> Tail:
    """The tail of each account from its largest losses, columns in the order of scenario ids.

    `loss` in any currency, positive is bad; `weight` the likelihood ratios. Raises NumericsError if the kept scenarios
    do not cover the tail.
    """
    n_tail = n_scenarios * (1 - level)
    order = np.argsort(-loss, axis=1, kind="stable")
    sorted_loss = np.take_along_axis(loss, order, 1)
    sorted_weight = np.take_along_axis(weight, order, 1)
    through = np.cumsum(sorted_weight, axis=1)
    before = through - sorted_weight
    if not np.all(through[:, -1] >= n_tail * (1 - 1e-12)):
        raise NumericsError("the scenarios kept do not cover the tail; keep more")
    # The boundary is the last scenario whose strictly worse ones weigh at most the tail; 1e-9 forgives rounding.
    boundary = np.sum(before <= n_tail * (1 + 1e-9), axis=1) - 1
    rank = np.arange(loss.shape[1])
    share = np.clip(n_tail - before, 0.0, sorted_weight)
    share[rank >= boundary[:, None] + 1] = 0.0
    share /= total(share)[:, None]
    var = np.take_along_axis(sorted_loss, boundary[:, None], 1)

    near = (through > (1 - BAND) * n_tail) & (before < (1 + BAND) * n_tail)
    at_var = np.where(near, sorted_weight, 0.0)
    mass = total(at_var)[:, None]
    first = np.argmax(near, axis=1)[:, None]
    last = loss.shape[1] - 1 - np.argmax(near[:, ::-1], axis=1)[:, None]
    width = np.take_along_axis(sorted_loss, first, 1) - np.take_along_axis(sorted_loss, last, 1)
    spacing = (width * n_scenarios / mass)[:, 0]

    def by_id(values: np.ndarray) -> np.ndarray:
        out = np.empty_like(values)
        np.put_along_axis(out, order, values, 1)
        return out

    return Tail(
        value_at_risk=var[:, 0],
        expected_shortfall=total(share * sorted_loss),
        weight=by_id(share),
        at_var=by_id(at_var / mass),
        in_tail=by_id(np.where(sorted_loss > var, sorted_weight, 0.0)),
        spacing=spacing,
    )


def total(terms: Float[np.ndarray, "account kept"]) -> Float[np.ndarray, " account"]:
    """Sums added one after the other: how many scenarios without weight a block keeps must not change a bit."""
    return np.cumsum(terms, axis=1)[:, -1]


def replicate_deviation(
    contribution: Float[np.ndarray, "account kept"],
    ids: Int[np.ndarray, "account kept"],
    *,
    n_scenarios: int,
    n_replicates: int,
) -> Float[np.ndarray, " account"]:
    """Standard error of N⁻¹ Σ contribution from the spread of its means over replicates; scenario i is in i mod R."""
    n_accounts = len(contribution)
    flat = (np.arange(n_accounts)[:, None] * n_replicates + ids % n_replicates).ravel()
    sums = np.bincount(flat, contribution.ravel(), minlength=n_accounts * n_replicates).reshape(n_accounts, -1)
    means = sums * (n_replicates / n_scenarios)
    return np.std(means, axis=1, ddof=1) / np.sqrt(n_replicates)


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
    spread = {"n_scenarios": n_scenarios, "n_replicates": n_replicates}
    var_error = replicate_deviation(found.in_tail, ids, **spread) * found.spacing
    excess = found.in_tail * (loss - found.value_at_risk[:, None])
    return var_error, replicate_deviation(excess, ids, **spread) / (1 - level)


def interval_half_width(n_replicates: int, confidence: float = 0.95) -> float:
    """Half width of a confidence interval in standard errors: Student's t with R − 1 degrees of freedom."""
    return float(special.stdtrit(n_replicates - 1, (1 + confidence) / 2))


def conditional_mean(
    value: Float[np.ndarray, "account kept"],
    ids: Int[np.ndarray, "account kept"],
    found: Tail,
    *,
    level: float,
    n_scenarios: int,
    n_replicates: int,
) -> tuple[Float[np.ndarray, " account"], Float[np.ndarray, " account"]]:
    """E[value | tail] and its standard error: of an Euler component, or of a pathwise derivative of the ES.

    The error is that of its influence function, w·1{L > VaR}(X − E[X | L = VaR])/(1 − α): the VaR is estimated too.
    """
    mean = total(found.weight * value)
    at_var = total(found.at_var * value)[:, None]
    error = replicate_deviation(
        found.in_tail * (value - at_var), ids, n_scenarios=n_scenarios, n_replicates=n_replicates
    )
    return mean, error / (1 - level)
