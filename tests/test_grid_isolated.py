"""Isolated baselines and collateral factors against amounts worked out here."""

import numpy as np
import pytest
from scipy.stats import norm, t

from pmvar.errors import UsageError
from pmvar.methods.collateral import collateral_factors, collateral_margin
from pmvar.methods.grid import grid_margin
from pmvar.methods.grid_file import load_rules
from pmvar.methods.isolated import derive_standard_margin, gross_margin
from tests import engines
from tests.grids import black, book, margin, one_expiry
from tests.markets import AS_OF, DAY, YEAR, instrument, portfolio, snapshot, specification, table

SPOT, FORWARD, VOL, RATE, DAYS = 2_000.0, 2_010.0, 0.7, 0.04, 25
TIME = DAYS * DAY / YEAR
MARKET = one_expiry("ETH", spot=SPOT, forward=FORWARD, time=TIME, vol=VOL, rate=RATE)


def option(strike, put_call):
    return instrument(
        f"{put_call[0]}{strike:.0f}", "option", "ETH", expiry=AS_OF + DAYS * DAY, strike=strike, put_call=put_call
    )


def mark(strike, put_call):
    return black(FORWARD, strike, VOL, TIME, put_call=put_call, rate=RATE)


def standard(positions):
    strikes = {name: (float(name[1:]), "call" if name[0] == "c" else "put") for name in positions}
    return derive_standard_margin(book([option(*s) for s in strikes.values()], positions), MARKET)


@pytest.mark.parametrize(("strike", "rate"), [(1_900.0, 0.15), (2_020.0, 0.14), (2_600.0, 0.13)])
def test_a_short_call_alone(strike, rate):
    # Its mark is owed already: against equity it counts no second time.
    found = standard({f"c{strike:.0f}": -2.0})
    assert found.initial[0] == pytest.approx(2 * rate * SPOT, rel=1e-12)
    assert found.maintenance[0] == pytest.approx(2 * 0.09 * SPOT, rel=1e-12)


@pytest.mark.parametrize("strike", [1_000.0, 1_980.0, 2_500.0, 9_000.0])
def test_a_short_put_alone_or_its_largest_loss(strike):
    value = mark(strike, "put")
    maintenance = max(0.09 * SPOT, 0.09 * value) + value
    otm = max((SPOT - strike) / SPOT, 0.0)
    initial = max(max(0.15 - otm, 0.13) * SPOT + value, 1.05 * maintenance)
    found = standard({f"p{strike:.0f}": -1.0})
    assert found.initial[0] == pytest.approx(min(initial, strike) - value, rel=1e-9)
    assert found.maintenance[0] == pytest.approx(min(maintenance, strike) - value, rel=1e-9)


def test_a_spread_is_bound_by_its_largest_loss():
    found = standard({"c2100": -1.0, "c2150": 1.0})
    held = mark(2_150, "call") - mark(2_100, "call")
    assert found.initial[0] == pytest.approx(50.0 + held, rel=1e-9)
    assert found.initial[0] == pytest.approx(found.maintenance[0], rel=1e-12)
    assert found.steps[0].label == "25d largest loss"


def test_a_long_option_needs_its_value_and_an_unpaired_call_the_forward():
    assert standard({"c2100": 1.0}).initial[0] == pytest.approx(mark(2_100, "call"), rel=1e-12)
    # Two short calls against one long put: no bound, so that one by one is the smaller.
    found = standard({"c2100": -2.0, "p2100": 1.0})
    alone = 2 * (max(0.15 - 0.05, 0.13) * SPOT) + mark(2_100, "put")
    assert found.initial[0] == pytest.approx(alone, rel=1e-9)


def test_futures_need_a_rate_of_their_notional():
    market = snapshot({"BTC": (50_000.0, "USD"), "SOL": (100.0, "USD")})
    rows = [
        instrument("i", "perpetual", "BTC", settlement="inverse", size=10.0),
        instrument("l", "perpetual", "SOL"),
    ]
    found = derive_standard_margin(book(rows, {"i": -500.0, "l": 30.0}), market)
    assert found.initial[0] == pytest.approx(0.1 * 5_000 + 0.2 * 3_000)
    assert found.maintenance[0] == pytest.approx(0.065 * 5_000 + 0.1 * 3_000)


def test_gross_is_the_sum_of_positions_alone():
    rules = load_rules("derive")
    rows = [option(2_100.0, "call"), option(2_150.0, "call"), instrument("perp", "perpetual", "ETH")]
    positions = {"c2100": -1.0, "c2150": 1.0, "perp": 0.4}
    found = gross_margin(book(rows, positions), MARKET, rules)
    alone = [margin(book(rows, {name: q}), MARKET, rules) for name, q in positions.items()]
    assert found.initial[0] == pytest.approx(sum(m.initial[0] for m in alone), rel=1e-12)
    assert found.maintenance[0] == pytest.approx(sum(m.maintenance[0] for m in alone), rel=1e-12)
    assert [s.label for s in found.steps] == ["c2100", "c2150", "perp"]
    assert found.initial[0] > margin(book(rows, positions), MARKET, rules).initial[0]


