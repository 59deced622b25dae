"""Scenario sets: stress lists, padding, and what a tile makes of shocks of prices and vols."""

import jax.numpy as jnp
import numpy as np
import pytest

from pmvar.errors import InputError
from pmvar.scenarios import ScenarioSet, simulate, stress_scenarios
from pmvar.types import PATH_TILE, Drift, FactorKind
from pmvar.valuation.world import FEWEST_ROWS, Layout, Slice
from tests.markets import AS_OF, DAY, YEAR, carry_curve, snapshot, specification

MARKET = snapshot(
    {"BTC": (60_000.0, "USD"), "SOL": (150.0, "USDC"), "USDC": (0.999, "USD"),
     "DAX": (5_000.0, "EUR"), "EUR": (1.08, "USD")},
    forwards={"BTC": carry_curve(60_000.0, 0.08), "DAX": carry_curve(5_000.0, -0.03)},
)  # fmt: skip
FACTORS = ("BTC:spot", "BTC:vol", "DAX:spot", "DAX:vol", "EUR:spot", "SOL:spot", "USDC:spot")
MODEL = specification(dict.fromkeys(FACTORS, 0.02))


def made(shock: np.ndarray, *, factors=FACTORS, days=2.0, cap=1.6, exponent=0.0, tenor=30.0) -> ScenarioSet:
    """A set from ready log changes [scenario, factor]."""
    n = len(factors)
    return ScenarioSet(
        factors, AS_OF, AS_OF + days * DAY, jnp.asarray(shock)[:, None, :], np.ones(len(shock)), 1,
        np.full(n, exponent), np.full(n, tenor), cap,
    )  # fmt: skip


def world(scenarios: ScenarioSet, *slices: Slice, moving=frozenset(FactorKind)):
    """The world of the first tile, float64, without the rows that fill it up, which stand still."""
    whole = Layout(MARKET, scenarios, slices, jnp.dtype("float64")).world(0, moving=moving)
    n = len(slices)
    for filled, still in zip(whole[:2], (0.0, 1.0), strict=True):
        assert len(filled) == FEWEST_ROWS
        np.testing.assert_array_equal(filled[n:], still)
    return whole._replace(log_forward=whole.log_forward[:n], vol_multiplier=whole.vol_multiplier[:n])


# ---- stress lists --------------------------------------------------------------------------------------------------


def test_stress_moves_are_relative_and_the_others_stand_still():
    stress = {"crash": {"BTC:spot": -0.3, "BTC:vol": 0.5}, "rally": {"BTC:spot": 0.2}, "nothing": {}}
    scenarios = stress_scenarios(stress, MODEL, MARKET)
    assert scenarios.labels == ("crash", "rally", "nothing") and scenarios.n_scenarios == 3
    assert scenarios.horizon_end == scenarios.as_of == AS_OF
    ratio = np.exp(np.asarray(scenarios.shock[:, 0]))
    expected = np.ones((3, len(FACTORS)))
    expected[0, :2], expected[1, 0] = [0.7, 1.5], 1.2
    np.testing.assert_allclose(ratio, expected, rtol=1e-15)
    np.testing.assert_array_equal(scenarios.weight, 1.0)


def test_a_stressed_vol_moves_all_expiries_alike_and_is_not_capped():
    """σ₁/σ₀ − 1 of all vols: a fivefold vol is fivefold, though the cap of simulated shocks is e^1.6 = 4.95."""
    scenarios = stress_scenarios({"vol": {"BTC:vol": 9.0}}, specification({"BTC:spot": 0.1, "BTC:vol": 0.1}), MARKET)
    multiplier = world(scenarios, *(Slice("BTC", AS_OF + d * DAY) for d in (1, 30, 700))).vol_multiplier
    np.testing.assert_allclose(multiplier[:, 0], 10.0, rtol=1e-14)
    np.testing.assert_array_equal(multiplier[:, 1:], 1.0)


