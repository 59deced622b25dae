"""SPAN files: the whole of Takasbank's, recomputed; and every way in which a file can be wrong or hostile."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse

from pmvar.errors import InputError, SecurityError, UsageError
from pmvar.io.book import load_book
from pmvar.io.import_span import import_span
from pmvar.io.populate import populate as generate
from pmvar.io.span_file import SpanFile
from pmvar.io.span_read import read_span
from pmvar.io.span_write import write_span
from pmvar.methods.span.aggregate import span_margin
from pmvar.methods.span.default import default_arrays
from pmvar.methods.span.published import published_span
from pmvar.valuation.today import values_and_greeks
from tests.engines import hold, mixed_market, mixed_model, random_rows, scenarios
from tests.markets import carry_curve, flat_rate, flat_vol, instrument, portfolio, snapshot, table

FILE = "span/takasbank_20160517_cut.spn"


@pytest.fixture(scope="module")
def takasbank(shared_data: Path) -> SpanFile:
    """Four combined commodities of 17 May 2016."""
    if not (shared_data / FILE).is_file():
        pytest.skip(f"no market data: {FILE} is absent")
    return read_span(shared_data / FILE)


def test_every_array_of_takasbank_is_recomputed(takasbank: SpanFile) -> None:
    """494 options within 2e-4 of their price scan, 12 futures to the file's single precision, deltas to 2e-4."""
    is_option = takasbank.contracts.kind != 0
    assert is_option.sum() == 494
    loss, delta = takasbank.contracts.arrays(takasbank.parameters.grid)
    scan = takasbank.contracts.price_scan
    error = np.abs(loss - takasbank.arrays.loss).max(axis=1)
    assert np.all(error[is_option] <= 2e-4 * scan[is_option])
    assert np.all(error[~is_option] <= 1e-6 * scan[~is_option] + 1e-9)
    # An index itself is not for delivery: the file gives it no delta.
    traded = is_option | (takasbank.settlement_date != "")
    np.testing.assert_allclose(delta[traded], takasbank.arrays.delta[traded], atol=2e-4)


def test_what_takasbank_says(takasbank: SpanFile) -> None:
    """Names, ranges, rates and notes, by hand from the file."""
    p = takasbank.parameters
    assert [c.name for c in p.commodities] == ["AKBNKE", "GARANE", "XU030", "XU030X"]
    assert {c.currency for c in p.commodities} == {"TRY"} and p.commodities[0].short_option_minimum == 15.0
    assert p.commodities[0].spreads[0].rate == 90.0 and [leg.side for leg in p.commodities[0].spreads[0].legs] == [
        -1,
        1,
    ]
    assert p.grid.weight[15] == 0.32 and p.grid.price[14] == 3.0 and p.source == "TAKASBANK SPAN file of 20160517"
    assert {c.maintenance_ratio for c in p.commodities} == {0.75} and {c.initial_ratio for c in p.commodities} == {1.0}
    assert p.notes[0].startswith("takasbank_20160517_cut.spn, sha256 ") and "credits with commodities" in p.notes[1]
    row = list(takasbank.contract_id).index("AKBNKE FUT 201606S0")
    assert takasbank.contracts.price[row] == 7.6 and takasbank.settlement_date[row] == "20160630"


def test_margins_from_the_published_arrays(takasbank: SpanFile) -> None:
    """Figures of the specification: a covered call, a short straddle, a calendar, an index against another."""
    names = list(takasbank.contract_id)
    future = "XU030 FUT 201606S0"
    held = [
        {future: 1, "XU030 201606S0 C 86": -1},
        {"XU030 201606S0 C 96": -1, "XU030 201606S0 P 96": -1},
        {future: 1, "XU030 FUT 201608S0": -1},
    ]
    position = np.zeros((3, len(names)))
    for row, one in enumerate(held):
        for name, quantity in one.items():
            position[row, names.index(name)] = quantity
    found = span_margin(sparse.csr_array(position), takasbank.arrays, takasbank.parameters)
    assert [s.label for s in found.steps if s.name == "scan"] == ["#16 price −3 PSR, 32%"] * 2
    c = [commodity.name for commodity in takasbank.parameters.commodities].index("XU030")
    minimum = takasbank.parameters.commodities[c].short_option_minimum
    assert found.risk[0, c] == pytest.approx(max(583.565125, minimum), abs=0.005)
    assert found.risk[1, c] == pytest.approx(max(756.679291, 2 * minimum), abs=0.005)
    assert found.risk[2, c] == pytest.approx(955.0)


