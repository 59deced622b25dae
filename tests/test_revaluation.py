"""P&L of every product against a revaluation in plain NumPy and SciPy, written here from the definitions.

An instrument carried at value: V₁X₁ − V₀X₀; a margined one: Π·X₁; X the base price of the settlement currency at the
horizon. Forwards are martingales, F₁(T) = S₁·F₀(T)/F₀(h); the smile is sticky in ln(K/F); D₁ = D₀(T)/D₀(h).
"""

from dataclasses import replace
from functools import cache

import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from pmvar.errors import NumericsError
from pmvar.instruments import Instruments
from pmvar.kernels.smile import NODES
from pmvar.market.curves import DiscountCurve, ForwardCurve
from pmvar.market.snapshot import MarketSnapshot
from pmvar.market.surface import VolSlice, VolSurface
from pmvar.scenarios import ScenarioSet, simulate, stress_scenarios
from pmvar.types import PATH_TILE, Precision, Sampling
from pmvar.valuation import reprice
from pmvar.valuation.today import values_and_greeks
from tests.markets import AS_OF, DAY, YEAR, flat_rate, flat_vol, instrument, portfolio, snapshot, specification, table

SPOT = {"BTC": 60_000.0, "SOL": 150.0, "USDC": 0.999, "DAX": 5_000.0, "EUR": 1.08}
QUOTE = {"BTC": "USD", "SOL": "USDC", "USDC": "USD", "DAX": "EUR", "EUR": "USD"}
SOON, NEAR, FAR = AS_OF + 1.3 * DAY, AS_OF + 20 * DAY, AS_OF + 300 * DAY
"""Expiries: the first lies inside the horizon of two days."""


def curved(spot: float, near: float, far: float) -> ForwardCurve:
    """A forward curve of changing slope."""
    return ForwardCurve(AS_OF, spot, np.array([NEAR, FAR]), spot * np.exp([near, far]))


def smile(level: float) -> VolSurface:
    """Two slices with a skew and curvature, a strike every 5%, the later one flatter."""
    k = np.linspace(-1.0, 1.0, 41)
    near, far = (
        level * np.sqrt((0.85 + 0.1 * a) + 0.15 * a * (np.exp(-2 * k) - 1) * 0.5 + a * k**2) for a in (1.0, 0.4)
    )
    return VolSurface(AS_OF, (VolSlice(NEAR, k, near), VolSlice(FAR, k, far)))


def market(*, flat: bool) -> MarketSnapshot:
    return snapshot(
        {a: (SPOT[a], QUOTE[a]) for a in SPOT},
        forwards={
            "BTC": curved(60_000.0, 0.008, 0.05), "SOL": curved(150.0, -0.002, 0.09), "DAX": curved(5e3, 0.0, -0.02),
        },
        discounts={
            "USD": DiscountCurve(AS_OF, np.array([AS_OF + DAY, FAR]), np.array([0.06, 0.03])),
            "USDC": flat_rate(0.08),
            "EUR": DiscountCurve(AS_OF, np.array([NEAR, FAR]), np.array([-0.01, 0.02])),
        },
        vols={u: flat_vol(v) if flat else smile(v) for u, v in {"BTC": 0.65, "SOL": 0.95, "DAX": 0.18}.items()},
    )  # fmt: skip


