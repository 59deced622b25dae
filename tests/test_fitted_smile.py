"""Fitted smiles under scenarios: against Black's formula at parameters shocked by hand, free of arbitrage after any
shock, and differentiated as they are valued."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ndtr

from pmvar.errors import InputError
from pmvar.instruments import Instruments
from pmvar.kernels.svi import Svi, from_ssvi, one_svi, power_law
from pmvar.market.curves import DiscountCurve, ForwardCurve
from pmvar.market.snapshot import MarketSnapshot
from pmvar.market.surface import SviSlice, VolSlice, VolSurface
from pmvar.portfolio import build_portfolio
from pmvar.scenarios.stress import instantaneous
from pmvar.types import DAY, SECONDS_PER_YEAR, Precision, Stickiness
from pmvar.valuation.exposure import block_exposure
from pmvar.valuation.fitted_smile import check_scenarios, leans, projection_notes
from pmvar.valuation.reprice import reprice
from pmvar.valuation.world import Slice

SPOT, YEAR = 100.0, SECONDS_PER_YEAR
TIMES = np.array([0.05, 0.2, 0.7])
THETA, RHO, ETA, GAMMA = np.array([0.004, 0.015, 0.05]), -0.5, 0.9, 0.4
FACTORS = ("X:spot", "X:vol", "X:skew", "X:curvature")
STRIKES = SPOT * np.exp(np.linspace(-0.8, 0.8, 33))


def phi(theta):
    return np.asarray(power_law(jnp.asarray(theta), jnp.float64(ETA), jnp.float64(GAMMA)))


def ssvi(k, theta, rho, width):
    return theta / 2 * (1 + rho * width * k + np.sqrt((width * k + rho) ** 2 + 1 - rho**2))


def surface():
    slices = []
    for time, theta in zip(TIMES.tolist(), THETA.tolist(), strict=True):
        svi = one_svi(from_ssvi(*map(jnp.float64, (theta, RHO, phi(theta)))))
        slices.append(SviSlice(time * YEAR, svi, time, np.linspace(-0.5, 0.5, 5)))
    return VolSurface(0.0, tuple(slices))


def market(vols):
    expiry = TIMES * YEAR
    return MarketSnapshot(
        0.0, "USD", ("X",), np.array([SPOT]), ("USD",), np.zeros(1),
        {"X": ForwardCurve(0.0, SPOT, expiry, np.full(3, SPOT))},
        {"USD": DiscountCurve(0.0, expiry, np.zeros(3))},
        {"X": vols},
    )  # fmt: skip


def holdings(times, strikes=STRIKES):
    """A call on each strike for each time."""
    strike, time = (v.ravel() for v in np.meshgrid(strikes, times))
    n = len(strike)
    text = {"kind": "option", "underlying": "X", "settlement": "linear", "quote_currency": "USD",
            "settlement_currency": "USD", "put_call": "call", "exercise": "european", "deliverable": ""}  # fmt: skip
    names = np.array([f"C{i:05d}" for i in range(n)], object)
    columns = {key: np.full(n, value, object) for key, value in text.items()}
    table = Instruments(instrument_id=names, contract_size=np.ones(n), expiry=time * YEAR, strike=strike, **columns)
    return build_portfolio(
        table, position_account=np.full(n, "A", object), position_instrument=names, position_quantity=np.ones(n)
    )


def call(strike, forward, variance):
    deviation = np.sqrt(variance)
    d = np.log(forward / strike) / deviation + deviation / 2
    return forward * ndtr(d) - strike * ndtr(d - deviation)


def pnl(portfolio, shock, *, vols=None, precision=Precision.FLOAT64):
    scenarios = instantaneous(FACTORS, 0.0, np.atleast_2d(shock), ())
    found = reprice(portfolio, market(vols or surface()), scenarios, precision=precision)
    return np.asarray(found.tile(0))[found.row][:, : len(np.atleast_2d(shock))], found


SMALL = np.array([[0.1, 0.2, 0.1, -0.15], [-0.2, -0.3, -0.2, 0.1], [0.0, 0.1, 0.0, 0.0], [0.0] * 4])


def test_shocks_within_bounds_are_those_of_the_parameters():
    found, _ = pnl(holdings(TIMES), SMALL)
    for row, (spot, vol, skew, curvature) in enumerate(SMALL):
        forward, rho = SPOT * np.exp(spot), np.tanh(np.arctanh(RHO) + skew)
        for e, theta in enumerate(THETA):
            then = np.exp(2 * vol) * ssvi(np.log(STRIKES / forward), theta, rho, phi(theta) * np.exp(curvature))
            now = ssvi(np.log(STRIKES / SPOT), theta, RHO, phi(theta))
            expected = call(STRIKES, forward, then) - call(STRIKES, SPOT, now)
            np.testing.assert_allclose(found[e * 33 : (e + 1) * 33, row], expected, atol=1e-11)


@pytest.mark.parametrize("fitted", [True, False])
def test_a_term_structure_turns_around_its_tenor(fitted):
    """ln σ moves by x·ln(τ/tenor), on raw surfaces too; what is shorter than a day, like a day."""
    where = surface()
    if not fitted:
        k = np.linspace(-2, 2, 4001)
        where = VolSurface(0.0, tuple(VolSlice(s.expiry, k, where.vol(k, s.expiry)) for s in where.slices))
    factors, tenor, moves = (*FACTORS[:2], "X:term"), 50.0, np.array([[0.0, 0.1, 0.2], [0.0, 0.0, -0.1]])
    scenarios = replace(instantaneous(factors, 0.0, moves, ()), tenor=np.array([30.0, 30.0, tenor]))
    found = reprice(holdings(TIMES), market(where), scenarios, precision=Precision.FLOAT64)
    profit = np.asarray(found.tile(0))[found.row]
    for e, theta in enumerate(THETA):
        now = ssvi(np.log(STRIKES / SPOT), theta, RHO, phi(theta))
        for row, (_, level, slope) in enumerate(moves):
            up = level + slope * np.log(TIMES[e] * 365 / tenor)
            expected = call(STRIKES, SPOT, now * np.exp(2 * up)) - call(STRIKES, SPOT, now)
            np.testing.assert_allclose(profit[e * 33 : (e + 1) * 33, row], expected, atol=1e-11 if fitted else 1e-6)
    short = Slice("X", DAY / 2)
    assert replace(found.plan.layout, slices=(short,)).log_tenor(short) == pytest.approx(-np.log(tenor))
    assert any("the shape of vol surfaces" in note for note in projection_notes(found.plan.layout))


def test_expiries_between_and_beyond_are_those_of_the_surface():
    times = np.array([0.02, 0.1, 0.5, 0.69])
    found, source = pnl(holdings(times), np.array([[0.1, 0.0, 0.0, 0.0]]))
    forward = SPOT * np.exp(0.1)
    for e, time in enumerate(times):
        vols = [surface().vol(np.log(STRIKES / f), time * YEAR) for f in (forward, SPOT)]
        expected = call(STRIKES, forward, vols[0] ** 2 * time) - call(STRIKES, SPOT, vols[1] ** 2 * time)
        np.testing.assert_allclose(found[e * 33 : (e + 1) * 33, 0], expected, atol=1e-11)
    assert not source.plan.unpriced


def test_time_passes_with_the_vol_of_each_moneyness():
    scenarios = instantaneous(FACTORS, 0.0, np.zeros((1, 4)), ())
    later = replace(scenarios, horizon_end=10 * DAY)
    found = reprice(holdings(TIMES[1:]), market(surface()), later, precision=Precision.FLOAT64)
    tile = np.asarray(found.tile(0))[found.row][:, 0]
    for e, (time, theta) in enumerate(zip(TIMES[1:], THETA[1:], strict=True)):
        now = ssvi(np.log(STRIKES / SPOT), theta, RHO, phi(theta))
        then = now * (1 - 10 / 365 / time)
        np.testing.assert_allclose(
            tile[e * 33 : (e + 1) * 33], call(STRIKES, SPOT, then) - call(STRIKES, SPOT, now), atol=1e-11
        )


@pytest.fixture(scope="module")
def wild():
    """Shocks far beyond any model's, and calls on a fine grid of strikes."""
    rng = np.random.default_rng(1)
    shock = rng.standard_t(3, (400, 5)) * np.array([0.1, 0.6, 0.5, 0.6, 0.1])
    strikes = np.linspace(20.0, 400.0, 500)
    # Shocks of vol are larger for short expiries, so that these rise above long ones.
    scenarios = instantaneous((*FACTORS, "X:term"), 0.0, shock, ())
    scenarios = replace(scenarios, term_exponent=np.array([0.0, 0.4, 0.0, 0.0, 0.0]))
    found = reprice(holdings(TIMES, strikes), market(surface()), scenarios, precision=Precision.FLOAT64)
    return np.asarray(found.tile(0))[found.row][:, : len(shock)], found, strikes


