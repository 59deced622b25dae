"""model.json to ModelSpecification and back, strictly."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from pmvar.errors import InputError, Problem, UsageError
from pmvar.io.csv_text import decodable
from pmvar.io.history_file import read_history
from pmvar.io.posterior_file import read_posterior
from pmvar.io.problems import Problems
from pmvar.io.source import Source
from pmvar.io.times import format_time, parse_time
from pmvar.models.sampling import sampling_parameters
from pmvar.models.specification import Factor, ModelSpecification, ReferenceVolatility
from pmvar.types import PriceMap

FILE = "model.json"

Number = (int, float)
KEYS: Mapping[str, Any] = {
    "format": int, "model": str, "as_of": str, "step": str, "steps_per_year": int, "price_map": str,
    "vol_cap": Number, "factors": list, "correlation": list, "parameters": dict, "state": dict,
    "sampling": dict, "history": dict, "excluded": list, "posterior": (dict, type(None)), "gates": dict,
    "overrides": list, "source": dict,
}  # fmt: skip
REQUIRED = ("format", "model", "as_of", "factors", "correlation")
FACTOR_KEYS: Mapping[str, Any] = {
    "name": str, "volatility": Number, "degrees_of_freedom": (*Number, type(None)), "source": str,
    "n_obs": int, "tenor": Number, "term_exponent": Number, **dict.fromkeys(ReferenceVolatility, Number),
}  # fmt: skip


def strict_json(content: bytes, *, file: str) -> Any:
    """The JSON value in `content`; raises InputError for a duplicate key, NaN, Infinity, an overflow or bad
    syntax."""

    def refuse(rule: str, value: str, row: int | None = None) -> InputError:
        return InputError(Problem(rule, "correct it", file=file, value=value[:100], row=row))

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        names = [name for name, _ in pairs]
        if len(set(names)) != len(names):
            raise refuse("a key must appear once", ", ".join(sorted({n for n in names if names.count(n) > 1})))
        return dict(pairs)

    def finite(text: str) -> float:
        number = float(text)
        if not np.isfinite(number):
            raise refuse("numbers must be finite", text)
        return number

    def constant(text: str) -> float:
        raise refuse("numbers must be finite; NaN and Infinity are not JSON", text)

    text = decodable(content, file=file).decode()
    try:
        return json.loads(text, object_pairs_hook=unique, parse_float=finite, parse_constant=constant)
    except json.JSONDecodeError as error:
        raise refuse(f"is not JSON: {error.msg}", "", error.lineno) from error
    except (RecursionError, ValueError) as error:
        raise refuse(f"is not JSON that can be read: {error}", "") from error


def _check(entry: Any, keys: Mapping[str, Any], required: tuple[str, ...], *, at: str, problems: Problems) -> bool:
    """Add a problem for every unknown, missing or mistyped key; whether there was none."""
    before = len(problems)

    def add(rule: str, fix: str, key: str, value: Any = "") -> None:
        problems.add(Problem(rule, fix, file=FILE, column=at + key, value=str(value)[:100]))

    if not isinstance(entry, dict):
        add("must be an object", "write {…}", "", entry)
        return False
    for key, value in entry.items():
        if key not in keys:
            add("unknown key", f"the keys are {', '.join(keys)}", key, value)
        elif not isinstance(value, keys[key]) or isinstance(value, bool):
            kinds = keys[key] if isinstance(keys[key], tuple) else (keys[key],)
            add(f"must be {' or '.join(k.__name__ for k in kinds)}", "correct its type", key, value)
    for key in required:
        if key not in entry:
            add("the key is missing", "add it", key)
    return len(problems) == before


def _factor(entry: dict[str, Any], *, problems: Problems) -> Factor | None:
    numbers = {k: float(v) for k, v in entry.items() if isinstance(v, int | float) and k != "n_obs"}
    try:
        return Factor(**{**entry, **numbers})
    except (InputError, OverflowError) as error:
        error = error if isinstance(error, InputError) else InputError(Problem(str(error), "correct it"))
        problems.extend(error, file=FILE)
        return None


def _correlation(rows: list[Any], *, problems: Problems) -> np.ndarray | None:
    n = len(rows)
    for i, row in enumerate(rows):
        sound = isinstance(row, list) and len(row) == n
        if not (sound and all(type(x) in Number and abs(x) < 1e15 for x in row)):
            rule = f"row {i + 1} must hold {n} numbers, one for each factor"
            problems.add(Problem(rule, "supply the square matrix", file=FILE, column="correlation"))
            return None
    return np.array(rows, dtype=np.float64).reshape(n, n)


def _excluded(entry: Any) -> bool:
    return (
        isinstance(entry, dict) and all(isinstance(v, str) for v in entry.values()) and {"name", "reason"} == set(entry)
    )


def read_model(content: bytes, *, source: Source, problems: Problems) -> ModelSpecification | None:
    """The model that the bytes of a `model.json` specify, with the history and the posterior that it names in the
    folder of `source`; what is wrong goes to `problems`, and None comes back. Raises what `read_history` raises."""
    before = len(problems)
    try:
        document = strict_json(content, file=FILE)
    except InputError as error:
        problems.extend(error, file=FILE)
        return None
    if not _check(document, KEYS, REQUIRED, at="", problems=problems):
        return None

    def add(rule: str, fix: str, column: str) -> None:
        problems.add(Problem(rule, fix, file=FILE, column=column, value=str(document.get(column, ""))[:100]))

    if document["format"] != 1:
        add("must be 1", "this version reads format 1", "format")
    if document.get("step", "1d") != "1d":
        add("must be 1d", "calibrate to daily steps", "step")
    if document.get("price_map", "exp_linear") not in set(PriceMap):
        add(f"must be one of {', '.join(PriceMap)}", "choose one", "price_map")
    if not all(map(_excluded, document.get("excluded", []))):
        add("must be a list of {name, reason}", "correct it", "excluded")
    as_of = 0.0
    try:
        as_of = parse_time(document["as_of"])
    except (ValueError, OverflowError) as error:
        add(str(error), "write it as in 2025-01-31T08:00:00Z", "as_of")
    entries = document["factors"]
    sound = [
        _check(e, FACTOR_KEYS, ("name", "volatility"), at=f"factors[{i}].", problems=problems)
        for i, e in enumerate(entries)
    ]
    factors = [_factor(e, problems=problems) for e, good in zip(entries, sound, strict=True) if good]
    correlation = _correlation(document["correlation"], problems=problems)
    try:
        sampling_parameters(document.get("sampling", {}))
    except InputError as error:
        problems.extend(error, file=FILE)
    history = None
    if "history" in document:
        names = [f.name for f in factors if f is not None]
        history = read_history(document["history"], names, source=source, problems=problems)
    posterior = None
    if document.get("posterior") is not None:
        names = [f.name for f in factors if f is not None]
        posterior = read_posterior(document["posterior"], names, source=source, problems=problems)
    if len(problems) > before or correlation is None:
        return None
    optional = {k: document[k] for k in ("steps_per_year", "parameters", "state", "sampling") if k in document}
    try:
        return ModelSpecification(
            model=document["model"],
            as_of=as_of,
            factors=tuple(f for f in factors if f is not None),
            correlation=correlation,
            price_map=PriceMap(document.get("price_map", PriceMap.EXP_LINEAR)),
            vol_cap=float(document.get("vol_cap", 1.6)),
            history=history,
            excluded=tuple(document.get("excluded", ())),
            posterior=None if posterior is None else posterior.thinned(),
            **optional,
        )
    except (InputError, OverflowError) as error:
        problems.extend(
            error if isinstance(error, InputError) else InputError(Problem(str(error), "correct it")),
            file=FILE,
        )
        return None


def model_document(
    model: ModelSpecification,
    *,
    source: Mapping[str, str] | None = None,
    history: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The content of `model.json`: `model`, the `{file, sha256}` it came from and those of its history (see
    `write_history`), and in `extra` any of `posterior`, `gates` and `overrides`. Raises UsageError for a model with a
    history or a posterior that is not written beside it."""
    if model.history is not None and history is None:
        raise UsageError(
            f"model {model.model} holds a history; write it with write_history, and pass what that returns"
        )
    if model.posterior is not None and not (extra or {}).get("posterior"):
        raise UsageError(
            f"model {model.model} holds a posterior; write it with write_posterior, and pass what that returns as the "
            "extra `posterior`"
        )
    return {
        "format": 1,
        "model": model.model,
        "as_of": format_time(model.as_of),
        "step": "1d",
        "steps_per_year": model.steps_per_year,
        "price_map": str(model.price_map),
        "vol_cap": model.vol_cap,
        "factors": [
            {
                "name": f.name,
                "volatility": f.volatility,
                "degrees_of_freedom": f.degrees_of_freedom,
                "source": f.source,
                "n_obs": f.n_obs,
                "tenor": f.tenor,
                "term_exponent": f.term_exponent,
                **{key: value for key in ReferenceVolatility if (value := getattr(f, key)) is not None},
            }
            for f in model.factors
        ],
        "correlation": model.correlation.tolist(),
        "parameters": dict(model.parameters),
        "state": dict(model.state),
        "sampling": dict(model.sampling),
        **({"history": dict(history)} if history else {}),
        "excluded": [dict(e) for e in model.excluded],
        "posterior": None,
        "gates": {},
        "overrides": [],
        "source": dict(source or {}),
        **(extra or {}),
    }


def model_json(
    model: ModelSpecification,
    *,
    source: Mapping[str, str] | None = None,
    history: Mapping[str, str] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> str:
    """The text of `model.json`; raises ValueError for a number that is not finite, and as `model_document`."""
    document = model_document(model, source=source, history=history, extra=extra)
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
