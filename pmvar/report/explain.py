"""One account's margin explained in plain text, number by number, with the sums checked."""

from __future__ import annotations

import difflib
import math
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from pmvar.errors import UsageError
from pmvar.report.account import Account, Component, build_account, column
from pmvar.report.format import (
    ABSENT,
    THIN,
    factor_move,
    fixed,
    held_factors,
    horizon,
    level,
    moment,
    money,
    percent,
    significant,
)
from pmvar.report.gradients import Gradient
from pmvar.risk.buffer import buffered
from pmvar.risk.result import Columns
from pmvar.types import ApcTool, Measure, Status

WIDTH = 100
"""Columns of the text."""
SCENARIOS = 5
"""Worst scenarios told."""
PARAMETERS = 10
"""Parameters of the model told, those with the largest effect."""
CENT = 0.01
"""Sums agree when they do to a cent of the base currency, or to the rounding of float64 at their size."""
ROUNDING = 1e-9
KEPT = "\n" + THIN
"""Characters that str.isprintable() refuses and that the text is made with."""


def explain(tables: Mapping[str, Columns], manifest: Mapping[str, Any], account_id: str) -> str:
    """Tells where the margin of `account_id` comes from, as plain text.

    `tables` are the tables of a run (see `pmvar.risk.result.TABLES`), `manifest` its manifest or settings.
    Raises UsageError, with the nearest names, where the run has no such account.
    """
    settings = manifest.get("settings", manifest)
    try:
        account = build_account(tables, account_id, settings)
    except KeyError:
        raise unknown_account(account_id, [str(name) for name in column(tables["margins"], "account_id")]) from None
    parts = [
        _head(account, settings),
        _tail(account, settings),
        _steps(account, settings),
        _components(account),
        _causes(account),
        _gradients(account, account.gradients, "What would change it"),
        _parameters(account),
        _worst(account, settings),
        _stress(account),
    ]
    text = "\n\n".join("\n".join(part) for part in parts if part) + "\n"
    # An id may hold anything, a terminal's control sequences included.
    return "".join(c if c.isprintable() or c in KEPT else "\N{REPLACEMENT CHARACTER}" for c in text)


def unknown_account(account_id: str, names: list[str]) -> UsageError:
    """What is raised for an account that is not among `names`: it says which are nearest."""
    near = difflib.get_close_matches(account_id, names, n=3, cutoff=0.5)
    # difflib minds the case; a person who types MM-1 for mm-1 means it.
    near = near or [name for name in names if name.lower() == account_id.lower()]
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"it has {len(names)} others"
    return UsageError(f"the run has no account {account_id!r}: {hint}")


def _head(account: Account, settings: Mapping[str, Any]) -> list[str]:
    m, currency = account.margin, settings.get("base_currency", "")
    rows = [
        ("initial margin", fixed(m["initial_margin"], 2), ""),
        ("maintenance margin", fixed(m["maintenance_margin"], 2), ""),
        ("equity", fixed(m["equity"], 2), ""),
        ("excess", fixed(m["excess"], 2, sign=True), "equity − initial margin"),
    ]
    title = f"Account {account.account_id}: {m['status']}"
    lines = [title, "=" * len(title), f"as of {moment(settings.get('as_of', ABSENT))}, amounts in {currency}"]
    if m["reason"]:
        lines += textwrap.wrap(f"reason: {m['reason']}", WIDTH)
    return [*lines, "", *_table(rows, "<><")]


def _tail(account: Account, settings: Mapping[str, Any]) -> list[str]:
    m, n = account.margin, settings.get("n_scenarios", math.nan)
    if m["status"] == Status.WITHHELD:
        return []
    over, at = horizon(settings.get("horizon", ABSENT)), level(m["level"])
    rows = [("", f"at {at}", "std error", "95 % interval")]
    for name, value, error in (
        ("value at risk", "value_at_risk", "var_standard_error"),
        ("expected shortfall", "expected_shortfall", "es_standard_error"),
    ):
        x, half = float(m[value]), account.half_width * float(m[error])
        rows.append((name, fixed(x, 2), money(m[error]), f"{money(x - half)} to {money(x + half)}"))
    text = (
        f"Loss over {over} in {fixed(n)} scenarios. Value at risk is exceeded in "
        f"{level(1 - float(m['level']))} of them; expected shortfall is the average loss in those. "
        "Losses are positive."
    )
    return [*_title("Tail of the loss"), *textwrap.wrap(text, WIDTH), "", *_table(rows, "<>>>")]


