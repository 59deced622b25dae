"""Static arbitrage: none in SSVI, and each kind found where it is planted."""

import numpy as np
import pytest

from pmvar.io.synthetic import LISTINGS, ssvi_vol
from pmvar.market.arbitrage import arbitrage_notes
from pmvar.market.surface import VolSlice, VolSurface

YEAR = 31_536_000.0
K = np.linspace(-0.6, 0.6, 61)


def surface(*vols, years=(0.1, 0.5)):
    return VolSurface(0.0, tuple(VolSlice(t * YEAR, K, vol) for t, vol in zip(years, vols, strict=False)))


@pytest.mark.parametrize("listing", LISTINGS, ids=lambda x: x.name)
def test_none_in_ssvi(listing):
    years = (0.02, 0.1, 0.5, 1.0)
    vols = [ssvi_vol(K, year=t, listing=listing) for t in years]
    assert arbitrage_notes("X", surface(*vols, years=years)) == ()


def test_a_spike_is_a_butterfly():
    vol = np.full(61, 0.4)
    vol[30] = 0.5
    (note,) = arbitrage_notes("X", surface(vol))
    # A spike raises one price: the peak is not convex, and the slope before it is above 0 or too steep after it.
    assert "X 1970-02-06T12:00Z: butterfly arbitrage" in note


def test_total_variance_that_falls_is_a_calendar():
    # .6²·.1 > .2²·.5
    (note,) = arbitrage_notes("X", surface(np.full(61, 0.6), np.full(61, 0.2)))
    assert "calendar arbitrage" in note
    assert arbitrage_notes("X", surface(np.full(61, 0.4), np.full(61, 0.4))) == ()


def test_rounded_quotes_are_no_arbitrage():
    vol = np.round(ssvi_vol(K, year=0.1, listing=LISTINGS[0]), 4)
    assert arbitrage_notes("X", surface(vol)) == ()
