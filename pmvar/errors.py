"""What can go wrong, as types: each carries the exit code that the command line ends with."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an input, said so that a person can mend it."""

    rule: str
    """What must hold, in words."""
    fix: str
    """What to do about it."""
    file: str = ""
    row: int | None = None
    """Line of the file, the header being line 1; for Parquet, the row counted from 1."""
    column: str = ""
    value: str = ""

    def __str__(self) -> str:
        where = self.file + (f":{self.row}" if self.row is not None else "")
        what = " ".join(
            part for part in (f"{self.column}" if self.column else "", f"{self.value!r}" if self.value else "") if part
        )
        return ": ".join(part for part in (where, what, self.rule) if part) + f" — {self.fix}"


NAMED = 5
"""Names that a sentence lists; the others are counted."""


def some_of(names: Iterable[object]) -> str:
    """The first of `names`, with commas, and how many more there are."""
    all_names = [str(name) for name in names]
    more = f" and {len(all_names) - NAMED:,} more" if len(all_names) > NAMED else ""
    return ", ".join(all_names[:NAMED]) + more


class PmvarError(Exception):
    """Base of all errors that pmvar raises on purpose."""

    exit_code = 70


class UsageError(PmvarError):
    """The call itself is wrong: an option, a path, a combination."""

    exit_code = 2


class InputError(PmvarError):
    """The input is rejected; nothing was written. Holds every problem found, not only the first."""

    exit_code = 3

    def __init__(self, problems: Problem | Iterable[Problem]):
        self.problems = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class QualityGate(PmvarError):
    """A result exists or could exist, but a gate withholds it or part of it."""

    exit_code = 4


class NumericsError(PmvarError):
    """A number came out that must not be published: NaN, infinite, or out of tolerance."""

    exit_code = 5


class ResourceError(PmvarError):
    """Memory, disk or device ran out; what was finished is kept."""

    exit_code = 6


class StateError(PmvarError):
    """The state on disk does not allow this: changed input, another run in the same place."""

    exit_code = 7


class SecurityError(PmvarError):
    """The input looks like an attack or exceeds a safety cap."""

    exit_code = 8


class AuditError(PmvarError):
    """A published result does not verify."""

    exit_code = 9


class Stopped(PmvarError):
    """Asked to stop from outside; what was finished is kept."""

    exit_code = 143


def exhausted(error: BaseException) -> bool:
    """Whether memory ran out, the device's or the host's."""
    return isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in str(error)
