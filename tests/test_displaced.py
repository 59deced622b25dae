"""Prices at or below zero, shifted and Bachelier: every product against a plain twin, Greeks, gradients, drift."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array

import pmvar
from pmvar.errors import InputError
from pmvar.kernels.bachelier import normalised_bachelier
from pmvar.kernels.european import Formula
from pmvar.kernels.smile import place
from pmvar.market.price_scale import LOGNORMAL, PriceScale
from pmvar.market.snapshot import MarketSnapshot
from pmvar.scenarios import ScenarioSet, simulate, stress_scenarios
from pmvar.types import PATH_TILE, Greek, Precision, PriceModel, Sampling
from pmvar.valuation.blocks import Block, no_bump
from pmvar.valuation.exposure import block_exposure
from pmvar.valuation.plan import make_plan
from pmvar.valuation.today import Moves, terms_today, values_and_greeks, values_under
from pmvar.valuation.world import Slice
from tests.displaced import (
    FAR,
    FORWARD,
    MODEL,
    NEAR,
    PRODUCTS,
    QUOTE,
    SCALES,
    SPOT,
    displaced,
    market,
    option_price,
    twin_value,
)
from tests.markets import AS_OF, DAY, instrument, portfolio, table

BACHELIER = PriceScale(PriceModel.BACHELIER, 20.0)
HORIZON = AS_OF + 2 * DAY


@cache
def drawn() -> ScenarioSet:
    return simulate(MODEL, market(), seed=2, n_scenarios=PATH_TILE, horizon="2d", sampling=Sampling.MC)


def held(instruments=PRODUCTS) -> pmvar.Portfolio:
    return portfolio(instruments, {"A": dict.fromkeys(map(str, instruments.instrument_id), 1.0)})


def twin(scenarios: ScenarioSet, where: MarketSnapshot) -> np.ndarray:
    """P&L of every product, from the definitions."""
    end, shock = np.asarray(scenarios.tile(0).shock), {}
    for i, f in enumerate(scenarios.factors):
        shock[f] = end[:, i]
    out = np.empty((len(PRODUCTS), len(end)))
    for i in range(len(PRODUCTS)):
        u, expiry, kind = str(PRODUCTS.underlying[i]), float(PRODUCTS.expiry[i]), PRODUCTS.kind[i]
        anchor = min(expiry, scenarios.horizon_end)
        x = np.asarray(scenarios.at(0, anchor))[:, scenarios.factors.index(f"{u}:spot")]
        log_vol = np.zeros_like(x)
        if kind == "option" and expiry > scenarios.horizon_end:
            f = scenarios.factors.index(f"{u}:vol")
            tenor = scenarios.tenor[f] * DAY / max(expiry - scenarios.horizon_end, DAY)
            cap = scenarios.vol_cap
            log_vol = shock[f"{u}:vol"] * tenor ** scenarios.term_exponent[f]
            log_vol = cap * np.tanh(log_vol / cap) if np.isfinite(cap) else log_vol
        nothing = np.zeros(1)
        at = {"anchor": scenarios.horizon_end}
        before = twin_value(PRODUCTS, i, where, time=AS_OF, x=nothing, log_vol=nothing, anchor=AS_OF)
        after = twin_value(PRODUCTS, i, where, time=scenarios.horizon_end, x=x, log_vol=log_vol, **at)
        # The price that is quoted in euros, converted by what the instrument settles in.
        names = [n for n in ("EUR",) if PRODUCTS.settlement_currency[i] == n]
        base0 = np.prod([SPOT[n] for n in names])
        base1 = base0 * np.exp(np.sum([shock[f"{n}:spot"] for n in names], axis=0)) if names else np.ones_like(x)
        carried = kind in ("option", "spot")
        out[i] = after * base1 - before * base0 if carried else (after - before) * base1
    return out


# ---- P&L -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "flat", "tolerance"), [(Precision.FLOAT64, True, 1e-12), (Precision.FLOAT32, False, 5e-5)]
)
def test_every_product_against_the_plain_twin(precision: Precision, flat: bool, tolerance: float) -> None:
    """Of what x = 1 moves a contract by. With a smile, its tabulation at nodes a tenth of a large move apart is left,
    and moves above 1 are left out."""
    where = market(flat=flat)
    pnl = pmvar.reprice(held(), where, drawn(), precision=precision)
    assert not pnl.plan.unpriced
    unit = np.array([10.0 * where.base_unit(str(u)) for u in PRODUCTS.underlying])
    error = np.abs(np.asarray(pnl.tile(0), np.float64)[pnl.row] - twin(drawn(), where)) / unit[:, None]
    if not flat:
        inside = np.abs(np.asarray(drawn().tile(0).shock)[:, :3]).max(axis=1) < 1.0
        assert inside.mean() > 0.99
        error = error[:, inside]
    assert error.max() <= tolerance, PRODUCTS.instrument_id[np.argmax(error.max(axis=1))]


def test_stress_moves_by_a_share_of_the_unit() -> None:
    """−50% takes .5·A off a Bachelier price, and half of price + shift off a shifted one; −300% only off the former."""
    stress = stress_scenarios(
        {"a": {"WTI:spot": -0.5}, "b": {"GAS:spot": -0.5}, "c": {"WTI:spot": -3.0}}, MODEL, market()
    )
    pnl = pmvar.reprice(held(), market(), stress, precision=Precision.FLOAT64)
    tile = np.asarray(pnl.tile(0))[pnl.row]
    row = {str(name): i for i, name in enumerate(PRODUCTS.instrument_id)}
    np.testing.assert_allclose(tile[row["WTI-perpetual"], :3], [-100.0, 0.0, -600.0], atol=1e-9)
    np.testing.assert_allclose(tile[row["GAS-spot"], 1], -10 * 0.5 * 4.5 * 1.08, rtol=1e-12)
    with pytest.raises(InputError, match="exceed −1"):
        stress_scenarios({"x": {"GAS:spot": -1.0}}, MODEL, market())
    with pytest.raises(InputError, match="exceed −1"):
        stress_scenarios({"x": {"WTI:vol": -1.0}}, MODEL, market())


def test_forwards_are_martingales() -> None:
    """Σw·P&L of futures is 0 within 4 standard errors, at every expiry, inside the horizon too."""
    some = table([instrument(f"{u}-{t}", "future", u, quote=QUOTE[u], expiry=t) for u in SCALES
                  for t in (AS_OF + 1.3 * DAY, NEAR, FAR)])  # fmt: skip
    model = replace(MODEL, correlation=np.eye(5))
    made = simulate(model, market(), seed=5, n_scenarios=16_384, horizon="2d", sampling=Sampling.MC)
    pnl = pmvar.reprice(held(some), market(), made, precision=Precision.FLOAT64)
    gain = np.concatenate([np.asarray(t)[pnl.row] for t in pnl], axis=1)[:, :16_384]
    assert np.all(np.abs(gain.mean(axis=1)) <= 4 * gain.std(axis=1) / np.sqrt(gain.shape[1]))
    assert np.all(gain.std(axis=1) > 0.1)


def test_a_scale_of_the_price_itself_is_lognormal_to_first_order() -> None:
    """A = S₀ and a small move: a Bachelier future's P&L, and that of a tiny shift, is the lognormal's."""
    some = table([instrument("F", "future", "WTI", expiry=NEAR), instrument("S", "spot", "WTI")])
    gains = {}
    for model, shift in ((PriceModel.LOGNORMAL, 0.0), (PriceModel.SHIFTED, 1e-9), (PriceModel.BACHELIER, 60.0)):
        scale = PriceScale(model, shift) if shift else LOGNORMAL
        curve = replace(market().forwards["WTI"], spot=60.0, forward=np.array([60.0, 60.0]), scale=scale)
        where = replace(market(), spot=np.array([1.08, -0.5, 60.0]), forwards={"WTI": curve},
                        scales={"WTI": scale} if shift else {}, vols={})  # fmt: skip
        stress = stress_scenarios({"up": {"WTI:spot": 1e-4}}, MODEL, where)
        pnl = pmvar.reprice(held(some), where, stress, precision=Precision.FLOAT64)
        gains[model] = np.asarray(pnl.tile(0))[pnl.row, 0]
    np.testing.assert_allclose(gains[PriceModel.SHIFTED], gains[PriceModel.LOGNORMAL], rtol=1e-9)
    np.testing.assert_allclose(gains[PriceModel.BACHELIER], gains[PriceModel.LOGNORMAL], rtol=1e-9)


# ---- values, Greeks, gradients -------------------------------------------------------------------------------------


def test_values_are_the_formulas() -> None:
    value, _ = values_and_greeks(PRODUCTS, market())
    nothing = np.zeros(1)
    for i in range(len(PRODUCTS)):
        one = twin_value(PRODUCTS, i, market(), time=AS_OF, x=nothing, log_vol=nothing, anchor=AS_OF)[0]
        one *= SPOT.get(str(PRODUCTS.settlement_currency[i]), 1.0)
        expected = 0.0 if PRODUCTS.kind[i] in ("future", "perpetual") else one
        assert value[i] == pytest.approx(expected, abs=1e-12 * 200), PRODUCTS.instrument_id[i]


def test_greeks_against_bumped_markets() -> None:
    """Delta per unit of price with forwards moving on their scale and strikes' volatilities held; gamma; theta is
    that of `values_under`, which the twin has checked."""
    value, found = values_and_greeks(PRODUCTS, market())
    terms, h = terms_today(PRODUCTS, market()), 1e-4
    for u in SCALES:
        own = PRODUCTS.underlying == u
        by = {s.greek: s.value for s in found if s.factor == f"{u}:spot"}
        unit = market().unit(u)

        def at(price_move: float, u=u, own=own) -> np.ndarray:
            x = float(SCALES[u].move(SPOT[u], SPOT[u] + price_move))
            moves = Moves(own[:, None] * x, 0.0, 0.0, 0.0, 0.0)
            return values_under(PRODUCTS, terms, moves)[:, 0]

        up, now, down = at(h * unit), at(0.0), at(-h * unit)
        scale = 10.0 * 1.08
        np.testing.assert_allclose(by[Greek.DELTA], (up - down) / (2 * h * unit), atol=1e-5 * scale)
        is_option = PRODUCTS.kind == "option"
        gamma = ((up - 2 * now + down) / (h * unit) ** 2)[is_option]
        np.testing.assert_allclose(by[Greek.GAMMA][is_option], gamma, atol=1e-4 * scale / unit)
    assert np.all(np.isfinite(value))


def test_exposures_against_displaced_scenarios() -> None:
    """Derivatives by the scenario's x and settlement, and by today's x (which moves both ends), against differences."""
    some = PRODUCTS.take((PRODUCTS.expiry == NEAR) | np.isinf(PRODUCTS.expiry))
    plan = make_plan(some, market(flat=True), drawn(), Precision.FLOAT64)
    world, h, none = plan.layout.world(0), 1e-5, no_bump(jnp.dtype(jnp.float64))

    @eqx.filter_jit
    def pnl(block: Block, forward: Array, base: Array, spot: Array) -> Array:
        moved = world._replace(
            log_forward=world.log_forward + forward,
            log_base=world.log_base + base,
            base=world.base * jnp.exp(base),
        )
        return block.pnl(moved, none._replace(log_spot=spot))

    kinds = set()
    for index, block in plan.blocks:
        kinds.add((type(block).__name__, getattr(block, "formula", None)))
        found = block_exposure(block, world, drawn().vol_cap)
        for field, where in (("log_forward", (1, 0, 0)), ("log_base", (0, 1, 0)), ("log_spot", (0, 0, 1))):
            up, down = (pnl(block, *(jnp.asarray(side * h * w) for w in where)) for side in (1, -1))
            error = np.asarray(getattr(found, field) - (up - down) / (2 * h))[index >= 0]
            assert np.abs(error).max() <= 1e-6 * 200, (type(block).__name__, field)
    assert kinds == {("DisplacedBlock", None), ("EuropeanBlock", Formula.LINEAR), ("EuropeanBlock", Formula.BACHELIER)}


@pytest.mark.parametrize("precision", list(Precision))
def test_a_world_says_twice_what_it_says(precision: Precision) -> None:
    """What is kept beside `log_forward` and `log_base` is theirs: places bit by bit, prices to a rounding."""
    layout = make_plan(PRODUCTS, market(), drawn(), precision).layout
    world, eps = layout.world(0), float(jnp.finfo(str(precision)).eps)
    assert set(layout.place_row) == {"GAS", "WTI"}
    for underlying, row in layout.place_row.items():
        expected = place(world.log_forward[layout.slice_row[Slice(underlying, np.inf)]])
        for kept, own in zip(world.place, expected, strict=True):
            np.testing.assert_array_equal(kept[row], own)
        assert np.ptp(np.asarray(world.place.node[row])) > 5
    np.testing.assert_allclose(world.base, np.exp(np.asarray(world.log_base, np.float64)), rtol=2 * eps)


# ---- the curve, the scale ------------------------------------------------------------------------------------------


def test_forward_curves_are_linear_on_their_scale() -> None:
    for u, (near, far) in FORWARD.items():
        curve = market().forwards[u]
        middle = (NEAR + FAR) / 2
        x = (float(SCALES[u].move(SPOT[u], near)) + float(SCALES[u].move(SPOT[u], far))) / 2
        assert float(curve.at(middle)) == pytest.approx(displaced(u, SPOT[u], x), rel=1e-12)
        assert float(curve.at(AS_OF)) == SPOT[u] and float(curve.at(NEAR)) == pytest.approx(near, rel=1e-14)


@pytest.mark.parametrize("scale", [LOGNORMAL, *SCALES.values()])
def test_a_scale_undoes_itself(scale: PriceScale) -> None:
    price = np.array([2.0, 5.0, 90.0])
    x = np.array([-0.3, 0.0, 1.2])
    np.testing.assert_allclose(scale.move(price, scale.moved(price, x)), x, atol=1e-14)
    h = 1e-6
    np.testing.assert_allclose(scale.unit(price), (scale.moved(price, h) - scale.moved(price, -h)) / (2 * h), rtol=1e-9)
    np.testing.assert_allclose(scale.moved(price, scale.of_share(0.1)) - price, 0.1 * scale.unit(price), rtol=1e-12)


@pytest.mark.parametrize(
    ("model", "shift"), [("lognormal", 1.0), ("shifted", 0.0), ("bachelier", -1.0), ("shifted", np.inf)]
)
def test_shifts_that_make_no_scale(model: str, shift: float) -> None:
    with pytest.raises(InputError, match="shift above 0"):
        PriceScale(PriceModel(model), shift)


def test_bachelier_oracle() -> None:
    """F=100, K=105, σ=15, T=.5: cited value, in the twin and through the kernel."""
    assert option_price(100.0, 105.0, 0.75 * np.sqrt(0.5), 1.0, BACHELIER) == pytest.approx(
        2.1930629406325926, rel=1e-14
    )
    k, s = jnp.asarray(5.0 / 20), jnp.asarray(0.75 * np.sqrt(0.5))
    assert 20 * float(normalised_bachelier(k, s, jnp.asarray(1.0))) == pytest.approx(2.1930629406325926, rel=1e-14)


# ---- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        (instrument("X", "perpetual", "WTI", settlement="inverse"), "of a kind, settlement or exercise"),
        (instrument("X", "option", "WTI", strike=1.0, expiry=FAR, put_call="call", exercise="american",
                    deliverable="spot"), "of a kind, settlement or exercise"),
        (instrument("X", "perpetual", "EUR", settled_in="WTI"), "by way of WTI"),
    ],
)  # fmt: skip
def test_what_is_not_priced_is_left_out_by_name(row: dict[str, object], reason: str) -> None:
    plan = make_plan(table([row]), market(), drawn(), Precision.FLOAT64)
    assert reason in plan.unpriced[0] and "X" in plan.unpriced[0]
