"""Markets, portfolios and runs in memory, for tests of the engine: inverse, linear, cross-currency, expiring."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

import pmvar
from pmvar.instruments import Instruments
from pmvar.io.times import parse_time
from pmvar.market.curves import DiscountCurve, ForwardCurve
from pmvar.market.snapshot import MarketSnapshot
from pmvar.market.surface import VolSlice, VolSurface
from pmvar.models.specification import Factor, ModelSpecification
from pmvar.portfolio import Portfolio, build_portfolio
from pmvar.report.margin_report import MarginReport
from pmvar.risk.rules import MarginRules
from pmvar.scenarios import ScenarioSet
from pmvar.types import DAY, SECONDS_PER_YEAR, Sampling

AS_OF = parse_time("2025-01-31T08:00:00Z")
SOON, NEAR, FAR = AS_OF + DAY, AS_OF + 28 * DAY, AS_OF + 56 * DAY
"""Expiries: one inside a horizon of two days, two beyond."""

SPOT = {"BTC": 100_000.0, "ETH": 3_000.0, "EQX": 5_000.0, "SOL": 150.0, "EUR": 1.08, "USDC": 0.999}
QUOTE = {"BTC": "USD", "ETH": "USD", "EQX": "EUR", "SOL": "USDC", "EUR": "USD", "USDC": "USD"}
HAIRCUT = {"BTC": 0.1, "ETH": 0.2, "EQX": 1.0, "SOL": 0.3, "EUR": 0.0, "USDC": 0.01}
CARRY = {"BTC": 0.06, "ETH": 0.05, "EQX": 0.02, "SOL": 0.03}
VOL = {"BTC": 0.55, "ETH": 0.7, "EQX": 0.18, "SOL": 0.85}
INVERSE = ("BTC", "ETH")
OPTIONED = ("BTC", "ETH", "EQX", "SOL")
MONEYNESS = np.array([-0.2, -0.1, 0.0, 0.1, 0.2])

Row = tuple[str, str, float]
"""(account, instrument or asset, quantity)"""


def smile(vol: float, expiry: float) -> VolSlice:
    """A slice on a fine grid, nearly smooth: a smirk and a smile, by log-moneyness."""
    k = np.linspace(-3.0, 3.0, 1201)
    wing = np.sqrt((expiry - AS_OF) / SECONDS_PER_YEAR / 0.15)
    return VolSlice(expiry, k, vol * (1 - 0.15 * np.tanh(k / wing) + 0.2 * (np.sqrt(1 + (k / wing) ** 2) - 1)))


def mixed_market(**changes: Any) -> MarketSnapshot:
    """Two coins, an index in euro, a coin in USDC; `changes` replaces fields."""
    names = tuple(sorted(SPOT))
    market = MarketSnapshot(
        as_of=AS_OF,
        base_currency="USD",
        asset=names,
        spot=np.array([SPOT[a] for a in names]),
        quote_currency=tuple(QUOTE[a] for a in names),
        haircut=np.array([HAIRCUT[a] for a in names]),
        forwards={
            u: ForwardCurve(
                AS_OF,
                SPOT[u],
                np.array([SOON, NEAR, FAR]),
                SPOT[u] * np.exp(CARRY[u] * (np.array([SOON, NEAR, FAR]) - AS_OF) / SECONDS_PER_YEAR),
            )
            for u in OPTIONED
        },
        discounts={
            c: DiscountCurve(AS_OF, np.array([NEAR, FAR]), np.array([rate, rate + 0.002]))
            for c, rate in (("USD", 0.04), ("EUR", 0.02), ("USDC", 0.05))
        },
        vols={u: VolSurface(AS_OF, tuple(smile(VOL[u], t) for t in (SOON, NEAR, FAR))) for u in OPTIONED},
    )
    return replace(market, **changes)


def table(rows: Sequence[Mapping[str, Any]]) -> Instruments:
    """Instruments from rows; a key that a row lacks has its usual blank."""
    blank = {"contract_size": 1.0, "expiry": np.inf, "strike": np.nan, "put_call": "", "deliverable": ""}
    full = [blank | {"exercise": "european" if row["kind"] == "option" else ""} | dict(row) for row in rows]
    text = (
        "instrument_id", "kind", "underlying", "settlement", "quote_currency", "settlement_currency", "put_call",
        "exercise", "deliverable",
    )  # fmt: skip
    columns = {
        name: np.array([r[name] for r in full], dtype=object if name in text else np.float64)
        for name in (*text, "contract_size", "expiry", "strike")
    }
    return Instruments(**columns).take(np.argsort(columns["instrument_id"].astype(str), kind="stable"))


def terms(underlying: str) -> dict[str, str]:
    """Settlement columns of what is listed on an underlying."""
    quote = QUOTE[underlying]
    inverse = underlying in INVERSE
    return {
        "underlying": underlying,
        "settlement": "inverse" if inverse else "linear",
        "quote_currency": quote,
        "settlement_currency": underlying if inverse else quote,
    }


def option(underlying: str, label: str, expiry: float, moneyness: float, put_call: str) -> dict[str, Any]:
    """One European option, its strike `moneyness` away from the spot in logarithms."""
    strike = float(f"{SPOT[underlying] * np.exp(moneyness):.4g}")
    name = f"{underlying}-{label}-{strike:g}-{put_call[0].upper()}"
    return {
        "instrument_id": name, "kind": "option", **terms(underlying), "expiry": expiry, "strike": strike,
        "put_call": put_call,
    }  # fmt: skip


def mixed_rows() -> list[dict[str, Any]]:
    """Options at three expiries, futures and perpetuals on each underlying, a linear option on a coin, a spot."""
    rows: list[dict[str, Any]] = []
    for u in OPTIONED:
        for label, expiry in (("SOON", SOON), ("NEAR", NEAR), ("FAR", FAR)):
            rows += [option(u, label, expiry, k, side) for k in MONEYNESS for side in ("call", "put")]
        rows.append({"instrument_id": f"{u}-NEAR", "kind": "future", **terms(u), "expiry": NEAR})
        rows.append({"instrument_id": f"{u}-PERPETUAL", "kind": "perpetual", **terms(u)})
    dollar = terms("BTC") | {"settlement": "linear", "settlement_currency": "USD"}
    rows.append(option("BTC", "LINEAR", NEAR, 0.05, "call") | dollar)
    rows.append({"instrument_id": "BTC_USD", "kind": "spot", **dollar})
    return rows


def mixed_instruments() -> Instruments:
    """The table of `mixed_rows`."""
    return table(mixed_rows())


def listed(positions: Iterable[Row]) -> Instruments:
    """Of the mixed market's instruments those that `positions` hold: what is not listed need not be priced."""
    held = {instrument for _, instrument, _ in positions}
    everything = mixed_instruments()
    return everything.take(np.flatnonzero([i in held for i in everything.instrument_id]))


