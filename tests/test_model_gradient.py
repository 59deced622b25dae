"""Derivatives of the margin by the model's parameters: against differences on the same paths, against closed forms
where only the law is the same, and with the drift moving along."""

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

import pmvar
from pmvar.market.snapshot import MarketSnapshot
from pmvar.models.specification import ModelSpecification
from pmvar.risk.rules import MarginRules
from pmvar.scenarios.paths import Paths
from pmvar.scenarios.slopes import ParameterSlopes
from pmvar.types import Drift, Measure, Precision, PriceMap, Sampling
from tests.engines import VOL, Row, call, hold, listed, mixed_market, mixed_model, put
from tests.laws import Inverted, quantile_and_shortfall
from tests.markets import instrument, portfolio, snapshot, specification, table

N = 8192
HELD: list[Row] = [
    ("a", call("BTC"), -2.0), ("a", put("BTC", "SOON"), -1.0), ("a", "ETH-PERPETUAL", 4e3), ("a", put("SOL"), -30.0),
    ("b", call("ETH", "FAR"), 5.0), ("b", "BTC-PERPETUAL", -3e4),
]  # fmt: skip
JUMPS = {"intensity": 12.0, "mean": -0.04, "deviation": 0.02, "loading": {"EUR:spot": 0.1, "USDC:spot": 0.0}}

VARIANCE = {
    u: {"kappa": 3.0 + i, "theta": vol**2, "vol_of_variance": 1.5 * vol, "initial": 1.5 * vol**2}
    for i, (u, vol) in enumerate(VOL.items())
}
SVCJ = {"intensity": 8.0, "by_underlying": {
    u: {"mean": -0.04 - 0.01 * i, "deviation": 0.03, "variance_mean": 0.05 * vol**2, "correlation": -0.2}
    for i, (u, vol) in enumerate(VOL.items())
}}  # fmt: skip

Table = dict[tuple[str, str, str, str], tuple[float, float]]
"""(account, parameter, factor, other factor) -> value and standard error."""


def model(name: str) -> ModelSpecification:
    """The mixed model under another law."""
    base = mixed_model()
    own = tuple(replace(f, degrees_of_freedom=4.0 + i % 3) for i, f in enumerate(base.factors))
    filters = {f.name: {"omega": 0.05 * f.volatility**2, "alpha": 0.1, "gamma": 0.05, "beta": 0.8} for f in own}
    more = {
        "t": {"factors": base.factors},
        "t-multi": {},
        "t-jump": {"parameters": {"jumps": JUMPS}},
        "t-garch": {"state": {"filter": filters}},
        "heston": {"parameters": {"variance": VARIANCE}},
        "svcj": {"parameters": {"variance": VARIANCE, "jumps": SVCJ}},
    }[name]
    return replace(base, model=name, **({"factors": own} | more))


def run(
    specified: ModelSpecification,
    market: MarketSnapshot,
    *,
    drift: Drift,
    rules: MarginRules,
    n: int = N,
    greeks: bool = True,
) -> pmvar.MarginReport:
    """A report in double precision."""
    held = hold(HELD, instruments=listed(HELD))
    drawn = pmvar.simulate(specified, market, seed=3, n_scenarios=n, drift=drift)
    pnl = pmvar.reprice(held, market, drawn, precision=Precision.FLOAT64)
    return pmvar.margin_report(pnl, held, rules, greeks=greeks)


def greeks_of(found: pmvar.MarginReport) -> Table:
    """The table by its keys."""
    t = found.tables["model_greeks"]
    keys = zip(t["account_id"], t["parameter"], t["factor"], t["other_factor"], strict=True)
    return dict(zip(keys, zip(t["value"], t["standard_error"], strict=True), strict=True))


def shifted(specified: ModelSpecification, factor: str, **change: Callable[[float], float]) -> ModelSpecification:
    """One factor's fields moved."""
    moved = tuple(
        replace(f, **{k: g(getattr(f, k)) for k, g in change.items()}) if f.name == factor else f
        for f in specified.factors
    )
    return replace(specified, factors=moved)


def difference(
    up: ModelSpecification, down: ModelSpecification, market: MarketSnapshot, *, drift: Drift
) -> dict[str, float]:
    """Change of the expected shortfall on the same paths."""
    both = [run(m, market, drift=drift, rules=MarginRules(), greeks=False).tables["margins"] for m in (up, down)]
    change = both[0]["expected_shortfall"] - both[1]["expected_shortfall"]
    return dict(zip(both[0]["account_id"], change, strict=True))


