"""American options in books: P&L under scenarios against QuantLib, limits, gradients, refusals, columns."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import QuantLib as ql

import pmvar
from pmvar.instruments import Instruments
from pmvar.kernels.smile import NODES
from pmvar.market.curves import DiscountCurve, ForwardCurve
from pmvar.market.snapshot import MarketSnapshot
from pmvar.market.surface import VolSlice, VolSurface
from pmvar.scenarios import ScenarioSet, stress_scenarios
from pmvar.types import PATH_TILE, Greek, Precision
from pmvar.valuation.blocks import Bump, block_pnl
from pmvar.valuation.exposure import Exposure, block_exposure
from pmvar.valuation.today import Moves, terms_today, values_and_greeks, values_under
from pmvar.valuation.world import World
from tests.markets import AS_OF, DAY, YEAR, instrument, portfolio, snapshot, specification, table

DAYS = (1, 20, 90, 400)
"""To expiry: the first inside the horizon of two days."""
EXPIRY = AS_OF + DAY * np.array(DAYS)
SPOT = {"STK": 50.0, "OIL": 80.0, "GAS": 3.0}
CARRY = {"STK": (0.03, 0.0, -0.02, 0.01), "OIL": (0.0, -0.02, 0.06, 0.03), "GAS": (0.2, 0.1, -0.1, 0.0)}
"""ln(F/S) per year at each expiry: dividends that come and go."""
DELIVERABLE = {"STK": "spot", "OIL": "future", "GAS": "spot"}
HORIZON = AS_OF + 2 * DAY


def smile(level: float) -> VolSurface:
    """Skewed, on a fine grid: the tabulated smile is then the smile to 1e-7."""
    k = np.linspace(-3, 3, 2001)
    return VolSurface(AS_OF, tuple(VolSlice(t, k, level * (1 - 0.2 * np.tanh(k) + 0.1 * k**2)) for t in EXPIRY))


def market(**changes: object) -> MarketSnapshot:
    found = snapshot(
        {name: (price, "USD") for name, price in SPOT.items()},
        forwards={
            name: ForwardCurve(AS_OF, price, EXPIRY, price * np.exp(np.array(CARRY[name]) * (EXPIRY - AS_OF) / YEAR))
            for name, price in SPOT.items()
        },
        discounts={"USD": DiscountCurve(AS_OF, EXPIRY, np.array([0.05, 0.045, 0.055, 0.06]))},
        vols={"STK": smile(0.3), "OIL": smile(0.4), "GAS": smile(0.7)},
    )
    return replace(found, **changes)


def options(exercise: str = "american") -> Instruments:
    rows = []
    for name, price in SPOT.items():
        for day, expiry in zip(DAYS, EXPIRY, strict=True):
            for ratio in (0.7, 0.9, 0.97, 1.0, 1.05, 1.3):
                for side in ("call", "put"):
                    rows.append(
                        instrument(f"{name}-{day:03d}-{ratio}-{side}", "option", name, expiry=float(expiry), size=2.0,
                                   strike=round(ratio * price, 4), put_call=side, exercise=exercise,
                                   deliverable=DELIVERABLE[name] if exercise == "american" else "")
                    )  # fmt: skip
    return table(rows)


AMERICAN, EUROPEAN = options(), options("european")
MODEL = specification(
    {f"{name}:{kind}": x for name in SPOT for kind, x in (("spot", 0.03), ("vol", 0.06))},
    model="t", degrees_of_freedom=4.0, correlation=0.3 * np.eye(6) + 0.7, term_exponent=0.4,
)  # fmt: skip


@pytest.fixture(scope="module")
def drawn() -> ScenarioSet:
    return pmvar.simulate(MODEL, market(), seed=3, n_scenarios=PATH_TILE, horizon="2d")


def held(instruments: Instruments) -> pmvar.Portfolio:
    return portfolio(instruments, {"A": dict.fromkeys(map(str, instruments.instrument_id), 1.0)})


def profit(
    instruments: Instruments, drawn: ScenarioSet, precision: str = "float32", where: MarketSnapshot | None = None
) -> np.ndarray:
    """P&L of one contract of each, [instrument, scenario]."""
    pnl = pmvar.reprice(held(instruments), where or market(), drawn, precision=Precision(precision))
    assert not pnl.plan.unpriced
    return np.asarray(pnl.tile(0), np.float64)[pnl.row][:, : drawn.n_scenarios]


FINE = ql.QdFpLegendreScheme(32, 10, 16, 64)
"""A thousand prices a second, within 3e-6 of the strike; `highPrecisionScheme` takes half a second each."""


def quantlib(
    scheme: ql.QdFpIterationScheme,
    spot: float,
    strike: float,
    vol: float,
    days: float,
    rate: float,
    held: float,
    sign: float,
) -> float:
    today, count = ql.Date(1, 1, 2026), ql.Actual365Fixed()
    ql.Settings.instance().evaluationDate = today
    flat = [ql.YieldTermStructureHandle(ql.FlatForward(today, x, count)) for x in (held, rate)]
    surface = ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.NullCalendar(), vol, count))
    process = ql.BlackScholesMertonProcess(ql.QuoteHandle(ql.SimpleQuote(spot)), *flat, surface)
    kind = ql.Option.Call if sign > 0 else ql.Option.Put
    end = today + round(days)
    option = ql.VanillaOption(ql.PlainVanillaPayoff(kind, strike), ql.AmericanExercise(today, end))
    option.setPricingEngine(ql.QdFpAmericanEngine(process, scheme))
    return option.NPV()


def terms_in(i: int, drawn: ScenarioSet, path: int | None) -> tuple[float, ...]:
    """Spot, strike, vol, days, rate, yield and sign of option i today (path None) or at the horizon of a path.

    Written from the definitions: F₁(T) = S₁·F₀(T)/F₀(h), D₁ = D₀(T)/D₀(h), the smile sticky in ln(K/F) and linear
    between `NODES`, which is the engine's own approximation and has its test with the European options.
    """
    where, a = market(), AMERICAN
    name, expiry, strike = str(a.underlying[i]), float(a.expiry[i]), float(a.strike[i])
    start = AS_OF if path is None else HORIZON
    curve, discount, year = where.forwards[name], where.discounts["USD"], (expiry - start) / YEAR
    carry = float(np.log(curve.at(expiry) / curve.at(start))) / year
    rate = float(np.log(discount.discount_factor(start) / discount.discount_factor(expiry))) / year
    spot, up, move, nodes = SPOT[name], 0.0, 0.0, np.zeros(1)
    if path is not None:
        shock = np.asarray(drawn.tile(0).shock)[path]
        move, nodes = float(shock[drawn.factors.index(f"{name}:spot")]), NODES
        x = shock[drawn.factors.index(f"{name}:vol")] * (30 / (year * 365)) ** 0.4
        up = drawn.vol_cap * np.tanh(x / drawn.vol_cap)
    k = np.log(strike / (spot * np.exp(carry * year))) - nodes
    vol = float(np.interp(move, nodes, where.vols[name].vol(k, expiry)) * np.exp(up))
    spot *= np.exp(move)
    forward = spot * np.exp(carry * year)
    sign = 1.0 if a.put_call[i] == "call" else -1.0
    if a.deliverable[i] == "future":
        return forward, strike, vol, year * 365, rate, rate, sign
    return spot, strike, vol, year * 365, rate, rate - carry, sign


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 3e-6), ("float32", 3.5e-6)])
def test_profit_against_quantlib(drawn: ScenarioSet, precision: str, tolerance: float) -> None:
    """The whole path: model, world, smile, boundaries, today's value; on paths at random and on the widest."""
    pnl = profit(AMERICAN, drawn, precision)
    rng, alive = np.random.default_rng(1), np.flatnonzero(AMERICAN.expiry > HORIZON)
    extreme = np.argsort(np.abs(np.asarray(drawn.tile(0).shock)).max(1))[-40:]
    error = []
    for count, i in enumerate(rng.choice(alive, 300)):
        path = int(rng.choice(extreme)) if count % 3 == 0 else int(rng.integers(PATH_TILE))
        today, then = (quantlib(FINE, *terms_in(i, drawn, p)) for p in (None, path))
        size = max(SPOT[str(AMERICAN.underlying[i])], float(AMERICAN.strike[i]))
        error.append(abs(pnl[i, path] / 2.0 - (then - today)) / size)
    assert max(error) <= tolerance
