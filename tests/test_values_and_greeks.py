"""Values and Greeks today against QuantLib: engines on flat curves where their conventions agree, differences of its
Black formula where they do not."""

from typing import NamedTuple

import numpy as np
import pytest
import QuantLib as ql

from pmvar.market.surface import VolSlice, VolSurface
from pmvar.types import Greek
from pmvar.valuation.today import values_and_greeks
from tests.markets import AS_OF, DAY, YEAR, carry_curve, flat_rate, flat_vol, instrument, snapshot, table

RATE = {"USD": 0.04, "USDC": 0.07, "EUR": 0.025}
CARRY = {"BTC": 0.09, "DAX": -0.02}
VOL = {"BTC": 0.65, "DAX": 0.18}
SPOT = {"BTC": 60_000.0, "DAX": 5_000.0, "USDC": 0.999, "EUR": 1.08}
QUOTE = {"BTC": "USD", "DAX": "EUR", "USDC": "USD", "EUR": "USD"}
MARKET = snapshot(
    {name: (SPOT[name], QUOTE[name]) for name in SPOT},
    forwards={u: carry_curve(SPOT[u], CARRY[u]) for u in CARRY},
    discounts={c: flat_rate(r) for c, r in RATE.items()},
    vols={u: flat_vol(v) for u, v in VOL.items()},
)
KINDS = {"call": ql.Option.Call, "put": ql.Option.Put}


def evaluate(*rows: dict) -> tuple[float, dict[tuple[str, Greek], float]]:
    """Value and Greeks of the first of `rows`; the others share its arrays."""
    instruments = table(rows)
    value, sensitivities = values_and_greeks(instruments, MARKET)
    place = list(instruments.instrument_id).index(rows[0]["instrument_id"])
    return value[place], {(s.factor, s.greek): s.value[place] for s in sensitivities if s.value[place] != 0}


class Theirs(NamedTuple):
    """QuantLib's numbers, per unit of underlying, in quote currency."""

    value: float
    delta: float
    gamma: float
    vega: float


def quantlib(spot: float, strike: float, days: int, vol: float, rate: float, carry: float, right: str) -> Theirs:
    """AnalyticEuropeanEngine on flat act/365 curves whose forward is spot·e^{carry·T}: dividend yield rate − carry."""
    today, count = ql.Date(31, 1, 2025), ql.Actual365Fixed()
    ql.Settings.instance().evaluationDate = today
    process = ql.BlackScholesMertonProcess(
        ql.QuoteHandle(ql.SimpleQuote(spot)),
        ql.YieldTermStructureHandle(ql.FlatForward(today, rate - carry, count)),
        ql.YieldTermStructureHandle(ql.FlatForward(today, rate, count)),
        ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.NullCalendar(), vol, count)),
    )
    option = ql.VanillaOption(ql.PlainVanillaPayoff(KINDS[right], strike), ql.EuropeanExercise(today + days))
    option.setPricingEngine(ql.AnalyticEuropeanEngine(process))
    return Theirs(option.NPV(), option.delta(), option.gamma(), option.vega())


CASES = [
    (strike_over_spot, days, right)
    for strike_over_spot in (0.5, 0.9, 1.0, 1.1, 2.0)
    for days in (1, 30, 400)
    for right in ("call", "put")
]


