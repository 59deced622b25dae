"""Books and runs under the address of an object store, or of whatever else pyarrow has a file system for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from pmvar.errors import ResourceError, UsageError
from pmvar.io.atomic import whole_folder
from pmvar.io.source import MAX_BYTES

CHUNK = 8 << 20
BOOK = "book.toml"


def fetch_book(address: str, folder: str | Path) -> str:
    """Copy the book at `address` (`s3://bucket/book`, `gs://…`, `file:///…`) to `folder`, whole or not at all, and say
    so; a book that is there already is replaced.

    Raises UsageError for an address that is none or holds no book, and for a folder that holds something else,
    ResourceError where a file cannot be read whole.
    """
    store, root = _store(address)
    try:
        found = [i for i in store.get_file_info(fs.FileSelector(root, recursive=True)) if i.type is fs.FileType.File]
    except OSError as error:
        raise UsageError(f"{address} cannot be listed: {error}") from error
    names = {os.path.relpath(item.path, root): item for item in found}
    if BOOK not in names:
        raise UsageError(f"{address} holds no {BOOK}: it is no book")
    with whole_folder(folder, marker=BOOK) as target:
        for name, item in names.items():
            if item.size > MAX_BYTES:
                raise ResourceError(f"{address}/{name}: {item.size} bytes are more than the cap of {MAX_BYTES}")
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            try:
                with store.open_input_stream(item.path) as source, open(target / name, "wb") as sink:
                    _pour(source, sink)
                    taken = sink.tell()
            except (OSError, pa.ArrowException) as error:
                raise ResourceError(f"{address}/{name} could not be copied: {error}") from error
            if taken != item.size:
                raise ResourceError(f"{address}/{name} changed while it was read; fetch again once its writer is done")
    return f"{len(names)} files: {folder}"


def put_files(folder: Path, names: Sequence[str], address: str) -> None:
    """Copy files of a folder under an address, in order; the last one, which is taken away first, says that all are
    there. Raises UsageError for an address that is none, ResourceError where the store does not take them."""
    store, root = _store(address)
    try:
        store.create_dir(root)
        last = f"{root}/{names[-1]}"
        if store.get_file_info(last).type is fs.FileType.File:
            store.delete_file(last)
        for name in names:
            with store.open_output_stream(f"{root}/{name}") as sink, open(folder / name, "rb") as source:
                _pour(source, sink)
    except OSError as error:
        raise ResourceError(f"{address} did not take the run: {error}") from error


def _store(address: str) -> tuple[fs.FileSystem, str]:
    try:
        return fs.FileSystem.from_uri(address)
    except (pa.ArrowException, ValueError) as error:
        raise UsageError(f"{address} is no address; one is like s3://bucket/folder") from error


def _pour(source: Any, sink: Any) -> None:
    while chunk := source.read(CHUNK):
        sink.write(chunk)
