"""American options on dividends of given days: trees, quadrature, QuantLib, and what books make of them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import QuantLib as ql
from scipy import integrate, optimize, stats

import pmvar
from pmvar.io.book import load_book
from pmvar.kernels.american import american
from pmvar.kernels.american_dividends import DividendTable, EarlyExercise, american_on_dividends, dividend_table
from pmvar.market.snapshot import Dividends, MarketSnapshot
from pmvar.risk.rules import MarginRules
from pmvar.scenarios import ScenarioSet
from pmvar.types import Greek, Precision
from pmvar.valuation.exposure import block_exposure
from pmvar.valuation.today import STILL, terms_today, values_and_greeks, values_under
from tests.books import FAR, problems_of, small_book, small_rows
from tests.markets import AS_OF, DAY, YEAR, flat_rate, portfolio
from tests.test_american_books import AMERICAN, HORIZON, displaced, drawn, held, market, profit, terms_in

__all__ = ["drawn"]  # a fixture

N = 64
"""All prices and slopes are compiled for this many options."""
PRICE, TABLE, VALUE = jax.jit(american_on_dividends), jax.jit(dividend_table), jax.jit(DividendTable.value)


class Case:
    """Options struck at 1: `S`, `F`, vol, T, r, and the terms of their exercise."""

    def __init__(self, seed: int, *, most: int, yields: float = 0.03, calls: bool = False) -> None:
        rng = np.random.default_rng(seed)
        self.sign = np.ones(N) if calls else rng.choice([-1.0, 1.0], N)
        self.time, self.vol, self.rate = rng.uniform(0.1, 1.5, N), rng.uniform(0.1, 0.6, N), rng.uniform(0, 0.08, N)
        count = rng.integers(1, most + 1, N)
        real = np.arange(most) < count[:, None]
        self.when = np.sort(np.where(real, rng.uniform(0.03, 0.97, (N, most)), 1.0), axis=1)
        self.drop = np.where(real, rng.uniform(0.002, 0.03, (N, most)), 0.0)
        self.carry = (self.rate - yields * rng.uniform(-0.3, 1, N)) * self.time
        self.deviation = self.vol * np.sqrt(self.time)
        self.spot = np.exp(rng.uniform(-1.5, 1.5, N) * self.deviation)
        self.forward = self.spot * np.exp(self.carry - self.drop.sum(1))
        self.size = np.maximum(self.spot, 1.0)

    def terms(self) -> EarlyExercise:
        zero = np.zeros(N)
        return EarlyExercise(
            *map(jnp.asarray, (self.sign, self.rate * self.time, self.carry, self.when, self.drop, zero))
        )

    def in_units_of_strike(self, price: jax.Array) -> np.ndarray:
        return np.where(self.sign > 0, self.forward, 1.0) * np.asarray(price)

    def price(self) -> np.ndarray:
        m = -self.sign * np.log(self.forward)
        return self.in_units_of_strike(PRICE(jnp.asarray(m), jnp.asarray(self.deviation), self.terms()))


def tree(
    sign: float, forward: float, total_rate: float, carry: float, when: np.ndarray, drop: np.ndarray, deviation: float,
    *, steps: int = 2000,
) -> float:  # fmt: skip
    """Cox, Ross and Rubinstein (1979) on the forward, struck at 1; the mean of two, an even and an odd one.

    Exercise on an eve between two steps is decided at the first, for what it pays if the forward stands still.
    """
    found = []
    for n in (steps, steps + 1):
        up = np.exp(deviation / np.sqrt(n))
        p = (1 - 1 / up) / (up - 1 / up)
        value = np.maximum(sign * (forward * up ** (2.0 * np.arange(n + 1) - n) - 1), 0.0)
        for k in range(n - 1, -1, -1):
            f, now = forward * up ** (2.0 * np.arange(k + 1) - k), k / n
            value = np.exp(-total_rate / n) * (p * value[1:] + (1 - p) * value[:-1])
            for u in (now, *when[(when > now) & (when <= (k + 1) / n)]):
                spot = f * np.exp(drop[when >= u if u > now else when > now].sum() - carry * (1 - u))
                value = np.maximum(value, np.exp(-total_rate * (u - now)) * sign * (spot - 1))
        found.append(value[0])
    return float(np.mean(found))


def test_against_trees() -> None:
    """Up to four dividends, a yield beside them that may be negative; to 5e-5 of max(S, K)."""
    a = Case(1, most=4)
    columns = (a.sign, a.forward, a.rate * a.time, a.carry, a.when, a.drop, a.deviation)
    exact = np.array([tree(*(x[i] for x in columns)) for i in range(N)])
    assert np.max(np.abs(a.price() - exact) / a.size) <= 5e-5


def one_dividend(forward: float, total_rate: float, u: float, drop: float, deviation: float) -> float:
    """Call on a share without other yield: exercised on the eve or never, so one integral over that day's price."""
    early, late = deviation * np.sqrt(u), deviation * np.sqrt(1 - u)

    def at(z: float) -> tuple[float, float]:
        f = forward * np.exp(early * z - early**2 / 2)
        d = np.log(f) / late + late / 2
        held = np.exp(-total_rate * (1 - u)) * (f * stats.norm.cdf(d) - stats.norm.cdf(d - late))
        return held, f * np.exp(drop - total_rate * (1 - u)) - 1

    gap = [at(z)[0] - at(z)[1] for z in (-9.0, 9.0)]
    cuts = [-10.0, 10.0]
    if gap[0] * gap[1] < 0:
        cuts.insert(1, optimize.root_scalar(lambda z: at(z)[0] - at(z)[1], bracket=(-9, 9)).root)
    parts = (
        integrate.quad(lambda z: max(at(z)) * stats.norm.pdf(z), low, high, epsabs=1e-10)[0]
        for low, high in zip(cuts, cuts[1:], strict=False)
    )
    return float(np.exp(-total_rate * u) * sum(parts))