# ---- files that are wrong -------------------------------------------------------------------------------------------


def points() -> str:
    """The standard grid."""
    rows = []
    for i, (price, vol) in enumerate([(t, v) for t in (0, 1, -1, 2, -2, 3, -3) for v in (1, -1)] + [(9, 0), (-9, 0)]):
        paired = i + 1 if i > 13 else (i ^ 1) + 1
        rows.append(
            f"<scanPointDef><point>{i + 1}</point>"
            f"<priceScanDef><numerator>{price}</numerator><denominator>3</denominator></priceScanDef>"
            f"<volScanDef><numerator>{vol}</numerator><denominator>1</denominator></volScanDef>"
            f"<weight>{0.32 if i > 13 else 1}</weight><pairedPoint>{paired}</pairedPoint></scanPointDef>"
        )
    for p, w in zip(range(-3, 4), (0.037, 0.111, 0.217, 0.27, 0.217, 0.111, 0.037), strict=True):
        rows.append(
            f"<deltaPointDef><priceScanDef><numerator>{p}</numerator><denominator>3</denominator></priceScanDef>"
            f"<weight>{w}</weight></deltaPointDef>"
        )
    return f"<pointDef>{''.join(rows)}</pointDef>"


ARRAY = "<ra>" + "<a>1.5</a>" * 16 + "<d>0.5</d></ra>"
SOUND = f"""<?xml version="1.0"?>
<spanFile><pointInTime><date>20240102</date><clearingOrg><ec>X</ec>{points()}
<ccDef><cc>A</cc><currency>USD</currency><riskExponent>0</riskExponent><somMeth>MAX</somMeth>
<pfLink><pfType>PHY</pfType><pfId>1</pfId><sc>1</sc></pfLink><pfLink><pfType>OOP</pfType><pfId>2</pfId><sc>1</sc></pfLink>
<somTiers><tier><tn>0</tn><rate><val>2.5</val></rate></tier></somTiers>
<dSpread><spread>1</spread><chargeMeth>F</chargeMeth><rate><val>7</val></rate>
<tLeg><cc>A</cc><tn>0</tn><rs>A</rs><i>1</i></tLeg><tLeg><cc>A</cc><tn>0</tn><rs>B</rs><i>1</i></tLeg></dSpread></ccDef>
<exchange><phyPf><pfId>1</pfId><pfCode>A</pfCode><phy><cId>9</cId><pe>0S</pe><p>50</p><cvf>10</cvf><sc>1</sc>
<scanRate><priceScan>4</priceScan></scanRate>{ARRAY}</phy></phyPf>
<oopPf><pfId>2</pfId><pfCode>A</pfCode><exercise>EURO</exercise><series><pe>202403</pe><setlDate>20240315</setlDate>
<t>0.2</t><svf>10</svf><sc>1</sc><undC><pfId>1</pfId><cId>9</cId></undC><intrRate><val>0.05</val></intrRate>
<divRate><val>0</val></divRate><scanRate><priceScan>4</priceScan><volScanPct>0.25</volScanPct></scanRate>
<opt><cId>1</cId><o>C</o><k>55</k><p>1.25</p><v>0.3</v>{ARRAY}</opt></series></oopPf></exchange>
</clearingOrg></pointInTime></spanFile>
"""


def read(tmp_path: Path, text: str) -> SpanFile:
    file = tmp_path / "x.spn"
    file.write_text(text, encoding="utf-8")
    return read_span(file)


def test_a_small_file(tmp_path: Path) -> None:
    """Read to the last number."""
    found = read(tmp_path, SOUND)
    assert list(found.contract_id) == ["A PHY 0S", "A 202403 C 55"] and list(found.underlying_id) == ["A PHY 0S"] * 2
    assert found.contracts.price.tolist() == [50, 50] and found.contracts.rate[1] == 0.05
    assert found.arrays.value[1] == 12.5 and found.arrays.delta[1] == 0.5 and np.all(found.arrays.loss == 1.5)
    assert found.parameters.commodities[0].short_option_method == "MAX"


