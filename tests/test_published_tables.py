"""European and American prices against the tables that the field publishes, as QuantLib's tests hold them."""

from __future__ import annotations

import csv
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from pmvar.kernels.american import american
from pmvar.kernels.black import black

FIELDS = ("strike", "s", "q", "r", "t", "v", "result")


def table(shared_data: Path, name: str) -> tuple[np.ndarray, ...]:
    """Sign and `FIELDS` of each row."""
    with (shared_data / "quantlib_vectors" / f"{name}.csv").open(encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    sign = np.array([1.0 if r["type"].endswith("Call") else -1.0 for r in rows])
    return sign, *np.array([[float(r[f]) for f in FIELDS] for r in rows]).T


def test_european_prices(shared_data: Path) -> None:
    """Haug, Option Pricing Formulas (1998), to its four digits."""
    sign, strike, spot, held, rate, time, vol, expected = table(shared_data, "europeanoption__testValues__values")
    columns = (spot * np.exp((rate - held) * time), strike, vol * np.sqrt(time), sign)
    own = np.exp(-rate * time) * np.asarray(black(*map(jnp.asarray, columns)))
    assert len(own) == 43
    np.testing.assert_allclose(own, expected, rtol=0, atol=1.0e-4)


def test_american_prices(shared_data: Path) -> None:
    """Ju, An Approximate Formula for Pricing American Options (1999), to the 1% by which his formula errs."""
    name = "americanoption__testBjerksundStenslandValues__juValues"
    sign, strike, spot, held, rate, time, vol, expected = table(shared_data, name)
    own = np.asarray(jax.jit(american)(*map(jnp.asarray, (spot, strike, vol, time, rate, held, sign))))
    assert len(own) == 47
    np.testing.assert_allclose(own, expected, rtol=1e-2, atol=1e-3)
