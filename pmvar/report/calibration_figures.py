"""Figures of a calibration: laws against their own history, correlations, and a posterior's draws against its prior."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float
from scipy import stats

from pmvar.calibration.goodness import Quantiles
from pmvar.calibration.posterior_summary import Marginal
from pmvar.report.figures import BLUE, INK, ORANGE, PALE_BLUE, QUIET, as_svg, axes_of, style
from pmvar.report.format import ABSENT, fixed

CELLS = 20
"""Of the probabilities, each as likely as the others under a right law."""
TAIL = 0.1
"""Share of the days in a plot of one tail."""
POINTS = 60
"""Of them drawn: the outermost half one by one, the others thinned."""
BLOCKS = 150
"""Draws of a chain shown in its trace."""
NUMBERED = 14
"""Factors at most with the number in each cell of the heat map."""
CHAINS = (BLUE, ORANGE, "#3c8a6b", "#6f5a8e")


def probabilities(pit: Float[np.ndarray, " day"], *, name: str) -> str:
    """Histogram of P(x ≤ the one that came), with what 95% of right laws would stay within."""
    with style():
        figure, axes = axes_of(4.0, 2.9, left=0.62)
        n = len(pit)
        share = np.histogram(pit, CELLS, (0.0, 1.0))[0] * CELLS / n
        low, high = stats.binom.ppf((0.025, 0.975), n, 1 / CELLS) * CELLS / n
        axes.axhspan(low, high, color=PALE_BLUE, linewidth=0, alpha=0.55)
        axes.stairs(share, np.linspace(0, 1, CELLS + 1), color=BLUE, linewidth=1.4)
        axes.axhline(1.0, color=INK, linewidth=0.8)
        axes.set(xlim=(0, 1), ylim=(0, max(1.6, 1.08 * share.max())))
        axes.set_xlabel("probability given to what came")
        axes.set_ylabel("over expectation")
        return as_svg(figure, name, "Probabilities that the law gave to the moves that came")


def tail(residual: Float[np.ndarray, " day"], law: Quantiles, *, lower: bool, name: str) -> str:
    """The outermost tenth of the standardised moves against the law's quantiles, sizes positive, log–log."""
    with style():
        from matplotlib.ticker import FuncFormatter, NullFormatter

        figure, axes = axes_of(4.0, 2.9, left=0.62)
        n, sign = len(residual), -1 if lower else 1
        k = np.arange(1, max(int(TAIL * n), 2))
        if len(k) > POINTS:
            inner = np.geomspace(POINTS // 2, len(k), POINTS // 2).astype(int)
            k = np.unique(np.concatenate([k[: POINTS // 2], inner]))

        def of(beyond: Float[np.ndarray, " point"]) -> Float[np.ndarray, " point"]:
            return -law.undercut(beyond) if lower else law.exceeded(beyond)

        # The k-th of n uniforms is a beta variable.
        middle, near, far = (of(stats.beta.ppf(q, k, n + 1 - k)) for q in (0.5, 0.975, 0.025))
        came = np.sort(sign * residual)[::-1][k - 1]
        axes.set(xscale="log", yscale="log")
        axes.fill_between(middle, near, far, color=PALE_BLUE, linewidth=0, alpha=0.55)
        axes.plot(middle[[0, -1]], middle[[0, -1]], color=INK, linewidth=0.8)
        axes.plot(middle, came, linestyle="none", marker="o", markersize=2.8, color=ORANGE if lower else BLUE,
                  markeredgewidth=0)  # fmt: skip
        ticks = FuncFormatter(lambda v, _: f"{v:g}" if f"{v:.0e}"[0] in "1235" else "")
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_formatter(ticks)
            axis.set_minor_formatter(ticks if axis is axes.yaxis or middle[0] < 8 * middle[-1] else NullFormatter())
        axes.set_xlabel("size by the fitted law, in σ")
        axes.set_ylabel("size that came, in σ")
        which = "falls" if lower else "rises"
        return as_svg(figure, name, f"Largest {which} against the quantiles of the fitted law")


def correlations(correlation: Float[np.ndarray, "factor factor"], names: list[str]) -> str:
    """The lower triangle as a heat map."""
    with style():
        import matplotlib
        from matplotlib.collections import PolyCollection

        n = len(names)
        # A side in inches, and room for names in both directions.
        side, room = min(6.6, max(0.24, 0.62 - 0.018 * n) * (n - 1)), 1.5
        figure, axes = axes_of(room + side + 0.12, room + side + 0.12)
        axes.set_position((room / (room + side + 0.12),) * 2 + (side / (room + side + 0.12),) * 2)
        i, j = np.tril_indices(n, -1)
        corners = [(0, 0), (1, 0), (1, 1), (0, 1)]
        shapes = np.stack([np.stack([j + a, i - 1 + b], axis=-1) for a, b in corners], axis=1)
        value = correlation[i, j]
        colours = matplotlib.colormaps["RdBu_r"](0.5 + 0.36 * value)
        axes.add_collection(PolyCollection(list(shapes), facecolors=list(colours), edgecolors="white", linewidths=0.6))
        if n <= NUMBERED:
            for row, column, v in zip(i, j, value, strict=True):
                axes.text(column + 0.5, row - 0.5, fixed(v, 2), ha="center", va="center", fontsize=9.5)
        axes.set(xlim=(0, n - 1), ylim=(n - 1, 0))
        small = {"fontsize": 9.5 if n <= 24 else 8}
        axes.set_xticks(np.arange(n - 1) + 0.5, names[:-1], rotation=90, **small)
        axes.set_yticks(np.arange(n - 1) + 0.5, names[1:], **small)
        axes.tick_params(length=0)
        axes.grid(False)
        axes.spines[:].set_visible(False)
        return as_svg(figure, "correlation", "Correlation of the factors")


def density(of: Marginal, label: str, *, name: str) -> str:
    """Posterior and prior of one parameter, over where the draws lie."""
    with style():
        figure, axes = axes_of(4.0, 2.2, left=0.62)
        low, high = of.grid[0], of.grid[-1]
        height, edges = np.histogram(of.draws, 40, (low, high), density=True)
        axes.stairs(height, edges, fill=True, color=PALE_BLUE, linewidth=0)
        axes.plot(of.grid, of.prior, color=ORANGE, linewidth=1.5)
        axes.set(xlim=(low, high), ylim=(0, None), yticks=[])
        axes.set_xlabel(label)
        axes.set_ylabel("density")
        return as_svg(figure, name, "Posterior density, shaded, and prior density")


def trace(of: Marginal, label: str, *, name: str) -> str:
    """Draws of each chain in order, thinned."""
    with style():
        figure, axes = axes_of(4.0, 2.2, left=0.86)
        every = max(1, of.draws.shape[1] // BLOCKS)
        for chain, colour in zip(of.draws, CHAINS, strict=False):
            axes.plot(np.arange(len(chain))[::every], chain[::every], color=colour, linewidth=0.6)
        axes.set_xlim(0, of.draws.shape[1])
        axes.locator_params(axis="y", nbins=4)
        axes.locator_params(axis="x", nbins=4, prune="upper")
        axes.yaxis.set_major_formatter(lambda v, _: f"{v:g}" if np.isfinite(v) else ABSENT)
        axes.set_xlabel("draw")
        axes.set_ylabel(label)
        return as_svg(figure, name, "Trace of the chains")


def ranks(of: Marginal, *, name: str) -> str:
    """How often each chain's draws take each twentieth of the ranks of all: flat if the chains agree."""
    with style():
        figure, axes = axes_of(4.0, 2.2, left=0.62)
        rank = stats.rankdata(of.draws).reshape(of.draws.shape) / of.draws.size
        n = of.draws.shape[1]
        axes.axhline(1.0, color=QUIET, linewidth=0.8)
        for chain, colour in zip(rank, CHAINS, strict=False):
            axes.stairs(np.histogram(chain, CELLS, (0, 1))[0] * CELLS / n, np.linspace(0, 1, CELLS + 1), color=colour,
                        linewidth=1.1, baseline=None)  # fmt: skip
        axes.set(xlim=(0, 1), ylim=(0, None))
        axes.set_xlabel("rank among all draws")
        axes.set_ylabel("over expectation")
        return as_svg(figure, name, "Ranks of each chain's draws")
