"""Importing coin-settled chains: a small hand-made file with every oddity, and recorded months."""

import gzip

import numpy as np
import pytest

from pmvar.errors import InputError, SecurityError, UsageError
from pmvar.io import chain_file
from pmvar.io.book import load_book
from pmvar.io.demo_values import values
from pmvar.io.import_deribit import import_deribit
from pmvar.io.populate import populate

HEADER = (
    "timestamp,instrument_name,underlying,underlying_name,option_type,strike,expiry_datetime,bid_price,ask_price,"
    "mark_price,implied_volatility,currency,index_price"
)
FIRST, LAST = "2026-01-01T09:18:35.173006+00:00", "2026-01-02T09:18:09+00:00"
NEAR, FAR = "2026-01-09T08:00:00+00:00", "2026-03-27T08:00:00+00:00"


def row(name, underlying, quotes, vol, *, time=LAST, index=88_000.0, listed="BTC-27MAR26"):
    coin, label, strike, side = name.split("-")
    expiry = {"9JAN26": NEAR, "27MAR26": FAR, "2JAN26": "2026-01-02T08:00:00+00:00"}[label]
    kind = {"C": "call", "P": "put"}[side]
    return f"{time},{name},{underlying},{listed},{kind},{strike}.0,{expiry},{quotes},{vol},{coin},{index}"


ROWS = [
    row("BTC-27MAR26-90000-C", 89_000.0, "0.05,0.052,0.051", 0.45),
    row("BTC-27MAR26-90000-P", 89_002.0, "0.06,0.062,0.061", 0.4501, index=88_002.0),
    row("BTC-27MAR26-80000-P", 89_004.0, ",0.02,0.019", 0.50, index=88_004.0),
    row("BTC-27MAR26-80000-C", 89_002.0, "0.12,0.13,0.125", 0.48),
    row("BTC-9JAN26-70000-P", 88_100.0, ",0.0001,0.0", 0.70, listed="SYN.BTC-9JAN26"),
    row("BTC-9JAN26-88000-C", 88_100.0, "0.02,0.019,0.0195", 0.40, listed="SYN.BTC-9JAN26"),
    row("BTC-2JAN26-88000-C", 88_000.0, "0.001,0.002,0.001", 0.40, listed="BTC-2JAN26"),
    row("BTC-27MAR26-90000-C", 87_000.0, "0.05,0.052,0.051", 0.46, time=FIRST, index=86_000.0),
]


def write(path, rows, *, header=HEADER):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.fixture
def chain(tmp_path):
    return write(tmp_path / "chain.csv", ROWS)


def load(folder):
    populate(folder, n_accounts=4, seed=1)
    return load_book(folder)


def test_small_chain(chain, tmp_path):
    summary = import_deribit(chain, tmp_path / "book")
    book = load(tmp_path / "book")
    listed = {str(i) for i in book.portfolio.instruments.instrument_id}
    assert {"BTC-PERPETUAL", "BTC-27MAR26", "BTC-9JAN26-70000-P"} <= listed
    # Synthetic underlyings are no futures, and what had expired at 08:00 is gone.
    assert not listed & {"SYN.BTC-9JAN26", "BTC-9JAN26", "BTC-2JAN26", "BTC-2JAN26-88000-C"}
    assert summary.counts["instruments"] == 8
    assert any("1 options had expired" in note for note in summary.notes)
    market = book.market
    assert market.spot[market.column("BTC")] == 88_000.0  # median of five rows
    np.testing.assert_array_equal(market.forwards["BTC"].forward, [88_100.0, 89_002.0])
    perpetual = book.portfolio.instruments.take(book.portfolio.instruments.instrument_id == "BTC-PERPETUAL")
    assert (perpetual.settlement[0], perpetual.contract_size[0], perpetual.settlement_currency[0]) == (
        "inverse",
        10.0,
        "BTC",
    )


def test_each_strike_takes_its_out_of_the_money_side_and_its_flag(chain, tmp_path):
    import_deribit(chain, tmp_path / "book")
    lines = (tmp_path / "book" / "market" / "vols.csv").read_text().replace('"', "").splitlines()[1:]
    cells = map(_cells, lines)
    points = {(expiry[:10], float(k)): (float(vol), flag) for _, expiry, k, vol, _, _, flag in cells}
    assert points == {
        ("2026-03-27", 90_000.0): (0.45, ""),
        ("2026-03-27", 80_000.0): (0.50, "one-sided"),
        ("2026-01-09", 70_000.0): (0.70, "zero-mark"),
        ("2026-01-09", 88_000.0): (0.40, "crossed"),
    }


