"""Basis factors: forwards that leave their spot, between expiries and beyond, in every product; what they cost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

import pmvar
from pmvar.calibration.calibrate import calibrate, estimate
from pmvar.calibration.panel import moves
from pmvar.cli.calibrate import read_factors
from pmvar.errors import InputError
from pmvar.instruments import Instruments
from pmvar.market.snapshot import MarketSnapshot
from pmvar.models.factor_points import point_time, sound_name
from pmvar.models.specification import Factor
from pmvar.risk.model_gradient import shock_slots
from pmvar.scenarios import ScenarioSet
from pmvar.scenarios.stress import instantaneous
from pmvar.types import Drift, Precision, Sampling
from pmvar.valuation.exposure import exposure, further_fields
from tests.markets import (
    AS_OF,
    DAY,
    YEAR,
    carry_curve,
    flat_rate,
    flat_vol,
    instrument,
    portfolio,
    snapshot,
    specification,
    table,
)

HORIZON = 2
DATES = ("2025-02-28", "2025-06-27")
"""28 and 147 days after `AS_OF`, a Friday at 08:00."""
SOON, NEAR, BETWEEN, FAR, LAST = AS_OF + DAY * np.array([1, 28, 57, 147, 400])
FACTORS = ("BTC:spot", "BTC:vol", f"BTC:basis.{DATES[0]}", f"BTC:basis.{DATES[1]}", "ETH:spot")
WEIGHT = {SOON: (0.0, 0.0), NEAR: (1.0, 0.0), BETWEEN: (90 / 119, 29 / 119), FAR: (0.0, 1.0), LAST: (0.0, 1.0)}
"""Of both factors at each expiry, linear in days."""
CARRY = 0.08
EXPIRIES = {"SOON": SOON, "NEAR": NEAR, "MID": BETWEEN, "FAR": FAR, "LAST": LAST}


def market() -> MarketSnapshot:
    return snapshot(
        {"BTC": (60_000.0, "USD"), "ETH": (3_000.0, "USD")},
        forwards={"BTC": carry_curve(60_000.0, CARRY), "ETH": carry_curve(3_000.0, CARRY)},
        discounts={"USD": flat_rate(0.04)},
        vols={"BTC": flat_vol(0.6)},
    )


def listed() -> Instruments:
    rows = [
        instrument("P", "perpetual", "BTC"),
        instrument("S", "spot", "BTC"),
        instrument("E", "future", "ETH", expiry=FAR),
    ]
    for name, expiry in EXPIRIES.items():
        rows += [
            instrument(f"F-{name}", "future", "BTC", expiry=expiry),
            instrument(f"I-{name}", "future", "BTC", settlement="inverse", size=100.0, expiry=expiry),
            instrument(f"C-{name}", "option", "BTC", expiry=expiry, strike=62_000.0, put_call="call"),
        ]
    return table(rows)


def shocks() -> np.ndarray:
    rng = np.random.default_rng(3)
    return rng.normal(size=(50, len(FACTORS))) * np.array([0.05, 0.0, 0.01, 0.03, 0.05])


def moved(shock: np.ndarray) -> ScenarioSet:
    """The moves at once, so that no drift and no decay are in the way."""
    return instantaneous(FACTORS, AS_OF, shock, tuple(map(str, range(len(shock)))))


def forwards(shock: np.ndarray, expiry: float, *, carry: float = CARRY) -> tuple[float, np.ndarray]:
    """F₀ and F₁ for an expiry, after moves at once."""
    today = 60_000.0 * np.exp(carry * (expiry - AS_OF) / YEAR)
    # At once nothing has settled: the first expiry is a day away, a 28th of the first factor's.
    near, far = WEIGHT[expiry] if expiry > SOON else (1 / 28, 0.0)
    return today, today * np.exp(shock[:, 0] + near * shock[:, 2] + far * shock[:, 3])


def black_call(forward: np.ndarray, time: float) -> np.ndarray:
    s = 0.6 * np.sqrt(time)
    d = np.log(forward / 62_000.0) / s + s / 2
    return np.exp(-0.04 * time) * (forward * stats.norm.cdf(d) - 62_000.0 * stats.norm.cdf(d - s))


def test_every_product_moves_with_its_forward() -> None:
    """Futures, inverse futures and options against formulas of the moved forward; spots and other coins stay."""
    shock, table_ = shocks(), listed()
    pnl = pmvar.reprice(portfolio(table_, {}), market(), moved(shock), precision=Precision.FLOAT64)
    tile = dict(zip(table_.instrument_id, np.asarray(next(iter(pnl)))[pnl.row][:, :50], strict=True))
    spot = np.exp(shock[:, 0])
    for name, expiry in EXPIRIES.items():
        before, after = forwards(shock, expiry)
        time = (expiry - AS_OF) / YEAR
        assert np.allclose(tile[f"F-{name}"], after - before, rtol=1e-10, atol=1e-7)
        assert np.allclose(tile[f"I-{name}"], 100 * (1 / before - 1 / after) * 60_000 * spot, rtol=1e-10, atol=1e-9)
        profit = black_call(after, time) - black_call(np.array([before]), time)
        assert np.allclose(tile[f"C-{name}"], profit, rtol=1e-9, atol=1e-7)
    assert np.allclose(tile["P"], 60_000 * (spot - 1)) and np.allclose(tile["S"], 60_000 * (spot - 1))
    curve = market().forwards["ETH"]
    assert np.allclose(tile["E"], curve.at(FAR) * np.expm1(shock[:, 4]))


def drawn(*, volatility: float = 0.002, seed: int = 1, **options: Any) -> ScenarioSet:
    sizes = {"BTC:spot": 0.03, **{f"BTC:basis.{d}": volatility for d in DATES}, "ETH:spot": 0.03, "BTC:vol": 0.05}
    model = specification({f: s for f, s in sizes.items() if s})
    return pmvar.simulate(
        model, market(), seed=seed, n_scenarios=4_096, horizon="2d", sampling=Sampling.SOBOL, **options
    )


def test_settled_futures_end_at_the_spot() -> None:
    """An expiry inside the horizon has no basis left, and later ones have that of their days."""
    table_ = listed()
    scenarios = drawn(drift=Drift.NONE)
    pnl = pmvar.reprice(portfolio(table_, {}), market(), scenarios, precision=Precision.FLOAT64)
    tile = dict(zip(table_.instrument_id, np.asarray(next(iter(pnl)))[pnl.row], strict=True))
    near = scenarios.factors.index(f"BTC:basis.{DATES[0]}")
    spot, basis = np.asarray(scenarios.tile(0).shock)[:, [0, near]].T
    curve = market().forwards["BTC"]
    carried = curve.at(NEAR) * np.exp(spot - CARRY * 2 * DAY / YEAR + basis) - curve.at(NEAR)
    assert np.allclose(tile["F-NEAR"], carried, rtol=1e-9, atol=1e-7)
    settled = np.asarray(scenarios.at(0, SOON))[:, 0]
    assert np.allclose(tile["F-SOON"], 60_000 * np.exp(settled) - curve.at(SOON), rtol=1e-9, atol=1e-6)


def test_calendar_spread() -> None:
    """Long one expiry and short another: without basis factors it loses nothing, with them a margin is asked for."""
    table_ = listed()
    far, near = (float(market().forwards["BTC"].at(t)) for t in (FAR, NEAR))

    def losses(volatility: float) -> np.ndarray:
        pnl = pmvar.reprice(portfolio(table_, {}), market(), drawn(volatility=volatility), precision=Precision.FLOAT64)
        tile = dict(zip(table_.instrument_id, np.asarray(next(iter(pnl)))[pnl.row], strict=True))
        return tile["F-NEAR"] * far / near - tile["F-FAR"]

    assert np.abs(losses(0.0)).max() < 1e-9 * far
    tail = np.sort(losses(0.002))[-4_096 // 100 :]
    # x_near − x_far over two days: a normal of 2·√2 steps' deviation, of a price that moves a few per cent itself.
    expected = far * 0.002 * np.sqrt(2 * HORIZON) * stats.norm.pdf(stats.norm.ppf(0.99)) / 0.01
    assert tail.mean() == pytest.approx(expected, rel=0.1)


def test_how_each_factor_reaches_each_product() -> None:
    """Exposures times what `shock_slots` says, which model gradients are made of, against differences."""
    table_, shock, h = listed(), shocks(), 1e-6
    held = portfolio(table_, {})

    def tile(shock: np.ndarray) -> np.ndarray:
        pnl = pmvar.reprice(held, market(), moved(shock), precision=Precision.FLOAT64)
        return np.asarray(next(iter(pnl)))[pnl.row][:, :50]

    pnl = pmvar.reprice(held, market(), moved(shock), precision=Precision.FLOAT64)
    assert further_fields(pnl.plan.layout) == ("basis",)
    found = exposure(pnl, 0)
    rows = np.asarray(found).transpose(1, 0, 2).reshape(found.shape[1], -1)[:, :50]
    _, slots = shock_slots(table_, pnl)
    for f in (2, 3):
        slope = sum(s.per_unit[:, None] * rows[s.first_row + pnl.row] for s in slots[f])
        step = h * (np.arange(len(FACTORS)) == f)
        assert np.allclose(slope, (tile(shock + step) - tile(shock - step)) / (2 * h), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    "name",
    ["BTC:basis", "BTC:basis.", "BTC:basis.2025-13-01", "BTC:basis.5", "USD:rate", "USD:rate.2025-01-01",
     "ACME:spread.1y", "BTC:spot.x", ":spread", "BTC:smirk"],
)  # fmt: skip
def test_names_that_are_none(name: str) -> None:
    assert not sound_name(name)
    with pytest.raises(InputError, match="a factor is named"):
        Factor(name, 0.01)


def test_points() -> None:
    assert point_time("2025-02-28", AS_OF) == AS_OF - 8 * 3_600 + 28 * DAY
    assert point_time("2w", AS_OF) == AS_OF + 14 * DAY
    assert point_time("10y", 0.0) == 10 * YEAR
    assert Factor("BTC:basis.90d", 0.01).kind == "basis" and Factor("USD:rate.1y", 0.01).underlying == "USD"


def test_calibrated_from_a_panel_of_levels(tmp_path: Path) -> None:
    """Levels move by differences, below zero too; volatilities and correlations are those of the differences."""
    rng, n = np.random.default_rng(4), 600
    steps = rng.multivariate_normal(np.zeros(3), [[4e-4, 1e-5, 0], [1e-5, 1e-6, 0], [0, 0, 4e-8]], n)
    price = 100 * np.exp(np.cumsum(steps[:, 0]))
    basis, rate = (level + np.cumsum(x) for level, x in ((0.01, steps[:, 1]), (0.001, steps[:, 2])))
    assert rate.min() < 0
    names = ("time", "BTC", "BTC:basis.90d", "USD:rate.1y")
    day = [str(np.datetime64("2023-01-01") + i) for i in range(n)]
    lines = [",".join(names)] + [f"{d},{a!r},{b!r},{c!r}" for d, a, b, c in
                                 zip(day, price.tolist(), basis.tolist(), rate.tolist(), strict=True)]  # fmt: skip
    (tmp_path / "history.csv").write_text("\n".join(lines) + "\n")
    panel, _, _ = read_factors(tmp_path / "history.csv", None, None)
    assert panel.name == ("BTC:spot", "BTC:basis.90d", "USD:rate.1y")
    found = calibrate(estimate(moves(panel), model="gaussian"), model="gaussian").specification
    volatility = {f.name: f.volatility for f in found.factors}
    assert volatility["BTC:basis.90d"] == pytest.approx(np.diff(basis).std(), rel=1e-9)
    assert volatility["USD:rate.1y"] == pytest.approx(np.diff(rate).std(), rel=1e-9)
    assert abs(found.correlation[0, 1] - 0.5) < 0.15
