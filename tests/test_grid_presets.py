"""Presets of run settings: what they say, and that they say they approximate."""

import pytest

from pmvar.errors import InputError
from pmvar.methods.grid_file import read_toml
from pmvar.methods.preset import Preset, load_preset, presets
from pmvar.types import Measure


def test_the_presets():
    assert presets() == ("span2", "stans")
    stans, span2 = load_preset("stans"), load_preset("span2")
    assert (stans.level, stans.horizon_days, stans.measure, stans.model, stans.stress_share) == (
        0.99, 2, Measure.EXPECTED_SHORTFALL, "t-garch", 0.25,
    )  # fmt: skip
    assert (span2.measure, span2.model) == (Measure.VALUE_AT_RISK, "fhs")
    assert all("approximation" in preset.notes[0] and preset.source for preset in (stans, span2))


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [("level", "1.0", "must lie in"), ("model", "'x'", "must be one of"), ("horizon_days", "1.5", "whole number")],
)
def test_faults(key, value, rule):
    good = {
        "format": "1", "name": "'n'", "date": "2025-01-31", "source": "'s'", "level": "0.99", "horizon_days": "2",
        "measure": "'value_at_risk'", "model": "'t'", "stress_share": "0.25", "notes": "['an approximation']",
    }  # fmt: skip
    text = "\n".join(f"{k} = {v}" for k, v in (good | {key: value}).items())
    with pytest.raises(InputError, match=f"x.toml: {key} .*{rule}"):
        read_toml(Preset, text.encode(), file="x.toml")
    with pytest.raises(InputError, match="no such preset.*stans"):
        load_preset("nothing")
