"""What any worker needs to compute any block of a run: the book, the plan, and how instruments are priced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from pmvar.bulk.journal import Log
from pmvar.bulk.plan import Plan
from pmvar.engine import Charged, Priced, Progress, model_stresses, price_all, protecting, quiet
from pmvar.io.book import Book
from pmvar.io.environment import environment
from pmvar.io.run import code_hash, versions
from pmvar.models.specification import ModelSpecification
from pmvar.scenarios import simulate, stress_scenarios
from pmvar.types import Detail, Parameters
from pmvar.valuation.reprice import ProfitAndLoss, reprice


@dataclass(frozen=True, eq=False)
class Job:
    """Scenarios are drawn from the seed and instruments priced wherever blocks are computed: neither is shipped."""

    book: Book
    plan: Plan
    detail: Detail
    last_good: Mapping[str, float]
    charged: Charged

    def price(self, *, progress: Progress = quiet, log: Log = lambda text: None) -> Priced:
        """Every instrument under every scenario; `log` is told where memory made it go in smaller steps."""
        book, s = self.book, self.book.settings
        less = _profit(book, book.model.decorrelated(s.decorrelation), s.parameters) if s.decorrelation else None
        plug_in = _profit(book, book.model, Parameters.PLUG_IN) if s.plug_in_stress else None
        return price_all(
            _profit(book, book.model, s.parameters), book.portfolio, book.rules,
            stress=stress_scenarios(book.stress, book.model, book.market), beside=model_stresses(less, plug_in),
            protective={
                tool: _profit(book, of, s.parameters) for tool, of in protecting(book.model, book.rules).items()
            },
            last_good=self.last_good, charged=self.charged, detail=self.detail, progress=progress,
            memory_bytes=np.inf if self.plan.in_memory else 1.0, loss_bytes=self.plan.loss_bytes, log=log,
        )  # fmt: skip


def identity() -> dict[str, Any]:
    """What bits of a process depend on beside its job: code, versions, kind of device, processor and flags."""
    device = jax.devices()[0].device_kind
    return {"code": code_hash(), "versions": versions(), "device": device, "environment": environment()}


def _profit(book: Book, model: ModelSpecification, parameters: Parameters) -> ProfitAndLoss:
    s = book.settings
    scenarios = simulate(
        model, book.market, seed=s.seed, n_scenarios=s.scenarios, horizon=s.horizon, sampling=s.sampling,
        parameters=parameters,
    )  # fmt: skip
    return reprice(book.portfolio, book.market, scenarios, precision=s.precision)