@pytest.mark.parametrize(("moneyness", "days", "right"), CASES)
@pytest.mark.parametrize(("underlying", "currency"), [("BTC", "USD"), ("BTC", "USDC"), ("DAX", "EUR")])
def test_linear_options(underlying, currency, moneyness, days, right):
    """Settled in the base currency, in a stablecoin at .999 and in euro: value, delta, gamma and vega times X, the
    price of the settlement currency; delta by that currency is the value in it."""
    size, x, spot = 0.1, SPOT.get(currency, 1.0), SPOT[underlying]
    strike, rate, carry, vol = moneyness * spot, RATE[currency], CARRY[underlying], VOL[underlying]
    expiry = AS_OF + days * DAY
    row = instrument("O", "option", underlying, quote=currency, size=size, expiry=expiry, strike=strike, put_call=right)
    value, greeks = evaluate(row)
    q = quantlib(spot, strike, days, vol, rate, carry, right)
    scale = size * x
    assert value == pytest.approx(scale * q.value, rel=1e-10, abs=1e-13 * scale * spot)
    expected = {
        (f"{underlying}:spot", Greek.DELTA): scale * q.delta,
        (f"{underlying}:spot", Greek.GAMMA): scale * q.gamma,
        (f"{underlying}:vol", Greek.VEGA): scale * q.vega,
    }

    # Theta and rho with the forward held (Black 1976): central differences of QuantLib's Black formula.
    t, forward = days / 365, spot * np.exp(carry * days / 365)

    def black(r: float, time: float) -> float:
        return ql.blackFormula(KINDS[right], strike, forward, vol * np.sqrt(time), np.exp(-r * time))

    h = 1e-4 * t
    expected["time", Greek.THETA] = scale * (black(rate, t - h) - black(rate, t + h)) / (2 * h) / 365
    expected[f"{currency}:rate", Greek.RHO] = -scale * t * black(rate, t)
    if currency != "USD":
        expected[f"{currency}:spot", Greek.DELTA] = size * q.value
    units = {Greek.DELTA: 1e-13, Greek.GAMMA: 1e-12 / spot, Greek.VEGA: 1e-13 * spot, Greek.RHO: 1e-13 * spot}
    for key, exact in expected.items():
        if key[1] is Greek.THETA:
            # A central difference is off by h²/6 of the third derivative: relative 1e-8 times powers of d.
            assert greeks.get(key, 0.0) == pytest.approx(exact, rel=1e-4, abs=1e-12 * scale * spot / h / 365)
        else:
            slack = units[key[1]] * scale * (spot if key[0].startswith(("EUR", "USDC")) else 1.0)
            assert greeks.get(key, 0.0) == pytest.approx(exact, rel=1e-10, abs=slack), key
    # Nothing else: a gamma by the settlement currency is zero, not left out by mistake.
    assert not {k for k, v in greeks.items() if abs(v) > 1e-18 * spot} - set(expected)


@pytest.mark.parametrize(("moneyness", "days", "right"), CASES)
def test_inverse_options(moneyness, days, right):
    """Worth b(ln K/F, σ√T) coins, so S/F·Black(F, K) dollars: QuantLib's option at the rate that is the carry. Delta
    and gamma are those of the dollar value; no rate enters."""
    size, spot, carry, vol = 2.0, SPOT["BTC"], CARRY["BTC"], VOL["BTC"]
    strike, expiry = moneyness * spot, AS_OF + days * DAY
    row = instrument(
        "O", "option", "BTC", settlement="inverse", size=size, expiry=expiry, strike=strike, put_call=right
    )  # fmt: skip
    value, greeks = evaluate(row)
    q = quantlib(spot, strike, days, vol, carry, carry, right)
    assert value == pytest.approx(size * q.value, rel=1e-10, abs=1e-13 * size * spot)
    assert greeks.get(("BTC:spot", Greek.DELTA), 0) == pytest.approx(size * q.delta, rel=1e-10, abs=2e-13 * size)
    assert greeks.get(("BTC:spot", Greek.GAMMA), 0) == pytest.approx(size * q.gamma, rel=1e-9, abs=1e-12 * size / spot)
    assert greeks.get(("BTC:vol", Greek.VEGA), 0) == pytest.approx(size * q.vega, rel=1e-10, abs=1e-13 * size * spot)
    t, forward = days / 365, spot * np.exp(carry * days / 365)
    d1 = np.log(forward / strike) / (vol * np.sqrt(t)) + vol * np.sqrt(t) / 2
    # Forward and spot held, the only decay is that of the deviation: −S φ(d₁) σ/(2√T).
    theta = -size * spot * np.exp(-d1 * d1 / 2) / np.sqrt(2 * np.pi) * vol / (2 * np.sqrt(t)) / 365
    assert greeks.get(("time", Greek.THETA), 0) == pytest.approx(theta, rel=1e-10, abs=1e-13 * size * spot)
    assert {f for f, _ in greeks} <= {"BTC:spot", "BTC:vol", "time"}


