"""What must not matter does not, to the bit: order, splits, blocks, memory, devices, how many scenarios follow."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import pmvar
from pmvar.io.book import Book, load_book
from pmvar.io.run import read_run
from pmvar.io.synthetic import synthetic_book
from pmvar.kernels.aggregate import ACCOUNT_HEIGHTS, LANES
from pmvar.portfolio import Portfolio
from pmvar.report.margin_report import MarginReport
from pmvar.risk.accounts import LossStrips, account_blocks, block_loss
from pmvar.risk.result import TABLES
from pmvar.types import PATH_TILE
from pmvar.valuation.store import TileStore
from tests.books import columns, small_book, small_rows
from tests.engines import (
    assert_same_tables,
    hold,
    mixed_instruments,
    mixed_market,
    random_rows,
    report,
    scenarios,
)

BY_ACCOUNT = [name for name, cols in TABLES.items() if cols[0] == "account_id"]


@pytest.fixture(scope="module")
def rows() -> tuple[list, list]:
    """Positions and balances of forty small accounts and two large ones."""
    return random_rows(40, 2)


@pytest.fixture(scope="module")
def plain(rows: tuple[list, list]) -> MarginReport:
    """Their report."""
    return report(hold(*rows))


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Book:
    """The demonstration book with 700 accounts: market makers of hundreds of positions beside accounts of two."""
    folder = tmp_path_factory.mktemp("demo") / "book"
    synthetic_book(folder, n_accounts=700, seed=11)
    return load_book(folder)


def margins_of(book: Book, portfolio: Portfolio, **options: object) -> MarginReport:
    """The report of `portfolio` in the demo market: one call of the documented path."""
    drawn = pmvar.simulate(book.model, book.market, seed=5, n_scenarios=PATH_TILE)
    stress = pmvar.stress_scenarios(book.stress, book.model, book.market)
    pnl = pmvar.reprice(portfolio, book.market, drawn)
    return pmvar.margin_report(pnl, portfolio, book.rules, stress=stress, **options)  # pyright: ignore[reportArgumentType]


@pytest.fixture(scope="module")
def whole(demo: Book) -> MarginReport:
    """The report of the whole demo book."""
    return margins_of(demo, demo.portfolio)


def test_order_of_rows_in_memory(rows: tuple[list, list], plain: MarginReport) -> None:
    """Positions, balances and instruments in any order give the same tables."""
    rng = np.random.default_rng(0)
    held, owned = ([r[i] for i in rng.permutation(len(r))] for r in rows)
    listed = mixed_instruments()
    shuffled = listed.take(rng.permutation(len(listed)))
    assert_same_tables(report(hold(held, owned, instruments=shuffled)), plain)


def test_order_of_rows_on_disk(tmp_path: Path) -> None:
    """Every table of a book shuffled on its way in gives the same tables out."""
    book = small_book(tmp_path / "book")
    rng = np.random.default_rng(1)

    def reported(tables: dict[str, pa.Table]) -> MarginReport:
        loaded = load_book(book, tables=tables)
        drawn = pmvar.simulate(loaded.model, loaded.market, seed=1, n_scenarios=PATH_TILE)
        stress = pmvar.stress_scenarios(loaded.stress, loaded.model, loaded.market)
        pnl = pmvar.reprice(loaded.portfolio, loaded.market, drawn)
        return pmvar.margin_report(pnl, loaded.portfolio, loaded.rules, stress=stress)

    shuffled = {}
    # The stress list keeps its order: it is the order of the report.
    for name in set(small_rows()) - {"market/stress"}:
        given = small_rows()[name]
        mixed = [given[i] for i in rng.permutation(len(given))]
        shuffled[name] = pa.table({c: pa.array(v) for c, v in columns(mixed).items()})
    straight = {name: pa.table({c: pa.array(v) for c, v in columns(small_rows()[name]).items()}) for name in shuffled}
    assert_same_tables(reported(shuffled), reported(straight))


def test_positions_in_parts(rows: tuple[list, list], plain: MarginReport) -> None:
    """A position in parts whose sum is exact is the position; parts that round give one sum in any order."""
    held, owned = rows
    halves = [(a, i, part) for a, i, q in held for part in (q / 4, q / 2, q / 4)]
    assert_same_tables(report(hold(halves, owned)), plain)
    thirds = [(a, i, part) for a, i, q in held for part in (q / 3, 0.1 * q, q - q / 3 - 0.1 * q)]
    rng = np.random.default_rng(2)
    one, other = (hold([thirds[i] for i in rng.permutation(len(thirds))], owned) for _ in range(2))
    np.testing.assert_array_equal(one.quantity.data, other.quantity.data)
    # Three roundings of a sum: the margins can differ by as much, and do not differ by more.
    np.testing.assert_allclose(
        report(one).tables["margins"]["initial_margin"], plain.tables["margins"]["initial_margin"], rtol=1e-12
    )


def test_accounts_in_other_blocks_and_heights(demo: Book, whole: MarginReport) -> None:
    """An account's numbers do not depend on which accounts it is computed beside: alone, in tens or with hundreds."""
    count = np.diff(demo.portfolio.quantity.indptr)
    assert count.max() > 20 * LANES and len(count) > ACCOUNT_HEIGHTS[2], "the book must mix large and small"
    rng = np.random.default_rng(4)
    largest, smallest = int(np.argmax(count)), int(np.argmin(count))
    few = [np.array([largest]), np.array([smallest]), np.array([largest, smallest])]
    few += [np.sort(rng.choice(len(count), n, replace=False)) for n in (20, 90)]
    for chosen in few:
        part = margins_of(demo, demo.portfolio.accounts(chosen))
        names = set(demo.portfolio.account_id[chosen].tolist())
        for name in BY_ACCOUNT:
            among = np.array([a in names for a in whole.tables[name]["account_id"]], dtype=bool)
            for column, values in part.tables[name].items():
                np.testing.assert_array_equal(values, whole.tables[name][column][among], err_msg=f"{name}.{column}")


