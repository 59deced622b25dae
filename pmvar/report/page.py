"""Pages: a template with the report's style sheet and number formats; no script, no reference to anything elsewhere."""

from __future__ import annotations

from importlib import resources
from typing import Any

from pmvar.report import format

FILTERS = ("fixed", "significant", "money", "compact", "percent", "level", "move", "factor_move", "moment", "horizon")


def page(template: str, **context: Any) -> str:
    """The template of this name in `pmvar.report`, filled in. Equal contexts give equal text.

    Text is escaped; `safe_figure` marks our own drawings, which are not.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {name: getattr(format, name) for name in FILTERS} | {"safe_figure": Markup}
    folder = resources.files("pmvar.report")
    style = (folder / "report.css").read_text(encoding="utf-8")
    filled = environment.from_string((folder / template).read_text(encoding="utf-8"))
    return filled.render(style=Markup(style), **context)
