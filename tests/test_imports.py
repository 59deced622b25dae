"""What importing costs, who imports whom, and that the suite's own settings hold."""

import importlib
import os
import subprocess
import sys

import pytest

COMMAND_LINE = {"rich", "typer"}
NUMERICAL = {"arviz", "equinox", "jax", "matplotlib", "numpy", "numpyro", "pandas", "pyarrow", "scipy"}
HEAVY = COMMAND_LINE | NUMERICAL


def loaded_by(code: str, *, root, env) -> set[str]:
    """Top-level modules in a fresh interpreter after `code`, which must end without an error."""
    report = "import sys; print('\\nloaded:', *{name.partition('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", f"{code}\n{report}"]
    done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return set(done.stdout.rpartition("\nloaded: ")[2].split())


def test_importing_pmvar_loads_nothing_heavy(root, user_env):
    loaded = loaded_by("import pmvar", root=root, env=user_env)
    assert "pmvar" in loaded
    assert not loaded & HEAVY


def test_help_loads_nothing_numerical(root, user_env):
    code = """
import sys
from pmvar.cli import main
sys.argv = ["pmvar", "--help"]
try:
    main()
except SystemExit as stop:
    assert not stop.code, stop.code
"""
    loaded = loaded_by(code, root=root, env=user_env)
    assert "pmvar" in loaded
    assert not loaded & NUMERICAL


def test_layers_hold(root, user_env):
    pytest.importorskip("importlinter")
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=user_env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(os.environ.get("PMVAR_TYPECHECK") == "0", reason="PMVAR_TYPECHECK=0")
@pytest.mark.parametrize("name", ["pmvar.errors", "pmvar.models", "pmvar.kernels", "pmvar.calibration"])
def test_suite_checks_types_at_run_time(name):
    assert type(importlib.import_module(name).__loader__).__module__.startswith("jaxtyping")


def test_suite_runs_strict_jax():
    import jax.numpy as jnp

    assert jnp.arange(1.0).dtype == jnp.float64
    with pytest.raises(ValueError, match="rank_promotion"):
        jnp.add(jnp.ones((2, 2)), jnp.ones(2))
    with pytest.raises(ValueError, match="promotion"):
        jnp.add(jnp.ones(2, jnp.float32), jnp.ones(2, jnp.float64))