def products() -> Instruments:
    """Every product in every settlement, before, at and after the horizon."""
    rows = []
    for expiry, label in (
        (SOON, "SOON"),
        (AS_OF + 2 * DAY, "END"),
        (NEAR, "NEAR"),
        (AS_OF + 100 * DAY, "MID"),
        (FAR, "FAR"),
    ):
        for ratio in (0.3, 0.8, 1.0, 1.1, 3.0):
            for right in ("call", "put"):
                for underlying, kind, quote in (
                    ("BTC", "inverse", "USD"), ("BTC", "linear", "USD"), ("BTC", "linear", "USDC"),
                    ("SOL", "inverse", "USDC"), ("SOL", "linear", "USDC"), ("DAX", "linear", "EUR"),
                ):  # fmt: skip
                    name = f"{underlying}-{kind}-{quote}-{label}-{ratio}-{right}"
                    rows.append(
                        instrument(name, "option", underlying, settlement=kind, quote=quote, size=0.5, expiry=expiry,
                                   strike=ratio * SPOT[underlying], put_call=right)
                    )  # fmt: skip
        for underlying, kind, quote in (("BTC", "inverse", "USD"), ("SOL", "linear", "USDC"), ("DAX", "linear", "EUR")):
            rows.append(
                instrument(f"{underlying}-future-{label}", "future", underlying, settlement=kind, quote=quote, size=7.0,
                           expiry=expiry)
            )  # fmt: skip
    rows += [
        instrument("BTC-perpetual", "perpetual", "BTC", settlement="inverse", size=10.0),
        instrument("SOL-perpetual", "perpetual", "SOL", quote="USDC"),
        instrument("BTC-spot", "spot", "BTC", size=2.0),
        instrument("BTC-spot-USDC", "spot", "BTC", quote="USDC"),
        instrument("DAX-spot", "spot", "DAX", quote="EUR"),
    ]
    return table(rows)


PRODUCTS = products()
MODEL = specification(
    {"BTC:spot": 0.035, "BTC:vol": 0.07, "SOL:spot": 0.06, "SOL:vol": 0.06, "DAX:spot": 0.012, "DAX:vol": 0.05,
     "EUR:spot": 0.005, "USDC:spot": 0.002},
    model="t", degrees_of_freedom=4.0, correlation=0.5 * np.eye(8) + 0.5, term_exponent=0.4,
)  # fmt: skip


@cache
def simulated(flat: bool) -> ScenarioSet:
    return simulate(MODEL, market(flat=flat), seed=2, n_scenarios=PATH_TILE, horizon="2d", sampling=Sampling.MC)


# ---- the plain twin ------------------------------------------------------------------------------------------------


def base_log_price(name: str, where: MarketSnapshot, shock: np.ndarray, factors: tuple[str, ...]) -> np.ndarray:
    """ln X₁/X₀, down the chain of quote currencies."""
    out = np.zeros(len(shock))
    while name != where.base_currency:
        out = out + shock[:, factors.index(f"{name}:spot")]
        name = where.quote_currency[where.asset.index(name)]
    return out


def black(k: np.ndarray, s: np.ndarray, right: str) -> np.ndarray:
    """Undiscounted price over forward, intrinsic where there is no deviation."""
    sign = 1.0 if right == "call" else -1.0
    with np.errstate(divide="ignore", invalid="ignore"):
        d1 = -k / s + s / 2
        live = sign * (stats.norm.cdf(sign * d1) - np.exp(k) * stats.norm.cdf(sign * (d1 - s)))
    return np.where(s > 0, live, np.maximum(sign * (1 - np.exp(k)), 0.0))


def plain_vol(surface: VolSurface, k: np.ndarray, expiry: float) -> np.ndarray:
    """Total variance linear in time between slices, variance linear in k, vol flat outside."""
    slices, times = surface.slices, np.array([s.expiry - AS_OF for s in surface.slices])
    variance = [np.interp(k, s.log_moneyness, s.implied_vol**2) for s in slices]
    t = expiry - AS_OF
    if t <= times[0] or len(slices) == 1:
        return np.sqrt(variance[0])
    if t >= times[-1]:
        return np.sqrt(variance[-1])
    w = (times[1] - t) / (times[1] - times[0])
    return np.sqrt((w * variance[0] * times[0] + (1 - w) * variance[1] * times[1]) / t)