def test_losses_of_an_account_in_other_shapes(demo: Book) -> None:
    """Losses agree to the bit under every scenario, not only in the tail, in blocks of every height."""
    drawn = pmvar.simulate(demo.model, demo.market, seed=5, n_scenarios=PATH_TILE)
    store = TileStore(pmvar.reprice(demo.portfolio, demo.market, drawn), memory_bytes=1e9)
    quantity = demo.portfolio.quantity
    every = {int(a): b for b in account_blocks(quantity, np.arange(demo.portfolio.n_accounts), 512) for a in b.account}
    loss = {id(b): block_loss(b, store)[:] for b in every.values()}
    for account in range(0, demo.portfolio.n_accounts, 45):
        block = every[account]
        (alone,) = account_blocks(quantity, np.array([account]), 32)
        row = int(np.flatnonzero(block.account == account)[0])
        np.testing.assert_array_equal(block_loss(alone, store)[:][0], loss[id(block)][row])
    for block in account_blocks(quantity, np.arange(demo.portfolio.n_accounts), ACCOUNT_HEIGHTS[-1]):
        found = block_loss(block, store)[:]
        for account, own in zip(block.account, found, strict=True):
            other = every[int(account)]
            np.testing.assert_array_equal(own, loss[id(other)][np.flatnonzero(other.account == account)[0]])


def test_losses_are_written_over_once_nobody_holds_them(demo: Book) -> None:
    """The next block takes the memory of the last; while its losses are held they stay what they are."""
    drawn = pmvar.simulate(demo.model, demo.market, seed=5, n_scenarios=2 * PATH_TILE)
    store = TileStore(pmvar.reprice(demo.portfolio, demo.market, drawn), memory_bytes=1e9)
    first, second, *_ = account_blocks(demo.portfolio.quantity, np.arange(64), 32)

    def places(losses: LossStrips) -> list[int]:
        return [tile.ctypes.data for tile in losses.tiles]

    held = block_loss(first, store)
    before, kept = places(held), held[:].copy()
    other = block_loss(second, store)
    assert not set(places(other)) & set(before)
    np.testing.assert_array_equal(held[:], kept)
    assert not np.array_equal(other[: len(held)], kept[: len(other)])
    freed = places(other)
    del held, other
    again = block_loss(first, store)
    assert places(again) == freed
    np.testing.assert_array_equal(again[:], kept)


def test_halves_joined(demo: Book, whole: MarginReport) -> None:
    """The book in two halves, one after the other, is the book: rows of both, sorted, are the rows of the whole."""
    n = demo.portfolio.n_accounts
    parts = [margins_of(demo, demo.portfolio.accounts(np.arange(start, n, 2))) for start in (0, 1)]
    for name in BY_ACCOUNT:
        both = np.concatenate([p.tables[name]["account_id"] for p in parts]).astype(str)
        order = np.argsort(both, kind="stable")
        for column, values in whole.tables[name].items():
            joined = np.concatenate([p.tables[name][column] for p in parts])[order]
            np.testing.assert_array_equal(joined, values, err_msg=f"{name}.{column}")


def test_store_in_a_scratch_file(demo: Book, whole: MarginReport) -> None:
    """P&L kept in a file because memory is short is the same P&L."""
    store = TileStore(
        pmvar.reprice(demo.portfolio, demo.market, pmvar.simulate(demo.model, demo.market, seed=5, n_scenarios=2048)),
        memory_bytes=1.0,
    )
    assert isinstance(store._tiles, np.memmap)
    assert_same_tables(margins_of(demo, demo.portfolio, memory_bytes=1.0), whole)