def test_theta_is_quantlibs_where_the_forward_is_the_spot():
    """With r = q both hold the forward while time passes."""
    market = snapshot(
        {"BTC": (100.0, "USD")}, forwards={"BTC": carry_curve(100.0, 0.0)},
        discounts={"USD": flat_rate(0.05)}, vols={"BTC": flat_vol(0.3)},
    )  # fmt: skip
    row = instrument("O", "option", "BTC", expiry=AS_OF + YEAR, strike=95.0, put_call="put")
    _, sensitivities = values_and_greeks(table([row]), market)
    (theta,) = [s.value[0] for s in sensitivities if s.greek is Greek.THETA]
    today = ql.Date(31, 1, 2025)
    ql.Settings.instance().evaluationDate = today
    curve = ql.YieldTermStructureHandle(ql.FlatForward(today, 0.05, ql.Actual365Fixed()))
    vol = ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.NullCalendar(), 0.3, ql.Actual365Fixed()))
    process = ql.BlackScholesMertonProcess(ql.QuoteHandle(ql.SimpleQuote(100.0)), curve, curve, vol)
    option = ql.VanillaOption(ql.PlainVanillaPayoff(ql.Option.Put, 95.0), ql.EuropeanExercise(today + 365))
    option.setPricingEngine(ql.AnalyticEuropeanEngine(process))
    assert theta == pytest.approx(option.thetaPerDay(), rel=1e-12)


def test_an_inverse_option_on_a_coin_quoted_in_something_else():
    """A coin quoted in USDC, settled in itself: its base price is S·USDC, and so is everything."""
    market = snapshot(
        {"SOL": (150.0, "USDC"), "USDC": (0.999, "USD")},
        forwards={"SOL": carry_curve(150.0, 0.05)}, vols={"SOL": flat_vol(0.9)},
    )  # fmt: skip
    row = instrument(
        "O", "option", "SOL", settlement="inverse", quote="USDC", expiry=AS_OF + 60 * DAY, strike=160.0, put_call="call"
    )
    value, sensitivities = values_and_greeks(table([row]), market)
    greeks = {(s.factor, s.greek): s.value[0] for s in sensitivities}
    q = quantlib(150.0, 160.0, 60, 0.9, 0.05, 0.05, "call")
    assert value[0] == pytest.approx(0.999 * q.value, rel=1e-12)
    assert greeks["SOL:spot", Greek.DELTA] == pytest.approx(0.999 * q.delta, rel=1e-12)
    assert greeks["SOL:spot", Greek.GAMMA] == pytest.approx(0.999 * q.gamma, rel=1e-10)
    assert greeks["USDC:spot", Greek.DELTA] == pytest.approx(q.value, rel=1e-12)
    assert greeks["USDC:spot", Greek.GAMMA] == pytest.approx(0.0, abs=1e-10)


# ---- futures, perpetuals, spot, cash ---------------------------------------------------------------------------------

YEARLY = AS_OF + YEAR
F_BTC = SPOT["BTC"] * np.exp(0.09)


