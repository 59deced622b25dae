"""`pmvar accurate`: the tail of one account by importance sampling of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def accurate_text(book: Path, account: str, overrides: Mapping[str, Any]) -> str:
    """What the command prints. Raises what `load_book` and `accurate_margin` raise."""
    import pmvar

    loaded = pmvar.load_book(book, overrides=overrides)
    s = loaded.settings
    found = pmvar.accurate_margin(
        loaded.portfolio, loaded.market, loaded.model, account,
        seed=s.seed, level=loaded.rules.level, n_scenarios=s.scenarios, horizon=s.horizon,
    )  # fmt: skip
    rows = (
        ("value at risk", found.value_at_risk, found.var_standard_error),
        ("expected shortfall", found.expected_shortfall, found.es_standard_error),
    )
    lines = [f"{account}: {s.scenarios:,} scenarios of its own over {s.horizon}, at {100 * loaded.rules.level:g} %, in "
             f"{loaded.market.base_currency}"]  # fmt: skip
    for name, value, error in rows:
        half = found.half_width * error
        lines.append(f"  {name:<18}  {value:>16,.2f}  std error {error:,.4g}  "
                     f"95 % interval {value - half:,.2f} to {value + half:,.2f}")  # fmt: skip
    lines.append(f"  largest weight {found.largest_weight:.3g}, tilt {found.tilt:.3g}")
    return "\n".join(lines)
