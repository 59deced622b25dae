"""pmvar: Monte Carlo portfolio margin. Public names load on first use; `import pmvar` itself costs nothing."""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

__version__ = "0.1.0"

# Account ids, path ids and tail sums need 64 bits; without this JAX truncates integers in silence.
os.environ["JAX_ENABLE_X64"] = "1"
if "jax" in sys.modules:
    sys.modules["jax"].config.update("jax_enable_x64", True)

_PUBLIC = {
    "load_book": "pmvar.io.book",
    "simulate": "pmvar.scenarios",
    "stress_scenarios": "pmvar.scenarios",
    "reprice": "pmvar.valuation",
    "margin_report": "pmvar.engine",
    "compare": "pmvar.comparison",
    "accurate_margin": "pmvar.risk.accurate",
    "AccurateMargin": "pmvar.risk.accurate",
    "MarginReport": "pmvar.engine",
    "MarginRules": "pmvar.risk.rules",
    "MarketSnapshot": "pmvar.market.snapshot",
    "ModelSpecification": "pmvar.models.specification",
    "Portfolio": "pmvar.portfolio",
    "ScenarioSet": "pmvar.scenarios",
}

__all__ = ["__version__", *_PUBLIC]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'pmvar' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
