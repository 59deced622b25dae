"""Panels of prices and vols: every layout reads alike, every bad cell is named, every quirk is found and said."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pmvar.calibration.panel import GAP_DAYS, STALE_DAYS, Moves, Panel, Quirk, factor_panel, moves
from pmvar.errors import InputError, UsageError
from pmvar.io.panel import Quantity, panel_of, read_panel
from pmvar.io.times import format_day, parse_day
from pmvar.types import DAY

MONDAY = parse_day("2024-01-01")


def panel(values: dict[str, list[float]], start: float = MONDAY) -> Panel:
    """Consecutive days."""
    rows = np.array(list(values.values()), float).T
    return Panel(start + DAY * np.arange(len(rows)), tuple(values), rows)


def walk(n: int, seed: int = 1) -> list[float]:
    """A price that moves every day."""
    return (100 * np.exp(np.cumsum(np.random.default_rng(seed).normal(0, 0.02, n)))).tolist()


def quirks(found: Moves) -> set[tuple[str, Quirk, str, int]]:
    """All findings."""
    return {(f.name, f.quirk, format_day(f.day), f.count) for f in found.findings}


# ---- reading -------------------------------------------------------------------------------------------------------

WIDE = "Date,A,B\n2024-01-01,1,10\n2024-01-02,2,\n2024-01-03,3,30\n"
LONG = "time,symbol,close\n2024-01-03T00:00:00Z,A,3\n2024-01-01,A,1\n2024-01-02,A,2\n2024-01-01,B,10\n2024-01-03,B,30\n"


def read(folder: Path, text: str, quantity: Quantity = Quantity.PRICE, **options: object) -> Panel:
    """A CSV file of this content, read."""
    (folder / "p.csv").write_text(text)
    return read_panel(folder / "p.csv", quantity, **options)[0]  # type: ignore[arg-type]


def test_every_layout_reads_alike(tmp_path: Path):
    wide, long = read(tmp_path, WIDE), read(tmp_path, LONG)
    table = pa.table({"date": pa.array(["2024-01-01", "2024-01-02", "2024-01-03"]).cast(pa.date32()),
                      "A": [1.0, 2.0, 3.0], "B": [10.0, None, 30.0]})  # fmt: skip
    pq.write_table(table, tmp_path / "p.parquet")
    for other in (long, read_panel(tmp_path / "p.parquet", Quantity.PRICE)[0], panel_of(table, Quantity.PRICE)):
        assert other.name == wide.name == ("A", "B")
        np.testing.assert_array_equal(other.day, wide.day)
        np.testing.assert_array_equal(other.value, wide.value)
    assert np.isnan(wide.value[1, 1]), "a blank is a value that there is not"


def test_the_last_row_of_a_day_counts_and_assets_are_chosen_in_order(tmp_path: Path):
    hourly = "time,A,B\n2024-01-01T23:00:00Z,5,6\n2024-01-01T01:00:00Z,1,2\n2024-01-02T00:00:00Z,7,8\n"
    found = read(tmp_path, hourly, assets=["B", "A"])
    np.testing.assert_array_equal(found.value, [[6, 5], [8, 7]])


@pytest.mark.parametrize(
    ("text", "quantity", "words"),
    [
        (WIDE.replace("30", "-30"), Quantity.PRICE, ["p.csv:4", "B", "-30", "between 0"]),
        (WIDE.replace("30", "1_0"), Quantity.PRICE, ["p.csv:4", "B", "1_0", "plain decimal"]),
        (WIDE, Quantity.VOL, ["p.csv:2", "'10'", "0.65, not 65"]),
        (WIDE.replace("Date", "Datum"), Quantity.PRICE, ["one column holds the times"]),
        (WIDE.replace("2024-01-02", "02.01.2024"), Quantity.PRICE, ["p.csv:3", "02.01.2024"]),
        ("date,A\n2024-01-01,1\n", Quantity.PRICE, ["at least two days"]),
    ],
)
def test_errors_name_file_row_column_and_value(tmp_path: Path, text: str, quantity: Quantity, words: list[str]):
    with pytest.raises(InputError) as caught:
        read(tmp_path, text, quantity)
    for word in words:
        assert word in str(caught.value)


def test_an_asset_that_is_not_there(tmp_path: Path):
    with pytest.raises(UsageError, match="no asset C; it has A, B"):
        read(tmp_path, WIDE.replace("-30", "30"), assets=["C"])


def test_a_bad_price_of_an_asset_that_is_left_out_does_not_matter(tmp_path: Path):
    assert read(tmp_path, WIDE.replace("30", "-30"), assets=["A"]).name == ("A",)


# ---- moves ---------------------------------------------------------------------------------------------------------


def test_ratios_of_a_clean_panel():
    value = np.column_stack([walk(400, 1), walk(400, 2)])
    found = moves(Panel(MONDAY + DAY * np.arange(400), ("A", "B"), value))
    np.testing.assert_array_equal(found.ratio, value[1:] / value[:-1])
    assert (found.steps_per_year, found.findings) == (365, ())


def test_gaps_are_named_and_a_crash_behind_one_is_kept():
    price = walk(60)
    price[10] = price[11] = np.nan
    price[30 : 30 + GAP_DAYS + 1] = [np.nan] * (GAP_DAYS + 1)
    found = moves(panel({"A": price}))
    assert quirks(found) == {("A", Quirk.MISSING, "2024-01-11", 2 + GAP_DAYS + 1)}
    assert found.ratio[11, 0] == price[12] / price[9], "over two days: one step's move"
    assert np.isnan(found.ratio[9:11]).all()
    assert np.isnan(found.ratio[30 + GAP_DAYS, 0]), "over six days: none"


def test_a_skipped_date_is_a_missing_one():
    whole = panel({"A": walk(60)})
    holes = np.delete(np.arange(60), [20])
    found = moves(Panel(whole.day[holes], whole.name, whole.value[holes]))
    assert len(found.day) == 59 and np.isnan(found.ratio[19, 0])
    assert quirks(found) == {("A", Quirk.MISSING, "2024-01-21", 1)}


def test_stale_prices_do_not_calm_a_market():
    price = walk(60)
    price[20 : 20 + STALE_DAYS] = [price[20]] * STALE_DAYS
    price[40 : 40 + STALE_DAYS - 1] = [price[40]] * (STALE_DAYS - 1)
    found = moves(panel({"A": price}))
    assert quirks(found) == {("A", Quirk.STALE, "2024-01-22", STALE_DAYS - 1)}
    assert np.isnan(found.ratio[20 : 20 + STALE_DAYS - 1]).all()
    assert np.isfinite(found.ratio[20 + STALE_DAYS - 1]).all(), "the move that ends it is real"
    assert np.all(found.ratio[40 : 40 + STALE_DAYS - 2] == 1), "a shorter run is a price"


def test_splits_and_outliers_are_named_and_kept():
    price = np.array(walk(200))
    price[100:] /= 4 * price[100] / price[99]
    price[150:] *= 2.7
    found = moves(panel({"A": price.tolist()}))
    assert quirks(found) == {("A", Quirk.SPLIT, "2024-04-10", 1), ("A", Quirk.OUTLIER, "2024-05-30", 1)}
    assert found.ratio[99, 0] == pytest.approx(0.25)


def test_beginnings_and_ends():
    late, gone = walk(60, 2), walk(60, 3)
    late[:10], gone[50:] = [np.nan] * 10, [np.nan] * 10
    found = moves(panel({"A": walk(60), "L": late, "G": gone}))
    assert quirks(found) == {("L", Quirk.LISTED_LATE, "2024-01-11", 10), ("G", Quirk.ENDED, "2024-02-19", 10)}


def test_coins_beside_stocks_move_over_the_weekend_on_mondays():
    coin, stock = np.array(walk(140, 1)), np.array(walk(140, 2))
    weekend = np.arange(140) % 7 >= 5
    stock[weekend], stock[7] = np.nan, np.nan  # a holiday, a Monday
    found = moves(panel({"C": coin.tolist(), "S": stock.tolist()}))
    assert found.steps_per_year == 252
    assert quirks(found) == {("C", Quirk.WEEKENDS, "2024-01-01", 41)}
    at = list(found.day).index(MONDAY + 8 * DAY)
    assert found.ratio[at, 0] == coin[8] / coin[4], "from Friday over weekend and holiday to Tuesday"
    assert found.ratio[at, 1] == stock[8] / stock[4]


def test_prices_and_vols_become_factors():
    found = factor_panel(panel({"A": [1.0, 2, 3]}), panel({"A": [0.5, 0.6]}, MONDAY + DAY))
    assert found.name == ("A:spot", "A:vol")
    np.testing.assert_array_equal(found.value, [[1, np.nan], [2, 0.5], [3, 0.6]])


def test_fifty_coins(shared_data: Path):
    """The crash of March 2020 is found, named, and kept."""
    prices, source = read_panel(shared_data / "crypto" / "daily_close.csv", Quantity.PRICE)
    found = moves(prices)
    assert len(prices.name) == 50 and len(source["sha256"]) == 64
    assert ("BTC", Quirk.OUTLIER, "2020-03-12", 1) in quirks(found)
    at = list(found.day).index(parse_day("2020-03-12"))
    assert np.log(found.ratio[at, found.name.index("BTC")]) == pytest.approx(-0.503, abs=5e-4)
