"""Gates: what a run finds wrong against the run that it replaces, and who took it on."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pmvar.errors import QualityGate, UsageError
from pmvar.io.book import Book
from pmvar.io.overrides import Gate, Override
from pmvar.io.run import MANIFEST, read_manifest
from pmvar.io.times import format_time, parse_time
from pmvar.models.specification import ModelSpecification
from pmvar.scenarios.clock import elapsed_steps
from pmvar.types import FactorKind, factor_name

COUNT_TOLERANCE = 0.2
"""Relative change of the number of accounts that needs an acknowledgement."""
VOLATILITY_SHARE = 0.5
"""A volatility below this share of what it was lowers margins so far that somebody must say it is right."""
WITHHOLDING = (Gate.PRICE_JUMP,)
"""Gates that withhold accounts; the others stop the run."""


@dataclass(frozen=True)
class Finding:
    """Something that must not pass unseen."""

    gate: Gate
    text: str
    """What was found, with the figures."""
    fix: str
    of: str = ""
    """The asset or factor that it is about."""
    before: Any = None
    after: Any = None


@dataclass(frozen=True, eq=False)
class Passed:
    """What a run goes on with once its gates have been looked at."""

    book: Book
    """With the factors of prices that jumped quarantined."""
    settings: Mapping[str, Any]
    """For the manifest: `overrides` with what each let pass, `quarantined` and `price_before`."""
    notes: tuple[str, ...]


def pass_gates(
    book: Book, out: str | Path, *, acknowledged: Collection[str] = (), more: Sequence[Finding] = ()
) -> Passed:
    """Judge `book` against the run at `out`, if there is one, and against `more` findings.

    A finding passes if the book lists an override of it that holds at its valuation time, or if `acknowledged` names
    its gate. A price that jumped withholds its accounts. Raises QualityGate with all other findings, UsageError for a
    name in `acknowledged` that no gate has; nothing is written.
    """
    if unknown := sorted(set(acknowledged) - set(Gate)):
        raise UsageError(f"there is no gate {unknown[0]!r}; the gates are {', '.join(Gate)}")
    findings = list(more)
    before: Mapping[str, Any] = {}
    if (Path(out) / MANIFEST).is_file():
        before = read_manifest(out)
        findings += [
            *account_count(int(before["n_accounts"]), book.portfolio.n_accounts, place=str(out)),
            *model_change(before["settings"].get("model", {}), book.model),
            *price_jumps(before["settings"], book),
        ]
    taken: list[tuple[Finding, Mapping[str, str]]] = []
    left: list[Finding] = []
    for finding in findings:
        by = _override(finding, book.overrides, book.market.as_of)
        if by is not None:
            taken.append((finding, by.document()))
        elif finding.gate in acknowledged:
            taken.append((finding, {"gate": str(finding.gate), "of": "", "by": "--acknowledge"}))
        else:
            left.append(finding)
    if stops := [f for f in left if f.gate not in WITHHOLDING]:
        raise QualityGate("\n".join(_message(f, book.overrides) for f in stops))
    quarantined = {factor_name(f.of, FactorKind.SPOT): f"{f.gate}: {f.text}" for f in left}
    market = replace(book.market, quarantined={**book.market.quarantined, **quarantined})
    settings = {
        "overrides": [
            {**by, "found": f.text, "before": f.before, "after": f.after} for f, by in taken
        ],
        "quarantined": quarantined,
        # What the next run judges these prices by.
        "price_before": {f.of: f.before for f in left},
    }  # fmt: skip
    notes = [
        f"gate {f.gate} passed by {by['by']}" + (f" until {by['until']}, {by['reason']}" if "until" in by else "")
        + f": {f.text}"
        for f, by in taken
    ]  # fmt: skip
    return Passed(replace(book, market=market), settings, tuple(notes))


def _override(finding: Finding, overrides: Sequence[Override], as_of: float) -> Override | None:
    return next((o for o in overrides if o.gate is finding.gate and o.of in ("", finding.of) and as_of < o.until), None)


def _message(finding: Finding, overrides: Sequence[Override]) -> str:
    ended = [o for o in overrides if o.gate is finding.gate and o.of in ("", finding.of)]
    over = "".join(f" (the override by {o.by} ended {format_time(o.until)})" for o in ended)
    return f"{finding.gate}: {finding.text}{over} — {finding.fix}"


def account_count(before: int, now: int, *, place: str) -> list[Finding]:
    """Whether the number of accounts is more than 20% away from what it was."""
    if abs(now - before) <= COUNT_TOLERANCE * before:
        return []
    text = f"{now} accounts now, {before} in the run at {place}: more than {COUNT_TOLERANCE:.0%} apart"
    return [Finding(Gate.ACCOUNT_COUNT, text, _right(Gate.ACCOUNT_COUNT), before=before, after=now)]


def model_change(before: Mapping[str, Any], model: ModelSpecification) -> list[Finding]:
    """Where the model is another one than the run before had, or thinks half as little of a factor's moves."""
    now = {"name": model.model, "steps_per_year": model.steps_per_year, "price_map": str(model.price_map)}
    found = [
        _changed(f"the model's {key} was {before[key]} and is {value}", "", before[key], value)
        for key, value in now.items()
        if before.get(key, value) != value
    ]
    volatility = {f.name: f.volatility for f in model.factors}
    for factor in before.get("factors", ()):
        name, was = factor["name"], factor["volatility"]
        if name not in volatility:
            found.append(_changed(f"the model has no factor {name} any more", name, was, None))
        elif volatility[name] < VOLATILITY_SHARE * was:
            text = f"the volatility of {name} was {was:.4g} a step and is {volatility[name]:.4g}: less than half"
            found.append(_changed(text, name, was, volatility[name]))
    return found


