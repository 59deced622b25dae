"""Tables from and to databases, in Arrow all the way: DuckDB files, and PostgreSQL through ADBC.

A password stands in no file of pmvar's: libpq takes it from PGPASSWORD or ~/.pgpass.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from pmvar.errors import InputError, Problem, ResourceError, UsageError

POSTGRESQL = ("postgresql://", "postgres://")
DUCKDB = "duckdb:"
DATABASES = (*POSTGRESQL, DUCKDB)
"""How the address of a database begins; after `duckdb:` comes a file."""
_SOURCE = re.compile(r"--\s*source:\s*(\S+)\s*\n(.*)", re.S)


def read_query(text: str, *, file: str, folder: Path) -> pa.Table:
    """The rows of the query in an `.sql` file, whose first line is `-- source: ADDRESS`; a DuckDB file is relative to
    `folder`.

    Raises InputError for a file of another form or a query that fails, UsageError where the extra is not installed.
    """
    match = _SOURCE.fullmatch(text)
    if not match or not match[1].startswith(DATABASES):
        rule = f"must begin with a line `-- source: ADDRESS`, the address beginning with {', '.join(DATABASES)}"
        raise InputError(Problem(rule, "add the line", file=file, row=1))
    address, query = match.groups()
    if "@" in address and ":" in address.partition("://")[2].partition("@")[0]:
        raise InputError(Problem("holds a password", "use PGPASSWORD or ~/.pgpass", file=file, row=1))
    try:
        if address.startswith(DUCKDB):
            with _duckdb(folder / address.removeprefix(DUCKDB), read_only=True) as connection:
                return connection.sql(query).to_arrow_table()
        with _postgresql(address) as connection, connection.cursor() as cursor:
            cursor.execute("set transaction read only")
            cursor.execute(query)
            return cursor.fetch_arrow_table()
    except (InputError, UsageError):
        raise
    except Exception as error:
        rule = f"its query failed: {_words(error)}"
        raise InputError(Problem(rule, "try it with the database's own client", file=file)) from error


def write_tables(address: str, run_id: str, tables: Mapping[str, Iterable[pa.Table]], *, prefix: str) -> None:
    """Put the parts of each table into `<prefix><name>`, with `run_id` as first column, in one transaction: all or
    nothing, and rows that the run has there are replaced.

    Raises ResourceError where the database refuses, UsageError for what is no address or an extra not installed.
    """
    try:
        if address.startswith(DUCKDB):
            with _duckdb(Path(address.removeprefix(DUCKDB)), read_only=False) as connection:
                connection.begin()
                for name, parts in tables.items():
                    _into_duckdb(connection, f'"{prefix}{name}"', run_id, parts)
                connection.commit()
        elif address.startswith(POSTGRESQL):
            # Outside of autocommit a connection that is closed without `commit` leaves nothing.
            with _postgresql(address) as connection:
                for name, parts in tables.items():
                    _into_postgresql(connection, f"{prefix}{name}", run_id, parts)
                connection.commit()
        else:
            raise UsageError(f"{address} is no database; one begins with {', '.join(DATABASES)}")
    except UsageError:
        raise
    except Exception as error:
        raise ResourceError(f"{address.partition('?')[0]} did not take the run: {_words(error)}") from error


def _into_duckdb(connection: Any, table: str, run_id: str, parts: Iterable[pa.Table]) -> None:
    for i, part in enumerate(parts):
        connection.register("part", _marked(part, run_id))
        if i == 0:
            connection.execute(f"create table if not exists {table} as select * from part limit 0")
            connection.execute(f"delete from {table} where run_id = ?", [run_id])
        connection.execute(f"insert into {table} by name select * from part")
        connection.unregister("part")


def _into_postgresql(connection: Any, table: str, run_id: str, parts: Iterable[pa.Table]) -> None:
    with connection.cursor() as cursor:
        for i, part in enumerate(parts):
            marked = _marked(part, run_id)
            if i == 0:
                cursor.adbc_ingest(table, marked.slice(0, 0), mode="create_append")
                cursor.execute(f'delete from "{table}" where run_id = $1', (run_id,))
            cursor.adbc_ingest(table, marked, mode="append")


def _marked(part: pa.Table, run_id: str) -> pa.Table:
    return part.add_column(0, "run_id", pa.array([run_id] * len(part), pa.string()))


@contextmanager
def _duckdb(path: Path, *, read_only: bool) -> Iterator[Any]:
    try:
        import duckdb
    except ImportError as error:
        raise UsageError("DuckDB needs an extra: pip install 'pmvar[sql]'") from error
    # A query of a book reads its own file, and no other.
    with duckdb.connect(str(path), read_only=read_only, config={"enable_external_access": "false"}) as connection:
        yield connection


@contextmanager
def _postgresql(address: str) -> Iterator[Any]:
    try:
        from adbc_driver_postgresql import dbapi
    except ImportError as error:
        raise UsageError("PostgreSQL needs an extra: pip install 'pmvar[sql]'") from error
    with dbapi.connect(address) as connection:
        yield connection


def _words(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
