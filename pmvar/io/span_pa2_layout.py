"""Where each field of a positional SPAN file stands: the expanded unpacked format (`U2`, `.pa2`), as one table.

CME Group, SPAN pages, "Risk Parameter File Layouts for the Positional Formats", expanded types 0, 2, 3, 4, 6, 8, B, C,
E, P and S (cmegroupclientsite.atlassian.net, space pubspan; type 8 is page 46235915, S 47087663, 6 46071819). The
columns of C and E, and what the numbers of 8 mean (losses of one long contract, times ten to the risk exponent; nines
where there is no price), from the open parsers riskkit (charlieyanhx), which reconciled them with a file of CME, and
rpolton/span-for-margin.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Field:
    """One field of a record; columns are counted from 1, both ends included."""

    record: str
    name: str
    first: int
    last: int
    kind: str
    """`X` text. `9.n` digits, n of them behind an implied point; then `s`: a sign + or − in the last column, `b`: the
    same or blank, `?`: zero where it is blank. `L` a decimal locator: digits, perhaps behind a minus, or blank."""


_CONTRACT = """
exchange     3   5  X
commodity    6  15  X
underlying  16  25  X
product     26  28  X
right       29  29  X
month       30  35  X
day         36  37  X
option_month 39 44  X
option_day  45  46  X
strike      48  54  9.0?
"""
_TAIL = """
delta            0   5  9.4s
vol              6  13  9.6?
price           14  21  9.0b
strike_sign     22  22  X
vol_exponent    38  40  9.0b?
"""
"""Of the second record of a pair, counted from where the delta begins."""

# A fifth and sixth number repeat a field: so many times, so many columns apart; its names are name_1, name_2, ….
_TABLE = {
    "0 ": """
        organisation 3   8  X
        date         9  16  X
        format      36  37  X
        cap         39  39  X
        level       75  75  X
    """,
    "2 ": """
        exchange     3   5  X
        code         7  12  X
        exponent    13  13  9.0?
        currency    14  16  X
        style       18  18  X
        cap         19  19  X
        combination 20  20  X
        commodity   23  32  X     6 16
        product     33  35  X     6 16
        locator     36  36  9.0?  6 16
        locator_sign 37 37  X     6 16
    """,
    "S ": """
        code         3   8  X
        method       9  10  X
        tier        13  14  9.0?  5 14
        start       15  20  X     5 14
        end         21  26  X     5 14
        price_risk  83  83  X
        start_day   84  85  X     5 4
        end_day     86  87  X     5 4
    """,
    "3 ": """
        code         3   8  X
        method       9  10  X
        tier        11  12  9.0?  4 14
        start       13  18  X     4 14
        end         19  24  X     4 14
        ratio       69  72  9.3?  3 4
        start_day   81  82  X     4 4
        end_day     83  84  X     4 4
    """,
    "C ": """
        code         3   8  X
        method       9  10  X
        priority    11  12  9.0
        rate        15  21  9.0
        leg         22  23  9.0?  8 7
        tier        24  25  9.0?  8 7
        ratio       26  27  9.0?  8 7
        side        28  28  X     8 7
    """,
    "E ": """
        code         3   8  X
        priority     9  13  9.0
        rate        14  20  9.0
        month       21  24  X     4 14
        period      25  27  X     4 14
        ratio       28  33  9.4?  4 14
        side        34  34  X     4 14
    """,
    "4 ": """
        code         3   8  X
        method       9  10  X
        month       15  20  X     2 22
        consumed    21  27  9.0?  2 22
        outright    28  34  9.0?  2 22
        day         57  58  X     2 2
        minimum     63  69  9.0?
        adjustment  70  72  9.2?  3 3
        counted     79  79  X
        aggregation 80  80  X
    """,
    "B ": """
        exchange     3   5  X
        commodity    6  15  X
        product     16  18  X
        month       19  24  X
        day         25  26  X
        option_month 28 33  X
        option_day  34  35  X
        vol         37  44  9.6?
        vol_scan    45  52  9.6?
        price_scan  53  57  9.0?
        multiplier  58  62  9.3?
        fraction    63  67  9.4?
        rate        68  72  9.4?
        time        73  79  9.6?
        scaling     86  91  9.4?
        settles     92  99  X
        dividend   112 119  9.6?
        value      129 142  9.7?
        value_exponent      143 145  9.0b?
        vol_exponent        146 148  9.0b?
        vol_scan_exponent   149 151  9.0b?
        vol_quoted          164 164  X
        price_quoted        165 165  X
        price_scan_exponent 166 168  9.0b?
    """,
    "P ": """
        exchange     3   5  X
        commodity    6  15  X
        product     16  18  X
        decimals    34  36  L
        strike_decimals 37 39 L
        alignment   40  40  X
        strike_alignment 41 41 X
        value       42  55  9.7
        currency    66  68  X
        exponent_sign 73 73 X
        exponent    74  75  9.0?
        exercise    76  79  X
        valuation  117 121  X
        variable   161 161  X
    """,
    "6 ": """
        priority     6   9  9.0
        rate        10  16  9.4
        exchange    17  19  X     4 18
        code        21  26  X     4 18
        ratio       27  33  9.4?  4 18
        side        34  34  X     4 18
        method      89  90  X
        credit     101 101  X
        tier       102 103  9.0?  4 2
        super      110 110  X
        separate   122 122  X
        eligible   151 151  X
    """,
    "81": _CONTRACT + "value 55 60 9.0s 9 6\n long_price 109 122 9.0?\n long_flag 123 123 X",
    "82": _CONTRACT + "value 55 60 9.0s 7 6",
    "83": _CONTRACT + "value 55 63 9.0s 9 9\n long_price 136 149 9.0?\n long_flag 150 150 X",
    "84": _CONTRACT + "value 55 63 9.0s 7 9",
}
_AFTER = {"82": 97, "84": 118}


def _fields(record: str, table: str, start: int = 0) -> list[Field]:
    found = []
    for row in filter(None, map(str.split, table.splitlines())):
        name, first, last, kind = row[0], int(row[1]) + start, int(row[2]) + start, row[3]
        if len(row) == 4:
            found.append(Field(record, name, first, last, kind))
            continue
        for k in range(int(row[4])):
            shift = k * int(row[5])
            found.append(Field(record, f"{name}_{k + 1}", first + shift, last + shift, kind))
    return found


LAYOUT = {
    record: {f.name: f for f in (*_fields(record, table), *_fields(record, _TAIL if record in _AFTER else "",
                                                                    _AFTER.get(record, 0)))}
    for record, table in _TABLE.items()
}  # fmt: skip
"""Field by record and name."""

IGNORED = {
    "1 ": "exchange header", "5 ": "groups for sums of requirements", "T ": "conversion rates of currencies",
    "91": "debt securities as collateral", "92": "debt securities as collateral", "X ": "combinations",
    "Y ": "options on combinations", "Z ": "legs of combinations",
}  # fmt: skip
"""Records without a bearing on the margin of what is read: options on combinations are refused where type 2 lists
them."""
