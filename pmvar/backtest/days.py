"""A backtest's days: what each account lost, and what the model had said the day before."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float

from pmvar.backtest.extreme import drawn_from, pareto_tails
from pmvar.backtest.protection import Simulated, calculated, charged, choices, step_of
from pmvar.backtest.realised import account_losses, realised_scenarios
from pmvar.backtest.rolling import Forecast, Past, Schedule, forecasts
from pmvar.backtest.step import step_path
from pmvar.errors import InputError, Problem
from pmvar.market.snapshot import MarketSnapshot
from pmvar.models.at_volatility import VOLATILITY, under
from pmvar.models.specification import ModelSpecification
from pmvar.portfolio import Portfolio
from pmvar.risk.measure import measure_losses
from pmvar.scenarios.scenario_set import ScenarioSet
from pmvar.scenarios.simulate import simulate
from pmvar.types import DAY, ApcTool, Drift, Sampling
from pmvar.valuation.reprice import reprice

SIMULATED = 999
"""Losses drawn from the law of each day, for critical values."""


@dataclass(frozen=True)
class Days:
    """One model's forecasts and what came, for each account and period."""

    model: str
    account_id: np.ndarray
    day: Float[np.ndarray, " period"]
    """Epoch seconds of the last day of each period."""
    loss: Float[np.ndarray, "period account"]
    value_at_risk: Float[np.ndarray, "period account"]
    expected_shortfall: Float[np.ndarray, "period account"]
    probability: Float[np.ndarray, "period account"]
    """That the model gave to a loss of at most the one that came: uniform under a right model."""
    first: ModelSpecification
    """The model of the first period."""
    tail_sum: Float[np.ndarray, "account simulation"]
    """`shortfall.tail_sums` of losses drawn from the model's law of each period."""
    tail_count: Float[np.ndarray, "account simulation"]
    """The numbers of their breaches."""
    protected: Mapping[str, Float[np.ndarray, "period account"]] = field(default_factory=dict)
    """The margins that the tools against procyclicality would have charged, by their names."""
    steps: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Of each, its `step_of`."""


def realised_losses(
    past: Past, schedule: Schedule, portfolio: Portfolio, market: MarketSnapshot, like: ModelSpecification
) -> Float[np.ndarray, "period account"]:
    """What each account would have lost over each period: today's portfolio and market under the period's moves.

    `like` names the factors, and how a move of a vol reaches other tenors; time passes as over one period.
    """
    starts = schedule.starts(len(past.moves.day))
    scenarios = realised_scenarios(past.moves, starts, schedule.horizon, market, like)
    return losses(portfolio, market, scenarios).T


def losses(
    portfolio: Portfolio, market: MarketSnapshot, scenarios: ScenarioSet
) -> Float[np.ndarray, "account scenario"]:
    """Losses of every account under every scenario, by the revaluation that margins have. Raises InputError for an
    instrument that cannot be valued: nothing is counted as zero."""
    pnl = reprice(portfolio, market, scenarios)
    if pnl.plan.unpriced:
        column, reason = next(iter(pnl.plan.unpriced.items()))
        name = portfolio.instruments.instrument_id[column]
        rule = f"{name} cannot be valued: {reason}"
        raise InputError(Problem(rule, "supply its factor's history, or leave it out of the book", file="history"))
    return account_losses(pnl, np.arange(portfolio.n_accounts))


def forecast_days(
    past: Past,
    schedule: Schedule,
    portfolio: Portfolio,
    market: MarketSnapshot,
    *,
    model: str,
    level: float,
    n_scenarios: int = 16_384,
    seed: int = 1,
    tools: Sequence[ApcTool] = (),
    advance: Callable[[], None] = lambda: None,
) -> Days:
    """Margin every account for every period of `schedule` by the model known before it, and compare with what came.

    The same seed every day: what changes from day to day is the model. Stressed and long-run volatilities are, like
    parameters, of the past of the last calibration. Raises what `simulate` and `reprice` raise.
    """
    starts = schedule.starts(len(past.moves.day))
    n, accounts = len(starts), portfolio.n_accounts
    var, es, probability = (np.empty((n, accounts)) for _ in range(3))
    tail_sum, tail_count = np.zeros((accounts, SIMULATED)), np.zeros((accounts, SIMULATED))
    came: np.ndarray | None = None
    first: ModelSpecification | None = None
    law: _Law | None = None
    others: dict[ApcTool, Simulated] = {}
    raised = {tool: np.empty((n, accounts)) for tool in tools if tool in VOLATILITY}
    steps: dict[str, tuple[float, ...]] = {}

    pareto = drawn_from(model) != model

    def simulated(of: ModelSpecification) -> Simulated:
        scenarios = simulate(
            of, market, seed=seed, n_scenarios=n_scenarios, horizon=f"{schedule.horizon}d", drift=Drift.NONE,
            # A tail is fitted to losses that are equally likely.
            sampling=Sampling.SOBOL if pareto else Sampling.SOBOL_IS,
        )  # fmt: skip
        return Simulated(losses(portfolio, market, scenarios), scenarios)

    for i, forecast in enumerate(forecasts(past, schedule, model=drawn_from(model))):
        if came is None:
            first = forecast.specification
            came = realised_losses(past, schedule, portfolio, market, first)
        calibrated = law is None or forecast.calibrated != law.forecast.calibrated
        if law is None or not law.holds(forecast):
            now = simulated(forecast.specification)
            law = _Law(forecast, now, level, names=portfolio.account_id, pareto=pareto)
        if calibrated:
            laws = {tool: under(forecast.specification, VOLATILITY[tool]) for tool in raised}
            others = {tool: simulated(of) for tool, of in laws.items()}
        var[i], es[i] = law.value_at_risk, law.expected_shortfall
        probability[i] = law.probability(came[i])
        drawn = law.drawn(np.random.default_rng((seed, i)))
        beyond = drawn > var[i][:, None]
        tail_sum += np.where(beyond, drawn / es[i][:, None], 0.0)
        tail_count += beyond
        for tool, margin in calculated(es[i], law.simulated, others, level).items():
            raised[tool][i] = margin
        if i == 0 and tools:
            path = step_path(forecast.specification, window=schedule.window, recalibrate=schedule.recalibrate)
            start = es[0], law.simulated, others, level
            steps = {name: step_of(some, path.mean(axis=0), *start) for name, some in choices(tools).items()}
        advance()
    assert came is not None and first is not None, "a schedule has at least one period"
    day = past.moves.day[np.array(starts) + schedule.horizon - 1]
    since = np.diff(day, prepend=day[0]) / DAY
    protected = {name: charged(es, raised, since, some) for name, some in choices(tools).items()}
    return Days(
        model, portfolio.account_id, day, came, var, es, probability, first, tail_sum, tail_count, protected, steps
    )


class _Law:
    """The losses of all accounts under one forecast."""

    def __init__(
        self, forecast: Forecast, simulated: Simulated, level: float, *, names: np.ndarray, pareto: bool
    ) -> None:
        self.forecast = forecast
        loss, weight = simulated.loss, simulated.scenarios.weight
        found = measure_losses(loss, simulated.scenarios, level, names=names)
        self.value_at_risk, self.expected_shortfall = found.value_at_risk, found.expected_shortfall
        if pareto:
            tails = pareto_tails(loss, level)
            loss = tails.loss
            self.value_at_risk = np.where(tails.fitted, tails.value_at_risk, self.value_at_risk)
            self.expected_shortfall = np.where(tails.fitted, tails.expected_shortfall, self.expected_shortfall)
        self._loss, self._weight = loss, weight / weight.sum()
        self.simulated = Simulated(loss, simulated.scenarios)

    def holds(self, forecast: Forecast) -> bool:
        """Whether the law of `forecast` is this one."""
        mine = self.forecast
        return forecast.calibrated == mine.calibrated and forecast.specification.state == mine.specification.state

    def probability(self, loss: Float[np.ndarray, " account"]) -> Float[np.ndarray, " account"]:
        """P(L ≤ loss) of each account."""
        return (self._loss <= loss[:, None]) @ self._weight

    def drawn(self, rng: np.random.Generator) -> Float[np.ndarray, "account simulation"]:
        """Losses drawn from the law, in the same scenarios for all accounts."""
        chosen = np.searchsorted(np.cumsum(self._weight), rng.random(SIMULATED), side="right")
        return self._loss[:, np.minimum(chosen, len(self._weight) - 1)]
