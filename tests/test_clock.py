"""Two clocks: calendar days and sessions from Monday to Friday, their horizons and their inverses."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmvar.errors import UsageError
from pmvar.scenarios.clock import elapsed_steps, horizon_end, horizon_steps
from pmvar.types import DAY


def at(text: str) -> float:
    """Epoch seconds of a UTC time."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("horizon", "steps"), [("1d", 1), ("2d", 2), ("10d", 10), ("12h", 0.5), ("1h", 1 / 24), ("36h", 1.5)]
)
def test_horizons_are_days_or_hours(horizon, steps):
    assert horizon_steps(horizon) == pytest.approx(steps, rel=1e-15)


@pytest.mark.parametrize(
    "horizon", ["", "d", "0d", "00d", "-1d", "1.5d", "2 d", "2D", "2d ", "2w", "10000d", "٢d", "2d\n"]
)
def test_other_horizons_are_refused(horizon):
    with pytest.raises(UsageError, match="write whole days or hours"):
        horizon_steps(horizon)


# 2025-01-31 is a Friday.
SESSIONS = [
    ("2025-01-27T10:00", "1d", "2025-01-28T10:00"),
    ("2025-01-31T08:00", "1d", "2025-02-03T08:00"),
    ("2025-01-31T08:00", "2d", "2025-02-04T08:00"),
    ("2025-01-30T15:00", "2d", "2025-02-03T15:00"),
    # The weekend is a point: whatever starts inside it starts on Monday.
    ("2025-02-01T12:00", "1d", "2025-02-04T00:00"),
    ("2025-02-02T23:00", "1d", "2025-02-04T00:00"),
    ("2025-01-31T20:00", "12h", "2025-02-03T08:00"),
    ("2025-01-27T10:00", "5d", "2025-02-03T10:00"),
    ("2025-01-27T10:00", "10d", "2025-02-10T10:00"),
    # A leap day, and the turn of a year.
    ("2024-02-28T12:00", "1d", "2024-02-29T12:00"),
    ("2024-12-31T12:00", "1d", "2025-01-01T12:00"),
]


@pytest.mark.parametrize(("start", "horizon", "end"), SESSIONS)
def test_sessions_skip_weekends(start, horizon, end):
    assert horizon_end(at(start), horizon_steps(horizon), 252) == pytest.approx(at(end), abs=1e-3)


@pytest.mark.parametrize("start", ["2025-01-27T10:00", "2025-01-31T08:00", "2025-02-01T12:00"])
def test_calendar_days_do_not(start):
    assert horizon_end(at(start), 2.0, 365) == at(start) + 2 * DAY
    assert elapsed_steps(at(start), at(start) + 3.25 * DAY, 365) == 3.25


def sessions_by_counting(start: float, end: float) -> float:
    """Days from Monday to Friday between two times, day by day."""
    total, day = 0.0, datetime.fromtimestamp(start, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    while day.timestamp() < end:
        following = day + timedelta(days=1)
        if day.weekday() < 5:
            total += max(min(following.timestamp(), end) - max(day.timestamp(), start), 0.0)
        day = following
    return total / DAY


TIME = st.floats(at("2000-01-01"), at("2060-01-01"))


@given(TIME, st.floats(0, 40))
def test_sessions_elapsed_are_those_counted_day_by_day(start, days):
    end = start + days * DAY
    # Epoch seconds carry 2e-7 s.
    assert elapsed_steps(start, end, 252) == pytest.approx(sessions_by_counting(start, end), abs=1e-10)


@given(TIME, st.floats(0, 60), st.sampled_from([252, 365]))
def test_a_horizon_ends_when_its_steps_have_elapsed(start, steps, per_year):
    assert elapsed_steps(start, horizon_end(start, steps, per_year), per_year) == pytest.approx(steps, abs=1e-10)


@given(TIME, st.floats(0, 30), st.floats(0, 30), st.sampled_from([252, 365]))
def test_horizons_add_up(start, first, second, per_year):
    whole = horizon_end(start, first + second, per_year)
    halves = horizon_end(horizon_end(start, first, per_year), second, per_year)
    # Two ends that only a weekend separates are the same moment of the session clock.
    assert abs(elapsed_steps(min(whole, halves), max(whole, halves), per_year)) <= 1e-10


@pytest.mark.parametrize("per_year", [252, 365])
def test_the_past_has_no_steps(per_year):
    assert elapsed_steps(at("2025-01-31T08:00"), at("2025-01-20T08:00"), per_year) == 0.0