@pytest.mark.parametrize("factor", [None, 0.3, 1.0, 3.0])
def test_calls_against_quadrature(factor: float | None) -> None:
    """Directly, and from tables whose vols span a factor of 64; in float32 too."""
    a = Case(2, most=1, yields=0.0, calls=True)
    deviation = a.deviation * (factor or 1.0)
    total = a.rate * a.time
    exact = np.array(
        [one_dividend(*x) for x in zip(a.forward, total, a.when[:, 0], a.drop[:, 0], deviation, strict=True)]
    )
    if factor is None:
        assert np.max(np.abs(a.price() - exact) / a.size) <= 2.5e-5
        return
    made = TABLE(a.terms(), *map(jnp.asarray, (a.time, a.vol / 8, a.vol * 8)))
    for dtype, tolerance in ((jnp.float64, 3e-5), (jnp.float32, 3.1e-5)):
        narrow = jax.tree.map(lambda x, kind=dtype: x.astype(kind), made)
        m, vol = (jnp.asarray(x[:, None], dtype) for x in (-np.log(a.forward), a.vol * factor))
        found = a.in_units_of_strike(VALUE(narrow, m, vol)[:, 0])
        assert np.max(np.abs(found - exact) / a.size) <= tolerance


def test_without_drops_an_american_option() -> None:
    """As by spectral collocation; a date without a drop is none."""
    a = Case(3, most=2)
    a.drop[:] = 0.0
    a.forward = a.spot * np.exp(a.carry)
    held = a.rate - a.carry / a.time
    exact = np.asarray(jax.jit(american)(*map(jnp.asarray, (a.spot, np.ones(N), a.vol, a.time, a.rate, held, a.sign))))
    one_boundary = np.isfinite(exact)
    assert one_boundary.sum() > 40
    assert np.max((np.abs(a.price() - exact) / a.size)[one_boundary]) <= 7e-5