@pytest.mark.parametrize(
    ("was", "put", "message"),
    [
        ("<date>20240102</date>", "<date>20241332</date>", "pointInTime/date.*20241332.*YYYYMMDD"),
        ("<date>20240102</date>", "", "pointInTime/date"),
        (ARRAY, ARRAY.replace("<a>1.5</a>", "", 1), "ra '15': has 16 values"),
        ("<a>1.5</a>", "<a>NaN</a>", "ra.*NaN.*plain decimal number"),
        ("<a>1.5</a>", "<a>1,5</a>", "1,5"),
        ("<k>55</k>", "", "oopPf A 202403/k.*0 times"),
        ("<k>55</k>", "<k>-55</k>", "'-55'.*at least"),
        ("<v>0.3</v>", "<v>-0.3</v>", "at least 0"),
        ("<o>C</o>", "<o>X</o>", "must be C or P"),
        ("<setlDate>20240315</setlDate>", "<setlDate>soon</setlDate>", "soon"),
        ("<exercise>EURO</exercise>", "<exercise>BERM</exercise>", "must be EURO or AMER"),
        ("<riskExponent>0</riskExponent>", "<riskExponent>2</riskExponent>", "riskExponent.*only 0"),
        ("<somMeth>MAX</somMeth>", "<somMeth>NET</somMeth>", "GROSS, MAX"),
        ("<chargeMeth>F</chargeMeth>", "<chargeMeth>P</chargeMeth>", "only F"),
        ("<tn>0</tn><rs>A</rs>", "<tn>3</tn><rs>A</rs>", "dSpread 1.*'3'.*tier is not defined"),
        ("<rs>A</rs>", "<rs>C</rs>", "must be A or B"),
        ("<pfLink><pfType>OOP</pfType><pfId>2</pfId><sc>1</sc></pfLink>", "", "no combined commodity"),
        ("<undC><pfId>1</pfId><cId>9</cId></undC>", "<undC><pfId>1</pfId><cId>8</cId></undC>", "underlying is not in"),
        ("<pairedPoint>2</pairedPoint>", "<pairedPoint>17</pairedPoint>", "each paired"),
        ("<scanPointDef><point>1</point>", "<other><point>1</point>", "not well-formed|16 scan points"),
        ("</spanFile>", "", "not well-formed"),
        ("<exchange>", "<exchange><oocPf><pfId>1</pfId></oocPf>", "oocPf.*such contracts are not known"),
        ("<exchange>", "<exchange><equityPf><pfId>1</pfId></equityPf>", "equityPf.*such contracts"),
        ("<exchange>", "<interSpreads><hSpread/></interSpreads><exchange>", "interSpreads/hSpread.*only dSpread"),
        ("</ccDef>", "<sSpread/></ccDef>", "sSpread.*only dSpread"),
        ("<somMeth>MAX</somMeth>", "<somMeth>MAX</somMeth><spotRate><r>1</r></spotRate>", "spotRate/pe.*0 times"),
        ("</ccDef>", "<adjRate><val>1.2</val></adjRate></ccDef>", r"adjRate.*lies in \(0, 1\]"),
        ("</ccDef>", "<interTiers><tier><tn>1</tn></tier></interTiers></ccDef>", "interTiers/sPe.*0 times"),
        ("</ccDef>", "<scanTiers><tier><tn>1</tn></tier></scanTiers></ccDef>", "scanning by tier is not known"),
        ("</ccDef>", "<intraTiers><tier><tn>1</tn><sPe>2</sPe></tier></intraTiers></ccDef>", "ePe.*0 times"),
        ("</ccDef>", "<intraTiers><tier><tn>1</tn><brk>2</brk></tier></intraTiers></ccDef>", "brk.*ranges of months"),
        ("<exercise>EURO", "<valueMeth>FUT</valueMeth><exercise>EURO", "only options paid at once"),
        ("<cId>1</cId><o>C</o>", "<cId>1</cId><o>C</o><k>55</k>", "2 times"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, was: str, put: str, message: str) -> None:
    """File, element, value, rule: exit code 3, and never a margin without the part."""
    assert was in SOUND
    with pytest.raises(InputError, match=message) as refused:
        read(tmp_path, SOUND.replace(was, put, 1))
    assert "x.spn" in str(refused.value)


def month(name: str, settles: str, price: float) -> str:
    """A future that moves as the array says."""
    return (
        f"<fut><cId>{name}</cId><pe>{name}</pe><p>{price}</p><cvf>10</cvf><sc>1</sc><setlDate>{settles}</setlDate>"
        f"<t>0.2</t><scanRate><priceScan>4</priceScan></scanRate>{ARRAY}</fut>"
    )


OOF = (
    "<oofPf><pfId>4</pfId><pfCode>O</pfCode><exercise>AMER</exercise><valueMeth>EQTY</valueMeth><series><pe>202402</pe>"
    "<setlDate>20240220</setlDate><t>0.13</t><svf>10</svf><sc>1</sc><undC><pfId>3</pfId><cId>202403</cId></undC>"
    "<intrRate><val>0.05</val></intrRate><scanRate><priceScan>4</priceScan><volScanPct>0.25</volScanPct></scanRate>"
    f"<opt><cId>1</cId><o>P</o><k>48</k><p>2</p><v>0.3</v>{ARRAY}</opt></series></oofPf>"
)
TIERED = (
    SOUND.replace("<exchange>", f"<exchange><futPf><pfId>3</pfId><pfCode>F</pfCode>{month('202403', '20240315', 51)}"
                                f"{month('202406', '20240615', 52)}{month('202409', '20240915', 53)}</futPf>{OOF}")
    .replace("<pfLink>", "<pfLink><pfType>FUT</pfType><pfId>3</pfId><sc>1</sc></pfLink><pfLink><pfType>OOF</pfType>"
                         "<pfId>4</pfId><sc>1</sc></pfLink><pfLink>", 1)
    .replace("<dSpread>", "<adjRate><val>0.75</val></adjRate>"
                          "<spotRate><pe>202403</pe><sprd>1</sprd><outr>3</outr></spotRate>"
                          "<intraTiers><tier><tn>0</tn></tier><tier><tn>1</tn><sPe>202403</sPe><ePe>202406</ePe></tier>"
                          "<tier><tn>2</tn><sPe>202409</sPe><ePe>202512</ePe></tier></intraTiers>"
                          "<dSpread><spread>0</spread><chargeMeth>F</chargeMeth><rate><val>20</val></rate>"
                          "<pLeg><cc>A</cc><pe>202403</pe><rs>A</rs><i>1</i></pLeg>"
                          "<pLeg><cc>A</cc><pe>202406</pe><rs>B</rs><i>1</i></pLeg></dSpread><dSpread>", 1)
    .replace("<tn>0</tn><rs>A</rs>", "<tn>1</tn><rs>A</rs>").replace("<tn>0</tn><rs>B</rs>", "<tn>2</tn><rs>B</rs>")
)  # fmt: skip


def test_tiers_months_and_options_on_futures(tmp_path: Path) -> None:
    """By hand, in deltas of .5: months before tiers, the nearest month of a tier first, near delivery a charge."""
    found = read(tmp_path, TIERED)
    names = list(found.contract_id)
    assert "O 202402 P 48" in names and found.american.sum() == 1
    at = names.index("O 202402 P 48")
    # It counts in its future's month, and that future's price is its forward.
    assert found.arrays.month[at] == "202403" and found.contracts.price[at] == 51
    assert found.contracts.dividend[at] == found.contracts.rate[at] == 0.05
    held = [
        {"F FUT 202403": 4, "F FUT 202406": -2},
        {"F FUT 202403": 4, "F FUT 202406": -2, "F FUT 202409": -6},
        {"O 202402 P 48": 4, "F FUT 202406": -4},
        {"F FUT 202406": -2, "F FUT 202409": 2},
    ]
    position = sparse.csr_array(np.array([[one.get(n, 0.0) for n in names] for one in held]))
    margin = span_margin(position, found.arrays, found.parameters)
    charges = [[(s.name, s.amount) for s in margin.steps if s.account == a and s.name != "scan"] for a in range(4)]
    # 1: one spread of the months at 20; 1 delta of March spread and 1 outright: 1 + 3.
    # 2: that, then 1 delta of tier 1 with 1 of tier 2 at 7; both March deltas are spread: 2. No scan: 4 - 2 - 6 < 0.
    # 3: an American put's array as published, two deltas against two of June: 2 × 20 + 2 × 1.
    # 4: tier 1 short, tier 2 long: one spread at 7.
    assert charges == [
        [("inter-month", 20.0), ("spot month", 4.0)],
        [("inter-month", 20.0), ("inter-month", 7.0), ("spot month", 2.0)],
        [("inter-month", 40.0), ("spot month", 2.0)],
        [("inter-month", 7.0)],
    ]
    np.testing.assert_allclose(margin.risk[:, 0], [2 * 1.5 + 24, 29, 42, 7])
    np.testing.assert_allclose(margin.maintenance, 0.75 * margin.initial)


def test_credits_by_tier(tmp_path: Path) -> None:
    """`interTiers` have numbers of their own: a credit takes them, not those between months; unknown ones are named."""
    credit = (
        "<interSpreads><dSpread><spread>1</spread><chargeMeth>W</chargeMeth><rate><val>0.5</val></rate>"
        "<tLeg><cc>A</cc><tn>1</tn><rs>A</rs><i>1</i></tLeg><tLeg><cc>A</cc><tn>2</tn><rs>B</rs><i>1</i></tLeg>"
        "</dSpread></interSpreads><exchange>"
    )
    tiers = (
        "<interTiers><tier><tn>0</tn></tier><tier><tn>1</tn><sPe>202403</sPe><ePe>202403</ePe></tier>"
        "<tier><tn>2</tn><sPe>202406</sPe><ePe>202512</ePe></tier></interTiers><intraTiers>"
    )
    text = TIERED.replace("<exchange>", credit, 1).replace("<intraTiers>", tiers, 1)
    commodity, *_ = read(tmp_path, text).parameters.commodities
    assert dict(commodity.credit_months) == {"202403": (1,), "202406": (2,), "202409": (2,)}
    assert dict(commodity.months) == {"202403": (1,), "202406": (1,), "202409": (2,)}
    with pytest.raises(InputError, match="interSpreads/dSpread 1 '2': its tier of A is not defined"):
        read(tmp_path, text.replace("<tn>2</tn><sPe>202406", "<tn>3</tn><sPe>202406"))


def test_all_that_is_wrong_is_told_at_once(tmp_path: Path) -> None:
    """Three faults, three problems."""
    text = SOUND.replace("<v>0.3</v>", "<v>x</v>").replace("<t>0.2</t>", "").replace("<p>50</p>", "<p>1_0</p>")
    with pytest.raises(InputError) as refused:
        read(tmp_path, text)
    assert len(refused.value.problems) == 3


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE x [<!ENTITY a "b"><!ENTITY c "&a;&a;">]>',
        '<!DOCTYPE x SYSTEM "file:///etc/passwd">',
        '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>',
    ],
)
def test_no_entity_is_ever_expanded(tmp_path: Path, text: str) -> None:
    """Billion laughs, external entities, any DTD: exit code 8."""
    with pytest.raises(SecurityError, match="no DTD"):
        read(tmp_path, re.sub(r"(<\?xml.*?\?>)", rf"\1{text}", SOUND, count=1))


