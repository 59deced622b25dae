"""Panels of daily prices or vols, and what is wrong with them: found and named, never filled in silence."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from jaxtyping import Float

from pmvar.models.factor_points import is_level
from pmvar.types import DAY, FactorKind, factor_name

STALE_DAYS = 5
"""As many equal prices in a row are no price: a market that trades every day moves."""
GAP_DAYS = 5
"""Missing days at most over which a move is kept, as one step's: so that a crash behind missing prices is not lost."""
OUTLIER = 20.0
"""Moves larger than so many robust deviations (1.4826 times the median size) are named."""
SPLITS = (2.0, 3.0, 4.0, 5.0, 10.0, 20.0, 100.0, 1000.0)
SPLIT_TOLERANCE = 0.01
"""Of the logarithm of a ratio that looks like a split or a redenomination."""
LEAST_WEEKENDS = 8
"""Weekend days in an asset's life without a price that show that it trades in sessions."""


class Quirk(StrEnum):
    """What a panel may have; `meaning` says what is done about it."""

    LISTED_LATE = "listed-late"
    ENDED = "ended"
    MISSING = "missing"
    STALE = "stale"
    SPLIT = "split"
    OUTLIER = "outlier"
    WEEKENDS = "weekends"

    @property
    def meaning(self) -> str:
        """What it is, and what was done."""
        return _MEANINGS[self]


_MEANINGS = {
    Quirk.LISTED_LATE: "its first price is later than the panel's first day",
    Quirk.ENDED: "it has no price on the last day: there is no state of today to calibrate, it is left out",
    Quirk.MISSING: f"days without a price; a move over at most {GAP_DAYS} of them is one step's, else none",
    Quirk.STALE: f"{STALE_DAYS} or more equal prices in a row: their moves of zero are passed over",
    Quirk.SPLIT: "a move like a split or a redenomination; it is kept: adjust the prices before it if it is one",
    Quirk.OUTLIER: f"a move of more than {OUTLIER:g} robust deviations; it is kept: correct the price if it is wrong",
    Quirk.WEEKENDS: "trades at weekends beside assets that do not: its weekend moves are part of Monday's",
}


@dataclass(frozen=True)
class Finding:
    """One thing noticed about one asset or factor."""

    name: str
    quirk: Quirk
    day: float
    """Epoch seconds of the (first) day."""
    count: int
    """Days concerned."""


@dataclass(frozen=True)
class Panel:
    """One value for each asset and day."""

    day: Float[np.ndarray, " day"]
    """Epoch seconds, each at midnight UTC, increasing."""
    name: tuple[str, ...]
    """Of assets; in a panel of factors, theirs."""
    value: Float[np.ndarray, "day name"]
    """Positive; NaN where there is none. Of a factor that moves by differences of its level, e to the level: the log of
    a ratio is its difference."""


def factor_panel(prices: Panel, vols: Panel | None = None) -> Panel:
    """Prices and implied vols of assets as one panel of factors, over all days of either.

    A column of `prices` may be a level, named as its factor is (`USD:rate.1y`, `ACME:spread`, `BTC:basis.90d`).
    """
    parts = [(FactorKind.SPOT, prices)] + ([(FactorKind.VOL, vols)] if vols else [])
    day = np.unique(np.concatenate([p.day for _, p in parts]))
    names = tuple(n if is_level(n) else factor_name(n, kind) for kind, p in parts for n in p.name)
    value = np.full((len(day), len(names)), np.nan)
    place = 0
    for _, p in parts:
        value[np.searchsorted(day, p.day), place : place + len(p.name)] = p.value
        place += len(p.name)
    level = [is_level(n) for n in names]
    value[:, level] = np.exp(value[:, level])
    return Panel(day, names, value)


@dataclass(frozen=True)
class Moves:
    """Ratios of consecutive values on a calendar that all assets share."""

    day: Float[np.ndarray, " day"]
    """Epoch seconds of the day on which each move ended."""
    name: tuple[str, ...]
    ratio: Float[np.ndarray, "day name"]
    """Value over the value before; NaN where there is none."""
    steps_per_year: int
    """365 where all trade every day, else 252."""
    findings: tuple[Finding, ...] = ()

    def part(self, days: slice, names: Sequence[str] | None = None) -> Moves:
        """Some of the days, and of the names; without the findings, which speak of the whole."""
        chosen = self.name if names is None else tuple(names)
        columns = [self.name.index(n) for n in chosen]
        return Moves(self.day[days], chosen, self.ratio[days][:, columns], self.steps_per_year)


