"""read_pa2: a positional SPAN file (expanded unpacked, `U2`) to contracts, risk arrays and parameters; strict and safe.

Columns are those of `span_pa2_layout`. A record or a method that the aggregation does not know is refused by line and
column; what has no bearing on a margin is on the layout's list of ignored records.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from pmvar.errors import InputError, Problem, SecurityError
from pmvar.io.span_file import Draft, SpanFile, day_or_none
from pmvar.io.span_pa2_contracts import Contracts
from pmvar.io.span_pa2_layout import IGNORED, LAYOUT
from pmvar.io.span_pa2_parameters import RECORDS, Parameters
from pmvar.io.span_pa2_record import Record

HEADER = b"0 "
MAX_LINE = 1024
"""Longest line accepted; the longest record has 192 columns."""
_PLAIN = re.compile(rb"[\x20-\x7e]*")


def read_pa2(content: bytes, *, file: str, commodities: Collection[str] = ()) -> SpanFile:
    """The positional SPAN file that `content` holds; `file` is its name, `commodities` the ones to read, if not all.

    Raises InputError with every wrong record by line and column, SecurityError for a line that no honest file has.
    """
    draft, header = Draft(file), None
    parameters = Parameters(draft, commodities)
    contracts = Contracts(draft, parameters)
    for row, line in _lines(content, file=file):
        record = line[:2].ljust(2)
        if record in LAYOUT:
            r = Record(line, row, draft, LAYOUT[record])
            contracts.check_pair(record)
            if record == "0 ":
                header = r
                _check_header(r)
            elif record in RECORDS:
                parameters.take(record, r)
            # Series of commodities that are skipped stay unread.
            elif record != "B " or parameters.block is not None:
                contracts.take(record, r)
        elif record not in IGNORED:
            draft.refuse("record (columns 1–2)", "is not known, and could bear on a margin", "margin these elsewhere",
                         record, row)  # fmt: skip
    contracts.check_pair("")
    day = header.text("date") if header else ""
    if header is None or not day_or_none(day):
        draft.refuse("record 0 date (columns 9–16)", "must be a day, CCYYMMDD", "correct it", day, 1)
    missing = sorted(set(commodities) - set(parameters.exponent))
    if missing:
        draft.refuse("record 2 code", "is not in the file", "name one that is", ", ".join(missing))
    draft.problems.raise_any()
    assert header is not None
    parameters.finish()
    contracts.finish()
    draft.problems.raise_any()
    return draft.finished(contracts.grid(), day, header.text("organisation"))


def _check_header(r: Record) -> None:
    r.one_of("format", "U2")
    r.one_of("cap", "", "N")
    r.one_of("level", "", "M")


def _lines(content: bytes, *, file: str) -> Iterator[tuple[int, str]]:
    """Number and text of each line that is not blank."""
    for row, raw in enumerate(content.split(b"\n"), start=1):
        raw = raw.removesuffix(b"\r")
        if len(raw) > MAX_LINE:
            raise SecurityError(f"{file}:{row}: a line is longer than {MAX_LINE} bytes")
        plain_bytes = _PLAIN.match(raw)
        if plain_bytes is None or plain_bytes.end() < len(raw):
            at = 1 + (plain_bytes.end() if plain_bytes else 0)
            raise InputError(
                Problem(f"column {at} is no printable ASCII", "save the file as ASCII", file=file, row=row,
                        value=repr(raw[at - 1 : at + 3]))
            )  # fmt: skip
        line = raw.decode("ascii")
        if line.strip():
            yield row, line
