"""report.html: whole, self-contained, safe against what ids hold, the same bytes each time."""

import re
import subprocess
import sys
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from pmvar.report import format
from pmvar.report.html import render
from pmvar.report.stress import WIDEST
from pmvar.risk.result import TABLES, AccountDetail
from pmvar.types import Status
from tests.results import make_result

VOID = {"meta", "br", "img", "link", "input", "hr"}
HOSTILE = "<script>alert('a')</script> & \"$x_1$\" {{ 7*7 }}"


class Page(HTMLParser):
    """Collects tags, ids and references, and insists that elements nest."""

    def __init__(self, text: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        values = dict(attrs)
        self.ids += [str(values["id"])] if "id" in values else []
        self.targets += [str(values[name]) for name in ("href", "src") if name in values]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


@pytest.fixture(scope="module")
def result():
    return make_result(account_ids=("mm-1", HOSTILE))


@pytest.fixture(scope="module")
def html(result):
    return render(result)


@pytest.fixture(scope="module")
def page(html):
    return Page(html)


def test_tables_of_the_factory_have_the_pinned_columns(result):
    assert {name: tuple(table) for name, table in result.tables.items()} == dict(TABLES)


def test_page_refers_to_nothing_elsewhere(html, page):
    assert not re.search(r"https?:|//[a-z]|@import|data:|file:", html)
    assert "script" not in page.tags and not {"link", "iframe", "object", "img"} & set(page.tags)
    assert all(target.startswith("#") for target in page.targets)
    assert not re.search(r"<[^>]*\son\w+=", html)
    assert "default-src 'none'" in html


def test_ids_are_unique_and_every_reference_has_its_target(html, page):
    assert len(page.ids) == len(set(page.ids))
    assert {target[1:] for target in page.targets} | set(re.findall(r"url\(#([^)]*)\)", html)) <= set(page.ids)


def test_hostile_account_ids_come_out_as_text(html, page):
    assert "<script" not in html
    assert HOSTILE in "".join(page.text)
    assert "&lt;script&gt;" in html


def test_hostile_text_elsewhere_comes_out_as_text(result):
    tables = {name: dict(table) for name, table in result.tables.items()}
    for name, column in (("components", "instrument_id"), ("stress", "scenario"), ("shocks", "factor")):
        tables[name][column] = np.array([HOSTILE + str(v) for v in tables[name][column]], dtype=object)
    tables["margins"]["reason"] = np.array([HOSTILE] * len(tables["margins"]["reason"]), dtype=object)
    settings = {**result.settings, "base_currency": HOSTILE, "model": {"name": HOSTILE, "factors": [HOSTILE]}}
    text = render(replace(result, tables=tables, settings=settings, notes=(HOSTILE,)))
    assert "<script" not in text
    assert "script" not in Page(text).tags


def test_every_detailed_account_has_its_card(result, html, page):
    assert len(result.details) == 3
    for place in range(1, 4):
        assert f"account-{place}" in page.ids
    for heading in ("How the loss is distributed", "The worst scenarios", "What would change the margin"):
        assert html.count(heading) == 3


def test_equal_results_give_equal_bytes(result, html, root, user_env):
    assert render(result) == html
    code = "from tests.results import make_result; from pmvar.report.html import render; import hashlib; "
    code += f"text = render(make_result(account_ids=('mm-1', {HOSTILE!r}))); "
    code += "print(hashlib.sha256(text.encode()).hexdigest())"
    done = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={**user_env, "PYTHONHASHSEED": seed, "PYTHONPATH": str(root)},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    ]
    assert done[0] == done[1]


def test_numbers_of_the_tables_stand_on_the_page(result, html):
    margins = result.tables["margins"]
    for name in ("initial_margin", "equity", "excess"):
        for value in margins[name]:
            assert format.money(value) in html
    first = result.tables["worst"]["scenario"][0]
    shock = result.tables["shocks"]["shock"][result.tables["shocks"]["scenario"] == first][0]
    assert format.percent(np.expm1(shock), 1, sign=True) in html


def test_banner_says_synthetic_and_assumed(html):
    assert "Synthetic accounts · Assumed parameters" in html
    whole = render(make_result(n_accounts=1, notes=("A synthetic book, for demonstrations.",)))
    assert "Synthetic book · Assumed parameters" in whole
    calm = render(make_result(n_accounts=1, assumed=False, notes=()))
    assert 'role="note"' not in calm and "assumed" not in calm
    noted = render(make_result(n_accounts=1, assumed=False, notes=("3 strikes were extrapolated.",)))
    assert "Notes on this run" in noted and "3 strikes were extrapolated." in noted


