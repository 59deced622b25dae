"""Benchmarks run at their quick sizes and write the figures that are promised; no time is asserted."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FIGURES = {
    "reprice_throughput": (
        "european_f32_per_s",
        "european_f64_per_s",
        "european_f32_smile_per_s",
        "kernel_f32_per_s",
        "numpy_per_s",
        "numba_per_s",
        "quantlib_per_s",
        "float32_rms_error",
        "float64_max_error",
    ),
    "end_to_end": ("e1_s", "e1_naive_jax_s", "e1_peak_gib", "e1_aggregate_s", "e1_tail_s", "run_cold_s"),
    "margin_greeks": ("greeks_over_forward",),
    "tail_error": (
        "es99_variance_ratio_geomean",
        "es99_variance_ratio_p10",
        "rel_se_es99_median",
        "rel_se_es975_median",
        "rel_se_var99_median",
        "coverage95",
        "coverage_pairs",
    ),
    "volatility_fit": ("fit_few_s", "fit_many_s", "fit_model_s", "fit_per_asset_s", "usable"),
    "surface_fit": ("svi_deribit_chains", "ssvi_deribit_chains", "svi_sp500_chains"),
    "posterior": ("posterior_s", "posterior_per_asset_s", "gates_s", "r_hat", "tail_pit"),
    "simulation_based_calibration": ("garch_least_p", "gjr_least_p", "garch_divergences"),
    "device_check": ("has_gpu", "e1_cpu_s"),
    "bulk_scale": ("runs", "memory_gib"),
    "kill_resume": ("kills", "runs_compared", "kills_before_a_block", "kills_in_blocks", "kills_while_publishing",
                    "kills_once_published", "undisturbed_s", "wall_s"),
    "stage_limits": ("aggregate_adds_per_s", "aggregate_share", "tail_share", "read_share"),
}
"""Of each benchmark, those that are published, too."""
RUN = ("accounts", "positions", "scenarios", "wall_s", "peak_gib", "read_s", "scenarios_s", "reprice_s", "aggregate_s",
       "tail_s", "write_s")  # fmt: skip
"""Figures of each of the runs of `bulk_scale`."""
HEADER = ("processor", "cores", "load_average", "device", "malloc", "jax_version", "quick")


@pytest.mark.slow
@pytest.mark.parametrize("name", FIGURES)
def test_quick_run_writes_its_figures(name: str, root: Path, user_env: dict[str, str], tmp_path: Path) -> None:
    """Each script runs alone, prints a table and writes one flat object, `bulk_scale` a list of such."""
    out = tmp_path / "figures.json"
    command = [sys.executable, str(root / "benchmarks" / f"{name}.py"), "--quick", "--json", str(out)]
    done = subprocess.run(command, env=user_env, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    figures = json.loads(out.read_text())
    runs = figures.get("runs", [])
    assert all(
        not isinstance(value, (dict, list)) for flat in (*runs, figures | {"runs": 0}) for value in flat.values()
    )
    assert all(set(RUN) <= run.keys() and run["peak_gib"] > 0 for run in runs)
    promised = {*HEADER, *FIGURES[name]}
    missing = promised - figures.keys() - ({"numba_per_s"} if not figures["numba_version"] else set())
    assert not missing
    assert figures["quick"] is True
    numbers = [v for v in figures.values() if isinstance(v, float)]
    assert all(v == v and v >= 0 for v in numbers)
    if name == "reprice_throughput":
        assert figures["float32_rms_error"] <= 5e-8
        assert figures["float64_max_error"] <= 2e-14


def test_published_results_have_their_figures(root: Path) -> None:
    """What the repository publishes was measured at full size and holds every figure."""
    for name, keys in FIGURES.items():
        figures = json.loads((root / "benchmarks" / "results" / f"{name}.json").read_text())
        assert not set(keys) - figures.keys(), name
        assert figures["quick"] is False


def test_header_alone(root: Path, user_env: dict[str, str]) -> None:
    """`common.py` says what it runs on, and names no place."""
    command = [sys.executable, str(root / "benchmarks" / "common.py")]
    done = subprocess.run(command, env=user_env, capture_output=True, text=True, check=True)
    assert "jax_version" in done.stdout
    assert str(root) not in done.stdout
