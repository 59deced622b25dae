"""Positional SPAN files: against hand-typed lines, against the same figures in XML, and every way to be wrong."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from pmvar.errors import InputError, SecurityError, UsageError
from pmvar.io import span_read
from pmvar.io.book import load_book
from pmvar.io.import_span import import_span
from pmvar.io.populate import populate as generate
from pmvar.io.span_file import SpanFile
from pmvar.io.span_pa2_layout import LAYOUT
from pmvar.io.span_read import read_span
from pmvar.methods.span.aggregate import span_margin
from pmvar.methods.span.arrays import SpanContracts
from pmvar.methods.span.parameters import STANDARD
from pmvar.methods.span.published import published_span
from tests.span_positional import pair, record

DEC, FEB = {"month": "202512"}, {"month": "202602"}
GOLD = {"exchange": "CMX", "commodity": "GC", "underlying": "GC", "product": "FUT"}
SILVER = {"exchange": "CMX", "commodity": "SI", "underlying": "SI", "product": "FUT", **DEC}
OPTION = {"exchange": "CMX", "commodity": "OG", "underlying": "GC", "product": "OOF", "option_month": "202511", **DEC}
PRICE, STRIKES, VOL, RATE, YEARS = 3640.0, (3600.0, 3700.0), 0.16, 0.04, 0.2
PSR, VSR, CVF = 12_000.0, 0.20, 100.0


def arrays() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Losses in whole dollars, deltas and values of a call and a put on the December future: Black's, by our pricer."""
    n = len(STRIKES)
    made = SpanContracts(
        np.array([1, -1]), np.full(n, PRICE), np.array(STRIKES), np.full(n, YEARS), np.full(n, VOL), np.full(n, RATE),
        np.full(n, RATE), np.full(n, CVF), np.full(n, PSR), np.full(n, VSR),
    )  # fmt: skip
    loss, delta = made.arrays(STANDARD)
    value = made._value(made.price[:, None], made.vol[:, None], made.time[:, None])[:, 0]
    return np.round(loss), np.round(delta, 4), np.round(value, 1)


FUTURE = np.round(-PSR * STANDARD.price * STANDARD.weight)


def lines(exponent: int = 0, exercise: str = "EURO") -> list[str]:
    """Gold as CME has it: two futures, two options on the nearer, charges, minimum, a credit against silver."""
    loss, delta, value = arrays()
    unit, price = 10**exponent, np.round(10 * value).astype(int).tolist()
    product = {"exchange": "CMX", "decimals": 1, "value": CVF, "currency": "USD"}
    series = {"price_scan": PSR / 1000, "price_scan_exponent": 3, "multiplier": 3.0, "fraction": 0.32, "scaling": 1.0}
    made = [
        record("0 ", organisation="CME", date="20250912", format="U2"),
        "1 CMX  07",
        record("P ", **product, commodity="GC", product="FUT"),
        record("P ", **product, commodity="OG", product="OOF", strike_decimals=0, exercise=exercise, valuation="EQTY"),
        record("P ", **product, commodity="SI", product="FUT"),
        record("2 ", exchange="CMX", code="GC", exponent=exponent, currency="USD", style="P", commodity_1="GC",
               product_1="FUT", commodity_2="OG", product_2="OOF"),
        record("S ", code="GC", method="01", price_risk="1"),
        record("3 ", code="GC", method="10", tier_1=1, start_1="202510", end_1="202512", tier_2=2, start_2="202601",
               end_2="202712", ratio_1=1.0, ratio_2=1.0, ratio_3=1.1),
        record("E ", code="GC", priority=1, rate=450 / unit, month_1="2512", ratio_1=1.0, side_1="A", month_2="2602",
               ratio_2=1.0, side_2="B"),
        record("C ", code="GC", method="10", priority=1, rate=900 / unit, leg_1=1, tier_1=1, ratio_1=1, side_1="A",
               leg_2=2, tier_2=2, ratio_2=2, side_2="B"),
        record("4 ", code="GC", method="10", month_1="202512", consumed_1=30 / unit, outright_1=70 / unit,
               minimum=250 / unit, adjustment_1=1.0, counted="1"),
        record("B ", exchange="CMX", commodity="GC", product="FUT", **DEC, **series, settles="20251229", time=0.3),
        record("B ", exchange="CMX", commodity="GC", product="FUT", **FEB, **series, settles="20260225", time=0.45),
        record("B ", exchange="CMX", commodity="OG", product="OOF", **DEC, option_month="202511", **series, vol=VOL,
               vol_scan=VSR * VOL, rate=RATE, time=YEARS, settles="20251124"),
        record("2 ", exchange="CMX", code="SI", currency="USD", commodity_1="SI", product_1="FUT"),
        record("S ", code="SI", method="01"),
        record("3 ", code="SI", method="01"),
        record("4 ", code="SI", method="01"),
        *pair(FUTURE / unit, {**GOLD, **DEC}, delta=1.0, price=36400),
        *pair(FUTURE / unit, {**GOLD, **FEB}, delta=1.0, price=36700),
        *pair(loss[0], {**OPTION, "right": "C", "strike": STRIKES[0]}, delta=delta[0], price=price[0], vol=VOL),
        *pair(loss[1], {**OPTION, "right": "P", "strike": STRIKES[1]}, delta=delta[1], price=price[1], vol=VOL),
        *pair(FUTURE / 2, SILVER, delta=1.0, price=420),
        record("6 ", priority=1, rate=60.0, exchange_1="CMX", code_1="GC", ratio_1=1.0, side_1="A", exchange_2="CMX",
               code_2="SI", ratio_2=2.0, side_2="B"),
    ]  # fmt: skip
    return [line for line in made if not (exponent and line[:2] in ("81", "82") and "OG " in line[:20])]