def test_against_quantlib() -> None:
    """Its finite differences, where each dividend is a yield over its eve; exercise is then worth a night's interest
    less, 1.4e-4 of the strike at 5%. Spread evenly over the life, dividends make prices more than .5 too low."""
    today, count = ql.Date(1, 1, 2026), ql.Actual365Fixed()
    ql.Settings.instance().evaluationDate = today
    days, drop, vol = np.array([60, 150, 240, 330]), np.array([0.015, 0.016, 0.014, 0.03]), 0.25
    dates = [today, *(today + int(d) + shift for d in days for shift in (-1, 0)), today + 400]
    left = np.exp(-np.repeat(np.cumsum(np.append(0.0, drop)), 2))
    volatility = ql.BlackVolTermStructureHandle(ql.BlackConstantVol(today, ql.NullCalendar(), vol, count))
    error, spread = [], []
    for sign, kind in ((1.0, ql.Option.Call), (-1.0, ql.Option.Put)):
        for strike in (80.0, 95.0, 100.0, 110.0):
            for rate in (0.02, 0.05):
                paid = ql.YieldTermStructureHandle(ql.DiscountCurve(dates, left.tolist(), count))
                interest = ql.YieldTermStructureHandle(ql.FlatForward(today, rate, count))
                process = ql.BlackScholesMertonProcess(
                    ql.QuoteHandle(ql.SimpleQuote(100.0)), paid, interest, volatility
                )
                option = ql.VanillaOption(ql.PlainVanillaPayoff(kind, strike), ql.AmericanExercise(today, today + 365))
                option.setPricingEngine(ql.FdBlackScholesVanillaEngine(process, 1460, 800))
                forward = 100 * np.exp(rate - drop.sum())
                rates = (np.array([x]) for x in (sign, rate, rate))
                terms = EarlyExercise(*map(jnp.asarray, (*rates, days[None] / 365, drop[None], np.zeros(1))))
                m = jnp.asarray([-sign * np.log(forward / strike)])
                found = float(PRICE(m, jnp.asarray([vol]), terms)[0]) * (forward if sign > 0 else strike)
                evenly = american(*(jnp.asarray([x]) for x in (100.0, strike, vol, 1.0, rate, drop.sum(), sign)))
                error.append(found - option.NPV())
                spread.append(float(evenly[0]) - option.NPV())
    assert np.max(np.abs(error)) <= 0.02 and np.min(spread) < -0.5, (error, spread)


def test_slopes_against_differences() -> None:
    """By moneyness, deviation, rate, carry, and the share of time to an ex-date."""
    a = Case(4, most=2)
    point = (jnp.asarray(-a.sign * np.log(a.forward)), jnp.asarray(a.deviation), a.terms())

    def moved(x: jax.Array, field: str) -> jax.Array:
        m, deviation, terms = point
        if field == "m":
            return american_on_dividends(m + x, deviation, terms)
        if field == "deviation":
            return american_on_dividends(m, deviation + x, terms)
        return american_on_dividends(m, deviation, terms._replace(**{field: getattr(terms, field) + x}))

    for field in ("m", "deviation", "total_rate", "carry"):
        own = np.asarray(jax.jit(jax.jacfwd(lambda x, f=field: moved(x, f)))(jnp.zeros(())))
        function = jax.jit(lambda x, f=field: moved(x, f))
        slope = np.asarray(function(jnp.asarray(1e-3)) - function(jnp.asarray(-1e-3))) / 2e-3
        assert np.isfinite(own).all() and np.max(np.abs(own - slope)) <= 2e-2, field
        assert np.sqrt(np.mean((own - slope) ** 2)) <= 3e-3, field


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.float64])
def test_limits_are_finite_in_value_and_slope(dtype: type) -> None:
    """No time, no vol, a millionth and a million strikes, vols beyond the table: no less than exercise now."""
    a = Case(5, most=4)
    a.time[::4] = 0.0
    made = TABLE(a.terms(), *map(jnp.asarray, (a.time, a.vol / 3, a.vol * 3)))
    narrow = jax.tree.map(lambda x: x.astype(dtype), made)
    m = jnp.asarray(np.linspace(np.log(1e-6), np.log(1e6), 41), dtype)[None].repeat(N, 0)
    now = np.asarray(narrow.log_price[0])[:, None]
    for factor in (0.0, 1e-6, 0.2, 1.0, 10.0):
        vol = jnp.full_like(m, 1.0) * jnp.asarray(a.vol[:, None] * factor, dtype)
        for along in ((jnp.ones_like(m), jnp.zeros_like(m)), (jnp.zeros_like(m), jnp.ones_like(m))):
            value, slope = jax.jvp(lambda x, y: VALUE(narrow, x, y), (m, vol), along)
            assert np.isfinite(value).all() and np.isfinite(slope).all()
        paid = np.where(a.sign[:, None] > 0, np.exp(now) - np.exp(m), 1 - np.exp(now + np.asarray(m)))
        assert np.all(np.asarray(value) >= np.maximum(paid, 0) - 1e-6 * np.exp(np.abs(now)))