def option_id(underlying: str, label: str, moneyness: float, put_call: str) -> str:
    """Id of one of the mixed market's options."""
    return str(option(underlying, label, NEAR, moneyness, put_call)["instrument_id"])


def mixed_model(nu: float = 4.0, **changes: Any) -> ModelSpecification:
    """Student-t of all prices and vols, correlated."""
    daily = {"BTC": 0.028, "ETH": 0.037, "EQX": 0.01, "SOL": 0.045, "EUR": 0.005, "USDC": 0.0004}
    factors = [Factor(f"{a}:spot", x, nu, "assumed") for a, x in daily.items()]
    factors += [Factor(f"{u}:vol", 0.047, nu, "assumed", 0, 30.0, 0.4) for u in OPTIONED]
    n, prices = len(factors), len(daily)
    correlation = np.full((n, n), 0.5)
    correlation[:prices, prices:] = correlation[prices:, :prices] = -0.2
    np.fill_diagonal(correlation, 1.0)
    return replace(ModelSpecification("t", AS_OF, tuple(factors), correlation), **changes)


def hold(
    positions: Iterable[Row], balances: Iterable[Row] = (), *, instruments: Instruments | None = None
) -> Portfolio:
    """The portfolio of rows over the mixed market's instruments."""
    held, owned = list(positions), list(balances)

    def column(rows: list[Row], i: int) -> np.ndarray:
        return np.array([r[i] for r in rows], dtype=float if i == 2 else object)

    return build_portfolio(
        mixed_instruments() if instruments is None else instruments,
        position_account=column(held, 0),
        position_instrument=column(held, 1),
        position_quantity=column(held, 2),
        balance_account=column(owned, 0),
        balance_asset=column(owned, 1),
        balance_amount=column(owned, 2),
    )


