"""explain: every number of the tables in its place, sums checked, unknown accounts refused with a hint."""

import numpy as np
import pytest

from pmvar.errors import UsageError
from pmvar.report.explain import explain
from pmvar.report.format import fixed, money, percent
from tests.results import SPOTS, make_result


@pytest.fixture(scope="module")
def result():
    return make_result(n_accounts=4)


def changed(result, account, **values):
    """The tables with some of an account's margin columns replaced."""
    margins = {name: column.copy() for name, column in result.tables["margins"].items()}
    at = int(np.flatnonzero(margins["account_id"] == account)[0])
    for name, value in values.items():
        margins[name][at] = value
    return {**result.tables, "margins": margins}


@pytest.mark.parametrize("place", range(4))
def test_sums_check_for_every_account(result, place):
    account = str(result.tables["margins"]["account_id"][place])
    text = explain(result.tables, {"settings": result.settings}, account)
    assert text.count("check: equals") == 3 and "CHECK FAILS" not in text
    for name in ("initial_margin", "maintenance_margin", "equity", "expected_shortfall", "value_at_risk"):
        assert fixed(result.tables["margins"][name][place], 2) in text
    components = result.tables["components"]
    for i in np.flatnonzero(components["account_id"] == account):
        [line] = [line for line in text.splitlines() if line.startswith(components["instrument_id"][i] + " ")]
        assert fixed(components["component_es"][i], 2) in line


def test_settings_may_be_the_manifest_itself(result):
    account = str(result.tables["margins"]["account_id"][0])
    nested = explain(result.tables, {"settings": result.settings}, account)
    assert explain(result.tables, result.settings, account) == nested


@pytest.mark.parametrize("off", [0.02, -1.0, 1e6])
def test_a_sum_that_does_not_hold_is_told(result, off):
    account = str(result.tables["margins"]["account_id"][0])
    es = float(result.tables["margins"]["expected_shortfall"][0])
    text = explain(changed(result, account, expected_shortfall=es + off), result.settings, account)
    assert text.count("CHECK FAILS") == 3
    assert fixed(-off, 2, sign=True) in text


def test_components_are_sorted_by_size(result):
    account = str(result.tables["margins"]["account_id"][0])
    components = result.tables["components"]
    own = components["account_id"] == account
    order = np.argsort(-np.abs(components["component_es"][own]))
    names = [str(name) for name in components["instrument_id"][own][order]]
    text = explain(result.tables, result.settings, account)
    places = [text.index(f"\n{name} ") for name in names]
    assert places == sorted(places)


def test_gradient_is_told_for_a_rise_of_one_per_cent(result):
    greeks = result.tables["greeks"]
    at = next(i for i in range(len(greeks["value"])) if greeks["factor"][i] == "BTC:spot")
    account, effect = str(greeks["account_id"][at]), greeks["value"][at] * 0.01 * SPOTS["BTC"]
    text = explain(result.tables, result.settings, account)
    [line] = [line for line in text.splitlines() if line.startswith("if BTC price rises 1 %")]
    assert ("margin rises by" if effect > 0 else "margin falls by") in line
    assert fixed(abs(effect), 0 if abs(effect) >= 99.5 else 2) in line
    bare = explain(result.tables, {**result.settings, "spots": {}}, account)
    assert "if BTC price rises 1," in bare and "if BTC price rises 1 %" not in bare


def test_parameters_of_the_model_are_told_for_a_rise_of_one_per_cent(result):
    """Six volatilities in equal parts: a sixth of one per cent of the margin each."""
    margins = result.tables["margins"]
    account, initial = str(margins["account_id"][0]), float(margins["initial_margin"][0])
    text = explain(result.tables, result.settings, account)
    [line] = [line for line in text.splitlines() if line.startswith("if volatility of BTC vol rises 1 %")]
    assert f"margin rises by {money(initial / 600)}" in line and f"({percent(1 / 600, 2, sign=True)})" in line
    # Of 16 replicates; 64 know their error better.
    assert f"± {money(2.131450 * initial / 60_000)} " in line
    assert "± " + money(1.998341 * initial / 60_000) in explain(
        result.tables, {**result.settings, "replicates": 64}, account
    )
    greeks = {name: np.repeat(values, 4) for name, values in result.tables["model_greeks"].items()}
    many = explain({**result.tables, "model_greeks": greeks}, result.settings, account)
    assert "14 more are in the table model_greeks." in many


def test_worst_scenarios_show_moves_not_log_changes(result):
    account = str(result.tables["worst"]["account_id"][0])
    scenario = result.tables["worst"]["scenario"][0]
    shocks = result.tables["shocks"]
    underlyings = set(result.tables["components"]["underlying"][result.tables["components"]["account_id"] == account])
    at = next(
        i
        for i in np.flatnonzero(shocks["scenario"] == scenario)
        if shocks["factor"][i].partition(":")[0] in underlyings
    )
    text = explain(result.tables, result.settings, account)
    assert percent(np.expm1(shocks["shock"][at]), 1, sign=True) in text


def test_floor_and_multiplier_are_steps(result):
    account = str(result.tables["margins"]["account_id"][0])
    floor = 2 * float(result.tables["margins"]["expected_shortfall"][0])
    rules = {**result.settings, "floor": floor, "multiplier": 1.25}
    tables = changed(result, account, initial_margin=1.25 * floor, maintenance_margin=floor)
    text = explain(tables, rules, account)
    assert "floor binds" in text and "times 1.25" in text and "CHECK FAILS" not in text


def test_withheld_account_is_not_derived_from_its_tail(result):
    account = str(result.tables["margins"]["account_id"][0])
    tables = changed(result, account, status="WITHHELD", reason="no price for XRP", initial_margin=1.0)
    text = explain(tables, result.settings, account)
    assert "reason: no price for XRP" in text and "Withheld:" in text and "Tail of the loss" not in text


def test_margins_alone_suffice(result):
    account = str(result.tables["margins"]["account_id"][0])
    text = explain({"margins": result.tables["margins"]}, {}, account)
    assert account in text and "Stress" not in text


def test_unknown_account_names_the_nearest(result):
    with pytest.raises(UsageError, match=r"no account 'mm-0001': did you mean .*'mm-00001'"):
        explain(result.tables, result.settings, "mm-0001")
    with pytest.raises(UsageError, match="did you mean 'mm-00001'"):
        explain(result.tables, result.settings, "MM-00001")
    with pytest.raises(UsageError, match="it has 4 others"):
        explain(result.tables, result.settings, "?")


def test_terminal_sequences_in_ids_are_disarmed():
    result = make_result(n_accounts=2, account_ids=("a\x1b[2Jb",))
    text = explain(result.tables, result.settings, "a\x1b[2Jb")
    assert "\x1b" not in text and "a\ufffd[2Jb" in text


def test_components_without_a_split_are_not_shown_as_one(result):
    """A run without gradients books every component on spot, which says nothing about causes."""
    components = dict(result.tables["components"])
    components["spot_es"] = components["component_es"]
    components["vol_es"] = components["time_es"] = np.zeros(len(components["component_es"]))
    account = str(result.tables["margins"]["account_id"][0])
    margins = result.tables["margins"]
    text = explain({"margins": margins, "components": components}, result.settings, account)
    assert "by position" in text and "by cause" not in text
