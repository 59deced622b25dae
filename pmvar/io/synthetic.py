"""The demonstration book: a synthetic market and synthetic accounts, the same bytes for the same seed.

Nothing in it was observed. Volatilities are SSVI surfaces (Gatheral and Jacquier 2014, eq. 4.1, with the
power law of their example 4.2): w(k) = θ/2·(1 + ρφk + √((φk + ρ)² + 1 − ρ²)), φ = η/√(θ(1 + θ)), free of
butterfly arbitrage while η(1 + |ρ|) ≤ 2, and of calendar arbitrage as θ(T) = σ_atm(T)²·T increases. Strikes
lie at the venue's steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from pmvar.calibration.assumed import VOL_TENOR, assumed_model
from pmvar.io.import_summary import ImportSummary, book_head, columns, expiry_label
from pmvar.io.populate import populate
from pmvar.io.times import parse_time
from pmvar.io.write_book import write_book
from pmvar.kernels.black import black
from pmvar.types import DAY, SECONDS_PER_YEAR, FactorKind, Kind, PutCall, Settlement, factor_name

COMMENT = "A synthetic book, for demonstrations and tests: neither prices nor accounts were ever real."
AS_OF = "2026-06-01T12:00:00Z"
EXPIRIES = ("2026-06-05", "2026-06-12", "2026-06-26", "2026-07-31", "2026-09-25", "2026-12-25")
"""Of the coins, at 08:00 UTC; the index has those from the third on, at 20:00 UTC."""
FUTURES = ("2026-06-26", "2026-09-25", "2026-12-25")
GRID = np.linspace(-2.4, 2.4, 9)
"""Strikes, in standard deviations of ln S at expiry."""


@dataclass(frozen=True)
class Listing:
    """One underlying: its market in a few numbers, and how it is listed."""

    name: str
    spot: float
    quote: str
    settlement: Settlement
    carry: float
    """ln(F/S) per year."""
    short_vol: float
    """At the money, at no time to expiry; goes to `long_vol` as e^{−T/VOL_DECAY}."""
    long_vol: float
    rho: float
    eta: float
    strike_step: float
    option_size: float
    future_size: float
    is_perpetual: bool
    """Whether a perpetual is listed."""


VOL_DECAY = 0.35
"""Years."""
LISTINGS = (
    Listing("BTC", 104e3, "USD", Settlement.INVERSE, 0.055, 0.42, 0.50, -0.15, 1.0, 1000.0, 1.0, 10.0, True),
    Listing("ETH", 2_600.0, "USD", Settlement.INVERSE, 0.045, 0.66, 0.68, -0.10, 1.0, 50.0, 1.0, 1.0, True),
    Listing("SOL", 158.0, "USDC", Settlement.LINEAR, 0.035, 0.80, 0.82, 0.05, 0.9, 2.0, 10.0, 1.0, True),
    Listing("EQX", 5_400.0, "USD", Settlement.LINEAR, 0.025, 0.13, 0.19, -0.65, 1.1, 25.0, 10.0, 10.0, False),
)
"""`EQX` is an invented equity index; the coins' prices and volatilities are round numbers of a plausible
size."""
HAIRCUTS = {"BTC": 0.10, "ETH": 0.15, "SOL": 0.30, "EQX": 1.0, "USDC": 0.01}
ZERO_RATES = {"USD": 0.04, "USDC": 0.04}
STRESS: dict[str, tuple[float, float, float, float]] = {
    "crash: coins -30% index -10% vol +80%": (-0.30, 0.80, -0.10, 0.80),
    "fall: coins -15% index -5% vol +40%": (-0.15, 0.40, -0.05, 0.40),
    "slide: coins -10% index -3% vol -10%": (-0.10, -0.10, -0.03, -0.10),
    "rally: coins +15% index +4% vol -10%": (0.15, -0.10, 0.04, -0.10),
    "squeeze: coins +30% index +8% vol +30%": (0.30, 0.30, 0.08, 0.30),
    "vol spike: vol +60%": (0.0, 0.60, 0.0, 0.60),
    "vol crush: vol -35%": (0.0, -0.35, 0.0, -0.35),
    "coins alone: coins -40% vol +100%": (-0.40, 1.00, 0.0, 0.0),
    "peg break: USDC -12% coins -5% vol +20%": (-0.05, 0.20, 0.0, 0.0),
}
"""Scenario -> (coins' spot, coins' vol, index's spot, index's vol), relative changes, parallel and
instantaneous."""
PEG_BREAK = ("peg break: USDC -12% coins -5% vol +20%", "USDC:spot", -0.12)


def ssvi_vol(
    log_moneyness: Float[np.ndarray, "strike"], *, year: float, listing: Listing
) -> Float[np.ndarray, "strike"]:
    """The listing's volatility (per √year) at log-moneyness k = ln(K/F), `year` years to expiry."""
    atm = listing.long_vol + (listing.short_vol - listing.long_vol) * np.exp(-year / VOL_DECAY)
    theta = atm**2 * year
    phi = listing.eta / np.sqrt(theta * (1 + theta))
    x = phi * log_moneyness
    variance = theta / 2 * (1 + listing.rho * x + np.sqrt((x + listing.rho) ** 2 + 1 - listing.rho**2))
    return np.sqrt(variance / year)


