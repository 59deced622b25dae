"""The assumed model: its numbers, its correlation, and what it refuses."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmvar.calibration import assumed
from pmvar.errors import InputError

AS_OF = 1_767_225_600.0


def test_volatilities_are_per_step_of_the_calendar():
    daily = assumed.assumed_model(["BTC"], np.array([0.45]), as_of=AS_OF)
    session = assumed.assumed_model(["SPX"], np.array([0.12]), as_of=AS_OF, steps_per_year=252)
    assert [f.volatility * math.sqrt(365) for f in daily.factors] == pytest.approx([0.45, 0.9])
    assert [f.volatility * math.sqrt(252) for f in session.factors] == pytest.approx([0.12, 0.9])
    assert {(f.degrees_of_freedom, f.source) for f in daily.factors} == {(4.0, "assumed")}
    assert daily.model == "t"


def test_named_correlations():
    model = assumed.assumed_model(["BTC", "ETH"], np.array([0.45, 0.6]), as_of=AS_OF, pegged=["USDC"])
    c = {
        (a, b): model.correlation[i, j]
        for i, a in enumerate(model.factor_names)
        for j, b in enumerate(model.factor_names)
    }
    assert c["BTC:spot", "ETH:spot"] == pytest.approx(0.8)
    assert c["BTC:spot", "BTC:vol"] == pytest.approx(-0.3)
    assert c["BTC:vol", "ETH:vol"] == pytest.approx(0.8)
    assert c["BTC:spot", "ETH:vol"] == pytest.approx(-0.24)
    assert c["USDC:spot", "BTC:spot"] == 0.0


@given(st.integers(1, 60), st.integers(0, 5))
def test_correlation_is_positive_definite(n, m):
    # Smallest eigenvalue of a Kronecker product: the product of the smallest of its two factors.
    smallest = np.linalg.eigvalsh(assumed.assumed_correlation(n, m))[0]
    assert smallest > 0.99 * min((1 - 0.8) * (1 - 0.3), 1.0)


@pytest.mark.parametrize("vol", [0.0, -0.1, np.nan, np.inf])
def test_a_vol_that_is_none_is_refused(vol):
    with pytest.raises(InputError, match="BTC"):
        assumed.assumed_model(["BTC"], np.array([vol]), as_of=AS_OF)
