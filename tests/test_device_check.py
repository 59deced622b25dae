"""The comparison of devices: equal bits on simulated CPU devices, and differences that it must see."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

SCRIPT = """
import jax
import numpy as np
from device_check import compare, results_on
from _books import make_book
from pmvar.types import Precision

devices = jax.devices("cpu")
assert len(devices) == 4
book = make_book(3, 7, n_accounts=40, positions=6)
first, last = (results_on(d, book, 5_000, Precision.FLOAT32) for d in (devices[0], devices[3]))
assert first.pnl.shape == (21, 5_000) and first.loss.shape == (40, 5_000)
same = compare(book, first, last)
assert same.identical and same.within(0.0), same

changed = last._replace(pnl=last.pnl.copy())
changed.pnl[3, 4_321] *= 1 + 1e-3
seen = compare(book, first, changed)
assert not seen.identical and seen.pnl_max > 0 and seen.loss_max == 0, seen

broken = last._replace(loss=np.where(last.loss == last.loss.max(), np.nan, last.loss))
assert not compare(book, first, broken).within(1.0)

exact = results_on(devices[3], book, 5_000, Precision.FLOAT64)
rounding = compare(book, first, exact)
assert 0 < rounding.pnl_max < 2e-6 and rounding.within(2e-6), rounding
print("compared")
"""


def test_devices_compare(root: Path, user_env: dict[str, str]) -> None:
    """Four simulated devices: tiles computed on the first and on the last are the same, a planted error is seen."""
    environment = user_env | {
        "PYTHONPATH": os.pathsep.join([str(root / "benchmarks"), str(root)]),
        "XLA_FLAGS": "--xla_force_host_platform_device_count=4",
    }
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "compared"