@pytest.mark.parametrize(
    ("row", "value", "greeks"),
    [
        # Linear: n units of the underlying, ∂(n·F·X)/∂S = n·F/S·X.
        (instrument("I", "future", "BTC", size=0.5, expiry=YEARLY), 0.0, {"BTC:spot": 0.5 * np.exp(0.09)}),
        (
            instrument("I", "future", "DAX", quote="EUR", size=25.0, expiry=YEARLY),
            0.0,
            {"DAX:spot": 25 * np.exp(-0.02) * 1.08},
        ),
        (instrument("I", "perpetual", "BTC", quote="USDC", size=3.0), 0.0, {"BTC:spot": 3 * 0.999}),
        # Inverse: n dollars, worth n/F coins: ∂(n(1/F₀ − 1/F₁)·S₁)/∂S = n/F.
        (
            instrument("I", "future", "BTC", settlement="inverse", size=10.0, expiry=YEARLY),
            0.0,
            {"BTC:spot": 10 / F_BTC},
        ),
        (instrument("I", "perpetual", "BTC", settlement="inverse", size=10.0), 0.0, {"BTC:spot": 10 / SPOT["BTC"]}),
        (instrument("I", "spot", "BTC", size=2.0), 120_000.0, {"BTC:spot": 2.0}),
        (
            instrument("I", "spot", "DAX", quote="EUR"),
            5_000 * 1.08,
            {"DAX:spot": 1.08, "EUR:spot": 5_000.0},
        ),
        (
            instrument("I", "spot", "BTC", quote="USDC"),
            60_000 * 0.999,
            {"BTC:spot": 0.999, "USDC:spot": 60_000.0},
        ),
        (instrument("CASH:EUR", "cash", "EUR", quote="EUR"), 1.08, {"EUR:spot": 1.0}),
        (instrument("CASH:DAX", "cash", "DAX", quote="DAX"), 5_400.0, {"DAX:spot": 1.08, "EUR:spot": 5_000.0}),
        (instrument("CASH:USD", "cash", "USD"), 1.0, {}),
    ],
)
def test_delta_one(row, value, greeks):
    """Futures and perpetuals are worth nothing today; deltas in closed form; nothing has a gamma or a vega."""
    got, sensitivities = evaluate(row)
    assert got == pytest.approx(value, rel=1e-14, abs=1e-15)
    assert {key[1] for key in sensitivities} <= {Greek.DELTA}
    assert {key[0]: v for key, v in sensitivities.items()} == pytest.approx(greeks, rel=1e-13)


def test_a_mixed_table_gives_each_instrument_its_own_numbers():
    """Grouping by product, and arrays shared within it, leak nothing from one row to another."""
    rows = [
        instrument("A", "option", "BTC", settlement="inverse", expiry=AS_OF + 9 * DAY, strike=55e3, put_call="put"),
        instrument("B", "option", "DAX", quote="EUR", size=5.0, expiry=AS_OF + 90 * DAY, strike=5e3, put_call="call"),
        instrument("C", "option", "BTC", quote="USDC", expiry=AS_OF + 90 * DAY, strike=7e4, put_call="call"),
        instrument("D", "future", "DAX", quote="EUR", expiry=YEARLY),
        instrument("E", "spot", "BTC"),
        instrument("F", "perpetual", "BTC", settlement="inverse", size=10.0),
        instrument("G", "cash", "EUR", quote="EUR"),
        instrument("H", "cash", "USD"),
    ]
    for i in range(len(rows)):
        alone = evaluate(rows[i])
        together = evaluate(rows[i], *rows[:i], *rows[i + 1 :])
        assert together[0] == pytest.approx(alone[0], rel=1e-14)
        assert together[1] == pytest.approx(alone[1], rel=1e-14)


def test_delta_holds_the_vol_of_the_strike():
    """On a smile the reported delta is Black's at the strike's own vol; moneyness-sticky moves belong to scenarios."""
    expiry = AS_OF + 90 * DAY
    surface = VolSurface(AS_OF, (VolSlice(expiry, np.array([-0.5, 0.0, 0.5]), np.array([0.9, 0.6, 0.7])),))
    market = snapshot(
        {"BTC": (100.0, "USD")}, forwards={"BTC": carry_curve(100.0, 0.0)}, discounts={"USD": flat_rate(0.0)},
        vols={"BTC": surface},
    )  # fmt: skip
    row = instrument("O", "option", "BTC", expiry=expiry, strike=80.0, put_call="call")
    value, sensitivities = values_and_greeks(table([row]), market)
    share = (np.log(0.8) + 0.5) / 0.5
    vol = np.sqrt((1 - share) * 0.9**2 + share * 0.6**2)
    q = quantlib(100.0, 80.0, 90, vol, 0.0, 0.0, "call")
    greeks = {(s.factor, s.greek): s.value[0] for s in sensitivities}
    assert value[0] == pytest.approx(q.value, rel=1e-12)
    assert greeks["BTC:spot", Greek.DELTA] == pytest.approx(q.delta, rel=1e-12)
    assert greeks["BTC:spot", Greek.GAMMA] == pytest.approx(q.gamma, rel=1e-11)
