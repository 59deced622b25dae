"""Figures of a backtest: margins and breaches over time, and whether forecasts were uniform in their tail."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from pmvar.report.figures import BLUE, INK, ORANGE, PALE_BLUE, QUIET, amount, as_svg, axes_of, style
from pmvar.report.format import percent

Rows = Mapping[str, np.ndarray]
COLOURS = (BLUE, ORANGE, "#6f5a8e", "#d99a1c", "#3c8a6b", QUIET, "#a83c5e", INK, "#8b9dad", "#5c4a32")
CELLS = 10
"""Of the tail, each as likely as the others under a right model."""


def over_time(rows: Mapping[str, Rows], *, name: str, currency: str) -> str:
    """Losses of one account, the VaR of each model, and its breaches."""
    with style():
        import matplotlib.dates as dates

        figure, axes = axes_of(11.0, 4.2)
        first = next(iter(rows.values()))
        day = first["day"].astype("datetime64[D]")
        axes.vlines(day, 0, np.maximum(first["loss"], 0.0), color=PALE_BLUE, linewidth=0.8, label="loss")
        for (model, t), colour in zip(rows.items(), COLOURS, strict=False):
            axes.plot(day, t["value_at_risk"], color=colour, linewidth=1.1, label=model)
            breach = t["loss"] > t["value_at_risk"]
            axes.plot(day[breach], t["loss"][breach], linestyle="none", marker="o", markersize=3, color=colour)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(dates.AutoDateLocator()))
        axes.yaxis.set_major_formatter(amount)
        axes.set_ylabel(f"loss and VaR, {currency}")
        axes.legend(loc="upper right", ncols=4)
        return as_svg(figure, f"t-{''.join(filter(str.isalnum, name))}", f"Losses and VaR of {name} over time")


def probabilities(probability: Mapping[str, np.ndarray], *, level: float) -> str:
    """Shares of losses in ten equal cells of the tail, over what each model expects: all 1 if it is right."""
    with style():
        figure, axes = axes_of(11.0, 3.6)
        begin = 1 - CELLS * (1 - level)
        edges = np.linspace(begin, 1.0, CELLS + 1)
        edges[-1] = 1.0 + 1e-12
        middle = (edges[:-1] + edges[1:]) / 2
        for (model, p), colour in zip(probability.items(), COLOURS, strict=False):
            share = np.histogram(p, edges)[0] / len(p) / (1 - level)
            axes.plot(middle, share, color=colour, marker="o", markersize=4, linewidth=1.2, label=model)
        axes.axhline(1.0, color=INK, linewidth=0.9)
        axes.set_ylim(bottom=0)
        axes.xaxis.set_major_formatter(lambda x, _: percent(x, 0))
        axes.yaxis.set_major_formatter(lambda y, _: f"{y:g} ×")
        axes.set_xlabel("probability that the model gave to a loss of at most the one that came")
        axes.set_ylabel("frequency over expectation")
        axes.legend(loc="upper left", ncols=4)
        return as_svg(figure, "pit", "Frequency of losses in the tail against expectation")