def plain_pnl(
    row: Instruments, where: MarketSnapshot, scenarios: ScenarioSet, *, tabulated: bool
) -> tuple[np.ndarray, float, np.ndarray]:
    """P&L per contract of a table of one, the scale that rounding is measured by, and the largest vol used.

    `tabulated` interpolates the volatility linearly in the move between `NODES`, as the engine documents it does.
    """
    kind, underlying = row.kind[0], row.underlying[0]
    linear, size, expiry = row.settlement[0] == "linear", row.contract_size[0], float(row.expiry[0])
    n, end = scenarios.n_scenarios, scenarios.horizon_end
    at_end = np.asarray(scenarios.tile(0).shock)[:n]
    spot = where.spot[where.asset.index(underlying)]
    x0 = where.base_price(row.settlement_currency[0])
    x1 = x0 * np.exp(base_log_price(row.settlement_currency[0], where, at_end, scenarios.factors))
    spot_column = scenarios.factors.index(f"{underlying}:spot")
    s1 = spot * np.exp(at_end[:, spot_column])
    none = np.zeros(n)
    if kind == "spot":
        return size * (s1 * x1 - spot * x0), size * spot * x0, none
    if kind == "perpetual":
        profit = s1 - spot if linear else 1 / spot - 1 / s1
        return size * profit * x1, size * x0 * (spot if linear else 1 / spot), none

    curve = where.forwards[underlying]
    f0 = float(curve.at(expiry))
    if expiry <= end:
        f1 = spot * np.exp(np.asarray(scenarios.at(0, expiry))[:n, spot_column])
    else:
        f1 = s1 * f0 / float(curve.at(end))
    if kind == "future":
        profit = f1 - f0 if linear else 1 / f0 - 1 / f1
        return size * profit * x1, size * x0 * (f0 if linear else 1 / f0), none

    strike, right, surface = float(row.strike[0]), row.put_call[0], where.vols[underlying]
    k0, k1 = np.log(strike / f0), np.log(strike / f1)
    tau0, tau1 = (expiry - AS_OF) / YEAR, max(expiry - end, 0.0) / YEAR
    vol1 = plain_vol(surface, k1, expiry)
    if tabulated and expiry > end:
        carry = float(np.log(curve.at(end) / spot))
        vol1 = np.interp(at_end[:, spot_column], NODES, plain_vol(surface, k0 - (NODES - carry), expiry))
    f = scenarios.factors.index(f"{underlying}:vol")
    x = at_end[:, f] * (scenarios.tenor[f] / max(tau1 * 365, 1.0)) ** scenarios.term_exponent[f]
    cap = scenarios.vol_cap
    vol1 = vol1 * np.exp(cap * np.tanh(x / cap) if np.isfinite(cap) else x)
    vol0 = plain_vol(surface, np.array([k0]), expiry)
    v0 = black(np.array([k0]), vol0 * np.sqrt(tau0), right)
    v1 = black(k1, vol1 * np.sqrt(tau1), right)
    if not linear:
        return size * (v1 * x1 - v0 * x0), size * x0 * max(1.0, strike / f0), vol1
    discount = where.discounts[row.quote_currency[0]]
    d0 = float(discount.discount_factor(expiry))
    d1 = d0 / float(discount.discount_factor(end)) if expiry > end else 1.0
    return size * (d1 * f1 * v1 * x1 - d0 * f0 * v0 * x0), size * max(f0, strike) * x0, vol1


def engine_pnl(
    instruments: Instruments, where: MarketSnapshot, scenarios: ScenarioSet, precision: Precision = Precision.FLOAT64
) -> np.ndarray:
    """The first tile, by instrument, padding cut."""
    held = portfolio(instruments, {"A": dict.fromkeys(instruments.instrument_id.tolist(), 1.0)})
    np.testing.assert_array_equal(held.instruments.instrument_id, instruments.instrument_id)
    source = reprice(held, where, scenarios, precision=precision)
    assert not source.plan.unpriced
    return np.asarray(source.tile(0), float)[source.row][:, : scenarios.n_scenarios]


@cache
def both(flat: bool) -> tuple[list[tuple[np.ndarray, float, np.ndarray]], np.ndarray]:
    """The twin, and the growth of prices that rounding may be magnified by."""
    scenarios, where = simulated(flat), market(flat=flat)
    twin = [plain_pnl(PRODUCTS.take(np.array([i])), where, scenarios, tabulated=True) for i in range(len(PRODUCTS))]
    growth = np.exp(2 * np.abs(np.asarray(scenarios.tile(0).shock)).max(1))
    return twin, growth


