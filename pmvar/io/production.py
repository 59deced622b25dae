"""Production: what a run that people are margined by must not be made from."""

from __future__ import annotations

import base64
import hashlib
import re
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

from pmvar.errors import some_of
from pmvar.io.book import Book
from pmvar.io.gates import Finding
from pmvar.io.model_file import FILE, strict_json
from pmvar.io.overrides import Gate

PACKAGE = Path(__file__).resolve().parents[1]
SOURCES = ("pmvar", "models", "kernels", "calibration", "requirements", "pyproject.toml")
"""What a checkout's results depend on."""
LOCK = Path("requirements") / "run.lock"
_PINNED = re.compile(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)\s*(?:;\s*([^\\]+?))?\s*\\?$", re.M)


def refusals(book: Book, *, package: Path = PACKAGE) -> list[Finding]:
    """Everything about code, packages, model and prices that a production run refuses; `package` is pmvar's folder."""
    found = [(Gate.CODE, *f) for f in _code(package)] + [(Gate.PACKAGES, *f) for f in _packages(package.parent / LOCK)]
    found += [(gate, *f) for gate, f in _model(book)] + [(gate, *f) for gate, f in _prices(book)]
    return [Finding(gate, text, fix) for gate, text, fix in found]


def _code(package: Path) -> Iterator[tuple[str, str]]:
    """Whether the code is that of a commit, or of the wheel that was installed."""
    checkout = package.parent
    if (checkout / ".git").exists():
        command = ["git", "-C", str(checkout), "status", "--porcelain", "--untracked-files=all", "--", *SOURCES]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            yield f"git cannot say what state {checkout} is in ({error})", "make git work there, or install a wheel"
            return
        changed = [line[3:] for line in done.stdout.splitlines()]
        if changed:
            yield f"the checkout has changes that no commit holds: {some_of(changed)}", "commit or undo them"
        return
    listed = {
        Path(str(file.locate())).resolve(): file.hash.value
        for file in metadata.distribution("pmvar").files or ()
        if file.hash is not None
    }
    changed = [
        str(path.relative_to(checkout)) for path in sorted(package.rglob("*.py")) if listed.get(path) != _hash(path)
    ]
    if changed:
        text = f"the code is neither a checkout nor as it was installed: {some_of(changed)}"
        yield text, "install pmvar again from its wheel, or run from a clean checkout"


def _hash(path: Path) -> str:
    """As a wheel lists it."""
    return base64.urlsafe_b64encode(hashlib.sha256(path.read_bytes()).digest()).decode().rstrip("=")


def _packages(lock: Path) -> Iterator[tuple[str, str]]:
    """Whether the installed packages are those of the lock."""
    from packaging.markers import Marker

    if not lock.is_file():
        yield f"nothing pins the packages: there is no {lock}", "run from a checkout, which has the lock"
        return
    differing = []
    for name, pinned, marker in _PINNED.findall(lock.read_text(encoding="utf-8")):
        if marker and not Marker(marker).evaluate():
            continue
        try:
            here = metadata.version(name)
        except metadata.PackageNotFoundError:
            here = "not installed"
        if here != pinned:
            differing.append(f"{name} {here}, not {pinned}")
    if differing:
        text = f"packages differ from {LOCK}: {some_of(differing)}"
        yield text, f"pip install --require-hashes -r {LOCK}"


def _model(book: Book) -> Iterator[tuple[Gate, tuple[str, str]]]:
    """Whether somebody estimated all parameters, and the estimate passed its gates."""
    assumed = [f.name for f in book.model.factors if not f.source or "assumed" in f.source]
    if assumed:
        text = f"no history stands behind the parameters of {some_of(assumed)}"
        yield Gate.ASSUMED_MODEL, (text, "calibrate the model, with --vols for vol factors: pmvar calibrate")
    document = strict_json((book.path / FILE).read_bytes(), file=FILE)
    failed = [name for name, verdict in document.get("gates", {}).items() if not verdict.get("passed")]
    if failed:
        text = f"{FILE} was written although its posterior failed {some_of(failed)}"
        yield Gate.FAILED_GATES, (text, "calibrate from a longer history, or without --bayes")


def _prices(book: Book) -> Iterator[tuple[Gate, tuple[str, str]]]:
    """Whether prices are looked at, and fresh."""
    if lacking := [f"limits.{key}" for key in ("max_price_age", "max_price_jump") if key not in book.limits]:
        text = f"stale or wrong prices would pass: book.toml has no {' and no '.join(lacking)}"
        yield Gate.PRICE_LIMITS, (text, 'set them, such as max_price_age = "1h" and max_price_jump = 10')
    stale = [f"{factor}: {why}" for factor, why in book.market.quarantined.items() if "max_price_age" in why]
    if stale:
        yield Gate.STALE_PRICES, (f"prices are stale: {some_of(stale)}", "supply prices of the valuation time")

