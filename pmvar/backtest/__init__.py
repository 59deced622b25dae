"""Would the margin have held? Tests of coverage and of shortfall, scores that compare models, and margin metrics.

Losses are positive where money is lost, `level` is the upper tail, and a breach is a loss above the margin of its day.
Multi-day losses must not overlap: see `non_overlapping`.
"""

from __future__ import annotations

from pmvar.backtest.coverage import (
    Zone,
    christoffersen_independence,
    conditional_coverage,
    kupiec,
    kupiec_accepts,
    kupiec_power,
    non_overlapping,
    traffic_light,
)
from pmvar.backtest.metrics import MarginMetrics, margin_metrics
from pmvar.backtest.score import diebold_mariano, fz0_score
from pmvar.backtest.shortfall import acerbi_szekely_1, acerbi_szekely_2, simulated_test

__all__ = [
    "MarginMetrics",
    "Zone",
    "acerbi_szekely_1",
    "acerbi_szekely_2",
    "christoffersen_independence",
    "conditional_coverage",
    "diebold_mariano",
    "fz0_score",
    "kupiec",
    "kupiec_accepts",
    "kupiec_power",
    "margin_metrics",
    "non_overlapping",
    "simulated_test",
    "traffic_light",
]