def test_single_against_double_precision_on_a_million_points() -> None:
    """1e-6 of max(1, e^m), the float32 inputs taken as they are."""
    a = Case(6, most=4)
    made = TABLE(a.terms(), *map(jnp.asarray, (a.time, a.vol / 8, a.vol * 8)))
    single = jax.tree.map(lambda x: x.astype(jnp.float32), made)
    m = jnp.linspace(-3, 3, 4096, dtype=jnp.float32)[None].repeat(N, 0)
    for factor in (0.1, 0.5, 1.0, 5.0):
        vol = jnp.full_like(m, factor) * jnp.asarray(a.vol[:, None], jnp.float32)
        exact, found = VALUE(made, m.astype(float), vol.astype(float)), VALUE(single, m, vol)
        assert np.max(np.abs(np.asarray(found) - np.asarray(exact)) / np.maximum(1, np.exp(m))) <= 1e-6


EX = AS_OF + DAY * np.array([-30.0, 1.0, 30.0, 120.0, 210.0, 300.0, 900.0])
"""One past, one inside the horizon, one after every option has expired."""
PAID = {"STK": Dividends(EX, np.full(7, 0.6)), "OIL": Dividends(EX, np.full(7, 0.6))}


def with_dividends(share: float = 1.0) -> MarketSnapshot:
    return market(dividends={name: paid._replace(amount=paid.amount * share) for name, paid in PAID.items()})


def horizon_terms(i: int, drawn: ScenarioSet, path: int | None) -> tuple[tuple, float, float]:
    """Of option `i`, what a tree takes, in strikes, the strike, and what exercise on a missed eve pays."""
    _, strike, vol, days, rate, _, sign = terms_in(i, drawn, path)
    where, name, expiry = with_dividends(), str(AMERICAN.underlying[i]), float(AMERICAN.expiry[i])
    start, curve, time = AS_OF if path is None else HORIZON, where.forwards[name], days / 365
    due = (EX > AS_OF) & (expiry > EX)
    drop = -np.log1p(-0.6 / curve.at(EX[due]))
    life = (expiry - AS_OF) / YEAR
    even = (float(curve.carry(expiry)) + drop.sum()) / life
    move = 0.0 if path is None else float(np.asarray(drawn.tile(0).shock)[path, drawn.factors.index(f"{name}:spot")])
    # A forward is a martingale: what a standing spot would make of it is no move.
    forward = float(curve.at(expiry) * np.exp(move) / strike / (curve.at(start) / curve.spot))
    left = EX[due] > start
    terms = (sign, forward, rate * time, even * time, (EX[due][left] - start) / (expiry - start), drop[left],
             vol * np.sqrt(time))  # fmt: skip
    eve = forward * np.exp(drop.sum() - even * time) - 1 if sign > 0 else 0.0
    return terms, strike, max(eve, 0.0)


