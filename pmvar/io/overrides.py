"""Overrides: somebody takes on what a gate found, by name, for a reason, until a date."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pmvar.io.times import format_time, toml_time


class Gate(StrEnum):
    """What stops a run, or withholds accounts, until somebody says that it is right."""

    ACCOUNT_COUNT = "account-count"
    MODEL_CHANGE = "model-change"
    PRICE_JUMP = "price-jump"
    CODE = "code"
    PACKAGES = "packages"
    ASSUMED_MODEL = "assumed-model"
    FAILED_GATES = "failed-gates"
    PRICE_LIMITS = "price-limits"
    STALE_PRICES = "stale-prices"


@dataclass(frozen=True)
class Override:
    """One entry of `[[overrides]]` in book.toml."""

    gate: Gate
    by: str
    reason: str
    until: float
    """Epoch seconds; it holds for valuation times before."""
    of: str = ""
    """The asset or factor that it is for; all, where it names none."""

    def document(self) -> dict[str, str]:
        """JSON-ready."""
        until = format_time(self.until)
        return {"gate": str(self.gate), "of": self.of, "by": self.by, "reason": self.reason, "until": until}


_KEYS = ("gate", "by", "reason", "until", "of")


def read_overrides(value: Any) -> tuple[Override, ...]:
    """The overrides that a book lists; raises ValueError with the rule that an entry breaks."""
    if not isinstance(value, list):
        raise ValueError("must be a list of entries [[overrides]]")
    return tuple(_override(entry) for entry in value)


def _override(entry: Any) -> Override:
    if not isinstance(entry, dict) or not set(_KEYS[:4]) <= set(entry) <= set(_KEYS):
        raise ValueError("each needs gate, by, reason and until, and may name of")
    texts = [entry["by"], entry["reason"], entry.get("of", "x")]
    if not all(isinstance(text, str) and 0 < len(text.strip()) <= 500 for text in texts):
        raise ValueError("by, reason and of must be texts of at most 500 characters, and not empty")
    if entry["gate"] not in set(Gate):
        raise ValueError(f"gate must be one of {', '.join(Gate)}")
    try:
        until = toml_time(entry["until"])
    except ValueError as error:
        raise ValueError(f"until {error}") from error
    return Override(Gate(entry["gate"]), entry["by"], entry["reason"], until, entry.get("of", ""))
