"""Books from an object store: copied whole or not at all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pmvar.cli.app import app
from pmvar.errors import ResourceError, UsageError
from pmvar.io import object_store
from pmvar.io.book import load_book
from pmvar.io.object_store import fetch_book
from tests.books import small_book


def test_a_book_from_an_address(tmp_path: Path) -> None:
    """The same bytes, folders of tables included; once more replaces it."""
    away = small_book(tmp_path / "store" / "book")
    parts = away / "market" / "deep"
    parts.mkdir()
    (parts / "part.csv").write_text("x\n")
    for _ in range(2):
        done = CliRunner().invoke(app, ["fetch", away.as_uri(), str(tmp_path / "book")])
        assert done.exit_code == 0, done.output
        assert (tmp_path / "book" / "market" / "deep" / "part.csv").read_text() == "x\n"
        (parts / "part.csv").write_text("x\n")
    assert load_book(tmp_path / "book").input_hashes == load_book(away).input_hashes
    (away / "market" / "spots.csv").unlink()
    fetch_book(away.as_uri(), tmp_path / "book")
    assert not (tmp_path / "book" / "market" / "spots.csv").exists(), "what is gone there is gone here"


def test_nothing_half_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no book, what holds something else, and a copy that breaks off leave everything as it was."""
    away, here = small_book(tmp_path / "away"), tmp_path / "here"
    (tmp_path / "empty").mkdir()
    for address, said in (("nowhere", "is no address"), ((tmp_path / "empty").as_uri(), "holds no book.toml"),
                          ((tmp_path / "missing").as_uri(), "cannot be listed")):  # fmt: skip
        with pytest.raises(UsageError, match=said):
            fetch_book(address, here)
    other = tmp_path / "other"
    other.mkdir()
    (other / "mine.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds no book.toml"):
        fetch_book(away.as_uri(), other)
    fetch_book(away.as_uri(), here)
    before = sorted((p.name, p.read_bytes()) for p in here.rglob("*") if p.is_file())

    def broken(source: object, sink: object) -> None:
        raise OSError("the line is dead")

    def short(source: Any, sink: Any) -> None:
        sink.write(b"half")

    for pour, said in ((broken, "could not be copied: the line is dead"), (short, "changed while it was read")):
        monkeypatch.setattr(object_store, "_pour", pour)
        with pytest.raises(ResourceError, match=said):
            fetch_book(away.as_uri(), here)
    assert sorted((p.name, p.read_bytes()) for p in here.rglob("*") if p.is_file()) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["away", "empty", "here", "other"]