@pytest.mark.parametrize("flat", [True, False])
@pytest.mark.parametrize(("precision", "bound"), [(Precision.FLOAT64, 4e-15), (Precision.FLOAT32, 4e-7)])
def test_every_product_against_the_plain_twin(precision, bound, flat):
    """Rounding: float64 4e-15, float32 4e-7 of max(F, K)·X·size, times how far prices went (the kernel's 2e-7, an ulp
    each for the growth of F and of X, for today's value and for the difference; the vol's own rounding)."""
    twin, growth = both(flat)
    got = engine_pnl(PRODUCTS, market(flat=flat), simulated(flat), precision)
    worst = 0.0
    for i, (expected, scale, _) in enumerate(twin):
        error = np.abs(got[i] - expected) / (scale * growth)
        assert np.max(error) <= bound, PRODUCTS.instrument_id[i]
        worst = max(worst, float(np.max(error)))
        # A twin that stood still would prove nothing.
        assert np.ptp(expected) > 1e-4 * scale or PRODUCTS.kind[i] == "option"
    assert worst > bound / 100, "the bound is far from what it should bound"


def test_rms_rounding_of_single_precision():
    """The typical error, 1e-7 of the spot notional of a contract near the money, which a book's P&L is measured by."""
    twin, _ = both(False)
    got = engine_pnl(PRODUCTS, market(flat=False), simulated(False), Precision.FLOAT32)
    near = [i for i, name in enumerate(PRODUCTS.instrument_id) if "-3.0-" not in name]
    rms = [np.sqrt(np.mean((got[i] - twin[i][0]) ** 2)) / twin[i][1] for i in near]
    assert max(rms) <= 1e-7


def test_a_smile_tabulated_by_moves_is_the_smile():
    """The engine's only approximation: vol linear in the move between nodes, which stand a tenth of the move apart.

    On a raw smile with curvature 2 that ends at ±1 the vol is off by gap²/8·2 between nodes, and by a quarter of gap
    times the change of slope at an end; a 300-day option's P&L by .2 to .4 of that. 6e-5 of the notional for
    moves within 20%, 4e-4 within 50%, and .4% of it in the one path whose log price moves by .93.
    """
    scenarios, where = simulated(False), market(flat=False)
    worst = {0.2: 0.0, 0.5: 0.0, np.inf: 0.0}
    for i, (expected, scale, _) in enumerate(both(False)[0]):
        if PRODUCTS.kind[i] == "option":
            exact, _, _ = plain_pnl(PRODUCTS.take(np.array([i])), where, scenarios, tabulated=False)
            error = np.abs(exact - expected) / scale
            column = scenarios.factors.index(f"{PRODUCTS.underlying[i]}:spot")
            move = np.abs(np.asarray(scenarios.tile(0).shock)[:, column])
            for limit in worst:
                worst[limit] = max(worst[limit], float(error[move <= limit].max()))
            # Over all paths together it is far below any Monte Carlo error.
            assert np.sqrt(np.mean(error**2)) <= 5e-5
    assert worst[0.2] <= 6e-5 and worst[0.5] <= 4e-4 and worst[np.inf] <= 4e-3


# ---- identities ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "bound"), [(Precision.FLOAT64, 1e-14), (Precision.FLOAT32, 2e-7)])
def test_no_shock_and_no_time_is_no_profit(precision, bound):
    """A stress of 0: delta one exactly zero, options to the rounding of one value."""
    where = market(flat=False)
    stress = stress_scenarios({"nothing": {}, "zero": {"BTC:spot": 0.0, "BTC:vol": 0.0}}, MODEL, where)
    got = engine_pnl(PRODUCTS, where, stress, precision)
    for i in range(len(PRODUCTS)):
        if PRODUCTS.kind[i] == "option":
            _, scale, _ = plain_pnl(PRODUCTS.take(np.array([i])), where, stress, tabulated=False)
            assert np.max(np.abs(got[i])) <= bound * scale
        else:
            np.testing.assert_array_equal(got[i], 0.0)


@pytest.mark.parametrize("flat", [True, False])
def test_stress_moves_are_instantaneous(flat):
    """No time passes: options keep their expiry and their discounting, forwards move with the spot."""
    where = market(flat=flat)
    stress = stress_scenarios(
        {"down": {"BTC:spot": -0.4, "BTC:vol": 0.8}, "up": {"BTC:spot": 0.5, "EUR:spot": 0.1, "DAX:spot": -0.2}},
        MODEL,
        where,
    )
    got = engine_pnl(PRODUCTS, where, stress)
    for i in range(len(PRODUCTS)):
        expected, scale, _ = plain_pnl(PRODUCTS.take(np.array([i])), where, stress, tabulated=True)
        np.testing.assert_allclose(got[i], expected, rtol=0, atol=2e-13 * scale)


