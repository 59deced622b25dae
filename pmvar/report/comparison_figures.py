"""Figures of a comparison: method against method, ratios, and a grid beside the scenario cloud."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from pmvar.report.figures import BLUE, INK, ORANGE, PALE_BLUE, QUIET, amount, as_svg, axes_of, style
from pmvar.report.format import percent

if TYPE_CHECKING:
    from pmvar.report.comparison_report import AccountGrid

POINTS = 1_500
"""Accounts drawn in one scatter: the first ones of a fixed order, evenly spread."""


def scatter(es: np.ndarray, margin: np.ndarray, under: np.ndarray, *, method: str, currency: str) -> str:
    """Margin of one method against the Monte Carlo ES, log–log; accounts below their VaR stand out."""
    with style():
        figure, axes = axes_of(4.0, 3.6)
        drawn = np.flatnonzero((es > 0) & (margin > 0))
        drawn = drawn[:: max(1, len(drawn) // POINTS)]
        both = np.concatenate([es[drawn], margin[drawn]]) if len(drawn) else np.ones(1)
        low, high = both.min() / 1.6, both.max() * 1.6
        axes.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
        axes.plot([low, high], [low, high], color=INK, linewidth=0.9)
        for chosen, colour in ((drawn[~under[drawn]], BLUE), (drawn[under[drawn]], ORANGE)):
            axes.plot(
                es[chosen], margin[chosen], linestyle="none", marker="o", markersize=3, color=colour,
                markeredgecolor="white", markeredgewidth=0.2,
            )  # fmt: skip
        axes.xaxis.set_major_formatter(amount)
        axes.yaxis.set_major_formatter(amount)
        axes.set_xlabel(f"Monte Carlo ES, {currency}")
        axes.set_ylabel(f"{method}, {currency}")
        return as_svg(figure, f"s-{method}", f"Margin by {method} against the Monte Carlo expected shortfall")


def ratios(ratio: dict[str, np.ndarray]) -> str:
    """Margin over ES of all accounts, one row for each method: 10th to 90th percentile, quartiles, median."""
    with style():
        figure, axes = axes_of(8.0, 0.7 + 0.34 * len(ratio), left=1.25)
        for row, values in enumerate(reversed(ratio.values())):
            some = values[values > 0]
            if not len(some):
                continue
            p10, p25, p50, p75, p90 = np.percentile(some, [10, 25, 50, 75, 90])
            axes.plot([p10, p90], [row, row], color=PALE_BLUE, linewidth=3, solid_capstyle="butt")
            axes.plot([p25, p75], [row, row], color=BLUE, linewidth=8, solid_capstyle="butt")
            axes.plot([p50], [row], marker="|", markersize=13, color=INK, markeredgewidth=1.6)
        axes.set_yticks(range(len(ratio)), list(reversed(ratio)))
        axes.set_xscale("log")
        axes.axvline(1.0, color=QUIET, linewidth=1)
        axes.xaxis.set_major_formatter(lambda x, _: f"{x:g} ×")
        axes.set_xlabel("initial margin over Monte Carlo ES, log scale")
        return as_svg(figure, "ratios", "Margin over expected shortfall by method")


def grid(found: AccountGrid, *, currency: str) -> str:
    """Loss on the grid of moves as a heat map."""
    with style():
        figure, axes = axes_of(6.2, 3.2)
        most = float(np.abs(found.loss).max()) or 1.0
        rows, columns = found.loss.shape
        # Not an image, which a page without outside sources would not show.
        axes.pcolormesh(found.loss, cmap="RdBu_r", vmin=-1.4 * most, vmax=1.4 * most, edgecolors="white", linewidth=1)
        axes.invert_yaxis()
        for i in range(rows):
            for j in range(columns):
                axes.text(j + 0.5, i + 0.5, amount(found.loss[i, j]), ha="center", va="center", fontsize=9, color=INK)
        axes.set_xticks(np.arange(columns) + 0.5, [percent(x, 0, sign=True) for x in found.spot_move])
        axes.set_yticks(np.arange(rows) + 0.5, [percent(x, 0, sign=True) for x in found.vol_move])
        axes.grid(False)
        axes.set_xlabel(f"{found.underlying} price")
        axes.set_ylabel("implied vol")
        return as_svg(figure, f"g-{found.underlying}", f"Loss on a grid of moves, {currency}")


def cloud(found: AccountGrid) -> str:
    """The Monte Carlo scenarios in the same plane: those of the tail stand out, and the grid's points."""
    with style():
        figure, axes = axes_of(6.2, 3.2)
        for chosen, colour, label in ((~found.is_tail, PALE_BLUE, "other scenarios"), (found.is_tail, ORANGE, "tail")):
            axes.plot(
                found.cloud_spot[chosen], found.cloud_vol[chosen], linestyle="none", marker="o", markersize=2.2,
                markeredgewidth=0, color=colour, label=label,
            )  # fmt: skip
        spots, vols = np.meshgrid(found.spot_move, found.vol_move)
        axes.plot(spots.ravel(), vols.ravel(), linestyle="none", marker="+", color=INK, label="grid")
        axes.xaxis.set_major_formatter(lambda x, _: percent(x, 0, sign=True))
        axes.yaxis.set_major_formatter(lambda x, _: percent(x, 0, sign=True))
        axes.set_xlabel(f"{found.underlying} price")
        axes.set_ylabel("implied vol")
        axes.legend(loc="best", markerscale=2)
        return as_svg(figure, f"c-{found.underlying}", "Monte Carlo scenarios and the points of the grid")
