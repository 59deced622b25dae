"""Venue files: every fault is an error that names file, key, value, rule and fix."""

import pytest

from pmvar.errors import InputError
from pmvar.methods.grid_file import load_rules, read_rules, venues
from pmvar.methods.grid_rules import GridRules
from pmvar.methods.grid_scenarios import VolMove
from tests.grids import MINIMAL, with_values


def test_a_minimal_file():
    rules = read_rules(MINIMAL.encode(), file="x.toml")
    assert isinstance(rules, GridRules) and rules.date == "2025-01-31"
    assert [(s.move, s.vol, s.weight) for s in rules.class_of("anything").scenarios()] == [
        (-0.1, VolMove.FLAT, 1.0), (0.0, VolMove.FLAT, 1.0), (0.2, VolMove.FLAT, 1.0),
    ]  # fmt: skip
    windows = read_rules(MINIMAL.replace("\n", "\r\n").encode(), file="x.toml")
    assert windows == rules


@pytest.mark.parametrize("venue", venues())
def test_each_venue_says_whose_numbers_of_which_date(venue):
    rules = load_rules(venue)
    assert rules.name == venue and rules.source and rules.date >= "2020"


@pytest.mark.parametrize(
    ("changes", "column", "value", "rule"),
    [
        ({"format": "2"}, "format", "2", "must be 1"),
        ({"format": "true"}, "format", "True", "must be 1"),
        ({"colour": '"red"'}, "colour", "red", "unknown key"),
        ({"date": '"2025-01-31"'}, "date", "2025-01-31", "must be a date"),
        ({"coin": '"flips"'}, "coin", "flips", "must be one of held, moves"),
        ({"name": "3"}, "name", "3", "must be text"),
        ({"moves": "[-1.0]"}, "classes[1].grid[1].moves", "(-1.0,)", "must be moves above -1"),
        ({"moves": "[]"}, "classes[1].grid[1].moves", "()", "must be moves above -1"),
        ({"moves": "[nan]"}, "classes[1].grid[1].moves[1]", "nan", "must be a number"),
        ({"moves": "[inf]"}, "classes[1].grid[1].moves", "inf", "must be moves above -1"),
        ({"moves": "0.1"}, "classes[1].grid[1].moves", "0.1", "must be a list"),
        ({"moves": '["0.1"]'}, "classes[1].grid[1].moves[1]", "0.1", "must be a number"),
        ({"vols": '["sideways"]'}, "classes[1].grid[1].vols[1]", "sideways", "must be one of up"),
        ({"vols": '["abs_skew"]'}, "classes[1].skew", "all", "is needed by vol moves with skew"),
        ({"underlyings": '["BTC"]'}, "underlyings", "BTC", "of one class must hold '*'"),
        ({"coin": '"held"', "balances": '"scanned"'}, "balances", "scanned", "cannot be scanned"),
        ({"factors": "{ initial = -1 }"}, "factors.initial", "-1.0", "must be a number, 0 or more"),
        ({"factors": "3"}, "factors", "3", "must be a section"),
    ],
)
def test_faults(changes, column, value, rule):
    with pytest.raises(InputError) as caught:
        read_rules(with_values(MINIMAL, **changes).encode(), file="venues/x.toml")
    (problem,) = caught.value.problems
    assert problem.file == "venues/x.toml" and problem.column == column
    assert value in problem.value and problem.rule.startswith(rule) and problem.fix


@pytest.mark.parametrize("key", ["name", "date", "source", "coin", "balances", "moves"])
def test_a_missing_key(key):
    text = "\n".join(line for line in MINIMAL.splitlines() if not line.startswith(f"{key} ="))
    with pytest.raises(InputError, match=rf"{key}: (the key is missing|.*must be a date)"):
        read_rules(text.encode(), file="x.toml")


@pytest.mark.parametrize(
    ("extra", "rule"),
    [
        ("scale_to = 0.1\n", "cannot hold 0 with scale_to"),
        ("dampener = 5\n", "needs scale_to"),
        ("weight = -1\n", "must be a number, 0 or more"),
        ("role = 'alternative'\n", "must hold a scenario of role scan"),
        ("weigth = 1\n", "unknown key"),
    ],
)
def test_faults_of_a_block(extra, rule):
    with pytest.raises(InputError, match=rule):
        read_rules((MINIMAL + extra).encode(), file="x.toml")


def test_product_groups_join_grids_of_one_length():
    more = (
        MINIMAL
        + """
[[classes]]
name = "short"
underlyings = ["ABC"]
[[classes.grid]]
moves = [-0.1]
vols = ["flat"]
[[product_groups]]
name = "both"
underlyings = ["ABC", "XYZ"]
offset = 0.9
"""
    )
    with pytest.raises(InputError, match="must join grids of the same length"):
        read_rules(more.encode(), file="x.toml")


def test_not_toml_and_not_text():
    with pytest.raises(InputError, match=r"x\.toml:2: is not TOML"):
        read_rules(b"format = 1\nname = \n", file="x.toml")
    with pytest.raises(InputError, match="is not TOML"):
        read_rules(b"\xff\xfe", file="x.toml")


def test_no_such_venue():
    with pytest.raises(InputError, match="no such venue or file.*deribit"):
        load_rules("nowhere")
