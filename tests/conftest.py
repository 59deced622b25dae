"""The suite's settings: strict 64-bit JAX, run-time shape and type checks, a shared compilation cache."""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

ROOT = Path(__file__).resolve().parents[1]

STRICT = {
    "JAX_ENABLE_X64": "1",
    "JAX_NUMPY_RANK_PROMOTION": "raise",
    "JAX_NUMPY_DTYPE_PROMOTION": "strict",
}
# Workers and subprocesses share what one of them compiled.
CACHE = {
    "JAX_COMPILATION_CACHE_DIR": str(ROOT / "build" / "jax-cache"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}

# JAX reads its environment once, when it is imported; the hook changes only modules imported after it.
early = sorted({"jax", "pmvar"} & sys.modules.keys())
if early:
    raise pytest.UsageError(f"{' and '.join(early)} imported before conftest.py: its settings would not hold")
os.environ.update(STRICT)
for name, value in CACHE.items():
    os.environ.setdefault(name, value)

if os.environ.get("PMVAR_TYPECHECK", "1") != "0":
    # The name covers every subpackage, the symlinked ones too, whenever it is first imported.
    install_import_hook("pmvar", "beartype.beartype")

# A failure must repeat. `--hypothesis-profile=explore` looks for new examples.
settings.register_profile("pmvar", deadline=None, derandomize=True)
settings.register_profile("explore", deadline=None, max_examples=2_000)
settings.load_profile("pmvar")


@pytest.fixture(scope="module", autouse=True)
def bounded_memory() -> Iterator[None]:
    """A file's compiled code goes with it: that of the whole suite takes more than ten gigabytes a worker."""
    yield
    if "jax" in sys.modules:
        sys.modules["jax"].clear_caches()


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository's root."""
    return ROOT


@pytest.fixture(scope="session")
def user_env() -> dict[str, str]:
    """Environment of a subprocess that must run as a user's would, without the suite's strict settings."""
    return {name: value for name, value in os.environ.items() if name not in {*STRICT, "PYTHONPATH"}}


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of recorded market data, which is not part of the repository."""
    path = Path(os.environ.get("PMVAR_SHARED_DATA", ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no market data: {path} is not a folder (PMVAR_SHARED_DATA names it)")
    return path
