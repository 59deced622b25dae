"""Problems: collects everything wrong with an input before anything is refused."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pmvar.errors import InputError, Problem

SHOWN = 50
"""Problems kept of one file; the others are counted, so that ten million bad rows stay one readable error."""


class Problems:
    """Collects the problems of several files."""

    def __init__(self) -> None:
        self._kept: dict[str, list[Problem]] = {}
        self._more: dict[str, int] = {}

    def __len__(self) -> int:
        return sum(map(len, self._kept.values())) + sum(self._more.values())

    def add(self, problem: Problem) -> None:
        """Keep `problem`, or count it once its file has enough of them."""
        kept = self._kept.setdefault(problem.file, [])
        if len(kept) < SHOWN:
            kept.append(problem)
        else:
            self._more[problem.file] = self._more.get(problem.file, 0) + 1

    def rows(self, *, file: str, rows: np.ndarray, column: str, values: Sequence[object], rule: str, fix: str) -> None:
        """Add one problem for each of `rows` (line numbers); `values` need hold no more than the first
        `SHOWN`."""
        for row, value in zip(rows[:SHOWN].tolist(), values, strict=False):
            self.add(Problem(rule, fix, file=file, row=int(row), column=column, value=str(value)[:100]))
        if len(rows) > SHOWN:
            self._more[file] = self._more.get(file, 0) + len(rows) - SHOWN

    def extend(self, error: InputError, *, file: str = "") -> None:
        """Add the problems of `error`, under `file` where they name none."""
        for p in error.problems:
            self.add(p if p.file else Problem(p.rule, p.fix, file=file, row=p.row, column=p.column, value=p.value))

    def raise_any(self) -> None:
        """Raise InputError if there are problems: by file, by row, with a count of those not shown."""
        if not self._kept:
            return
        found: list[Problem] = []
        for file, kept in self._kept.items():
            found += sorted(kept, key=lambda p: p.row or 0)
            if self._more.get(file):
                found.append(Problem(f"{self._more[file]} more problems", "mend the ones shown first", file=file))
        raise InputError(found)
