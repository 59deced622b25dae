"""price_model and shift in books: prices at or below zero where the switch says so, refused by name elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pmvar.errors import InputError, Problem
from pmvar.io.book import load_book
from pmvar.market.price_scale import LOGNORMAL, PriceScale
from pmvar.types import PriceModel
from tests.books import AS_OF as SMALL_AS_OF
from tests.books import Change, Rows, problems_of, row
from tests.test_switch import AS_OF, NEAR, oil_book, rows

BACHELIER = {"price_model": "bachelier", "shift": 20.0}


def below_zero(given: dict[str, Rows]) -> None:
    """Spot, forward, a strike, a vol's strike and marks at or below zero."""
    given["market/spots"][0]["price"] = -3.0
    given["market/forwards"][0]["forward"] = 0.0
    option = row(given["instruments"], instrument_id="WTI-05-15-P")
    option["strike"] = -2.5
    row(given["market/vols"], expiry=NEAR, strike=15.0)["strike"] = -2.5
    given["market/marks"] = [
        {"instrument_id": "WTI-05-14", "mark": -0.5, "bid": -1.0, "ask": 0.0, "time": AS_OF},
        {"instrument_id": "WTI-06-30-C", "mark": 0.0, "time": AS_OF},
    ]


def problems(path: Path, change: Change, **scale: Any) -> list[Problem]:
    given = rows()
    given["market/spots"][0].update(scale)
    change(given)
    with pytest.raises(InputError) as caught:
        load_book(oil_book(path / "book", given))
    return list(caught.value.problems)


def test_what_is_below_zero_needs_a_model_that_holds_it(tmp_path: Path) -> None:
    """Every place at once, with file, row and column; the fix names the switch."""
    found = {(p.file, p.column): p for p in problems(tmp_path, below_zero)}
    assert found.keys() == {
        ("market/spots.csv", "price"), ("market/forwards.csv", "forward"), ("instruments.csv", "strike"),
        ("market/vols.csv", "strike"), ("market/marks.csv", "mark"), ("market/marks.csv", "bid"),
    }  # fmt: skip
    assert all("price_model bachelier" in p.fix and p.row for p in found.values())


@pytest.mark.parametrize("scale", [BACHELIER, {"price_model": "shifted", "shift": 10.0}])
def test_a_model_that_holds_it_loads(tmp_path: Path, scale: dict[str, Any]) -> None:
    given = rows()
    given["market/spots"][0].update(scale)
    below_zero(given)
    market = load_book(oil_book(tmp_path / "book", given)).market
    assert market.scale("WTI") == PriceScale(PriceModel(scale["price_model"]), scale["shift"])
    assert market.scale("USD") == LOGNORMAL and not market.quarantined
    assert float(market.forwards["WTI"].at(market.forwards["WTI"].expiry[0])) == pytest.approx(0.0, abs=1e-12)
    assert market.base_unit("WTI") == (20.0 if scale is BACHELIER else 7.0)


def test_a_shift_too_small_is_refused(tmp_path: Path) -> None:
    found = problems(tmp_path, below_zero, price_model="shifted", shift=2.9)
    assert {(p.file, p.column) for p in found} == {("market/spots.csv", "price")}
    assert "above −shift" in found[0].rule and "larger shift" in found[0].fix


@pytest.mark.parametrize(
    ("scale", "rule"),
    [
        ({"price_model": "bachelier"}, "needs a shift"),
        ({"price_model": "shifted", "shift": 0.0}, "needs a shift"),
        ({"shift": 5.0}, "only a shifted or Bachelier"),
        ({"price_model": "normal"}, "must be one of lognormal, shifted, bachelier"),
    ],
)
def test_shifts_and_models_that_make_no_scale(tmp_path: Path, scale: dict[str, Any], rule: str) -> None:
    found = problems(tmp_path, lambda given: None, **scale)
    assert any(rule in p.rule and p.file == "market/spots.csv" and p.row == 2 for p in found)


def test_an_option_has_no_mark_below_zero(tmp_path: Path) -> None:
    def mark(given: dict[str, Rows]) -> None:
        given["market/marks"] = [{"instrument_id": "WTI-06-30-C", "mark": -0.1, "time": AS_OF}]

    (problem,) = problems(tmp_path, mark, **BACHELIER)
    assert (problem.file, problem.column) == ("market/marks.csv", "mark") and "at least 0" in problem.rule


def test_stresses_below_minus_one_are_of_bachelier_prices(tmp_path: Path) -> None:
    def fall(given: dict[str, Rows]) -> None:
        given["market/stress"] = [{"scenario": "april", "factor": "WTI:spot", "shock": -3.0}]

    given = rows()
    given["market/spots"][0].update(BACHELIER)
    fall(given)
    assert load_book(oil_book(tmp_path / "book", given)).stress == {"april": {"WTI:spot": -3.0}}
    (problem,) = problems(tmp_path, fall, price_model="shifted", shift=20.0)
    assert problem.file == "market/stress.csv" and "but of a Bachelier price" in problem.rule


def test_what_needs_a_price_above_zero_is_refused(tmp_path: Path) -> None:
    """A coin that is settled in, held, or quoted in, an American option: each names its column and a way out."""

    def switched(rows: dict[str, Rows]) -> None:
        rows["market/spots"][0].update(BACHELIER)
        rows["market/spots"].append({"name": "ALT", "price": 1.0, "currency": "BTC", "time": SMALL_AS_OF})
        option = row(rows["instruments"], instrument_id="BTC_USD-28MAR25-110000-C")
        option.update(exercise="american")

    found = {(p.file, p.column) for p in problems_of(tmp_path, switched)}
    assert found == {
        ("instruments.csv", "settlement"), ("instruments.csv", "exercise"), ("balances.csv", "asset"),
        ("market/spots.csv", "currency"),
    }  # fmt: skip
