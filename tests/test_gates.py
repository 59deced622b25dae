"""Gates between runs and of production: what is found, who may let it pass, and what is on record afterwards."""

from __future__ import annotations

import copy
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from pmvar.audit.reproduce import reproduce
from pmvar.cli.app import app
from pmvar.errors import InputError, PmvarError, QualityGate, UsageError
from pmvar.io import production as production_module
from pmvar.io.book import Book, load_book
from pmvar.io.gates import account_count, model_change, pass_gates, price_jumps
from pmvar.io.overrides import Gate
from pmvar.io.production import refusals
from pmvar.io.run import read_run
from pmvar.models.specification import ModelSpecification
from tests.books import SPOT, small_book, small_model, small_rows, small_toml

ROOT = Path(__file__).resolve().parents[1]
UNTIL = "2025-02-01T00:00:00Z"
"""After the small book's valuation time."""


@pytest.fixture(autouse=True)
def same_signals() -> Iterator[None]:
    """A run takes SIGTERM; the next test must not."""
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def entry(gate: str, *, until: str = UNTIL, of: str = "") -> str:
    """An override as book.toml lists it."""
    lines = [f'gate = "{gate}"', 'by = "R. Officer"', 'reason = "checked with the exchange"', f"until = {until}"]
    return "\n".join(["", "[[overrides]]", *lines, *([f'of = "{of}"'] if of else [])]) + "\n"


def book(path: Path, *overrides: str, btc: float = SPOT["BTC"], jump: float = 10.0, **options: Any) -> Path:
    """The small book with a limit on jumps, BTC at a price (its forwards and marks with it) and overrides."""
    rows = copy.deepcopy(small_rows())
    rows["market/spots"][0]["price"] = btc
    for forward in rows["market/forwards"]:
        forward["forward"] *= btc / SPOT["BTC"] if forward["underlying"] == "BTC" else 1.0
    del rows["market/marks"]
    toml = small_toml() | {"limits": {"max_price_jump": jump}}
    small_book(path, rows=rows, toml=toml, **options)
    with open(path / "book.toml", "a", encoding="utf-8") as file:
        file.write("".join(overrides))
    return path


def margin(folder: Path, out: Path, *options: str) -> tuple[int, str]:
    """`pmvar run`: exit code, and what it printed or was refused with."""
    arguments = ["run", str(folder), "--out", str(out), "--paths", "2048", "--no-greeks", *options]
    done = CliRunner().invoke(app, arguments)
    if isinstance(done.exception, PmvarError):
        return done.exception.exit_code, str(done.exception)
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.stdout


def test_account_count() -> None:
    """More than 20% apart needs somebody's word."""
    for n in (8, 10, 12):
        assert account_count(10, n, place="run") == []
    for n in (7, 13):
        (found,) = account_count(10, n, place="run")
        assert f"{n} accounts now, 10 in the run at run" in found.text
        assert "--acknowledge account-count" in found.fix


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the small book."""
    folder = tmp_path_factory.mktemp("gates")
    assert margin(book(folder / "book"), folder / "run")[0] == 0
    return folder / "run"


def spots_of(*jumped: str, **prices: float) -> dict[str, Any]:
    """Settings of a run before: the small book's prices a day earlier, or others."""
    return {"base_currency": "USD", "as_of": "2025-01-30T08:00:00Z", "spots": SPOT | prices}


@pytest.mark.parametrize("moved", [1.0, 1.3, 0.7, 1.36, 0.73])
def test_a_jump_is_measured_in_deviations_of_the_model(tmp_path: Path, moved: float) -> None:
    """|ln(S₁/S₀)| over σ·√steps against the limit: 2.9% a day, a limit of 10, so 29% in ln is the line after a day and
    a coin's price may double in a month."""
    loaded = load_book(book(tmp_path / "book", btc=100_000.0 * moved))
    found = price_jumps(spots_of(), loaded)
    beyond = abs(np.log(moved)) > 10 * 0.029
    assert [f.of for f in found] == (["BTC"] if beyond else [])
    if beyond:
        assert f"{abs(np.log(moved)) / 0.029:.1f} standard deviations from 100,000" in found[0].text
    assert price_jumps(spots_of() | {"as_of": "2025-01-01T08:00:00Z"}, loaded) == []
    assert price_jumps(spots_of() | {"base_currency": "EUR"}, loaded) == []


