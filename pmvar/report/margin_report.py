"""MarginReport: the result of a run, which can publish itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pmvar.io.run import write_run
from pmvar.report.html import render
from pmvar.risk.result import MarginResult


class MarginReport(MarginResult):
    """All that a run found out; `write` publishes it."""

    def write(
        self,
        path: str | Path,
        *,
        inputs: Mapping[str, str] | None = None,
        book: str | Path | None = None,
        table_format: str = "parquet",
    ) -> Path:
        """Publish tables, manifest.json and report.html as the folder `path`, all or nothing.

        `inputs` (relative path -> sha256) and `book` say in the manifest what the run was made from. Raises what
        `pmvar.io.run.write_run` raises.
        """
        return write_run(
            path, self, report_html=render(self), inputs=inputs or {}, book=book, table_format=table_format
        )
