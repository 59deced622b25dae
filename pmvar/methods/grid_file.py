"""Venue files: TOML to GridRules, strictly; every fault names file, key, value, rule and fix."""

from __future__ import annotations

import re
import tomllib
import types
from dataclasses import MISSING, fields, is_dataclass
from datetime import date
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from pmvar.errors import InputError, Problem
from pmvar.methods.grid_rules import GridRules

FORMAT = 1


class _Fault(Exception):
    """A value that breaks a rule; carries the problem without its file."""


def _fault(at: str, value: object, *, rule: str, fix: str) -> _Fault:
    return _Fault(Problem(rule, fix, column=at, value=str(value)[:100]))


def _value(kind: Any, value: Any, at: str) -> Any:
    """`value` as `kind`: a number, text, an enumeration, a tuple, or a dataclass."""
    if get_origin(kind) is types.UnionType:
        kind = next(k for k in get_args(kind) if k is not types.NoneType)
    if is_dataclass(kind):
        return _table(kind, value, at)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise _fault(at, value, rule="must be a list", fix="write [ … ]")
        return tuple(_value(get_args(kind)[0], item, f"{at}[{i + 1}]") for i, item in enumerate(value))
    if kind is float:
        if isinstance(value, bool) or not isinstance(value, int | float) or value != value:
            raise _fault(at, value, rule="must be a number", fix="write it without quotes")
        return float(value)
    if isinstance(kind, type) and issubclass(kind, StrEnum) and value not in set(kind):
        raise _fault(at, value, rule=f"must be one of {', '.join(kind)}", fix="choose one")
    if not isinstance(value, str):
        raise _fault(at, value, rule="must be text", fix="write it in quotes")
    return kind(value)


def _table(kind: Any, table: Any, at: str) -> Any:
    """The dataclass `kind` from a table; keys are its fields."""
    if not isinstance(table, dict):
        raise _fault(at, table, rule="must be a section", fix=f"write [{at}]")
    known, prefix = {f.name: f for f in fields(kind)}, f"{at}." if at else ""
    for key, value in table.items():
        if key not in known:
            raise _fault(prefix + key, value, rule="unknown key", fix=f"the keys are {', '.join(known)}")
    for name, f in known.items():
        if name not in table and f.default is MISSING and f.default_factory is MISSING:
            raise _fault(prefix + name, "", rule="the key is missing", fix="add it")
    hints = get_type_hints(kind)
    found = {key: _value(hints[key], value, prefix + key) for key, value in table.items()}
    try:
        return kind(**found)
    except InputError as error:
        problem = error.problems[0]
        raise _fault(prefix + problem.column, problem.value, rule=problem.rule, fix=problem.fix) from error


def read_rules(content: bytes, *, file: str) -> GridRules:
    """The rules in a venue file. Raises InputError naming the first fault."""
    return read_toml(GridRules, content, file=file)


Dated = TypeVar("Dated")


def read_toml(kind: type[Dated], content: bytes, *, file: str) -> Dated:
    """The dataclass `kind` in a TOML file whose keys are its fields, beside `format`; `date` must be a date.

    Raises InputError naming the first fault.
    """
    try:
        document = tomllib.loads(content.decode().replace("\r\n", "\n"))
    except (ValueError, RecursionError) as error:
        line = re.search(r"line (\d+)", str(error))
        row = int(line[1]) if line else None
        raise InputError(Problem(f"is not TOML: {error}", "correct the line", file=file, row=row)) from error
    try:
        found = document.pop("format", None)
        if isinstance(found, bool) or found != FORMAT:
            raise _fault("format", found, rule=f"must be {FORMAT}", fix="this version reads that format")
        dated = document.get("date", date.min)
        if type(dated) is not date:
            raise _fault("date", dated, rule="must be a date", fix="write it as in 2025-01-31, without quotes")
        if "date" in document:
            document["date"] = dated.isoformat()
        return _table(kind, document, "")
    except _Fault as fault:
        p: Problem = fault.args[0]
        raise InputError(Problem(p.rule, p.fix, file=file, column=p.column, value=p.value)) from fault


def venues() -> tuple[str, ...]:
    """Names of the venue files that come with pmvar."""
    folder = resources.files("pmvar.methods") / "venues"
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))


def load_rules(name_or_path: str | Path) -> GridRules:
    """The rules of a venue that comes with pmvar (`deribit`), or of a TOML file.

    Raises InputError if there is no such venue or file, or if the file breaks a rule.
    """
    if str(name_or_path) in venues():
        file = f"{name_or_path}.toml"
        return read_rules((resources.files("pmvar.methods") / "venues" / file).read_bytes(), file=file)
    path = Path(name_or_path)
    if not path.is_file():
        rule, fix = "no such venue or file", f"the venues are {', '.join(venues())}"
        raise InputError(Problem(rule, fix, value=str(name_or_path)))
    return read_rules(path.read_bytes(), file=str(path))
