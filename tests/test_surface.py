"""The raw surface and its fit: interpolation in closed form, flags, and parity on chains whose curves are
known."""

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmvar.errors import InputError
from pmvar.kernels.black import black
from pmvar.market.curves import DiscountCurve, ForwardCurve
from pmvar.market.fit import FEWEST_PAIRS, ExpiryQuotes, fit_chain, two_sided
from pmvar.market.surface import Quoted, VolSlice, VolSurface

AS_OF = 1_700_000_000.0
YEAR = 31_536_000.0
NEAR, FAR = AS_OF + 0.1 * YEAR, AS_OF + 0.5 * YEAR


def surface(near=(0.5, 0.4, 0.45), far=(0.48, 0.44, 0.46)):
    k = np.array([-0.3, 0.0, 0.2])
    return VolSurface(AS_OF, (VolSlice(NEAR, k, np.array(near)), VolSlice(FAR, k, np.array(far))))


def test_quoted_points_come_back_exactly():
    s = surface()
    for piece in s.slices:
        np.testing.assert_allclose(s.vol(piece.log_moneyness, piece.expiry), piece.implied_vol, rtol=1e-15)


def test_variance_is_linear_between_strikes_and_flat_beyond():
    s = surface()
    assert s.vol(np.array([-0.15]), NEAR)[0] == pytest.approx(np.sqrt((0.5**2 + 0.4**2) / 2), rel=1e-14)
    np.testing.assert_array_equal(s.vol(np.array([-5.0, 5.0]), NEAR), [0.5, 0.45])


def test_total_variance_is_linear_between_expiries_and_vol_flat_beyond():
    s, k = surface(), np.zeros(1)
    w0, w1 = 0.4**2 * 0.1, 0.44**2 * 0.5
    between = AS_OF + 0.3 * YEAR
    assert s.vol(k, between)[0] == pytest.approx(np.sqrt((w0 + w1) / 2 / 0.3), rel=1e-12)
    assert s.vol(k, AS_OF + 0.01 * YEAR)[0] == pytest.approx(0.4)
    assert s.vol(k, AS_OF + 3 * YEAR)[0] == pytest.approx(0.44)


@given(st.floats(-1, 1), st.floats(0.02, 0.8))
def test_vol_stays_within_the_quotes_when_total_variance_increases(k, year):
    vol = surface().vol(np.array([k]), AS_OF + year * YEAR)[0]
    assert 0.4 - 1e-12 <= vol <= 0.5 + 1e-12


def test_what_is_quoted_is_told_from_what_is_not():
    s = surface()
    points = [0.0, 0.1, 0.21, -0.31]
    beyond = Quoted.EXTRAPOLATED
    assert s.quoted(points, NEAR) == [Quoted.QUOTED, Quoted.INTERPOLATED, beyond, beyond]
    assert s.quoted([0.0, 0.5], (NEAR + FAR) / 2) == [Quoted.INTERPOLATED, beyond]
    assert s.quoted([0.0], FAR + YEAR) == [beyond] == s.quoted([0.0], AS_OF + 60)


@pytest.mark.parametrize("vol", [0.0, -0.1, np.nan, np.inf])
def test_a_slice_refuses_what_is_no_vol(vol):
    with pytest.raises(InputError, match="positive, finite"):
        VolSlice(NEAR, np.zeros(1), np.array([vol]))


def test_duplicate_strikes_and_expiries_are_refused():
    with pytest.raises(InputError, match="strictly increasing"):
        VolSlice(NEAR, np.zeros(2), np.full(2, 0.4))
    piece = VolSlice(NEAR, np.zeros(1), np.full(1, 0.4))
    for slices in ((), (piece, piece), (VolSlice(AS_OF, np.zeros(1), np.ones(1)),)):
        with pytest.raises(InputError, match="expiries after as_of"):
            VolSurface(AS_OF, slices)


def test_curves_in_closed_form():
    f = ForwardCurve(AS_OF, 100.0, np.array([NEAR, FAR]), 100 * np.exp([0.01, 0.02]))
    # ln(F/S) is linear in time from 0, and its rate stays beyond the last pillar.
    time = AS_OF + np.array([-1.0, 0.05, 0.3, 1.0]) * YEAR
    np.testing.assert_allclose(f.at(time), 100 * np.exp([0, 0.005, 0.015, 0.04]))
    d = DiscountCurve(AS_OF, np.array([NEAR, FAR]), np.array([0.02, 0.04]))
    np.testing.assert_allclose(d.discount_factor(time), np.exp([0, -0.001, -0.009, -0.04]))


# ---- the fit
# ----------------------------------------------------------------------------------------------------