def test_a_jump_withholds_its_accounts(tmp_path: Path, published: Path) -> None:
    """Accounts of the factor get a substitute and the gate's name as reason, others their margin; the run reproduces;
    the next one is judged by the price before the jump."""
    out = shutil.copytree(published, tmp_path / "run")
    before = read_run(out).tables["margins"]
    code, text = margin(book(tmp_path / "low", btc=25_000.0), out)
    assert code == 4 and "4 WITHHELD" in text
    run = read_run(out)
    margins = run.tables["margins"]
    out_of = margins["status"] == "WITHHELD"
    assert margins["account_id"][out_of].tolist() == ["001", "003", "NA", "desk"]
    assert all(re.match(r"BTC:spot: price-jump: price 25,000 is .* standard", r) for r in margins["reason"][out_of])
    assert np.all(margins["initial_margin"][out_of] >= before["initial_margin"][out_of])
    assert margins["initial_margin"][~out_of] == before["initial_margin"][~out_of]
    assert run.manifest["settings"]["price_before"]["BTC"]["price"] == 100_000.0
    assert reproduce(out).n_accounts == 5
    assert margin(book(tmp_path / "back"), out)[0] == 0
    assert set(read_run(out).tables["margins"]["status"]) == {"OK"}


def test_an_override_lets_it_pass_and_is_on_record(tmp_path: Path, published: Path) -> None:
    """Who, why, until when, before and after stand in manifest and report; one for another asset or past its end does
    not count."""
    for wrong in (entry("price-jump", of="ETH"), entry("price-jump", until="2025-01-31T08:00:00Z"), entry("code")):
        with_wrong = load_book(book(tmp_path / "wrong", wrong, btc=25_000.0))
        assert pass_gates(with_wrong, published).book.market.quarantined.keys() == {"BTC:spot"}
    out = shutil.copytree(published, tmp_path / "run")
    code, _ = margin(book(tmp_path / "book", entry("price-jump", of="BTC"), btc=25_000.0), out)
    assert code in (0, 4)
    run = read_run(out)
    (taken,) = run.manifest["settings"]["overrides"]
    assert taken | {"found": ""} == {
        "gate": "price-jump", "of": "BTC", "by": "R. Officer", "reason": "checked with the exchange", "until": UNTIL,
        "found": "", "before": {"price": 100_000.0, "as_of": "2025-01-31T08:00:00Z"},
        "after": {"price": 25_000.0, "as_of": "2025-01-31T08:00:00Z"},
    }  # fmt: skip
    said = f"gate price-jump passed by R. Officer until {UNTIL}, checked with the exchange: price 25,000 is"
    assert run.manifest["notes"][0].startswith(said)
    assert said in (out / "report.html").read_text() and run.manifest["settings"]["quarantined"] == {}
    assert "WITHHELD" not in run.tables["margins"]["status"]