@pytest.mark.parametrize("name", ["t", "t-multi", "t-jump"])
@pytest.mark.parametrize(("drift", "tolerance"), [(Drift.NONE, 1e-4), (Drift.FORWARD, 5e-3)])
def test_volatilities_against_differences(name, drift, tolerance):
    """The pathwise derivative is that of the estimate itself: 1e-4 of the largest; with the drift, whose slope comes
    from 4,096 reference paths, 5e-3."""
    market, specified = mixed_market(), model(name)
    found = greeks_of(run(specified, market, drift=drift, rules=MarginRules()))
    for factor in ("BTC:spot", "ETH:vol"):
        size = 1e-4
        up, down = (shifted(specified, factor, volatility=lambda v, s=s: v * (1 + s)) for s in (size, -size))
        step = 2 * size * next(f.volatility for f in specified.factors if f.name == factor)
        change = difference(up, down, market, drift=drift)
        for account in ("a", "b"):
            own = [v for (a, p, *_), (v, _) in found.items() if a == account and p == "volatility"]
            got = found.get((account, "volatility", factor, ""), (0.0, 0.0))[0]
            assert got == pytest.approx(change[account] / step, abs=tolerance * np.abs(own).max())


def test_degrees_of_freedom_against_differences():
    market, specified = mixed_market(), model("t-multi")
    found = greeks_of(run(specified, market, drift=Drift.NONE, rules=MarginRules()))
    for factor in ("BTC:spot", "ETH:spot"):
        size = 1e-4
        up, down = (shifted(specified, factor, degrees_of_freedom=lambda v, s=s: v + s) for s in (size, -size))
        change = difference(up, down, market, drift=Drift.NONE)
        for account in ("a", "b"):
            got = found[account, "degrees_of_freedom", factor, ""][0]
            largest = max(abs(v) for (a, p, *_), (v, _) in found.items() if (a, p) == (account, "degrees_of_freedom"))
            assert got == pytest.approx(change[account] / (2 * size), abs=1e-3 * largest)


@pytest.mark.parametrize(("key", "label"), [("mean", "m"), ("deviation", "delta")])
def test_jump_sizes_against_differences(key, label):
    market, specified = mixed_market(), model("t-jump")
    found = greeks_of(run(specified, market, drift=Drift.NONE, rules=MarginRules()))
    size = 1e-6
    up, down = (replace(specified, parameters={"jumps": JUMPS | {key: JUMPS[key] + s}}) for s in (size, -size))
    change = difference(up, down, market, drift=Drift.NONE)
    for account in ("a", "b"):
        assert found[account, label, "", ""][0] == pytest.approx(change[account] / (2 * size), rel=1e-4)


def moved_underlying(specified: ModelSpecification, key: str, step: float, underlying: str = "ETH") -> Any:
    """One number of one underlying's variance, or of its jumps, moved."""
    parameters = copy.deepcopy(dict(specified.parameters))
    rows = parameters["variance"] if key in parameters["variance"][underlying] else parameters["jumps"]["by_underlying"]
    rows[underlying][key] += step
    return replace(specified, parameters=parameters)


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("heston", {"kappa": ("kappa", "vol"), "vol_of_variance": ("vol_of_variance", "vol")}),
        ("svcj", {"initial": ("initial", "vol"), "mean": ("price_mean", "spot"),
                  "deviation": ("price_deviation", "spot"), "variance_mean": ("variance_mean", "vol"),
                  "correlation": ("jump_correlation", "vol")}),
    ],
)  # fmt: skip
def test_variances_against_differences(name, keys):
    """The second underlying's own numbers, under its own factor's name, on the same paths; and each parameter is there
    once for each underlying that the account depends on."""
    market, specified = mixed_market(), model(name)
    found = greeks_of(run(specified, market, drift=Drift.NONE, rules=MarginRules()))
    for key, (label, kind) in keys.items():
        owners = {f for (a, p, f, _) in found if (a, p) == ("a", label)}
        assert owners == {f"{u}:{kind}" for u in ("BTC", "ETH", "SOL")}
        size = 1e-4 * (abs(VARIANCE["ETH"].get(key, 1.0)))
        up, down = (moved_underlying(specified, key, s) for s in (size, -size))
        change = difference(up, down, market, drift=Drift.NONE)
        for account in ("a", "b"):
            got = found[account, label, f"ETH:{kind}", ""][0]
            assert got == pytest.approx(change[account] / (2 * size), rel=1e-3)