def synthetic_book(path: str | Path, *, n_accounts: int = 1000, seed: int = 7) -> ImportSummary:
    """Write the demonstration book into the folder `path`: market, instruments, model, stress list, accounts.

    Raises what `write_book` raises where the folder cannot be written.
    """
    as_of = parse_time(AS_OF)
    rows: dict[str, list[dict[str, object]]] = {"instruments": [], "market/forwards": [], "market/vols": []}
    rows["market/marks"] = []
    for listing in LISTINGS:
        _list(listing, as_of, rows)
    spots = [
        {"name": x.name, "price": x.spot, "currency": x.quote, "time": AS_OF, "haircut": HAIRCUTS[x.name]}
        for x in LISTINGS
    ]
    usdc = {"name": "USDC", "price": 1.0, "currency": "USD", "time": AS_OF, "haircut": HAIRCUTS["USDC"]}
    rows["market/spots"] = [*spots, usdc]
    rows["market/rates"] = [
        {"currency": c, "maturity": f"{day}T08:00:00Z", "zero_rate": rate}
        for c, rate in ZERO_RATES.items()
        for day in ("2026-06-05", "2026-12-25")
    ]
    rows["market/stress"] = _stress_rows()
    month = VOL_TENOR * DAY / SECONDS_PER_YEAR
    atm = np.array([ssvi_vol(np.zeros(1), year=month, listing=x)[0] for x in LISTINGS])
    model = assumed_model([x.name for x in LISTINGS], atm, as_of=as_of, pegged=["USDC"])
    write_book(path, book_toml=book_head(as_of), tables={name: columns(r) for name, r in rows.items()}, model=model)
    filled = populate(path, n_accounts=n_accounts, seed=seed, comment=COMMENT)
    counts = {name.removeprefix("market/"): len(r) for name, r in rows.items()}
    return ImportSummary(filled.path, {**counts, **filled.counts}, (COMMENT, *filled.notes))


def _list(listing: Listing, as_of: float, rows: dict[str, list[dict[str, object]]]) -> None:
    """Append the instruments, forwards, vols and marks of one underlying."""
    linear = listing.settlement is Settlement.LINEAR
    prefix = f"{listing.name}_{listing.quote}" if linear and listing.quote != "USD" else listing.name
    common = {
        "underlying": listing.name,
        "settlement": listing.settlement,
        "quote_currency": listing.quote,
        "settlement_currency": listing.quote if linear else listing.name,
    }

    def add(instrument_id: str, kind: Kind, size: float, **terms: object) -> None:
        rows["instruments"].append(
            {"instrument_id": instrument_id, "kind": kind, **common, "contract_size": size, **terms}
        )

    def mark(instrument_id: str, price: float) -> None:
        rows["market/marks"].append({"instrument_id": instrument_id, "mark": round(price, 8), "time": AS_OF})

    if listing.is_perpetual:
        add(f"{prefix}-PERPETUAL", Kind.PERPETUAL, listing.future_size)
        mark(f"{prefix}-PERPETUAL", listing.spot)
    for day in EXPIRIES if listing.is_perpetual else EXPIRIES[2:]:
        expiry = parse_time(f"{day}T{'08' if listing.is_perpetual else '20'}:00:00Z")
        label = expiry_label(expiry)
        year = (expiry - as_of) / SECONDS_PER_YEAR
        forward = round(listing.spot * float(np.exp(listing.carry * year)), 2)
        rows["market/forwards"].append({"underlying": listing.name, "expiry": expiry, "forward": forward})
        if day in FUTURES:
            add(f"{prefix}-{label}", Kind.FUTURE, listing.future_size, expiry=expiry)
            mark(f"{prefix}-{label}", forward)
        atm = ssvi_vol(np.zeros(1), year=year, listing=listing)[0]
        step = listing.strike_step
        strike = np.unique(np.round(forward * np.exp(GRID * atm * np.sqrt(year)) / step) * step)
        vol = np.round(ssvi_vol(np.log(strike / forward), year=year, listing=listing), 4)
        rows["market/vols"].extend(
            {"underlying": listing.name, "expiry": expiry, "strike": k, "implied_vol": v, "flag": ""}
            for k, v in zip(strike.tolist(), vol.tolist(), strict=True)
        )
        per_unit = float(np.exp(-ZERO_RATES[listing.quote] * year)) if linear else 1 / forward
        for put_call, sign in ((PutCall.CALL, 1.0), (PutCall.PUT, -1.0)):
            price = np.asarray(
                black(
                    jnp.full(len(strike), forward),
                    jnp.asarray(strike),
                    jnp.asarray(vol * np.sqrt(year)),
                    jnp.full(len(strike), sign),
                )
            )
            for k, p in zip(strike.tolist(), price.tolist(), strict=True):
                name = f"{prefix}-{label}-{k:g}-{put_call.name[0]}"
                terms = {"expiry": expiry, "strike": k, "put_call": put_call, "exercise": "european"}
                add(name, Kind.OPTION, listing.option_size, **terms)
                mark(name, p * per_unit)


def _stress_rows() -> list[dict[str, object]]:
    rows: list[dict[str, object]] = []
    for scenario, (coin_spot, coin_vol, index_spot, index_vol) in STRESS.items():
        for x in LISTINGS:
            spot, vol = (coin_spot, coin_vol) if x.is_perpetual else (index_spot, index_vol)
            for kind, shock in ((FactorKind.SPOT, spot), (FactorKind.VOL, vol)):
                if shock:
                    rows.append({"scenario": scenario, "factor": factor_name(x.name, kind), "shock": shock})
    scenario, factor, shock = PEG_BREAK
    return [*rows, {"scenario": scenario, "factor": factor, "shock": shock}]
