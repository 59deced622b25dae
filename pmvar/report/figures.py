"""The report's figures: matplotlib drawn to SVG that stands inside a page; equal inputs give equal bytes."""

from __future__ import annotations

import io
import re
from typing import Any

import numpy as np

from pmvar.report.format import ABSENT, compact, fixed, percent
from pmvar.risk.result import AccountDetail
from pmvar.types import Status

INK, QUIET, RULE = "#1b2530", "#5a6672", "#d9dee3"
BLUE, PALE_BLUE, ORANGE = "#2f6690", "#b9cfdf", "#c4501b"
STATUS_COLOURS = {
    Status.OK: BLUE,
    Status.MARGIN_CALL: "#d99a1c",
    Status.LIQUIDATION: ORANGE,
    Status.WITHHELD: "#6f5a8e",
}
"""Distinct in lightness as well as in hue, so that they survive colour blindness and a grey printer."""

POINTS_DRAWN = 1_500
"""Accounts drawn one by one; above, they are counted in cells, which keeps the file small."""
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "pmvar",
    "text.parse_math": False,
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "axes.edgecolor": QUIET,
    "axes.labelcolor": QUIET,
    "axes.linewidth": 0.8,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "xtick.color": QUIET,
    "ytick.color": QUIET,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 10.5,
}


def loss_distribution(
    detail: AccountDetail, *, name: str, value_at_risk: float, expected_shortfall: float, currency: str
) -> str:
    """Histogram of the account's loss on a log axis, its tail shaded, with VaR and ES marked."""
    with style():
        from matplotlib.ticker import MaxNLocator, NullLocator

        figure, axes = axes_of(6.2, 3.2)
        edges, count = np.asarray(detail.histogram_edges, float), np.asarray(detail.histogram_count, float)
        total = count.sum()
        share = count / total if total > 0 else count
        least = share[share > 0].min() if np.any(share > 0) else 1e-4
        # A bin that VaR falls into is shaded from VaR on.
        at = int(np.searchsorted(edges, value_at_risk))
        if 0 < at < len(edges):
            edges, share = np.insert(edges, at, value_at_risk), np.insert(share, at, share[at - 1])
        tail = np.where(edges[:-1] >= value_at_risk, share, 0.0)
        floor = least / 2
        for height, colour in ((share - tail, PALE_BLUE), (tail, ORANGE)):
            axes.stairs(np.maximum(height, floor), edges, baseline=floor, fill=True, color=colour, linewidth=0)
        axes.set_yscale("log")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylim(floor, 4 * max(share.max(initial=0.0), 2 * floor))
        axes.yaxis.set_major_formatter(lambda y, _: percent(y, max(0, int(-np.floor(np.log10(100 * y) + 1e-9)))))
        axes.xaxis.set_major_locator(MaxNLocator(6))
        axes.xaxis.set_major_formatter(amount)
        marks = ((value_at_risk, "VaR", "right", "--"), (expected_shortfall, "ES", "left", "-"))
        for x, label, side, dashes in marks:
            if np.isfinite(x):
                axes.axvline(x, color=INK, linewidth=1.2, linestyle=dashes)
                gap = -5 if side == "right" else 5
                axes.annotate(f"{label} {compact(x)}", (x, 1), (gap, -3), xycoords=("data", "axes fraction"),
                              textcoords="offset points", ha=side, va="top", color=INK)  # fmt: skip
        axes.set_xlabel(f"loss, {currency} (left of 0: a gain)")
        axes.set_ylabel("probability, log scale")
        return as_svg(figure, name, "Distribution of the loss with value at risk and expected shortfall")


def convergence(detail: AccountDetail, *, half_width: float, name: str, currency: str) -> str:
    """Expected shortfall against the number of scenarios it came from, ± `half_width` standard errors (95%)."""
    with style():
        from matplotlib.ticker import FixedLocator, NullLocator

        figure, axes = axes_of(6.2, 3.2)
        n = np.asarray(detail.path_counts, float)
        es, error = np.asarray(detail.expected_shortfall, float), half_width * np.asarray(detail.standard_error, float)
        axes.fill_between(n, es - error, es + error, color=PALE_BLUE, linewidth=0, label="95 % interval")
        axes.plot(n, es, color=BLUE, linewidth=1.8, marker="o", markersize=3.5, label="expected shortfall")
        if len(es):
            axes.axhline(es[-1], color=INK, linewidth=0.9, linestyle="--")
            axes.set_xscale("log")
            span = n[-1] / n[0]
            ticks = n[-1] / 2.0 ** np.arange(0, np.log2(span) + 1e-9, max(1.0, np.ceil(np.log2(max(span, 2)) / 6)))
            axes.xaxis.set_major_locator(FixedLocator(list(ticks[::-1])))
            axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(lambda x, _: fixed(x) if x < 1e5 else compact(x))
        axes.yaxis.set_major_formatter(amount)
        axes.set_xlabel("scenarios used, log scale")
        axes.set_ylabel(f"expected shortfall, {currency}")
        axes.legend(loc="best")
        return as_svg(figure, name, "Expected shortfall against the number of scenarios")


