"""populate: generated accounts for a book that has a market and instruments and no positions yet."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow as pa

from pmvar.errors import UsageError
from pmvar.io.accounts import generate_accounts
from pmvar.io.atomic import whole_folder
from pmvar.io.book import load_book
from pmvar.io.import_summary import ImportSummary
from pmvar.io.table_files import TableFormat, write_table_file
from pmvar.types import Kind

GENERATED = "Accounts, positions and balances are synthetic, generated with seed {seed}: nobody holds them."


def populate(book_path: str | Path, *, n_accounts: int, seed: int, comment: str = "") -> ImportSummary:
    """Add generated positions and balances (see `pmvar.io.accounts`) to the book in the folder `book_path`.

    The notes in `book.toml` say so, after `comment`. The same book, number and seed give the same bytes.
    Raises UsageError if the book already has positions or balances or `n_accounts` or `seed` is out of range, and
    what `load_book` raises.
    """
    folder = Path(book_path)
    if n_accounts < 1 or seed < 0:
        raise UsageError(f"n_accounts must be at least 1 and seed at least 0, not {n_accounts} and {seed}")
    present = [p.name for stem in ("positions", "balances") for p in sorted(folder.glob(f"{stem}.*"))]
    if present:
        raise UsageError(f"{folder} already has {' and '.join(present)}; import it anew, or remove them")
    # A book is read with positions; this one has none yet, and an unknown instrument only withholds its
    # account.
    nobody = pa.table({"account_id": ["nobody"], "instrument_id": ["none"], "quantity": [1.0]})
    book = load_book(folder, tables={"positions": nobody})
    listed = book.portfolio.instruments
    positions, balances = generate_accounts(
        listed.take(listed.kind != Kind.CASH), book.market, n_accounts=n_accounts, seed=seed
    )
    note = GENERATED.format(seed=seed)
    with whole_folder(folder, marker="book.toml") as draft:
        shutil.copytree(folder, draft, dirs_exist_ok=True)
        head = (folder / "book.toml").read_text(encoding="utf-8")
        said = json.dumps([*comment.splitlines(), note], ensure_ascii=False)
        (draft / "book.toml").write_text(f"notes = {said}\n{head}", encoding="utf-8")
        for name, table in (("positions", positions), ("balances", balances)):
            arrow = pa.table({key: pa.array(values) for key, values in table.items()})
            write_table_file(draft / name, arrow, table_format=TableFormat.CSV)
    held, owned = len(positions["quantity"]), len(balances["amount"])
    counts = {"accounts": n_accounts, "positions": held, "balances": owned}
    return ImportSummary(folder, counts, (note,))
