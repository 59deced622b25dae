"""read_span: a clearing house's SPAN risk parameter file, XML or positional, packed or not."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from pmvar.errors import InputError, Problem, UsageError
from pmvar.io.source import Source, unpacked
from pmvar.io.span_file import SpanFile
from pmvar.io.span_pa2 import HEADER, read_pa2
from pmvar.io.span_xml import read_xml

MAX_SPAN = 1 << 30
"""Largest file in bytes, unpacked: a large house's positional file is a quarter of that."""


def read_span(path: str | Path, *, commodities: Collection[str] = ()) -> SpanFile:
    """The SPAN file at `path`, whose format its first bytes tell; of a positional one `commodities` alone, if any.

    Raises InputError with every missing or wrong part, SecurityError for what no honest file holds or for one that
    unpacks to more than `MAX_SPAN`, UsageError if commodities of an XML file are named.
    """
    path = Path(path)
    source = Source(path.parent)
    content = unpacked(source.read(path.name), file=path.name, most=MAX_SPAN)
    if content.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        if commodities:
            raise UsageError(f"{path.name} is XML: commodities are picked from positional files alone")
        found = read_xml(content, file=path.name)
    elif content.startswith(HEADER):
        found = read_pa2(content, file=path.name, commodities=commodities)
    else:
        rule = "is no SPAN file: neither XML nor positional, which begins with record 0"
        raise InputError(Problem(rule, "supply an .spn or .pa2 file", file=path.name, row=1))
    origin = f"{path.name}, sha256 {source.hashes[path.name]}"
    return replace(found, parameters=replace(found.parameters, notes=(origin, *found.parameters.notes)))