def _changed(text: str, of: str, before: Any, after: Any) -> Finding:
    return Finding(Gate.MODEL_CHANGE, text, _right(Gate.MODEL_CHANGE), of, before, after)


def _right(gate: Gate) -> str:
    return f"if that is right, run again with --acknowledge {gate}, or name who says so in [[overrides]] of book.toml"


def price_jumps(before: Mapping[str, Any], book: Book) -> list[Finding]:
    """Prices that moved, since the run with the settings `before`, by more than `max_price_jump` standard deviations of
    the model over the steps in between; `before` and `after` are {price, as_of}."""
    limit = book.limits.get("max_price_jump")
    if limit is None or before.get("base_currency") != book.market.base_currency:
        return []
    market, found = book.market, []
    reference = {a: {"price": p, "as_of": before["as_of"]} for a, p in before["spots"].items()}
    # A price that was withheld as a jump is no measure of the next one.
    reference |= before.get("price_before", {})
    for asset, price in zip(market.asset, market.spot.tolist(), strict=True):
        deviation = _deviation(book.model, asset)
        scale = market.scale(asset)
        if asset not in reference or not (
            scale.admits(price) and scale.admits(reference[asset]["price"]) and deviation > 0
        ):
            continue
        was = reference[asset]
        steps = elapsed_steps(parse_time(was["as_of"]), market.as_of, book.model.steps_per_year, book.model.calendar)
        size = abs(float(scale.move(was["price"], price))) / (deviation * math.sqrt(max(steps, 1.0)))
        if size > limit:
            text = (
                f"price {price:,.10g} is {size:.1f} standard deviations from {was['price']:,.10g} at {was['as_of']}, "
                f"above max_price_jump {limit:g}"
            )
            after = {"price": price, "as_of": format_time(market.as_of)}
            found.append(Finding(Gate.PRICE_JUMP, text, _right(Gate.PRICE_JUMP), asset, was, after))
    return found


def _deviation(model: ModelSpecification, asset: str) -> float:
    """Standard deviation of a price over one step; 0 where the model has no factor of it."""
    own = next((f.volatility for f in model.factors if f.name == factor_name(asset, FactorKind.SPOT)), 0.0)
    # Heston's model and its relative hold a variance a year instead.
    given = model.parameters.get("variance", {}).get(asset, {}).get("initial", 0.0)
    variance = model.state.get("variance", {}).get(asset, given)
    return max(own, math.sqrt(variance / model.steps_per_year))
