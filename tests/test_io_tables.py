"""The strict reader: each fault with its file, row, column, value, rule and fix; CSV, Parquet and streams
alike."""

from __future__ import annotations

import math
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pmvar.errors import InputError, Problem, SecurityError, StateError
from pmvar.io import csv_text, source
from pmvar.io.problems import SHOWN, Problems
from pmvar.io.schemas import MARKS, POSITIONS
from pmvar.io.source import Source
from pmvar.io.table_files import TableFormat, write_table_file
from pmvar.io.tables import Column, Schema, Table, Type, read_stream, read_table
from pmvar.io.times import format_time, parse_duration, parse_time

HEADER = "account_id,instrument_id,quantity\n"
TRADES = Schema(
    "trades",
    (
        Column("id", Type.NAME),
        Column("side", Type.TEXT, choices=("buy", "sell")),
        Column("size", Type.NUMBER, low=0.0, exclusive=True),
        Column("time", Type.TIME),
        Column("limit", Type.NUMBER, optional=True, default=5.0),
        Column("until", Type.TIME, optional=True),
        Column("note", Type.TEXT, optional=True),
    ),
    key=("id",),
)


def attempt(folder: Path, schema: Schema = POSITIONS) -> tuple[Table | None, Problems]:
    """The table as read, and the problems found."""
    problems = Problems()
    return read_table(schema, Source(folder), problems=problems), problems


def put(folder: Path, content: str | bytes, schema: Schema) -> None:
    """Write the CSV file of a table."""
    file = folder / f"{schema.name}.csv"
    file.parent.mkdir(exist_ok=True)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())


def problems_of(folder: Path, content: str | bytes, schema: Schema = POSITIONS) -> tuple[Problem, ...]:
    """The problems of a table with this CSV content."""
    put(folder, content, schema)
    _, problems = attempt(folder, schema)
    with pytest.raises(InputError) as caught:
        problems.raise_any()
    return caught.value.problems


def only_problem(folder: Path, content: str | bytes, schema: Schema = POSITIONS) -> Problem:
    """The one problem of a table with this CSV content."""
    (problem,) = problems_of(folder, content, schema)
    return problem


def rows_of(folder: Path, content: str | bytes, schema: Schema = POSITIONS) -> Table:
    """A table with this CSV content, which has no problem."""
    put(folder, content, schema)
    table, problems = attempt(folder, schema)
    problems.raise_any()
    assert table is not None
    return table


# ---- numbers, names, times ----


@pytest.mark.parametrize(
    "text",
    ["1_000", "١٢", "nan", "NaN", "inf", "-Infinity", "0x10", "1e", "--1", "1 000", " 1", "1,5", "½", "1d0", "true"],
)
def test_numbers_are_strict_ascii_decimals(tmp_path: Path, text: str) -> None:
    problem = only_problem(tmp_path, f'{HEADER}a,x,1\na,y,"{text}"\n')
    assert (problem.file, problem.row, problem.column, problem.value) == ("positions.csv", 3, "quantity", text)
    assert "decimal number" in problem.rule and "separators" in problem.fix


@pytest.mark.parametrize("text", ["1e400", "-1e999"])
def test_a_number_beyond_float64_is_rejected(tmp_path: Path, text: str) -> None:
    assert "finite" in only_problem(tmp_path, f"{HEADER}a,x,{text}\n").rule


@pytest.mark.parametrize("text", ["1000000000000000000", "1e15", "-1e15", "9223372036854775808"])
def test_absurd_quantities_are_rejected(tmp_path: Path, text: str) -> None:
    assert only_problem(tmp_path, f"{HEADER}a,x,{text}\n").rule == "must be strictly between -1e+15 and 1e+15"


@pytest.mark.parametrize(
    ("text", "value"), [("1", 1.0), ("-.5", -0.5), ("+2.", 2.0), ("1e-3", 1e-3), ("0.1", 0.1), ("1e-400", 0.0)]
)
def test_plain_numbers_are_read_to_the_last_bit(tmp_path: Path, text: str, value: float) -> None:
    assert rows_of(tmp_path, f"{HEADER}a,x,{text}\n")["quantity"].tolist() == [value]


