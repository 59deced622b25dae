"""The assumed model: what an importer writes, having a snapshot and no history. Its numbers stand here."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from pmvar.errors import InputError, Problem
from pmvar.models.specification import Factor, ModelSpecification
from pmvar.types import FactorKind, factor_name

SOURCE = "assumed"
"""`source` of every factor written here; the report shows it."""
DEGREES_OF_FREEDOM = 4.0
"""Of all factors: daily returns of coins and equity indices fit 3 to 5."""
SPOT_CORRELATION = 0.8
"""Between any two spot factors, and any two vol factors."""
SPOT_VOL_CORRELATION = -0.3
"""Between a spot and its own vol."""
LOG_VOL_VOLATILITY = 0.9
"""Standard deviation of ln σ at `VOL_TENOR`, per √year."""
VOL_TENOR = 30.0
"""Days to expiry at which a vol factor is measured, and from which the spot volatility is read."""
TERM_EXPONENT = 0.4
"""Δ ln σ(τ) = x·(VOL_TENOR/τ)^TERM_EXPONENT: short expiries move more."""
PEGGED_VOLATILITY = 0.02
"""Of a stable coin against its peg, per √year: .1% a day, so .4% at 99% ES. The loss of a peg (USDC fell 12%
on 2023-03-11) belongs in the stress list."""
CURRENCY_VOLATILITY = 0.10
"""Of any other currency held as a balance, per √year, as for a G10 exchange rate."""


def assumed_correlation(n_underlyings: int, n_independent: int = 0) -> Float[np.ndarray, "factor factor"]:
    """Correlation of (spot₁, vol₁, spot₂, vol₂, …, independent factors).

    The Kronecker product of an equicorrelation SPOT_CORRELATION across underlyings (one common factor) and
    the 2×2 matrix of a spot and its own vol. So vol–vol is SPOT_CORRELATION and spot–other-vol
    SPOT_CORRELATION·SPOT_VOL_CORRELATION, and the matrix is positive definite for any number of underlyings,
    being a product of two that are.
    """
    across = np.full((n_underlyings, n_underlyings), SPOT_CORRELATION)
    np.fill_diagonal(across, 1.0)
    own = np.array([[1.0, SPOT_VOL_CORRELATION], [SPOT_VOL_CORRELATION, 1.0]])
    correlation = np.eye(2 * n_underlyings + n_independent)
    correlation[: 2 * n_underlyings, : 2 * n_underlyings] = np.kron(across, own)
    return correlation


def assumed_model(
    underlyings: Sequence[str],
    atm_vol: Float[np.ndarray, "underlying"],
    *,
    as_of: float,
    pegged: Sequence[str] = (),
    currencies: Sequence[str] = (),
    steps_per_year: int = 365,
) -> ModelSpecification:
    """Model `t` with assumed parameters; a spot's volatility is its 30-day at-the-money vol.

    `atm_vol` is a fraction per √year, one per underlying; `as_of` in epoch seconds. `pegged` names stable
    coins and `currencies` other currencies held as balances: a spot factor each, independent of all else.
    Raises InputError unless every `atm_vol` is positive and finite.
    """
    bad = [f"{name}: {vol}" for name, vol in zip(underlyings, atm_vol, strict=True) if not 0 < vol < np.inf]
    if bad:
        raise InputError(
            Problem(
                "the assumed spot volatility is the 30-day at-the-money vol, which must be positive",
                "give these underlyings a quoted vol",
                file="market/vols",
                value=", ".join(bad),
            )
        )
    step = math.sqrt(1.0 / steps_per_year)
    factors: list[Factor] = []
    for name, vol in zip(underlyings, atm_vol, strict=True):
        factors.append(_factor(name, FactorKind.SPOT, volatility=float(vol) * step))
        factors.append(_factor(name, FactorKind.VOL, volatility=LOG_VOL_VOLATILITY * step))
    for names, volatility in ((pegged, PEGGED_VOLATILITY), (currencies, CURRENCY_VOLATILITY)):
        factors.extend(_factor(name, FactorKind.SPOT, volatility=volatility * step) for name in names)
    return ModelSpecification(
        model="t",
        as_of=as_of,
        factors=tuple(factors),
        correlation=assumed_correlation(len(underlyings), len(pegged) + len(currencies)),
        steps_per_year=steps_per_year,
    )


def _factor(name: str, kind: FactorKind, *, volatility: float) -> Factor:
    """One assumed factor; `volatility` per step."""
    return Factor(
        factor_name(name, kind),
        volatility,
        DEGREES_OF_FREEDOM,
        SOURCE,
        tenor=VOL_TENOR,
        term_exponent=TERM_EXPONENT if kind is FactorKind.VOL else 0.0,
    )
