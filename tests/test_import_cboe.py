"""Importing S&P 500 chains: a hand-made Black chain whose curves are known, and two recorded closes."""

from datetime import UTC, datetime

import jax.numpy as jnp
import numpy as np
import pytest

from pmvar.errors import InputError
from pmvar.io.book import load_book
from pmvar.io.demo_values import values
from pmvar.io.import_cboe import import_cboe
from pmvar.io.populate import populate
from pmvar.kernels.black import black
from pmvar.market.fit import two_sided

HEADER = "quote_date,spot_last,expiry,cp,strike,symbol,bid,ask,last,volume,iv,delta,gamma,open_interest"
SPOT, RATE, CARRY, VOL = 4700.0, 0.05, 0.035, 0.15
AS_OF = datetime(2024, 3, 8, 21, 0, tzinfo=UTC)  # 16:00 New York, two days before summer time
EXPIRIES = {
    ("SPXW", "2024-03-08"): datetime(2024, 3, 8, 21, 0, tzinfo=UTC),
    ("SPX", "2024-06-21"): datetime(2024, 6, 21, 13, 30, tzinfo=UTC),
    ("SPXW", "2024-06-21"): datetime(2024, 6, 21, 20, 0, tzinfo=UTC),
    ("SPX", "2024-12-20"): datetime(2024, 12, 20, 14, 30, tzinfo=UTC),
}


def chain_rows(*, spread=0.4):
    """Quotes around Black prices at a flat vol, rate and carry; the far wing has no bid."""
    rows = []
    strike = np.arange(3000.0, 6001.0, 50.0)
    for (root, day), expiry in EXPIRIES.items():
        year = max((expiry - AS_OF).total_seconds(), 60.0) / 31_536_000
        forward = SPOT * np.exp(CARRY * year)
        for cp, sign in (("C", 1.0), ("P", -1.0)):
            price = black(
                jnp.full(len(strike), forward),
                jnp.asarray(strike),
                jnp.full(len(strike), VOL * np.sqrt(year)),
                jnp.full(len(strike), sign),
            )
            for k, p in zip(strike, np.exp(-RATE * year) * np.asarray(price), strict=True):
                symbol = f"{root}{day[2:].replace('-', '')}{cp}{round(k * 1000):08d}"
                bid = p - spread / 2 if p > spread else 0.0
                rows.append(f"2024-03-08,{SPOT},{day},{cp},{k},{symbol},{bid!r},{p + spread / 2!r},0,0,0,0,0,0")
    return [row.replace("np.float64(", "").replace(")", "") for row in rows]


def write(path, rows, *, header=HEADER):
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


@pytest.fixture(scope="module")
def imported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cboe")
    summary = import_cboe(write(folder / "chain.csv", chain_rows()), folder / "book")
    populate(folder / "book", n_accounts=3, seed=1)
    return summary, load_book(folder / "book")


def test_morning_and_afternoon_are_two_expiries_in_new_york_time(imported):
    _, book = imported
    assert book.market.as_of == AS_OF.timestamp()
    live = [t.timestamp() for t in EXPIRIES.values() if t > AS_OF]
    np.testing.assert_array_equal(book.market.forwards["SPX"].expiry, live)
    option = book.portfolio.instruments.take(book.portfolio.instruments.kind == "option")
    assert set(option.expiry.tolist()) == set(live)
    assert set(option.contract_size.tolist()) == {100.0} and set(option.settlement.tolist()) == {"linear"}
    assert book.model.steps_per_year == 252


def test_curves_and_vols_come_back(imported):
    _, book = imported
    curve = book.market.forwards["SPX"]
    year = (curve.expiry - book.market.as_of) / 31_536_000
    np.testing.assert_allclose(curve.forward, SPOT * np.exp(CARRY * year), rtol=1e-9)
    discount = book.market.discounts["USD"].discount_factor(curve.expiry)
    np.testing.assert_allclose(discount, np.exp(-RATE * year), rtol=1e-9)
    for piece in book.market.vols["SPX"].slices:
        np.testing.assert_allclose(piece.implied_vol, VOL, rtol=1e-9)
    assert book.model.factors[0].volatility * np.sqrt(252) == pytest.approx(VOL, rel=1e-9)


def test_what_is_left_out_is_counted(imported):
    summary, book = imported
    n = len(chain_rows())
    assert any(note.startswith(f"{n // 4} options had expired") for note in summary.notes)
    quoted = len(book.marks["mark"])
    assert any(note.startswith(f"{n * 3 // 4 - quoted} quotes are one-sided") for note in summary.notes)
    assert quoted < n * 3 // 4 == summary.counts["instruments"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (("SPXW240621C", "VIXW240621C"), "symbol is SPX or SPXW"),
        (("C05000000", "C05012500"), "agrees with its row"),
        ((",2024-06-21,C,", ",21.06.2024,C,"), "date as in"),
        (("2024-03-08,4700", "2024-03-07,4700"), "one quote date"),
        ((",5000.0,", ',"5,000.0",'), "plain decimal"),
        ((",C,", ",X,"), "one of C, P"),
    ],
)
def test_bad_rows_are_refused(tmp_path, change, match):
    rows = chain_rows()
    i = next(i for i, row in enumerate(rows) if "SPXW240621C05000000" in row)
    rows[i] = rows[i].replace(*change)
    with pytest.raises(InputError, match=match) as caught:
        import_cboe(write(tmp_path / "bad.csv", rows), tmp_path / "book")
    assert i + 2 in {p.row for p in caught.value.problems}


def test_another_layout_and_a_dead_chain(tmp_path):
    with pytest.raises(InputError, match="columns are not those of a CBOE"):
        import_cboe(write(tmp_path / "a.csv", ["1,2"], header="a,b"), tmp_path / "book")
    dead = [row for row in chain_rows() if "SPXW240308" in row]
    with pytest.raises(InputError, match="every option has expired"):
        import_cboe(write(tmp_path / "b.csv", dead), tmp_path / "book")


@pytest.mark.parametrize("day", ["2023-12-08", "2024-01-05"])
def test_recorded_closes_price_within_bid_and_ask(shared_data, tmp_path, day):
    import_cboe(shared_data / "spx_chains" / f"spx_{day}.csv.gz", tmp_path / "book")
    populate(tmp_path / "book", n_accounts=3, seed=1)
    book = load_book(tmp_path / "book")
    instruments = book.portfolio.instruments.take(book.portfolio.instruments.kind == "option")
    value = values(instruments, book.market)
    assert book.marks is not None
    at = {name: i for i, name in enumerate(book.marks["instrument_id"].tolist())}
    row = np.array([at.get(name, -1) for name in instruments.instrument_id.tolist()])
    bid, ask = (np.where(row >= 0, book.marks[side][row], np.nan) for side in ("bid", "ask"))
    judged = two_sided(bid, ask) & (value.year * 365 > 2)
    price = value.now / instruments.contract_size
    inside = (price >= bid - 1e-9) & (price <= ask + 1e-9)
    in_the_money = judged & (np.where(instruments.put_call == "call", 1, -1) * value.log_moneyness < 0)
    share, deep = inside[judged].mean(), inside[in_the_money].mean()
    print(f"{day}: {judged.sum()} quotes, {share:.4%} within bid and ask; {deep:.4%} of those in the money")
    assert judged.sum() > 4000 and share >= 0.99 and deep >= 0.99
    rate = book.market.discounts["USD"].zero_rate
    assert np.all((rate > 0.03) & (rate < 0.07))
