"""Settings of a book: `book.toml`, its defaults, and what the command line overrides."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

from pmvar.errors import InputError, Problem, UsageError
from pmvar.io.csv_text import decodable
from pmvar.io.overrides import Override, read_overrides
from pmvar.io.problems import Problems
from pmvar.io.times import parse_duration, toml_time
from pmvar.market.calendars import check_calendar
from pmvar.risk.rules import MarginRules
from pmvar.types import (
    ApcTool,
    Liquidity,
    Measure,
    Netting,
    Parameters,
    Precision,
    Sampling,
    Stickiness,
    StressOf,
    SurfaceKind,
    VolatilitySource,
)

FILE = "book.toml"



@dataclass(frozen=True)
class RunSettings:
    """How a run is made, the command line's overrides included."""

    horizon: str = "2d"
    """Whole days: calendar days where the model has 365 steps a year, sessions where it has 252."""
    scenarios: int = 65_536
    seed: int = 1
    sampling: Sampling = Sampling.SOBOL_IS
    netting: Netting = Netting.REJECT
    precision: Precision = Precision.FLOAT32
    surface: SurfaceKind = SurfaceKind.RAW
    parameters: Parameters = Parameters.PREDICTIVE
    """What the margin is taken under, where the model has a posterior."""
    plug_in_stress: bool = False
    """Whether the measure under the estimates alone is in the table `stress`."""
    decorrelation: float = 0.0
    """Share of the correlation between underlyings that the decorrelation stress takes away; 0: there is none."""
    volatility: VolatilitySource = VolatilitySource.MODEL
    calendar: str = ""
    """Market code of the exchange whose holidays are no sessions of the horizon; empty: all weekdays are."""
    stickiness: Stickiness = Stickiness.MONEYNESS

    @property
    def horizon_days(self) -> int:
        """The horizon's number of days."""
        return int(self.horizon.removesuffix("d"))


@dataclass(frozen=True)
class BookHead:
    """What `book.toml` says."""

    as_of: float
    """Epoch seconds."""
    base_currency: str
    settings: RunSettings
    rules: MarginRules
    limits: Mapping[str, float]
    """`max_price_age` in seconds, `max_price_jump` in standard deviations, where given."""
    notes: tuple[str, ...] = ()
    """What the reader of any result must be told: that the book is synthetic, say."""
    overrides: tuple[Override, ...] = ()


Check = Callable[[Any], Any]
"""The value as used; raises ValueError saying the rule."""


def _integer(low: int, high: int) -> Check:
    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return value

    return check


