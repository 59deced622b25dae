"""CSV bytes to an Arrow table of strings; everything that makes a text file unsafe or ragged is refused
here."""

from __future__ import annotations

import csv

import numpy as np
import pyarrow as pa
import pyarrow.csv as pcsv

from pmvar.errors import InputError, Problem, SecurityError
from pmvar.io.problems import Problems

MAX_LINE = 1 << 20
"""Longest line accepted, in bytes."""
_CHUNK = 16 << 20
_QUOTE, _NEWLINE = ord('"'), ord("\n")
_UTF16 = (b"\xff\xfe", b"\xfe\xff")


def _refuse(file: str, rule: str, fix: str, **where: object) -> InputError:
    return InputError(Problem(rule, fix, file=file, **where))  # type: ignore[arg-type]


def decodable(content: bytes, *, file: str) -> bytes:
    """`content` without a byte-order mark; raises InputError, with the byte offset, unless it is UTF-8
    without NUL."""
    fix = "save the file as UTF-8"
    if content.startswith(_UTF16):
        raise _refuse(file, "must be UTF-8; this is UTF-16, at byte offset 0", fix)
    nul = content.find(b"\0")
    if nul >= 0:
        raise _refuse(file, f"must not hold NUL; there is one at byte offset {nul}", fix)
    if not content.isascii():
        try:
            content.decode("utf-8")
        except UnicodeDecodeError as error:
            rule = f"must be UTF-8; byte offset {error.start} is not"
            raise _refuse(file, rule, fix, value=repr(content[error.start : error.start + 4])) from error
    return content.removeprefix(b"\xef\xbb\xbf")


def _check_lines(content: bytes, *, file: str) -> None:
    """Raise on a line that is too long and on quotes that are not closed on their line or stand within a
    cell.

    Works on chunks of whole lines, so that memory stays bounded and no row is looped over in Python.
    """
    start, lines = 0, 1
    while start < len(content):
        end = content.rfind(b"\n", start, start + _CHUNK) + 1
        if end <= start:
            raise SecurityError(f"{file}:{lines}: a line is longer than {MAX_LINE} bytes")
        block = np.frombuffer(content, np.uint8, end - start, start)
        newline = np.flatnonzero(block == _NEWLINE)
        length = np.diff(newline, prepend=-1)
        if length.max() > MAX_LINE:
            raise SecurityError(
                f"{file}:{lines + int(np.argmax(length > MAX_LINE))}: a line is longer than {MAX_LINE} bytes"
            )
        quote = np.flatnonzero(block == _QUOTE)
        line = np.searchsorted(newline, quote)
        opening, closing = quote[0::2], quote[1::2]
        unclosed = np.flatnonzero(line[0 : 2 * len(closing) : 2] != line[1::2])
        if len(unclosed) or len(opening) > len(closing):
            first = line[2 * unclosed[0]] if len(unclosed) else line[-1]
            raise SecurityError(f"{file}:{lines + int(first)}: a quote is not closed on its line")
        before = np.where(opening > 0, block[opening - 1], _NEWLINE)
        stray = ~(np.isin(before, list(b',\n"')) & np.isin(block[closing + 1], list(b',\r\n"')))
        if stray.any():
            at = lines + int(line[2 * np.argmax(stray)])
            raise _refuse(file, "a quoted cell is quoted as a whole, quotes within it doubled", "quote it anew", row=at)
        start, lines = end, lines + len(newline)


def read_csv(content: bytes, *, file: str, problems: Problems) -> tuple[pa.Table, np.ndarray]:
    """The cells of a CSV file as strings, and the line number of each row; the header is line 1.

    Ragged rows are added to `problems` and left out. Raises InputError where the file cannot be read as a
    table, SecurityError for an unclosed quote or a line longer than `MAX_LINE`.
    """
    content = decodable(content, file=file)
    if not content:
        raise _refuse(file, "must not be empty", "supply a header and at least one row")
    if not content.endswith(b"\n"):
        if len(content) - content.rfind(b"\n") > MAX_LINE:
            raise SecurityError(f"{file}: the last line is longer than {MAX_LINE} bytes")
        if content[content.rfind(b"\n") + 1 :].count(b'"') % 2:
            raise SecurityError(f"{file}: a quote is not closed on the last line")
        fix = "supply the whole file; if it is whole, end it with a line break"
        raise _refuse(file, "the last line has no line break: the file is truncated", fix)
    if content.count(b"\r") != content.count(b"\r\n"):
        raise _refuse(file, "lines end with LF or CRLF; there is a CR alone", "save it with LF line ends")
    _check_lines(content, file=file)

    head = content[: content.index(b"\n")].decode().rstrip("\r")
    header = next(csv.reader([head], strict=True), [])
    if len(set(header)) != len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        raise _refuse(file, "a column must appear once", "remove the duplicate", row=1, column=", ".join(twice))
    if content.index(b"\n") + 1 == len(content):
        raise _refuse(file, "must have at least one row", "supply rows, or remove the file if it is optional")

    ragged: list[tuple[int, int]] = []

    def collect(row: pcsv.InvalidRow) -> str:
        ragged.append((row.number, row.actual_columns))
        return "skip"

    def parse(*, threads: bool) -> pa.Table:
        return pcsv.read_csv(
            pa.BufferReader(content),
            read_options=pcsv.ReadOptions(column_names=header, skip_rows=1, block_size=_CHUNK, use_threads=threads),
            parse_options=pcsv.ParseOptions(
                newlines_in_values=False,
                ignore_empty_lines=False,
                # Row numbers are only known to the single-threaded parser.
                invalid_row_handler=None if threads else collect,
            ),
            convert_options=pcsv.ConvertOptions(
                column_types={name: pa.string() for name in header}, strings_can_be_null=False, null_values=[]
            ),
        )

    try:
        table = parse(threads=True)
    except pa.ArrowInvalid:
        table = parse(threads=False)
    row = np.arange(2, 2 + len(table) + len(ragged))
    for number, found in ragged:
        rule = f"a row must have {len(header)} cells, as the header has; this one has {found}"
        problems.add(Problem(rule, "supply the whole row", file=file, row=number))
    return table, np.delete(row, [number - 2 for number, _ in ragged])
