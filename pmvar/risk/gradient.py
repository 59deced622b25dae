"""Where the margin comes from: spot, vol and time shares of each component, and its gradient by the market.

Only tail scenarios matter to either (the expected shortfall's derivative is the tail's mean derivative, by the envelope
theorem), so tiles are priced again, with their derivatives, and read at the tail's scenarios alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Array, Float

from pmvar.instruments import Instruments
from pmvar.kernels.european import Bump
from pmvar.market.snapshot import MarketSnapshot
from pmvar.risk.measure import BlockMeasure
from pmvar.risk.model_gradient import ModelAccumulator, ModelGradient, shock_slots
from pmvar.risk.pairs import Slot, TailPairs
from pmvar.scenarios.slopes import ParameterSlopes
from pmvar.types import FactorKind, Greek, Kind, Measure, Settlement, factor_name
from pmvar.valuation.exposure import exposure
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
    for index in range(pnl.scenarios.n_tiles):
        alone, slopes = pnl.attribution(index), pnl.sensitivity(index)
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
    slopes = ParameterSlopes(paths)
    times, slots = shock_slots(instruments, pnl.market, pnl.plan.layout)
    work = [ModelAccumulator(pnl.row, m, pnl.scenarios, slopes, times, slots, measure, level) for m in measured]
    for index in range(pnl.scenarios.n_tiles):
        exposed, normals = exposure(pnl, index), paths.normals(index)
        of_paths = slopes.of_tile(index, normals, times)
        for accumulator in work:
            accumulator.add(index, normals, of_paths, exposed)
        advance()
    return [accumulator.result() for accumulator in work]


class _Accumulator:
    """Running tail sums of one block over tiles."""

    def __init__(self, pnl: ProfitAndLoss, measured: BlockMeasure, factors: MarketFactors, measure: Measure):
        self.pnl, self.measured, self.factors = pnl, measured, factors
        block, scenarios = measured.block, pnl.scenarios
        n, self.n_replicates = len(block.account), scenarios.n_replicates
        self.pairs = TailPairs(measured, pnl.row, factors.slots, len(factors.names))
        self.alone = {kind: np.zeros(block.quantity.shape) for kind in FactorKind}
        self.is_es = measure is Measure.EXPECTED_SHORTFALL
        tail = measured.tail
        # What the error is the spread of: the estimator's influence, per unit of the derivative.
        influence = tail.in_tail / scenarios.n_scenarios if self.is_es else tail.at_var
        self.weights = (tail.weight if self.is_es else tail.at_var, tail.at_var, influence)
        # Each account has a row for the mean, one for that given L = VaR, and one for each replicate.
        self.rows = 2 + self.n_replicates
        self.total = np.zeros((n * self.rows, self.pairs.factor.shape[1]))
        self.mass = np.zeros(n * self.rows)

    def add(self, index: int, alone: dict[FactorKind, Array], slopes: tuple[Array, ...]) -> None:
        """Add the kept scenarios that lie in tile `index`."""
        pairs = self.pairs.of_tile(index)
        n, some = len(self.measured.block.account), slice(self.pairs.width)
        share = pairs.sums(pairs.account, self.measured.tail.weight[pairs.where], n)
        for kind, tile in alone.items():
            self.alone[kind][:, some] += share @ self.pairs.values(pairs, tile)
        own = pairs.account * self.rows
        group = np.concatenate([own, own + 1, own + 2 + pairs.path % self.n_replicates])
        sums = pairs.sums(group, np.concatenate([w[pairs.where] for w in self.weights]), len(self.mass))
        self.total += sums @ self.pairs.derivative(pairs, slopes)
        self.mass += sums @ np.ones(len(pairs.path))

    def result(self, level: float) -> BlockGradient:
        """The block's shares, gradient and errors."""
        full, block = self.measured.component, self.measured.block
        time = -block.quantity * self.pnl.standing[self.pnl.row[block.instrument]]
        alone = {kind: -block.quantity * total for kind, total in self.alone.items()}
        spot, vol = alone[FactorKind.SPOT], alone[FactorKind.VOL]
        total = self.total.reshape(len(block.account), self.rows, -1)
        mass = self.mass.reshape(len(block.account), self.rows, 1)
        centred = (total[:, 2:] - mass[:, 2:] * total[:, 1:2]) * self.n_replicates
        error = np.std(centred, axis=1, ddof=1) / np.sqrt(self.n_replicates)
        return BlockGradient(
            spot=((spot - time) + (full - vol)) / 2,
            vol=((vol - time) + (full - spot)) / 2,
            time=time,
            gradient=self._by_factor(total[:, 0]),
            error=self._by_factor(error / (1 - level) if self.is_es else error),
        )

    def _by_factor(self, found: Float[np.ndarray, "account column"]) -> Float[np.ndarray, "account factor"]:
        out = np.zeros((len(found), len(self.factors.names)))
        account, column = self.pairs.columns
        out[account, self.pairs.factor[account, column]] = found[account, column]
        return out