def test_prices_after_any_shock_are_free_of_arbitrage(wild):
    profit, source, strikes = wild
    now = [call(strikes, SPOT, ssvi(np.log(strikes / SPOT), t, RHO, phi(t))) for t in THETA]
    price = profit.reshape(3, 500, 400) + np.stack(now)[:, :, None]
    assert np.diff(price, n=2, axis=1).min() > -1e-10  # butterfly
    slope = np.diff(price, axis=1) / np.diff(strikes)[:, None]
    assert slope.max() < 1e-10 and slope.min() > -1 - 1e-10
    assert np.diff(price, axis=0).min() > -1e-10  # calendar: forwards are equal
    check = check_scenarios(source.plan.layout, 0)
    assert check.butterfly[0] > 30 and check.butterfly[1] == 0
    assert check.calendar > 0
    assert 0 < check.least_width < 0.5 and check.most_lean > 0


def test_the_money_keeps_its_shock_whatever_the_projection():
    shock = np.array([[0.0, 1.4, 0.8, 0.9]])
    found, source = pnl(holdings(TIMES, np.array([SPOT])), shock)
    assert check_scenarios(source.plan.layout, 0).least_width < 1
    expected = call(SPOT, SPOT, THETA * np.exp(2.8)) - call(SPOT, SPOT, THETA)
    np.testing.assert_allclose(found[:, 0], expected, atol=1e-11)