def test_profit_against_trees(drawn: ScenarioSet) -> None:
    """The whole path, on paths at random and on the widest; options on futures know no dividends."""
    pnl = profit(AMERICAN, drawn, "float64", with_dividends())
    plain = profit(AMERICAN, drawn, "float64")
    others = AMERICAN.underlying != "STK"
    np.testing.assert_array_equal(pnl[others], plain[others])
    rng = np.random.default_rng(1)
    alive = np.flatnonzero(~others & (AMERICAN.expiry > HORIZON))
    extreme = np.argsort(np.abs(np.asarray(drawn.tile(0).shock)).max(1))[-40:]
    error, effect = [], []
    for count, i in enumerate(rng.permutation(alive)[:24]):
        path = int(rng.choice(extreme)) if count % 3 == 0 else int(rng.integers(drawn.n_scenarios))
        values = []
        for p in (None, path):
            terms, strike, eve = horizon_terms(int(i), drawn, p)
            values.append(strike * max(tree(*terms, steps=1000), eve if p is not None else 0.0))
        size = max(50.0, float(AMERICAN.strike[i]))
        error.append(abs(pnl[i, path] / 2 - (values[1] - values[0])) / size)
        effect.append(abs(pnl[i, path] - plain[i, path]) / 2 / size)
    assert max(error) <= 1e-4, max(error)
    assert max(effect) > 1e-3, "dividends on given days matter"


def test_gradients_against_differences(drawn: ScenarioSet) -> None:
    """By today's price (and dividends with it), vol and rate: the same scenarios in a displaced market."""
    stock = AMERICAN.take(np.flatnonzero(AMERICAN.underlying == "STK"))
    pnl = pmvar.reprice(held(stock), with_dividends(), drawn, precision=Precision.FLOAT64)
    world = pnl.plan.layout.world(0)
    found = [block_exposure(block.tangent(world), world, drawn.vol_cap) for _, block in pnl.plan.blocks]
    size = 2.0 * np.maximum(stock.strike, 50.0)[:, None]
    growth, alive = np.exp(2 * np.abs(np.asarray(drawn.tile(0).shock)).max(1)), stock.expiry > HORIZON
    for field, width in {"log_spot": 1e-3, "vol": 1e-3, "rate": 1e-4}.items():
        own = np.asarray(pnl.stacked([getattr(x, field) for x in found]))[pnl.row]
        where = {x: with_dividends(np.exp(x) if field == "log_spot" else 1.0) for x in (width, -width)}
        up, down = (profit(stock, drawn, "float64", displaced(m, field, x)) for x, m in where.items())
        error = (np.abs(own - (up - down) / (2 * width)) / size / growth)[alive]
        assert np.isfinite(own).all() and np.max(np.abs(own) / size) > 0.05
        assert np.quantile(error, 0.99) <= 3e-3 and np.sqrt(np.mean(error**2)) <= 5e-4, field


def test_greeks_against_differences() -> None:
    stock, where = AMERICAN.take(np.flatnonzero(AMERICAN.underlying == "STK")), with_dividends()
    value, found = values_and_greeks(stock, where)
    plain, _ = values_and_greeks(stock, market())
    assert np.max(np.abs(value - plain)) > 0.05
    terms = terms_today(stock, where)
    for name, field, unit in (
        (Greek.DELTA, "log_spot", 1 / 50.0), (Greek.VEGA, "vol", 1.0), (Greek.RHO, "rate", 1.0),
        (Greek.THETA, "clock", DAY / YEAR),
    ):  # fmt: skip
        width = 1e-5 if field == "clock" else 1e-4
        up, down = (values_under(stock, terms, STILL._replace(**{field: x}))[:, 0] for x in (width, -width))
        slope, own = (up - down) / (2 * width), np.sum([s.value for s in found if s.greek is name], axis=0)
        scale = np.maximum(np.abs(slope), 0.5) * unit
        assert np.max(np.abs(own - slope * unit) / scale) <= 2e-2, name
    gamma = np.sum([s.value for s in found if s.greek is Greek.GAMMA], axis=0)
    assert np.isfinite(gamma).all() and np.min(gamma) >= -1e-2


@pytest.mark.parametrize(("cash", "refused"), [(0.02, False), (0.6, True)])
def test_two_boundaries_beside_the_dividends_are_refused(drawn: ScenarioSet, cash: float, refused: bool) -> None:
    """A put under r = −1%: forwards that yield .5% leave less than r beside dividends of 4%, not beside small ones."""
    name = "STK-400-1.0-put"
    one = AMERICAN.take(np.array([list(AMERICAN.instrument_id).index(name)]))
    curve = market().forwards["STK"]
    flat = replace(curve, forward=50.0 * np.exp(-0.015 * (curve.expiry - AS_OF) / YEAR))
    where = market(
        forwards={**market().forwards, "STK": flat}, discounts={"USD": flat_rate(-0.01)},
        dividends={"STK": Dividends(EX, np.full(7, cash))},
    )  # fmt: skip
    pnl = pmvar.reprice(held(one), where, drawn)
    assert bool(pnl.plan.unpriced) == refused
    if refused:
        assert "two boundaries" in pnl.plan.unpriced[0]


