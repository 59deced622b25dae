"""Where the margin comes from: spot, vol and time shares of each component, and its gradient by the market.

Only tail scenarios matter to either (the expected shortfall's derivative is the tail's mean derivative, by the envelope
theorem), so tiles are priced again, with their derivatives, and read at the tail's scenarios alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy import sparse

from pmvar.instruments import Instruments
from pmvar.kernels.european import Bump
from pmvar.market.snapshot import MarketSnapshot
from pmvar.risk.measure import BlockMeasure
from pmvar.risk.model_gradient import ModelAccumulator, ModelGradient, shock_slots
from pmvar.risk.pairs import Pairs, Slot, add_slopes, pairs_in
from pmvar.types import FactorKind, Greek, Kind, Measure, Settlement, factor_name
from pmvar.valuation.exposure import Exposure, exposure
from pmvar.valuation.reprice import ProfitAndLoss


@dataclass(frozen=True)
class MarketFactors:
    """Inputs of the market that the margin is differentiated by."""

    names: tuple[str, ...]
    greeks: tuple[Greek, ...]
    slots: tuple[Slot, ...]


@dataclass(frozen=True)
class BlockGradient:
    """Shares and gradients of one block of accounts, in base currency."""

    spot: Float[np.ndarray, "account position"]
    vol: Float[np.ndarray, "account position"]
    time: Float[np.ndarray, "account position"]
    """spot + vol + time = component of the ES. Prices and vols share what they do together (Shapley)."""
    gradient: Float[np.ndarray, "account factor"]
    """Of the margin's measure, per unit of each factor."""
    error: Float[np.ndarray, "account factor"]


def market_factors(instruments: Instruments, market: MarketSnapshot) -> MarketFactors:
    """Every price, vol level and rate that any of `instruments` is valued from, and how it reaches them."""
    n = len(instruments)
    names: dict[tuple[str, Greek], int] = {}
    reach: dict[tuple[int, int], tuple[np.ndarray, np.ndarray]] = {}

    def add(i: int, field: str, link: int, name: str, greek: Greek, per_unit: float) -> None:
        key = (Bump._fields.index(field), link)
        factor, scale = reach.setdefault(key, (np.zeros(n, dtype=np.int64), np.zeros(n)))
        factor[i] = names.setdefault((name, greek), len(names))
        scale[i] = per_unit

    for i in range(n):
        kind, underlying = instruments.kind[i], instruments.underlying[i]
        links = market.chain(instruments.settlement_currency[i])
        if not np.all(market.spot[[*links, *market.chain(underlying)]] > 0):
            continue  # a price of zero is quarantined: what depends on it is not valued
        for link, column in enumerate(links):
            name = factor_name(market.asset[column], FactorKind.SPOT)
            add(i, "log_settlement", link, name, Greek.DELTA, 1 / market.spot[column])
        if kind != Kind.CASH and underlying != market.base_currency:
            price = market.spot[market.column(underlying)]
            add(i, "log_spot", 0, factor_name(underlying, FactorKind.SPOT), Greek.DELTA, 1 / price)
        if kind == Kind.OPTION:
            add(i, "vol", 0, factor_name(underlying, FactorKind.VOL), Greek.VEGA, 1.0)
            if instruments.settlement[i] == Settlement.LINEAR:
                add(i, "rate", 0, f"{instruments.quote_currency[i]}:rate", Greek.RHO, 1.0)
    return MarketFactors(
        tuple(name for name, _ in names),
        tuple(greek for _, greek in names),
        tuple(Slot(field, *found) for (field, _), found in sorted(reach.items())),
    )


def gradients(
    pnl: ProfitAndLoss,
    measured: Sequence[BlockMeasure],
    factors: MarketFactors,
    *,
    measure: Measure,
    level: float,
    advance: Callable[[], None] = lambda: None,
) -> list[BlockGradient]:
    """Shares and gradients of every block, pricing each tile once. `measure` picks ES or VaR (kernel estimate)."""
    work = [_Accumulator(pnl, m, factors, measure) for m in measured]
    alone = {kind: pnl.buffer() for kind in FactorKind}
    slopes = [pnl.buffer() for _ in Bump._fields]
    for index in range(pnl.scenarios.n_tiles):
        pnl.attribution(index, into=alone)
        pnl.sensitivity(index, into=slopes)
        for accumulator in work:
            accumulator.add(index, alone, slopes)
        advance()
    return [accumulator.result(level) for accumulator in work]


