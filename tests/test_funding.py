"""Funding of perpetuals over the horizon, against calculation by hand; the table that holds it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pmvar
from pmvar.scenarios.stress import instantaneous
from pmvar.types import Greek, Precision, Sampling
from pmvar.valuation.today import values_and_greeks
from tests.books import load, problems_of
from tests.markets import DAY, instrument, portfolio, snapshot, specification, table

RATE = {"LINEAR": 0.0003, "INVERSE": 0.0003, "PAID": -0.001}
"""Of the notional a day: three times 0.01% each eight hours, and one that shorts pay."""
SPOT = 60_000.0


def market(**changes: object):  # noqa: ANN201
    found = snapshot({"BTC": (SPOT, "USD"), "SOL": (150.0, "EUR"), "EUR": (1.1, "USD")})
    return replace(found, **({"funding": RATE} | changes))


LISTED = table(
    [
        instrument("LINEAR", "perpetual", "BTC", size=0.1),
        instrument("INVERSE", "perpetual", "BTC", settlement="inverse", size=100.0),
        instrument("PAID", "perpetual", "SOL", quote="EUR", size=2.0),
        instrument("OTHER", "perpetual", "BTC"),
    ]
)


def test_by_hand() -> None:
    """Two days at 3 basis points a day: 3.60 of 6,000 linear; 0.000001 BTC of 100 USD inverse, at the later price."""
    shock = {"horizon": "2d", "n_scenarios": 1_024, "seed": 3, "sampling": Sampling.MC}
    model = specification({"BTC:spot": 0.03, "SOL:spot": 0.05, "EUR:spot": 0.006})
    drawn = pmvar.simulate(model, market(), **shock)
    held = portfolio(LISTED, {})

    def tile(funding: dict) -> dict[str, np.ndarray]:
        pnl = pmvar.reprice(held, market(funding=funding), drawn, precision=Precision.FLOAT64)
        return dict(zip(LISTED.instrument_id, np.asarray(next(iter(pnl)))[pnl.row][:, :1_024], strict=True))

    paid, free = tile(RATE), tile({})
    btc, _, euro = np.exp(np.asarray(drawn.tile(0).shock)[:1_024].T)
    assert np.allclose(free["LINEAR"] - paid["LINEAR"], 3.60)
    assert np.allclose(free["INVERSE"] - paid["INVERSE"], 100 / SPOT * 0.0006 * SPOT * btc)
    assert np.allclose(free["PAID"] - paid["PAID"], -2 * 150.0 * 0.002 * 1.1 * euro)
    assert np.array_equal(free["OTHER"], paid["OTHER"])


def test_theta_and_stress() -> None:
    """A day's funding is theta; a move at once has none."""
    _, greeks = values_and_greeks(LISTED, market())
    theta = dict(zip(LISTED.instrument_id, next(g.value for g in greeks if g.greek is Greek.THETA), strict=True))
    assert theta["LINEAR"] == pytest.approx(-1.80) and theta["INVERSE"] == pytest.approx(-0.03)
    assert theta["PAID"] == pytest.approx(0.33) and theta["OTHER"] == 0
    still = instantaneous(("BTC:spot", "SOL:spot", "EUR:spot"), market().as_of, np.zeros((1, 3)), ("0",))
    assert np.all(pmvar.reprice(portfolio(LISTED, {}), market(), still).standing == 0)
    assert DAY == 86_400


def test_table(tmp_path: Path) -> None:
    book = load(
        tmp_path, lambda rows: rows.update({"market/funding": [{"instrument_id": "BTC-PERPETUAL", "daily_rate": 3e-4}]})
    )
    assert book.market.funding == {"BTC-PERPETUAL": 3e-4}


@pytest.mark.parametrize(
    ("name", "rate", "rule"),
    [("BTC-28MAR25", 1e-4, "funding is of a perpetual"), ("GONE", 1e-4, "funding is of a perpetual"),
     ("BTC-PERPETUAL", 3.0, "must be between -1 and 1"), ("BTC-PERPETUAL", None, "")],
)  # fmt: skip
def test_rows_that_are_none(tmp_path: Path, name: str, rate: float | None, rule: str) -> None:
    rows = [{"instrument_id": name, "daily_rate": rate}]
    found = problems_of(tmp_path, lambda tables: tables.update({"market/funding": rows}))
    assert any(rule in p.rule and p.file.startswith("market/funding") for p in found), found
