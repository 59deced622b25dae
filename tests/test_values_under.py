"""Values under given moves of spot, volatility and clock, against formulas written out here."""

import numpy as np
import pytest
from scipy.stats import norm

from pmvar.types import SECONDS_PER_YEAR
from pmvar.valuation.today import Moves, slopes_under, terms_today, values_and_greeks, values_under
from tests.engines import AS_OF, FAR, NEAR, mixed_instruments, mixed_market

INSTRUMENTS, MARKET = mixed_instruments(), mixed_market()
TERMS = terms_today(INSTRUMENTS, MARKET)
STILL = Moves(0.0, 0.0, 0.0, 0.0, 0.0)


def row(instrument_id: str) -> int:
    return list(INSTRUMENTS.instrument_id).index(instrument_id)


def test_without_moves_they_are_todays():
    value, _ = values_and_greeks(INSTRUMENTS, MARKET)
    np.testing.assert_array_equal(values_under(INSTRUMENTS, TERMS, STILL)[:, 0], value)


def test_one_row_of_moves_for_all_or_one_each():
    x = np.array([[-0.2, 0.0, 0.1]])
    each = np.broadcast_to(x, (len(INSTRUMENTS), 3))
    np.testing.assert_array_equal(
        values_under(INSTRUMENTS, TERMS, STILL._replace(log_spot=x)),
        values_under(INSTRUMENTS, TERMS, STILL._replace(log_spot=each)),
    )


@pytest.mark.parametrize("along", Moves._fields)
def test_slopes_where_the_clock_has_passed_every_expiry(along):
    """What is paid moves with the price and what it settles in, by no vol, rate or time; and nothing is NaN."""
    past = STILL._replace(clock=100.0, log_spot=0.1)
    slope = slopes_under(INSTRUMENTS, TERMS, past, along=STILL._replace(**{along: 1.0}))
    assert np.isfinite(slope).all()
    option = INSTRUMENTS.kind == "option"
    assert along in ("log_spot", "log_settlement") or not slope[option].any()


@pytest.mark.parametrize("put_call", ["call", "put"])
@pytest.mark.parametrize("move", [-0.3, 0.0, 0.4])
def test_an_inverse_option_keeps_the_coins_price(put_call, move):
    i = next(
        j for j in range(len(INSTRUMENTS))
        if INSTRUMENTS.underlying[j] == "BTC" and INSTRUMENTS.expiry[j] == FAR
        and INSTRUMENTS.put_call[j] == put_call and INSTRUMENTS.settlement[j] == "inverse"
    )  # fmt: skip
    forward = float(MARKET.forwards["BTC"].at(FAR)) * np.exp(move)
    strike, clock = INSTRUMENTS.strike[i], 0.02
    s = (float(TERMS.vol[i]) + 0.1) * np.sqrt((FAR - AS_OF) / SECONDS_PER_YEAR - clock)
    d1 = np.log(forward / strike) / s + s / 2
    sign = 1 if put_call == "call" else -1
    coins = sign * (norm.cdf(sign * d1) - strike / forward * norm.cdf(sign * (d1 - s)))
    found = values_under(INSTRUMENTS, TERMS, Moves(move, 0.0, 0.1, 0.0, clock))
    assert found[i, 0] == pytest.approx(coins * 100_000.0, rel=1e-12)


def test_futures_give_their_profit():
    found = values_under(INSTRUMENTS, TERMS, STILL._replace(log_spot=np.log(1.1)))
    # One dollar of an inverse future earns (1/F₀ − 1/F₁) coins, each at today's price; a linear one F₁ − F₀ euro.
    inverse = (1 - 1 / 1.1) / float(MARKET.forwards["BTC"].at(NEAR)) * 100_000.0
    linear = 0.1 * float(MARKET.forwards["EQX"].at(NEAR)) * 1.08
    assert found[row("BTC-NEAR"), 0] == pytest.approx(inverse, rel=1e-12)
    assert found[row("EQX-NEAR"), 0] == pytest.approx(linear, rel=1e-12)


def test_after_its_expiry_an_option_is_worth_what_it_pays():
    found = values_under(INSTRUMENTS, TERMS, STILL._replace(clock=1.0, log_spot=0.3))
    i = next(
        j for j in range(len(INSTRUMENTS))
        if INSTRUMENTS.instrument_id[j].startswith("SOL-NEAR") and INSTRUMENTS.put_call[j] == "call"
    )  # fmt: skip
    pays = float(MARKET.forwards["SOL"].at(NEAR)) * np.exp(0.3) - INSTRUMENTS.strike[i]
    assert found[i, 0] == pytest.approx(pays * 0.999, rel=1e-12)


def test_a_volatility_below_zero_is_zero():
    gone = STILL._replace(vol=-10.0)
    still = STILL._replace(vol=-np.asarray(TERMS.vol)[:, None])
    np.testing.assert_array_equal(values_under(INSTRUMENTS, TERMS, gone), values_under(INSTRUMENTS, TERMS, still))