@pytest.mark.parametrize("name", ["NA", "NULL", "nan", "null", "007", "1e5", "None", "true", "日本", "a b", 'say "x"'])
def test_names_are_kept_verbatim(tmp_path: Path, name: str) -> None:
    quoted = '"' + name.replace('"', '""') + '"'
    table = rows_of(tmp_path, f"{HEADER}{quoted},{quoted},1\n")
    assert table["account_id"].tolist() == table["instrument_id"].tolist() == [name]


@pytest.mark.parametrize("name", ["=1+1", "+A", "-A", "@SUM(A1)"])
def test_names_that_a_spreadsheet_would_run_are_rejected(tmp_path: Path, name: str) -> None:
    problem = only_problem(tmp_path, f"{HEADER}{name},x,1\n")
    assert (problem.row, problem.column, problem.value) == (2, "account_id", name)
    assert "spreadsheet" in problem.rule and problem.fix == "rename it"


@pytest.mark.parametrize("name", ["\tA", "a\x07b", "a\x85b", "a\u202eb", "a\u200bb", "a\u2028b"])
def test_names_with_controls_or_invisible_characters_are_rejected(tmp_path: Path, name: str) -> None:
    assert "control" in only_problem(tmp_path, f'{HEADER}a,"{name}",1\n').rule


def test_names_that_are_blank_reserved_or_endless_are_rejected(tmp_path: Path) -> None:
    found = problems_of(tmp_path, f"{HEADER},x,1\na,CASH:USD,1\n{'b' * 257},x,1\n")
    assert [(p.row, p.column) for p in found] == [(2, "account_id"), (3, "instrument_id"), (4, "account_id")]
    assert [p.rule.split(",")[0] for p in found] == [
        "must not be blank",
        "must not begin with CASH:",
        "must have at most 256 characters",
    ]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02T00:00:00Z", 86_400.0),
        ("1970-01-01T05:30:00+05:30", 0.0),
        ("1969-12-31t19:00:00.25-05:00", 0.25),
        ("2024-02-29 08:00:00Z", 1_709_193_600.0),
    ],
)
def test_times_of_any_offset_become_utc(tmp_path: Path, text: str, seconds: float) -> None:
    assert rows_of(tmp_path, f"instrument_id,mark,time\nx,1,{text}\n", MARKS)["time"].tolist() == [seconds]


@pytest.mark.parametrize(
    "text",
    ["2024-01-01T00:00:00", "2024-01-01", "1704067200", "2023-02-29T00:00:00Z", "2024-01-01T00:00:00 UTC", "now"],
)
def test_times_without_a_zone_or_a_day_are_rejected(tmp_path: Path, text: str) -> None:
    problem = only_problem(tmp_path, f"instrument_id,mark,time\nx,1,{text}\n", MARKS)
    assert (problem.row, problem.column, problem.value) == (2, "time", text)
    assert "RFC 3339" in problem.rule and "2025-01-31T08:00:00Z" in problem.fix


@given(st.integers(-60_000_000_000, 250_000_000_000))
def test_times_survive_writing(tenths: int) -> None:
    assert parse_time(format_time(tenths / 10)) == tenths / 10


def test_durations() -> None:
    assert [parse_duration(text) for text in ("90s", "30m", "1h", "2d")] == [90, 1800, 3600, 172_800]
    for text in ("1", "h", "0h", "1.5h", "1w", "١h", "-1h"):
        with pytest.raises(ValueError, match="duration"):
            parse_duration(text)


def test_bounds_choices_and_defaults(tmp_path: Path) -> None:
    table = rows_of(tmp_path, "id,side,size,time\na,buy,1,1970-01-01T00:00:00Z\n", TRADES)
    assert table["limit"].tolist() == [5.0] and math.isnan(table["until"][0]) and table["note"][0] == ""
    content = (
        "id,side,size,time,limit,until,note\n"
        "a,buy,0,1970-01-01T00:00:00Z,,,\n"
        "b,hold,1,1970-01-01T00:00:00Z,,,\n"
        "d,sell,1,1970-01-01T00:00:00Z,,,fine\n"
    )
    found = problems_of(tmp_path, content, TRADES)
    assert [(p.row, p.column, p.value) for p in found] == [
        (2, "size", "0"), (3, "side", "hold"),
    ]  # fmt: skip
    assert found[1].rule == "must be one of buy, sell"
    table, _ = attempt(tmp_path, TRADES)
    assert table is not None and table["side"].tolist() == ["sell"] and not table.complete