def test_fewer_scenarios_are_a_prefix(rows: tuple[list, list]) -> None:
    """5,000 scenarios, a tile and a part, are the first 5,000 of 8,192: shocks, P&L and losses, expiries included."""
    portfolio, market = hold(*rows), mixed_market()
    stores = []
    for n in (5_000, 2 * PATH_TILE):
        drawn = scenarios(market, n=n)
        assert drawn.n_scenarios == n
        stores.append(TileStore(pmvar.reprice(portfolio, market, drawn), memory_bytes=1e9))
    short, long = stores
    np.testing.assert_array_equal(short.pnl.scenarios.shock, long.pnl.scenarios.shock[:5_000])
    row = np.arange(short.pnl.n_rows)
    np.testing.assert_array_equal(short.rows(row), long.rows(row)[:, :5_000])
    for block in account_blocks(portfolio.quantity, np.arange(portfolio.n_accounts), 512):
        np.testing.assert_array_equal(block_loss(block, short)[:], block_loss(block, long)[:][:, :5_000])
        np.testing.assert_array_equal(block_loss(block, short)[3:7], block_loss(block, short)[:][3:7])


def test_a_part_tile_counts_its_scenarios_alone(rows: tuple[list, list]) -> None:
    """The padding of the last tile never enters a tail: VaR and ES are those of the 5,000 losses, by sorting."""
    portfolio, market = hold(*rows), mixed_market()
    drawn = scenarios(market, n=5_000)
    pnl = pmvar.reprice(portfolio, market, drawn)
    found = report(portfolio, market, drawn=drawn).tables["margins"]
    tiles = np.concatenate([np.asarray(t, dtype=np.float64)[pnl.row] for t in pnl], axis=1)[:, :5_000]
    loss = -(portfolio.quantity @ tiles)
    worst = -np.sort(-loss, axis=1)
    # Conditioning: sums of up to 130 positions in another order; a hedged account's loss is what is left of them.
    bound = 130 * np.finfo(np.float64).eps * (abs(portfolio.quantity) @ abs(tiles)).max(axis=1)
    assert np.all(abs(found["expected_shortfall"] - worst[:, :50].mean(axis=1)) <= bound)
    assert np.all(abs(found["value_at_risk"] - worst[:, 50]) <= bound)


OTHER_TILE = """
import sys
import pmvar.types
pmvar.types.PATH_TILE = 1024
import numpy as np
import pmvar
book = pmvar.load_book(sys.argv[1])
drawn = pmvar.simulate(book.model, book.market, seed=5, n_scenarios=2 * 4096)
pnl = pmvar.reprice(book.portfolio, book.market, drawn)
margins = pmvar.margin_report(pnl, book.portfolio, book.rules, greeks=False)
np.savez(sys.argv[2], shock=drawn.shock, weight=drawn.weight, **margins.tables["margins"])
"""


@pytest.mark.slow
def test_another_tile(tmp_path: Path, user_env: dict[str, str]) -> None:
    """Draws and VaR keep their bits when the tile of paths is a quarter of what it is; sums, which are formed tile by
    tile, their value: the tile is a constant for that reason."""
    folder = small_book(tmp_path / "book")
    out = tmp_path / "other.npz"
    subprocess.run([sys.executable, "-c", OTHER_TILE, str(folder), str(out)], env=user_env, check=True)
    book = load_book(folder)
    drawn = pmvar.simulate(book.model, book.market, seed=5, n_scenarios=2 * PATH_TILE)
    pnl = pmvar.reprice(book.portfolio, book.market, drawn)
    own = pmvar.margin_report(pnl, book.portfolio, book.rules, greeks=False).tables["margins"]
    other = np.load(out, allow_pickle=True)
    np.testing.assert_array_equal(drawn.shock, other["shock"])
    np.testing.assert_array_equal(drawn.weight, other["weight"])
    np.testing.assert_array_equal(own["value_at_risk"], other["value_at_risk"])
    for name in ("expected_shortfall", "es_standard_error", "isolated_margin"):
        np.testing.assert_allclose(own[name], other[name], rtol=1e-12)


SPREAD = """
import atexit, sys
from pmvar.cli import main
from pmvar.valuation.store import TileStore
own, seen = TileStore.device, set()
def watched(store, index):
    tile = own(store, index)
    seen.update(tile.devices())
    return tile
TileStore.device = watched
atexit.register(lambda: print(len(seen), "devices", file=sys.stderr))
main()
"""


@pytest.mark.slow
def test_devices_and_repetition(tmp_path: Path, user_env: dict[str, str]) -> None:
    """Two processes, one of them with its tiles on two of four devices, write the same bytes of every table and of
    report.html."""
    book = small_book(tmp_path / "book")
    four = user_env | {"XLA_FLAGS": "--xla_force_host_platform_device_count=4"}
    for name, env, n_devices in (("one", user_env, 1), ("four", four, 2)):
        command = [sys.executable, "-c", SPREAD, "run", str(book), "--out", str(tmp_path / name), "--paths", "8192"]
        done = subprocess.run(command, env=env, check=True, capture_output=True, text=True)
        assert f"{n_devices} devices" in done.stderr
    files = sorted(read_run(tmp_path / "one").manifest["hashes"]["outputs"])
    assert files == sorted([*(f"{t}.parquet" for t in TABLES), "chain.parquet", "report.html"])
    for file in files:
        assert (tmp_path / "four" / file).read_bytes() == (tmp_path / "one" / file).read_bytes(), file