def test_values_and_profits_share_one_value_of_today():
    """V₀X₀ + P&L = V₁X₁: after a crash to nearly nothing a spot has lost its value and a call, too."""
    where = market(flat=True)
    stress = stress_scenarios({"end": {f"{a}:spot": -1 + 1e-9 for a in ("BTC", "SOL", "DAX")}}, MODEL, where)
    got = engine_pnl(PRODUCTS, where, stress)[:, 0]
    value, _ = values_and_greeks(PRODUCTS, where)
    carried = [i for i in range(len(PRODUCTS)) if PRODUCTS.kind[i] == "spot" or PRODUCTS.put_call[i] == "call"]
    np.testing.assert_allclose(got[carried], -value[carried], rtol=2e-9, atol=1e-9)


@pytest.mark.parametrize(("precision", "bound"), [(Precision.FLOAT64, 1e-12), (Precision.FLOAT32, 8e-7)])
@pytest.mark.parametrize("expiry", [SOON, NEAR, FAR])
def test_perfect_hedges_have_no_profit(expiry, precision, bound):
    """Call − put = a forward. Inverse: against n futures of K dollars the coin payoff 1 − K/S; linear without rates:
    a future. Zero to the rounding of the three legs."""
    where = replace(market(flat=False), discounts={"USDC": flat_rate(0.0)})
    strike = 66_000.0
    common = {"expiry": expiry, "strike": strike}
    rows = []
    for right in ("call", "put"):
        rows.append(instrument(f"I-{right}", "option", "BTC", settlement="inverse", put_call=right, **common))
        rows.append(instrument(f"L-{right}", "option", "BTC", quote="USDC", put_call=right, **common))
    rows.append(instrument("I-future", "future", "BTC", settlement="inverse", expiry=expiry, size=strike))
    rows.append(instrument("L-future", "future", "BTC", quote="USDC", expiry=expiry))
    instruments = table(rows)
    scenarios = simulated(False)
    pnl = dict(zip(instruments.instrument_id, engine_pnl(instruments, where, scenarios, precision), strict=True))
    shock = np.asarray(scenarios.tile(0).shock)
    growth = np.exp(2 * np.abs(shock).max(1)) * strike

    # Inverse: c₁ − p₁ = 1 − K/F₁ coins. Holding K dollars of futures makes K/F₀ − K/F₁ coins; what is left is the value
    # of 1 − K/F₀ coins, which the move of the coin alone makes.
    f0 = float(where.forwards["BTC"].at(expiry))
    coins = 1 - strike / f0
    left = pnl["I-call"] - pnl["I-put"] - pnl["I-future"] - coins * SPOT["BTC"] * np.expm1(shock[:, 0])
    assert np.max(np.abs(left) / growth) <= bound

    # Linear, no discounting: (F₁ − K)X₁ − (F₀ − K)X₀ = (F₁ − F₀)X₁ + (F₀ − K)(X₁ − X₀).
    x = 0.999 * np.expm1(shock[:, scenarios.factors.index("USDC:spot")])
    left = pnl["L-call"] - pnl["L-put"] - pnl["L-future"] - (f0 - strike) * x
    assert np.max(np.abs(left) / growth) <= bound


def test_cash_moves_with_its_currency_alone():
    where = market(flat=True)
    names = ("BTC", "DAX", "EUR", "SOL", "USD", "USDC")
    held = portfolio(table([instrument("X", "spot", "BTC")]), {}, {"A": dict.fromkeys(names, 1.0)})
    scenarios = simulated(True)
    source = reprice(held, where, scenarios, precision=Precision.FLOAT64)
    got = dict(zip(held.instruments.instrument_id, np.asarray(source.tile(0))[source.row], strict=True))
    shock = np.asarray(scenarios.tile(0).shock)
    for name in names:
        move = np.expm1(base_log_price(name, where, shock, scenarios.factors))
        expected = where.base_price(name) * move
        np.testing.assert_allclose(got[f"CASH:{name}"], expected, rtol=1e-13, atol=1e-13)