def quotes(*, forward, discount, expiry=FAR, n=41, half_spread=0.1, noise=None, vol=0.2):
    """Quotes around Black prices at a flat vol."""
    strike = np.linspace(0.6 * forward, 1.4 * forward, n)
    deviation = np.full(n, vol * np.sqrt((expiry - AS_OF) / YEAR))
    sides = {}
    for right, sign in (("call", 1.0), ("put", -1.0)):
        price = black(jnp.full(n, forward), jnp.asarray(strike), jnp.asarray(deviation), jnp.full(n, sign))
        mid = discount * np.asarray(price) + (0.0 if noise is None else noise)
        sides |= {f"{right}_bid": mid - half_spread, f"{right}_ask": mid + half_spread}
    return ExpiryQuotes(expiry, strike, **sides)


@given(st.floats(80, 5_000), st.floats(-0.01, 0.12), st.floats(0.1, 0.6))
def test_parity_gives_back_forward_rate_and_vol(forward, rate, vol):
    chain = [quotes(forward=forward, discount=np.exp(-rate * 0.5), vol=vol, half_spread=1e-3)]
    fitted = fit_chain(chain, spot=forward * 0.99, as_of=AS_OF)
    assert fitted.forwards.forward[0] == pytest.approx(forward, rel=1e-9)
    assert fitted.discounts.zero_rate[0] == pytest.approx(rate, abs=1e-8)
    np.testing.assert_allclose(fitted.smiles[0].implied_vol, vol, rtol=1e-6)


def test_a_few_wild_quotes_do_not_move_the_curves():
    noise = np.zeros(41)
    noise[[3, 20, 37]] = [30.0, -25.0, 40.0]
    chain = quotes(forward=1000.0, discount=0.975)
    wild = ExpiryQuotes(FAR, chain.strike, chain.call_bid + noise, chain.call_ask + noise, chain.put_bid, chain.put_ask)
    fitted = fit_chain([wild], spot=990.0, as_of=AS_OF)
    assert fitted.forwards.forward[0] == pytest.approx(1000.0, abs=0.05)
    assert fitted.discounts.discount_factor(FAR) == pytest.approx(0.975, abs=2e-4)


def test_discount_factors_never_rise():
    # The later expiry implies more than the earlier one: both are pooled.
    chain = [
        quotes(forward=1000.0, discount=0.985, expiry=NEAR, half_spread=0.01),
        quotes(forward=1010.0, discount=0.990, half_spread=0.01),
    ]
    fitted = fit_chain(chain, spot=990.0, as_of=AS_OF)
    factors = fitted.discounts.discount_factor(np.array([NEAR, FAR]))
    assert 0.985 <= factors[1] <= factors[0] + 1e-15 <= 0.990


def test_one_sided_and_crossed_quotes_are_dropped():
    q = quotes(forward=1000.0, discount=1.0)
    bid, ask = q.put_bid.copy(), q.put_ask.copy()
    bid[5], bid[6], ask[7], bid[8] = 0.0, np.nan, np.nan, ask[8] + 1
    fitted = fit_chain([ExpiryQuotes(FAR, q.strike, q.call_bid, q.call_ask, bid, ask)], spot=1000.0, as_of=AS_OF)
    live = np.where(q.strike < 1000, two_sided(bid, ask), two_sided(q.call_bid, q.call_ask))
    unusable = int((~live).sum())
    (smile,) = fitted.smiles
    assert not set(q.strike[5:9]) & set(smile.strike)
    assert smile.dropped == unusable == len(q.strike) - len(smile.strike)
    assert np.all(smile.bid_vol < smile.implied_vol) and np.all(smile.implied_vol < smile.ask_vol)


def test_a_quote_beyond_its_bounds_is_left_out_by_name():
    """A put for more than its strike, quoted on both sides: no volatility has that price."""
    q = quotes(forward=1000.0, discount=1.0)
    bid, ask = q.put_bid.copy(), q.put_ask.copy()
    bid[3], ask[3] = q.strike[3] + 1, q.strike[3] + 2
    fitted = fit_chain([ExpiryQuotes(FAR, q.strike, q.call_bid, q.call_ask, bid, ask)], spot=1000.0, as_of=AS_OF)
    (smile,) = fitted.smiles
    assert smile.impossible.tolist() == [q.strike[3]]
    assert q.strike[3] not in smile.strike and np.isfinite(smile.implied_vol).all()


def test_too_few_pairs_interpolate_the_carry():
    whole = quotes(forward=1020.0, discount=0.98)
    few = quotes(forward=1.0, discount=1.0, expiry=NEAR, n=FEWEST_PAIRS - 1)
    thin = ExpiryQuotes(NEAR, few.strike * 1000, few.call_bid * 0, few.call_ask, few.put_bid * 0, few.put_ask)
    fitted = fit_chain([thin, whole], spot=1000.0, as_of=AS_OF)
    assert fitted.interpolated_forward == (NEAR,)
    assert np.log(fitted.forwards.at(NEAR) / 1000) == pytest.approx(np.log(1.02) * 0.2, rel=1e-6)
    assert [s.expiry for s in fitted.smiles] == [FAR]
    with pytest.raises(InputError, match="two-sided call and put"):
        fit_chain([thin], spot=1000.0, as_of=AS_OF)
