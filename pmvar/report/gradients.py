"""How an account's margin answers to market inputs and model parameters, in moves that people think in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from pmvar.risk.result import Columns
from pmvar.types import FactorKind, Greek


@dataclass(frozen=True)
class Gradient:
    """How the initial margin answers to one input or parameter, raw and for a move that people think in."""

    factor: str
    greek: str
    value: float
    """In the table's unit: per unit of underlying, per 1.00 of vol or rate, per day; per 1 of a parameter."""
    standard_error: float
    unit: str
    """Of `value`, in words."""
    move: str
    """The everyday move, in words: `BTC price rises 1 %`."""
    size: float
    """Of that move, in the table's unit, so that `value · size` is the change of the margin."""

    @property
    def effect(self) -> float:
        """Change of the initial margin under `move`, to first order."""
        return self.value * self.size

    @property
    def effect_error(self) -> float:
        """Standard error of `effect`."""
        return self.standard_error * abs(self.size)


def by_market(rows: Columns, spots: Mapping[str, float]) -> tuple[Gradient, ...]:
    """The margin's rows of `greeks`, in the table's own order: factor by factor, as the model lists them."""
    columns = [rows.get(n, ()) for n in ("of", "instrument_id", "factor", "greek", "value", "standard_error")]
    return tuple(
        Gradient(str(factor), str(greek), float(value), float(error), *_market_move(str(factor), str(greek), spots))
        for of, instrument, factor, greek, value, error in zip(*columns, strict=True)
        if of == "margin" and not instrument
    )


def by_model(rows: Columns, model: Mapping[str, Any]) -> tuple[Gradient, ...]:
    """Rows of `model_greeks`, the largest effect first; `model` as in a run's settings."""
    factors = [f for f in model.get("factors", ()) if isinstance(f, Mapping)]
    vols = {str(f.get("name")): float(f.get("volatility", np.nan)) for f in factors}
    columns = [rows.get(n, ()) for n in ("parameter", "factor", "other_factor", "value", "standard_error")]
    found = [
        Gradient(factor, parameter, float(value), float(error), "per 1", *_model_move(parameter, factor, other, vols))
        for parameter, factor, other, value, error in zip(*columns, strict=True)
    ]
    return tuple(sorted(found, key=lambda g: -abs(g.effect)))


def _market_move(factor: str, greek: str, spots: Mapping[str, float]) -> tuple[str, str, float]:
    """Unit of the table, the everyday move, and its size in that unit."""
    name = factor.rpartition(":")[0] or factor
    spot = float(spots.get(name, float("nan")))
    match greek:
        case Greek.DELTA if spot > 0:
            return "per 1 of price", f"{name} price rises 1 %", 0.01 * spot
        case Greek.DELTA:
            return "per 1 of price", f"{name} price rises 1", 1.0
        case Greek.GAMMA:
            return "change of delta per 1 of price", f"{name} price rises 1 (effect on delta)", 1.0
        case Greek.VEGA:
            return "per 1.00 of vol", f"{name} implied vol rises 1 point", 0.01
        case Greek.RHO if factor.endswith(f":{FactorKind.SPREAD}"):
            return "per 1.00 of spread", f"{name} spread rises 1 basis point", 1e-4
        case Greek.RHO:
            return "per 1.00 of rate", f"{name} rate rises 1 basis point", 1e-4
        case Greek.THETA:
            return "per day", "one day passes", 1.0
        case _:
            return "", f"{factor} rises 1 ({greek})", 1.0


def _model_move(parameter: str, factor: str, other: str, vols: Mapping[str, float]) -> tuple[str, float]:
    """The everyday move, and its size."""
    whose = f" of {' and '.join(filter(None, (factor, other)))}".replace(":", " ") if factor else ""
    name = parameter.replace("_", " ") + whose
    if parameter == "volatility" and np.isfinite(vols.get(factor, np.nan)):
        return f"{name} rises 1 %", 0.01 * vols[factor]
    return f"{name} rises .01", 0.01
