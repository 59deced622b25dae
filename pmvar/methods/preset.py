"""Presets: run settings that approximate a clearing house's Monte Carlo, as dated data."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

from pmvar.errors import InputError, Problem
from pmvar.methods.grid_file import read_toml
from pmvar.methods.grid_scenarios import need
from pmvar.models import NAMES
from pmvar.types import Measure


@dataclass(frozen=True)
class Preset:
    """An approximation, named as one in its notes."""

    name: str
    date: str
    """Of its numbers, YYYY-MM-DD."""
    source: str
    level: float
    """Upper tail of the loss."""
    horizon_days: float
    measure: Measure
    model: str
    """Its name in `model.json`: what the run's model should be."""
    stress_share: float
    """Share of the stress loss beyond the measure that is added to it."""
    notes: tuple[str, ...]

    def __post_init__(self) -> None:
        need(0.5 < self.level < 1, "level", self.level, rule="must lie in (0.5, 1)")
        whole = self.horizon_days == round(self.horizon_days) and 1 <= self.horizon_days <= 60
        need(whole, "horizon_days", self.horizon_days, rule="must be a whole number from 1 to 60")
        need(self.model in NAMES, "model", self.model, rule=f"must be one of {', '.join(NAMES)}")
        need(0 <= self.stress_share <= 1, "stress_share", self.stress_share, rule="must lie in [0, 1]")
        need(len(self.notes) > 0, "notes", self.notes, rule="must say that it approximates")


def presets() -> tuple[str, ...]:
    """Names of the presets that come with pmvar."""
    folder = resources.files("pmvar.methods") / "presets"
    return tuple(sorted(f.name.removesuffix(".toml") for f in folder.iterdir() if f.name.endswith(".toml")))


def load_preset(name: str) -> Preset:
    """A preset by its name; raises InputError if there is none such."""
    if name not in presets():
        raise InputError(Problem("no such preset", f"the presets are {', '.join(presets())}", value=name))
    content = (resources.files("pmvar.methods") / "presets" / f"{name}.toml").read_bytes()
    return read_toml(Preset, content, file=f"{name}.toml")