def test_deep_nesting_is_refused(tmp_path: Path) -> None:
    """Before it fills the stack."""
    with pytest.raises(SecurityError, match="nest deeper"):
        read(tmp_path, "<spanFile>" + "<a>" * 5000 + "</a>" * 5000 + "</spanFile>")


# ---- a book of it ---------------------------------------------------------------------------------------------------


def test_a_book_of_takasbank(takasbank: SpanFile, shared_data: Path, tmp_path: Path) -> None:
    """It loads; options are worth what SPAN's model says; margins by the published arrays and by our own agree."""
    summary = import_span(shared_data / FILE, tmp_path / "book")
    assert any("assumed" in n for n in summary.notes)
    generate(tmp_path / "book", n_accounts=30, seed=3)
    book = load_book(tmp_path / "book")
    assert book.market.base_currency == "TRY"
    table = book.portfolio.instruments
    priced = np.flatnonzero(table.kind == "option")
    value, _ = values_and_greeks(table.take(priced), book.market)
    row = [list(takasbank.contract_id).index(name) for name in table.instrument_id[priced]]
    c = takasbank.contracts
    at = c.price[row] * np.exp((c.rate[row] - c.dividend[row]) * c.time[row])
    out = np.where(c.kind[row] > 0, c.strike[row] >= at, c.strike[row] < at)
    own = c.multiplier[row] * np.asarray(c._value(c.price[:, None], c.vol[:, None], c.time[:, None]))[row, 0]
    # In the money the vol is that of the other right, where the file gives two. A future's price is its own.
    error = np.abs(value - own)[out] / c.price_scan[row][out]
    assert np.median(error) < 1e-3 and np.percentile(error, 90) < 0.03

    published = published_span(takasbank.contract_id, takasbank.arrays, takasbank.parameters, book.market)
    loss, delta = takasbank.contracts.arrays(takasbank.parameters.grid)
    again = replace(takasbank.arrays, loss=loss, delta=np.where(takasbank.arrays.delta == 0, 0.0, delta))
    recomputed = published_span(takasbank.contract_id, again, takasbank.parameters, book.market)
    one, other = published(book.portfolio), recomputed(book.portfolio)
    assert np.all(one.initial > 0) and np.all(np.isfinite(one.initial))
    np.testing.assert_allclose(other.initial, one.initial, rtol=5e-3)
    total = np.zeros(len(one.initial))
    np.add.at(total, [s.account for s in one.steps], [s.amount for s in one.steps])
    np.testing.assert_allclose(total, one.initial, rtol=1e-9)


