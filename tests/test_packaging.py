"""The wheel that users install: its content, its locks, and the main job run from it in an empty folder."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tomllib
import venv
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

needs_build = pytest.mark.skipif(not importlib.util.find_spec("build"), reason="needs build: the test extra")


def run(*command, cwd, env, timeout=300) -> str:
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, f"{command} ended with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(root, tmp_path_factory) -> Path:
    """A copy of what the wheel is built from: setuptools builds in place and would reuse old results."""
    copy = tmp_path_factory.mktemp("source")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, copy)
    ignore = shutil.ignore_patterns("__pycache__", ".*")
    for name in ("pmvar", "models", "kernels", "calibration"):
        shutil.copytree(root / name, copy / name, symlinks=True, ignore=ignore)
    return copy


@pytest.fixture(scope="module")
def wheel(source, user_env) -> Path:
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", cwd=source, env=user_env)
    [path] = (source / "dist").glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel, user_env, tmp_path_factory) -> Path:
    """Bin folder of an environment that holds the wheel alone and borrows its dependencies from this one."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, symlinks=True)
    python = home / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python]
    run(*pip, "install", "--no-deps", "--no-index", wheel, cwd=home, env=user_env)
    # A .pth line adds the folder only: the .pth of an editable pmvar that may lie in it is not read.
    paths = {"base": str(home), "platbase": str(home)}
    borrowed = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (Path(sysconfig.get_path("purelib", vars=paths)) / "borrowed.pth").write_text("\n".join(borrowed))
    return home / "bin"


def content(wheel: Path) -> list[str]:
    return zipfile.ZipFile(wheel).namelist()


@needs_build
def test_only_pmvar_is_installed(wheel):
    archive = zipfile.ZipFile(wheel)
    [top_level] = [name for name in archive.namelist() if name.endswith(".dist-info/top_level.txt")]
    assert archive.read(top_level).split() == [b"pmvar"]
    assert {name.partition("/")[0] for name in archive.namelist()} == {"pmvar", top_level.partition("/")[0]}


@needs_build
def test_wheel_holds_every_file_once(wheel, source):
    expected = [
        Path(folder, name).relative_to(source).as_posix()
        for folder, _, names in os.walk(source / "pmvar", followlinks=True)
        for name in names
    ]
    assert {f"pmvar/{name}/__init__.py" for name in ("models", "kernels", "calibration")} <= set(expected)
    packaged = [name for name in content(wheel) if name.startswith("pmvar/")]
    assert sorted(packaged) == sorted(expected)


@needs_build
def test_sdist_builds_the_same_wheel(wheel, source, user_env, tmp_path):
    # without --wheel or --sdist, build makes the wheel from the sdist
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", tmp_path, cwd=source, env=user_env)
    [rebuilt] = tmp_path.glob("*.whl")
    assert sorted(content(rebuilt)) == sorted(content(wheel))


@needs_build
def test_installed_wheel_runs_the_demo(installed, user_env, tmp_path):
    where = "import pmvar, pmvar.models; print(pmvar.__file__, pmvar.models.__file__)"
    located = run(installed / "python", "-c", where, cwd=tmp_path, env=user_env)
    assert all(Path(path).is_relative_to(installed.parent) for path in located.split())

    run(installed / "pmvar", "demo", "--out", "book", "--accounts", "20", cwd=tmp_path, env=user_env)
    run(installed / "pmvar", "run", "book", "--out", "run", "--paths", "4096", cwd=tmp_path, env=user_env)
    assert "<html" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "run" / "manifest.json").read_text(encoding="utf-8"))


def pins(lock: Path) -> dict[str, str]:
    lines = (line.partition(";")[0].rstrip("\\ ") for line in lock.read_text().splitlines())
    return {name: version for name, equals, version in (line.partition("==") for line in lines) if equals}


def test_locks_match_the_project(root):
    run_lock, dev_lock = (pins(root / "requirements" / name) for name in ("run.lock", "dev.lock"))
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    for lock, wanted in [
        (run_lock, project["dependencies"]),
        (dev_lock, project["optional-dependencies"]["test"]),
    ]:
        for requirement in map(Requirement, wanted):
            version = lock.get(canonicalize_name(requirement.name))
            assert version and requirement.specifier.contains(version), f"{requirement}: run `make lock`"
    assert run_lock.items() <= dev_lock.items()


def test_locks_are_hashed_and_name_no_host(root):
    for lock in (root / "requirements").glob("*.lock"):
        text = lock.read_text()
        assert "://" not in text and "--index" not in text and "--find-links" not in text
        assert all(block.count("--hash=sha256:") for block in text.replace("\\\n", " ").splitlines())