# ---- columns, rows, bytes ----


def test_unknown_missing_and_repeated_columns(tmp_path: Path) -> None:
    found = problems_of(tmp_path, "account_id,instrument,quantity,price\na,x,1,2\n")
    assert [(p.row, p.column, p.rule) for p in found] == [
        (1, "instrument", "unknown column"),
        (1, "price", "unknown column"),
        (1, "instrument_id", "the column is missing"),
    ]
    problem = only_problem(tmp_path, "account_id,quantity,instrument_id,quantity\na,1,x,2\n")
    assert (problem.column, problem.rule) == ("quantity", "a column must appear once")
    (tmp_path / "positions.csv").unlink()
    table = pa.table([["a"], ["x"], [1.0], [2.0]], names=["account_id", "instrument_id", "quantity", "quantity"])
    pq.write_table(table, tmp_path / "positions.parquet")
    _, problems = attempt(tmp_path)
    with pytest.raises(InputError, match="a column must appear once"):
        problems.raise_any()


def test_exactly_one_of_csv_and_parquet(tmp_path: Path) -> None:
    rule = "exactly one of positions.csv, positions.parquet and positions.sql"
    with pytest.raises(InputError, match=f"{rule}.*supply one"):
        attempt(tmp_path)[1].raise_any()
    assert not len(attempt_optional(tmp_path))
    (tmp_path / "positions.csv").write_text(f"{HEADER}a,x,1\n")
    pq.write_table(pa.table({"account_id": ["a"]}), tmp_path / "positions.parquet")
    with pytest.raises(InputError, match=f"{rule}.*remove all but one"):
        attempt(tmp_path)[1].raise_any()


def attempt_optional(folder: Path) -> Problems:
    """The problems of an optional table that may be absent."""
    problems = Problems()
    assert read_table(POSITIONS, Source(folder), problems=problems, optional=True) is None
    return problems


def test_row_numbers_are_lines_of_the_file_and_good_rows_are_kept(tmp_path: Path) -> None:
    content = f"{HEADER}a,x,1\nb,y\nc,z,oops\nd,w,4,5\n\ne,v,nope\nf,u,6\n"
    found = problems_of(tmp_path, content)
    # A blank line is a row whose cells are all blank.
    assert [(p.row, p.column) for p in found] == [
        (3, ""), (4, "quantity"), (5, ""), (6, "account_id"), (6, "instrument_id"), (6, "quantity"), (7, "quantity"),
    ]  # fmt: skip
    assert found[0].rule == "a row must have 3 cells, as the header has; this one has 2"
    table, _ = attempt(tmp_path)
    assert table is not None and not table.complete
    assert table["account_id"].tolist() == ["a", "f"] and table.row.tolist() == [2, 8]


def test_many_bad_rows_stay_one_readable_error(tmp_path: Path) -> None:
    found = problems_of(tmp_path, HEADER + "a,x,?\n" * 1000)
    assert len(found) == SHOWN + 1
    assert [p.row for p in found[:3]] == [2, 3, 4]
    assert found[-1].rule == f"{1000 - SHOWN} more problems"


@pytest.mark.parametrize("content", [HEADER, "", "\n"])
def test_no_rows(tmp_path: Path, content: str) -> None:
    assert problems_of(tmp_path, content)


@pytest.mark.parametrize("cut", [1, 2, 5, 7])
def test_a_truncated_file_is_rejected_wherever_it_was_cut(tmp_path: Path, cut: int) -> None:
    content = f"{HEADER}a,x,100\nb,y,200\n"
    problem = only_problem(tmp_path, content[:-cut])
    assert "truncated" in problem.rule or problem.row == 3


