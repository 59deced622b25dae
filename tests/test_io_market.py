"""The market of a book: what cannot be is rejected with its row, what cannot be used quarantined, the rest flagged."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.books import (
    AS_OF,
    FAR,
    NEAR,
    Rows,
    alter,
    load,
    problems_of,
    row,
    small_toml,
)  # fmt: skip


def test_a_chain_of_currencies_must_reach_the_base(tmp_path: Path) -> None:
    def foreign(rows: dict[str, Rows]) -> None:
        rows["market/spots"] += [
            {"name": "EUR", "price": 1.1, "currency": "CHF", "time": AS_OF, "haircut": 0.0},
            {"name": "CHF", "price": 0.9, "currency": "EUR", "time": AS_OF, "haircut": 0.0},
        ]

    found = problems_of(tmp_path, foreign)
    assert [(p.file, p.row, p.column, p.value) for p in found] == [
        ("market/spots.csv", 4, "currency", "CHF"), ("market/spots.csv", 5, "currency", "EUR"),
    ]  # fmt: skip
    (problem,) = problems_of(tmp_path, lambda rows: rows["market/spots"].append(
        {"name": "USD", "price": 1.0, "currency": "USD", "time": AS_OF, "haircut": 0.0}
    ))  # fmt: skip
    assert problem.rule == "the base currency has the price 1 and no row"


def test_a_price_of_zero_is_quarantined_and_a_negative_one_rejected(tmp_path: Path) -> None:
    book = load(tmp_path, alter("market/spots", {"name": "ETH"}, price=0.0))
    assert book.market.quarantined == {"ETH:spot": "price is 0"}
    assert "ETH" not in book.market.forwards and "BTC" in book.market.forwards
    (problem,) = problems_of(tmp_path, alter("market/spots", {"name": "ETH"}, price=-37.0))
    assert (problem.file, problem.row, problem.column, problem.value) == ("market/spots.csv", 3, "price", "-37.0")
    assert "must be above 0" in problem.rule and "choose price_model bachelier" in problem.fix


def test_a_vol_of_zero_is_quarantined(tmp_path: Path) -> None:
    book = load(
        tmp_path, alter("market/vols", {"underlying": "ETH", "expiry": NEAR, "strike": 3_000.0}, implied_vol=0.0)
    )
    assert list(book.market.quarantined) == ["ETH:vol"]
    assert "strike 3000" in book.market.quarantined["ETH:vol"]
    assert len(book.market.vols["ETH"].slices[0].implied_vol) == 2


def test_vols_in_percent_are_rejected(tmp_path: Path) -> None:
    one = {"underlying": "BTC", "expiry": NEAR, "strike": 80_000.0}
    (problem,) = problems_of(tmp_path, alter("market/vols", one, implied_vol=20.0))
    assert (problem.row, problem.column, problem.value) == (2, "implied_vol", "20")
    assert "between 0 and 10" in problem.rule and "divide by 100" in problem.fix

    def quarter(rows: dict[str, Rows]) -> None:
        for r in rows["market/vols"]:
            if r["underlying"] == "ETH":
                r.update(implied_vol=3.5, bid_vol=None, ask_vol=None)

    (problem,) = problems_of(tmp_path, quarter)
    assert "median vol of ETH" in problem.rule and "divide by 100" in problem.fix


@pytest.mark.parametrize(
    ("name", "mark", "sound"),
    [
        ("BTC-28FEB25-100000-C", 0.06, True),
        ("BTC-28FEB25-100000-C", 0.0, True),
        ("BTC-28FEB25-100000-C", 6_000.0, False),  # dollars where coin is meant
        ("BTC-28FEB25-80000-C", 0.002, False),  # a tenth of intrinsic value is 0.0204
        ("BTC-28FEB25-100000-P", 9.0, True),
        ("BTC-28FEB25-100000-P", 10.0, False),
        ("BTC_USD-28MAR25-110000-C", 3_000.0, True),
        ("BTC_USD-28MAR25-110000-C", 3_000_000.0, False),
        ("BTC-PERPETUAL", 100_100.0, True),
        ("BTC-PERPETUAL", 10_010_000.0, False),
        ("BTC-28MAR25", 1_010.0, False),
        ("BTC_USD", 100.0, False),
    ],
)  # fmt: skip
def test_marks_in_another_unit_are_rejected(tmp_path: Path, name: str, mark: float, sound: bool) -> None:
    def mark_one(rows: dict[str, Rows]) -> None:
        rows["market/marks"] = [{"instrument_id": name, "mark": mark, "time": AS_OF}]

    if sound:
        assert load(tmp_path, mark_one).marks is not None
        return
    (problem,) = problems_of(tmp_path, mark_one)
    assert (problem.file, problem.row, problem.column, problem.value) == ("market/marks.csv", 2, "mark", str(mark))
    assert "cents against dollars" in problem.fix


@pytest.mark.parametrize("table", ["market/spots", "market/marks"])
@pytest.mark.parametrize(
    ("time", "rule"), [("2025-01-31T08:00:01Z", "must not be after as_of"), ("2025-01-30T07:59:59Z", "mixed valuation")]
)
def test_mixed_valuation_dates_are_rejected(tmp_path: Path, table: str, time: str, rule: str) -> None:
    (problem,) = problems_of(tmp_path, lambda rows: rows[table][1].update(time=time))
    assert (problem.file, problem.row, problem.column) == (f"{table}.csv", 3, "time") and rule in problem.rule


def test_a_stale_price_is_quarantined(tmp_path: Path) -> None:
    toml = small_toml() | {"limits": {"max_price_age": "1h"}}
    book = load(tmp_path, alter("market/spots", {"name": "BTC"}, time="2025-01-31T06:00:00Z"), toml=toml)
    assert book.market.quarantined == {"BTC:spot": "price is 7200 s old, above max_price_age 3600 s"}
    assert book.limits == {"max_price_age": 3600.0}
    assert not load(tmp_path, alter("market/spots", {"name": "BTC"}, time="2025-01-31T06:00:00Z")).market.quarantined


def test_strikes_that_are_not_quoted_on_both_sides_are_flagged(tmp_path: Path) -> None:
    def thin(rows: dict[str, Rows]) -> None:
        vols = rows["market/vols"]
        row(vols, underlying="BTC", expiry=NEAR, strike=100_000.0).update(bid_vol=None)
        row(vols, underlying="ETH", expiry=FAR, strike=2_500.0).update(bid_vol=0.8, ask_vol=0.7)
        vols.remove(row(vols, underlying="BTC", expiry=NEAR, strike=80_000.0))

    assert set(load(tmp_path, thin).flags) == {
        "BTC 2025-02-28T08:00:00Z: vol one-sided at strikes held 100000",
        "ETH 2025-03-28T08:00:00Z: vol crossed at strikes held 2500",
        "BTC 2025-02-28T08:00:00Z: vol extrapolated at strikes held 80000",
        "BTC 2025-03-28T08:00:00Z: vol interpolated at strikes held 110000",
    }


def test_pillars_of_the_past_and_missing_forwards_are_flagged(tmp_path: Path) -> None:
    def age(rows: dict[str, Rows]) -> None:
        past = "2025-01-30T08:00:00Z"
        rows["market/forwards"].append({"underlying": "BTC", "expiry": past, "forward": 1e5})
        rows["market/vols"].append({"underlying": "BTC", "expiry": past, "strike": 1e5, "implied_vol": 0.5})
        rows["market/forwards"] = [
            r for r in rows["market/forwards"] if (r["underlying"], r["expiry"]) != ("ETH", NEAR)
        ]

    flags = load(tmp_path, age).flags
    for part in ("forwards of BTC: 1 expired", "vols of BTC: 1 rows of past", f"ETH for {NEAR}: forward"):
        assert any(part in flag for flag in flags), part


def test_stress_on_a_factor_that_the_model_lacks(tmp_path: Path) -> None:
    (problem,) = problems_of(tmp_path, lambda rows: rows["market/stress"][2].update(factor="ETH:spto"))
    assert (problem.file, problem.row, problem.column, problem.value) == ("market/stress.csv", 4, "factor", "ETH:spto")
    (problem,) = problems_of(tmp_path, lambda rows: rows["market/stress"][0].update(shock=-1.0))
    assert "must be above −1" in problem.rule