def test_what_the_file_does_not_list_falls_back(tmp_path: Path) -> None:
    """At least the standard margin, named; a file in another currency is refused."""
    found = read(tmp_path, SOUND)
    market = snapshot({"A": (50.0, "USD")}, discounts={"USD": flat_rate(0.05)}, forwards={"A": carry_curve(50.0, 0.05)},
                      vols={"A": flat_vol(0.3)})  # fmt: skip
    rows = table([instrument("A PHY 0S", "spot", "A", size=10.0), instrument("B-PERP", "perpetual", "A")])
    margin = published_span(found.contract_id, found.arrays, found.parameters, market)(
        portfolio(rows, {"known": {"A PHY 0S": 2.0}, "other": {"B-PERP": 3.0}})
    )
    assert margin.initial[0] == 3.0 and margin.initial[1] == pytest.approx(0.15 * 150)
    assert any("B-PERP is not in the SPAN file" in n for n in margin.notes)
    with pytest.raises(UsageError, match="USD, the book in EUR"):
        published_span(found.contract_id, found.arrays, found.parameters, replace(market, base_currency="EUR", asset=(),
                       spot=np.zeros(0), quote_currency=(), haircut=np.zeros(0)))  # fmt: skip


def test_our_own_arrays_are_read_back(tmp_path: Path) -> None:
    """Every digit of arrays, deltas and values; margins by the file are those of the method that wrote it."""
    market, model = mixed_market(), mixed_model()
    drawn = scenarios(market)
    held, _ = random_rows(25, 2)
    book = hold(held)
    arrays, parameters = default_arrays(book.instruments, market, model, drawn)
    found = read_span(write_span(tmp_path / "own.spn", book.instruments, market, arrays, parameters))

    place = [list(found.number).index(name) for name in book.instruments.instrument_id]
    assert len(set(place)) == len(place) > 100
    for name in ("commodity", "kind", "loss", "delta"):
        np.testing.assert_array_equal(getattr(found.arrays, name)[place], getattr(arrays, name), err_msg=name)
    np.testing.assert_allclose(found.arrays.value[place], arrays.value, rtol=1e-12)
    # The short option minimum of a file counts contracts, ours units.
    ours = replace(arrays, count=np.ones(len(place)))
    one = span_margin(book.quantity, ours, parameters)
    other = span_margin(book.quantity, found.arrays.take(np.array(place)), found.parameters)
    np.testing.assert_allclose(other.initial, one.initial, rtol=1e-12)
