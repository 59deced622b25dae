"""What the uncertainty of parameters adds to a margin: predictive by itself, plug-in beside it where asked for."""

from pathlib import Path

import numpy as np
import pytest

from pmvar.io.run import read_run
from tests.books import small_book
from tests.test_cli import Cli, cli
from tests.test_posterior_file import book

__all__ = ["cli"]


def test_the_gap_is_between_two_runs(cli: Cli, tmp_path: Path):
    """The scenario `plug-in` of one run is the measure of a run under the estimates, the margin that of a plain run;
    totals are in the manifest and on the page, and the run is made again from its manifest."""
    place = book(tmp_path / "book")
    runs = {}
    for name, options in (
        ("plain", ()),
        ("both", ("--plug-in-stress",)),
        ("estimates", ("--parameters", "plug-in")),
    ):
        done = cli("run", place, "--out", tmp_path / name, "--paths", "2048", "--no-greeks", *options)
        assert done.code in (0, 4), done.err
        assert ("uncertainty of the parameters" in done.out) == (name == "both")
        runs[name] = read_run(tmp_path / name)
    shortfall = {name: run.tables["margins"]["expected_shortfall"] for name, run in runs.items()}
    np.testing.assert_array_equal(shortfall["both"], shortfall["plain"])
    stress = runs["both"].tables["stress"]
    of = {a: x for a, s, x in zip(*(stress[c] for c in ("account_id", "scenario", "loss")), strict=True)
          if s == "plug-in"}  # fmt: skip
    margins = runs["estimates"].tables["margins"]
    valued = margins["status"] != "WITHHELD"
    beside = [of[a] for a in margins["account_id"][valued]]
    np.testing.assert_allclose(beside, shortfall["estimates"][valued], rtol=1e-9)
    assert np.max(np.abs(shortfall["estimates"] / shortfall["plain"] - 1)[valued]) > 1e-3
    total = runs["both"].manifest["settings"]["uncertainty"]
    assert total["predictive"] == pytest.approx(shortfall["both"][valued].sum())
    assert total["plug_in"] == pytest.approx(shortfall["estimates"][valued].sum())
    assert "uncertainty of the parameters" in (tmp_path / "both" / "report.html").read_text()
    assert "plug-in" not in runs["plain"].tables["stress"]["scenario"]
    done = cli("reproduce", tmp_path / "both")
    assert done.code == 0, done.err


def test_where_there_is_no_gap_none_is_shown(cli: Cli, tmp_path: Path):
    """A model without a posterior, and a margin that is plug-in itself, are refused before anything is computed."""
    for place, options, words in (
        (small_book(tmp_path / "a"), (), "calibrate --bayes"),
        (book(tmp_path / "b"), ("--parameters", "plug-in"), "leave out --parameters"),
    ):
        refused = cli("run", place, "--out", tmp_path / "run", "--plug-in-stress", *options)
        assert refused.code == 2 and words in refused.err and not (tmp_path / "run").exists()
