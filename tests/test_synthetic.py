"""The demonstration book: readable, deterministic, arbitrage-free, with accounts of each class as
described."""

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmvar.errors import UsageError
from pmvar.io.accounts import SHARES
from pmvar.io.book import load_book
from pmvar.io.demo_values import values
from pmvar.io.populate import populate
from pmvar.io.synthetic import LISTINGS, ssvi_vol, synthetic_book


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("demo") / "book"
    synthetic_book(path, n_accounts=200)
    return path


@pytest.fixture(scope="module")
def book(folder):
    return load_book(folder)


def digest(folder):
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.rglob("*.*")}


def test_loads_with_no_flag_but_what_it_is(book):
    synthetic, generated = book.flags
    assert synthetic.startswith("A synthetic book") and "generated with seed 7" in generated
    assert dict(book.portfolio.withheld) == {}
    assert book.portfolio.n_accounts == 200
    assert 200 < len(book.portfolio.instruments) < 600
    assert len(book.stress) == 9
    assert {f.source for f in book.model.factors} == {"assumed"}


def test_same_seed_same_bytes(folder, tmp_path):
    synthetic_book(tmp_path / "again", n_accounts=200)
    assert digest(tmp_path / "again") == digest(folder)


def test_more_accounts_leave_the_first_as_they_were(folder, tmp_path):
    synthetic_book(tmp_path / "more", n_accounts=400)
    rows = {
        p: {line for line in (p / "positions.csv").read_text().splitlines() if line.startswith('"DIR-0001"')}
        for p in (folder, tmp_path / "more")
    }
    assert rows[folder] == rows[tmp_path / "more"] != set()


def test_classes_are_what_they_are_called(book):
    portfolio = book.portfolio
    value = values(portfolio.instruments, book.market)
    held = portfolio.quantity.toarray() * value.alive
    label = np.array([name.partition("-")[0] for name in portfolio.account_id])
    assert {c: int((label == c).sum()) for c in SHARES} == {"MM": 8, "HEDGE": 42, "DIR": 90, "SHORTVOL": 60}
    gross = np.abs(held) @ value.notional
    makers = label == "MM"
    assert np.median((held != 0).sum(axis=1)[makers]) > 150
    assert np.all(np.abs(held @ value.delta)[makers] < 0.03 * gross[makers])
    option = np.isin(portfolio.instruments.kind, ["option"])
    assert np.all(held[label == "SHORTVOL"][:, option] <= 0)
    assert np.all(held[label == "DIR"][:, option] >= 0)


def test_marks_are_the_prices_of_the_vols(book):
    # Per contract, the value of an option is its mark times its size times the price of its settlement
    # currency.
    instruments = book.portfolio.instruments
    value = values(instruments, book.market)
    mark = dict(zip(book.marks["instrument_id"].tolist(), book.marks["mark"].tolist(), strict=True))
    option = instruments.kind == "option"
    for i in np.flatnonzero(option):
        unit = instruments.contract_size[i] * book.market.base_price(instruments.settlement_currency[i])
        assert value.now[i] / unit == pytest.approx(mark[instruments.instrument_id[i]], abs=1e-8, rel=1e-8)


@given(st.sampled_from(LISTINGS), st.floats(0.01, 1.0))
def test_surface_is_free_of_arbitrage(listing, year):
    # Gatheral and Jacquier (2014): η(1 + |ρ|) ≤ 2, and total variance that increases with time at each k.
    assert listing.eta * (1 + abs(listing.rho)) <= 2
    k = np.linspace(-1, 1, 41)
    later = ssvi_vol(k, year=year * 1.05, listing=listing) ** 2 * year * 1.05
    assert np.all(later > ssvi_vol(k, year=year, listing=listing) ** 2 * year)


def test_a_book_with_positions_is_left_alone(folder):
    with pytest.raises(UsageError, match="already has"):
        populate(folder, n_accounts=5, seed=1)
    with pytest.raises(UsageError, match="at least 1"):
        populate(folder, n_accounts=0, seed=1)
    with pytest.raises(UsageError, match="seed at least 0"):
        populate(folder, n_accounts=1, seed=-1)