def test_profit_of_time_alone():
    """`standing`: no factor moves. Forwards of standing spots converge to them; options lose two days. One that
    expired exactly at the money keeps .4 of the smallest deviation, 4e-13 of the spot."""
    where, scenarios = market(flat=True), simulated(True)
    still = replace(scenarios, shock=jnp.zeros_like(scenarios.shock), paths=None)
    held = portfolio(PRODUCTS, {"A": dict.fromkeys(PRODUCTS.instrument_id.tolist(), 1.0)})
    source = reprice(held, where, scenarios, precision=Precision.FLOAT64)
    for i in range(len(PRODUCTS)):
        expected, scale, _ = plain_pnl(PRODUCTS.take(np.array([i])), where, still, tabulated=True)
        assert source.standing[source.row[i]] == pytest.approx(expected[0], abs=5e-13 * scale)


def test_the_number_of_other_instruments_changes_nothing():
    """With flat vols an instrument's P&L is the same to the bit in a small table and in a large one. With a smile the
    shape of the matrix product may change, and the last bits of the vol with it."""
    rng = np.random.default_rng(1)
    few = np.sort(rng.choice(len(PRODUCTS), 40, replace=False))
    for flat in (True, False):
        where, scenarios = market(flat=flat), simulated(flat)
        whole = engine_pnl(PRODUCTS, where, scenarios, Precision.FLOAT32)[few]
        part = engine_pnl(PRODUCTS.take(few), where, scenarios, Precision.FLOAT32)
        if flat:
            np.testing.assert_array_equal(part, whole)
        else:
            twin, growth = both(flat)
            scale = np.array([twin[i][1] for i in few])[:, None] * growth
            assert np.max(np.abs(part - whole) / scale) <= 4e-7


def test_a_profit_that_is_not_finite_is_refused():
    """A NaN in one scenario of one instrument stops the tile: a comparison would drop it in silence."""
    where, scenarios = market(flat=True), simulated(True)
    broken = replace(scenarios, shock=scenarios.shock.at[17, 0, 0].set(jnp.nan))
    held = portfolio(PRODUCTS, {"A": {"BTC-spot": 1.0}})
    with pytest.raises(NumericsError, match="not finite in scenario tile 0"):
        reprice(held, where, broken).tile(0)


# ---- what cannot be priced -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "change", "reason"),
    [
        (instrument("I", "option", "BTC", expiry=AS_OF, strike=6e4, put_call="call"), {}, "I has expired"),
        (instrument("I", "option", "EUR", expiry=FAR, strike=1.0, put_call="call"), {}, "no vol surface for EUR"),
        (instrument("I", "future", "EUR", expiry=FAR), {}, "no forward curve for EUR"),
        (instrument("I", "future", "BTC", expiry=AS_OF - DAY), {}, "I has expired"),
        (
            instrument("I", "option", "BTC", expiry=FAR, strike=6e4, put_call="call"),
            {"discounts": {}},
            "no discount curve for USD",
        ),
        (instrument("I", "perpetual", "BTC"), {"quarantined": {"BTC:spot": "stale"}}, "BTC:spot: stale"),
    ],
)
def test_what_lacks_an_input_is_named_and_not_guessed(row, change, reason):
    where = replace(market(flat=True), **change)
    source = reprice(portfolio(table([row]), {"A": {"I": 1.0}}), where, simulated(True))
    assert source.plan.unpriced == {0: reason}
    np.testing.assert_array_equal(np.asarray(source.tile(0))[source.row], 0.0)


def test_a_factor_that_the_model_lacks_is_never_held_constant():
    model = specification({"BTC:spot": 0.03})
    where = market(flat=True)
    scenarios = simulate(model, where, seed=1, n_scenarios=2048)
    rows = [
        instrument("A", "option", "BTC", expiry=FAR, strike=6e4, put_call="call"),
        instrument("B", "perpetual", "BTC", quote="USDC"),
        instrument("C", "perpetual", "SOL", quote="USDC"),
        instrument("D", "perpetual", "BTC"),
    ]
    source = reprice(portfolio(table(rows), {"A": {"D": 1.0}}), where, scenarios)
    assert source.plan.unpriced == {
        0: "the model has no factor BTC:vol",
        1: "the model has no factor USDC:spot",
        2: "the model has no factor SOL:spot",
    }