def _steps(account: Account, settings: Mapping[str, Any]) -> list[str]:
    """From the measure to the margins, each step with its number, compared with what the table holds."""
    m = account.margin
    lines = _title("From the tail to the margin")
    if m["status"] == Status.WITHHELD:
        text = "Withheld: nothing was simulated; the initial margin is a substitute for what a simulation would give."
        return [*lines, *textwrap.wrap(text, WIDTH)]
    name = str(settings.get("measure", Measure.EXPECTED_SHORTFALL))
    multiplier, floor = float(settings.get("multiplier", 1.0)), float(settings.get("floor", 0.0))
    ratio = float(settings.get("maintenance_ratio", math.nan))
    measure = float(m["value_at_risk" if name == Measure.VALUE_AT_RISK else "expected_shortfall"])
    floored = max(measure, floor)
    initial, isolated = float(m["initial_margin"]), float(m["isolated_margin"])
    expected = multiplier * floored
    called = "current margin" if account.protection else ""
    rows = [
        (name.replace("_", " "), fixed(measure, 2), ""),
        (
            f"at least the floor {fixed(floor, 2)}",
            fixed(floored, 2),
            "floor binds" if floor > measure else "",
        ),
        (f"times {significant(multiplier, 6)}", fixed(expected, 2), called),
    ]
    if account.protection:
        more, expected = _protection(account, settings, expected)
        rows += more
    for add_on in account.add_ons:
        expected += add_on.amount
        rows.append((f"add-on {add_on.label}, {fixed(add_on.amount, 2)}", fixed(expected, 2), add_on.absent))
    rows[-1] = (*rows[-1][:2], f"{rows[-1][2]}, initial margin".removeprefix(", "))
    rows.append((f"times {significant(ratio, 6)}", fixed(ratio * expected, 2), "maintenance margin"))
    lines += [*_table(rows, "<><"), _check("initial margin in the table", expected, initial)]
    if isolated > 0:
        lines.append(
            f"Each position and balance alone would need {fixed(isolated, 2)} ± "
            f"{money(account.half_width * float(m['isolated_standard_error']))} in sum: "
            f"{percent(1 - multiplier * floored / isolated)} less is due to diversification."
        )
    return lines


def _protection(
    account: Account, settings: Mapping[str, Any], current: float
) -> tuple[list[tuple[str, str, str]], float]:
    """What the tools against procyclicality add, step by step, and the margin that comes of it."""
    p, tools = account.protection, str(settings.get("apc", "")).split(",")
    rows, margin = [], current
    for tool, key, label in (
        (ApcTool.STRESSED, "stressed_margin", "at least with a quarter of stressed scenarios"),
        (ApcTool.FLOOR, "long_run_margin", "at least under ten-year volatility"),
    ):
        if tool in tools:
            binds = float(p[key]) > margin
            margin = max(margin, float(p[key]))
            rows.append((f"{label}, {fixed(p[key], 2)}", fixed(margin, 2), "binds" if binds else ""))
    if ApcTool.BUFFER in tools:
        previous, days = float(p["previous_margin"]), float(p["previous_days"])
        charged = float(buffered(np.array(margin), np.array(previous), days))
        left = f"buffer of {percent(charged / margin - 1)}" if margin > 0 else "buffer"
        before = f"; {fixed(previous, 2)} was charged {fixed(days, 1)} days ago" if previous > 0 else ""
        rows.append((left + before, fixed(charged, 2), ""))
        margin = charged
    return rows, margin


def _components(account: Account) -> list[str]:
    if not account.components:
        return []
    es = float(account.margin["expected_shortfall"])
    lines = [*_title("Components of the expected shortfall, by position"), "Positive adds to the margin.", ""]
    rows: list[tuple[str, ...]] = [("instrument", "quantity", "component", "std error", "share")]
    for c in account.components:
        rows.append((c.name, significant(c.quantity, 6), *_amounts(c, es, error=True)))
    lines += [*_table(rows, "<>>>>"), ""]
    rows = [("by underlying", "positions", "component", "share")]
    for c in account.underlyings:
        rows.append((c.name, fixed(c.quantity), *_amounts(c, es)))
    total = account.total
    rows.append(("sum", fixed(total.quantity), *_amounts(total, es)))
    lines += _table(rows, "<>>>")
    return [*lines, _check("expected shortfall", total.expected_shortfall, es)]


