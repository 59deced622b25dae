"""The programs in examples/ run as a reader would run them, and are short enough to read."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pmvar.io.synthetic import synthetic_book

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
PATHS = "2048"
LONGEST = 50


@pytest.fixture(scope="module")
def book(tmp_path_factory) -> Path:
    """The demo book with the usual market and few accounts."""
    folder = tmp_path_factory.mktemp("examples") / "book"
    synthetic_book(folder, n_accounts=20)
    return folder


def run_example(name: str, *arguments: str, root: Path, env: dict[str, str], cwd: Path) -> str:
    command = [sys.executable, "-W", "error::UserWarning", str(EXAMPLES / name), *arguments]
    done = subprocess.run(
        command, env={**env, "PYTHONPATH": str(root)}, cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, f"{name}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_quickstart_publishes_a_run(book, root, user_env, tmp_path):
    text = run_example("quickstart.py", str(book), "run", PATHS, root=root, env=user_env, cwd=tmp_path)
    assert len(text.splitlines()) == 5
    assert all(re.search(r"± [\d,]+ USD  (OK|MARGIN_CALL|LIQUIDATION)$", line) for line in text.splitlines())
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"manifest.json", "report.html", "margins.parquet", "stress.parquet"} <= written
    assert "neither prices nor accounts were ever real" in (tmp_path / "run" / "report.html").read_text("utf-8")


def test_positions_from_memory(book, root, user_env, tmp_path):
    text = run_example("arrow_tables.py", str(book), PATHS, root=root, env=user_env, cwd=tmp_path)
    header, desk, fund = text.splitlines()
    assert header.split()[:2] == ["account", "margin"]
    assert desk.startswith("desk") and fund.startswith("fund")
    assert "WITHHELD" not in text, "the example names instruments that the demo book no longer has"


def test_what_drives_the_margin_of_one_account(book, root, user_env, tmp_path):
    arguments = (str(book), "SHORTVOL-0005", PATHS)
    text = run_example("what_drives_margin.py", *arguments, root=root, env=user_env, cwd=tmp_path)
    head, components, gradients = text.split("\n\n")
    margin = float(head.split()[2].replace(",", ""))
    parts = [line.split()[1:] for line in components.splitlines()[1:]]
    numbers = [[float(x.replace(",", "")) for x in part] for part in parts]
    # Printed to the cent.
    assert sum(row[0] for row in numbers) == pytest.approx(margin, abs=0.01 * len(numbers))
    assert all(sum(row[1:]) == pytest.approx(row[0], abs=0.03) for row in numbers)
    assert {"delta", "vega"} <= {line.split()[1] for line in gradients.splitlines()[1:]}


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda p: p.name)
def test_examples_are_short(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) < LONGEST
