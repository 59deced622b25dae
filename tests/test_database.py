"""Tables from databases and runs into them: DuckDB, a PostgreSQL server of the test's own, and object stores."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv
import pyarrow.parquet as pq
import pytest

from pmvar.bulk.run import Request, run
from pmvar.errors import InputError, ResourceError, UsageError
from pmvar.io.book import Book, load_book
from pmvar.io.export import export_run
from pmvar.io.run import read_run, write_run
from pmvar.risk.result import TABLES, MarginResult
from pmvar.types import Detail
from tests.books import small_book

duckdb = pytest.importorskip("duckdb", reason="the extra pmvar[sql] is not installed")
SQL = "select account_id, instrument_id, quantity from positions order by account_id, instrument_id"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a PostgreSQL server that listens on a socket of its own."""
    pytest.importorskip("adbc_driver_postgresql", reason="the extra pmvar[sql] is not installed")
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [Path(shutil.which("initdb") or "")]
    if not found[-1].name:
        pytest.skip("no PostgreSQL server: initdb is not installed (Debian: apt-get install postgresql)")
    programs, folder = found[-1].parent, tmp_path_factory.mktemp("pg")
    as_user: dict[str, Any] = {}
    if os.geteuid() == 0:
        # The server refuses to run as root.
        try:
            user = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("no PostgreSQL server: root cannot run it, and there is no user postgres")
        as_user = {"user": user.pw_uid, "group": user.pw_gid}
        os.chown(folder, user.pw_uid, user.pw_gid)
        for parent in folder.parents:
            if parent.stat().st_uid == 0 and parent != Path("/"):
                parent.chmod(parent.stat().st_mode | 0o011)

    def call(name: str, *arguments: str) -> None:
        command = [str(programs / name), "-D", str(folder / "data"), *arguments]
        # A pipe would stay open for as long as the server has it.
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder, **as_user)

    try:
        call("initdb", "-U", "desk", "-A", "trust", "-N")
        call("pg_ctl", "-w", "-l", str(folder / "log"), "-o", f"-k {folder} -c listen_addresses='' -F", "start")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no PostgreSQL server: it does not start on this machine: {error}")
    yield f"postgresql://desk@/postgres?host={folder}"
    call("pg_ctl", "-m", "immediate", "stop")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small book."""
    return small_book(tmp_path_factory.mktemp("database") / "book")


@pytest.fixture(scope="module")
def published(folder: Path) -> Path:
    """A run of it."""
    out = folder.parent / "run"
    run(Request(load_book(folder, overrides={"scenarios": 2048, "level": 0.99}), out, Detail.MARGINS))
    return out


def book_with_query(folder: Path, tmp_path: Path, address: str, query: str = SQL) -> Path:
    """The book, its positions in a database."""
    book = tmp_path / "book"
    shutil.copytree(folder, book)
    (book / "positions.csv").unlink()
    (book / "positions.sql").write_text(f"-- source: {address}\n{query}\n")
    return book


def positions_of(book: Book) -> np.ndarray:
    """Its positions matrix."""
    return book.portfolio.quantity.toarray()


def stored(folder: Path) -> pa.Table:
    """The positions of the book as a table."""
    text = {"account_id": pa.string(), "instrument_id": pa.string(), "quantity": pa.float64()}
    options = pcsv.ConvertOptions(column_types=text, strings_can_be_null=False)
    return pcsv.read_csv(folder / "positions.csv", convert_options=options)


def test_positions_from_duckdb(folder: Path, tmp_path: Path) -> None:
    """The same portfolio; query and rows are hashed; the database's own other files are out of reach."""
    table = stored(folder)
    with duckdb.connect(str(tmp_path / "venue.duckdb")) as connection:
        connection.register("given", table)
        connection.execute("create table positions as select * from given")
    book = load_book(book_with_query(folder, tmp_path, "duckdb:../venue.duckdb"))
    np.testing.assert_array_equal(positions_of(book), positions_of(load_book(folder)))
    assert {"positions.sql", "positions.sql (rows)"} <= set(book.input_hashes)
    with duckdb.connect(str(tmp_path / "venue.duckdb")) as connection:
        connection.execute("update positions set quantity = quantity + 1 where account_id = '001'")
    again = load_book(tmp_path / "book")
    changed = {k for k in book.input_hashes if book.input_hashes[k] != again.input_hashes[k]}
    assert changed == {"positions.sql (rows)"}
    (tmp_path / "book" / "positions.sql").write_text(
        f"-- source: duckdb:../venue.duckdb\nselect * from '{tmp_path / 'book' / 'instruments.csv'}'\n"
    )
    with pytest.raises(InputError, match="its query failed.*disabled"):
        load_book(tmp_path / "book")