def test_no_shock_projects_nothing():
    found, source = pnl(holdings(TIMES), np.zeros((1, 4)))
    assert np.abs(found).max() < 1e-12
    check = check_scenarios(source.plan.layout, 0)
    assert check == ((0, 0), 0, 1.0, 0.0)


def test_float32_follows_float64():
    wide, _ = pnl(holdings(TIMES), SMALL)
    narrow, _ = pnl(holdings(TIMES), SMALL, precision=Precision.FLOAT32)
    assert np.abs(narrow - wide).max() < 3e-7 * SPOT


def test_exposures_are_slopes_of_the_pnl():
    portfolio, h = holdings(TIMES[:2]), 1e-5
    shock = np.array([0.05, 0.1, 0.05, -0.05])
    moved = np.stack([shock, *(shock + s * h * np.eye(4)[i] for i in (0, 1) for s in (1, -1))])
    found, source = pnl(portfolio, moved)
    layout = source.plan.layout
    exposed = [block_exposure(b, layout.world(0), np.inf) for _, b in source.plan.blocks]
    for name, column in (("log_forward", 1), ("log_vol", 3)):
        along = np.asarray(source.stacked([getattr(e, name) for e in exposed]))[source.row][:, 0]
        np.testing.assert_allclose(along, (found[:, column] - found[:, column + 1]) / (2 * h), atol=1e-6)


def test_a_shape_does_not_move_a_raw_surface_in_silence():
    raw = VolSurface(0.0, tuple(VolSlice(t * YEAR, np.array([-0.1, 0.1]), np.array([0.3, 0.25])) for t in TIMES))
    _, source = pnl(holdings(TIMES), SMALL, vols=raw)
    assert set(source.plan.unpriced.values()) == {"X:skew moves a fitted smile, and the surface of X is raw"}


def test_the_range_of_leanings_is_where_variance_stays_positive():
    svi = Svi(*(jnp.array([x]) for x in (-0.01, 0.2, -0.3, 0.05, 0.2)))
    low, high = leans(svi)
    assert -2 <= low[0] < 0 < high[0] < 2


def test_strikes_keep_their_vols_where_the_surface_says_so():
    slices = tuple(VolSlice(t * YEAR, np.array([-0.5, 0.5]), np.array([0.6, 0.3])) for t in TIMES)
    sticky = VolSurface(0.0, slices, Stickiness.STRIKE)
    scenarios = instantaneous(FACTORS[:2], 0.0, np.array([[0.1, 0.2]]), ())
    found = reprice(holdings(TIMES[:1]), market(sticky), scenarios, precision=Precision.FLOAT64)
    vol = sticky.vol(np.log(STRIKES / SPOT), TIMES[0] * YEAR)
    then = call(STRIKES, SPOT * np.exp(0.1), (np.exp(0.2) * vol) ** 2 * TIMES[0])
    expected = then - call(STRIKES, SPOT, vol**2 * TIMES[0])
    np.testing.assert_allclose(np.asarray(found.tile(0))[found.row][:, 0], expected, atol=1e-11)
    with pytest.raises(InputError, match="would not stay free of arbitrage"):
        replace(surface(), stickiness=Stickiness.STRIKE)