def read(tmp_path: Path, given: list[str] | str | bytes, **options: object) -> SpanFile:
    content = given if isinstance(given, bytes) else ("\n".join(given) if isinstance(given, list) else given).encode()
    file = tmp_path / "x.pa2"
    file.write_bytes(content)
    return read_span(file, **options)  # pyright: ignore[reportArgumentType]


def test_columns_of_hand_typed_lines() -> None:
    """What CME's pages print: values from column 55 with their sign behind, delta, vol and price of the second line."""
    key = "81CMXGC        GC        FUT 202512            0000000"
    one = key + "00000+00000+04000-04000-04000+04000+08000-08000-08000+" + "00000000364000" + "N"
    two = "82" + key[2:] + "08000+12000-12000-12000+12000+11880-11880+" + "10000+" + "00151105" + "0364000" + "+" + "+"
    loss = [0, 0, -4000, -4000, 4000, 4000, -8000, -8000, 8000, 8000, -12000, -12000, 12000, 12000, -11880, 11880]
    made = pair(np.array(loss), {**GOLD, **DEC, "strike": 0}, delta=1.0, price=364000, vol=0.151105)
    assert made[0] == one[:108] and made[1] == two[:118]
    at = {(r, n): (LAYOUT[r][n].first, LAYOUT[r][n].last) for r, n in (
        ("81", "long_price"), ("82", "delta"), ("82", "vol"), ("82", "price"), ("82", "strike_sign"),
        ("82", "vol_exponent"),
        ("83", "value_9"), ("84", "delta"), ("84", "price"), ("C ", "side_8"), ("E ", "side_4"), ("6 ", "side_4"),
        ("2 ", "locator_sign_6"), ("3 ", "end_4"), ("3 ", "end_day_4"), ("B ", "price_scan_exponent"),
    )}  # fmt: skip
    assert list(at.values()) == [
        (109, 122), (97, 102), (103, 110), (111, 118), (119, 119), (135, 137), (127, 135), (118, 123), (132, 139),
        (77, 77), (76, 76), (88, 88), (117, 117), (61, 66), (95, 96), (166, 168),
    ]  # fmt: skip


def test_fields_of_a_record_do_not_overlap() -> None:
    """In any record, each column belongs to one field at most; none begins within the record's own name."""
    for fields in LAYOUT.values():
        ends = sorted((f.first, f.last) for f in fields.values())
        assert all(last < first for (_, last), (first, _) in zip(ends, ends[1:], strict=False)) and ends[0][0] > 2


