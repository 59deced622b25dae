"""The documentation says what is there: links, commands, options, columns, constants, and code that runs."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest
from typer.main import get_command

from pmvar import errors
from pmvar.audit import difference
from pmvar.backtest import evaluate
from pmvar.calibration import assumed
from pmvar.cli.app import app
from pmvar.io.model_file import FACTOR_KEYS, KEYS
from pmvar.io.schemas import SCHEMAS
from pmvar.io.settings import SECTIONS, TOP
from pmvar.io.synthetic import synthetic_book
from pmvar.methods import comparison
from pmvar.risk.result import TABLES
from pmvar.types import Status

ROOT = Path(__file__).resolve().parents[1]
TEXTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("benchmarks/*.md")])
NAMES = [path.relative_to(ROOT).as_posix() for path in TEXTS]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FORMAT = (ROOT / "docs" / "book-format.md").read_text(encoding="utf-8")
LARGEST_IMAGE = 400_000
PRIVATE = re.compile(
    r"(?<![\w.])/(home|root|tmp|work|mnt|Users|opt|srv)/|localhost|pypi\.|pythonhosted|conda\.|127\.0\.0\.1"
)


def fences(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.S | re.M)


def anchors(text: str) -> set[str]:
    """Targets of the headings, as code hosts make them."""
    plain = re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)
    titles = re.findall(r"^#+ (.+)$", plain, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def commands(text: str) -> list[list[str]]:
    """Words of each command in the console blocks; a block without prompts holds commands alone."""
    found = []
    for block in fences(text, "console"):
        lines = block.splitlines()
        prompted = [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]
        is_output = any(line.startswith("pmvar: ") or re.match(r"[\w/.]+:\d+: ", line) for line in lines)
        found += [shlex.split(line, comments=True) for line in (prompted or ([] if is_output else lines)) if line]
    return found


@pytest.mark.parametrize("path", TEXTS, ids=NAMES)
def test_links_and_images_exist(path):
    text = path.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://|mailto:", target):
            continue
        file, _, anchor = target.partition("#")
        there = (path.parent / file).resolve() if file else path
        assert there.exists(), f"{path.name}: {target}"
        assert there.is_relative_to(ROOT), f"{path.name}: {target} leaves the repository"
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there.read_text(encoding="utf-8")), f"{path.name}: no heading for {target}"


@pytest.mark.parametrize("path", TEXTS, ids=NAMES)
def test_no_path_of_a_machine_and_no_registry(path):
    found = PRIVATE.search(path.read_text(encoding="utf-8"))
    assert not found, f"{path.name}: {found and found[0]}"


def test_images_are_small():
    images = list((ROOT / "docs" / "images").iterdir())
    assert images
    for image in images:
        assert image.stat().st_size < LARGEST_IMAGE, image.name


@pytest.mark.parametrize("path", TEXTS, ids=NAMES)
def test_console_commands_exist_with_their_options(path):
    text = path.read_text(encoding="utf-8")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^(\w+):", makefile, re.M))
    for words in commands(text):
        line = " ".join(words)
        if words[0] == "make":
            assert words[1] in targets, line
        elif words[0] == "pmvar":
            _check_command(words[1:], line)
        else:
            assert words[:2] == ["pip", "install"] or words[0] in ("python", "git"), line


def _check_command(words: list[str], line: str) -> None:
    command = get_command(app)
    while inner := getattr(command, "commands", None):
        assert words[0] in inner, line
        command, words = inner[words[0]], words[1:]
    known = {name for param in command.params for name in (*param.opts, *param.secondary_opts)}
    used = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert used <= known, f"{line}: {used - known}"


def test_readme_names_every_command():
    for name in ("doctor", "demo", "import deribit", "import cboe", "populate", "validate", "run", "explain"):
        assert f"pmvar {name}" in README


def test_readme_extras_exist():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(re.findall(r"\.\[(\w+)\]", README)) <= set(extras)


def test_readme_python_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    synthetic_book("book", n_accounts=10)
    blocks = fences(README, "python")
    assert blocks
    code = "\n".join(blocks)
    assert "n_scenarios=65_536" in code
    exec(compile(code.replace("65_536", "2_048"), "README.md", "exec"), {})
    assert (tmp_path / "run" / "report.html").is_file()


def test_methodology_python_runs(tmp_path, monkeypatch, capsys):
    """Its two scripts, at fewer paths: one line for each asset, and for each rule."""
    monkeypatch.chdir(tmp_path)
    synthetic_book("book", n_accounts=10)
    drift, rules = fences((ROOT / "docs" / "methodology.md").read_text(encoding="utf-8"), "python")
    for script, many, few, lines in ((drift, "2**20", "2**12", 3), (rules, "1_000_000", "10_000", 2)):
        assert many in script
        exec(compile(script.replace(many, few), "methodology.md", "exec"), {})
        assert len(capsys.readouterr().out.splitlines()) == lines


def test_format_names_every_table_column_and_key():
    for schema in SCHEMAS.values():
        assert f"`{schema.name}`" in FORMAT or f"## {schema.name}" in FORMAT
        for column in schema.columns:
            assert f"`{column.name}`" in FORMAT, f"{schema.name}.{column.name}"
            for choice in column.choices:
                assert f"`{choice}`" in FORMAT, f"{schema.name}.{column.name}: {choice}"
    tables = {**TABLES, **comparison.TABLES, **comparison.COVERAGE_TABLES, **evaluate.TABLES, **difference.TABLES}
    for table, columns in tables.items():
        assert f"**{table}**" in FORMAT
        for column in columns:
            assert f"`{column}`" in FORMAT, f"{table}.{column}"
    for key in (*KEYS, *FACTOR_KEYS):
        assert f"`{key}`" in FORMAT, f"model.json: {key}"
    settings = [key for key in TOP] + [f"{name}.{key}" for name, keys in SECTIONS.items() for key in keys]
    for key in settings:
        assert f"| `{key}` |" in FORMAT, f"book.toml: {key}"


def test_format_has_every_exit_code():
    table = FORMAT.partition("## Exit codes")[2]
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.PmvarError)]
    for code in {kind.exit_code for kind in kinds}:
        assert re.search(rf"^\| {code} \|", table, re.M), code


def test_conventions_have_every_status():
    text = (ROOT / "docs" / "conventions.md").read_text(encoding="utf-8")
    assert all(f"| `{status}` |" in text for status in Status)


def test_methodology_has_the_assumed_constants():
    text = (ROOT / "docs" / "methodology.md").read_text(encoding="utf-8").replace("−", "-")
    constants = {name: value for name, value in vars(assumed).items() if name.isupper() and isinstance(value, float)}
    assert len(constants) == 8
    for name, value in constants.items():
        stated = re.search(rf"^\| `{name}` \| ([-\d.]+) \|", text, re.M)
        assert stated, name
        assert float(stated[1]) == value, name
