"""Weekdays on which an exchange holds no session."""

from __future__ import annotations

import warnings
from datetime import UTC, date, datetime
from functools import cache
from typing import Any

from pmvar.errors import UsageError
from pmvar.types import DAY


def check_calendar(name: str) -> None:
    """Raise UsageError unless `name` is an exchange of exchange_calendars with sessions from Monday to Friday alone."""
    from difflib import get_close_matches

    known = _exchange_calendars().get_calendar_names()
    if name not in known:
        near = get_close_matches(name, known, n=3) or ["XNYS", "XLON", "XEUR"]
        raise UsageError(f"calendar {name!r} is not known; write a market code (ISO 10383), such as {', '.join(near)}")
    if "1" in _calendar(name, datetime.now(UTC).year).weekmask[5:]:
        raise UsageError(f"calendar {name!r} has sessions at weekends; a model of 365 steps a year counts every day")


@cache
def holidays(calendar: str, year: int) -> tuple[float, ...]:
    """Epoch seconds at which each weekday of `year` without a session begins, UTC, in order. Days that close early are
    sessions. Raises UsageError where the exchange has not set that year's."""
    sessions = {day.date() for day in _calendar(calendar, year).sessions}
    first, last = date(year, 1, 1).toordinal(), date(year, 12, 31).toordinal()
    days = [date.fromordinal(n) for n in range(first, last + 1)]
    free = [day for day in days if day.weekday() < 5 and day not in sessions]
    return tuple(datetime(d.year, d.month, d.day, tzinfo=UTC).timestamp() for d in free)


def closed(calendar: str, start: float, end: float) -> list[float]:
    """When the holidays begin that go on after `start` and have begun by `end` (epoch seconds); none without a
    calendar."""
    if not calendar:
        return []
    years = range(datetime.fromtimestamp(start, UTC).year, datetime.fromtimestamp(end, UTC).year + 1)
    return [day for year in years for day in holidays(calendar, year) if day + DAY > start and day <= end]


@cache
def _calendar(name: str, year: int) -> Any:
    try:
        with warnings.catch_warnings():
            # exchange_calendars 4.13 uses what pandas 3 deprecates.
            warnings.simplefilter("ignore", DeprecationWarning)
            return _exchange_calendars().get_calendar(name, start=f"{year}-01-01", end=f"{year}-12-31")
    except ValueError as error:
        raise UsageError(f"calendar {name!r} does not cover {year}: {error}") from error


def _exchange_calendars() -> Any:
    try:
        import exchange_calendars
    except ImportError as error:
        raise UsageError("the setting run.calendar needs exchange_calendars: pip install 'pmvar[calendars]'") from error
    return exchange_calendars
