"""`pmvar compare` and `pmvar span-arrays` as a user meets them."""

from pathlib import Path

import pyarrow.parquet as pq

from pmvar.io.span_read import read_span
from pmvar.methods.comparison import TABLES
from pmvar.methods.grid_file import load_rules, venues
from tests.books import small_book
from tests.test_cli import Cli, cli
from tests.test_span_pa2 import lines

__all__ = ["cli"]


def test_compare_with_a_venue_of_ones_own(cli: Cli, tmp_path: Path) -> None:
    """A name, a TOML file, a table on the screen, a folder with tables and a report; a wrong name is refused."""
    book = small_book(tmp_path / "book")
    source = Path(__file__).resolve().parents[1] / "pmvar" / "methods" / "venues" / "deribit.toml"
    own = tmp_path / "own.toml"
    own.write_text(source.read_text(encoding="utf-8").replace('name = "deribit"', 'name = "own"'), encoding="utf-8")
    assert load_rules(own).name == "own" and "own" not in venues()
    done = cli("compare", book, "--out", tmp_path / "out", "--methods", f"mc,span,deribit,{own}", "--paths", "4096",
               "--log-json")  # fmt: skip
    assert done.code == 0, done.err
    assert '"methods"' in done.err
    shown = done.out.splitlines()
    assert "under 5 methods" in shown[0] and [line.split()[0] for line in shown[2:-1]] == [
        "mc",
        "gross",
        "span",
        "deribit",
        "own",
    ]
    assert {p.stem for p in (tmp_path / "out").glob("*.parquet")} == {*TABLES, "chain"}
    table = pq.read_table(tmp_path / "out" / "comparison.parquet").to_pydict()
    by = {(a, m): x for a, m, x in zip(table["account_id"], table["method"], table["initial_margin"], strict=True)}
    assert all(x == by[a, "deribit"] for (a, m), x in by.items() if m == "own")
    refused = cli("compare", book, "--out", tmp_path / "no", "--methods", "mc,spam")
    assert refused.code == 2 and "no method spam" in refused.err and not (tmp_path / "no").exists()


def test_a_book_of_a_positional_span_file(cli: Cli, tmp_path: Path) -> None:
    """Imported by its commodity, margined by its own arrays; without the file, by ranges of the model."""
    file, book = tmp_path / "gold.pa2", tmp_path / "book"
    file.write_text("\n".join(lines()), encoding="ascii")
    assert cli("import", "span", file, "--only", "GC", "--out", book).code == 0
    assert cli("populate", book, "--accounts", "6", "--seed", "5").code == 0
    done = cli(
        "compare", book, "--out", tmp_path / "out", "--methods", "mc,span", "--paths", "2048", "--span-file", file
    )
    assert done.code == 0, done.err
    table = pq.read_table(tmp_path / "out" / "methods.parquet").to_pydict()
    own = dict(zip(table["method"], table["source"], strict=True))["span"]
    assert own == "CME SPAN file of 20250912"
    notes = dict(zip(table["method"], table["notes"], strict=True))["span"]
    assert notes.startswith("gold.pa2, sha256 ")


def test_span_arrays(cli: Cli, tmp_path: Path) -> None:
    """A file that the reader takes, with one array for each contract that the market values."""
    book = small_book(tmp_path / "book")
    done = cli("span-arrays", book, "--out", tmp_path / "own.spn", "--paths", "4096")
    assert done.code == 0 and "risk arrays" in done.out, done.err
    assert len(read_span(tmp_path / "own.spn").contract_id) >= int(done.out.split(": ")[1].split()[0])