@pytest.mark.parametrize(
    ("content", "offset"),
    [
        ((HEADER + "a,x,1\n").encode("utf-16"), "byte offset 0"),
        ((HEADER + "a,x,1\n").encode("utf-16-be"), "byte offset 0"),
        (HEADER.encode() + b"a\0,x,1\n", f"byte offset {len(HEADER) + 1}"),
        (HEADER.encode() + b"a\xff,x,1\n", f"byte offset {len(HEADER) + 1}"),
        (HEADER.encode() + "é".encode()[:1] + b",x,1\n", f"byte offset {len(HEADER)}"),
    ],
)
def test_bytes_that_are_not_utf8_are_named_by_offset(tmp_path: Path, content: bytes, offset: str) -> None:
    assert offset in only_problem(tmp_path, content).rule


def test_a_byte_order_mark_and_crlf_are_accepted(tmp_path: Path) -> None:
    table = rows_of(tmp_path, b"\xef\xbb\xbf" + f'{HEADER}a,"x",1\n'.replace("\n", "\r\n").encode())
    assert (table["instrument_id"][0], table["quantity"][0]) == ("x", 1.0)
    assert "CR alone" in only_problem(tmp_path, f"{HEADER}a,x,1\r".encode() + b"b,x,1\n").rule


@pytest.mark.parametrize("row", ['a,"x,1\n', '"a,x,1\nb,"y",2\n', 'a,"x\ny",1\n', 'a,x,"1'])
def test_a_quote_that_is_not_closed_on_its_line_is_an_attack(tmp_path: Path, row: str) -> None:
    (tmp_path / "positions.csv").write_text(f"{HEADER}a,x,1\n{row}")
    with pytest.raises(SecurityError, match="quote is not closed"):
        attempt(tmp_path)


@pytest.mark.parametrize("row", ['a,"x"y,1', 'a,x"y",1', 'a,x"",1', 'a,"x" ,1'])
def test_a_cell_that_is_quoted_in_part_is_rejected(tmp_path: Path, row: str) -> None:
    assert only_problem(tmp_path, f"{HEADER}a,x,1\n{row}\n").row == 3


@pytest.mark.parametrize("end", ["\n", ""])
def test_an_endless_line_is_an_attack(tmp_path: Path, end: str) -> None:
    (tmp_path / "positions.csv").write_text(f"{HEADER}a,{'x' * csv_text.MAX_LINE},1{end}")
    with pytest.raises(SecurityError, match="longer than 1048576 bytes"):
        attempt(tmp_path)


def test_lines_are_checked_across_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(csv_text, "_CHUNK", 64)
    good = "".join(f'"a{i}","x",{i}\n' for i in range(50))
    assert len(rows_of(tmp_path, HEADER + good)) == 50
    assert only_problem(tmp_path, f'{HEADER}{good}"a"b,x,1\n').row == 52
    (tmp_path / "positions.csv").write_text(f'{HEADER}{good}"a,x,1\n')
    with pytest.raises(SecurityError, match="positions.csv:52: a quote"):
        attempt(tmp_path)


def test_a_file_beyond_the_cap_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source, "MAX_BYTES", 10)
    (tmp_path / "positions.csv").write_text(f"{HEADER}a,x,1\n")
    with pytest.raises(SecurityError, match="cap of 10"):
        attempt(tmp_path)


# ---- Parquet and streams ----


def arrow(**changes: Any) -> pa.Table:
    """Two positions as an Arrow table, with columns replaced."""
    return pa.table({"account_id": ["a", "b"], "instrument_id": ["x", "y"], "quantity": [1.5, -2.0]} | changes)


def stream_problems(table: Any, schema: Schema = POSITIONS) -> list[Problem]:
    """The problems of an Arrow table."""
    problems = Problems()
    read_stream(schema, table, source=Source(Path()), problems=problems)
    try:
        problems.raise_any()
    except InputError as error:
        return list(error.problems)
    return []


