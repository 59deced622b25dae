"""The drift of a price under the measure of a currency that it is not quoted in."""

from __future__ import annotations

from jaxtyping import Array, Float


def quanto_drift(
    vol: Float[Array, "*#shape"], time: Float[Array, "*#shape"], covariance: Float[Array, "*#shape"]
) -> Float[Array, "*#shape"]:
    """ln(F_q/F) = −ρσ_Sσ_Xτ of a price paid at a fixed rate of exchange.

    `vol` σ_S of the price, `covariance` ρσ_X: σ_X the volatility of the payout currency per unit of the price's own, ρ
    its correlation with the price. Source: Reiner (1992), as Haug (2007), section 5.16.
    """
    return -covariance * vol * time
