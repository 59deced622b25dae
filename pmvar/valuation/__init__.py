"""Revaluation: every instrument under every scenario, once, in tiles."""

from pmvar.valuation.reprice import ProfitAndLoss, reprice

__all__ = ["ProfitAndLoss", "reprice"]
