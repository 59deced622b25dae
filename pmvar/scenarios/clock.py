"""Two clocks: decay runs in calendar seconds, variance in model steps."""

from __future__ import annotations

import re

import numpy as np

from pmvar.errors import UsageError
from pmvar.market.calendars import closed
from pmvar.types import DAY

_HORIZON = re.compile(r"([1-9][0-9]{0,3})([dh])")

_EPOCH_WEEKDAY = 3
"""1970-01-01 was a Thursday, counting from Monday = 0."""


def horizon_steps(horizon: str) -> float:
    """Model steps of a horizon such as `2d` or `12h`; a step is a day. Raises UsageError."""
    match = _HORIZON.fullmatch(horizon)
    if not match:
        raise UsageError(f"horizon {horizon!r}: write whole days or hours, such as 2d or 12h")
    return int(match[1]) * (1.0 if match[2] == "d" else 1 / 24)


def _weekday_seconds(time: float) -> float:
    """Seconds from Monday to Friday between the first Monday before the epoch and `time` (epoch seconds, UTC)."""
    days = time / DAY + _EPOCH_WEEKDAY
    weeks = np.floor(days / 7)
    return float((5 * weeks + min(days - 7 * weeks, 5.0)) * DAY)


def elapsed_steps(as_of: float, time: float, steps_per_year: int, calendar: str = "") -> float:
    """Model steps between two times in epoch seconds: calendar days at 365 a year, else Mondays to Fridays but for the
    holidays of `calendar` (see `pmvar.market.calendars`)."""
    if steps_per_year == 365:
        return max(time - as_of, 0.0) / DAY
    weekdays = _weekday_seconds(time) - _weekday_seconds(as_of)
    off = sum(min(day + DAY, time) - max(day, as_of) for day in closed(calendar, as_of, time))
    return max(weekdays - off, 0.0) / DAY


def horizon_end(as_of: float, steps: float, steps_per_year: int, calendar: str = "") -> float:
    """Epoch seconds at which `steps` have elapsed after `as_of`; without a `calendar` holidays count as sessions."""
    if steps_per_year == 365:
        return as_of + steps * DAY
    end, later = -np.inf, _after_weekdays(as_of, steps * DAY)
    # Each round adds the holidays that the one before ran into.
    while end < later:
        end = later
        off = sum(day + DAY - max(day, as_of) for day in closed(calendar, as_of, end))
        later = _after_weekdays(as_of, steps * DAY + off)
    return end


def _after_weekdays(start: float, seconds: float) -> float:
    target = _weekday_seconds(start) + seconds
    weeks = np.floor(target / (5 * DAY))
    return float((7 * weeks - _EPOCH_WEEKDAY) * DAY + (target - weeks * 5 * DAY))
