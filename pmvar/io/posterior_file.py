"""posterior.nc beside model.json: the draws of a posterior as NetCDF 3, and its hash.

NetCDF 3 is read by SciPy alone, where ArviZ and HDF5 are absent; xarray reads it too, and so does ArviZ
(`arviz_data`).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped
from scipy.io import netcdf_file

from pmvar.calibration.diagnostics import inference_data
from pmvar.calibration.posterior import Course, Draws, VolatilityPosterior
from pmvar.errors import InputError, Problem, UsageError
from pmvar.io.problems import Problems
from pmvar.io.source import Source
from pmvar.models.posterior_draws import PosteriorDraws

FILE, MODEL = "posterior.nc", "model.json"
DIMENSIONS = ("chain", "draw", "factor")

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}\.nc", re.ASCII)


def write_posterior(folder: Path, posterior: VolatilityPosterior, names: Sequence[str]) -> dict[str, str]:
    """Write the draws of the usable assets, which are the factors `names` of a model, as `posterior.nc` of `folder`.

    Returns the {file, sha256} that `model.json` names. Raises UsageError where there is not one name an asset, or no
    asset is usable.
    """
    usable = np.flatnonzero(posterior.usable).tolist()
    if len(names) != len(posterior.status) or not len(usable):
        raise UsageError(f"{len(names)} names for {len(posterior.status)} assets, of which {len(usable)} have draws")
    parts = posterior.draws._asdict() | posterior.course._asdict()
    factors = np.array([names[i].encode() for i in usable])
    content = BytesIO()
    with netcdf_file(content, "w", version=2) as file:
        file.format, file.volatility = 1, str(posterior.volatility)
        sizes = (*posterior.draws.omega.shape[1:], len(usable))
        for name, size in zip(DIMENSIONS, sizes, strict=True):
            file.createDimension(name, size)
        file.createDimension("name_length", factors.itemsize)
        label = file.createVariable("factor", "c", ("factor", "name_length"))
        label[:], label._Encoding = factors.view("S1").reshape(len(factors), -1), "utf-8"
        for name, part in parts.items():
            kind = "d" if part.dtype.kind == "f" else "i"
            file.createVariable(name, kind, DIMENSIONS)[:] = np.moveaxis(part[usable], 0, -1)
        file.flush()
        written = content.getvalue()
    (folder / FILE).write_bytes(written)
    return {"file": FILE, "sha256": hashlib.sha256(written).hexdigest()}


def read_posterior(
    given: Mapping[str, Any], factors: Sequence[str], *, source: Source, problems: Problems
) -> PosteriorDraws | None:
    """The draws in the file that `given` ({file, sha256}) names in the folder of `source`, all chains after each other.

    What is wrong goes to `problems`, and None comes back. Raises StateError for a file that changes meanwhile.
    """
    before = len(problems)

    def add(rule: str, fix: str, column: str = "", *, file: str = MODEL, value: object = "") -> None:
        problems.add(Problem(rule, fix, file=file, column=column, value=str(value)[:100]))

    if set(given) != {"file", "sha256"} or not all(isinstance(v, str) for v in given.values()):
        add("posterior is null or {file, sha256}", "write both as text", "posterior", value=dict(given))
        return None
    name = given["file"]
    if not _NAME.fullmatch(name):
        add("must name a .nc file beside model.json", "rename it", "posterior.file", value=name)
        return None
    try:
        content = source.read(name)
        # The hash comes first: nothing is parsed that the model was not made with.
        if source.hashes[name] != given["sha256"]:
            rule, fix = f"{name} is not the file that the model was made with", "restore it, or calibrate again"
            add(rule, fix, "posterior.sha256", value=given["sha256"])
            return None
        found = _parse(content)
        unknown = sorted(set(found.factors) - set(factors))
        if unknown:
            add("holds a factor that the model has not", "calibrate again", file=name, value=", ".join(unknown))
    except InputError as error:
        problems.extend(error, file=name)
        return None
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, OverflowError, MemoryError) as error:
        add(f"is not a posterior in NetCDF 3: {error}", "calibrate again", file=name)
        return None
    return None if len(problems) > before else found


def _parse(content: bytes) -> PosteriorDraws:
    parts = _variables(content)
    names = tuple(row.tobytes().rstrip(b"\0").decode() for row in parts["factor"])
    keys = ("omega", "alpha", "gamma", "beta", "variance", "degrees_of_freedom")
    return PosteriorDraws(names, *(_pooled(parts[key], len(names)) for key in keys))


def _pooled(part: Float[np.ndarray, "chain draw factor"], n_factors: int) -> Float[np.ndarray, "pooled factor"]:
    if part.ndim != 3 or part.shape[2] != n_factors:
        raise ValueError(f"a variable has the shape {part.shape}, not chain × draw × {n_factors} factors")
    return part.reshape(-1, n_factors).astype(np.float64)


def _variables(content: bytes) -> dict[str, Shaped[np.ndarray, "..."]]:
    with netcdf_file(BytesIO(content), "r", mmap=False) as file:
        return {name: np.array(variable[:]) for name, variable in file.variables.items()}


def arviz_data(path: str | Path) -> Any:
    """ArviZ's object, with the groups `posterior` and `sample_stats`, of a `posterior.nc`; the last axis is the factor,
    in the order of the file. Raises UsageError without ArviZ."""
    parts = _variables(Path(path).read_bytes())
    course = {name: parts[name].astype(bool if name == "diverging" else parts[name].dtype) for name in Course._fields}
    return inference_data({"posterior": {name: parts[name] for name in Draws._fields}, "sample_stats": course})
