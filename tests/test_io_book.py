"""Books: what is absurd is rejected with its row and its remedy, what is unusable withheld, the rest read
exactly."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pmvar.errors import InputError, SecurityError, StateError, UsageError
from pmvar.io.book import load_book
from pmvar.io.source import Source
from pmvar.io.times import format_time, parse_time
from pmvar.io.write_book import write_book
from pmvar.models.specification import Factor, ModelSpecification
from pmvar.types import Measure, Netting, Precision
from tests.books import (
    AS_OF,
    FAR,
    NEAR,
    Rows,
    alter,
    columns,
    line,
    load,
    problems_of,
    small_book,
    small_model,
    small_rows,
    small_toml,
)  # fmt: skip

# ---- what is read ----


def test_the_small_book_is_read_whole(tmp_path: Path) -> None:
    book = load(tmp_path)
    assert book.market.as_of == parse_time(AS_OF) and book.market.base_currency == "USD"
    assert book.market.asset == ("BTC", "ETH") and book.market.spot.tolist() == [100_000.0, 3_000.0]
    assert book.market.base_price("BTC") == 100_000.0
    assert book.market.forwards["ETH"].at(parse_time(FAR)) == pytest.approx(3_030.0)
    assert [s.expiry for s in book.market.vols["BTC"].slices] == [parse_time(NEAR), parse_time(FAR)]
    slice_ = book.market.vols["BTC"].slices[0]
    np.testing.assert_allclose(slice_.log_moneyness, np.log(np.array([8e4, 1e5, 1.2e5]) / 100_500.0), atol=1e-12)
    assert slice_.implied_vol.tolist() == [0.62, 0.55, 0.58]
    assert book.portfolio.account_id.tolist() == ["001", "002", "003", "NA", "desk"]
    ids = book.portfolio.instruments.instrument_id.tolist()
    assert ids == sorted(ids) and {"CASH:BTC", "CASH:ETH", "CASH:USD"} <= set(ids)
    quantity = book.portfolio.quantity.toarray()
    assert quantity[0, ids.index("BTC-PERPETUAL")] == 2_000.0
    assert quantity[1, ids.index("CASH:USD")] == 25_000.0
    instruments = book.portfolio.instruments
    assert instruments.expiry[ids.index("BTC-PERPETUAL")] == np.inf
    assert instruments.strike[ids.index("BTC_USD-28MAR25-110000-C")] == 110_000.0
    assert book.stress == {"crash": {"BTC:spot": -0.4, "BTC:vol": 1.0}, "rally": {"ETH:spot": 0.5}}
    assert book.marks is not None and book.marks["mark"].tolist() == [0.062, 100_010.0]
    assert book.flags == ("BTC 2025-03-28T08:00:00Z: vol interpolated at strikes held 110000",)
    assert {"book.toml", "model.json", "positions.csv", "market/spots.csv"} <= set(book.input_hashes)
    assert (book.settings.scenarios, book.settings.horizon_days, book.rules.level) == (8192, 2, 0.99)


def assert_equal(a: Any, b: Any) -> None:
    """Two books, or parts of them, hold the same to the last bit."""
    if isinstance(a, np.ndarray):
        np.testing.assert_array_equal(a, b)
    elif isinstance(a, dict):
        assert list(a) == list(b)
        for key in a:
            assert_equal(a[key], b[key])
    elif isinstance(a, tuple | list):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_equal(x, y)
    elif hasattr(a, "tocsr"):
        assert (a != b).nnz == 0 and a.shape == b.shape
    elif hasattr(a, "__dataclass_fields__"):
        for name in a.__dataclass_fields__:
            if name not in ("path", "input_hashes"):
                assert_equal(getattr(a, name), getattr(b, name))
    else:
        assert a == b


def test_csv_parquet_and_streams_make_the_same_book(tmp_path: Path) -> None:
    text = load_book(small_book(tmp_path / "csv"))
    assert_equal(text, load_book(small_book(tmp_path / "parquet", table_format="parquet")))
    given_tables = {name: pa.table(columns(rows)) for name, rows in small_rows().items()}
    (tmp_path / "csv" / "positions.csv").unlink()
    streamed = load_book(tmp_path / "csv", tables=given_tables)
    assert_equal(text, streamed)
    assert "positions (stream)" in streamed.input_hashes and "positions.csv" not in streamed.input_hashes


def test_the_order_of_rows_does_not_matter(tmp_path: Path) -> None:
    def reverse(rows: dict[str, Rows]) -> None:
        for name in set(rows) - {"market/marks", "market/stress"}:
            rows[name].reverse()

    assert_equal(load(tmp_path / "a"), load(tmp_path / "b", reverse))


AMOUNT = st.floats(-9e14, 9e14)
NAME = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="=+-@"), min_size=1)


@settings(max_examples=25)
@given(
    quantities=st.lists(st.tuples(NAME, AMOUNT), min_size=1, max_size=8, unique_by=lambda pair: pair[0]),
    vol=st.floats(1e-6, 3.0),
    price=st.floats(1e-3, 1e12),
    volatilities=st.lists(st.floats(0, 1e3), min_size=4, max_size=4),
    correlation=st.floats(-1, 1),
    seconds=st.integers(0, 10**9),
    seed=st.integers(0, 2**32 - 1),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    quantities: list[tuple[str, float]],
    vol: float,
    price: float,
    volatilities: list[float],
    correlation: float,
    seconds: int,
    seed: int,
) -> None:
    as_of, rows = 1.6e9 + seconds / 8, small_rows()
    rows = {name: rows[name] for name in ("market/spots", "market/forwards", "market/vols")}
    for spot in rows["market/spots"]:
        spot.update(price=price, time=format_time(as_of))
    for table in ("market/forwards", "market/vols"):
        for entry in rows[table]:
            entry["expiry"] = as_of + (86_400.5 if entry["expiry"] == NEAR else 1e7)
    for entry in rows["market/vols"]:
        entry.update(implied_vol=vol, bid_vol=None, ask_vol=None)
    linear = {"settlement": "linear", "quote_currency": "USD", "settlement_currency": "USD", "contract_size": 1.0}
    rows["instruments"] = [{"instrument_id": "SPOT", "kind": "spot", "underlying": "BTC", **linear}]
    rows["positions"] = [{"account_id": a, "instrument_id": "SPOT", "quantity": q} for a, q in quantities]
    matrix = np.eye(4)
    matrix[0, 1] = matrix[1, 0] = correlation
    factors = tuple(replace(f, volatility=v) for f, v in zip(small_model().factors, volatilities, strict=True))
    model = replace(small_model(), as_of=as_of, factors=factors, correlation=matrix, sampling={"mixing_share": 0.4})
    folder = tmp_path_factory.mktemp("book") / "book"
    small_book(folder, rows=rows, model=model, toml=small_toml() | {"as_of": as_of, "run": {"seed": seed}})

    book = load_book(folder)
    assert_equal(book.model, model)
    assert book.settings.seed == seed and book.market.as_of == as_of
    assert book.market.spot.tolist() == [price, price]
    assert all((s.implied_vol == vol).all() for surface in book.market.vols.values() for s in surface.slices)
    held = book.portfolio.quantity.toarray()[:, 0]
    assert dict(zip(book.portfolio.account_id.tolist(), held.tolist(), strict=True)) == dict(quantities)


def test_write_book_leaves_out_empty_tables_and_refuses_unknown_ones(tmp_path: Path) -> None:
    tables = {name: columns(rows) for name, rows in small_rows().items()}
    empty = {"account_id": [], "asset": [], "amount": []}
    write_book(tmp_path / "b", book_toml=small_toml(), tables=tables | {"balances": empty}, model=small_model())
    assert not (tmp_path / "b" / "balances.csv").exists()
    with pytest.raises(UsageError, match="unknown tables.*trades"):
        write_book(tmp_path / "b", book_toml={}, tables={"trades": {}}, model=small_model())
    with pytest.raises(UsageError, match="unknown columns.*price"):
        write_book(tmp_path / "b", book_toml={}, tables={"positions": {"price": [1]}}, model=small_model())
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(UsageError, match="book.toml"):
        write_book(tmp_path, book_toml=small_toml(), tables=tables, model=small_model())


# ---- all problems at once ----


def test_ten_errors_in_different_files_are_reported_together(tmp_path: Path) -> None:
    def spoil(rows: dict[str, Rows]) -> None:
        rows["positions"][0]["quantity"] = None
        rows["positions"][1]["account_id"] = "=cmd()"
        rows["balances"][0]["amount"] = 1e18
        rows["instruments"][0]["kind"] = "swap"
        rows["instruments"][1]["put_call"] = None
        rows["market/forwards"][0]["forward"] = -1.0
        rows["market/vols"][0]["implied_vol"] = 55.0
        rows["market/spots"][0]["haircut"] = 1.5
        rows["market/stress"][0]["factor"] = "DOGE:spot"
        rows["market/marks"][0]["time"] = "2025-01-31"

    model = replace(small_model(), vol_cap=1.0)
    rows = small_rows()
    spoil(rows)
    folder = small_book(tmp_path / "book", rows=rows, toml=small_toml() | {"colour": "red"}, model=model)
    text = (folder / "model.json").read_text().replace('"vol_cap": 1.0', '"vol_cap": -1.0')
    (folder / "model.json").write_text(text)
    with pytest.raises(InputError) as caught:
        load_book(folder)
    found = {(p.file, p.row, p.column) for p in caught.value.problems}
    assert found == {
        ("positions.csv", 2, "quantity"), ("positions.csv", 3, "account_id"), ("balances.csv", 2, "amount"),
        ("instruments.csv", 2, "kind"), ("instruments.csv", 3, "put_call"), ("market/forwards.csv", 2, "forward"),
        ("market/vols.csv", 2, "implied_vol"), ("market/spots.csv", 2, "haircut"), ("market/marks.csv", 2, "time"),
        ("book.toml", None, "colour"), ("model.json", None, "vol_cap"),
    }  # fmt: skip
    assert all(p.rule and p.fix for p in caught.value.problems)
    assert caught.value.exit_code == 3


def test_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "book").mkdir()
    with pytest.raises(InputError) as caught:
        load_book(tmp_path / "book")
    assert {p.file for p in caught.value.problems} == {
        "book.toml", "model.json", "instruments", "positions", "market/spots",
    }  # fmt: skip
    with pytest.raises(UsageError, match="not a folder"):
        load_book(tmp_path / "none")
    with pytest.raises(UsageError, match="unknown tables"):
        load_book(tmp_path / "book", tables={"trades": pa.table({})})


# ---- settings ----


@pytest.mark.parametrize(
    ("section", "key", "value", "rule"),
    [
        ("run", "horizon", "36h", "whole number of days"),
        ("run", "horizon", "0d", "whole number of days"),
        ("run", "level", 99, "(0.5, 1)"),
        ("run", "level", "0.99", "(0.5, 1)"),
        ("run", "scenarios", 1.5, "whole number"),
        ("run", "scenarios", True, "whole number"),
        ("run", "seed", -1, "whole number"),
        ("run", "netting", "maybe", "one of reject, sum"),
        ("run", "precision", "float16", "one of float32, float64"),
        ("run", "Seed", 1, "unknown key"),
        ("margin", "measure", "es", "one of expected_shortfall, value_at_risk"),
        ("margin", "multiplier", 0, "positive"),
        ("margin", "maintenance_ratio", 1.1, "(0, 1]"),
        ("margin", "floor", float("nan"), "from 0"),
        ("limits", "max_price_age", "1", "duration"),
        ("limits", "max_size", 1, "unknown key"),
    ],
)
def test_settings_out_of_range(tmp_path: Path, section: str, key: str, value: Any, rule: str) -> None:
    toml = small_toml()
    toml[section] = toml.get(section, {}) | {key: value}
    (problem,) = problems_of(tmp_path, toml=toml)
    assert (problem.file, problem.column, problem.value) == ("book.toml", f"{section}.{key}", str(value))
    assert rule in problem.rule


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        ("format", 2, "whole number from 1 to 1"),
        ("as_of", "2025-01-31T08:00:00", "RFC 3339"),
        ("base_currency", "=USD", "name of a currency"),
    ],
)
def test_the_head_of_the_book(tmp_path: Path, key: str, value: Any, rule: str) -> None:
    found = problems_of(tmp_path, toml=small_toml() | {key: value})
    assert rule in found[0].rule and found[0].column == key


def test_toml_that_does_not_parse_names_the_line(tmp_path: Path) -> None:
    folder = small_book(tmp_path / "book")
    (folder / "book.toml").write_text('format = 1\nas_of = "2025-01-31T08:00:00Z"\nbase_currency = USD\n')
    with pytest.raises(InputError) as caught:
        load_book(folder)
    assert (caught.value.problems[0].file, caught.value.problems[0].row) == ("book.toml", 3)
    (folder / "book.toml").write_text("format = 1\nas_of = 2025-01-31T08:00:00\nrun = 1\n")
    with pytest.raises(InputError) as caught:
        load_book(folder)
    assert [p.column for p in caught.value.problems] == ["as_of", "run", "base_currency"]
    native = folder.parent / "native"
    small_book(native)
    text = (native / "book.toml").read_text().replace(f'"{AS_OF}"', "2025-01-31T09:00:00+01:00")
    (native / "book.toml").write_text(text)
    assert load_book(native).market.as_of == parse_time(AS_OF)


@pytest.mark.parametrize("name", ["halton", "lattice"])
def test_a_sampling_or_surface_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path, name: str) -> None:
    toml = small_toml()
    toml["run"]["sampling"] = name
    with pytest.raises(InputError, match="must be one of mc, sobol, sobol-is"):
        load(tmp_path, toml=toml)
    with pytest.raises(UsageError, match=f"{name}.*must be one of mc, sobol, sobol-is"):
        load(tmp_path, overrides={"sampling": name})
    with pytest.raises(InputError, match="must be one of raw, svi, ssvi"):
        load(tmp_path, toml=small_toml() | {"surface": "sabr"})


def test_a_surface_that_cannot_be_fitted_is_the_one_thing_said(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="a fitted smile needs 5 strikes") as caught:
        load(tmp_path, toml=small_toml() | {"surface": "ssvi"})
    assert {(p.file, p.column) for p in caught.value.problems} == {("market/vols.csv", "expiry")}


def test_overrides_replace_settings_and_none_leaves_them(tmp_path: Path) -> None:
    overrides = {"level": 0.975, "seed": 9, "horizon": None, "measure": "value_at_risk", "precision": "float64"}
    book = load(tmp_path, overrides=overrides)
    assert (book.rules.level, book.rules.measure) == (0.975, Measure.VALUE_AT_RISK)
    assert (book.settings.seed, book.settings.horizon, book.settings.precision) == (9, "2d", Precision.FLOAT64)
    for wrong in ({"level": 2.0}, {"sede": 1}, {"netting": "no"}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            load(tmp_path, overrides=wrong)


# ---- model.json ----


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ('"format": 1', '"format": 1, "format": 1', "a key must appear once"),
        ('"vol_cap": 1.6', '"vol_cap": NaN', "must be finite"),
        ('"vol_cap": 1.6', '"vol_cap": 1e999', "must be finite"),
        ('"vol_cap": 1.6', '"vol_cap": true', "must be int or float"),
        ('"vol_cap": 1.6', '"vol_cap": "1.6"', "must be int or float"),
        ('"vol_cap": 1.6', '"volcap": 1.6', "unknown key"),
        ('"step": "1d"', '"step": "1h"', "must be 1d"),
        ('"price_map": "exp_linear"', '"price_map": "cubic"', "one of exp_linear"),
        ('"steps_per_year": 365', '"steps_per_year": 250', "365 or 252"),
        ('"name": "BTC:spot"', '"name": "BTC:basis.2025"', "factor is named"),
        ('"name": "BTC:spot"', '"name": "ETH:spot"', "each once"),
        ('"degrees_of_freedom": 4.0', '"degrees_of_freedom": 2.0', "above 2"),
        ('"volatility": 0.029', '"volatility": -0.029', "≥ 0"),
        ('"volatility": 0.029', '"sigma": 0.029', "unknown key"),
        ("0.8", "1.8", "within [−1, 1]"),
        ("0.8", "0.81", "symmetric"),
        ("[\n  [", "[\n  [0.5, ", "row 1 must hold 4 numbers"),
        ('"correlation": [', '"correlation": [[', "is not JSON"),
        ('"excluded": []', '"excluded": [{"name": "X"}]', "{name, reason}"),
        ('"as_of": "', '"as_of": "on ', "RFC 3339"),
        ('"sampling": {}', '"sampling": {"share": 1}', "sampling has mixing_share"),
        ('"sampling": {}', '"sampling": {"mixing_share": 0}', "shares and exponents lie in"),
        ('"model": "t"', '"model": "tt"', "this version has the models gaussian, t,"),
        ('"model": "t"', '"model": "t-garch"', "needs state.filter"),
        ('"model": "t"', '"model": "t-jump"', "needs parameters.jumps"),
        ('"model": "t"', '"model": "historical"', "needs past steps"),
        ('"state": {}', '"state": {"filter": {"X:spot": {}}}', "for factors of the model"),
        ('"parameters": {}', '"parameters": {"jumps": {}}', "model t has no parameters but skew"),
        ('"degrees_of_freedom": 4.0', '"degrees_of_freedom": 5.0', "one number of degrees of freedom"),
    ],
)
def test_faults_of_the_model(tmp_path: Path, old: str, new: str, rule: str) -> None:
    folder = small_book(tmp_path / "book")
    text = (folder / "model.json").read_text()
    (folder / "model.json").write_text(text.replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        load_book(folder)
    assert {p.file for p in caught.value.problems} == {"model.json"}
    assert rule in caught.value.problems[0].rule


def test_json_that_is_deep_huge_or_no_text(tmp_path: Path) -> None:
    folder = small_book(tmp_path / "book")
    for content in (b"[" * 100_000, b"9" * 10_000, b"\xff\xfe{", b"[1]", b"null", b'{"format": 1}'):
        (folder / "model.json").write_bytes(content)
        with pytest.raises(InputError, match=r"model\.json"):
            load_book(folder)


def test_a_model_dated_after_the_book_is_flagged(tmp_path: Path) -> None:
    model = replace(small_model(), as_of=parse_time(AS_OF) + 1)
    assert any("dated after as_of" in flag for flag in load_book(small_book(tmp_path / "b", model=model)).flags)


# ---- positions, balances, instruments ----


def test_duplicates_are_rejected_naming_both_rows_or_summed(tmp_path: Path) -> None:
    def repeat(rows: dict[str, Rows]) -> None:
        rows["positions"].append(rows["positions"][0] | {"quantity": 2.0})
        rows["balances"].append(rows["balances"][0] | {"amount": 0.5})

    found = problems_of(tmp_path, repeat)
    assert [(p.file, p.row, p.value) for p in found] == [
        ("positions.csv", 13, "001, BTC-28FEB25-100000-C"), ("balances.csv", 7, "001, BTC"),
    ]  # fmt: skip
    assert "row 2 has the same" in found[0].rule and "netting sum" in found[0].fix
    book = load(tmp_path, repeat, overrides={"netting": Netting.SUM})
    ids = book.portfolio.instruments.instrument_id.tolist()
    assert book.portfolio.quantity.toarray()[0, ids.index("BTC-28FEB25-100000-C")] == -3.0
    assert book.portfolio.quantity.toarray()[0, ids.index("CASH:BTC")] == 3.5
    assert sum("duplicate rows summed" in flag for flag in book.flags) == 2


@pytest.mark.parametrize(
    ("table", "key", "column"),
    [
        ("instruments", "(instrument_id)", "instrument_id"),
        ("market/spots", "(name)", "name"),
        ("market/forwards", "(underlying, expiry)", "underlying"),
        ("market/rates", "(currency, maturity)", "currency"),
        ("market/vols", "(underlying, expiry, strike)", "underlying"),
        ("market/marks", "(instrument_id)", "instrument_id"),
        ("market/stress", "(scenario, factor)", "scenario"),
    ],
)
def test_repeated_keys_of_any_table(tmp_path: Path, table: str, key: str, column: str) -> None:
    (problem,) = problems_of(tmp_path, lambda rows: rows[table].append(dict(rows[table][0])))
    rows = small_rows()[table]
    assert (problem.file, problem.row, problem.column) == (f"{table}.csv", len(rows) + 2, column)
    assert problem.rule == f"{key} must be unique; row 2 has the same"


def test_an_unknown_instrument_withholds_its_account_alone(tmp_path: Path) -> None:
    book = load(tmp_path, lambda rows: rows["positions"].append(
        {"account_id": "003", "instrument_id": "DOGE", "quantity": 1.0}
    ))  # fmt: skip
    assert book.portfolio.withheld == {"003": "unknown instrument DOGE"}
    assert book.portfolio.unknown == {"003": (("DOGE", 1.0),)}


def test_a_balance_without_a_price_withholds_its_account_alone(tmp_path: Path) -> None:
    book = load(tmp_path, lambda rows: rows["balances"].append({"account_id": "003", "asset": "DOGE", "amount": 9.0}))
    assert book.portfolio.withheld == {"003": "no price of DOGE"}
    assert "CASH:DOGE" not in book.portfolio.instruments.instrument_id.tolist()


def test_an_expired_instrument_withholds_who_holds_it_and_is_flagged_otherwise(tmp_path: Path) -> None:
    name = "BTC-28FEB25-100000-C"
    book = load(tmp_path, alter("instruments", {"instrument_id": name}, expiry=AS_OF))
    assert book.portfolio.withheld == {"001": f"expired instrument {name}"}
    assert book.portfolio.unknown == {"001": ((name, -5.0),)}
    name = "BTC-28FEB25-80000-C"
    book = load(tmp_path, alter("instruments", {"instrument_id": name}, expiry="2025-01-01T00:00:00Z"))
    assert not book.portfolio.withheld and f"{name}: expired, held by nobody" in book.flags
    assert name not in book.portfolio.instruments.instrument_id.tolist()


OPTION, PERPETUAL, FUTURE, SPOT, LINEAR = (
    {"instrument_id": name}
    for name in ("BTC-28FEB25-100000-C", "BTC-PERPETUAL", "BTC-28MAR25", "BTC_USD", "BTC_USD-28MAR25-110000-C")
)


@pytest.mark.parametrize(
    ("key", "values", "column", "rule"),
    [
        (OPTION, {"kind": "swap"}, "kind", "must be one of spot"),
        (OPTION, {"exercise": "american"}, "exercise", "an American option is linear"),
        (OPTION, {"exercise": "bermudan"}, "exercise", "must be one of european, american"),
        (LINEAR, {"exercise": "american", "deliverable": "cash"}, "deliverable", "must be one of spot, future"),
        (LINEAR, {"deliverable": "spot"}, "deliverable", "only an American option"),
        (OPTION, {"exercise": None}, "exercise", "names its exercise"),
        (LINEAR, {"kind": "digital", "payoff": "cash_or_nothing"}, "exercise", "only an option of kind option"),
        (LINEAR, {"kind": "digital", "exercise": None}, "payoff", "says what it pays"),
        (OPTION, {"payoff": "cash_or_nothing"}, "payoff", "only a digital option"),
        (LINEAR, {"kind": "asian", "exercise": None}, "averaging_start", "says when averaging starts"),
        (SPOT, {"averaging_start": AS_OF}, "averaging_start", "only European and Asian options and futures"),
        (LINEAR, {"averaging_start": FAR}, "averaging_start", "starts before expiry"),
        (FUTURE, {"averaging_start": AS_OF}, "averaging_start", "a future on an average of more than an hour"),
        (LINEAR, {"averaging_start": AS_OF}, "average_so_far", "the average has begun"),
        (LINEAR, {"average_so_far": 1e5}, "average_so_far", "only what has begun to average"),
        (PERPETUAL, {"settlement": "quanto", "settlement_currency": "ETH"}, "fx_rate", "paid at a fixed rate"),
        (PERPETUAL, {"fx_rate": 2.0}, "fx_rate", "only a quanto"),
        (PERPETUAL, {"settlement": "quanto", "fx_rate": 2.0, "settlement_currency": "USD"}, "settlement_currency",
         "in another currency"),
        (PERPETUAL, {"settlement": "quanto", "fx_rate": 2.0, "settlement_currency": "JPY"}, "settlement_currency",
         "no price"),
        (SPOT, {"settlement": "quanto", "fx_rate": 2.0, "settlement_currency": "ETH"}, "settlement", "are quanto"),
        (LINEAR, {"barrier": 90_000.0}, "barrier", "only a barrier option"),
        (LINEAR, {"kind": "barrier", "exercise": None, "barrier_type": "up_in"}, "barrier", "needs a barrier"),
        (LINEAR, {"kind": "barrier", "exercise": None, "barrier": 1e5}, "barrier_type", "says how it is hit"),
        (LINEAR, {"rebate": 1.0}, "rebate", "only a barrier option"),
        (LINEAR, {"coupon": "0.05"}, "coupon", "only a bond has a coupon"),
        (OPTION, {"strike": None}, "strike", "needs a strike"),
        (OPTION, {"strike": 0.0}, "strike", "must be above 0"),
        (OPTION, {"expiry": None}, "expiry", "needs an expiry"),
        (OPTION, {"put_call": None}, "put_call", "a call or a put"),
        (FUTURE, {"expiry": None}, "expiry", "needs an expiry"),
        (FUTURE, {"strike": 1.0}, "strike", "only an option"),
        (PERPETUAL, {"expiry": FAR}, "expiry", "has no expiry"),
        (SPOT, {"expiry": FAR}, "expiry", "has no expiry"),
        (PERPETUAL, {"contract_size": 0.0}, "contract_size", "strictly between 0"),
        (PERPETUAL, {"settlement_currency": "USD"}, "settlement_currency", "settles in its underlying"),
        (LINEAR, {"settlement_currency": "BTC"}, "settlement_currency", "settles in its quote_currency"),
        (PERPETUAL, {"quote_currency": "EUR"}, "quote_currency", "the currency has no price"),
        (PERPETUAL, {"quote_currency": "ETH"}, "quote_currency", "prices its underlying in"),
        (PERPETUAL, {"underlying": "SOL", "settlement_currency": "SOL"}, "underlying", "no price"),
        (SPOT, {"settlement": "inverse", "settlement_currency": "BTC"}, "settlement", "a spot instrument is linear"),
    ],
)
def test_terms_that_make_no_product(
    tmp_path: Path, key: dict[str, Any], values: dict[str, Any], column: str, rule: str
) -> None:
    (problem,) = problems_of(tmp_path, alter("instruments", key, **values))
    assert (problem.file, problem.row) == ("instruments.csv", line(small_rows()["instruments"], **key))
    assert problem.column == column and rule in problem.rule and problem.fix


@pytest.mark.parametrize(
    ("table", "keep", "rule", "fix"),
    [
        ("market/forwards", lambda r: r["underlying"] != "BTC", "needs forwards", "market/forwards"),
        ("market/vols", lambda r: r["underlying"] != "ETH", "needs vols", "market/vols"),
        ("market/rates", lambda r: False, "needs zero rates", "market/rates"),
    ],
)
def test_a_gap_in_the_market_is_rejected(
    tmp_path: Path, table: str, keep: Callable[[dict[str, Any]], bool], rule: str, fix: str
) -> None:
    def remove(rows: dict[str, Rows]) -> None:
        rows[table] = [r for r in rows[table] if keep(r)]

    found = problems_of(tmp_path, remove)
    assert all(rule in p.rule and fix in p.fix and p.file == "instruments.csv" for p in found)


# ---- files that change or attack ----


def test_a_file_that_changes_while_the_book_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = small_book(tmp_path / "book")
    read = Source.read

    def meddle(self: Source, name: str) -> bytes:
        content = read(self, name)
        if name == "market/spots.csv":
            with open(folder / "positions.csv", "a") as stream:
                stream.write('"late","BTC_USD",1\n')
        return content

    monkeypatch.setattr(Source, "read", meddle)
    with pytest.raises(StateError, match="positions.csv changed"):
        load_book(folder)


def test_an_attack_stops_at_once(tmp_path: Path) -> None:
    folder = small_book(tmp_path / "book")
    (folder / "positions.csv").write_text('account_id,instrument_id,quantity\n"a,b,1\n')
    with pytest.raises(SecurityError):
        load_book(folder)


def test_models_with_every_optional_part_survive(tmp_path: Path) -> None:
    factors = (Factor("X:spot", 0.1), Factor("X:vol", 0.2, 5.5, "fit", 300, 7.0, 0.25))
    model = ModelSpecification(
        "t-garch", parse_time(AS_OF), factors, np.eye(2), 252, parameters={"skew": {"X:vol": 0.1}},
        state={"filter": {"X:spot": {"ewma": True}}}, sampling={"inflation": [1.25]},
        excluded=({"name": "Y:vol", "reason": "short"},),
    )  # fmt: skip
    folder = small_book(
        tmp_path / "book", model=model, rows={k: v for k, v in small_rows().items() if "stress" not in k}
    )
    assert_equal(load_book(folder).model, model)
    assert json.loads((folder / "model.json").read_text())["factors"][0]["degrees_of_freedom"] is None