def test_a_file_of_gold(tmp_path: Path) -> None:
    """Every part of it, to the last number."""
    found = read(tmp_path, lines())
    loss, delta, value = arrays()
    names = ["GC FUT 202512", "GC FUT 202602", "OG 202511 C 3600", "OG 202511 P 3700", "SI FUT 202512"]
    assert list(found.contract_id) == names and found.as_of == "20250912" and found.organisation == "CME"
    assert list(found.underlying_id[2:4]) == ["GC FUT 202512"] * 2 and not found.american.any()
    assert list(found.arrays.month) == ["202512", "202602", "202512", "202512", "202512"]
    np.testing.assert_array_equal(found.arrays.loss, [FUTURE, FUTURE, *loss, FUTURE / 2])
    np.testing.assert_allclose(found.arrays.delta, [1, 1, *delta, 1], rtol=1e-12)
    np.testing.assert_allclose(found.arrays.value, [0, 0, *(CVF * value), 0], rtol=1e-12)
    c = found.contracts
    assert c.price.tolist() == [3640, 3670, 3640, 3640, 42] and c.strike[2:4].tolist() == list(STRIKES)
    assert c.vol_scan[2] == pytest.approx(VSR) and c.price_scan[:4].tolist() == [PSR] * 4 and c.time[2] == YEARS
    gold, silver = found.parameters.commodities
    assert (gold.initial_ratio, gold.short_option_minimum, gold.short_option_method) == (1.1, 250.0, "MAX")
    assert gold.months == (("202512", (1,)), ("202602", (2,))) and silver.spreads == ()
    assert [s.rate for s in gold.spreads] == [450.0, 900.0] and gold.spreads[0].legs[1].month == "202602"
    assert (gold.spot[0].month, gold.spot[0].spread, gold.spot[0].outright) == ("202512", 30.0, 70.0)
    assert found.parameters.credits[0].rate == 0.6 and found.parameters.credits[0].legs[1].ratio == 2.0
    assert found.parameters.grid.price[14] == 3.0 and found.parameters.grid.weight[15] == 0.32


def test_arrays_of_options_on_futures_are_recomputed(tmp_path: Path) -> None:
    """Black of the future's price: within the whole dollars and the four places that the file holds."""
    found = read(tmp_path, lines())
    loss, delta = found.contracts.arrays(found.parameters.grid)
    np.testing.assert_allclose(loss[2:4], found.arrays.loss[2:4], atol=0.5001)
    np.testing.assert_allclose(delta[2:4], found.arrays.delta[2:4], atol=5.1e-5)


def test_margins_by_hand(tmp_path: Path) -> None:
    """A calendar pays its series' and its delivery month's charge, an outright its scan; silver credits gold."""
    found = read(tmp_path, lines())
    names = list(found.contract_id)
    held = [
        {"GC FUT 202512": 2, "GC FUT 202602": -2},
        {"GC FUT 202512": 3, "GC FUT 202602": -2},
        {"GC FUT 202512": 1, "SI FUT 202512": -2},
    ]
    position = np.array([[one.get(n, 0.0) for n in names] for one in held])
    margin = span_margin(sparse.csr_array(position), found.arrays, found.parameters)
    # Two spreads and their four deltas, two of them in December; one December delta is left in the second account.
    calendar, both = 2 * 450 + 2 * 30, 12_000 + 2 * 450 + 2 * 30 + 70
    # Silver is half of gold: scans of 12,000 each, 60% of both credited; December's gold is spread with nothing.
    pair_margin = [12_000 + 70 - 0.6 * 12_000, 2 * 6_000 - 0.6 * 2 * 6_000]
    np.testing.assert_allclose(margin.risk[:, 0], [calendar, both, pair_margin[0]], rtol=1e-12)
    np.testing.assert_allclose(margin.risk[:, 1], [0, 0, pair_margin[1]], rtol=1e-12)
    np.testing.assert_allclose(margin.initial, 1.1 * margin.risk[:, 0] + margin.risk[:, 1], rtol=1e-12)
    np.testing.assert_allclose(margin.maintenance, margin.risk.sum(axis=1), rtol=1e-12)


