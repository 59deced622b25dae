"""Sessions of an exchange: its holidays as it lists them, and horizons that pass over them."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pmvar
from pmvar.errors import UsageError
from pmvar.io.book import load_book
from pmvar.market.calendars import check_calendar, holidays
from pmvar.scenarios.clock import elapsed_steps, horizon_end
from pmvar.types import DAY, Sampling
from tests.books import load, problems_of, small_book, small_model, small_toml

LISTED = {
    2021: "01-01 01-18 02-15 04-02 05-31 07-05 09-06 11-25 12-24",
    2022: "01-17 02-21 04-15 05-30 06-20 07-04 09-05 11-24 12-26",
    2023: "01-02 01-16 02-20 04-07 05-29 06-19 07-04 09-04 11-23 12-25",
    2024: "01-01 01-15 02-19 03-29 05-27 06-19 07-04 09-02 11-28 12-25",
    2025: "01-01 01-09 01-20 02-17 04-18 05-26 06-19 07-04 09-01 11-27 12-25",
    2026: "01-01 01-19 02-16 04-03 05-25 06-19 07-03 09-07 11-26 12-25",
    2027: "01-01 01-18 02-15 03-26 05-31 06-18 07-05 09-06 11-25 12-24",
    2028: "01-17 02-21 04-14 05-29 06-19 07-04 09-04 11-23 12-25",
}
"""Full-day holidays as NYSE lists them (nyse.com, Holidays & Trading Hours)."""


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(("year", "days"), LISTED.items())
def test_holidays_of_new_york(year: int, days: str) -> None:
    found = [f"{datetime.fromtimestamp(t, UTC):%m-%d}" for t in holidays("XNYS", year)]
    assert " ".join(found) == days


@pytest.mark.parametrize(
    ("start", "steps", "end"),
    [
        # Thanksgiving 2026 is Thursday 26 November; closes are at 21:00 UTC in winter.
        ("2026-11-25T21:00", 1, "2026-11-27T21:00"),
        ("2026-11-25T21:00", 2, "2026-11-30T21:00"),
        ("2026-11-24T21:00", 1, "2026-11-25T21:00"),
        ("2026-11-25T21:00", 10, "2026-12-10T21:00"),
        # Christmas and New Year's Day 2026, both Fridays before a weekend.
        ("2026-12-24T18:00", 1, "2026-12-28T18:00"),
        ("2026-12-24T18:00", 5, "2027-01-04T18:00"),
        # From inside a holiday: nothing moves until it is over.
        ("2026-11-26T15:00", 1, "2026-11-28T00:00"),
        # Ends where a holiday begins: when the next session does.
        ("2026-11-25T00:00", 1, "2026-11-27T00:00"),
        ("2026-07-02T20:00", 1, "2026-07-06T20:00"),
    ],
)
def test_horizons_pass_over_holidays(start: str, steps: int, end: str) -> None:
    found = horizon_end(at(start), float(steps), 252, "XNYS")
    assert elapsed_steps(at(start), found, 252, "XNYS") == pytest.approx(steps, abs=1e-9)
    if end == "2026-11-28T00:00":
        # Saturday's first moment and Monday's are one.
        end = "2026-11-30T00:00"
    assert found == pytest.approx(at(end), abs=1e-3)


@given(st.floats(at("2021-01-01"), at("2030-01-01")), st.floats(0.04, 60.0))
def test_inverse(start: float, steps: float) -> None:
    """As many steps elapse as were asked for; never fewer days than without holidays; calendar days have none."""
    end = horizon_end(start, steps, 252, "XNYS")
    assert elapsed_steps(start, end, 252, "XNYS") == pytest.approx(steps, abs=1e-6)
    assert end >= horizon_end(start, steps, 252) - 1e-6
    assert horizon_end(start, steps, 365, "XNYS") == start + steps * DAY


def test_other_exchanges() -> None:
    """London's bank holidays of 2026 (gov.uk): Boxing Day, a Saturday, is kept on Monday."""
    days = [f"{datetime.fromtimestamp(t, UTC):%m-%d}" for t in holidays("XLON", 2026)]
    assert " ".join(days) == "01-01 04-03 04-06 05-04 05-25 08-31 12-25 12-28"


@pytest.mark.parametrize(("name", "said"), [("XNYX", "XNYS"), ("24/7", "weekends"), ("XSAU", "weekends")])
def test_exchanges_that_do_not_do(name: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_calendar(name)


def test_a_year_that_an_exchange_has_not_set() -> None:
    with pytest.raises(UsageError, match="does not cover 2080"):
        holidays("XKRX", 2080)


def in_sessions(calendar: str | None) -> dict:
    toml = small_toml()
    return toml | {"run": toml["run"] | ({"calendar": calendar} if calendar is not None else {})}


def test_setting_of_a_book(tmp_path: Path) -> None:
    """As of the day before a holiday the horizon is a day longer; the variance of a simulation stays two steps'."""
    model = replace(small_model(), steps_per_year=252)
    ends, moves = [], []
    for name in ("", "XNYS"):
        folder = small_book(tmp_path / (name or "none"), toml=in_sessions(name), model=model)
        book = load_book(folder)
        assert book.model.calendar == name
        # Presidents' Day is Monday, 17 February 2025.
        market = book.market.dated(at("2025-02-14T15:00"))
        drawn = pmvar.simulate(book.model, market, seed=1, n_scenarios=1_024, sampling=Sampling.MC)
        ends.append(drawn.horizon_end)
        moves.append(np.asarray(drawn.tile(0).shock)[:, 1])
    assert ends == [at("2025-02-18T15:00"), at("2025-02-19T15:00")]
    assert np.array_equal(*moves)


def test_wrong_settings(tmp_path: Path) -> None:
    found = problems_of(tmp_path, toml=None, overrides={"calendar": "XNYS"})
    assert any(p.column == "run.calendar" and "365 steps a year" in p.rule for p in found)
    with pytest.raises(UsageError, match="XNYS"):
        load(tmp_path / "other", overrides={"calendar": "XNYX"})