def margin_against_isolated(isolated: np.ndarray, margin: np.ndarray, status: np.ndarray, *, currency: str) -> str:
    """All accounts, margin of the portfolio against the sum of its positions' own margins, log–log."""
    with style():
        figure, axes = axes_of(8.0, 4.8)
        low = float(min(isolated.min(), margin.min()) / 1.6)
        high = float(max(isolated.max(), margin.max()) * 1.6)
        axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
        for benefit, dashes in ((0.0, "-"), (0.5, "--"), (0.9, ":")):
            ends = [(1 - benefit) * low, (1 - benefit) * high]
            label = f"{percent(benefit, 0)} benefit" if benefit else "no benefit"
            axes.plot([low, high], ends, color=QUIET, linewidth=1, linestyle=dashes, label=label)
        crowded = len(margin) > POINTS_DRAWN
        if crowded:
            _cells(axes, isolated, margin, low, high)
        dot = {
            "marker": "o",
            "markersize": 2.8 if crowded else 4.4,
            "markeredgecolor": "white",
            "markeredgewidth": 0.0 if crowded else 0.4,
        }
        for state, colour in STATUS_COLOURS.items():
            chosen = np.flatnonzero(status == state)
            if len(chosen) and not (crowded and state == Status.OK):
                shown, label = (
                    chosen[:POINTS_DRAWN],
                    f"{state.replace('_', ' ').lower()} ({fixed(len(chosen))})",
                )
                axes.plot(isolated[shown], margin[shown], linestyle="none", color=colour, label=label, **dot)
        axes.xaxis.set_major_formatter(amount)
        axes.yaxis.set_major_formatter(amount)
        axes.set_xlabel(f"sum of isolated margins, {currency}, log scale")
        axes.set_ylabel(f"initial margin of the portfolio, {currency}, log scale")
        axes.legend(loc="upper left", handlelength=1.6)
        return as_svg(figure, "isolated", "Margin of each account against the sum of its isolated margins")


def _cells(axes: Any, x: np.ndarray, y: np.ndarray, low: float, high: float) -> None:
    """Accounts counted in square cells, darker where there are more."""
    from matplotlib.collections import PolyCollection

    edges = np.geomspace(low, high, 65)
    count, _, _ = np.histogram2d(x, y, bins=(edges, edges))
    i, j = np.nonzero(count)
    corners = [(0, 0), (1, 0), (1, 1), (0, 1)]
    shapes = np.stack([np.stack([edges[i + a], edges[j + b]], axis=-1) for a, b in corners], axis=1)
    depth = np.log1p(count[i, j]) / np.log1p(count.max())
    pale, dark = np.array([0.82, 0.88, 0.93]), np.array([0.10, 0.28, 0.42])
    colours = [tuple(c) for c in pale + depth[:, None] * (dark - pale)]
    axes.add_collection(
        PolyCollection(list(shapes), facecolors=colours, edgecolors="none", label="accounts, darker: more of them")
    )


def amount(value: float, _: Any = None) -> str:
    """A tick of an axis of money."""
    return compact(value) if np.isfinite(value) else ABSENT


def style() -> Any:
    """The context in which figures are drawn."""
    import matplotlib

    return matplotlib.rc_context(STYLE)


def axes_of(width: float, height: float, *, left: float = 0.95) -> tuple[Any, Any]:
    """A figure of so many inches, `left` of them for the labels, and its axes."""
    # Not pyplot, which keeps every figure alive and asks for a display.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height))
    # Margins in inches, fixed: fitting them to the labels costs more than drawing does.
    right, below, above = 0.12, 0.56, 0.28
    box = (left / width, below / height, (width - left - right) / width, (height - below - above) / height)
    return figure, figure.add_axes(box)


def as_svg(figure: Any, name: str, title: str) -> str:
    """The bare <svg> element: no prolog, no references to elsewhere, two decimals, fonts left to the page.

    `name` keeps the ids of one figure apart from those of the others on the page.
    """
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(buffer, format="svg", transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<!--.*?-->|<metadata>.*?</metadata>|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r"<[^>]*>", lambda tag: re.sub(r"(\.\d\d)\d+", r"\1", tag[0]), text)
    text = text.replace("xlink:href", "href").replace("font-family: 'DejaVu Sans'; ", "")
    for idle in (r' xmlns(:xlink)?="[^"]*"', r' version="[^"]*"', r' transform="rotate\(-0 [^"]*"'):
        text = re.sub(idle, "", text)
    # Groups are named after their artists; only markers (m), paths (h) and clips (p) are ever referred to.
    text = re.sub(r' id="(?![mph][0-9a-f]{10})[^"]*"', "", text)
    text = re.sub(r'(id="|url\(#|href="#)(?=[mph][0-9a-f]{10})', rf"\1{name}-", text)
    text = re.sub(r' width="[^"]*pt" height="[^"]*pt"', f' role="img" aria-label="{title}"', text, count=1)
    return re.sub(r"\s*\n\s*", "\n", text).strip()