def _cells(line):
    return line.split(",")


@pytest.mark.parametrize(
    ("at", "spot"),
    [("2026-01-02T09:00:00Z", 86_000.0), (FIRST, 86_000.0), ("2026-01-02T09:18:09Z", 88_000.0)],
)
def test_at_takes_the_last_snapshot_not_later(chain, tmp_path, at, spot):
    import_deribit(chain, tmp_path / "book", at=at)
    assert load(tmp_path / "book").market.spot[0] == spot


@pytest.mark.parametrize("at", ["2026-01-01T09:18:35Z", "2026-01-03T09:18:10Z"])
def test_no_snapshot_in_reach_lists_the_times(chain, tmp_path, at):
    with pytest.raises(InputError, match="2026-01-01T09:18:35.173006Z, 2026-01-02T09:18:09Z") as caught:
        import_deribit(chain, tmp_path / "book", at=at)
    assert caught.value.exit_code == 3 and not (tmp_path / "book").exists()


def test_at_that_is_no_time(chain, tmp_path):
    with pytest.raises(UsageError, match="--at"):
        import_deribit(chain, tmp_path / "book", at="yesterday")


def test_bad_rows_are_all_named(tmp_path):
    rows = [
        ROWS[0].replace(",0.45,", ",0x1,"),
        ROWS[1].replace(",put,", ",straddle,"),
        ROWS[2].replace(",80000.0,", ",8e999,"),
    ]
    with pytest.raises(InputError) as caught:
        import_deribit(write(tmp_path / "bad.csv", rows), tmp_path / "book")
    assert {(p.row, p.column) for p in caught.value.problems} == {
        (2, "implied_volatility"),
        (3, "option_type"),
        (4, "strike"),
    }


def test_a_name_that_contradicts_its_columns(tmp_path):
    path = write(tmp_path / "bad.csv", [ROWS[0].replace("BTC-27MAR26-90000-C", "BTC-27MAR26-90000-P")])
    with pytest.raises(InputError, match="name must agree"):
        import_deribit(path, tmp_path / "book")


def test_vols_in_percent(tmp_path):
    path = write(tmp_path / "percent.csv", [row("BTC-27MAR26-90000-C", 89e3, "0.05,0.052,0.051", 45.0)])
    with pytest.raises(InputError, match="divide by 100"):
        import_deribit(path, tmp_path / "book")


def test_gzip(chain, tmp_path, monkeypatch):
    packed = tmp_path / "chain.csv.gz"
    packed.write_bytes(gzip.compress(chain.read_bytes()))
    assert import_deribit(packed, tmp_path / "a").counts == import_deribit(chain, tmp_path / "b").counts
    packed.write_bytes(packed.read_bytes()[:-9])
    with pytest.raises(InputError, match="gzip"):
        import_deribit(packed, tmp_path / "c")
    packed.write_bytes(gzip.compress(bytes(2**20)))
    monkeypatch.setattr(chain_file, "MAX_CHAIN", 2**19)
    with pytest.raises(SecurityError, match="cap"):
        import_deribit(packed, tmp_path / "d")


def test_another_layout_is_named(shared_data, tmp_path):
    with pytest.raises(InputError, match="columns are not those of a Deribit option chain"):
        import_deribit(shared_data / "deribit_btc_20200521" / "options_data.csv", tmp_path / "book")


@pytest.mark.parametrize(("month", "at"), [("202601", "2026-01-15T12:00:00Z"), ("202602", None), ("202603", None)])
def test_recorded_chains_reprice_their_marks(shared_data, tmp_path, month, at):
    import_deribit(shared_data / "deribit_chains" / f"deribit_daily_{month}.csv.gz", tmp_path / "book", at=at)
    book = load(tmp_path / "book")
    instruments = book.portfolio.instruments
    assert book.marks is not None
    mark = dict(zip(book.marks["instrument_id"].tolist(), book.marks["mark"].tolist(), strict=True))
    option = np.flatnonzero(instruments.kind == "option")
    price = values(instruments, book.market).now[option]
    coin = np.array([book.market.base_price(name) for name in instruments.underlying[option]])
    error = np.abs(price / coin - [mark[name] for name in instruments.instrument_id[option]])
    print(f"{month}: {len(option)} options, error in coin: median {np.median(error):.1e}, max {error.max():.1e}")
    assert len(option) > 1000
    assert np.median(error) <= 1e-4 and error.max() <= 2e-3
