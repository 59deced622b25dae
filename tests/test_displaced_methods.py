"""Venue methods over prices at or below zero: a shifted price is margined as its lognormal twin, everything raised by
the shift; a Bachelier price by shares of its shift."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from pmvar.errors import InputError, UsageError
from pmvar.instruments import Instruments
from pmvar.io.accounts import generate_accounts
from pmvar.io.span_write import write_span
from pmvar.market.curves import ForwardCurve
from pmvar.market.price_scale import PriceScale
from pmvar.market.snapshot import MarketSnapshot
from pmvar.methods.grid import grid_margin
from pmvar.methods.grid_file import load_rules
from pmvar.methods.grid_gradient import grid_gradient
from pmvar.methods.isolated import isolated_margin
from pmvar.methods.span.default import default_arrays, default_span
from pmvar.methods.standard import standard_margin
from pmvar.methods.strategies import strategies
from pmvar.portfolio import Portfolio
from pmvar.scenarios import simulate, stress_scenarios
from pmvar.types import Drift, PriceModel
from tests.markets import AS_OF, DAY, flat_rate, flat_vol, instrument, portfolio, snapshot, specification, table

SHIFT, SPOT, EXPIRY = 5.0, -0.5, AS_OF + DAY * np.array([30.0, 90.0])
SHIFTED = PriceScale(PriceModel.SHIFTED, SHIFT)
BACHELIER = PriceScale(PriceModel.BACHELIER, 4.5)
MODEL = specification({"GAS:spot": 0.03, "GAS:vol": 0.05})
VENUES = ("derive", "tims")


def market(scale: PriceScale | None, lift: float = 0.0) -> MarketSnapshot:
    forward = np.array([-0.7, -0.2]) + lift
    curve = ForwardCurve(AS_OF, SPOT + lift, EXPIRY, forward, *([scale] if scale else []))
    found = snapshot({"GAS": (SPOT + lift, "USD")}, forwards={"GAS": curve}, discounts={"USD": flat_rate(0.04)},
                     vols={"GAS": flat_vol(0.6)})  # fmt: skip
    return replace(found, scales={"GAS": scale} if scale else {})


def instruments(lift: float = 0.0) -> Instruments:
    rows = [
        instrument(
            f"{right}-{t}-{i}", "option", "GAS", expiry=float(EXPIRY[t]), strike=k + lift, put_call=right, size=10.0
        )
        for t in (0, 1)
        for i, k in enumerate((-1.5, -0.7, 0.0, 0.6))
        for right in ("call", "put")
    ]
    rows += [instrument("future", "future", "GAS", expiry=float(EXPIRY[0]), size=10.0),
             instrument("perpetual", "perpetual", "GAS", size=10.0)]  # fmt: skip
    return table(rows)


def book(lift: float = 0.0) -> Portfolio:
    return portfolio(
        instruments(lift),
        {
            "short": {"call-0-2": -3.0, "put-0-0": -2.0, "put-1-1": -1.0},
            "spread": {"put-0-0": 4.0, "put-0-1": -4.0, "future": 1.0},
            "linear": {"perpetual": -7.0, "future": 2.0},
            "long": {"call-1-3": 5.0},
        },
    )


TWINS = ((market(SHIFTED), book()), (market(None, SHIFT), book(SHIFT)))
LINEAR = (market(BACHELIER), book())


@pytest.mark.parametrize("venue", VENUES)
def test_a_grid_margins_a_shifted_price_as_its_twin(venue: str) -> None:
    rules = load_rules(venue)
    one, other = (grid_margin(held, where, rules) for where, held in TWINS)
    np.testing.assert_allclose(one.initial, other.initial, rtol=1e-9)
    np.testing.assert_allclose(one.maintenance, other.maintenance, rtol=1e-9)
    one, other = (grid_gradient(held, where, rules)[0] for where, held in TWINS)
    np.testing.assert_allclose(one.log_spot, other.log_spot, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(one.vol, other.vol, rtol=1e-6, atol=1e-6)


def test_other_methods_margin_a_shifted_price_as_its_twin() -> None:
    isolated = [isolated_margin(held, where) for where, held in TWINS]
    np.testing.assert_allclose(isolated[0].initial, isolated[1].initial, rtol=1e-9)
    assert np.all(isolated[0].initial > 0)
    standard = [standard_margin(held, where, np.ones(len(held.instruments))) for where, held in TWINS]
    np.testing.assert_allclose(*standard, rtol=1e-12)
    span = []
    for where, held in TWINS:
        drawn = simulate(MODEL, where, seed=1, n_scenarios=4096, drift=Drift.NONE)
        span.append(default_span(where, MODEL, drawn)(held).initial)
    np.testing.assert_allclose(*span, rtol=1e-9)
    textbook = [strategies(held.instruments, where) for where, held in TWINS]
    assert textbook[0].account_id.tolist() == textbook[1].account_id.tolist()
    np.testing.assert_allclose(textbook[0].quantity.toarray(), textbook[1].quantity.toarray(), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("venue", VENUES)
def test_a_grid_moves_a_bachelier_price_by_shares_of_its_shift(venue: str) -> None:
    """Short calls and puts need something, nothing is infinite, and the slope by x is the difference's."""
    where, held = LINEAR
    rules, h = load_rules(venue), 1e-5
    found = grid_margin(held, where, rules)
    assert np.all(np.isfinite(found.initial)) and np.all(found.initial[[0, 1, 2]] > 0)
    slope = grid_gradient(held, where, rules)[0].log_spot

    def moved(x: float) -> np.ndarray:
        curve = where.forwards["GAS"]
        lifted = replace(curve, spot=curve.spot + 4.5 * x, forward=curve.forward + 4.5 * x)
        there = replace(where, spot=where.spot + 4.5 * x, forwards={"GAS": lifted})
        return grid_margin(held, there, rules).initial

    np.testing.assert_allclose(slope, (moved(h) - moved(-h)) / (2 * h), rtol=2e-4, atol=2e-3)


def test_other_methods_of_a_bachelier_price() -> None:
    where, held = LINEAR
    found = isolated_margin(held, where)
    assert np.all(found.initial[[0, 2]] > 0) and np.all(np.isfinite(found.initial))
    # A short future: SPAN's scan range is the model's quantile of |x| times A, in both months.
    drawn = simulate(MODEL, where, seed=1, n_scenarios=4096, drift=Drift.NONE)
    arrays, _ = default_arrays(held.instruments, where, MODEL, drawn)
    future = list(held.instruments.instrument_id).index("future")
    assert arrays.delta[future] == pytest.approx(10 * 4.5, rel=1e-9)
    np.testing.assert_allclose(arrays.loss[future].max(), -arrays.loss[future].min(), rtol=1e-9)
    naked = portfolio(held.instruments, {"puts": {"put-0-0": -1.0}})
    assert isolated_margin(naked, where).initial[0] > 0


def test_what_takes_ratios_refuses(tmp_path) -> None:
    where, held = LINEAR
    with pytest.raises(InputError, match="lognormal"):
        generate_accounts(held.instruments, where, n_accounts=1, seed=1)
    drawn = stress_scenarios({"a": {"GAS:spot": -0.1}}, MODEL, where)
    arrays, parameters = default_arrays(held.instruments, where, MODEL, drawn)
    with pytest.raises(UsageError, match="SPAN file"):
        write_span(tmp_path / "x.spn", held.instruments, where, arrays, parameters)