@pytest.mark.parametrize("missing", ["empty", "absent"])
def test_a_run_with_margins_alone_still_renders(result, missing):
    tables = {"margins": result.tables["margins"]}
    if missing == "empty":
        tables |= {n: {c: v[:0] for c, v in t.items()} for n, t in result.tables.items() if n != "margins"}
    text = render(replace(result, tables=tables))
    Page(text)
    assert 'id="stress"' not in text and "What would change the margin" not in text
    assert text.count("How the loss is distributed") == 3


def test_one_account_without_details_renders():
    text = render(make_result(n_accounts=1, n_details=0))
    assert "Too few accounts" in text and 'id="accounts"' not in text
    Page(text)


def test_settings_may_be_bare(result):
    """What they do not say is said to be unknown."""
    page = Page(render(replace(result, settings={}, notes=())))
    assert "Portfolio margin as of an unknown time" in page.text


def test_gradients_by_the_market_and_by_the_model(result):
    text = render(result)
    for detail in result.details:
        rows = [t["account_id"] == detail.account_id for t in (result.tables["greeks"], result.tables["model_greeks"])]
        card = text[text.index(f'<article class="account" id="account-{1 + result.details.index(detail)}"') :]
        card = card[: card.index("</article>")]
        assert card.count('<td class="whole">') == sum(int(r.sum()) for r in rows)
        assert "volatility of BTC spot rises 1 %" in card


def test_withheld_account_without_a_simulation_renders(result):
    """Its tail is NaN and its histogram empty; it is listed with its reason and has no figures."""
    tables = {**result.tables, "margins": {n: v.copy() for n, v in result.tables["margins"].items()}}
    margins = tables["margins"]
    name = result.details[0].account_id
    at = int(np.flatnonzero(margins["account_id"] == name)[0])
    for column in ("value_at_risk", "var_standard_error", "expected_shortfall", "es_standard_error"):
        margins[column][at] = np.nan
    margins["status"][at], margins["reason"][at] = str(Status.WITHHELD), "no price for XRP"
    nothing = AccountDetail(name, np.zeros(2), np.zeros(1), np.zeros(0, np.int64), np.zeros(0), np.zeros(0))
    text = render(replace(result, tables=tables, details=(nothing, *result.details[1:])))
    Page(text)
    assert "no price for XRP" in text and not re.search(r"\bnan\b", re.sub(r"<[^>]*>", "", text), re.I)
    assert text.count("Not simulated") == 2


def test_long_stress_lists_run_down_the_page(result):
    stress = result.tables["stress"]
    copies = {n: np.concatenate([v, v]) for n, v in stress.items()}
    half = len(stress["loss"])
    copies["scenario"][half:] = [f"again {name}" for name in stress["scenario"]]
    assert len(set(copies["scenario"])) > WIDEST
    text = render(replace(result, tables={**result.tables, "stress": copies}))
    Page(text)
    assert re.search(r'<th scope="col">Scenario</th>', text)


@pytest.mark.slow
def test_ten_thousand_accounts_stay_small():
    text = render(make_result(n_accounts=10_000, n_details=12, n_scenarios=512))
    Page(text)
    assert len(text.encode()) < 2_000_000
    assert "The 25 largest margins of 10\u202f000 accounts" in text


def test_twelve_detailed_accounts_stay_small():
    assert len(render(make_result(n_accounts=200, n_details=12, n_scenarios=512)).encode()) < 1_000_000


@pytest.mark.parametrize(
    ("function", "value", "expected"),
    [
        (format.money, 1234567.8, "1\u202f234\u202f568"),
        (format.money, -12.345, "−12.35"),
        (format.money, -0.001234, "−0.00123"),
        (format.money, 0.0, "0"),
        (format.money, np.nan, "–"),
        (format.compact, 999_999.0, "1\u202fM"),
        (format.compact, 1_234.0, "1.23\u202fk"),
        (format.compact, -5.5e9, "−5.5\u202fbn"),
        (format.compact, 0.0, "0"),
        (format.percent, 0.1234, "12.3\u202f%"),
        (format.percent, -0.00001, "0.0\u202f%"),
        (format.level, 0.975, "97.5\u202f%"),
        (format.level, 1 - 0.99, "1\u202f%"),
        (format.move, np.log(0.7), "−30.0\u202f%"),
        (format.move, 1e4, "–"),
        (format.significant, 0.00012345, "0.0001234"),
        (format.significant, 1200.0, "1\u202f200"),
        (format.significant, 3e-9, "3.000e−09"),
        (format.horizon, "1d", "1 day"),
        (format.horizon, "12h", "12 hours"),
        (format.moment, "2024-06-10T08:00:00Z", "2024-06-10 08:00:00 UTC"),
        (format.moment, "yesterday", "yesterday"),
    ],
)
def test_numbers_are_written_for_people(function, value, expected):
    assert function(value) == expected


def test_importing_the_report_loads_no_plotting(root, user_env):
    code = "import sys, pmvar.report.html, pmvar.report.explain; "
    code += "assert not {'matplotlib', 'jinja2', 'jax'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], cwd=root, env=user_env, check=True)
