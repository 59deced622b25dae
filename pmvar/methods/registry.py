"""Margin methods by the names of the command line."""

from __future__ import annotations

from collections.abc import Sequence

from pmvar.errors import UsageError
from pmvar.market.snapshot import MarketSnapshot
from pmvar.methods.result import Method, MethodMargin
from pmvar.methods.standard import standard_margin
from pmvar.models.specification import ModelSpecification
from pmvar.portfolio import Portfolio
from pmvar.valuation.today import values_and_greeks

NAMES = ("isolated",)


def methods_named(names: Sequence[str], market: MarketSnapshot, model: ModelSpecification) -> list[Method]:
    unknown = sorted(set(names) - {*NAMES, "mc"})
    if unknown:
        raise UsageError(f"no method {', '.join(unknown)}; there are mc, {', '.join(NAMES)}")

    def isolated(portfolio: Portfolio) -> MethodMargin:
        value, _ = values_and_greeks(portfolio.instruments, market)
        m = standard_margin(portfolio, market, value)
        return MethodMargin("isolated", "Derive standard", m, m.copy(), ())

    return [isolated for n in names if n == "isolated"]
