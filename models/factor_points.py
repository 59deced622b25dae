"""Names of factors taken apart: their kind, and the tenor or date that those on a curve stand at."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from pmvar.types import DAY, FactorKind

DAYS = {"d": 1.0, "w": 7.0, "m": 365 / 12, "y": 365.0}
"""In the units of a tenor."""

LEVELS = frozenset({FactorKind.BASIS, FactorKind.RATE, FactorKind.SPREAD})
"""Kinds that move by differences of their level, which may be zero or below."""

_TENOR = re.compile(r"([1-9]\d{0,3})([dwmy])", re.ASCII)
_DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


def kind_and_point(name: str) -> tuple[str, str]:
    """`("rate", "1y")` of `USD:rate.1y`; the point is empty where there is none."""
    kind, _, point = name.rpartition(":")[2].partition(".")
    return kind, point


def is_level(name: str) -> bool:
    """Whether `name` is that of a factor that moves by differences of its level."""
    return sound_name(name) and kind_and_point(name)[0] in LEVELS


def point_time(point: str, start: float) -> float:
    """Epoch seconds of a date (at midnight UTC), or of a tenor such as `2w`, `3m` or `10y` after `start`.

    Raises ValueError for what is neither.
    """
    if _DATE.fullmatch(point):
        return datetime.fromisoformat(point).replace(tzinfo=UTC).timestamp()
    match = _TENOR.fullmatch(point)
    if not match:
        raise ValueError(f"{point!r} is no tenor, such as 3m or 2y")
    return start + int(match[1]) * DAYS[match[2]] * DAY


def sound_name(name: str) -> bool:
    """Whether `name` is that of a factor: rates have a tenor, bases a tenor or a date, the others neither."""
    underlying = name.rpartition(":")[0]
    kind, point = kind_and_point(name)
    if not underlying or kind not in set(FactorKind):
        return False
    if kind == FactorKind.RATE:
        return bool(_TENOR.fullmatch(point))
    if kind != FactorKind.BASIS:
        return name.endswith(f":{kind}")
    try:
        point_time(point, 0.0)
    except ValueError:
        return False
    return True
