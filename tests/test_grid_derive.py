"""Derive's PMRM 2: two cases of the public contract to all digits, and its charges by formulas written out here."""

import numpy as np
import pytest

from pmvar.methods.grid_values import VenueState
from tests.grids import black, book, margin, one_expiry, steps
from tests.markets import AS_OF, YEAR, instrument, portfolio, snapshot, table

SPOT, FORWARD, SIGMA, RATE = 95_663.50604855, 95_776.67392708939, 0.453803924321583, 0.15000000000000002
SECONDS = 794_852
TIME = SECONDS / YEAR
MARKET = one_expiry("BTC", spot=SPOT, forward=FORWARD, time=TIME, vol=SIGMA, rate=RATE)
STATE = VenueState(confidence={"BTC": 0.95}, stable=1.00019088635)


def option(put_call="call", strike=100_000.0):
    return instrument(
        f"{put_call[0]}{strike:.0f}", "option", "BTC", expiry=AS_OF + SECONDS, strike=strike, put_call=put_call
    )


def value(x=0.0, sigma=SIGMA, strike=100_000.0, put_call="call"):
    return black(FORWARD * (1 + x), strike, sigma, TIME, put_call=put_call, rate=RATE)


def test_contract_case_29_a_perpetual_whose_mark_is_above_the_spot():
    market = snapshot({"ETH": (3_000.0, "USD")})
    held = book([instrument("perpetual", "perpetual", "ETH")], {"perpetual": 1.0})
    found = margin(held, market, "derive", VenueState(mark={"perpetual": 3_100.0}))
    equity = 10.0  # funding not yet paid
    assert equity - found.initial[0] == pytest.approx(-608.0, rel=1e-12)
    assert equity - found.maintenance[0] == pytest.approx(-481.4, rel=1e-12)
    assert steps(found)["scan"] == ("-0.18 vol up", pytest.approx(558.0, rel=1e-12))


def test_contract_case_12_a_short_call():
    found = margin(book([option()], {"c100000": -1.0}), MARKET, "derive", STATE)
    equity = -value()
    assert equity == pytest.approx(-1186.4185694587657, rel=1e-10)
    assert equity - found.initial[0] == pytest.approx(-14604.048120144837, rel=1e-11)
    assert equity - found.maintenance[0] == pytest.approx(-11824.858703959073, rel=1e-11)
    assert steps(found)["scan"] == ("+0.18 vol up", pytest.approx(12939.312020443322, rel=1e-11))


def test_contract_case_12_every_scenario():
    # Losses that the case records, in the order of the venue file; then the basis charge.
    from pmvar.methods.grid_accounts import underlying_risk
    from pmvar.methods.grid_file import load_rules
    from pmvar.methods.grid_values import grid_values

    rules = load_rules("derive")
    held = book([option()], {"c100000": -1.0})
    values = grid_values(held.instruments, MARKET, rules, STATE)
    risk = underlying_risk(held.quantity, values, rules.class_of("BTC"), confidence=0.95)
    expected = [
        -9430.612502045187, -7978.264376240463, -7569.803983748366, -6342.011084605444, -4456.996722229,
        -3595.672339957848, -3778.999279198985, -1731.931878096358, -605.237460255091, -1808.933552745496,
        -4.493969118840596, 819.139480536784, -433.880970935762, 829.214342707598, 1154.179248187170,
        418.408722488072, 1113.630541633333, 1185.468292469457, 875.932366665500, 1177.181792410209,
        1186.411211258294, -12939.312020443322, 1082.697694190963, 64.713740152296, 129.384515024796,
        -3058.966961715574, -3253.209461815327, -3350.584857812570, -3383.043325666785, -43.433952595030,
        -43.433952595030,
    ]  # fmt: skip
    np.testing.assert_allclose(risk.pnl[0], expected, rtol=2e-10)
    assert risk.basis[0] == pytest.approx(947.2098049301085, rel=1e-10)


def test_oracle_confidence_and_depeg_raise_initial_margin_alone():
    sure, doubtful = (
        margin(book([option()], {"c100000": -1.0}), MARKET, "derive", VenueState(confidence={"BTC": c}))
        for c in (0.55, 0.5)
    )
    assert doubtful.initial[0] - sure.initial[0] == pytest.approx(0.5 * SPOT, rel=1e-12)
    depegged = margin(book([option()], {"c100000": -1.0}), MARKET, "derive", VenueState(stable=0.93))
    assert depegged.initial[0] - sure.initial[0] == pytest.approx(2 * 0.05 * steps(sure)["scan"][1], rel=1e-12)
    assert doubtful.maintenance[0] == sure.maintenance[0] == depegged.maintenance[0]


@pytest.mark.parametrize(("call", "put", "naked"), [(-3, 0, 3), (-3, 2, 1), (-3, 5, 0), (-3, -2, 5), (2, 4, 0)])
def test_a_long_option_offsets_a_short_one_of_its_strike(call, put, naked):
    found = margin(book([option(), option("put")], {"c100000": call, "p100000": put}), MARKET, "derive", STATE)
    assert steps(found).get("contingency", ("", 0.0))[1] == pytest.approx(0.005 * naked * SPOT, rel=1e-12)


def test_a_long_box_is_charged_for_its_discounting():
    # Without risk of price or volatility, what is left is the multiplier of a positive value, above the basis charge.
    width = 20_000.0
    rows = [option("call", 90_000.0), option("put", 90_000.0), option("call", 110_000.0), option("put", 110_000.0)]
    found = margin(book(rows, {"c90000": 1, "p90000": -1, "c110000": -1, "p110000": 1}), MARKET, "derive", STATE)
    today = width * np.exp(-RATE * TIME)
    loss = today * (1 - 0.95 * np.exp(-TIME * (RATE + 0.08)))
    assert steps(found)["scan"][1] == pytest.approx(loss, rel=1e-9)


def test_the_skew_turns_against_every_expiry():
    # Long far calls, short far puts, both a part of one expiry: the tilt moves them by ±, the charge is −|P&L|.
    rows = [option("call", 130_000.0), option("put", 70_000.0)]
    root = np.sqrt(TIME)
    cap, width = 0.15 - 0.05 * root, root * 4 * (0.6 - 0.1 * root)

    def skewed(strike):
        k = np.log(strike / FORWARD)
        return SIGMA * (1 + np.clip(k * cap / width, -cap, cap))

    from pmvar.methods.grid_accounts import underlying_risk
    from pmvar.methods.grid_file import load_rules
    from pmvar.methods.grid_values import grid_values

    rules = load_rules("derive")
    held = portfolio(table(rows), {"a": {"c130000": 1.0, "p70000": -1.0}, "b": {"c130000": -1.0, "p70000": 1.0}})
    values = grid_values(held.instruments, MARKET, rules, STATE)
    risk = underlying_risk(held.quantity, values, rules.class_of("BTC"), confidence=1.0)
    tilted = value(sigma=skewed(130_000.0), strike=130_000.0) - value(
        sigma=skewed(70_000.0), strike=70_000.0, put_call="put"
    )
    today = value(strike=130_000.0) - value(strike=70_000.0, put_call="put")
    for account, sign in ((0, 1.0), (1, -1.0)):
        shocked = sign * tilted
        multiplier = (
            0.95 * np.exp(-TIME * (RATE + 0.08))
            if shocked >= 0
            else min(np.exp(RATE * TIME), 1.04 * np.exp(TIME * (0.5 * RATE + 0.08)))
        )
        assert risk.pnl[account, -2] == pytest.approx(-abs(shocked * multiplier - sign * today), rel=1e-9)
