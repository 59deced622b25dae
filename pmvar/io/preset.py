"""Presets: settings that bring a run near a clearing house's method, named as the approximations they are."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from typing import Any

from pmvar.errors import UsageError
from pmvar.io.settings import check_overrides


@dataclass(frozen=True)
class Preset:
    """One preset, checked."""

    name: str
    settings: Mapping[str, Any]
    """Of `book.toml`; what the command line says comes first."""
    models: tuple[str, ...]
    """Those that it may run."""
    note: str
    """What it is not."""

    def over(self, overrides: Mapping[str, Any]) -> dict[str, Any]:
        """The preset's settings under the command line's."""
        return {**self.settings, **{key: value for key, value in overrides.items() if value is not None}}

    def check_model(self, model: str) -> None:
        """Raise UsageError unless the book's model is one of the preset's."""
        if model not in self.models:
            raise UsageError(
                f"preset {self.name} runs models {', '.join(self.models)}, and model.json names {model}; "
                "calibrate one of them"
            )


def presets() -> tuple[str, ...]:
    """Their names."""
    folder = resources.files("pmvar.io") / "presets"
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))


def load_preset(name: str) -> Preset:
    """The preset of that name; raises UsageError, listing those there are."""
    if name not in presets():
        raise UsageError(f"no preset {name!r}; there are {', '.join(presets())}")
    text = (resources.files("pmvar.io") / "presets" / f"{name}.toml").read_text(encoding="utf-8")
    found = tomllib.loads(text)
    return Preset(name, check_overrides(found["settings"]), tuple(found["models"]), found["note"])