def test_margins_do_not_depend_on_neighbours(drawn: ScenarioSet) -> None:
    """To the bit, whether another account holds options with more dividends to come."""
    short = AMERICAN.expiry < AS_OF + 100 * DAY
    names = [str(n) for n in AMERICAN.instrument_id[short & (AMERICAN.underlying == "STK")]]
    mine = dict.fromkeys(names, -1.0)

    def margins(listed: np.ndarray, accounts: dict[str, dict[str, float]]) -> dict[str, np.ndarray]:
        book = portfolio(AMERICAN.take(np.flatnonzero(listed)), accounts, {"A": {"USD": 1e3}})
        report = pmvar.margin_report(pmvar.reprice(book, with_dividends(), drawn), book, MarginRules())
        return {k: v[report.tables["margins"]["account_id"] == "A"] for k, v in report.tables["margins"].items()}

    alone = margins(short, {"A": mine})
    crowd = margins(np.ones(len(AMERICAN), bool), {"A": mine, "B": {str(n): 1.0 for n in AMERICAN.instrument_id}})
    for column, values in alone.items():
        np.testing.assert_array_equal(crowd[column], values, err_msg=column)
    assert alone["initial_margin"][0] > 0


def paying_rows(**change: object) -> dict:
    rows = small_rows()
    for row in rows["instruments"]:
        if row["instrument_id"] == "BTC_USD-28MAR25-110000-C":
            row["exercise"] = "american"
    dividend = {"underlying": "BTC", "ex_date": "2025-02-20T00:00:00Z", "amount": 900.0, "currency": "USD"}
    for row in rows["market/forwards"]:
        row["forward"] = {"BTC": 100_000.0}.get(row["underlying"], row["forward"])
    rows["market/dividends"] = [{**dividend, **change}]
    return rows


def test_a_book_on_disk(tmp_path: Path) -> None:
    """Read and used; forwards that leave out so large a dividend are flagged."""
    book = load_book(small_book(tmp_path / "book", rows=paying_rows()))
    assert book.market.dividends["BTC"].amount.tolist() == [900.0]
    listed = book.portfolio.instruments
    assert any("forwards of BTC leave a yield of" in flag for flag in book.flags)
    i = list(listed.instrument_id).index("BTC_USD-28MAR25-110000-C")
    without = replace(book.market, dividends={})
    assert abs(values_and_greeks(listed, book.market)[0][i] - values_and_greeks(listed, without)[0][i]) > 0.1
    book = load_book(small_book(tmp_path / "less", rows=paying_rows(amount=3.0)))
    assert not any("leave a yield of" in flag for flag in book.flags)


@pytest.mark.parametrize(
    ("change", "column", "rule"),
    [
        ({"underlying": "XYZ"}, "underlying", "has no price"),
        ({"currency": "EUR"}, "currency", "in the currency that its share is quoted in"),
        ({"amount": 2e5}, "amount", "less than the forward price"),
    ],
)
def test_bad_dividends_are_refused(tmp_path: Path, change: dict, column: str, rule: str) -> None:
    (problem,) = problems_of(tmp_path, lambda rows: rows.update(paying_rows(**change)))
    assert (problem.file, problem.row, problem.column) == ("market/dividends.csv", 2, column) and rule in problem.rule


def test_the_last_day_of_a_dividend(tmp_path: Path) -> None:
    """A share that goes ex after the option's expiry concerns nobody."""
    rows = paying_rows(ex_date=FAR)
    book = load_book(small_book(tmp_path / "book", rows=rows))
    without = replace(book.market, dividends={})
    one, other = (values_and_greeks(book.portfolio.instruments, m)[0] for m in (book.market, without))
    np.testing.assert_array_equal(one, other)
