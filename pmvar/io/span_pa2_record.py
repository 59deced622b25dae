"""One line of a positional SPAN file, read by the columns of its record."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from pmvar.io.span_file import Draft
from pmvar.io.span_pa2_layout import Field

Product = tuple[str, str, str]
"""Exchange, code and type."""


@dataclass
class Record:
    """One line; `at` names the file for what is wrong with it."""

    line: str
    row: int
    at: Draft
    fields: dict[str, Field]

    def refuse(self, name: str, rule: str, fix: str = "margin it elsewhere") -> None:
        """A problem of one field: line, columns and value."""
        f = self.fields[name]
        where = f"record {f.record.strip()} {name} (columns {f.first}–{f.last})"
        self.at.refuse(where, rule, fix, self.line[f.first - 1 : f.last].strip(), self.row)

    def text(self, name: str) -> str:
        """What the field holds, without blanks around it."""
        f = self.fields[name]
        return self.line[f.first - 1 : f.last].strip()

    def one_of(self, name: str, *allowed: str) -> str:
        """Text that must be one of `allowed`."""
        found = self.text(name)
        if found not in allowed:
            known = ", ".join(a or "blank" for a in allowed)
            self.refuse(name, f"only {known} {'is' if len(allowed) == 1 else 'are'} known")
        return found

    def number(self, name: str) -> float:
        """Digits with their implied point and sign; NaN, and a problem, if they are not."""
        f = self.fields[name]
        raw = self.line[f.first - 1 : f.last]
        digits, sign = raw, " "
        if not raw.strip() and (f.kind.endswith("?") or f.kind == "L"):
            return 0.0
        if len(raw) < f.last - f.first + 1 and not ("b" in f.kind and len(raw) == f.last - f.first):
            self.refuse(name, "the line ends within this field", "supply the whole file")
            return np.nan
        if "s" in f.kind or "b" in f.kind:
            digits, sign = raw[: f.last - f.first], raw[f.last - f.first :] or " "
        if f.kind == "L":
            digits, sign = (digits[1:], "-") if digits.startswith("-") else (digits, " ")
        if not digits.isdigit() or sign not in ("+-" if "s" in f.kind else "+- "):
            rule = "must be digits" + (" and then + or −" if "s" in f.kind else "")
            self.refuse(name, rule, "correct it")
            return np.nan
        places = int(f.kind[2]) if f.kind != "L" else 0
        return (-1 if sign == "-" else 1) * int(digits) / 10**places

    def month(self, month: str = "month", day: str = "day") -> str:
        """CCYYMM and the day or week code; "" where the month is blank or zero."""
        found = self.text(month)
        if not found.strip("0"):
            return ""
        if not re.fullmatch(r"[12]\d{3}(0[1-9]|1[0-2])", found):
            self.refuse(month, "must be a month, CCYYMM", "correct it")
        return found + self.text(day)

    def product(self) -> Product:
        """Whose record this is."""
        return self.text("exchange"), self.text("commodity"), self.text("product")


def family(product: Product) -> str:
    """Id of the product's family."""
    return f"{product[0]} {product[1]}"
