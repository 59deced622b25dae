"""Today's volatility from option quotes: a floor under the model's own, in every kind of model, named in the notes."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import pmvar
from pmvar.errors import InputError
from pmvar.io.book import load_book
from pmvar.models.at_volatility import today
from pmvar.risk.rules import MarginRules
from pmvar.scenarios.implied import with_implied_volatility
from pmvar.types import Drift, PriceMap
from tests.books import small_book
from tests.markets import flat_vol, instrument, portfolio, snapshot, specification, table
from tests.test_anti_procyclicality import UNIT_ES, filtered, posterior
from tests.test_cli import Cli, cli

__all__ = ["cli"]

VOL = 0.8
MARKET = snapshot({"A": (100.0, "USD"), "B": (100.0, "USD")}, vols={"A": flat_vol(VOL)})


@pytest.mark.parametrize("days", [365, 252])
@pytest.mark.parametrize("sigma", [0.02, 0.06])
def test_the_margin_of_a_spot_is_that_of_the_higher_volatility(sigma: float, days: int):
    given = specification({"A:spot": sigma, "B:spot": 0.01}, price_map=PriceMap.LINEAR, steps_per_year=days)
    model, notes = with_implied_volatility(given, MARKET, horizon="1d")
    implied = VOL / np.sqrt(days)
    assert (model is given) == (implied < sigma) and len(notes) == 1
    assert model.factors[1] == given.factors[1], "no surface, no change"
    held = portfolio(table([instrument("A-SPOT", "spot", "A")]), {"long": {"A-SPOT": 1.0}})
    drawn = pmvar.simulate(model, MARKET, seed=1, n_scenarios=8192, horizon="1d", drift=Drift.NONE)
    found = pmvar.margin_report(pmvar.reprice(held, MARKET, drawn), held, MarginRules(), greeks=False)
    exact = 100 * max(sigma, implied) * UNIT_ES
    assert found.tables["margins"]["initial_margin"][0] == pytest.approx(exact, rel=4e-3)


def test_a_filter_starts_there_and_no_draw_starts_lower():
    model, notes = with_implied_volatility(filtered(posterior=posterior()), MARKET, horizon="2d")
    assert today(model)[0] == pytest.approx(VOL / np.sqrt(365)) and model.state["filter"]["A:spot"]["omega"] == 1e-5
    assert today(model)[1] == 0.02 and "A 80% (model 57%)" in notes[0] and "risk premium" in notes[0]
    assert model.posterior is not None
    np.testing.assert_allclose(model.posterior.variance, VOL**2 / 365)
    wild = replace(posterior(), variance=np.linspace(1e-4, 1e-2, 8)[:, None])
    mixed, _ = with_implied_volatility(filtered(posterior=wild), MARKET, horizon="2d")
    assert mixed.posterior is not None
    np.testing.assert_allclose(mixed.posterior.variance, np.maximum(wild.variance, VOL**2 / 365))


def test_a_model_without_a_volatility_of_its_own_is_refused():
    heston = replace(specification({"A:spot": 0.01, "A:vol": 0.1}), model="heston")
    with pytest.raises(InputError, match="heston has no volatility for each factor"):
        with_implied_volatility(heston, MARKET, horizon="1d")


def test_a_run_says_so(cli: Cli, tmp_path: Path):
    """The quotes of the nearest expiry at the money, for a horizon before it: 55% of BTC, 70% of ETH."""
    book = small_book(tmp_path / "book")
    document = json.loads((book / "model.json").read_text())
    for f in document["factors"]:
        if f["name"] == "BTC:spot":
            f["volatility"] = 0.9 / np.sqrt(365)
        if f["name"] == "ETH:spot":
            f["volatility"] = 0.3 / np.sqrt(365)
    (book / "model.json").write_text(json.dumps(document))
    plain, raised = load_book(book), load_book(book, overrides={"volatility": "implied"})
    sigma = dict(zip(raised.model.factor_names, today(raised.model), strict=True))
    assert sigma["ETH:spot"] == pytest.approx(0.70 / np.sqrt(365), rel=0.01)
    assert sigma["BTC:spot"] == pytest.approx(0.9 / np.sqrt(365)) and plain.model != raised.model
    done = cli("run", book, "--out", tmp_path / "run", "--paths", 2048, "--volatility", "implied",
               "--no-components")  # fmt: skip
    assert done.code == 0, done.err
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["settings"]["volatility"] == "implied" and "ETH 70% (model 30%)" in json.dumps(manifest["notes"])
    assert cli("reproduce", tmp_path / "run").code == 0