UNIT = {"BTC": 1.0, "ETH": 30.0, "EQX": 15.0, "SOL": 600.0}
"""Units of each underlying that make comparable positions."""


def sized(instrument_id: str, share: float) -> float:
    """Contracts of an instrument of the mixed market worth `share` BTC or so; inverse futures count dollars."""
    underlying, _, rest = instrument_id.replace("_", "-").partition("-")
    is_future = rest in ("NEAR", "PERPETUAL") and underlying in INVERSE
    return share * (100_000.0 if is_future else UNIT[underlying])


def random_rows(n_small: int, n_large: int, *, seed: int = 3, most: int = 100) -> tuple[list[Row], list[Row]]:
    """Positions and balances of small accounts (1 to 12 positions) and of large ones (`most` positions)."""
    rng = np.random.default_rng(seed)
    names = [str(i) for i in mixed_instruments().instrument_id]
    held: list[Row] = []
    owned: list[Row] = []
    for i in range(n_small + n_large):
        account = f"{'mm' if i >= n_small else 'small'}-{i:04d}"
        n = min(most, len(names)) if i >= n_small else int(rng.integers(1, 13))
        for instrument in rng.choice(names, n, replace=False):
            held.append((account, str(instrument), sized(str(instrument), float(rng.normal()))))
        for asset in rng.choice(sorted(SPOT) + ["USD"], int(rng.integers(0, 4)), replace=False):
            owned.append((account, str(asset), float(rng.normal() * 3e4 / SPOT.get(str(asset), 1.0))))
    return held, owned


def call(underlying: str, label: str = "NEAR", moneyness: float = 0.0) -> str:
    """A call of the mixed market."""
    return option_id(underlying, label, moneyness, "call")


def put(underlying: str, label: str = "NEAR", moneyness: float = 0.0) -> str:
    """A put of the mixed market."""
    return option_id(underlying, label, moneyness, "put")


def scenarios(market: MarketSnapshot, *, n: int = 4096, seed: int = 1, **options: Any) -> ScenarioSet:
    """Scenarios of the mixed model over two days."""
    model = options.pop("model", None) or mixed_model()
    # Equal weights, so that a test can write its reference down; other ways of sampling have tests of their own.
    options.setdefault("sampling", Sampling.MC)
    return pmvar.simulate(model, market, seed=seed, n_scenarios=n, **options)


def report(
    portfolio: Portfolio,
    market: MarketSnapshot | None = None,
    *,
    drawn: ScenarioSet | None = None,
    rules: MarginRules | None = None,
    n: int = 4096,
    precision: str = "float32",
    **options: Any,
) -> MarginReport:
    """The margin report of a portfolio in the mixed market."""
    from pmvar.types import Precision

    at = mixed_market() if market is None else market
    moves = scenarios(at, n=n) if drawn is None else drawn
    pnl = pmvar.reprice(portfolio, at, moves, precision=Precision(precision))
    return pmvar.margin_report(pnl, portfolio, rules or MarginRules(), **options)


def of(found: MarginReport, account: str, column: str, name: str = "margins") -> Any:
    """One number of one account, or an array of them."""
    rows = found.tables[name]
    values = rows[column][rows["account_id"] == account]
    return values[0] if name == "margins" else values


def assert_same_tables(one: MarginReport, other: MarginReport, *, names: Iterable[str] = ()) -> None:
    """Every column of every table equal to the bit, rows in the same order."""
    for name in names or one.tables:
        for column, values in one.tables[name].items():
            np.testing.assert_array_equal(values, other.tables[name][column], err_msg=f"{name}.{column}")
