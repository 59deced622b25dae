"""One block of accounts, whatever happens: halved where memory is short, searched for the account that fails."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from jaxtyping import Int

from pmvar.bulk.journal import Log
from pmvar.engine import Priced, Progress, account_tables, quiet
from pmvar.errors import PmvarError, ResourceError, exhausted
from pmvar.io.run import arrow_table
from pmvar.risk.result import TABLES, Columns
from pmvar.types import Detail

MOST_WITHHELD = 16
"""Accounts of one block that may fail where others do not: more of them are a fault of something else."""

ATTEMPTS = 3
"""Times that a block may fail before it is taken apart."""


BY_ACCOUNT = tuple(name for name in TABLES if name != "shocks")


class Result(NamedTuple):
    """Tables of some accounts, and why some of them had to be withheld."""

    tables: Mapping[str, pa.Table]
    withheld: Mapping[str, str]

    @property
    def n_accounts(self) -> int:
        """Number of accounts."""
        return len(self.tables["margins"])


class Blocks:
    """Tables of blocks of accounts; nothing of an account depends on how a block was taken apart."""

    def __init__(self, priced: Priced, *, detail: Detail, log: Log):
        """`log` is told of whatever did not go as planned."""
        self._priced, self._detail, self._log = priced, detail, log
        self._most = priced.portfolio.n_accounts
        """Accounts that memory holds at once, as far as is known."""

    def result(self, rows: Int[np.ndarray, " account"], *, progress: Progress = quiet) -> Result:
        """Tables of the accounts at `rows`.

        Raises ResourceError where memory does not hold a single account, whatever pmvar raises on purpose, and what
        fails many accounts alike.
        """
        withheld: dict[str, str] = {}
        parts = [rows[i : i + self._most] for i in range(0, len(rows), self._most)]
        return _result(_joined([self._some(part, ATTEMPTS, withheld, progress) for part in parts]), withheld)

    def withheld(self, rows: Int[np.ndarray, " account"], reason: str) -> Result:
        """Tables of the accounts at `rows`, all withheld for `reason`."""
        withheld = {str(a): reason for a in self._priced.portfolio.account_id[rows]}
        return _result(account_tables(self._priced, rows, detail=self._detail, withheld=withheld), withheld)

    def _some(
        self, rows: np.ndarray, attempts: int, withheld: dict[str, str], progress: Progress
    ) -> dict[str, Columns]:
        names = self._priced.portfolio.account_id[rows]
        said = f"accounts {names[0]} to {names[-1]}"
        failure: Exception | None = None
        for attempt in range(1, attempts + 1):
            try:
                return account_tables(self._priced, rows, detail=self._detail, progress=progress)
            except PmvarError:
                raise
            except Exception as error:
                failure = error
                if exhausted(error):
                    break
                self._log(f"{said}: attempt {attempt} of {attempts} failed: {_words(error)}")
        assert failure is not None
        short = exhausted(failure)
        if short and self._release():
            self._log(f"{said}: out of memory; from now on no P&L stays on the device")
            failure = None
            return self._some(rows, attempts, withheld, progress)
        if len(rows) > 1:
            half = -(-len(rows) // 2)
            if short:
                self._most = min(self._most, half)
                self._log(f"{said}: out of memory; from now on {self._most} accounts at once")
            again = attempts if short else 1
            # Its traceback holds what the attempt had put on the device.
            failure = None
            return _joined([self._some(part, again, withheld, progress) for part in (rows[:half], rows[half:])])
        if short:
            raise ResourceError(f"account {names[0]} alone does not fit into memory: {_words(failure)}") from failure
        withheld[str(names[0])] = f"its margin could not be computed: {_words(failure)}"
        if len(withheld) > MOST_WITHHELD:
            raise failure
        return account_tables(self._priced, rows, detail=self._detail, withheld=withheld, progress=progress)

    def _release(self) -> bool:
        """Whether the device kept P&L that it need not."""
        p = self._priced
        return any([store.release() for store in (p.store, *p.beside.values(), *p.protective.values())])


def _result(tables: Mapping[str, Columns], withheld: Mapping[str, str]) -> Result:
    return Result({name: arrow_table(name, tables[name], TABLES[name]) for name in BY_ACCOUNT}, withheld)


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".split("\n")[0][:200]


def _joined(parts: list[dict[str, Columns]]) -> dict[str, Columns]:
    if len(parts) == 1:
        return parts[0]
    return {
        name: {column: np.concatenate([p[name][column] for p in parts]) for column in table}
        for name, table in parts[0].items()
    }
