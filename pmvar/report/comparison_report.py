"""ComparisonReport: margin methods side by side, which can publish itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from pmvar.io.run import write_run
from pmvar.methods.comparison import COVERAGE_TABLES, TABLES
from pmvar.report.comparison_html import render
from pmvar.risk.result import MarginResult


@dataclass(frozen=True)
class AccountGrid:
    """One account's loss over moves of one underlying: on a grid, and in the Monte Carlo scenarios. Base currency."""

    account_id: str
    underlying: str
    spot_move: Float[np.ndarray, " column"]
    """S₁/S₀ − 1; the outermost is the 99% quantile of its size."""
    vol_move: Float[np.ndarray, " row"]
    """σ₁/σ₀ − 1."""
    loss: Float[np.ndarray, "row column"]
    cloud_spot: Float[np.ndarray, " scenario"]
    """Moves of the same underlying in scenarios of the tail and in some of the others."""
    cloud_vol: Float[np.ndarray, " scenario"]
    is_tail: np.ndarray
    """Whether the account's loss exceeds its VaR."""


@dataclass(frozen=True)
class ComparisonReport(MarginResult):
    """All that a comparison found out; `write` publishes it."""

    grids: tuple[AccountGrid, ...] = ()

    def write(
        self,
        path: str | Path,
        *,
        inputs: Mapping[str, str] | None = None,
        book: str | Path | None = None,
        table_format: str = "parquet",
    ) -> Path:
        """Publish tables, manifest.json and report.html as the folder `path`, all or nothing, as a run does."""
        return write_run(
            path, self, report_html=render(self), inputs=inputs or {}, book=book, table_format=table_format,
            columns={**TABLES, **{n: c for n, c in COVERAGE_TABLES.items() if n in self.tables}},
        )  # fmt: skip