def _real(low: float, high: float, *, rule: str) -> Check:
    def check(value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
            raise ValueError(rule)
        return float(value)

    return check


def _one_of(names: type[StrEnum]) -> Check:
    def check(value: Any) -> StrEnum:
        if not isinstance(value, str) or value not in set(names):
            raise ValueError(f"must be one of {', '.join(names)}")
        return names(value)

    return check


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def _horizon(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[1-9]\d{0,2}d", value, re.ASCII) or int(value[:-1]) > 60:
        raise ValueError("must be a whole number of days from 1d to 60d")
    return value


def _tools(value: Any) -> tuple[ApcTool, ...]:
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else [""]
    if names in (["none"], [""]) and isinstance(value, str):
        return ()
    if len(set(names)) < len(names) or not set(names) <= set(ApcTool):
        raise ValueError(f"must be none, or any of {', '.join(ApcTool)}, each once, with commas")
    return tuple(tool for tool in ApcTool if tool in names)


def _calendar(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("must be the market code of an exchange, such as XNYS")
    if value:
        check_calendar(value)
    return value


def _age(value: Any) -> float:
    if not isinstance(value, str):
        raise ValueError("must be a duration such as 90s, 30m, 1h or 2d")
    return parse_duration(value)


def _currency(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9][\w.\-]{0,31}", value, re.ASCII):
        raise ValueError("must be the name of a currency, such as USD")
    return value


def _sentences(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(line, str) and 0 < len(line) <= 500 for line in value):
        raise ValueError("must be a list of sentences, each of at most 500 characters")
    return tuple(value)


TOP: Mapping[str, Check] = {
    "format": _integer(1, 1),
    "as_of": toml_time,
    "base_currency": _currency,
    "surface": _one_of(SurfaceKind),
    "notes": _sentences,
    "overrides": read_overrides,
}
SECTIONS: Mapping[str, Mapping[str, Check]] = {
    "run": {
        "horizon": _horizon,
        "level": _real(0.500001, 0.9999999, rule="must lie in (0.5, 1), such as 0.99"),
        "scenarios": _integer(1024, 2**31 - 1),
        "seed": _integer(0, 2**32 - 1),
        "sampling": _one_of(Sampling),
        "netting": _one_of(Netting),
        "precision": _one_of(Precision),
        "volatility": _one_of(VolatilitySource),
        "stickiness": _one_of(Stickiness),
        "parameters": _one_of(Parameters),
        "plug_in_stress": _switch,
        "calendar": _calendar,
        "decorrelation": _real(0.0, 1.0, rule="must lie in [0, 1], such as 0.5"),
    },
    "margin": {
        "measure": _one_of(Measure),
        "multiplier": _real(1e-6, 999_999.0, rule="must be positive and below 1e6"),
        "floor": _real(0.0, 999_999_999_999_999.0, rule="must be from 0 to below 1e15"),
        "maintenance_ratio": _real(1e-9, 1.0, rule="must lie in (0, 1]"),
        "apc": _tools,
        "stress_share": _real(0.0, 1.0, rule="must lie in [0, 1], such as 0.25"),
        "stress_of": _one_of(StressOf),
        "liquidity": _one_of(Liquidity),
    },
    "limits": {
        "max_price_age": _age,
        "max_price_jump": _real(1.0, 1000.0, rule="must be from 1 to 1000 standard deviations, such as 10"),
    },
}
OVERRIDES: Mapping[str, Check] = {"surface": TOP["surface"]} | {
    key: check for section in SECTIONS.values() for key, check in section.items()
}
"""Every setting that a call may override, by its name alone."""


def _checked(
    entries: Mapping[str, Any], checks: Mapping[str, Check], *, section: str, problems: Problems
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in entries.items():
        name = f"{section}.{key}" if section else key
        if key not in checks:
            if section or key not in SECTIONS:
                fix = f"the keys are {', '.join(checks)}"
                problems.add(Problem("unknown key", fix, file=FILE, column=name, value=str(value)))
            continue
        try:
            found[key] = checks[key](value)
        except (ValueError, OverflowError) as error:
            problems.add(Problem(str(error), "correct it", file=FILE, column=name, value=str(value)))
    return found


def _parse(content: bytes) -> dict[str, Any]:
    text = decodable(content, file=FILE).decode()
    try:
        return tomllib.loads(text.replace("\r\n", "\n"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        line = re.search(r"line (\d+)", str(error))
        row = int(line[1]) if line else None
        raise InputError(Problem(f"is not TOML: {error}", "correct the line", file=FILE, row=row)) from error


def check_overrides(overrides: Mapping[str, Any]) -> dict[str, Any]:
    """The overrides that are not None, checked. Raises UsageError naming the first that is wrong."""
    found: dict[str, Any] = {}
    for key, value in overrides.items():
        if key not in OVERRIDES:
            raise UsageError(f"unknown setting {key!r}; the settings are {', '.join(OVERRIDES)}")
        if value is None:
            continue
        try:
            found[key] = OVERRIDES[key](value)
        except ValueError as error:
            raise UsageError(f"{key} {value!r} {error}") from error
    return found


def read_head(content: bytes, *, overrides: Mapping[str, Any], problems: Problems) -> BookHead | None:
    """What `book.toml` says, with `overrides` (see `check_overrides`) put over it; None where it lacks the
    essentials.

    Raises UsageError for a calendar that is not known.
    """
    try:
        document = _parse(content)
    except InputError as error:
        problems.extend(error, file=FILE)
        return None
    top = _checked(document, TOP, section="", problems=problems)
    found: dict[str, Any] = {"surface": top.get("surface", SurfaceKind.RAW)}
    for section, checks in SECTIONS.items():
        entries = document.get(section, {})
        if isinstance(entries, dict):
            found |= _checked(entries, checks, section=section, problems=problems)
        else:
            problems.add(Problem("must be a section", f"write [{section}]", file=FILE, column=section))
    for key in ("format", "as_of", "base_currency"):
        if key not in document:
            problems.add(Problem("the key is missing", "add it", file=FILE, column=key))
    found |= overrides
    if "as_of" not in top or "base_currency" not in top:
        return None
    run, rules = (
        {f.name: found[f.name] for f in fields(kind) if f.name in found} for kind in (RunSettings, MarginRules)
    )
    limits = {key: found[key] for key in SECTIONS["limits"] if key in found}
    notes = top.get("notes", ())
    settings, margin = RunSettings(**run), MarginRules(**rules)
    taken = top.get("overrides", ())
    return BookHead(top["as_of"], top["base_currency"], settings, margin, limits, notes, taken)