@pytest.mark.parametrize(
    ("changes", "rule", "rows"),
    [
        ({"quantity": [1.0, math.nan]}, "must be finite", [2]),
        ({"quantity": [math.inf, 1.0]}, "must be finite", [1]),
        ({"quantity": [None, 1.0]}, "must not be blank", [1]),
        ({"quantity": [10**18, 1]}, "must be strictly between", [1]),
        ({"quantity": ["1", "2"]}, "must hold numbers, not string", [1, 2]),
        ({"quantity": [True, False]}, "must hold numbers, not bool", [1, 2]),
        ({"account_id": [7, 8]}, "must hold text, not int64", [1, 2]),
        ({"account_id": ["a", None]}, "must not be blank", [2]),
        ({"account_id": ["=a", "b"]}, "must not begin with", [1]),
        ({"account_id": pa.array([["a"], ["b"]])}, "must hold text, not list", [1, 2]),
    ],
)
def test_faults_of_a_stream(changes: dict[str, Any], rule: str, rows: list[int]) -> None:
    found = stream_problems(arrow(**changes))
    assert [p.row for p in found] == rows and all(rule in p.rule for p in found)
    assert {p.file for p in found} == {"positions (stream)"}


def test_streams_of_any_text_number_and_time_type_read_alike() -> None:
    texts = [pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string())]
    for text in texts:
        names = pa.array(["007", "NA"]).cast(text)
        for quantity in (pa.array([1, 2]), pa.array([1, 2], pa.float32()), pa.array([1, 2], pa.uint8())):
            problems = Problems()
            table = read_stream(
                POSITIONS, arrow(account_id=names, quantity=quantity), source=Source(Path()), problems=problems
            )
            problems.raise_any()
            assert table is not None
            assert table["account_id"].tolist() == ["007", "NA"] and table["quantity"].tolist() == [1.0, 2.0]
    for unit in ("s", "ms", "us", "ns"):
        time = (
            pa.array([1_700_000_000], pa.int64()).cast(pa.timestamp("s", "Asia/Tokyo")).cast(pa.timestamp(unit, "UTC"))
        )
        problems = Problems()
        table = read_stream(
            MARKS,
            pa.table({"instrument_id": ["x"], "mark": [1.0], "time": time}),
            source=Source(Path()),
            problems=problems,
        )
        problems.raise_any()
        assert table is not None and table["time"].tolist() == [1_700_000_000.0]
    naive = pa.array([0], pa.timestamp("us"))
    (problem,) = stream_problems(pa.table({"instrument_id": ["x"], "mark": [1.0], "time": naive}), MARKS)
    assert "with a zone, not timestamp[us]" in problem.rule


def test_what_is_no_stream_is_a_problem() -> None:
    (problem,) = stream_problems(object())
    assert "__arrow_c_stream__" in problem.fix


def test_a_stream_is_hashed_by_content() -> None:
    hashes = []
    for table in (arrow(), pa.concat_tables([arrow()[:1], arrow()[1:]]), arrow(quantity=[1.5, -2.5])):
        origin = Source(Path())
        read_stream(POSITIONS, table, source=origin, problems=Problems())
        hashes.append(origin.hashes["positions (stream)"])
    assert hashes[0] == hashes[1] != hashes[2]


