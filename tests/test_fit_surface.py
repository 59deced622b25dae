"""Fitted surfaces: parameters that are found again, arbitrage that is not published, and recorded chains."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from pmvar.errors import InputError
from pmvar.io import import_deribit
from pmvar.io.book import load_book
from pmvar.io.populate import populate
from pmvar.kernels.svi import from_ssvi, one_svi, power_law
from pmvar.market.fit_smile import Quotes, fit_smile, rises, room
from pmvar.market.fit_surface import Expiry, arbitrage, fit_surface
from pmvar.market.surface import SviSlice
from pmvar.types import SECONDS_PER_YEAR, SurfaceKind

YEAR = SECONDS_PER_YEAR
CHAINS = Path(__file__).parents[1].parent / "shared" / "data" / "deribit_chains"


def quotes(p, time, *, half=0.002, n=31, reach=3.0):
    deviation = float(np.sqrt(SviSlice(0.0, p, 1.0, np.zeros(1)).vol(np.zeros(1))[0] ** 2))
    k = np.linspace(-reach, reach, n) * deviation
    vol = SviSlice(0.0, p, time, k).vol(k)
    return Quotes(k, vol - half, vol, vol + half)


def expiry(time, q):
    return Expiry(time * YEAR, 100 * np.exp(q.k), q)


def raw(a, b, rho, m, s):
    return one_svi((a, b, rho, m, s))


SOUND = raw(0.01, 0.08, -0.4, 0.02, 0.15)


def fitted(*args, **options):
    found = fit_smile(*args, **options)
    assert found is not None
    return found


def test_a_smile_free_of_arbitrage_is_found_again():
    fit = fitted(quotes(SOUND, 0.5), 0.5)
    q = quotes(SOUND, 0.5)
    assert np.abs(SviSlice(0.0, fit.svi, 0.5, q.k).vol(q.k) - q.vol).max() < 1e-3
    assert (fit.raised, fit.widened) == (1.0, 1.0)


def test_vogts_smile_is_fitted_without_its_arbitrage():
    vogt = raw(-0.0410, 0.1331, 0.3060, 0.3586, 0.4153)
    assert room(vogt) < 1
    k = np.linspace(-1.5, 1.5, 61)
    vol = SviSlice(0.0, vogt, 1.0, k).vol(k)
    fit = fitted(Quotes(k, vol - 0.01, vol, vol + 0.01), 1.0)
    assert room(fit.svi) >= 1
    assert np.abs(SviSlice(0.0, fit.svi, 1.0, k).vol(k) - vol).max() < 0.02


def test_an_expiry_that_crosses_the_one_before_is_lifted():
    earlier, later = quotes(SOUND, 0.5), quotes(raw(0.009, 0.08, -0.4, 0.02, 0.15), 0.52)
    first = fitted(earlier, 0.5)
    second = fitted(later, 0.52, before=first.svi)
    assert rises(fitted(later, 0.52).svi, first.svi) < 1 <= rises(second.svi, first.svi)
    assert room(second.svi) >= 1


def test_ssvi_is_found_again():
    time, theta = np.array([0.05, 0.25, 1.0]), np.array([0.003, 0.012, 0.05])
    law = np.asarray(power_law(jnp.asarray(theta), jnp.float64(0.7), jnp.float64(0.4)))
    slices = [raw(*from_ssvi(*map(jnp.float64, (t, -0.5, p)))) for t, p in zip(theta, law, strict=True)]
    chain = [expiry(t, quotes(p, t)) for t, p in zip(time, slices, strict=True)]
    fit = fit_surface("X", chain, as_of=0.0, kind=SurfaceKind.SSVI)
    for e in fit.expiries:
        assert np.abs(e.slice.vol(e.quotes.k) - e.quotes.vol).max() < 1e-3
        assert e.inside == (31, 31)
    assert fit.parameters["rho"] == pytest.approx(-0.5, abs=0.05)
    assert min(arbitrage(fit.surface)) >= 1
    assert fit.notes() == [
        "vols of X: ssvi, 3 expiries free of arbitrage; 93 of 93 two-sided quotes inside bid and ask"
    ]


def test_refusals_name_expiry_rule_and_fix():
    few = [expiry(0.5, quotes(SOUND, 0.5, n=4))]
    with pytest.raises(InputError, match=r"X 1970-07-02.*needs 5 strikes.*surface = \"raw\""):
        fit_surface("X", few, as_of=0.0, kind=SurfaceKind.SVI)
    k = np.linspace(-0.5, 0.5, 31)
    zigzag = np.where(np.arange(31) % 2, 0.2, 0.6)
    with pytest.raises(InputError, match="free of arbitrage; 10% is tolerated"):
        fit_surface(
            "X", [expiry(0.5, Quotes(k, zigzag - 0.01, zigzag, zigzag + 0.01))], as_of=0.0, kind=SurfaceKind.SVI
        )


def test_points_without_bid_and_ask_are_fitted_to_their_vols():
    q = quotes(SOUND, 0.5)._replace(bid=np.full(31, np.nan), ask=np.full(31, np.nan))
    fit = fit_surface("X", [expiry(0.5, q)], as_of=0.0, kind=SurfaceKind.SVI)
    assert np.abs(fit.expiries[0].slice.vol(q.k) - q.vol).max() < 2e-3
    assert fit.expiries[0].inside == (0, 0) and np.isnan(fit.expiries[0].outside).all()


@pytest.mark.parametrize("kind", ["svi", "ssvi"])
def test_a_recorded_day_is_fitted_free_of_arbitrage(kind, deribit_book):
    book = load_book(deribit_book, overrides={"surface": kind})
    assert [f.underlying for f in book.surface_fits] == ["BTC", "ETH"]
    for fit in book.surface_fits:
        assert book.market.vols[fit.underlying].slices is fit.surface.slices
        room_left, rise = arbitrage(fit.surface)
        assert room_left >= 1 and rise >= 1
        inside, n = map(sum, zip(*(e.inside for e in fit.expiries if e.slice.time > 2 / 365), strict=True))
        assert n > 200 and inside > (0.8 if kind == "svi" else 0.2) * n
        assert any(flag.startswith(f"vols of {fit.underlying}: {kind}") for flag in book.flags)


@pytest.fixture(scope="module")
def deribit_book(tmp_path_factory):
    if not CHAINS.is_dir():
        pytest.skip("the recorded Deribit chains are not here")
    folder = tmp_path_factory.mktemp("deribit") / "book"
    import_deribit.import_deribit(CHAINS / "deribit_daily_202512.csv.gz", folder)
    populate(folder, n_accounts=2, seed=1)
    return folder
