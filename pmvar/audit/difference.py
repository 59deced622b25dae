"""Difference: the change of every margin from one run to another, by positions, market, model and time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float

from pmvar.audit.rerun import RULES, RUN_SETTINGS, Recorded, environment_of, priced_again, recorded
from pmvar.engine import Charged, Progress, account_tables, quiet
from pmvar.errors import UsageError
from pmvar.io.run import MANIFEST, hash_file, machine, write_run
from pmvar.market.snapshot import MarketSnapshot
from pmvar.models.specification import ModelSpecification
from pmvar.portfolio import Portfolio
from pmvar.report.page import page
from pmvar.risk.result import Columns, MarginResult
from pmvar.risk.rules import MarginRules
from pmvar.types import Detail, Status

AT_ONCE = 50_000
"""Accounts whose margins are computed together."""
LARGEST = 20
"""Accounts that the page lists."""
MEASURES = ("initial_margin", "expected_shortfall")


class Step(StrEnum):
    """What is changed, in this order, each on top of those before it."""

    POSITIONS = "positions"
    """Positions, balances and the terms of instruments; accounts that were opened or closed."""
    MARKET = "market"
    """Prices, curves and vols, still valued at the earlier time: every expiry as far away as it was."""
    MODEL = "model"
    TIME = "time"
    """The valuation time, all quotes as they are."""
    SETTINGS = "settings"
    """Level, seed, scenarios, horizon, rules."""
    JOINT = "joint"
    """Of several of these: the account could not be valued in between, as with a position in an instrument that the
    earlier market has no price for."""
    REST = "rest"
    """What running again moves: the runs were made by other code, versions or machines than these."""


TABLES: Mapping[str, tuple[str, ...]] = {
    "differences": ("account_id", "measure", "state", "before", *Step, "after"),
}
"""Of each account and measure: before + the steps = after."""


class State(StrEnum):
    """Which of the runs has the account."""

    KEPT = "KEPT"
    OPENED = "OPENED"
    CLOSED = "CLOSED"


@dataclass(frozen=True)
class DifferenceReport(MarginResult):
    """The table `differences`; `write` publishes it."""

    def write(
        self, path: str | Path, *, inputs: Mapping[str, str] | None = None, table_format: str = "parquet"
    ) -> Path:
        """Publish the table, manifest.json and report.html as the folder `path`, all or nothing, as a run does."""
        return write_run(
            path, self, report_html=render(self), inputs=inputs or {}, table_format=table_format, columns=TABLES
        )


@dataclass(frozen=True, eq=False)
class _World:
    """Everything that a margin depends on."""

    portfolio: Portfolio
    market: MarketSnapshot
    model: ModelSpecification
    rules: MarginRules
    settings: Mapping[str, Any]
    stress: Mapping[str, Mapping[str, float]]
    charged: Charged

    def margins(self, memory_bytes: float | None, progress: Progress) -> Columns:
        """The table `margins`."""
        # What stands in the table `stress` alone is no part of a margin.
        priced = priced_again(
            self.portfolio, self.market, self.model, self.rules, {**self.settings, "plug_in_stress": False},
            stress=self.stress, charged=self.charged, detail=Detail.MARGINS, memory_bytes=memory_bytes,
            progress=progress,
        )  # fmt: skip
        parts = np.array_split(np.arange(self.portfolio.n_accounts), -(-self.portfolio.n_accounts // AT_ONCE) or 1)
        found = [account_tables(priced, rows, detail=Detail.MARGINS, progress=progress)["margins"] for rows in parts]
        return {column: np.concatenate([part[column] for part in found]) for column in found[0]}


def difference(
    before: str | Path,
    after: str | Path,
    *,
    before_book: str | Path | None = None,
    after_book: str | Path | None = None,
    memory_bytes: float | None = None,
    progress: Progress = quiet,
) -> DifferenceReport:
    """The change of every account's margin and expected shortfall from the run `before` to the run `after`, by `Step`.

    Margins are computed again after each step, under the seed and the settings of `before` until those change
    themselves; where this environment is that of a run its published numbers serve, since bits are promised. Raises
    AuditError naming the first input that is not what a run was made from, UsageError for runs that cannot be compared.
    """
    one, other = recorded(before, book=before_book), recorded(after, book=after_book)
    b, a = one.book, other.book
    if a.market.as_of < b.market.as_of:
        raise UsageError(f"{before} is as of a later time than {after}: name the earlier run first")
    if a.market.base_currency != b.market.base_currency:
        raise UsageError(f"one run is in {b.market.base_currency}, the other in {a.market.base_currency}")
    worlds = _walk(one, other)
    # Of each step, the table of margins after it; the ends are what was published.
    found: list[tuple[Step, Columns]] = [(Step.REST, one.run.tables["margins"])]
    if not _same_environment(one):
        found.append((Step.REST, worlds[0][1].margins(memory_bytes, progress)))
    for step, world in worlds[1:-1]:
        found.append((step, world.margins(memory_bytes, progress)))
    last, world = worlds[-1]
    if not _same_environment(other):
        found.append((last, world.margins(memory_bytes, progress)))
        last = Step.REST
    found.append((last, other.run.tables["margins"]))
    return DifferenceReport({"differences": _table(found)}, (), _settings(one, other), tuple(_notes(one, other)))


def inputs_of(before: str | Path, after: str | Path) -> dict[str, str]:
    """Hashes of the two manifests, for that of the difference."""
    folders = {"before": Path(before), "after": Path(after)}
    files = {name: path if path.name == MANIFEST else path / MANIFEST for name, path in folders.items()}
    return {f"{name}/{MANIFEST}": hash_file(file) for name, file in files.items()}


def _walk(one: Recorded, other: Recorded) -> list[tuple[Step, _World]]:
    """The worlds from one run to the other, with the step that led to each."""
    b, a = one.book, other.book
    world = _World(b.portfolio, b.market, b.model, b.rules, one.settings, b.stress, one.charged)
    walk = [(Step.REST, world)]
    # The substitute of a withheld account may come from either run.
    last_good = {**one.settings.get("last_good", {}), **other.settings.get("last_good", {})}
    changes: list[tuple[Step, dict[str, Any]]] = [
        (Step.POSITIONS, {"portfolio": a.portfolio, "settings": {**one.settings, "last_good": last_good}}),
        (Step.MARKET, {"market": a.market.dated(b.market.as_of), "stress": a.stress}),
        (Step.MODEL, {"model": a.model}),
        (Step.TIME, {"market": a.market, "charged": other.charged}),
    ]
    if _chosen(one.settings) != _chosen(other.settings):
        changes.append((Step.SETTINGS, {"rules": a.rules, "settings": other.settings}))
    for step, change in changes:
        world = replace(world, **change)
        walk.append((step, world))
    return walk


def _chosen(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {key: settings.get(key) for key in (*RUN_SETTINGS, *RULES, "n_scenarios", "drift")}


def _same_environment(run: Recorded) -> bool:
    return environment_of(run.run.manifest) == environment_of(machine(jax.devices()[0].device_kind))


def _table(found: list[tuple[Step, Columns]]) -> Columns:
    """The table `differences` from the margins before everything and after each step."""
    tables = [margins for _, margins in found]
    ends = [set(t["account_id"].tolist()) for t in (tables[0], tables[-1])]
    names = sorted(ends[0] | ends[1])
    row = {name: i for i, name in enumerate(names)}
    state = [State.KEPT if n in ends[0] & ends[1] else State.OPENED if n in ends[1] else State.CLOSED for n in names]
    valued = np.ones((len(tables), len(names)), dtype=bool)
    for i, t in enumerate(tables):
        valued[i, [row[a] for a in t["account_id"].tolist()]] = t["status"] != Status.WITHHELD
    parts = []
    for measure in MEASURES:
        amount = np.zeros((len(tables), len(names)))
        for i, t in enumerate(tables):
            amount[i, [row[a] for a in t["account_id"].tolist()]] = t[measure]
        parts.append(_steps(amount, valued, [step for step, _ in found[1:]]))
    # An account's measures stand together.
    columns = {name: np.stack([p[name] for p in parts], axis=1).reshape(-1) for name in parts[0]}
    n = len(MEASURES)
    return {
        "account_id": np.repeat(np.array(names, dtype=object), n),
        "measure": np.array(MEASURES * len(names), dtype=object),
        "state": np.repeat(np.array([str(s) for s in state], dtype=object), n),
        **columns,
    }


def _steps(
    amount: Float[np.ndarray, "state account"], valued: Bool[np.ndarray, "state account"], steps: list[Step]
) -> dict[str, np.ndarray]:
    """`before`, what each step adds and `after`, in multiples of one power of two for each account, so that they add
    up without rounding."""
    unit = 4 * np.spacing(np.abs(amount).max(axis=0, initial=0.0))
    amount = np.round(amount / unit) * unit
    change = np.diff(amount, axis=0)
    # Where an account can be valued at both ends, a substitute margin in between belongs to no step.
    told = (valued[1:] & valued[:-1]) | ~(valued[0] & valued[-1])
    out = {"before": amount[0], **{str(step): np.zeros(amount.shape[1]) for step in Step}, "after": amount[-1]}
    for step, added, clear in zip(steps, change, told, strict=True):
        out[step] = out[step] + np.where(clear, added, 0.0)
        out[Step.JOINT] = out[Step.JOINT] + np.where(clear, 0.0, added)
    return out


def _settings(one: Recorded, other: Recorded) -> dict[str, Any]:
    kept = ("base_currency", "level", "horizon", "n_scenarios", "seed", "precision", "device")
    return {
        "as_of_before": _moment(one),
        "as_of": _moment(other),
        "digest_before": one.run.manifest["digest"],
        "digest_after": other.run.manifest["digest"],
        "order": [str(step) for step in Step],
        **{key: other.settings[key] for key in kept},
    }


def _moment(run: Recorded) -> str:
    return datetime.fromtimestamp(run.book.market.as_of, UTC).isoformat().replace("+00:00", "Z")


def _notes(one: Recorded, other: Recorded) -> list[str]:
    """What the steps stem from: settings that differ, and environments that are not this one."""
    then, now = _chosen(one.settings), _chosen(other.settings)
    changed = [f"{key} {then[key]} → {now[key]}" for key in then if then[key] != now[key]]
    notes = [f"settings differ: {', '.join(changed)}"] if changed else []
    for name, run in (("earlier", one), ("later", other)):
        if not _same_environment(run):
            notes.append(f"the {name} run was made by other code, versions or machine: what that moves is in `rest`")
    return notes


def largest(table: Columns, count: int = LARGEST) -> list[dict[str, Any]]:
    """Rows of the accounts whose initial margin changed most, the largest first; those that did not are left out."""
    chosen = np.flatnonzero(table["measure"] == MEASURES[0])
    change = np.abs(table["after"][chosen] - table["before"][chosen])
    order = chosen[np.argsort(-change, kind="stable")][: min(count, int(np.count_nonzero(change)))]
    return [{name: values[i] for name, values in table.items()} for i in order]


def total(table: Columns) -> dict[str, Any]:
    """The sums over all accounts of the initial margin's row."""
    own = table["measure"] == MEASURES[0]
    return {name: float(table[name][own].sum()) for name in ("before", *Step, "after")}


def shown_steps(table: Columns) -> list[Step]:
    """The four that always stand, and those of the others that moved any account."""
    always = (Step.POSITIONS, Step.MARKET, Step.MODEL, Step.TIME)
    return [step for step in Step if step in always or np.any(table[step] != 0)]


def render(result: MarginResult) -> str:
    """The page as HTML, without scripts or references elsewhere. Equal results give equal text."""
    table = result.tables["differences"]
    return page(
        "difference.html.j2",
        settings=result.settings,
        notes=result.notes,
        steps=shown_steps(table),
        total=total(table),
        rows=largest(table),
        counts={s: int(np.sum(table["state"] == s)) // len(MEASURES) for s in State},
    )