@pytest.mark.parametrize(
    ("alignment", "decimals", "digits", "price"),
    [("C", 3, 122060, 122 + 6 / 32), ("C", 3, 129247, 129 + 24.75 / 32), ("0", 2, 3757, 375.75), ("0", 2, 5602, 560.25),
     ("", 1, 420, 42.0)],
)  # fmt: skip
def test_prices_in_fractions(tmp_path: Path, alignment: str, decimals: int, digits: int, price: float) -> None:
    """Points and 32nds with quarters, cents with quarters; of what is margined by published arrays nothing moves."""
    text = lines()
    at = next(i for i, line in enumerate(text) if line.startswith("P CMXSI"))
    text[at] = record("P ", exchange="CMX", commodity="SI", product="FUT", decimals=decimals, value=CVF, currency="USD",
                      alignment=alignment)  # fmt: skip
    at = next(i for i, line in enumerate(text) if line.startswith("81CMXSI"))
    text[at : at + 2] = pair(FUTURE / 2, SILVER, delta=1.0, price=digits)
    found = read(tmp_path, text)
    assert found.contracts.price[4] == price
    np.testing.assert_array_equal(found.arrays.loss[4], FUTURE / 2)
    if alignment:
        for bad in (digits - digits % 10 + 4, 122_320 + 7 if alignment == "C" else 3759):
            text[at : at + 2] = pair(FUTURE / 2, SILVER, delta=1.0, price=bad)
            with pytest.raises(InputError, match=f"no price in fractions of alignment {alignment}"):
                read(tmp_path, text)


def test_credits_by_tier(tmp_path: Path) -> None:
    """Tiers of record S, not those between months: February's gold hedges no silver; a tier must be defined."""
    text = lines()
    scan = next(i for i, line in enumerate(text) if line.startswith("S GC"))
    text[scan] = record("S ", code="GC", method="20", tier_1=1, start_1="202510", end_1="202512", tier_2=2,
                        start_2="202601", end_2="202712", price_risk="1")  # fmt: skip
    credit = {"priority": 1, "rate": 60.0, "exchange_1": "CMX", "code_1": "GC", "ratio_1": 1.0, "side_1": "A",
              "exchange_2": "CMX", "code_2": "SI", "ratio_2": 2.0, "side_2": "B", "method": "20"}  # fmt: skip
    text[-1] = record("6 ", **credit, tier_1=1)
    found = read(tmp_path, text)
    assert found.parameters.commodities[0].credit_months == (("202512", (1,)), ("202602", (2,)))
    assert [leg.tier for leg in found.parameters.credits[0].legs] == [1, 0]
    names = list(found.contract_id)
    held = [{"GC FUT 202512": 1, "SI FUT 202512": -2}, {"GC FUT 202602": 1, "SI FUT 202512": -2}]
    position = np.array([[one.get(n, 0.0) for n in names] for one in held])
    margin = span_margin(sparse.csr_array(position), found.arrays, found.parameters)
    np.testing.assert_allclose(margin.risk, [[12_070 - 7_200, 12_000 - 7_200], [12_000, 12_000]], rtol=1e-12)
    text[-1] = record("6 ", **credit, tier_1=3)
    with pytest.raises(InputError, match=f"line {len(text)} '3': its tier of GC is not defined"):
        read(tmp_path, text)


def test_the_risk_exponent_scales_all_amounts(tmp_path: Path) -> None:
    """Arrays, charges and the minimum in tens: the same margins."""
    one, ten = read(tmp_path, lines()), read(tmp_path, lines(exponent=1))
    np.testing.assert_array_equal(ten.arrays.loss[:2], one.arrays.loss[:2])
    first, second = (found.parameters.commodities[0] for found in (one, ten))
    assert [s.rate for s in second.spreads] == [s.rate for s in first.spreads] and second.spot == first.spot
    assert second.short_option_minimum == first.short_option_minimum


def test_wide_arrays_and_long_prices(tmp_path: Path) -> None:
    """Records 83 and 84 with two decimals; a price that needs fourteen digits; nines are no price."""
    text = lines()
    at = next(i for i, line in enumerate(text) if line.startswith("81CMXSI"))
    text[at : at + 2] = pair(50 * FUTURE, SILVER, delta=1.0, price=0, kinds="83 84")
    text[at] = text[at].ljust(135) + f"{420:014d}Y"
    at = next(i for i, line in enumerate(text) if line.startswith("2 CMX SI"))
    text[at] = record("2 ", exchange="CMX", code="SI", currency="USD", commodity_1="SI", product_1="FUT", locator_1=2)
    found = read(tmp_path, text)
    np.testing.assert_array_equal(found.arrays.loss[4], FUTURE / 2)
    assert found.contracts.price[4] == 42.0
    at = next(i for i, line in enumerate(text) if line.startswith("82CMXOG"))
    text[at] = text[at][:110] + "9999999+"
    found = read(tmp_path, text)
    assert "OG 202511 C 3600" not in found.contract_id and len(found.contract_id) == 4
    assert any("1 contracts without a settlement price" in n for n in found.parameters.notes)


