"""Numbers for people: thin separators, true minus signs, as many digits as mean something."""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from typing import Any

from pmvar.models.factor_points import is_level, kind_and_point
from pmvar.types import FactorKind

THIN = "\u202f"
"""Narrow no-break space: separates thousands and units, and never breaks a line."""
MINUS = "\u2212"
ABSENT = "–"
"""Shown for a number that is not finite."""


def fixed(value: Any, decimals: int = 0, *, sign: bool = False) -> str:
    """`value` with thousands separated and a fixed number of decimals; `sign` writes a plus too."""
    x = float(value)
    if not math.isfinite(x):
        return ABSENT
    text = f"{abs(x):,.{decimals}f}".replace(",", THIN)
    nothing = not any(c in "123456789" for c in text)
    return ("" if nothing else MINUS if x < 0 else "+" if sign else "") + text


def significant(value: Any, digits: int = 4, *, sign: bool = False) -> str:
    """`value` to so many significant digits, at least those of its integer part, without idle zeros."""
    x = float(value)
    if not math.isfinite(x):
        return ABSENT
    if x == 0:
        return "0"
    if not 1e-6 <= abs(x) < 1e15:
        return f"{x:+.{digits - 1}e}".replace("-", MINUS) if sign else f"{x:.{digits - 1}e}".replace("-", MINUS)
    decimals = max(0, digits - 1 - math.floor(math.log10(abs(x))))
    text = fixed(x, decimals, sign=sign)
    return text.rstrip("0").rstrip(".") if "." in text else text


def money(value: Any, *, sign: bool = False) -> str:
    """An amount: whole units from 100 up, two decimals below, three significant digits below 1."""
    x = float(value)
    size = abs(x)
    if 0 < size < 0.995:
        return significant(x, 3, sign=sign)
    return fixed(x, 0 if size >= 99.5 or x == 0 else 2, sign=sign)


def compact(value: Any, digits: int = 3) -> str:
    """An amount for tiles and axes: `1.24 M`; k, M, bn and tn stand for 10³, 10⁶, 10⁹ and 10¹²."""
    x = float(value)
    if not math.isfinite(x):
        return ABSENT
    for scale, unit in ((1e12, "tn"), (1e9, "bn"), (1e6, "M"), (1e3, "k")):
        # The rounded number decides: 999 999 is 1 M, not 1 000 k.
        if abs(float(f"{x:.{digits}g}")) >= scale:
            return significant(x / scale, digits) + THIN + unit
    return significant(x, digits)


def percent(fraction: Any, decimals: int = 1, *, sign: bool = False) -> str:
    """A fraction as per cent: 0.123 is `12.3 %`."""
    text = fixed(100 * float(fraction), decimals, sign=sign)
    return text if text == ABSENT else text + THIN + "%"


def level(fraction: Any) -> str:
    """A confidence level without idle digits: 0.99 is `99 %`, 0.975 is `97.5 %`."""
    return significant(100 * float(fraction), 6) + THIN + "%"


def move(log_change: Any, decimals: int = 1) -> str:
    """A log change as the percentage by which the price or the vol moves: exp(x) − 1."""
    try:
        return percent(math.expm1(float(log_change)), decimals, sign=True)
    except OverflowError:
        return ABSENT


def factor_move(factor: str, x: Any) -> str:
    """`move` of a price or a vol; of a basis, a rate or a spread its basis points."""
    return f"{fixed(1e4 * float(x), 1, sign=True)} bp" if is_level(factor) else move(x)


def held_factors(factors: Collection[str], held: Collection[str]) -> list[str]:
    """Those of `factors` that move what is held: of its names, and with a bond's spread the rates."""
    own = {name for name in factors if name.rpartition(":")[0] in held}
    bonds = any(kind_and_point(name)[0] == FactorKind.SPREAD for name in own)
    return [n for n in factors if n in own or (bonds and kind_and_point(n)[0] == FactorKind.RATE)]


def moment(text: Any) -> str:
    """An RFC 3339 time in UTC as people write it: `2024-06-10 08:00:00 UTC`; anything else as it is."""
    found = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d(?::\d\d(?:\.\d+)?)?)(?:Z|\+00:00)", str(text))
    return f"{found[1]} {found[2]} UTC" if found else str(text)


def horizon(text: Any) -> str:
    """`2d` in words: `2 days`."""
    word = str(text)
    units = {"d": "day", "h": "hour", "w": "week"}
    if word[:-1].isdigit() and word[-1] in units:
        return f"{word[:-1]} {units[word[-1]]}" + ("" if word[:-1] == "1" else "s")
    return word