def _amounts(c: Component, es: float, *, error: bool = False) -> tuple[str, ...]:
    share = percent(c.expected_shortfall / es) if es > 0 else ABSENT
    middle = (money(c.standard_error),) if error else ()
    return (fixed(c.expected_shortfall, 2), *middle, share)


def _causes(account: Account) -> list[str]:
    if not account.components or not account.is_split:
        return []
    total, es = account.total, float(account.margin["expected_shortfall"])
    causes = (("spot moves", total.spot), ("vol moves", total.vol), ("time passing", total.time))
    rows = [(name, fixed(x, 2), percent(x / es) if es > 0 else ABSENT) for name, x in causes]
    lines = [*_title("Components of the expected shortfall, by cause"), *_table(rows, "<>>")]
    return [*lines, _check("expected shortfall", total.spot + total.vol + total.time, es)]


def _gradients(account: Account, found: Sequence[Gradient], title: str, left: str = "") -> list[str]:
    if not found:
        return []
    initial = float(account.margin["initial_margin"])
    rows = []
    for g in found:
        verb = "rises" if g.effect > 0 else "falls" if g.effect < 0 else "changes"
        share = f"({percent(g.effect / initial, 2, sign=True)})" if initial > 0 else ""
        change = f"margin {verb} by {money(abs(g.effect))}"
        rows.append((f"if {g.move},", change, f"± {money(account.half_width * g.effect_error)}", share,
                     f"{g.greek} {significant(g.value, 5)} {g.unit}"))  # fmt: skip
    which = "current margin, before what protects it," if account.protection else "initial margin"
    text = f"Change of the {which} to first order, all else equal; ± is a 95 % interval."
    return [*_title(title), text, "", *_table(rows, "<<<><"), *([left] if left else [])]


def _parameters(account: Account) -> list[str]:
    more = len(account.parameters[PARAMETERS:])
    left = f"{fixed(more)} more are in the table model_greeks." if more else ""
    return _gradients(account, account.parameters[:PARAMETERS], "What it owes to the model's parameters", left)


def _worst(account: Account, settings: Mapping[str, Any]) -> list[str]:
    if not account.worst:
        return []
    lines = _title("Worst scenarios")
    lines.append(f"Changes of price and of implied vol over {horizon(settings.get('horizon', ABSENT))}.")
    held = {c.name for c in account.underlyings}
    for s in account.worst[:SCENARIOS]:
        # The factors of what the account holds; the others move too, and do nothing to it.
        shown = {f: s.shocks[f] for f in held_factors(s.shocks, held)} or s.shocks
        moves = ", ".join(f"{name.replace(':', ' ')} {factor_move(name, x)}" for name, x in shown.items())
        head = f"{s.rank}. loss {fixed(s.loss, 2)} (scenario {s.number}): "
        lines += textwrap.wrap(head + moves, WIDTH, subsequent_indent="   ", break_on_hyphens=False)
    return lines


def _stress(account: Account) -> list[str]:
    if not account.stress:
        return []
    initial = float(account.margin["initial_margin"])
    rows = []
    for name, loss in account.stress:
        share = f"{fixed(loss / initial, 2)} × margin" if initial > 0 else ""
        rows.append((name, fixed(loss, 2), share, "exceeds the margin" if loss > initial else ""))
    text = "Losses under fixed moves; they do not enter the margin."
    return [*_title("Stress scenarios"), text, "", *_table(rows, "<>><")]


def _title(text: str) -> list[str]:
    return [text, "-" * len(text)]


def _check(name: str, found: float, expected: float) -> str:
    """The sum check in words; a difference is told, not hidden."""
    difference = found - expected
    if abs(difference) <= max(CENT / 2, ROUNDING * abs(expected)):
        return f"check: equals the {name}, {fixed(expected, 2)}"
    return f"CHECK FAILS: differs from the {name}, {fixed(expected, 2)}, by {fixed(difference, 2, sign=True)}"


def _table(rows: Iterable[Sequence[str]], align: str) -> list[str]:
    """Columns padded to their widest cell; `align` holds `<` or `>` for each."""
    found = list(rows)
    widths = [max(map(len, cells)) for cells in zip(*found, strict=True)]
    return [
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(row, align, widths, strict=True)).rstrip()
        for row in found
    ]
