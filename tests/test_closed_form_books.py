"""Books whose margin is known: the whole path, simulate → reprice → margin_report, inside four of the standard errors
that it reports."""

from collections.abc import Mapping

import numpy as np
import pytest
from scipy import integrate, stats

from pmvar.engine import margin_report
from pmvar.instruments import Instruments
from pmvar.market.snapshot import MarketSnapshot
from pmvar.models.specification import ModelSpecification
from pmvar.risk.rules import MarginRules
from pmvar.scenarios import simulate
from pmvar.types import Drift, Precision, PriceMap
from pmvar.valuation import reprice
from pmvar.valuation.today import values_and_greeks
from tests.markets import (
    AS_OF,
    DAY,
    carry_curve,
    flat_rate,
    flat_vol,
    instrument,
    portfolio,
    snapshot,
    specification,
    table,
)

Tables = Mapping[str, Mapping[str, np.ndarray]]

ASSETS = [f"A{i}" for i in range(10)]

RELATIVE_ERROR = 0.03
"""The reported standard errors must be small, or four of them would prove little."""


def margins(
    instruments: Instruments,
    positions: dict[str, dict[str, float]],
    market: MarketSnapshot,
    model: ModelSpecification,
    *,
    horizon: str,
    drift: Drift,
    level: float = 0.99,
    n: int = 1 << 17,
    precision: Precision = Precision.FLOAT32,
) -> Tables:
    """The tables of a run."""
    held = portfolio(instruments, positions)
    scenarios = simulate(model, market, seed=2, n_scenarios=n, horizon=horizon, drift=drift)
    pnl = reprice(held, market, scenarios, precision=precision)
    return margin_report(pnl, held, MarginRules(level=level), greeks=False).tables


def assert_close(tables: Tables, account: str, var: float, es: float) -> None:
    """VaR and ES of an account inside four reported standard errors of the truth."""
    m = tables["margins"]
    row = list(m["account_id"]).index(account)
    for name, short, exact in (("value_at_risk", "var", var), ("expected_shortfall", "es", es)):
        error = m[f"{short}_standard_error"][row]
        assert 0 < error < RELATIVE_ERROR * exact
        assert abs(m[name][row] - exact) <= 4 * error, f"{account}: {name} {m[name][row]}, exactly {exact} ± {error}"
    assert m["initial_margin"][row] == m["expected_shortfall"][row]


# ---- linear -------------------------------------------------------------------------------------------------------

EXPOSURE, SIGMA, RHO = np.array([65_000.0, 35_000.0]), np.array([0.035, 0.045]), 0.8
SHARES = np.array([0.60064044, 0.39935956])
LINEAR = [
    (None, 0.99, 8512.4149, 9752.3717),
    (4.0, 0.99, 9694.8417, 13507.7257),
    (4.0, 0.975, 7183.7667, 10332.9188),
    (6.0, 0.99, 9389.2533, 12047.8584),
]


@pytest.mark.parametrize(("nu", "level", "var", "es"), LINEAR)
def test_linear_book(nu, level, var, es):
    """Two spots, exposures 65,000 and 35,000, daily volatility 3.5% and 4.5%, correlation .8: VaR, ES and the Euler
    shares, which are the same under every elliptical law.

    A price stops at zero, which the closed form does not know: a long position is spared E[(−x − 1)⁺] of its ES, 4e-4
    of it at ν = 4, seven of today's standard errors.
    """
    c = np.array([[1, RHO], [RHO, 1]])
    # The table itself, from the law: sd·quantile.
    d = EXPOSURE * SIGMA
    sd = np.sqrt(d @ c @ d)
    law = stats.norm() if nu is None else stats.t(nu, scale=np.sqrt((nu - 2) / nu))
    assert sd * law.ppf(level) == pytest.approx(var, abs=1e-4)
    np.testing.assert_allclose(d * (c @ d) / sd**2, SHARES, atol=1e-8)

    market = snapshot({"A": (100.0, "USD"), "B": (20.0, "USD")})
    instruments = table([instrument("A", "spot", "A"), instrument("B", "spot", "B")])
    model = specification(
        {"A:spot": SIGMA[0], "B:spot": SIGMA[1]}, model="gaussian" if nu is None else "t", degrees_of_freedom=nu,
        correlation=c, price_map=PriceMap.LINEAR,
    )  # fmt: skip
    positions = {
        "long": {"A": EXPOSURE[0] / 100, "B": EXPOSURE[1] / 20},
        "short": {"A": -EXPOSURE[0] / 100, "B": -EXPOSURE[1] / 20},
    }
    tables = margins(instruments, positions, market, model, horizon="1d", drift=Drift.NONE, level=level, n=1 << 18)
    parts = tables["components"]
    spared = [
        e * integrate.quad(lambda x, s=s: law.sf(x / s), 1, np.inf, epsabs=1e-14)[0] / (1 - level)
        for e, s in zip(EXPOSURE, SIGMA, strict=True)
    ]
    for account in positions:
        assert_close(tables, account, var, es - sum(spared) * (account == "long"))
        mine = parts["account_id"] == account
        assert list(parts["instrument_id"][mine]) == ["A", "B"]
        share = parts["component_es"][mine]
        exact = SHARES * es - np.array(spared) * (account == "long")
        np.testing.assert_array_less(np.abs(share - exact), 4 * parts["standard_error"][mine])
        row = list(tables["margins"]["account_id"]).index(account)
        assert share.sum() == tables["margins"]["expected_shortfall"][row]