def test_picked_commodities(tmp_path: Path) -> None:
    """Of a whole house's file one product: what is odd about others does not matter, nor do credits with them."""
    odd = [line.replace("S SI    01", "S SI    10") for line in lines()]
    with pytest.raises(InputError, match="S method.*only 01, 20 are known"):
        read(tmp_path, odd)
    found = read(tmp_path, odd, commodities=("GC",))
    assert [c.name for c in found.parameters.commodities] == ["GC"] and len(found.contract_id) == 4
    assert found.parameters.credits == ()
    with pytest.raises(InputError, match="PL.*is not in the file"):
        read(tmp_path, odd, commodities=("PL",))
    (tmp_path / "x.spn").write_text("<spanFile/>")
    with pytest.raises(UsageError, match="positional files alone"):
        read_span(tmp_path / "x.spn", commodities=("GC",))


def change(record_: str, name: str, text: str) -> list[str]:
    """The file with one field of the first record that begins so overwritten."""
    f, made = LAYOUT[record_[:2]][name], lines()
    at = next(i for i, line in enumerate(made) if line.startswith(record_))
    line = made[at].ljust(f.last)
    made[at] = (line[: f.first - 1] + text.ljust(f.last - f.first + 1) + line[f.last :]).rstrip()
    return made


@pytest.mark.parametrize(
    ("record_", "name", "text", "message"),
    [
        ("0 ", "date", "20251332", r"x.pa2:1: record 0 date \(columns 9–16\) '20251332'.*CCYYMMDD"),
        ("0 ", "format", "UP", "format.*'UP'.*only U2"),
        ("0 ", "level", "I", "level.*only blank, M"),
        ("2 ", "product_2", "OOC", "product_2.*'OOC'.*only PHY, FUT, OOP, OOF"),
        ("2 ", "style", "F", "style.*'F'"),
        ("2 ", "combination", "S", "combination"),
        ("S ", "method", "10", "only 01, 20"),
        ("S ", "price_risk", "3", "price_risk"),
        ("3 ", "method", "05", "only 01, 10"),
        ("3 ", "start_1", "209912", "range of months"),
        ("C ", "tier_2", "03", "line 10.*tier is not defined"),
        ("C ", "side_2", "A", "both sides"),
        ("E ", "month_2", "2613", "must be a month, YYMM"),
        ("4 ", "method", "11", "only 01, 10"),
        ("4 ", "adjustment_1", "110", "factor of 1.00"),
        ("6 ", "credit", "F", "credit.*only blank, W"),
        ("6 ", "tier_1", "02", "credits by tier are method 20"),
        ("6 ", "method", "10", "method.*only blank, 01, 20"),
        ("6 ", "eligible", "N", "some accounts only"),
        ("P CMXGC", "alignment", "K", "alignment.*only blank, C, 0 are known"),
        ("P CMXOG", "alignment", "C", "alignment.*only blank is known"),
        ("P CMXOG", "valuation", "FUT", "valuation.*only blank, EQTY"),
        ("P CMXOG", "currency", "EUR", "currency.*'EUR'"),
        ("B CMXGC", "price_quoted", "P", "price_quoted"),
        ("B CMXGC", "settles", "20251399", "settles.*CCYYMMDD"),
        (
            "81CMXGC",
            "value_3",
            "04 00-",
            r"x.pa2:19: record 81 value_3 \(columns 67–72\) '04 00-'.*digits and then \+ or −",
        ),
        ("81CMXGC", "value_3", "04000 ", "value_3.*digits and then"),
        ("81CMXGC", "value_3", "", "value_3.*digits and then"),
        ("82CMXGC", "month", "202511", "16 values in two records"),
        ("82CMXOG", "delta", "0,500+", "delta"),
        ("81CMXOG", "right", "X", "16 values"),
        ("81CMXSI", "commodity", "PL", "16 values"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, record_: str, name: str, text: str, message: str) -> None:
    """File, line, columns, value, rule: exit code 3, and never a margin without the part."""
    with pytest.raises(InputError, match=message):
        read(tmp_path, change(record_, name, text))


def test_a_file_that_is_cut_or_mixed_up(tmp_path: Path) -> None:
    """Cut within a pair or a field; strange records; a contract twice, of no commodity, or without its future."""
    text = lines()
    second = next(i for i, line in enumerate(text) if line.startswith("82"))
    for made, message in (
        (text[:second], "16 values in two records"),
        ([*text[:second], *text[second + 1 :]], "16 values in two records"),
        ([*text[:second], text[second][:93]], "value_7.*ends within this field"),
        ([*text, "V CMX"], r"x.pa2:\d+: record.*'V '.*is not known"),
        ([*text, "R CMX"], "'R '.*could bear on a margin"),
        (["P" + text[0][1:], *text[1:]], "neither XML nor positional"),
        ([line for line in text if not line.startswith("2 CMX SI")], "belongs to GC"),
        ([*text, *text[second - 1 : second + 1]], "GC FUT 202512.*is there twice"),
        (
            [line for line in text if not line.startswith(("81CMXGC", "82CMXGC"))],
            "OG 202511.*underlying is not in the file",
        ),
        ([line for line in text if not line.startswith("P CMXSI")], "no price conversion"),
    ):
        with pytest.raises(InputError, match=message):
            read(tmp_path, made)


def test_hostile_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Non-ASCII by line and column; endless lines; gzip that is cut, or unpacks beyond the cap."""
    text = "\r\n".join(lines()).encode()
    assert len(read(tmp_path, text).contract_id) == 5
    for bad in ("é".encode(), b"\xff", b"\0", b"\t"):
        with pytest.raises(InputError, match=r"x.pa2:2.*column 4 is no printable ASCII"):
            read(tmp_path, text.replace(b"1 CMX", b"1 C" + bad, 1))
    with pytest.raises(SecurityError, match="longer than"):
        read(tmp_path, text + b"\n" + b"9" * 5000)
    packed = gzip.compress(text)
    assert len(read(tmp_path, packed).contract_id) == 5
    with pytest.raises(InputError, match="not sound gzip"):
        read(tmp_path, packed[:-30])
    monkeypatch.setattr(span_read, "MAX_SPAN", 1000)
    with pytest.raises(SecurityError, match="cap of 1000 bytes"):
        read(tmp_path, packed)


def test_a_book_of_gold(tmp_path: Path) -> None:
    """It loads, and its positions are margined by the file; American options keep their arrays, on futures here."""
    file = tmp_path / "gold.pa2"
    file.write_text("\n".join(lines()))
    summary = import_span(file, tmp_path / "book", commodities=("GC",))
    assert summary.counts["instruments"] == 4 and summary.counts["vols"] == 2
    generate(tmp_path / "book", n_accounts=12, seed=5)
    book = load_book(tmp_path / "book")
    found = read_span(file)
    margin = published_span(found.contract_id, found.arrays, found.parameters, book.market)(book.portfolio)
    holds = abs(book.portfolio.quantity[:, book.portfolio.instruments.kind != "cash"]).sum(axis=1) > 0
    np.testing.assert_array_equal(margin.initial > 0, holds)
    assert holds.sum() > 5 and not any("is not in the SPAN file" in n for n in margin.notes)
    file.write_text("\n".join(lines(exercise="AMER")))
    american = read_span(file)
    assert american.american.tolist() == [False, False, True, True, False]
    np.testing.assert_array_equal(american.arrays.loss, found.arrays.loss)
    summary = import_span(file, tmp_path / "other", commodities=("GC",))
    assert summary.counts["instruments"] == 4 and any("2 American options" in n for n in summary.notes)
    generate(tmp_path / "other", n_accounts=2, seed=5)
    table = load_book(tmp_path / "other").portfolio.instruments
    assert table.exercise[table.kind == "option"].tolist() == ["american"] * 2
    assert table.deliverable[table.kind == "option"].tolist() == ["future"] * 2
