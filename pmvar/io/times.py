"""RFC 3339 times to epoch seconds and back, and durations such as `2d`."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Any

_RFC3339 = re.compile(r"\d{4}-\d{2}-\d{2}[Tt ]\d{2}:\d{2}:\d{2}(\.\d{1,9})?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)
_DURATION = re.compile(r"([1-9]\d{0,5})([smhd])", re.ASCII)
_UNIT = {"s": 1.0, "m": 60.0, "h": 3_600.0, "d": 86_400.0}


def parse_time(text: str) -> float:
    """Epoch seconds of an RFC 3339 time with an offset; raises ValueError for anything else."""
    if not _RFC3339.fullmatch(text):
        raise ValueError(f"{text!r} is not an RFC 3339 time with an offset, such as 2025-01-31T08:00:00Z")
    return datetime.fromisoformat(text.upper()).timestamp()


def toml_time(value: Any) -> float:
    """Epoch seconds of a time in TOML, or of RFC 3339 text; raises ValueError for anything else."""
    if isinstance(value, datetime) and value.tzinfo is not None:
        return value.timestamp()
    if not isinstance(value, str):
        raise ValueError("must be a time with its offset, such as 2025-01-31T08:00:00Z")
    return parse_time(value)


def parse_day(text: str) -> float:
    """Epoch seconds of an RFC 3339 time or of a date, which begins at midnight UTC; raises ValueError otherwise."""
    if re.fullmatch(r"\d{4}-\d{2}-\d{2}", text, re.ASCII):
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    return parse_time(text)


def format_day(seconds: float) -> str:
    """The UTC date of epoch `seconds`."""
    return datetime.fromtimestamp(seconds, UTC).date().isoformat()


def format_time(seconds: float) -> str:
    """RFC 3339 in UTC, to the microsecond, of epoch `seconds`."""
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def parse_duration(text: str) -> float:
    """Seconds of a duration such as `90s`, `30m`, `1h` or `2d`; raises ValueError for anything else."""
    match = _DURATION.fullmatch(text)
    if not match:
        raise ValueError(f"{text!r} is not a duration such as 90s, 30m, 1h or 2d")
    return int(match[1]) * _UNIT[match[2]]