def test_concentration_raises_the_margin():
    """One gross amount, short in 10, 5, 2 and 1 of ten alike assets: ES = gross·σ·√((1 + (k−1)ρ)/k)·ES of the t."""
    gross, sigma, rho, nu = 1000.0, 0.03, 0.3, 4.0
    market = snapshot(dict.fromkeys(ASSETS, (1.0, "USD")))
    model = specification(
        {f"{a}:spot": sigma for a in ASSETS}, model="t", degrees_of_freedom=nu,
        correlation=np.eye(10) * (1 - rho) + rho, price_map=PriceMap.LINEAR,
    )  # fmt: skip
    held = {str(k): {a: -gross / k for a in ASSETS[:k]} for k in (10, 5, 2, 1)}
    tables = margins(
        table([instrument(a, "spot", a) for a in ASSETS]), held, market, model, horizon="1d", drift=Drift.NONE
    )
    scale = np.sqrt((nu - 2) / nu)
    var = scale * stats.t.ppf(0.99, nu)
    es = 100 * integrate.quad(lambda x: x * stats.t.pdf(x / scale, nu) / scale, var, np.inf)[0]
    for account, positions in held.items():
        k = len(positions)
        sd = gross * sigma * np.sqrt((1 + (k - 1) * rho) / k)
        assert_close(tables, account, sd * var, sd * es)
    by_name = dict(zip(tables["margins"]["account_id"], tables["margins"]["initial_margin"], strict=True))
    assert by_name["10"] < by_name["5"] < by_name["2"] < by_name["1"]


def test_a_hedged_book_needs_nothing():
    """Long and short the same: zero margin and zero error, not a small number."""
    market = snapshot({"A": (100.0, "USD")})
    instruments = table([instrument("A", "spot", "A"), instrument("B", "spot", "A"), instrument("C", "perpetual", "A")])
    model = specification({"A:spot": 0.03}, model="t", degrees_of_freedom=4.0)
    tables = margins(
        instruments, {"flat": {"A": 5.0, "B": -5.0}, "basis": {"A": 7.0, "C": -7.0}}, market, model,
        horizon="1d", drift=Drift.FORWARD, n=4096,
    )  # fmt: skip
    for name in ("value_at_risk", "expected_shortfall", "var_standard_error", "es_standard_error", "initial_margin"):
        np.testing.assert_array_equal(tables["margins"][name], 0.0)


# ---- short call ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", list(Precision))
def test_short_call(precision):
    """F=100, K=105, σ=.6, 30 days, one-day lognormal forward, flat vol, no rates: price 4.80524611, VaR99 3.68956390,
    ES99 4.39622540. Linear and inverse settlement of the same payoff agree where the coin is the only currency."""
    market = snapshot(
        {"A": (100.0, "USD")}, forwards={"A": carry_curve(100.0, 0.0)}, discounts={"USD": flat_rate(0.0)},
        vols={"A": flat_vol(0.6)},
    )  # fmt: skip
    common = {"expiry": AS_OF + 30 * DAY, "strike": 105.0, "put_call": "call"}
    instruments = table(
        [instrument("L", "option", "A", **common), instrument("I", "option", "A", settlement="inverse", **common)]
    )
    value, _ = values_and_greeks(instruments, market)
    np.testing.assert_allclose(value, 4.80524611, atol=5e-9)
    model = specification({"A:spot": 0.6 / np.sqrt(365), "A:vol": 0.0}, price_map=PriceMap.EXP)
    tables = margins(
        instruments, {"linear": {"L": -1.0}, "inverse": {"I": -1.0}}, market, model,
        horizon="1d", drift=Drift.FORWARD, precision=precision,
    )  # fmt: skip
    for account in ("linear", "inverse"):
        assert_close(tables, account, 3.68956390, 4.39622540)


