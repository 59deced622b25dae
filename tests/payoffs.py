"""What the tests of option payoffs share: a market with smooth smiles, scenarios of it, and the state that each option
is valued in at the horizon, written from the definitions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

import pmvar
from pmvar.instruments import Instruments
from pmvar.market.curves import DiscountCurve, ForwardCurve
from pmvar.market.snapshot import MarketSnapshot, Quanto
from pmvar.market.surface import VolSlice, VolSurface
from pmvar.scenarios import ScenarioSet, stress_scenarios
from pmvar.types import PATH_TILE, FactorKind, Greek, Precision, Sampling, factor_name
from pmvar.valuation.exposure import block_exposure
from pmvar.valuation.today import STILL, terms_today, values_and_greeks, values_under
from tests.markets import AS_OF, DAY, YEAR, instrument, portfolio, snapshot, specification
from tests.test_gradient import bumped

SPOT = {"ABC": (50.0, "USD"), "BTC": (60_000.0, "USD"), "DAX": (5_000.0, "EUR"), "EUR": (1.08, "USD")}
DAYS = (1.3, 2.5, 20.0, 200.0)
"""To expiry: the first inside the horizon of two days."""
EXPIRY = AS_OF + DAY * np.array(DAYS)
CARRY = {"ABC": (0.03, 0.03, 0.02, 0.04), "BTC": (0.1, 0.1, 0.08, 0.05), "DAX": (-0.01, 0.0, 0.0, 0.01)}
"""ln(F/S) per year at each expiry."""


def smile(level: float) -> VolSurface:
    """Skewed, on a fine grid: quotes are so near each other that the raw surface is smooth."""
    k = np.linspace(-4, 4, 8001)
    return VolSurface(
        AS_OF, tuple(VolSlice(t, k, level * (1 - 0.2 * np.tanh(k) + 0.1 * np.tanh(k) ** 2)) for t in EXPIRY)
    )


@cache
def market() -> MarketSnapshot:
    """Three underlyings, one of them in a foreign currency."""
    found = snapshot(
        SPOT,
        forwards={
            u: ForwardCurve(AS_OF, SPOT[u][0], EXPIRY, SPOT[u][0] * np.exp(np.array(c) * (EXPIRY - AS_OF) / YEAR))
            for u, c in CARRY.items()
        },
        discounts={
            "USD": DiscountCurve(AS_OF, EXPIRY, np.array([0.04, 0.045, 0.05, 0.055])),
            "EUR": DiscountCurve(AS_OF, EXPIRY, np.array([0.02, 0.02, 0.025, 0.03])),
        },
        vols={"ABC": smile(0.3), "BTC": smile(0.65), "DAX": smile(0.18)},
    )
    return replace(found, quanto={("BTC", "EUR"): Quanto(-0.4, 0.08), ("DAX", "USD"): Quanto(0.3, 0.1)})


MODEL = specification(
    {"ABC:spot": 0.02, "ABC:vol": 0.05, "BTC:spot": 0.035, "BTC:vol": 0.06, "DAX:spot": 0.012, "DAX:vol": 0.05,
     "EUR:spot": 0.005},
    model="t", degrees_of_freedom=4.0, correlation=0.4 * np.eye(7) + 0.6, term_exponent=0.4,
)  # fmt: skip


@cache
def drawn() -> ScenarioSet:
    """One tile."""
    return pmvar.simulate(MODEL, market(), seed=2, n_scenarios=PATH_TILE, horizon="2d", sampling=Sampling.MC)


def row(name: str, kind: str, underlying: str, *, settlement: str = "linear", **columns: Any) -> dict[str, object]:
    """One instrument; product columns by name."""
    known = {"size", "expiry", "strike", "put_call", "settled_in"}
    own = {c: x for c, x in columns.items() if c in known}
    quote = SPOT[underlying][1]
    made = instrument(name, kind, underlying, settlement=settlement, quote=quote, **own)
    return made | {c: x for c, x in columns.items() if c not in known}


def listed(rows: Sequence[Mapping[str, object]]) -> Instruments:
    """Rows as a table, sorted by id; columns that a row leaves out are blank."""
    rows = sorted(rows, key=lambda r: str(r["instrument_id"]))
    columns: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(c for r in rows for c in r):
        numeric = any(isinstance(r.get(name), float) for r in rows)
        blank = np.nan if numeric else ""
        columns[name] = np.array([r.get(name, blank) for r in rows], float if numeric else object)
    return Instruments(**columns)


def profit(
    instruments: Instruments,
    *,
    precision: str = "float64",
    where: MarketSnapshot | None = None,
    scenarios: ScenarioSet | None = None,
) -> np.ndarray:
    """P&L of one contract of each, [instrument, scenario]."""  # fmt: skip
    held = portfolio(instruments, {"A": dict.fromkeys(map(str, instruments.instrument_id), 1.0)})
    scenarios = scenarios or drawn()
    pnl = pmvar.reprice(held, where or market(), scenarios, precision=Precision(precision))
    assert not pnl.plan.unpriced
    return np.asarray(pnl.tile(0), np.float64)[pnl.row][:, : scenarios.n_scenarios]


@dataclass(frozen=True)
class State:
    """What one option is valued in, each an array of scenarios, or of one entry for today."""

    spot: np.ndarray
    forward: np.ndarray
    discount: float
    """To expiry, in the settlement currency."""
    money: np.ndarray
    """Base price of the settlement currency."""
    time: float
    vol: Callable[[np.ndarray], np.ndarray]
    """By ln(K/F)."""


def today(i: Instruments, where: MarketSnapshot) -> State:
    """Of a table of one."""
    u, expiry = str(i.underlying[0]), float(i.expiry[0])
    return State(
        spot=np.array([SPOT[u][0]]),
        forward=np.atleast_1d(where.forwards[u].at(expiry)),
        discount=float(where.discounts[str(i.settlement_currency[0])].discount_factor(expiry))
        if i.settlement[0] != "inverse" else 1.0,
        money=np.array([where.base_price(str(i.settlement_currency[0]))]),
        time=(expiry - AS_OF) / YEAR,
        vol=lambda k: where.vols[u].vol(k, expiry),
    )  # fmt: skip


@cache
def _shock(time: float) -> np.ndarray:
    return np.asarray(drawn().at(0, time) if np.isfinite(time) else drawn().tile(0).shock)


def horizon(i: Instruments, where: MarketSnapshot, scenarios: ScenarioSet) -> State:
    """Of a table of one at the horizon, or at its expiry before: F₁ = S₁F₀(T)/F₀(h), the smile sticky in ln(K/F)."""
    u, expiry, end = str(i.underlying[0]), float(i.expiry[0]), scenarios.horizon_end
    inside = expiry <= end
    shock, then = _shock(np.inf), _shock(expiry if inside else np.inf)

    def move(name: str, at: np.ndarray) -> np.ndarray:
        factor = factor_name(name, FactorKind.SPOT)
        return np.exp(at[:, scenarios.factors.index(factor)]) if name != "USD" else np.ones(len(at))

    spot, curve = SPOT[u][0] * move(u, then), where.forwards[u]
    forward = spot if inside else spot * float(curve.at(expiry) / curve.at(end))
    currency, money = str(i.settlement_currency[0]), np.ones(len(shock))
    for column in where.chain(currency):
        money = money * where.spot[column] * move(where.asset[column], shock)
    f = scenarios.factors.index(factor_name(u, FactorKind.VOL))
    years = max(expiry - end, 0.0) / YEAR
    x = shock[:, f] * (scenarios.tenor[f] / max(years * 365, 1.0)) ** scenarios.term_exponent[f]
    ratio = np.exp(scenarios.vol_cap * np.tanh(x / scenarios.vol_cap))
    inverse = i.settlement[0] == "inverse"
    discount = where.discounts.get(currency)
    factor = 1.0 if inside or inverse or discount is None else float(
        discount.discount_factor(expiry) / discount.discount_factor(end)
    )  # fmt: skip
    return State(spot, forward, factor, money, years, lambda k: ratio * where.vols[u].vol(k, expiry))


def black(forward: np.ndarray, strike: Any, deviation: np.ndarray, sign: float) -> np.ndarray:
    """Undiscounted; the intrinsic value where there is no deviation."""
    with np.errstate(divide="ignore", invalid="ignore"):
        d = np.log(forward / strike) / deviation + deviation / 2
        live = sign * (forward * stats.norm.cdf(sign * d) - strike * stats.norm.cdf(sign * (d - deviation)))
    return np.where(deviation > 0, live, np.maximum(sign * (forward - strike), 0.0))


def check_gradients(instruments: Instruments, *, size: np.ndarray, most: float, rows: np.ndarray | None = None) -> None:
    """P&L's derivatives by today's price, vol and rate against the same scenarios in displaced markets.

    The error, over `size` [instrument], is at most `most` in root mean square.
    """
    where, scenarios = market(), drawn()
    held = portfolio(instruments, {"A": dict.fromkeys(map(str, instruments.instrument_id), 1.0)})
    pnl = pmvar.reprice(held, where, scenarios, precision=Precision.FLOAT64)
    world = pnl.plan.layout.world(0)
    found = [block_exposure(block.tangent(world), world, scenarios.vol_cap) for _, block in pnl.plan.blocks]
    stacked = {f: np.asarray(pnl.stacked([getattr(x, f) for x in found]))[pnl.row] for f in found[0]._fields[:-1]}
    assert all(np.isfinite(x).all() for x in stacked.values())
    rows = np.arange(len(instruments)) if rows is None else rows
    for field, kind, names in (
        ("log_spot", "spot", CARRY), ("vol", "vol", CARRY), ("rate", "rate", ("USD", "EUR")),
    ):  # fmt: skip
        width = 1e-4
        up, down = where, where
        for name in names:
            step = np.expm1(width) if kind == "spot" else width
            up, down = (
                bumped(up, f"{name}:{kind}", step),
                bumped(down, f"{name}:{kind}", np.expm1(-width) if kind == "spot" else -width),
            )
        slope = (profit(instruments, where=up) - profit(instruments, where=down)) / (2 * width)
        own = stacked[field].copy()
        if field == "log_spot":
            # A price moves what settles in it, too.
            own += stacked["log_settlement"] * (instruments.settlement_currency == instruments.underlying)[:, None]
        # Inverse options hold no discounting, and nobody asks them for it.
        asked = 1.0 if field != "rate" else (instruments.settlement != "inverse").astype(float)[:, None]
        error = (asked * (own - slope))[rows] / size[rows, None]
        assert np.sqrt(np.mean(error**2)) <= most, (field, np.sqrt(np.mean(error**2)))


def check_greeks(instruments: Instruments, *, tolerance: float) -> None:
    """Greeks against differences of today's values, which are also what grids see; and their value against P&L."""
    where = market()
    value, found = values_and_greeks(instruments, where)
    terms = terms_today(instruments, where)
    still = profit(instruments, scenarios=stress_scenarios({"nothing": {}}, MODEL, where))
    size = 2.0 * np.array([where.base_price(u) for u in instruments.underlying])
    assert np.max(np.abs(still[:, 0]) / size) <= 1e-12
    np.testing.assert_allclose(values_under(instruments, terms, STILL)[:, 0], value, rtol=1e-12)

    def change(width: float, **field: float) -> np.ndarray:
        up, down = (
            values_under(
                instruments,
                terms,
                STILL._replace(
                    **{f: s * width for f, s in field.items()}
                    if sign > 0
                    else {f: -s * width for f, s in field.items()}
                ),
            )[:, 0]
            for sign in (1, -1)
        )
        return (up - down) / (2 * width)

    def greek(name: Greek, factors: Callable[[int], str]) -> np.ndarray:
        by = {(s.factor, s.greek): s.value for s in found}
        return np.array([by.get((factors(i), name), np.zeros(len(value)))[i] for i in range(len(value))])

    spot = np.array([SPOT[u][0] for u in instruments.underlying])
    coin = instruments.settlement_currency == instruments.underlying
    by_log = change(1e-5, log_spot=1.0) + coin * change(1e-5, log_settlement=1.0)
    for name, expected, factor in (
        (Greek.DELTA, by_log / spot, lambda i: f"{instruments.underlying[i]}:spot"),
        (Greek.VEGA, change(1e-5, vol=1.0), lambda i: f"{instruments.underlying[i]}:vol"),
        (Greek.THETA, change(1e-6, clock=1.0) * DAY / YEAR, lambda i: "time"),
    ):  # fmt: skip
        own = greek(name, factor)
        assert np.all(np.isfinite(own))
        scale = np.maximum(np.abs(expected), 1e-3 * np.abs(expected).max())
        assert np.max(np.abs(own - expected) / scale) <= tolerance, name


def check_finite(kernel: Callable[..., jax.Array], columns: Sequence[np.ndarray], by: Sequence[int]) -> None:
    """No value or gradient of `kernel` by its arguments `by` that is not finite, in float32 and float64, and the two
    agree to 3e-5 of the largest value."""
    found = []
    for dtype in (jnp.float64, jnp.float32):
        given = [jnp.asarray(c, dtype) for c in columns]

        @jax.jit
        def both(*args: jax.Array) -> tuple[jax.Array, ...]:
            value, pull = jax.vjp(lambda *some: kernel(*_with(args, by, some)), *(args[i] for i in by))
            return value, *pull(jnp.ones_like(value))

        value, *slopes = both(*given)
        assert value.dtype == dtype
        for x in (value, *slopes):
            assert np.isfinite(np.asarray(x)).all()
        found.append(np.asarray(value, float))
    assert np.max(np.abs(found[0] - found[1])) <= 3e-5 * max(1.0, np.abs(found[0]).max())


def _with(args: Sequence[Any], by: Sequence[int], some: Sequence[Any]) -> list[Any]:
    out = list(args)
    for i, x in zip(by, some, strict=True):
        out[i] = x
    return out
