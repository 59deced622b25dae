"""The books of the benchmarks: synthetic, in memory, the same for the same seed."""

from __future__ import annotations

from dataclasses import dataclass

import common  # noqa: F401 - puts the checkout on the path
import numpy as np
from scipy import sparse

from pmvar.instruments import Instruments
from pmvar.market.curves import DiscountCurve, ForwardCurve
from pmvar.market.snapshot import MarketSnapshot
from pmvar.market.surface import VolSlice, VolSurface
from pmvar.models.specification import Factor, ModelSpecification
from pmvar.portfolio import Portfolio
from pmvar.types import DAY, SECONDS_PER_YEAR

AS_OF = 1_767_225_600.0
"""2026-01-01T00:00Z."""

RATE = 0.03
GRID = np.linspace(-1.2, 1.2, 25)
"""Log-moneyness of the quotes."""


@dataclass(frozen=True)
class Book:
    """Linear European options on several underlyings, one expiry each, and random positions in them."""

    market: MarketSnapshot
    model: ModelSpecification
    portfolio: Portfolio


def make_book(
    n_underlyings: int,
    options_each: int,
    *,
    n_accounts: int = 1,
    positions: int = 20,
    smile: bool = True,
    horizon_days: float = 2.0,
    seed: int = 1,
) -> Book:
    """Options on `n_underlyings`, those of one all of different expiries, strikes within ±1.5 standard deviations.

    The first of each underlying expires one day after the horizon, the last after two years, so every option has its
    own forward and its own volatility in every scenario. `smile=False` keeps the volatility of an option whatever the
    move.
    """
    rng = np.random.default_rng(seed)
    names = [f"U{i:03d}" for i in range(n_underlyings)]
    days = horizon_days + np.geomspace(1.0, 730.0, options_each)
    expiry = AS_OF + np.round(days * DAY)
    year = (expiry - AS_OF) / SECONDS_PER_YEAR
    spot = np.round(100 * np.exp(0.3 * rng.standard_normal(n_underlyings)), 4)
    forwards, vols = {}, {}
    columns: dict[str, list] = {name: [] for name in ("instrument_id", "underlying", "expiry", "strike", "put_call")}
    for u, name in enumerate(names):
        forward = spot[u] * np.exp(0.02 * year)
        level = 0.15 + 0.45 * rng.random()
        forwards[name] = ForwardCurve(AS_OF, float(spot[u]), expiry, forward)
        skew = (-0.05 * GRID + 0.08 * GRID**2) * float(smile)
        vols[name] = VolSurface(AS_OF, tuple(VolSlice(float(t), GRID, level + skew) for t in expiry))
        columns["instrument_id"] += [f"{name}-{i:03d}" for i in range(options_each)]
        columns["underlying"] += [name] * options_each
        columns["expiry"] += expiry.tolist()
        strike = forward * np.exp(level * np.sqrt(year) * rng.uniform(-1.5, 1.5, options_each))
        columns["strike"] += strike.tolist()
        columns["put_call"] += rng.choice(["call", "put"], options_each).tolist()
    instruments = _instruments(columns)
    market = MarketSnapshot(
        as_of=AS_OF,
        base_currency="USD",
        asset=tuple(names),
        spot=spot,
        quote_currency=("USD",) * n_underlyings,
        haircut=np.zeros(n_underlyings),
        forwards=forwards,
        discounts={"USD": DiscountCurve(AS_OF, np.array([AS_OF + 365 * DAY]), np.array([RATE]))},
        vols=vols,
    )
    return Book(market, _model(names), _portfolio(instruments, n_accounts, positions, rng))


def _instruments(columns: dict[str, list]) -> Instruments:
    n = len(columns["instrument_id"])

    def constant(value: object) -> np.ndarray:
        return np.full(n, value, dtype=object)

    text = {name: np.array(columns[name], dtype=object) for name in ("instrument_id", "underlying", "put_call")}
    return Instruments(
        **text,
        kind=constant("option"),
        settlement=constant("linear"),
        quote_currency=constant("USD"),
        settlement_currency=constant("USD"),
        contract_size=np.ones(n),
        expiry=np.array(columns["expiry"]),
        strike=np.array(columns["strike"]),
        exercise=constant("european"),
        deliverable=constant(""),
    )


def _model(names: list[str]) -> ModelSpecification:
    """Student-t, four degrees of freedom: fat tails, so that extreme moves of price and volatility occur."""
    factors = tuple(
        Factor(f"{name}:{kind}", volatility, 4.0, "assumed", 0, 30.0, exponent)
        for name in names
        for kind, volatility, exponent in (("spot", 0.025, 0.0), ("vol", 0.05, 0.4))
    )
    n = len(names)
    correlation = np.kron(0.5 + 0.5 * np.eye(n), np.array([[1.0, -0.5], [-0.5, 1.0]]))
    return ModelSpecification("t", AS_OF, factors, correlation)


def _portfolio(instruments: Instruments, n_accounts: int, positions: int, rng: np.random.Generator) -> Portfolio:
    """Accounts of `positions` different options each, whole contracts long and short."""
    n = len(instruments)
    # Random distinct columns of each account: the smallest of random keys.
    column = np.concatenate(
        [np.sort(np.argpartition(rng.random(n), positions - 1)[:positions]) for _ in range(n_accounts)]
    )
    quantity = rng.integers(1, 51, n_accounts * positions) * rng.choice([-1.0, 1.0], n_accounts * positions)
    start = np.arange(0, n_accounts * positions + 1, positions)
    matrix = sparse.csr_array((quantity, column, start), shape=(n_accounts, n))
    names = np.array([f"A{i:06d}" for i in range(n_accounts)], dtype=object)
    return Portfolio(names, instruments, matrix)
