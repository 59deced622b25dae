"""S&P 500 with VIX as its implied vol: joint calibration against `arch` and SciPy, and the figures in the docs."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pytest
from arch import arch_model
from arch.data import sp500, vix
from scipy import stats

from pmvar.calibration.calibrate import Calibration, calibrate, estimate, x_of
from pmvar.calibration.dependence import t_tail_dependence, tail_dependence
from pmvar.calibration.goodness import joint_tails
from pmvar.calibration.panel import factor_panel, moves
from pmvar.io.panel import Quantity, panel_of
from pmvar.types import FactorKind


def index_and_vol(vol: dict[np.datetime64, float]) -> Calibration:
    """t-garch on the closes of the days that have both; `vol` is in per cent."""
    closes = sp500.load()["Adj Close"]
    price = dict(zip(closes.index.to_numpy().astype("datetime64[D]"), closes.to_numpy(), strict=True))
    days = [d for d in price if d in vol]
    date = pa.array(np.array(days))
    prices = panel_of(pa.table({"date": date, "SPX": [price[d] for d in days]}), Quantity.PRICE)
    vols = panel_of(pa.table({"date": date, "SPX": [vol[d] / 100 for d in days]}), Quantity.VOL)
    return calibrate(estimate(moves(factor_panel(prices, vols)), model="t-garch"), model="t-garch")


@pytest.fixture(scope="module")
def recent() -> Calibration:
    """January 2014 to December 2018, all of it from `arch`."""
    table = vix.load()["vix"]
    return index_and_vol(dict(zip(table.index.to_numpy().astype("datetime64[D]"), table.to_numpy(), strict=True)))


def test_rank_correlation_is_that_of_an_independent_filter(recent: Calibration):
    """`arch` fits both filters, SciPy counts concordant pairs; moves are sessions."""
    e = recent.estimates
    assert e.moves.steps_per_year == 252 and e.factors == ("SPX:spot", "SPX:vol") and len(e.x) == 1_256
    assert not recent.specification.excluded and all(f.source == "calibrated" for f in recent.specification.factors)
    z = []
    for x in x_of(e.moves).T:
        fit = arch_model(100 * x, vol="GARCH", p=1, o=1, q=1, dist="t").fit(disp="off")
        z.append(np.asarray(fit.std_resid))
    independent = np.sin(np.pi / 2 * np.asarray(stats.kendalltau(*z))[0])
    rank, error = e.dependence.rank[0, 1], e.dependence.standard_error[0, 1]
    assert rank == pytest.approx(independent, abs=2e-4)
    assert rank == pytest.approx(-0.822, abs=5e-4) and error == pytest.approx(0.011, abs=5e-4)
    # One pair is its own target: nothing is shrunk, nothing repaired.
    assert recent.specification.correlation[0, 1] == pytest.approx(rank, abs=1e-12)


def test_joint_crash_is_as_frequent_as_counted_and_the_calm_less(recent: Calibration):
    """Of 62 days in the lowest 5% of the S&P, 39 are in VIX's highest; rises with falls of VIX are 27."""
    z = recent.estimates.residual
    k = int(0.05 * len(z))
    low, high = set(np.argsort(z[:, 0])[:k].tolist()), set(np.argsort(-z[:, 1])[:k].tolist())
    (pair,) = joint_tails(recent)
    assert (len(low & high), k) == (39, 62) and pair.observed == 39 / 62
    calm, error = tail_dependence(-z[:, 0], z[:, 1])
    assert calm == 27 / 62 and error == pytest.approx(np.sqrt(27 * 35 / 62**3))
    assert pair.fitted == pytest.approx(0.58, abs=0.02) and abs(pair.distance) < 2
    nu = [f.degrees_of_freedom for f in recent.specification.factors]
    rho = np.array(-recent.specification.correlation[0, 1])
    assert float(t_tail_dependence(rho, float(stats.hmean(nu)))) == pytest.approx(0.48, abs=0.01)


def test_twenty_years(shared_data: Path):
    """The figures of the docs, with CBOE's VIX: the crash is 1.7 errors more frequent than a symmetric law has it."""
    table = pcsv.read_csv(shared_data / "vix_oil" / "vix-daily.csv")
    day = table["DATE"].to_numpy().astype("datetime64[D]")
    made = index_and_vol(dict(zip(day, table["CLOSE"].to_numpy(), strict=True)))
    d, (pair,) = made.estimates.dependence, joint_tails(made)
    assert len(made.estimates.x) == 5_029
    assert d.rank[0, 1] == pytest.approx(-0.803, abs=5e-4) and d.standard_error[0, 1] == pytest.approx(0.006, abs=5e-4)
    assert (pair.observed, pair.fitted) == (pytest.approx(0.594, abs=5e-4), pytest.approx(0.54, abs=0.02))
    assert pair.distance == pytest.approx(1.7, abs=0.2)
    vol = next(f for f in made.specification.factors if f.kind is FactorKind.VOL)
    assert vol.volatility * np.sqrt(252) == pytest.approx(1.083, abs=5e-3)
