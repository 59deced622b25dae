"""The mixed book of `tail_error.py`: what kinds of accounts a venue margins, and the four portfolios of the literature.

Twelve underlyings with spot and vol factors under a t of five degrees of freedom, 336 options (four expiries, seven
strikes) and a future on each; accounts of eight styles in turn, each drawn from its own stream of the seed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from _books import AS_OF, GRID, RATE, Book
from scipy import sparse

from pmvar.instruments import Instruments
from pmvar.market.curves import DiscountCurve, ForwardCurve
from pmvar.market.snapshot import MarketSnapshot
from pmvar.market.surface import VolSlice, VolSurface
from pmvar.models.specification import Factor, ModelSpecification
from pmvar.portfolio import Portfolio
from pmvar.types import DAY, SECONDS_PER_YEAR, PriceMap

SEED = 20_261_123
UNDERLYINGS, EXPIRIES, STRIKES = 12, (9.0, 30.0, 91.0, 182.0), np.linspace(-1.5, 1.5, 7)
"""Days, and strikes in standard deviations of the log forward."""

Legs = list[tuple[int, int, int, float]]
"""(underlying, expiry or −1 for the future, option within the expiry, quantity)"""


def mixed_book(n_accounts: int = 120, *, model: str = "t", **changes: object) -> Book:
    """The book; `model` and `changes` replace fields of its specification."""
    rng = np.random.default_rng(SEED)
    names = [f"U{i:02d}" for i in range(UNDERLYINGS)]
    level = rng.uniform(0.2, 0.8, UNDERLYINGS)
    expiry = AS_OF + np.array(EXPIRIES) * DAY
    year = np.array(EXPIRIES) * DAY / SECONDS_PER_YEAR
    skew = -0.08 * GRID + 0.12 * GRID**2
    market = MarketSnapshot(
        as_of=AS_OF, base_currency="USD", asset=tuple(names), spot=np.full(UNDERLYINGS, 100.0),
        quote_currency=("USD",) * UNDERLYINGS, haircut=np.zeros(UNDERLYINGS),
        forwards={u: ForwardCurve(AS_OF, 100.0, expiry, 100.0 * np.exp(RATE * year)) for u in names},
        discounts={"USD": DiscountCurve(AS_OF, np.array([AS_OF + 365 * DAY]), np.array([RATE]))},
        vols={
            u: VolSurface(AS_OF, tuple(VolSlice(float(t), GRID, v * (1 + skew)) for t in expiry))
            for u, v in zip(names, level, strict=True)
        },
    )  # fmt: skip
    rows: list[dict[str, object]] = []
    for u, v in zip(names, level, strict=True):
        rows.append({"instrument_id": f"{u}-F", "kind": "future", "underlying": u, "expiry": expiry[-1]})
        for t, tau in zip(expiry, year, strict=True):
            for i, k in enumerate(STRIKES):
                strike = 100.0 * np.exp(v * np.sqrt(tau) * k)
                # Out of the money: puts below, calls above.
                side = "put" if k < 0 else "call"
                name = f"{u}-{int(round((t - AS_OF) / DAY)):03d}-{i}"
                rows.append({"instrument_id": name, "kind": "option", "underlying": u, "expiry": t, "strike": strike,
                             "put_call": side})  # fmt: skip
    instruments = _table(rows)
    place = {name: i for i, name in enumerate(instruments.instrument_id)}

    def column(u: int, e: int, option: int) -> int:
        return place[f"{names[u]}-F" if e < 0 else f"{names[u]}-{int(EXPIRIES[e]):03d}-{option}"]

    quantity = np.zeros((n_accounts, len(instruments)))
    for a in range(n_accounts):
        own = np.random.default_rng((SEED, a))
        for u, e, option, amount in STYLES[a % len(STYLES)](own):
            quantity[a, column(u, e, option)] += amount
    factors = tuple(
        Factor(f"{u}:{kind}", float(x), 5.0, "assumed", 0, 30.0, exponent)
        for u, v in zip(names, level, strict=True)
        for kind, x, exponent in (("spot", v / np.sqrt(365), 0.0), ("vol", 0.9 / np.sqrt(365), 0.4))
    )
    correlation = np.kron(0.5 + 0.5 * np.eye(UNDERLYINGS), np.array([[1.0, -0.4], [-0.4, 1.0]]))
    specification = ModelSpecification(model, AS_OF, factors, correlation, **changes)  # pyright: ignore[reportArgumentType]
    account = np.array([f"{STYLES[a % len(STYLES)].__name__}-{a:03d}" for a in range(n_accounts)], dtype=object)
    order = np.argsort(account.astype(str), kind="stable")
    return Book(market, specification, Portfolio(account[order], instruments, sparse.csr_array(quantity[order])))


def _several(rng: np.random.Generator, most: int) -> np.ndarray:
    return rng.choice(UNDERLYINGS, rng.integers(1, most + 1), replace=False)


def market_maker(rng: np.random.Generator) -> Legs:
    """Both sides of 60 options, futures against their deltas at random."""
    legs: Legs = [
        (int(u), int(e), int(k), float(q))
        for u, e, k, q in zip(
            rng.integers(0, UNDERLYINGS, 60), rng.integers(0, 4, 60), rng.integers(0, 7, 60),
            rng.normal(0, 20, 60).round(), strict=True,
        )
    ]  # fmt: skip
    return legs + [(u, -1, 0, float(q)) for u, q in enumerate(rng.normal(0, 10, UNDERLYINGS).round())]


def short_strangles(rng: np.random.Generator) -> Legs:
    """Short out-of-the-money calls and puts on up to six underlyings."""
    return [(int(u), int(rng.integers(0, 3)), k, -10.0) for u in _several(rng, 6) for k in (1, 5)]


def long_straddles(rng: np.random.Generator) -> Legs:
    """Long at-the-money options and puts on up to four."""
    return [(int(u), int(rng.integers(0, 4)), k, 10.0) for u in _several(rng, 4) for k in (2, 3)]


def directional(rng: np.random.Generator) -> Legs:
    """Futures, all long or all short, with a few calls."""
    side = float(rng.choice([-1.0, 1.0]))
    return [leg for u in _several(rng, 5) for leg in ((int(u), -1, 0, side * 10), (int(u), 1, 5, 5.0))]


def covered_calls(rng: np.random.Generator) -> Legs:
    """Long the future, short a call above."""
    return [
        leg for u in _several(rng, 6) for leg in ((int(u), -1, 0, 10.0), (int(u), int(rng.integers(0, 3)), 4, -10.0))
    ]


def put_hedged(rng: np.random.Generator) -> Legs:
    """Long the future, long a put below."""
    return [leg for u in _several(rng, 6) for leg in ((int(u), -1, 0, 10.0), (int(u), 1, 1, 10.0))]


def calendars(rng: np.random.Generator) -> Legs:
    """Long a far option, short the near one at the same distance."""
    return [leg for u in _several(rng, 4) for k in (3,) for leg in ((int(u), 0, k, -10.0), (int(u), 2, k, 10.0))]


def relative_value(rng: np.random.Generator) -> Legs:
    """Long one underlying against another, vols too."""
    a, b = (int(u) for u in rng.choice(UNDERLYINGS, 2, replace=False))
    return [(a, -1, 0, 10.0), (b, -1, 0, -10.0), (a, 1, 3, 5.0), (b, 1, 3, -5.0)]


STYLES: tuple[Callable[[np.random.Generator], Legs], ...] = (
    market_maker, short_strangles, long_straddles, directional, covered_calls, put_hedged, calendars, relative_value,
)  # fmt: skip

# ---- Glasserman, Heidelberger and Shahabuddin (2002) -------------------------------------------------------------

HORIZON_DAYS = 15
STRETCH = HORIZON_DAYS / 365 / 0.04
"""The horizon of .04 years is no whole number of days: times are stretched to 15 days, rates shrunk by as much."""

GHS = {
    # years to expiry, (call strike, put strike), calls, puts
    "0.5yr ATM": (0.5, (100.0, 100.0), -10.0, -5.0),
    "0.1yr ATM": (0.1, (100.0, 100.0), -10.0, -5.0),
    "DH 0.1": (0.1, (100.0, 100.0), -10.0, -11.7336),
    "OTM": (0.25, (110.0, 90.0), -10.0, -10.0),
}
GHS_EXACT = {
    # (VaR99, ES99) under the normal law and under a t of five degrees of freedom
    "0.5yr ATM": ((185.353, 218.056), (312.925, 490.835)),
    "0.1yr ATM": ((200.751, 239.348), (461.982, 702.227)),
    "DH 0.1": ((211.006, 250.607), (634.215, 971.347)),
    "OTM": ((111.058, 133.451), (358.605, 602.232)),
}


def ghs_book(name: str, *, degrees_of_freedom: float | None) -> Book:
    """Ten independent assets at 100, volatility .3, rate .05, additive moves; short calls and puts on each."""
    years, strikes, calls, puts = GHS[name]
    assets = [f"A{i}" for i in range(10)]
    rate, vol = 0.05 / STRETCH, 0.3 / np.sqrt(STRETCH)
    expiry = AS_OF + years * STRETCH * SECONDS_PER_YEAR
    forward = 100.0 * np.exp(rate * (expiry - AS_OF) / SECONDS_PER_YEAR)
    market = MarketSnapshot(
        as_of=AS_OF, base_currency="USD", asset=tuple(assets), spot=np.full(10, 100.0),
        quote_currency=("USD",) * 10, haircut=np.zeros(10),
        forwards={a: ForwardCurve(AS_OF, 100.0, np.array([expiry]), np.array([forward])) for a in assets},
        discounts={"USD": DiscountCurve(AS_OF, np.array([expiry]), np.array([rate]))},
        vols={a: VolSurface(AS_OF, (VolSlice(float(expiry), np.array([-1.0, 1.0]), np.full(2, vol)),)) for a in assets},
    )  # fmt: skip
    rows = [
        {"instrument_id": f"{a}-{right}", "kind": "option", "underlying": a, "expiry": expiry, "strike": strike,
         "put_call": right}
        for a in assets
        for right, strike in zip(("call", "put"), strikes, strict=True)
    ]  # fmt: skip
    instruments = _table(rows)
    step = 0.3 * np.sqrt(0.04 / HORIZON_DAYS)
    factors = tuple(
        Factor(f"{a}:{kind}", x, degrees_of_freedom, "cited")
        for a in assets
        for kind, x in (("spot", step), ("vol", 0.0))
    )
    model = ModelSpecification(
        "gaussian" if degrees_of_freedom is None else "t", AS_OF, factors, np.eye(20), price_map=PriceMap.LINEAR
    )
    amount = np.where(instruments.put_call == "call", calls, puts).astype(float)
    return Book(market, model, Portfolio(np.array([name], dtype=object), instruments, sparse.csr_array(amount[None])))


def _table(rows: list[dict[str, object]]) -> Instruments:
    blank = {"contract_size": 1.0, "strike": np.nan, "put_call": "", "settlement": "linear", "quote_currency": "USD",
             "settlement_currency": "USD", "deliverable": ""}  # fmt: skip
    for row in rows:
        row["exercise"] = "european" if row["kind"] == "option" else ""
    full = sorted(({**blank, **row} for row in rows), key=lambda r: str(r["instrument_id"]))
    numbers = ("contract_size", "expiry", "strike")
    return Instruments(
        **{
            name: np.array([r[name] for r in full], dtype=np.float64 if name in numbers else object)
            for name in ("instrument_id", "kind", "underlying", "settlement", "quote_currency", "settlement_currency",
                         "put_call", "exercise", "deliverable", *numbers)
        }
    )  # fmt: skip