def moves(panel: Panel) -> Moves:
    """Day-on-day ratios of `panel`, on every day of the week if all its assets trade so, else on the sessions of
    those that do not."""
    weekend = (np.floor(panel.day / DAY).astype(np.int64) + 3) % 7 >= 5
    in_sessions = np.array([_in_sessions(v, weekend) for v in panel.value.T])
    findings: list[Finding] = []
    if in_sessions.any() or not weekend.any():
        # Holidays are days on which no asset with sessions has a price.
        kept = ~np.isnan(panel.value[:, in_sessions]).all(axis=1) if in_sessions.any() else ~weekend
        findings += [
            Finding(name, Quirk.WEEKENDS, panel.day[0], int((~kept).sum()))
            for name, sessions in zip(panel.name, in_sessions, strict=True)
            if in_sessions.any() and not sessions
        ]
        day, value, steps_per_year = panel.day[kept], panel.value[kept], 252
    else:
        day, value, steps_per_year = *_every_day(panel), 365
    ratio = np.full_like(value, np.nan)
    for i, name in enumerate(panel.name):
        ratio[:, i], found = _ratios(name, day, value[:, i])
        findings += found
    return Moves(day[1:], panel.name, ratio[1:], steps_per_year, tuple(findings))


def _in_sessions(value: Float[np.ndarray, " day"], weekend: np.ndarray) -> bool:
    there = np.flatnonzero(~np.isnan(value))
    life = weekend[there[0] : there[-1] + 1] if len(there) else weekend[:0]
    return bool(life.sum() >= LEAST_WEEKENDS and np.isnan(value[there[0] : there[-1] + 1][life]).all())


def _every_day(panel: Panel) -> tuple[Float[np.ndarray, " day"], Float[np.ndarray, "day name"]]:
    """The panel with a row of NaN for each date that it skips."""
    place = np.round((panel.day - panel.day[0]) / DAY).astype(np.int64)
    value = np.full((place[-1] + 1, len(panel.name)), np.nan)
    value[place] = panel.value
    return panel.day[0] + DAY * np.arange(len(value)), value


def _ratios(
    name: str, day: Float[np.ndarray, " day"], value: Float[np.ndarray, " day"]
) -> tuple[Float[np.ndarray, " day"], list[Finding]]:
    """Ratios of one asset, and what was found in its prices."""
    out, there = np.full(len(value), np.nan), np.flatnonzero(~np.isnan(value))
    if len(there) < 2:
        return out, [Finding(name, Quirk.MISSING, day[0], len(value) - len(there))]
    found = []

    def note(quirk: Quirk, at: np.ndarray, count: int | None = None) -> None:
        if len(at):
            found.append(Finding(name, quirk, float(day[at[0]]), len(at) if count is None else count))

    note(Quirk.LISTED_LATE, there[:1][there[:1] > 0], int(there[0]))
    note(Quirk.ENDED, there[-1:][there[-1:] < len(value) - 1], int(len(value) - 1 - there[-1]))
    inside = np.arange(there[0], there[-1] + 1)
    note(Quirk.MISSING, inside[np.isnan(value[inside])])
    near = np.diff(there) <= GAP_DAYS + 1
    out[there[1:][near]] = (value[there[1:]] / value[there[:-1]])[near]
    still = _stale(value[there])
    note(Quirk.STALE, there[still])
    out[there[still]] = np.nan
    log = np.abs(np.log(out))
    size = 1.4826 * np.nanmedian(log) if np.isfinite(log).any() else np.inf
    large = np.nan_to_num(log) > OUTLIER * max(size, 1e-12)
    split = large & (np.min(np.abs(log[:, None] - np.log(SPLITS)), axis=1) < SPLIT_TOLERANCE)
    note(Quirk.SPLIT, np.flatnonzero(split))
    note(Quirk.OUTLIER, np.flatnonzero(large & ~split))
    return out, found


def _stale(value: Float[np.ndarray, " day"]) -> np.ndarray:
    """Whether a price repeats the one before within a run of at least `STALE_DAYS` equal ones."""
    change = np.flatnonzero(np.diff(value, prepend=np.nan) != 0)
    length = np.diff(np.append(change, len(value)))
    stale = np.repeat(length >= STALE_DAYS, length)
    stale[change] = False
    return stale