def test_positions_from_postgresql(folder: Path, tmp_path: Path, server: str) -> None:
    """The same portfolio as from the file."""
    from adbc_driver_postgresql import dbapi

    with dbapi.connect(server) as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("positions", stored(folder), mode="create")
        connection.commit()
    book = load_book(book_with_query(folder, tmp_path, server))
    np.testing.assert_array_equal(positions_of(book), positions_of(load_book(folder)))


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("select 1\n", "must begin with a line `-- source: ADDRESS`"),
        ("-- source: mysql://host/db\nselect 1\n", "must begin with a line `-- source: ADDRESS`"),
        ("-- source: postgresql://desk:secret@host/db\nselect 1\n", "holds a password"),
        ("-- source: duckdb:absent.duckdb\nselect 1\n", "its query failed"),
    ],
)
def test_queries_that_are_refused(folder: Path, tmp_path: Path, text: str, rule: str) -> None:
    """Each says what is wrong with which file; no password is read from a file."""
    book = book_with_query(folder, tmp_path, "duckdb:none")
    (book / "positions.sql").write_text(text)
    with pytest.raises(InputError, match="positions.sql") as refused:
        load_book(book)
    assert rule in str(refused.value) and "secret" not in str(refused.value)


def test_a_query_is_checked_like_a_file(folder: Path, tmp_path: Path) -> None:
    """A quantity that is not finite, a column too many."""
    with duckdb.connect(str(tmp_path / "venue.duckdb")) as connection:
        connection.execute("create table t as select '001' a, 'BTC' b, 'nan'::double c, 1 d")
    query = "select a account_id, b instrument_id, c quantity, d surplus from t"
    with pytest.raises(InputError) as refused:
        load_book(book_with_query(folder, tmp_path, "duckdb:../venue.duckdb", query))
    assert "surplus: unknown column" in str(refused.value) and "must be finite" in str(refused.value)


def test_positions_in_parts(folder: Path, tmp_path: Path) -> None:
    """A folder of Parquet files is one table, in the order of their names; parts that differ are refused by name."""
    table = stored(folder)
    book = tmp_path / "book"
    shutil.copytree(folder, book)
    (book / "positions.csv").unlink()
    parts = book / "positions.parquet"
    (parts / "day=2025-01-31").mkdir(parents=True)
    for i, (start, n) in enumerate(((0, 3), (3, len(table)))):
        pq.write_table(table.slice(start, n), parts / "day=2025-01-31" / f"part-{i}.parquet")
    found = load_book(book)
    np.testing.assert_array_equal(positions_of(found), positions_of(load_book(folder)))
    assert "positions.parquet/day=2025-01-31/part-1.parquet" in found.input_hashes
    pq.write_table(table.drop_columns("quantity"), parts / "other.parquet")
    with pytest.raises(InputError, match=r"other.parquet: .*has other columns than .*part-0.parquet"):
        load_book(book)
    shutil.rmtree(parts / "day=2025-01-31")
    (parts / "other.parquet").unlink()
    with pytest.raises(InputError, match="holds no .parquet file"):
        load_book(book)


def test_a_run_into_duckdb(published: Path, tmp_path: Path) -> None:
    """Every row of every table, under the manifest's digest; twice is once."""
    target = f"duckdb:{tmp_path / 'margins.duckdb'}"
    for _ in range(2):
        assert "tables with run_id" in export_run(published, target)
    ours = read_run(published)
    with duckdb.connect(str(tmp_path / "margins.duckdb"), read_only=True) as connection:
        for name in TABLES:
            if len(next(iter(ours.tables[name].values()))):
                theirs = connection.execute(f"select * from pmvar_{name}").fetchnumpy()
                assert set(theirs["run_id"]) == {ours.manifest["digest"]}
                for column, values in ours.tables[name].items():
                    np.testing.assert_array_equal(np.asarray(theirs[column]), values, err_msg=f"{name}.{column}")
        assert connection.execute("select count(*) from pmvar_runs").fetchall() == [(1,)]


def test_a_run_into_postgresql(published: Path, server: str) -> None:
    """The same; and what fails leaves nothing behind."""
    from adbc_driver_postgresql import dbapi

    for _ in range(2):
        export_run(published, server)
    ours = read_run(published).tables["margins"]
    with dbapi.connect(server) as connection, connection.cursor() as cursor:
        cursor.execute("select * from pmvar_margins order by account_id")
        theirs = cursor.fetch_arrow_table()
        cursor.execute("create table half_stress (x int)")
        connection.commit()
    for column, values in ours.items():
        np.testing.assert_array_equal(theirs[column].to_numpy(), values, err_msg=column)
    with pytest.raises(ResourceError, match="did not take the run"):
        export_run(published, server, prefix="half_")
    with dbapi.connect(server) as connection, connection.cursor() as cursor:
        cursor.execute("select count(*) from information_schema.tables where table_name = 'half_margins'")
        assert cursor.fetchone() == (0,)


def test_a_run_to_an_address(published: Path, tmp_path: Path) -> None:
    """All files, by pyarrow's file systems; the copy is a run that verifies."""
    target = (tmp_path / "store" / "run").as_uri()
    for _ in range(2):
        export_run(published, target)
    copy = read_run(tmp_path / "store" / "run")
    np.testing.assert_array_equal(
        copy.tables["margins"]["initial_margin"], read_run(published).tables["margins"]["initial_margin"]
    )
    other = write_run(
        tmp_path / "other", MarginResult({"chosen": {"account_id": np.array(["a"], object)}}, (), {}), report_html="",
        inputs={}, columns={"chosen": ("account_id",)},
    )  # fmt: skip
    with pytest.raises(UsageError, match="has no margins"):
        export_run(other, f"duckdb:{tmp_path / 'other.duckdb'}")
    for wrong in ("nowhere", "ftp://host/run"):
        with pytest.raises(UsageError, match="is no address"):
            export_run(published, wrong)
