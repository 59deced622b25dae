"""Writes records of positional SPAN files from the reader's table of columns."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pmvar.io.span_pa2_layout import LAYOUT


def record(kind: str, **values: object) -> str:
    """A line: text as it is, numbers with the digits, places and sign of their field; the rest blank."""
    cells = [" "] * max(f.last for f in LAYOUT[kind].values())
    cells[: len(kind)] = kind
    for name, value in values.items():
        f = LAYOUT[kind][name]
        width = f.last - f.first + 1
        if isinstance(value, str):
            text = value.ljust(width)
        elif f.kind == "L":
            text = f"{value:0{width}d}"
        else:
            signed = "s" in f.kind or "b" in f.kind
            size = round(abs(float(value)) * 10 ** int(f.kind[2]))  # pyright: ignore[reportArgumentType]
            text = f"{size:0{width - signed}d}" + ("-" if float(value) < 0 else "+") * signed  # pyright: ignore[reportArgumentType]
        assert len(text) == width, (kind, name, value)
        cells[f.first - 1 : f.last] = text
    return "".join(cells).rstrip()


def pair(
    loss: np.ndarray, key: Mapping[str, object], *, delta: float, price: int, vol: float = 0.0, kinds: str = "81 82"
) -> list[str]:
    """The two records of one contract; `price` in units of its last decimal."""
    one, two = kinds.split()
    first = record(one, **key, **{f"value_{i + 1}": v for i, v in enumerate(loss[:9])})
    rest = {f"value_{i + 1}": v for i, v in enumerate(loss[9:])}
    return [first, record(two, **key, **rest, delta=delta, vol=vol, price=price)]