def model_gradients(
    pnl: ProfitAndLoss,
    measured: Sequence[BlockMeasure],
    instruments: Instruments,
    *,
    measure: Measure,
    level: float,
    advance: Callable[[], None] = lambda: None,
) -> list[ModelGradient]:
    """Derivatives of every block's margin by the parameters of the model behind the scenarios; none of a list."""
    paths = pnl.scenarios.paths
    if paths is None:
        return []
    times, slots = shock_slots(instruments, pnl.market, pnl.plan.layout)
    work = [ModelAccumulator(pnl.row, m, pnl.scenarios, times, slots, measure, level) for m in measured]
    slopes = [pnl.buffer() for _ in Exposure._fields]
    for index in range(pnl.scenarios.n_tiles):
        exposure(pnl, index, into=slopes)
        normals = paths.normals(index)
        for accumulator in work:
            accumulator.add(index, normals, slopes)
        advance()
    return [accumulator.result() for accumulator in work]


class _Accumulator:
    """Running tail sums of one block over tiles."""

    def __init__(self, pnl: ProfitAndLoss, measured: BlockMeasure, factors: MarketFactors, measure: Measure):
        self.pnl, self.measured, self.factors = pnl, measured, factors
        block, scenarios = measured.block, pnl.scenarios
        n, self.n_replicates = len(block.account), scenarios.n_replicates
        self.row = pnl.row[block.instrument]
        self.alone = {kind: np.zeros(block.quantity.shape) for kind in FactorKind}
        is_es = measure is Measure.EXPECTED_SHORTFALL
        self.weight = measured.tail.weight if is_es else measured.tail.at_var
        # What the error is the spread of: the estimator's influence, per unit of the derivative.
        self.influence = measured.tail.in_tail / scenarios.n_scenarios if is_es else measured.tail.at_var
        self.is_es = is_es
        self.mean = np.zeros((n, len(factors.names)))
        self.at_var = np.zeros((n, len(factors.names)))
        self.by_replicate = np.zeros((n * self.n_replicates, len(factors.names)))
        self.mass = np.zeros(n * self.n_replicates)

    def add(self, index: int, alone: dict[FactorKind, np.ndarray], slopes: list[np.ndarray]) -> None:
        """Add the kept scenarios that lie in tile `index`."""
        measured, n = self.measured, len(self.measured.block.account)
        pairs: Pairs = pairs_in(measured, self.row, index)
        if not len(pairs.path):
            return
        tail_weight = measured.tail.weight[pairs.where]
        derivative = np.zeros((len(pairs.path), len(self.factors.names)))
        for position in pairs.positions():
            who, weight = pairs.account[position.some], tail_weight[position.some]
            for kind, tile in alone.items():
                loss = weight * position.loss_per_pnl * tile.take(position.place)
                self.alone[kind][:, position.number] += np.bincount(who, loss, minlength=n)
            add_slopes(derivative, position, self.factors.slots, slopes)

        pair = np.arange(len(pairs.path))

        def summed(weights: np.ndarray, group: np.ndarray, size: int) -> np.ndarray:
            return sparse.csr_array((weights, (group, pair)), shape=(size, len(pair))) @ derivative

        self.mean += summed(self.weight[pairs.where], pairs.account, n)
        self.at_var += summed(measured.tail.at_var[pairs.where], pairs.account, n)
        replicate = pairs.account * self.n_replicates + pairs.path % self.n_replicates
        influence = self.influence[pairs.where]
        self.by_replicate += summed(influence, replicate, n * self.n_replicates)
        self.mass += np.bincount(replicate, influence, minlength=n * self.n_replicates)

    def result(self, level: float) -> BlockGradient:
        """The block's shares, gradient and errors."""
        full, block = self.measured.component, self.measured.block
        time = -block.quantity * self.pnl.standing[self.row]
        spot, vol = self.alone[FactorKind.SPOT], self.alone[FactorKind.VOL]
        shape = (len(block.account), self.n_replicates, -1)
        centred = self.by_replicate.reshape(shape) - self.mass.reshape(shape) * self.at_var[:, None, :]
        error = np.std(centred * self.n_replicates, axis=1, ddof=1) / np.sqrt(self.n_replicates)
        return BlockGradient(
            spot=((spot - time) + (full - vol)) / 2,
            vol=((vol - time) + (full - spot)) / 2,
            time=time,
            gradient=self.mean,
            error=error / (1 - level) if self.is_es else error,
        )