def test_baselines_cover_a_mixed_book_and_what_it_does_not_know():
    held, owned = engines.random_rows(6, 1, seed=2)
    held.append(("small-0001", "no such thing", 3.0))
    whole, market = engines.hold(held, owned), engines.mixed_market()
    rules = load_rules("deribit")
    gross, single = gross_margin(whole, market, rules), derive_standard_margin(whole, market)
    net = grid_margin(whole, market, rules)
    for found in (gross, single):
        assert np.isfinite(found.initial).all() and (found.initial > 0).all()
        total = np.zeros(whole.n_accounts)
        for step in found.steps:
            total[step.account] += step.amount
        np.testing.assert_allclose(total, found.initial, rtol=1e-12)
    known = np.array([a != "small-0001" for a in whole.account_id])
    assert (gross.initial[known] >= net.initial[known] * (1 - 1e-12)).all()
    part = np.arange(3)
    np.testing.assert_array_equal(gross_margin(whole.accounts(part), market, rules).initial, gross.initial[part])
    np.testing.assert_array_equal(derive_standard_margin(whole.accounts(part), market).initial, single.initial[part])


def test_haircuts_are_quantiles_of_volatility():
    market = snapshot({"BTC": (50_000.0, "USD"), "EUR": (1.1, "USD"), "EQX": (10.0, "EUR"), "XXX": (1.0, "USD")})
    fat = specification({"BTC:spot": 0.03, "EUR:spot": 0.005, "EQX:spot": 0.01}, model="t", degrees_of_freedom=4.0)
    thin = specification({"BTC:spot": 0.03, "EUR:spot": 0.005, "EQX:spot": 0.01})
    z = t.ppf(0.99, 4) / np.sqrt(2)
    found = collateral_factors(fat, market, level=0.99, steps=2)
    assert found["BTC"].long == pytest.approx(1 - np.exp(-z * 0.03 * np.sqrt(2)), rel=1e-12)
    assert found["BTC"].short == pytest.approx(np.exp(z * 0.03 * np.sqrt(2)) - 1, rel=1e-12)
    assert found["EQX"].long == pytest.approx(1 - np.exp(-z * 0.015 * np.sqrt(2)), rel=1e-12)
    assert found["XXX"] == (1.0, 1.0)
    normal = collateral_factors(thin, market, level=0.99, steps=2)
    assert normal["BTC"].long == pytest.approx(1 - np.exp(-norm.ppf(0.99) * 0.03 * np.sqrt(2)), rel=1e-12)


def test_collateral_margin_nets_within_an_asset_alone():
    market = snapshot({"BTC": (50_000.0, "USD"), "ETH": (2_000.0, "USD")})
    rows = table([instrument("i", "perpetual", "BTC", settlement="inverse"), instrument("e", "perpetual", "ETH")])
    held = portfolio(rows, {"a": {"i": -25_000.0, "e": -3.0}}, {"a": {"BTC": 1.5, "USD": -10.0}})
    model = specification({"BTC:spot": 0.03, "ETH:spot": 0.04})
    first, second = (collateral_factors(model, market, level=level, steps=2) for level in (0.995, 0.99))
    found = collateral_margin(held, market, initial=first, maintenance=second)
    for factors, got in ((first, found.initial[0]), (second, found.maintenance[0])):
        # 1.5 coins less half a coin sold, and three ether sold.
        assert got == pytest.approx(50_000 * factors["BTC"].long + 6_000 * factors["ETH"].short, rel=1e-12)
    assert found.initial[0] > found.maintenance[0]


def test_collateral_margin_of_options_and_of_what_cannot_be_valued():
    rows = [option(2_100.0, "call"), option(1_500.0, "put")]
    held = portfolio(table(rows), {"a": {"c2100": 2.0, "p1500": -1.0}, "b": {"no such thing": 1.0, "c2100": 2.0}})
    factors = collateral_factors(specification({"ETH:spot": 0.04}), MARKET, level=0.99, steps=2)
    found = collateral_margin(held, MARKET, initial=factors, maintenance=factors)
    assert found.initial[0] == pytest.approx(2 * mark(2_100, "call") + 0.13 * SPOT, rel=1e-9)
    assert found.initial[1] >= 2_100.0 and "unknown instrument" in found.notes[0]


@pytest.mark.parametrize(("level", "steps"), [(0.5, 2), (1.0, 2), (0.99, 0), (float("nan"), 2)])
def test_no_such_tail(level, steps):
    with pytest.raises(UsageError, match="level"):
        collateral_factors(specification({"ETH:spot": 0.04}), MARKET, level=level, steps=steps)
