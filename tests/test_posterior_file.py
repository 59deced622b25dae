"""posterior.nc there and back: by SciPy alone, through ArviZ, and what is refused."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import arviz as az
import numpy as np
import pytest
import xarray as xr

from pmvar.calibration.garch import FitStatus
from pmvar.calibration.posterior import Course, Draws, VolatilityPosterior
from pmvar.calibration.volatility_likelihood import Volatility
from pmvar.errors import InputError, UsageError
from pmvar.io.book import load_book
from pmvar.io.model_file import model_json, read_model
from pmvar.io.posterior_file import arviz_data, write_posterior
from pmvar.io.problems import Problems
from pmvar.io.source import Source
from pmvar.io.write_book import write_book
from pmvar.models import build
from pmvar.models.predictive import PredictiveModel
from pmvar.models.specification import ModelSpecification
from tests.books import columns, small_model, small_rows, small_toml

NAMES = ["BTC:spot", "BTC:vol", "ETH:spot"]
SHAPE = (3, 2, 50)


def sampled() -> VolatilityPosterior:
    """Draws of three assets, one of which could not be fitted."""
    rng = np.random.default_rng(1)
    variance = 9e-4 * np.exp(rng.normal(0, 0.2, SHAPE))
    draws = Draws(
        mean=rng.normal(0, 1e-3, SHAPE),
        omega=variance / 50,
        alpha=rng.uniform(0.02, 0.06, SHAPE),
        gamma=rng.uniform(0, 0.05, SHAPE),
        beta=rng.uniform(0.85, 0.9, SHAPE),
        degrees_of_freedom=rng.uniform(3, 9, SHAPE),
        variance=variance,
    )
    course = Course(rng.standard_normal(SHAPE), rng.random(SHAPE) < 0.01, rng.integers(1, 31, SHAPE))
    for part in draws:
        part[1] = np.nan
    status = (FitStatus.FITTED, FitStatus.STILL, FitStatus.FITTED)
    return VolatilityPosterior(Volatility.GJR, status, np.full(3, 900), 0.01, draws, course)


def model() -> ModelSpecification:
    """The small book's factors under t-garch."""
    state = {"filter": {name: {"ewma": True} for name in ("BTC:spot", "ETH:spot")}}
    return replace(small_model(), model="t-garch", state=state)


def book(folder: Path) -> Path:
    """A book whose model has a posterior."""
    tables = {name: columns(rows) for name, rows in small_rows().items()}
    write_book(folder, book_toml=small_toml(), tables=tables, model=model())
    given = write_posterior(folder, sampled(), NAMES)
    (folder / "model.json").write_text(model_json(model(), extra={"posterior": given}))
    return folder


def test_through_a_book(tmp_path):
    """The draws of the usable assets, thinned, pooled over chains; the file is among the inputs' hashes."""
    found = load_book(book(tmp_path / "book"))
    assert found.model.posterior is not None
    assert found.model.posterior.factors == ("BTC:spot", "ETH:spot")
    for key in ("omega", "alpha", "gamma", "beta", "variance", "degrees_of_freedom"):
        kept = getattr(found.model.posterior, key)
        assert kept.shape == (64, 2)
        for column, asset in enumerate((0, 2)):
            assert set(kept[:, column]) <= set(getattr(sampled().draws, key)[asset].ravel())
    assert isinstance(build(found.model), PredictiveModel)
    content = (tmp_path / "book" / "posterior.nc").read_bytes()
    assert found.input_hashes["posterior.nc"] == hashlib.sha256(content).hexdigest()
    with pytest.raises(UsageError, match="holds a posterior; write it with write_posterior"):
        model_json(found.model)


def test_arviz_and_xarray_open_it(tmp_path):
    write_posterior(tmp_path, sampled(), NAMES)
    data = arviz_data(tmp_path / "posterior.nc")
    kept = [0, 2]
    for name, part in (sampled().draws._asdict() | sampled().course._asdict()).items():
        group = data.posterior if name in Draws._fields else data.sample_stats
        np.testing.assert_array_equal(np.moveaxis(np.asarray(group[name]), -1, 0), part[kept])
    assert np.asarray(data.sample_stats["diverging"]).dtype == bool
    with xr.open_dataset(tmp_path / "posterior.nc", engine="scipy") as opened:
        assert [str(f) for f in opened["factor"].values] == ["BTC:spot", "ETH:spot"]
        assert opened.attrs["volatility"] in ("gjr", b"gjr")
        summary = az.summary(opened[["omega"]], kind="stats", round_to="none")
    np.testing.assert_allclose(summary["mean"].astype(float), sampled().draws.omega[kept].mean(axis=(1, 2)), rtol=1e-6)


def refused(folder: Path, given: object = None) -> str:
    """What is said of the model in `folder`, its posterior replaced by `given`."""
    document = json.loads((folder / "model.json").read_text())
    if given is not None:
        document["posterior"] = given
    problems = Problems()
    found = read_model(json.dumps(document).encode(), source=Source(folder), problems=problems)
    assert found is None
    with pytest.raises(InputError) as error:
        problems.raise_any()
    return str(error.value)


def test_what_is_refused(tmp_path):
    """Another file, no NetCDF, draws that are not numbers, strange factors, paths outside the folder: by name."""
    folder = book(tmp_path / "book")
    good = (folder / "posterior.nc").read_bytes()

    def spoilt(content: bytes) -> str:
        (folder / "posterior.nc").write_bytes(content)
        return refused(folder, {"file": "posterior.nc", "sha256": hashlib.sha256(content).hexdigest()})

    (folder / "posterior.nc").write_bytes(good + b"x")
    assert "posterior.nc is not the file that the model was made with" in refused(folder)
    (folder / "posterior.nc").unlink()
    assert "posterior.nc: cannot be read" in refused(folder)
    assert "must name a .nc file beside model.json" in refused(folder, {"file": "../posterior.nc", "sha256": ""})
    assert "null or {file, sha256}" in refused(folder, {"file": "posterior.nc"})
    assert "is not a posterior in NetCDF 3" in spoilt(b"x" * 100)
    assert "is not a posterior in NetCDF 3" in spoilt(good[: len(good) // 2])
    assert "is not a posterior in NetCDF 3" in spoilt(good.replace(b"omega", b"gamna"))
    for bad, rule in ((np.nan, "finite numbers|variance > 0"), (-1.0, "variance > 0")):
        value = sampled().draws.variance.copy()
        value[2, 1, 3] = bad
        write_posterior(folder, replace(sampled(), draws=sampled().draws._replace(variance=value)), NAMES)
        text = spoilt((folder / "posterior.nc").read_bytes())
        assert "draw 54 of ETH:spot" in text and any(r in text for r in rule.split("|"))
    write_posterior(folder, sampled(), ["BTC:spot", "BTC:vol", "XRP:spot"])
    assert "XRP:spot" in spoilt((folder / "posterior.nc").read_bytes())
    with pytest.raises(UsageError, match="2 names for 3 assets"):
        write_posterior(folder, sampled(), NAMES[:2])
