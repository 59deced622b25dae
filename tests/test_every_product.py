"""Everything that can be listed in one book, through `pmvar run` to its report; and payoffs on fitted smiles."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from pmvar.cli.app import app
from pmvar.io.run import read_run
from pmvar.kernels.digital import normalised_digital
from pmvar.models.specification import Factor, ModelSpecification
from pmvar.portfolio import Portfolio
from pmvar.types import Kind, PriceModel, Settlement
from tests.books import AS_OF, FAR, NEAR, small_book, small_model, small_toml
from tests.test_fitted_smile import RHO, SMALL, SPOT, STRIKES, THETA, TIMES, YEAR, call, holdings, phi, pnl, ssvi
from tests.test_payoff_books import LINEAR, OPTION, PRODUCTS, rows

OIL = {"settlement": "linear", "quote_currency": "USD", "settlement_currency": "USD", "contract_size": 100.0}
FURTHER: dict[str, dict[str, Any]] = {
    "AMERICAN": {**OPTION, **LINEAR, "kind": "option", "exercise": "american", "put_call": "put"},
    "FUTURE": {"underlying": "BTC", **LINEAR, "kind": "future", "expiry": NEAR},
    "FUTURE-LATER": {"underlying": "BTC", **LINEAR, "kind": "future", "expiry": FAR},
    "PERPETUAL": {"underlying": "ETH", **LINEAR, "kind": "perpetual"},
    "NOTE": {"underlying": "ACME", **LINEAR, "contract_size": 1_000.0, "kind": "bond", "expiry": "2030-06-30T00:00:00Z",
             "coupon": 0.05, "frequency": 2, "day_count": "30/360"},
    "BILL": {"underlying": "ACME", **LINEAR, "contract_size": 1_000.0, "kind": "bond", "expiry": FAR, "coupon": 0.0},
    "WTI-FUTURE": {"underlying": "WTI", **OIL, "kind": "future", "expiry": FAR},
    "WTI-PUT": {"underlying": "WTI", **OIL, "kind": "option", "expiry": FAR, "strike": -5.0, "put_call": "put",
                "exercise": "european"},
    "GAS-CALL": {"underlying": "GAS", **OIL, "kind": "option", "expiry": FAR, "strike": 0.0, "put_call": "call",
                 "exercise": "european"},
}  # fmt: skip
ALL = {**PRODUCTS, **FURTHER}


def everything() -> dict[str, list[dict[str, Any]]]:
    """The book of payoffs, and what else there is."""
    found = rows()
    found["instruments"] += [{"instrument_id": name, **terms} for name, terms in FURTHER.items()]
    found["positions"] += [
        {"account_id": account, "instrument_id": name, "quantity": sign * 10.0}
        for account, sign in (("long", 1), ("short", -1)) for name in FURTHER
    ]  # fmt: skip
    for name, price, model, shift in (("WTI", -2.0, "bachelier", 20.0), ("GAS", 1.0, "shifted", 5.0)):
        found["market/spots"].append({"name": name, "price": price, "currency": "USD", "time": AS_OF, "haircut": 0.0,
                                      "price_model": model, "shift": shift})  # fmt: skip
        found["market/forwards"].append({"underlying": name, "expiry": FAR, "forward": price + 3.0})
        found["market/vols"] += [
            {"underlying": name, "expiry": FAR, "strike": k, "implied_vol": 0.6 + k / 100} for k in (-4.5, 0.0, 10.0)
        ]
    found["market/spreads"] = [{"underlying": "ACME", "spread": 0.02}]
    found["market/dividends"] = [
        {"underlying": FURTHER["AMERICAN"]["underlying"], "ex_date": day, "amount": 10.0, "currency": "USD"}
        for day in ("2025-02-01T00:00:00Z", "2025-02-20T00:00:00Z")
    ]
    found["market/funding"] = [{"instrument_id": "PERPETUAL", "daily_rate": 3e-4}]
    return found


def model() -> ModelSpecification:
    base = small_model()
    sizes = {"WTI:spot": 0.05, "WTI:vol": 0.06, "GAS:spot": 0.05, "GAS:vol": 0.06, "USD:rate.1y": 0.0006,
             "ACME:spread": 0.0008, "BTC:basis.1m": 0.001}  # fmt: skip
    new = [Factor(name, size, 4.0, "assumed") for name, size in sizes.items()]
    correlation = np.eye(len(base.factors) + len(new))
    correlation[: len(base.factors), : len(base.factors)] = base.correlation
    return replace(base, factors=(*base.factors, *new), correlation=correlation)


def test_everything_that_can_be_listed_is_margined(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toml = small_toml()
    toml["run"]["scenarios"] = 4096
    book = small_book(tmp_path / "book", rows=everything(), toml=toml, model=model())
    app(["run", str(book), "--out", str(tmp_path / "run"), "--no-greeks"], standalone_mode=False)
    run = read_run(tmp_path / "run")
    margins, parts = run.tables["margins"], run.tables["components"]
    assert {terms["kind"] for terms in ALL.values()} | {Kind.SPOT, Kind.CASH} == set(Kind)
    assert {terms["settlement"] for terms in ALL.values()} == set(Settlement) and len(PriceModel) == 3
    for account in ("long", "short"):
        (row,) = np.flatnonzero(margins["account_id"] == account)
        own = parts["account_id"] == account
        assert margins["status"][row] != "WITHHELD" and margins["initial_margin"][row] > 0
        assert set(parts["instrument_id"][own]) == set(ALL)
        component = parts["component_es"][own]
        assert np.isfinite(component).all() and np.all(component != 0)
        assert component.sum() == pytest.approx(margins["expected_shortfall"][row], rel=1e-9)
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert all(name in page for name in ("WTI", "ACME"))
    capsys.readouterr()
    app(["explain", str(tmp_path / "run"), "short"], standalone_mode=False)
    assert "WTI" in capsys.readouterr().out


def as_kind(kind: str, **columns: Any) -> Portfolio:
    """The calls of `holdings` as options of another kind."""
    plain = holdings(TIMES)
    n = len(plain.instruments)
    text = {"kind": kind, "exercise": ""} | {k: v for k, v in columns.items() if isinstance(v, str)}
    numbers = {k: np.broadcast_to(v, n) for k, v in columns.items() if not isinstance(v, str)}
    table = replace(plain.instruments, **{k: np.full(n, v, object) for k, v in text.items()}, **numbers)
    return replace(plain, instruments=table)


def test_barriers_out_of_reach_on_fitted_smiles_are_plain_options() -> None:
    found, _ = pnl(as_kind("barrier", barrier=1e9, barrier_type="up_out"), SMALL)
    plain, _ = pnl(holdings(TIMES), SMALL)
    np.testing.assert_allclose(found, plain, atol=1e-9)


def test_averages_on_fitted_smiles() -> None:
    """Over two hours at the end: two thirds of these are no time at all."""
    window = 7200.0
    expiry = holdings(TIMES).instruments.expiry
    found, _ = pnl(as_kind("asian", averaging_start=expiry - window), SMALL)
    for row, (spot, vol, skew, curvature) in enumerate(SMALL):
        forward, rho = SPOT * np.exp(spot), np.tanh(np.arctanh(RHO) + skew)
        for e, theta in enumerate(THETA):
            less = 1 - 2 / 3 * window / (TIMES[e] * YEAR)
            then = np.exp(2 * vol) * ssvi(np.log(STRIKES / forward), theta, rho, phi(theta) * np.exp(curvature))
            now = ssvi(np.log(STRIKES / SPOT), theta, RHO, phi(theta))
            expected = call(STRIKES, forward, then * less) - call(STRIKES, SPOT, now * less)
            np.testing.assert_allclose(found[e * 33 : (e + 1) * 33, row], expected, atol=1e-5)


def test_digital_options_on_fitted_smiles() -> None:
    """The formula at the shocked parameters' vol and slope."""
    found, source = pnl(as_kind("digital", payoff="cash_or_nothing"), SMALL)
    assert not source.plan.unpriced

    def value(e: int, spot: float, vol: float, skew: float, curvature: float) -> np.ndarray:
        def deviation(k: np.ndarray) -> np.ndarray:
            rho, width = np.tanh(np.arctanh(RHO) + skew), phi(THETA[e]) * np.exp(curvature)
            return np.exp(vol) * np.sqrt(ssvi(k, THETA[e], rho, width))

        k = np.log(STRIKES / SPOT) - spot
        slope = (deviation(k + 1e-5) - deviation(k - 1e-5)) / 2e-5
        one = np.ones_like(k)
        return np.asarray(normalised_digital(*map(jnp.asarray, (k, deviation(k), slope, one, 0 * one))))

    for row, shock in enumerate(SMALL):
        for e in range(len(TIMES)):
            expected = value(e, *shock) - value(e, 0.0, 0.0, 0.0, 0.0)
            np.testing.assert_allclose(found[e * 33 : (e + 1) * 33, row], expected, atol=2e-4)