def test_another_model_needs_a_word(tmp_path: Path, published: Path) -> None:
    """Another name, a factor gone, a volatility below half: stopped with exit 4 and each of them named; a volatility
    that doubles is on the safe side."""
    model = small_model()
    before = {
        "name": "t", "steps_per_year": 365, "price_map": "exp_linear",
        "factors": [{"name": f.name, "volatility": f.volatility} for f in model.factors],
    }  # fmt: skip

    def times(share: float) -> ModelSpecification:
        first = replace(model.factors[0], volatility=share * model.factors[0].volatility)
        return replace(model, factors=(first, *model.factors[1:]))

    assert model_change(before, model) == model_change(before, times(0.51)) == model_change(before, times(2.0)) == []
    assert [f.of for f in model_change(before, times(0.49))] == ["BTC:spot"]
    gone = replace(model, factors=model.factors[:2], correlation=model.correlation[:2, :2])
    assert [f.of for f in model_change(before, gone)] == ["ETH:spot", "ETH:vol"]
    other = book(tmp_path / "book", model=replace(times(0.3), model="gaussian"))
    out = shutil.copytree(published, tmp_path / "run")
    code, text = margin(other, out)
    assert code == 4 and "model's name was t and is gaussian" in text and "BTC:spot was 0.029 a step" in text
    assert read_run(out).manifest == read_run(published).manifest
    assert margin(other, out, "--acknowledge", "model-change")[0] == 0
    record = read_run(out).manifest["settings"]["overrides"]
    assert [r["by"] for r in record] == ["--acknowledge", "--acknowledge"] and record[0]["before"] == "t"
    assert margin(other, out, "--acknowledge", "modelchange")[0] == 2


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ('gate = "price-jump"\nby = "me"\nreason = "x"\n', "each needs gate, by, reason and until"),
        ('gate = "all"\nby = "me"\nreason = "x"\nuntil = 2025-02-01T00:00:00Z\n', "gate must be one of account-count"),
        ('gate = "code"\nby = " "\nreason = "x"\nuntil = 2025-02-01T00:00:00Z\n', "not empty"),
        ('gate = "code"\nby = "me"\nreason = "x"\nuntil = 2025-02-01\n', "until must be a time with its offset"),
        ('gate = "code"\nby = "me"\nreason = "x"\nuntil = "soon"\n', "until 'soon' is not an RFC 3339 time"),
    ],
)
def test_overrides_are_read_strictly(tmp_path: Path, text: str, rule: str) -> None:
    """An override without a name, a reason or an end is none."""
    with pytest.raises(InputError, match=rule):
        load_book(book(tmp_path / "book", f"\n[[overrides]]\n{text}"))