@pytest.mark.parametrize("move", [-1.0, -1.5, np.nan, np.inf, -np.inf])
def test_a_move_beyond_total_loss_is_refused(move):
    with pytest.raises(InputError, match=r"a move must exceed −1"):
        stress_scenarios({"end": {"BTC:spot": move}}, MODEL, MARKET)


def test_every_unknown_factor_of_a_stress_list_is_named():
    stress = {"a": {"BTC:spot": -0.1, "XRP:spot": -0.1}, "b": {"BTC:rate.1y": 0.01}}
    with pytest.raises(InputError, match="a stress moves a factor of the model") as caught:
        stress_scenarios(stress, MODEL, MARKET)
    assert [p.column for p in caught.value.problems] == ["a: XRP:spot", "b: BTC:rate.1y"]


def test_no_stress_at_all():
    scenarios = stress_scenarios({}, MODEL, MARKET)
    assert scenarios.n_scenarios == scenarios.n_tiles == 0


# ---- tiles -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 4095, 4096, 4097, 10_000])
def test_the_last_tile_is_padded_with_zeros(n):
    shock = np.random.default_rng(1).normal(size=(n, len(FACTORS)))
    scenarios = made(shock)
    assert scenarios.n_tiles == -(-n // PATH_TILE)
    whole = np.concatenate([scenarios.tile(i).shock for i in range(scenarios.n_tiles)])
    assert whole.shape == (scenarios.n_tiles * PATH_TILE, len(FACTORS))
    np.testing.assert_array_equal(whole[:n], shock)
    np.testing.assert_array_equal(whole[n:], 0.0)
    assert [scenarios.tile(i).index for i in range(scenarios.n_tiles)] == list(range(scenarios.n_tiles))


def test_steps_add_up():
    """A set of several steps moves by their sum."""
    shock = np.random.default_rng(2).normal(size=(100, 3, 2))
    scenarios = ScenarioSet(
        ("BTC:spot", "BTC:vol"), AS_OF, AS_OF + DAY, jnp.asarray(shock), np.ones(100), 1, np.zeros(2), np.ones(2), 1.6
    )
    np.testing.assert_allclose(scenarios.tile(0).shock[:100], shock.sum(1), atol=1e-15)


# ---- worlds ----------------------------------------------------------------------------------------------------------


def test_prices_in_base_currency_multiply_along_their_chain():
    shock = np.random.default_rng(3).normal(0, 0.1, (50, len(FACTORS)))
    base = np.asarray(world(made(shock), Slice("BTC", np.inf)).log_base)[:, :50]
    of = dict(zip(FACTORS, shock.T, strict=True))
    expected = {
        "BTC": of["BTC:spot"],
        "SOL": of["SOL:spot"] + of["USDC:spot"],
        "USDC": of["USDC:spot"],
        "DAX": of["DAX:spot"] + of["EUR:spot"],
        "EUR": of["EUR:spot"],
    }
    for row, asset in enumerate(MARKET.asset):
        np.testing.assert_allclose(base[row], expected[asset], atol=1e-15)
    np.testing.assert_array_equal(base[len(MARKET.asset) :], 0.0)


def test_forwards_are_martingales_and_spots_move_as_they_are():
    """F₁(T) = S₁·F₀(T)/F₀(h): of a standing spot, the forward falls by the carry to the horizon."""
    shock = np.zeros((2, len(FACTORS)))
    shock[1, [0, 2]] = [0.1, -0.2]
    slices = [Slice("BTC", np.inf), Slice("BTC", AS_OF + YEAR), Slice("DAX", AS_OF + YEAR), Slice("DAX", np.inf)]
    forward = np.asarray(world(made(shock, days=5.0), *slices).log_forward)[:, :2]
    carry = 5 / 365
    expected = np.array([0.0, -0.08 * carry, 0.03 * carry, 0.0])
    np.testing.assert_allclose(forward[:, 0], expected, atol=1e-15)
    np.testing.assert_allclose(forward[:, 1], expected + [0.1, 0.1, -0.2, -0.2], atol=1e-15)


def test_a_slice_that_expires_inside_ends_at_its_bridged_spot():
    model = specification({"BTC:spot": 0.03, "BTC:vol": 0.05}, model="t", degrees_of_freedom=4.0)
    scenarios = simulate(model, MARKET, seed=1, n_scenarios=PATH_TILE, horizon="3d", drift=Drift.NONE)
    inside, at_end, after = (AS_OF + d * DAY for d in (1.5, 3.0, 4.0))
    got = world(scenarios, *(Slice("BTC", t) for t in (inside, at_end, after)))
    # ln F₁/F₀ = ln S(T)/F₀(T) for those settled, with F₀(T) = S₀e^{.08T}.
    for row, (time, spot) in enumerate(
        [(inside, scenarios.at(0, inside)), (at_end, scenarios.tile(0).shock), (at_end, scenarios.tile(0).shock)]
    ):
        carry = 0.08 * (time - AS_OF) / YEAR
        np.testing.assert_allclose(got.log_forward[row], np.asarray(spot)[:, 0] - carry, atol=1e-15)
    # Nothing is left for a vol to act on.
    np.testing.assert_array_equal(got.vol_multiplier[:2], 1.0)


@pytest.mark.parametrize("cap", [0.5, 1.6, np.inf])
@pytest.mark.parametrize("exponent", [0.0, 0.4, 1.0])
def test_term_structure_and_cap_of_the_vol_shock(exponent, cap):
    """Δ ln σ(τ) = B·tanh(x·(tenor/τ)^a/B), τ the time left at the horizon and at least a day."""
    x = np.array([-3.0, -0.1, 0.0, 0.2, 1.0])
    shock = np.zeros((5, len(FACTORS)))
    shock[:, FACTORS.index("BTC:vol")] = x
    # Days to expiry today; two of them are the horizon.
    days = [2.1, 2.9, 3.0, 12.0, 32.0, 92.0, 362.0]
    got = world(made(shock, exponent=exponent, cap=cap, tenor=30.0), *(Slice("BTC", AS_OF + d * DAY) for d in days))
    scaled = x * (30 / np.maximum(np.array(days) - 2, 1.0))[:, None] ** exponent
    expected = np.exp(cap * np.tanh(scaled / cap)) if np.isfinite(cap) else np.exp(scaled)
    np.testing.assert_allclose(np.asarray(got.vol_multiplier)[:, :5], expected, rtol=1e-13)
    if np.isfinite(cap):
        assert np.all(np.abs(np.log(got.vol_multiplier)) <= cap * (1 + 1e-15))


def test_each_underlying_moves_with_its_own_factors():
    shock = np.zeros((1, len(FACTORS)))
    shock[0, [1, 3]] = [0.5, -0.25]
    got = world(made(shock), Slice("BTC", AS_OF + YEAR), Slice("DAX", AS_OF + YEAR))
    np.testing.assert_allclose(
        np.log(got.vol_multiplier[:, 0]), 1.6 * np.tanh(np.array([0.5, -0.25]) / 1.6), rtol=1e-14
    )


@pytest.mark.parametrize("kind", list(FactorKind))
def test_one_kind_of_factor_may_move_alone(kind):
    shock = np.random.default_rng(4).normal(0, 0.1, (9, len(FACTORS)))
    slices = Slice("BTC", AS_OF + YEAR), Slice("DAX", np.inf)
    whole, part = world(made(shock), *slices), world(made(shock), *slices, moving=frozenset({kind}))
    still = world(made(np.zeros((9, len(FACTORS)))), *slices)
    spot = kind is FactorKind.SPOT
    np.testing.assert_array_equal(part.log_forward, (whole if spot else still).log_forward)
    np.testing.assert_array_equal(part.log_base, (whole if spot else still).log_base)
    vol = kind is FactorKind.VOL
    np.testing.assert_array_equal(part.vol_multiplier, (whole if vol else still).vol_multiplier)