def test_the_drift_moves_with_the_skew_of_heston():
    """c of E[g(x + c)] = F/S depends on the correlation of price and variance: its slope by the loading, along the
    loading's own difference, against drifts solved anew from sixteen times the paths; 4,096 leave a tenth of doubt."""
    market, size = snapshot({"A": (100.0, "USD")}), 0.05
    variance = {"A": {"kappa": 2.0, "theta": 0.4, "vol_of_variance": 2.0, "initial": 0.4}}

    def paths(rho: float) -> Paths:
        law = specification({"A:spot": 0.03, "A:vol": 0.05}, model="heston", correlation=np.array([[1, rho], [rho, 1]]))
        drawn = pmvar.simulate(
            replace(law, parameters={"variance": variance}), market, seed=1, n_scenarios=2048, horizon="10d"
        )
        assert drawn.paths is not None
        return drawn.paths

    low, middle, high = (paths(-0.5 + s) for s in (-size, 0.0, size))
    along = (np.asarray(high.law.bridge_loading()) - np.asarray(low.law.bridge_loading())) / (2 * size)
    slopes = ParameterSlopes(middle)
    (leaf,) = (leaf for leaf in slopes.leaves if leaf.name == "loading")
    found = slopes._drift_at(middle.end)[1][0, leaf.start : leaf.start + leaf.value.size] @ along.ravel()
    exact = (high.shift(high.end)[0] - low.shift(low.end)[0]) / (2 * size)
    assert found == pytest.approx(exact, rel=0.3) and abs(exact) > 1e-4


def test_an_intensity_against_other_paths():
    """A count does not move with its intensity: the likelihood ratio is unbiased, and noisier than its error says by no
    more than four of them. The difference is over ±20%, on 16 times the paths."""
    market, specified = mixed_market(), model("t-jump")
    found = greeks_of(run(specified, market, drift=Drift.FORWARD, rules=MarginRules(), n=65_536))
    up, down = (replace(specified, parameters={"jumps": JUMPS | {"intensity": 12.0 * s}}) for s in (1.2, 0.8))
    tables = [
        run(m, market, drift=Drift.FORWARD, rules=MarginRules(), n=65_536, greeks=False).tables["margins"]
        for m in (up, down)
    ]
    for i, account in enumerate(("a", "b")):
        value, error = found[account, "intensity", "", ""]
        change = (tables[0]["expected_shortfall"][i] - tables[1]["expected_shortfall"][i]) / 4.8
        noise = np.hypot(tables[0]["es_standard_error"][i], tables[1]["es_standard_error"][i]) / 4.8
        assert error > 0
        assert abs(value - change) <= 4 * np.hypot(error, noise)


def one_price(specified: ModelSpecification) -> Table:
    """Greeks of one unit of A at 100, held long over a day, under the linear map and without drift."""
    market = snapshot({"A": (100.0, "USD")})
    held = portfolio(table([instrument("A", "spot", "A")]), {"x": {"A": 1.0}})
    linear = replace(specified, price_map=PriceMap.LINEAR)
    drawn = pmvar.simulate(linear, market, seed=2, n_scenarios=65_536, horizon="1d", drift=Drift.NONE)
    return greeks_of(pmvar.margin_report(pmvar.reprice(held, market, drawn), held, MarginRules()))


def assert_slope(found: tuple[float, float], shortfall: Callable[[float], float], at: float, precise: float) -> None:
    """Within four standard errors of the difference of an exact shortfall, an error below `precise` of it."""
    value, error = found
    exact = (shortfall(1.01 * at) - shortfall(0.99 * at)) / (0.02 * at)
    assert abs(value - exact) <= 4 * error
    assert error < precise * abs(exact)


