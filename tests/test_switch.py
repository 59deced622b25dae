"""The switch of price models: options at their prices, there and back, margins continuous; oil through −37 dollars."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import pmvar
from pmvar.cli.app import app
from pmvar.errors import InputError, UsageError
from pmvar.io.book import load_book
from pmvar.io.switch import switch_book
from pmvar.io.times import parse_time
from pmvar.market.price_scale import LOGNORMAL, PriceScale
from pmvar.market.switch import convert_vols
from pmvar.models.specification import Factor, ModelSpecification
from pmvar.types import PriceModel
from tests.books import Rows, small_book, small_model, small_toml

AS_OF, NEAR, FAR = "2020-04-08T20:00:00Z", "2020-05-14T18:30:00Z", "2020-06-16T18:30:00Z"
FORWARD = {NEAR: 29.9, FAR: 31.5}
STRIKES = (15.0, 20.0, 25.0, 30.0, 35.0, 45.0)
SMILE = (1.15, 1.02, 0.93, 0.87, 0.84, 0.86)


def rows() -> dict[str, Rows]:
    """Futures and options on oil in dollars, as of the day on which CME said that prices might be negative."""
    linear = {"underlying": "WTI", "settlement": "linear", "quote_currency": "USD", "settlement_currency": "USD"}
    instruments: Rows = [
        {"instrument_id": f"WTI-{t[5:7]}-{k:g}-{right[0].upper()}", "kind": "option", **linear, "contract_size": 1000.0,
         "expiry": t, "strike": k, "put_call": right, "exercise": "european"}
        for t in (NEAR, FAR) for k in (*STRIKES, 27.5) for right in ("call", "put")
    ]  # fmt: skip
    instruments += [
        {"instrument_id": f"WTI-{t[5:10]}", "kind": "future", **linear, "contract_size": 1000.0, "expiry": t}
        for t in (NEAR, FAR, "2020-05-30T18:30:00Z")
    ]
    held = {
        "straddle": {"WTI-05-30-C": -10.0, "WTI-05-30-P": -10.0},
        "long": {"WTI-05-14": 20.0},
        "short": {"WTI-06-16": -20.0},
        "puts": {"WTI-06-15-P": -50.0},
        "fly": {"WTI-05-25-C": 5.0, "WTI-05-27.5-C": -10.0, "WTI-05-30-C": 5.0},
    }
    return {
        "instruments": instruments,
        "positions": [
            {"account_id": a, "instrument_id": i, "quantity": q} for a, legs in held.items() for i, q in legs.items()
        ],
        "balances": [{"account_id": a, "asset": "USD", "amount": 1e6} for a in held],
        "market/spots": [{"name": "WTI", "price": 28.0, "currency": "USD", "time": AS_OF}],
        "market/forwards": [{"underlying": "WTI", "expiry": t, "forward": f} for t, f in FORWARD.items()],
        "market/rates": [{"currency": "USD", "maturity": t, "zero_rate": 0.002} for t in (NEAR, FAR)],
        "market/vols": [
            {"underlying": "WTI", "expiry": t, "strike": k, "implied_vol": v, "bid_vol": v - 0.02, "ask_vol": v + 0.02}
            for t in (NEAR, FAR)
            for k, v in zip(STRIKES, SMILE, strict=True)
        ],
        "market/stress": [{"scenario": "april", "factor": "WTI:spot", "shock": -0.9}],
    }


def model() -> ModelSpecification:
    factors = (Factor("WTI:spot", 0.05, 4.0, "assumed"), Factor("WTI:vol", 0.06, 4.0, "assumed", 0, 30.0, 0.4))
    leverage = np.array([[1.0, -0.4], [-0.4, 1.0]])
    return replace(small_model(), as_of=parse_time(AS_OF), factors=factors, correlation=leverage)


def oil_book(path: Path, given: dict[str, Rows] | None = None, of: ModelSpecification | None = None) -> Path:
    return small_book(path, rows=given or rows(), toml=small_toml() | {"as_of": AS_OF}, model=of or model())


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    return oil_book(tmp_path_factory.mktemp("oil") / "book")


# ---- volatilities --------------------------------------------------------------------------------------------------

SCALES = (LOGNORMAL, PriceScale(PriceModel.SHIFTED, 12.0), PriceScale(PriceModel.BACHELIER, 28.0))


@pytest.mark.parametrize("old", SCALES)
@pytest.mark.parametrize("new", SCALES)
def test_there_and_back(old: PriceScale, new: PriceScale) -> None:
    """Volatilities of 2,000 options come back to 1e-9 where their price is above 1e-8 of the forward."""
    rng = np.random.default_rng(1)
    n = 2_000
    forward, year = rng.uniform(25, 60, n), rng.uniform(0.02, 1, n)
    vol = rng.uniform(0.05, 0.5, n)
    strike = forward * np.exp(rng.normal(0, 0.6, n) * vol * np.sqrt(year))
    there = convert_vols(vol, forward, strike, year, old=old, new=new)
    back = convert_vols(np.where(there.known, there.implied_vol, 0.1), forward, strike, year, old=new, new=old)
    material = there.price > 1e-8 * forward
    assert there.known[material].all() and back.known[material].all() and material.mean() > 0.9
    np.testing.assert_allclose(back.implied_vol[material], vol[material], rtol=1e-9)
    np.testing.assert_allclose(back.price[there.known], there.price[there.known], rtol=1e-10, atol=1e-14)


def test_a_price_of_nothing_has_no_volatility() -> None:
    one = np.ones(1)
    found = convert_vols(0.1 * one, one, 40 * one, 0.01 * one, old=LOGNORMAL, new=SCALES[2])
    assert not found.known[0] and np.isnan(found.implied_vol[0])


# ---- books ---------------------------------------------------------------------------------------------------------


def test_every_quoted_option_keeps_its_price(book: Path, tmp_path: Path) -> None:
    there = switch_book(book, "WTI", to=PriceModel.BACHELIER, out=tmp_path / "bachelier")
    assert there.n_vols == 12 and not there.notes and there.scale.shift == 28.0
    assert there.quoted <= 1e-12 and 0 < there.unquoted < 2e-3
    assert there.after.model.factors == there.before.model.factors
    expiries = there.after.market.forwards["WTI"].expiry
    assert len(expiries) == 3  # a pillar more, for the future between the options' expiries
    np.testing.assert_allclose(there.before.market.forwards["WTI"].at(expiries),
                               there.after.market.forwards["WTI"].at(expiries), rtol=1e-14)  # fmt: skip
    back = switch_book(tmp_path / "bachelier", "WTI", to=PriceModel.LOGNORMAL, out=tmp_path / "back")
    first, last = (b.market.vols["WTI"].slices for b in (there.before, back.after))
    for one, other in zip(first, last, strict=True):
        np.testing.assert_allclose(other.implied_vol, one.implied_vol, rtol=1e-10)
        np.testing.assert_allclose(other.log_moneyness, one.log_moneyness, atol=1e-14)


def test_under_another_unit_moves_keep_their_size_in_price(book: Path, tmp_path: Path) -> None:
    found = switch_book(book, "WTI", to=PriceModel.SHIFTED, shift=12.0, out=tmp_path / "shifted")
    assert found.quoted <= 1e-12
    assert found.after.model.factors[0].volatility == pytest.approx(0.05 * 28 / 40, rel=1e-14)
    assert found.after.model.factors[1:] == found.before.model.factors[1:]
    assert found.after.stress["april"]["WTI:spot"] == pytest.approx(-0.9 * 28 / 40, rel=1e-14)


def test_the_command_prints_margins_before_and_after(book: Path, tmp_path: Path) -> None:
    """A = S₀ = 28. A short future rises by A·x and no longer by F·x, with F = 31.5; a fall by x is larger than by
    1 − e^(−x), and one by many x has no end at zero, which is what puts far below are about."""
    result = CliRunner().invoke(
        app, ["switch", str(book), "WTI", "--to", "bachelier", "--out", str(tmp_path / "out")], catch_exceptions=False
    )
    assert result.exit_code == 0, result.output
    lines = {line.split()[0]: line.split() for line in result.output.splitlines() if line}
    change = {name: float(lines[name][-1].rstrip("%")) / 100 for name in ("all", "straddle", "long", "short", "puts")}
    assert change["short"] == pytest.approx(28 / 31.5 - 1, abs=0.01)
    assert 0 < change["long"] < 0.15 and 0 < change["straddle"] < 0.15
    assert change["puts"] > 0.5
    assert "12 vols converted" in result.output
    assert load_book(tmp_path / "out").market.scale("WTI") == PriceScale(PriceModel.BACHELIER, 28.0)


def test_what_cannot_be_switched_is_refused(book: Path, tmp_path: Path) -> None:
    def switch(path: Path = book, name: str = "WTI", to: str = "bachelier", shift: float | None = None) -> None:
        switch_book(path, name, to=PriceModel(to), shift=shift, out=tmp_path / "no")

    for message, options in {
        "no price of GAS": {"name": "GAS"},
        "already": {"to": "lognormal"},
        "above 0": {"shift": -1.0},
    }.items():
        with pytest.raises(UsageError, match=message):
            switch(**options)
    coins = small_book(tmp_path / "coins")
    with pytest.raises(InputError, match="an inverse instrument needs a lognormal underlying"):
        switch(coins, "BTC")
    jumps = {"intensity": 5.0, "mean": -0.02, "deviation": 0.03, "loading": {}, "scatter": {}, "own": {}}
    jumping = oil_book(tmp_path / "merton", of=replace(model(), model="merton", parameters={"jumps": jumps}))
    with pytest.raises(UsageError, match="--shift 28"):
        switch(jumping, shift=30.0)
    below = switch_book(book, "WTI", to=PriceModel.BACHELIER, out=tmp_path / "below")
    assert below.after.path.exists()
    vols = (tmp_path / "below" / "market" / "vols.csv").read_text().splitlines()
    # A put on 15 dollars for more than 15 dollars: no lognormal price is so uncertain.
    high = [v if ",15," not in v else v.split(",15,")[0] + ",15,9.5,,," for v in vols]
    (tmp_path / "below" / "market" / "vols.csv").write_text("\n".join([*high, ""]))
    with pytest.raises(UsageError, match="no volatility"):
        switch(tmp_path / "below", to="lognormal")
    assert not (tmp_path / "no").exists()


# ---- oil, April 2020 -----------------------------------------------------------------------------------------------


def test_oil_through_zero(tmp_path: Path) -> None:
    """The spot of 20 April 2020 was −36.98: refused under lognormal with the switch named, margined under Bachelier,
    where the loss of a long future from the 17th (18.31) is what it was."""
    path = Path("../shared/data/vix_oil/wti-daily.csv")
    if not path.is_file():
        pytest.skip("no ../shared/data/vix_oil")
    price = dict(line.split(",") for line in path.read_text().split()[1:])
    friday, monday = float(price["2020-04-17"]), float(price["2020-04-20"])
    assert (friday, monday) == (18.31, -36.98)

    def on(spot: float, **scale: object) -> dict[str, Rows]:
        given = rows()
        given["market/spots"][0].update(price=spot, **scale)
        given["market/forwards"] = [{"underlying": "WTI", "expiry": t, "forward": spot + 3.0} for t in (NEAR, FAR)]
        return given

    with pytest.raises(InputError, match="choose price_model bachelier"):
        load_book(oil_book(tmp_path / "lognormal", on(monday)))
    bachelier = {"price_model": "bachelier", "shift": 20.0}
    book = load_book(oil_book(tmp_path / "monday", on(monday, **bachelier)))
    drawn = pmvar.simulate(book.model, book.market, seed=1, n_scenarios=8192, horizon="2d")
    report = pmvar.margin_report(pmvar.reprice(book.portfolio, book.market, drawn), book.portfolio, book.rules)
    margins = report.tables["margins"]
    assert np.all(margins["initial_margin"] > 0) and np.all(margins["status"] != "WITHHELD")

    stress = {"monday": {"WTI:spot": (monday - friday) / 20}}
    before = load_book(oil_book(tmp_path / "friday", on(friday, **bachelier)))
    pnl = pmvar.reprice(before.portfolio, before.market, pmvar.stress_scenarios(stress, before.model, before.market))
    long = list(before.portfolio.instruments.instrument_id).index("WTI-05-14")
    assert np.asarray(pnl.tile(0))[pnl.row[long], 0] == pytest.approx(1000 * (monday - friday), rel=1e-6)
