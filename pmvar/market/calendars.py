"""Days on which an exchange holds no session, by its own rules."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, date, datetime, timedelta
from functools import cache

from pmvar.types import DAY

MONDAY, THURSDAY, FRIDAY, SATURDAY, SUNDAY = 0, 3, 4, 5, 6


def _nth(year: int, month: int, weekday: int, n: int) -> date:
    """The n-th such weekday of a month; n = −1 is the last."""
    if n < 0:
        return _nth(year + month // 12, month % 12 + 1, weekday, 1) - timedelta(7)
    first = date(year, month, 1)
    return first + timedelta((weekday - first.weekday()) % 7 + 7 * (n - 1))


def _good_friday(year: int) -> date:
    """Two days before Easter, by Meeus (1991), Astronomical Algorithms, chapter 8."""
    a, (b, c) = year % 19, divmod(year, 100)
    (d, e), f = divmod(b, 4), (b + 8) // 25
    h = (19 * a + b - d - (b - f + 1) // 3 + 15) % 30
    i, k = divmod(c, 4)
    m = (32 + 2 * e + 2 * i - h - k) % 7
    n = (a + 11 * h + 22 * m) // 451
    month, day = divmod(h + m - 7 * n + 114, 31)
    return date(year, month, day + 1) - timedelta(2)


def _observed(day: date) -> date:
    """On the Friday before a Saturday, on the Monday after a Sunday."""
    return day + timedelta({SATURDAY: -1, SUNDAY: 1}.get(day.weekday(), 0))


SPECIAL = (date(2018, 12, 5), date(2025, 1, 9))
"""National days of mourning since 2018. A day that is declared later must be added here."""


def _new_york(year: int) -> Iterator[date]:
    """NYSE Rule 7.2. A New Year's Day on a Saturday is kept on no other day."""
    new_year = date(year, 1, 1)
    if new_year.weekday() != SATURDAY:
        yield _observed(new_year)
    yield _nth(year, 1, MONDAY, 3)
    yield _nth(year, 2, MONDAY, 3)
    yield _good_friday(year)
    yield _nth(year, 5, MONDAY, -1)
    if year >= 2022:
        yield _observed(date(year, 6, 19))
    yield _observed(date(year, 7, 4))
    yield _nth(year, 9, MONDAY, 1)
    yield _nth(year, 11, THURSDAY, 4)
    yield _observed(date(year, 12, 25))
    yield from (day for day in SPECIAL if day.year == year)


CALENDARS: dict[str, Callable[[int], Iterator[date]]] = {"XNYS": _new_york, "XNAS": _new_york, "XCBO": _new_york}
"""By ISO 10383 market code. Days that close early are sessions."""


@cache
def holidays(calendar: str, year: int) -> tuple[float, ...]:
    """Epoch seconds at which each day of `year` that is no weekend and has no session begins, UTC, in order."""
    days = sorted(day for day in CALENDARS[calendar](year) if day.weekday() < SATURDAY)
    return tuple(datetime(d.year, d.month, d.day, tzinfo=UTC).timestamp() for d in days)


def closed(calendar: str, start: float, end: float) -> list[float]:
    """When the holidays begin that go on after `start` and have begun by `end` (epoch seconds); none without a
    calendar."""
    if not calendar:
        return []
    years = range(datetime.fromtimestamp(start, UTC).year, datetime.fromtimestamp(end, UTC).year + 1)
    return [day for year in years for day in holidays(calendar, year) if day + DAY > start and day <= end]