@pytest.mark.parametrize("moved", ["intensity", "own_intensity"])
def test_intensities_by_law(moved):
    """Merton's mixture gives the shortfall as a function of both intensities, the forecast held."""
    m, d, own_m, own_d, sigma = -0.05, 0.02, -0.05, 0.03, 0.04
    at = {"intensity": 20.0, "own_intensity": 12.0}
    own = {"intensity": at["own_intensity"], "mean": own_m, "deviation": own_d}
    jumps = {"intensity": at["intensity"], "mean": m, "deviation": d, "own": {"A:spot": own}}
    specified = replace(specification({"A:spot": sigma}, model="merton"), parameters={"jumps": jumps})

    def shortfall(rate: float) -> float:
        both = at | {moved: rate}
        rest = sigma**2 - (both["intensity"] * (m**2 + d**2) + both["own_intensity"] * (own_m**2 + own_d**2)) / 365
        i, j = (n.ravel() for n in np.meshgrid(np.arange(9.0), np.arange(9.0)))
        weight = stats.poisson.pmf(i, both["intensity"] / 365) * stats.poisson.pmf(j, both["own_intensity"] / 365)
        mean, deviation = i * m + j * own_m, np.sqrt(rest + i * d**2 + j * own_d**2)
        return 100 * quantile_and_shortfall(
            lambda x: float(weight @ stats.norm.cdf((x + mean) / deviation)), 0.99, high=1.0
        )[1]  # fmt: skip

    factor = "" if moved == "intensity" else "A:spot"
    assert_slope(one_price(specified)["x", moved, factor, ""], shortfall, at[moved], 0.15)


def test_the_intensity_of_jumps_of_variance_by_law():
    """A variance that hardly moves of itself: x of a day is normal with a compound Poisson sum, its compensator moving
    with the intensity, and the shortfall follows from the inverted characteristic function."""
    v, rate, m, d, up, rho = 0.25, 15.0, -0.04, 0.02, 0.05, -0.4
    variance = {"A": {"kappa": 1.0, "theta": v, "vol_of_variance": 1e-3, "initial": v}}
    row = {"mean": m, "deviation": d, "variance_mean": up, "correlation": rho}
    specified = replace(
        specification({"A:spot": 0.03, "A:vol": 0.05}, model="svcj"),
        parameters={"variance": variance, "jumps": {"intensity": rate, "by_underlying": {"A": row}}},
    )
    relative = np.exp(m + d**2 / 2) / (1 - rho * up) - 1

    def shortfall(rate: float) -> float:
        def phi(u: np.ndarray) -> np.ndarray:
            size = np.exp(1j * u * m - 0.5 * (d * u) ** 2) / (1 - 1j * u * rho * up)
            drift = -1j * u * (v / 2 + rate * relative)
            return np.exp((drift - 0.5 * v * u**2 + rate * (size - 1)) / 365)

        law = Inverted(phi, most=9 / np.sqrt(v / 365))
        return 100 * quantile_and_shortfall(
            lambda x: 0.5 + float(np.sum(np.imag(np.exp(1j * law.u * x) * law.weight))), 0.99, high=1.0
        )[1]  # fmt: skip

    assert_slope(one_price(specified)["x", "intensity", "", ""], shortfall, rate, 0.1)


@pytest.mark.parametrize("measure", list(Measure))
@pytest.mark.parametrize("nu", [None, 5.0])
def test_correlation_of_a_linear_book(nu, measure):
    """d(k√(w'Σw))/dρ_ij = k·w_iw_jσ_iσ_j/√(w'Σw), both entries moving; and by volatility; and homogeneity: Σ σ∂σ is
    the margin itself."""
    sigma, weight, level = np.array([0.02, 0.03, 0.04]), np.array([5e4, -3e4, 2e4]), 0.99
    c = np.array([[1, 0.6, 0.3], [0.6, 1, -0.2], [0.3, -0.2, 1.0]])
    names = ("A", "B", "C")
    market = snapshot({u: (100.0, "USD") for u in names})
    specified = specification(
        {f"{u}:spot": s for u, s in zip(names, sigma, strict=True)}, model="t" if nu else "gaussian",
        degrees_of_freedom=nu, correlation=c, price_map=PriceMap.LINEAR,
    )  # fmt: skip
    held = portfolio(
        table([instrument(u, "spot", u) for u in names]), {"x": dict(zip(names, weight / 100, strict=True))}
    )
    drawn = pmvar.simulate(specified, market, seed=2, n_scenarios=32_768, horizon="1d", drift=Drift.NONE)
    found = pmvar.margin_report(pmvar.reprice(held, market, drawn), held, MarginRules(level=level, measure=measure))
    law = stats.t(nu, scale=np.sqrt((nu - 2) / nu)) if nu else stats.norm()
    k = law.ppf(level) if measure is Measure.VALUE_AT_RISK else law.expect(lambda x: x, lb=law.ppf(level)) / (1 - level)
    d = weight * sigma
    sd = np.sqrt(d @ c @ d)
    rows = greeks_of(found)
    for i, u in enumerate(names):
        value, error = rows["x", "volatility", f"{u}:spot", ""]
        assert abs(value - k * weight[i] * (c @ d)[i] / sd) <= 4 * error
        for j in range(i + 1, 3):
            value, error = rows["x", "correlation", f"{u}:spot", f"{names[j]}:spot"]
            assert 0 < error < 0.2 * k * np.abs(np.outer(d, d)).max() / sd
            assert abs(value - k * d[i] * d[j] / sd) <= 4 * error
    total = sum(rows["x", "volatility", f"{u}:spot", ""][0] * s for u, s in zip(names, sigma, strict=True))
    margin = found.tables["margins"]["initial_margin"][0]
    # Not to rounding under a t: a price stops at zero, where its volatility moves it no more.
    tolerance = (5e-4 if nu else 1e-6) if measure is Measure.EXPECTED_SHORTFALL else 0.05
    assert total == pytest.approx(margin, rel=tolerance)