# ---- ten assets: Glasserman, Heidelberger and Shahabuddin (2002) -----------------------------------------------------

H, R, VOL = 0.04, 0.05, 0.3
DAYS = 15
STRETCH = DAYS / 365 / H
"""Prices depend on σ²T and rT alone. The horizon of .04 years is no whole number of days: all times are stretched to 15
days, the variance rate and the interest rate shrunk by as much."""

GHS = {
    # name: (years to expiry, (call strike, put strike), calls, puts)
    "0.5yr ATM": (0.5, (100.0, 100.0), -10.0, -5.0),
    "0.1yr ATM": (0.1, (100.0, 100.0), -10.0, -5.0),
    "DH 0.1": (0.1, (100.0, 100.0), -10.0, -11.7336),
    "OTM": (0.25, (110.0, 90.0), -10.0, -10.0),
}
NORMAL = {
    "0.5yr ATM": (185.353, 218.056),
    "0.1yr ATM": (200.751, 239.348),
    "DH 0.1": (211.006, 250.607),
    "OTM": (111.058, 133.451),
}
T5 = {
    "0.5yr ATM": ((312.925, 490.835), (209.054, 346.949)),
    "0.1yr ATM": ((461.982, 702.227), (304.637, 502.219)),
    "DH 0.1": ((634.215, 971.347), (414.287, 690.931)),
    "OTM": ((358.605, 602.232), (220.387, 406.338)),
}


def ghs_tables(nu: float | None, level: float) -> Tables:
    rate, vol = R / STRETCH, VOL / np.sqrt(STRETCH)
    market = snapshot(
        dict.fromkeys(ASSETS, (100.0, "USD")), forwards={a: carry_curve(100.0, rate) for a in ASSETS},
        discounts={"USD": flat_rate(rate)}, vols={a: flat_vol(vol) for a in ASSETS},
    )  # fmt: skip
    rows, positions = {}, {}
    for name, (years, strikes, calls, puts) in GHS.items():
        held = positions.setdefault(name, {})
        for asset in ASSETS:
            for right, strike, quantity in zip(("call", "put"), strikes, (calls, puts), strict=True):
                option = f"{asset}-{years}-{strike}-{right}"
                expiry = AS_OF + years * STRETCH * 365 * DAY
                rows[option] = instrument(option, "option", asset, expiry=expiry, strike=strike, put_call=right)
                held[option] = quantity
    step = float(VOL * np.sqrt(H / DAYS))
    model = specification(
        {f"{a}:spot": step for a in ASSETS} | {f"{a}:vol": 0.0 for a in ASSETS},
        model="gaussian" if nu is None else "t", degrees_of_freedom=nu, price_map=PriceMap.LINEAR,
    )  # fmt: skip
    return margins(
        table(list(rows.values())), positions, market, model, horizon=f"{DAYS}d", drift=Drift.NONE, level=level
    )


def test_ten_assets_normal():
    """Ten independent assets, additive normal moves of 6%, options revalued .04 years on."""
    tables = ghs_tables(None, 0.99)
    for name, (var, es) in NORMAL.items():
        assert_close(tables, name, var, es)


@pytest.mark.parametrize(("level", "column"), [(0.99, 0), (0.975, 1)])
def test_ten_assets_t5(level, column):
    """The same under a t with five degrees of freedom, one mixing variable for all ten."""
    tables = ghs_tables(5.0, level)
    for name, figures in T5.items():
        assert_close(tables, name, *figures[column])


def test_the_short_call_by_quadrature():
    """The two figures again, from the lognormal law: VaR at the 99% quantile of the forward, ES the mean beyond it."""
    s = 0.6 / np.sqrt(365)

    def call(f, days: float):
        w = 0.6 * np.sqrt(days / 365)
        d1 = np.log(f / 105) / w + w / 2
        return f * stats.norm.cdf(d1) - 105 * stats.norm.cdf(d1 - w)

    def loss(z):
        return call(100 * np.exp(s * z - s * s / 2), 29) - call(100, 30)

    z99 = stats.norm.ppf(0.99)
    assert loss(z99) == pytest.approx(3.68956390, abs=5e-9)
    es = integrate.quad(lambda z: loss(z) * stats.norm.pdf(z), z99, 12, epsabs=1e-13)[0] / 0.01
    assert es == pytest.approx(4.39622540, abs=5e-9)
