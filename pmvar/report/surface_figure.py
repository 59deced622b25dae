"""Figure of a fitted surface: bid to ask of every quote and the smile through them, one panel an expiry."""

from __future__ import annotations

import numpy as np

from pmvar.market.fit_surface import SurfaceFit
from pmvar.report.figures import BLUE, INK, ORANGE, QUIET, as_svg, style
from pmvar.types import DAY

COLUMNS = 3


def smiles(fit: SurfaceFit) -> str:
    """The bare <svg> element; quotes that the smile misses stand out."""
    with style():
        from matplotlib.figure import Figure

        n = len(fit.expiries)
        rows = -(-n // COLUMNS)
        figure = Figure(figsize=(10.0, 2.4 * rows), layout="constrained")
        for i, e in enumerate(fit.expiries):
            axes, q = figure.add_subplot(rows, COLUMNS, i + 1), e.quotes
            missed = np.nan_to_num(e.outside) != 0
            for chosen, colour in ((q.two_sided & ~missed, BLUE), (q.two_sided & missed, ORANGE)):
                axes.vlines(q.k[chosen], 100 * q.bid[chosen], 100 * q.ask[chosen], color=colour, linewidth=1.6)
            alone = ~q.two_sided
            axes.plot(q.k[alone], 100 * q.vol[alone], linestyle="none", marker=".", markersize=3, color=QUIET)
            k = np.linspace(q.k[0], q.k[-1], 200)
            axes.plot(k, 100 * e.slice.vol(k), color=INK, linewidth=1.0)
            inside, quotes = e.inside
            days = (e.slice.expiry - fit.surface.as_of) / DAY
            axes.set_title(f"{days:.1f} days, {inside} of {quotes} inside", fontsize=10.5)
        figure.supxlabel("ln(K/F)", fontsize=11)
        figure.supylabel("vol, %", fontsize=11)
        return as_svg(figure, f"surface-{fit.underlying}", f"Smiles of {fit.underlying} by expiry and their quotes")