def test_a_filtered_model_has_filter_parameters():
    """Through two days of GARCH, an expiry inside the first included: finite, with errors, against differences."""
    market, specified = mixed_market(), model("t-garch")
    found = greeks_of(run(specified, market, drift=Drift.NONE, rules=MarginRules()))
    assert {"variance", "omega", "alpha", "gamma", "beta", "correlation"} <= {p for _, p, *_ in found}
    assert all(np.isfinite(v) and np.isfinite(e) for v, e in found.values())
    size, factor = 1e-4, "BTC:spot"

    def moved(s: float) -> ModelSpecification:
        filters = {k: dict(v) for k, v in specified.state["filter"].items()}
        filters[factor]["alpha"] += s
        return replace(specified, state={"filter": filters})

    change = difference(moved(size), moved(-size), market, drift=Drift.NONE)
    largest = max(abs(v) for (a, p, *_), (v, _) in found.items() if (a, p) == ("a", "alpha"))
    assert found["a", "alpha", factor, ""][0] == pytest.approx(change["a"] / (2 * size), abs=1e-3 * largest)


def test_what_was_reported_before_does_not_matter():
    """Slopes are kept with the scenarios: after a report of another book, with fewer times, the same bits."""
    market = mixed_market()

    def drawn() -> pmvar.ScenarioSet:
        return pmvar.simulate(model("t"), market, seed=3, n_scenarios=4096)

    def greeks(rows: list[Row], scenarios: pmvar.ScenarioSet) -> Table:
        held = hold(rows, instruments=listed(rows))
        return greeks_of(pmvar.margin_report(pmvar.reprice(held, market, scenarios), held, MarginRules()))

    used = drawn()
    before = greeks([("a", "BTC-PERPETUAL", 1e4)], used)
    assert used.slopes is not None and len(used.slopes._drift) == 1
    after = greeks(HELD, used)
    assert len(used.slopes._drift) == 2
    assert after == greeks(HELD, drawn()) and after.keys() > before.keys()


def test_no_intensity_no_nan():
    """λ = 0: nothing jumps, nothing is known of how often it might, and nothing breaks."""
    specified = replace(model("t-jump"), parameters={"jumps": JUMPS | {"intensity": 0.0}})
    found = run(specified, mixed_market(), drift=Drift.FORWARD, rules=MarginRules()).tables["model_greeks"]
    assert len(found["value"]) and np.all(np.isfinite(found["value"])) and np.all(np.isfinite(found["standard_error"]))


def test_a_floor_that_binds_and_a_run_without_greeks():
    market = mixed_market()
    floored = run(model("t"), market, drift=Drift.FORWARD, rules=MarginRules(floor=1e12))
    quick = run(model("t"), market, drift=Drift.FORWARD, rules=MarginRules(), greeks=False)
    for found in (floored, quick):
        assert len(found.tables["model_greeks"]["value"]) == 0
    assert Sampling(floored.settings["sampling"]) is Sampling.SOBOL_IS
