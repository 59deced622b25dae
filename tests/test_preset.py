"""Presets: what they set, what comes before them, which models they run, and that they say what they are not."""

from pathlib import Path

import pytest

from pmvar.errors import UsageError
from pmvar.io.preset import load_preset, presets
from pmvar.io.run import read_run
from pmvar.models import NAMES
from tests.books import small_book
from tests.test_cli import Cli, cli

__all__ = ["cli"]


@pytest.mark.parametrize("name", presets())
def test_every_preset_is_sound(name: str) -> None:
    """Known models, checked settings, and a note that calls it an approximation."""
    found = load_preset(name)
    assert set(found.models) <= set(NAMES) and "an approximation of" in found.note and name in found.note
    assert {"level", "horizon", "measure"} <= set(found.settings)
    assert found.over({"level": 0.95, "seed": None})["level"] == 0.95
    assert found.over({"level": None})["level"] == found.settings["level"]


def test_names_and_models_are_checked() -> None:
    """With what there is, and what to do."""
    with pytest.raises(UsageError, match="no preset 'cme'; there are span2, stans"):
        load_preset("cme")
    with pytest.raises(UsageError, match="runs models fhs, historical, and model.json names t; calibrate"):
        load_preset("span2").check_model("t")


def test_a_run_under_a_preset(cli: Cli, tmp_path: Path) -> None:
    """The settings are the preset's, an option comes first, the manifest names it and the report its note."""
    book = small_book(tmp_path / "book")
    done = cli("run", book, "--out", tmp_path / "run", "--preset", "stans", "--level", "0.95", "--paths", "4096",
               "--no-greeks")  # fmt: skip
    assert done.code in (0, 4)
    run = read_run(tmp_path / "run")
    settings = run.manifest["settings"]
    assert (settings["preset"], settings["level"], settings["horizon"], settings["decorrelation"]) == (
        "stans",
        0.95,
        "2d",
        1.0,
    )
    assert "an approximation of OCC" in run.manifest["notes"][0]
    assert cli("run", book, "--out", tmp_path / "other", "--preset", "span2").code == 2