def git(folder: Path, *arguments: str) -> None:
    """Run git there."""
    who = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    subprocess.run(["git", *who, *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A clean checkout whose lock pins nothing: its package folder."""
    package = tmp_path / "checkout" / "pmvar"
    package.mkdir(parents=True)
    (package / "a.py").write_text("1\n")
    (package.parent / "requirements").mkdir()
    (package.parent / "requirements" / "run.lock").write_text("")
    git(package.parent, "init", "-q")
    git(package.parent, "add", ".")
    git(package.parent, "commit", "-qm", "all")
    return package


def calibrated(path: Path, *overrides: str, **toml: str) -> Path:
    """The small book as production wants it: parameters from a history, limits set."""
    model = small_model()
    factors = tuple(replace(f, source="calibrated", n_obs=1000) for f in model.factors)
    folder = book(path, *overrides, model=replace(model, factors=factors))
    text = (folder / "book.toml").read_text()
    (folder / "book.toml").write_text(text.replace("[limits]", '[limits]\nmax_price_age = "1h"'))
    return folder


def gates_of(folder: Path, package: Path) -> dict[str, str]:
    """Gate -> message of what production refuses."""
    return {str(f.gate): f"{f.text} — {f.fix}" for f in refusals(load_book(folder), package=package)}


def test_production_passes_what_is_clean_and_names_what_is_not(tmp_path: Path, checkout: Path) -> None:
    """A clean checkout, pinned packages, a calibrated model, limits: nothing; and each of them spoilt, one by one."""
    sound = calibrated(tmp_path / "sound")
    assert gates_of(sound, checkout) == {}
    (checkout / "b.py").write_text("2\n")
    (checkout.parent / "notes.txt").write_text("of no matter")
    lock = checkout.parent / "requirements" / "run.lock"
    lock.write_text(
        "numpy==0.1 \\\n    --hash=sha256:00 \\\n    --hash=sha256:01\n"
        f"scipy=={production_module.metadata.version('scipy')} ; python_version >= '3' \\\n    --hash=sha256:00\n"
        "colorama==0.4.6 ; sys_platform == 'win32' \\\n    --hash=sha256:00\n"
        "no-such-package==1.0\n"
    )
    found = gates_of(sound, checkout)
    assert set(found) == {"code", "packages"}
    assert "pmvar/b.py" in found["code"] and "requirements/run.lock" in found["code"] and "notes" not in found["code"]
    assert f"numpy {np.__version__}, not 0.1, no-such-package not installed, not 1.0" in found["packages"]
    assert "scipy" not in found["packages"] and "pip install --require-hashes" in found["packages"]
    shutil.rmtree(checkout.parent / ".git")
    lock.unlink()
    found = gates_of(sound, checkout)
    assert "neither a checkout nor as it was installed: pmvar/a.py" in found["code"]
    assert "nothing pins the packages" in found["packages"]


def test_production_refuses_an_assumed_model_and_stale_prices(tmp_path: Path, checkout: Path) -> None:
    """Assumed parameters, a posterior that failed its gates and was written all the same, no limits, old prices."""
    assumed = small_book(tmp_path / "assumed")
    found = gates_of(assumed, checkout)
    assert set(found) == {"assumed-model", "price-limits"}
    assert "BTC:spot" in found["assumed-model"] and "pmvar calibrate" in found["assumed-model"]
    assert "no limits.max_price_age and no limits.max_price_jump" in found["price-limits"]
    sound = calibrated(tmp_path / "sound")
    text = (sound / "model.json").read_text()
    verdict = '"gates": {"r-hat": {"passed": true}, "tail-ess": {"passed": false}}'
    (sound / "model.json").write_text(text.replace('"gates": {}', verdict))
    spots = (sound / "market" / "spots.csv").read_text()
    (sound / "market" / "spots.csv").write_text(spots.replace("T08:00:00Z", "T06:59:00Z", 1))
    found = gates_of(sound, checkout)
    assert set(found) == {"failed-gates", "stale-prices"}
    assert "failed tail-ess" in found["failed-gates"] and "BTC:spot: price is 3660 s old" in found["stale-prices"]


def test_a_production_run(tmp_path: Path, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused with exit 4, everything named and nothing written; published once it is mended or overridden by name."""
    monkeypatch.setattr(production_module, "refusals", partial(refusals, package=checkout))
    out = tmp_path / "run"
    code, text = margin(small_book(tmp_path / "assumed"), out, "--production")
    assert code == 4 and text.startswith("assumed-model: ") and "price-limits: " in text and not out.exists()
    code, text = margin(tmp_path / "assumed", out, "--production", "--acknowledge", "assumed-model")
    assert code == 2 and "[[overrides]]" in text
    ended = calibrated(tmp_path / "ended", entry("code", until="2025-01-01T00:00:00Z"))
    (checkout / "b.py").write_text("2\n")
    code, text = margin(ended, out, "--production")
    assert code == 4 and "the override by R. Officer ended 2025-01-01T00:00:00Z" in text
    assert margin(calibrated(tmp_path / "sound", entry("code")), out, "--production")[0] == 0
    settings = read_run(out).manifest["settings"]
    assert settings["production"] is True and [o["gate"] for o in settings["overrides"]] == ["code"]


def test_every_gate_is_documented() -> None:
    """docs/operations.md has a row for each."""
    text = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `([a-z-]+)` \|", text, re.M)) >= set(Gate)


def test_gates_of_a_book_without_a_run_before(tmp_path: Path) -> None:
    """Nothing to compare with: nothing found; findings of the caller stop it."""
    loaded: Book = load_book(book(tmp_path / "book"))
    assert pass_gates(loaded, tmp_path / "run").settings == {"overrides": [], "quarantined": {}, "price_before": {}}
    with pytest.raises(QualityGate, match="account-count: 13 accounts now"):
        pass_gates(loaded, tmp_path / "run", more=account_count(10, 13, place="x"))
    with pytest.raises(UsageError, match="there is no gate 'nonsense'"):
        pass_gates(loaded, tmp_path / "run", acknowledged=["nonsense"])
