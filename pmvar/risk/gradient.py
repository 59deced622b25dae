"""Where the margin comes from: spot, vol and time shares of each component, and its gradient by market and model.

Only tail scenarios matter to any (the expected shortfall's derivative is the tail's mean derivative, by the envelope
theorem), so tiles are priced again, with their derivatives, and weighed as the tail weighs them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from pmvar.errors import NumericsError
from pmvar.instruments import Instruments
from pmvar.risk.measure import BlockTail
from pmvar.risk.model_gradient import ModelGradient, ModelPiece, ModelSlopes, TileSlopes, joined
from pmvar.risk.selection import in_threads
from pmvar.risk.tail_sums import PIECE, PositionSums, Reach, Slot, TailWeights, centred_error
from pmvar.types import OPTION_KINDS, FactorKind, Greek, Kind, Measure, Settlement, factor_name
from pmvar.valuation.exposure import exposure, first_row
from pmvar.valuation.fitted_smile import moves_shapes
from pmvar.valuation.reprice import ProfitAndLoss
from pmvar.valuation.store import in_strips
from pmvar.valuation.world import TOGETHER


class MarketFactor(NamedTuple):
    """One input of the market that the margin is differentiated by."""

    name: str
    greek: Greek
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


def market_factors(instruments: Instruments, pnl: ProfitAndLoss) -> tuple[MarketFactor, ...]:
    """Every price, vol level and rate that any of `instruments` is valued from, and how it reaches them."""
    n, market = len(instruments), pnl.market
    reach: dict[tuple[str, Greek], dict[int, np.ndarray]] = {}

    def add(i: int, field: str, name: str, greek: Greek, per_unit: float) -> None:
        slots = reach.setdefault((name, greek), {})
        slots.setdefault(first_row(pnl, field), np.zeros(n))[i] += per_unit

    for i in range(n):
        kind, underlying = instruments.kind[i], instruments.underlying[i]
        links = market.chain(instruments.settlement_currency[i])
        if kind == Kind.BOND:
            # Of either all moves alike: a bond is discounted at their sum.
            add(i, "rate", f"{instruments.quote_currency[i]}:rate", Greek.RHO, 1.0)
            add(i, "rate", factor_name(underlying, FactorKind.SPREAD), Greek.RHO, 1.0)
            underlying = market.base_currency
        if not all(market.unit(market.asset[c]) > 0 for c in {*links, *market.chain(underlying)}):
            continue  # a price of zero is quarantined: what depends on it is not valued
        for column in links:
            name = factor_name(market.asset[column], FactorKind.SPOT)
            add(i, "log_settlement", name, Greek.DELTA, 1 / market.spot[column])
        if kind != Kind.CASH and underlying != market.base_currency:
            price = market.unit(underlying)
            add(i, "log_spot", factor_name(underlying, FactorKind.SPOT), Greek.DELTA, 1 / price)
        if kind in OPTION_KINDS:
            add(i, "vol", factor_name(underlying, FactorKind.VOL), Greek.VEGA, 1.0)
            if instruments.settlement[i] != Settlement.INVERSE:
                add(i, "rate", f"{instruments.discount_currency[i]}:rate", Greek.RHO, 1.0)
    return tuple(
        MarketFactor(name, greek, tuple(Slot(*slot) for slot in sorted(slots.items())))
        for (name, greek), slots in reach.items()
    )


def gradients(
    pnl: ProfitAndLoss,
    measured: Sequence[BlockTail],
    instruments: Instruments,
    factors: Sequence[MarketFactor],
    *,
    measure: Measure,
    level: float,
    names: Shaped[np.ndarray, " all"] | None = None,
    advance: Callable[[], None] = lambda: None,
) -> tuple[list[BlockGradient], list[ModelGradient]]:
    """Shares and gradients of every block, by market and by model, pricing each tile once more.

    `measure` picks ES or VaR (kernel estimate). Listed scenarios have no model, and no gradient by one; where a model
    moves the shape of vol surfaces, exposures to which are not known, there is none either. Raises NumericsError on a
    gradient that is not finite, naming its account by the portfolio's `names`.
    """
    by_parameter = None if moves_shapes(pnl.scenarios) else pnl.scenarios.slopes
    model = None if by_parameter is None else ModelSlopes(by_parameter, instruments, pnl)
    pieces = [
        [
            _Piece(pnl, m.take(slice(i, i + PIECE)), factors, model, measure, level)
            for i in range(0, len(m.block.account), PIECE)
        ]
        for m in measured
    ]
    every = [piece for block in pieces for piece in block]
    for index in range(pnl.scenarios.n_tiles):
        alone = {kind: in_strips(tile) for kind, tile in pnl.attribution(index).items()}
        exposed = exposure(pnl, index)
        slopes = None if model is None else model.of_tile(index)

        def add(some: slice, index: int = index, alone=alone, exposed=exposed, slopes=slopes) -> None:
            for piece in every[some]:
                piece.add(index, alone, exposed, slopes)

        in_threads(add, len(every), 1)
        advance()
    found = [_joined([piece.result() for piece in block]) for block in pieces]
    by_model = [joined([p.model.result() for p in block if p.model is not None]) for block in pieces if model]
    for m, g in (*zip(measured, found, strict=True), *zip(measured, by_model, strict=False)):
        bad = np.flatnonzero(~np.isfinite(g.gradient + g.error).all(axis=1))
        if len(bad):
            who = f"account {names[m.block.account[bad[0]]]}" if names is not None else "an account"
            raise NumericsError(
                f"the gradient of {who} is not finite at the precision of the run; "
                "reduce its quantities or use --precision float64"
            )
    return found, by_model


class _Piece:
    """Running sums of some accounts."""

    def __init__(
        self,
        pnl: ProfitAndLoss,
        measured: BlockTail,
        factors: Sequence[MarketFactor],
        model: ModelSlopes | None,
        measure: Measure,
        level: float,
    ):
        self.pnl, self.measured = pnl, measured
        block, replicates, dtype = measured.block, pnl.scenarios.n_replicates, np.dtype(str(pnl.precision))
        self.weights = TailWeights(measured.ids, (measured.tail.weight, measured.tail.at_var))
        # Which weights the measure's derivative is the mean under.
        self.kind = 0 if measure is Measure.EXPECTED_SHORTFALL else 1
        self.alone = {k: PositionSums(block, pnl.row, self.weights.height, replicates) for k in TOGETHER}
        self.factors = [Reach(block, pnl.row, f.slots, dtype, replicates) for f in factors]
        self.model = None if model is None else ModelPiece(model, pnl, measured, self.weights, measure, level)

    def add(
        self,
        index: int,
        alone: Mapping[FactorKind, Float[Array, "strip row path"]],
        exposed: Float[Array, "strip field_row path"],
        slopes: TileSlopes | None,
    ) -> None:
        """Add the scenarios of one tile."""
        weight = self.weights.tile(index)
        for kind, tile in alone.items():
            self.alone[kind].add(weight[:1], tile)
        weight = weight.astype(exposed.dtype)
        one = jnp.ones((1, weight.shape[1], weight.shape[3]), weight.dtype)
        for reach in self.factors:
            if len(reach.account):
                reach.add(weight, exposed, one)
        if self.model is not None and slopes is not None:
            self.model.add(index, weight, exposed, slopes)

    def result(self) -> BlockGradient:
        """Shares, gradient and errors."""
        full, block = self.measured.component, self.measured.block
        time = -block.quantity * self.pnl.standing[self.pnl.row[block.instrument]]
        spot, vol = (-block.quantity * s.result()[0].sum(axis=-1) for s in self.alone.values())
        mass = self.weights.mass(self.pnl.scenarios.n_replicates)[self.kind]
        gradient, error = (np.zeros((len(block.account), len(self.factors))) for _ in range(2))
        for f, reach in enumerate(self.factors):
            if len(reach.account):
                sums = reach.result()[:, :, 0]
                gradient[reach.account, f] = sums[self.kind].sum(axis=-1)
                error[reach.account, f] = centred_error(sums[self.kind], sums[1].sum(axis=-1), mass[reach.account])
        return BlockGradient(
            spot=((spot - time) + (full - vol)) / 2,
            vol=((vol - time) + (full - spot)) / 2,
            time=time,
            gradient=gradient,
            error=error,
        )


def _joined(parts: Sequence[BlockGradient]) -> BlockGradient:
    return BlockGradient(*(np.concatenate([getattr(p, f.name) for p in parts]) for f in fields(BlockGradient)))