def test_a_flipped_bit_of_parquet_is_noticed(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    table = pa.table(
        {"account_id": [str(i) for i in range(500)], "instrument_id": ["x"] * 500, "quantity": rng.normal(size=500)}
    )
    path = write_table_file(tmp_path / "positions", table, table_format=TableFormat.PARQUET)
    sound = path.read_bytes()
    start = sound.index(b"PAR1") + 4
    footer = len(sound) - 8 - int.from_bytes(sound[-8:-4], "little")
    silent = 0
    for at in rng.integers(start, footer, 60).tolist():
        damaged = bytearray(sound)
        damaged[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        result, problems = attempt(tmp_path)
        if not problems:
            assert result is not None
            silent += result["quantity"].tolist() != table["quantity"].to_pylist()
    assert silent == 0


def test_a_parquet_bomb_is_refused_by_its_footer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pq.write_table(arrow(), tmp_path / "positions.parquet")
    monkeypatch.setattr("pmvar.io.tables.MAX_BYTES", 100)
    with pytest.raises(SecurityError, match="footer announces 2 rows"):
        attempt(tmp_path)


def test_long_repeated_texts_of_parquet_do_not_unfold(tmp_path: Path) -> None:
    table = pa.table({"account_id": ["a" * 100_000] * 1000, "instrument_id": ["x"] * 1000, "quantity": [1.0] * 1000})
    pq.write_table(table, tmp_path / "positions.parquet")
    del table
    before = pa.total_allocated_bytes()
    tracemalloc.start()
    _, problems = attempt(tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(problems) == 1000 and peak < 10e6 and pa.total_allocated_bytes() - before < 10e6


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1garbagePAR1", b"hello"])
def test_what_is_no_parquet_is_rejected(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "positions.parquet").write_bytes(content)
    with pytest.raises(InputError, match="not sound Parquet"):
        attempt(tmp_path)[1].raise_any()


def test_invalid_utf8_in_parquet_is_rejected(tmp_path: Path) -> None:
    bad = pa.array([b"\xff", b"b"]).view(pa.binary())
    table = arrow(account_id=pa.Array.from_buffers(pa.string(), 2, bad.buffers()))
    pq.write_table(table, tmp_path / "positions.parquet")
    with pytest.raises(InputError, match="not sound Parquet|UTF"):
        attempt(tmp_path)[1].raise_any()


NAMES = st.text(
    st.characters(codec="utf-8", exclude_categories=("C", "Z"), exclude_characters="=+-@"), min_size=1, max_size=20
)
INSTRUMENT_NAMES = NAMES.filter(lambda name: not name.startswith("CASH:"))
QUANTITIES = st.floats(-9.99e14, 9.99e14, allow_subnormal=True)


@given(st.lists(st.tuples(NAMES, INSTRUMENT_NAMES, QUANTITIES), min_size=1, max_size=20))
def test_csv_parquet_and_streams_read_alike_to_the_last_bit(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, float]]
) -> None:
    accounts, instruments, quantities = (list(part) for part in zip(*rows, strict=True))
    wanted = arrow(account_id=accounts, instrument_id=instruments, quantity=quantities)
    problems = Problems()
    tables = [read_stream(POSITIONS, wanted, source=Source(Path()), problems=problems)]
    for table_format in TableFormat:
        folder = tmp_path_factory.mktemp("table")
        write_table_file(folder / "positions", wanted, table_format=table_format)
        tables.append(read_table(POSITIONS, Source(folder), problems=problems))
    problems.raise_any()
    for table in tables:
        assert table is not None and table.complete
        assert table["account_id"].tolist() == accounts and table["instrument_id"].tolist() == instruments
        assert table["quantity"].tobytes() == np.array(quantities).tobytes()
        codes = dict(zip(table.codes["account_id"].tolist(), accounts, strict=True))
        assert len(codes) == len(set(accounts))


def test_duplicates_name_both_rows(tmp_path: Path) -> None:
    problem = only_problem(
        tmp_path,
        "id,side,size,time\na,buy,1,1970-01-01T00:00:00Z\nb,buy,1,1970-01-01T00:00:00Z\na,sell,2,1970-01-01T00:00:00Z\n",
        TRADES,
    )
    assert (problem.row, problem.column, problem.value) == (4, "id", "a")
    assert problem.rule == "(id) must be unique; row 2 has the same"


def test_a_file_that_changes_while_the_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("1")
    origin = Source(tmp_path)
    assert origin.read("a") == b"1"
    origin.verify()
    (tmp_path / "a").write_text("22")
    with pytest.raises(StateError, match="a changed while"):
        origin.verify()
    (tmp_path / "a").unlink()
    with pytest.raises(StateError, match="a changed while"):
        origin.verify()


def test_good_rows_are_read_without_a_loop_over_them(tmp_path: Path) -> None:
    n = 200_000
    table = pa.table(
        {
            "account_id": [f"account {i % 1000}" for i in range(n)],
            "instrument_id": ["x"] * n,
            "quantity": np.arange(n) / 7,
        }
    )
    write_table_file(tmp_path / "positions", table, table_format=TableFormat.CSV)
    calls = 0

    def count(_frame: Any, event: str, _arg: Any) -> None:
        nonlocal calls
        calls += event == "call"

    sys.setprofile(count)
    try:
        read, problems = attempt(tmp_path)
    finally:
        sys.setprofile(None)
    assert not problems and read is not None and len(read) == n
    assert calls < 10_000
