"""Generated accounts: positions and balances of named classes over any book, for demonstrations and tests.

Classes, by the first part of the account id:
`MM` market makers: long and short in many options of half the underlyings or more, hedged to no delta;
`HEDGE` hedgers: a holding, most of it sold forward, and protective puts;
`DIR` directional: a few futures and bought options, all one way;
`SHORTVOL` sellers of strangles, about half of them hedged to no delta.

Collateral is a multiple of the worst loss over a few joint moves: most accounts are sound and some in call.
Each account draws from its own stream (seed, class, number): more accounts leave the first ones as they were.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from pmvar.errors import InputError, Problem
from pmvar.instruments import Instruments
from pmvar.io.demo_values import Values, values
from pmvar.market.snapshot import MarketSnapshot
from pmvar.types import Kind

SHARES: Mapping[str, float] = {"MM": 0.04, "HEDGE": 0.21, "DIR": 0.45, "SHORTVOL": 0.30}
"""Share of each class among the accounts."""
SCALE: Mapping[str, float] = {"MM": 2e5, "HEDGE": 5e5, "DIR": 1e5, "SHORTVOL": 2e5}
"""Median notional of one position in base currency."""
COVER = 2.2
"""Median of collateral over worst loss, which is log-normal."""
COVER_SPREAD = 0.55
"""Standard deviation of its logarithm."""
MOST_QUOTED = 500
"""Options of one underlying that a market maker holds at most."""
SMALLEST_BALANCE = 1_000.0
"""In base currency, held even where nothing is needed."""


@dataclass(frozen=True)
class _Underlying:
    """The instruments of one underlying, as indices."""

    name: str
    options: Int[np.ndarray, "option"]
    linear: tuple[tuple[int, float], ...]
    """Legs that together move like the underlying: a perpetual, else a future, else a call less a put."""
    is_coin: bool
    """Whether it can be held as a balance."""


_Draft = tuple[Float[np.ndarray, "instrument"], dict[str, float]]
"""Contracts held, and units of assets held."""


def generate_accounts(
    instruments: Instruments, market: MarketSnapshot, *, n_accounts: int, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """The columns of `positions` and `balances` for `n_accounts` accounts over `instruments`.

    Raises InputError if no underlying has options that are alive at the snapshot, or one's price may be zero or less.
    """
    if market.scales:
        rule = f"accounts are generated over lognormal prices, which that of {min(market.scales)} is not"
        fix = "write positions for the book yourself"
        raise InputError(Problem(rule, fix, file="market/spots", column="price_model"))
    value = values(instruments, market)
    settled, traded = set(instruments.settlement_currency.tolist()), set(instruments.underlying.tolist())
    coins = sorted(settled & traded & set(market.asset))
    universe = _universe(instruments, market, value, coins)
    if not universe:
        rule = "accounts are generated over a book with live options"
        raise InputError(Problem(rule, "import a chain first", file="instruments"))
    pegged = sorted(set(market.asset) - traded)
    position: list[tuple[str, str, float]] = []
    balance: list[tuple[str, str, float]] = []
    for number, (label, n) in enumerate(_counts(n_accounts).items()):
        for i in range(n):
            account = f"{label}-{i + 1:04d}"
            rng = np.random.default_rng([seed, number, i])
            held, coin = _BUILDERS[label](rng, universe, value)
            quantity = _in_lots(held, value)
            used = np.flatnonzero(quantity)
            position.extend((account, str(instruments.instrument_id[j]), float(quantity[j])) for j in used)
            worst = max(0.0, float(-(quantity @ value.moved).min()))
            need = worst * COVER * float(np.exp(COVER_SPREAD * rng.standard_normal()))
            # What is held already counts as collateral.
            need -= float(quantity @ value.now) + sum(q * _collateral(market, a) for a, q in coin.items())
            cash = str(rng.choice([market.base_currency, *pegged] + (coins if label == "DIR" else [])))
            coin[cash] = coin.get(cash, 0.0) + max(need, SMALLEST_BALANCE) / _collateral(market, cash)
            balance.extend((account, a, float(f"{q:.6g}")) for a, q in sorted(coin.items()))
    return (
        _columns(position, ("account_id", "instrument_id", "quantity")),
        _columns(balance, ("account_id", "asset", "amount")),
    )


def _counts(n_accounts: int) -> dict[str, int]:
    """Accounts per class: shares rounded down, the rest to the largest remainders."""
    exact = {label: share * n_accounts for label, share in SHARES.items()}
    counts = {label: int(x) for label, x in exact.items()}
    rest = sorted(exact, key=lambda label: counts[label] - exact[label])[: n_accounts - sum(counts.values())]
    return {label: n + (label in rest) for label, n in counts.items()}


def _universe(instruments: Instruments, market: MarketSnapshot, value: Values, coins: list[str]) -> list[_Underlying]:
    found = []
    for name in sorted(set(instruments.underlying.tolist()) & set(market.vols)):
        mine = (instruments.underlying == name) & value.alive
        options = np.flatnonzero(mine & (instruments.kind == Kind.OPTION))
        if not len(options):
            continue
        linear = np.flatnonzero(mine & (instruments.kind == Kind.PERPETUAL))
        if not len(linear):
            linear = np.flatnonzero(mine & (instruments.kind == Kind.FUTURE))
        if len(linear):
            legs = ((int(linear[0]), 1.0),)
        else:
            # A call less a put is a forward; the strike nearest the money, of the expiry nearest 30 days.
            calls, puts = (options[value.sign[options] == sign] for sign in (1.0, -1.0))
            near = np.abs(value.log_moneyness[calls]) + np.abs(np.log(value.year[calls] * 365 / 30))
            call = calls[np.argmin(near)]
            same = instruments.strike[puts] == instruments.strike[call]
            put = puts[same & (instruments.expiry[puts] == instruments.expiry[call])]
            legs = ((int(call), 1.0), *((int(j), -1.0) for j in put[:1]))
        found.append(_Underlying(name, options, legs, name in coins))
    return found


def _in_lots(held: np.ndarray, value: Values) -> np.ndarray:
    """Whole lots, at least one of whatever is held."""
    lots = np.sign(held) * np.maximum(np.round(np.abs(held) / value.lot), 1.0)
    return np.round(lots * value.lot, 1)


def _hedge(held: np.ndarray, target: _Underlying, value: Values, *, delta: float) -> None:
    """Add the linear legs of `target` that bring its delta, now `delta` in base currency, to zero."""
    per_unit = sum(sign * value.delta[j] for j, sign in target.linear)
    for j, sign in target.linear:
        held[j] -= sign * delta / per_unit


def _size(rng: np.random.Generator, label: str) -> float:
    """Notional of one position in base currency: log-normal, as account sizes are."""
    return SCALE[label] * float(np.exp(1.2 * rng.standard_normal()))


def _market_maker(rng: np.random.Generator, universe: list[_Underlying], value: Values) -> _Draft:
    held = np.zeros(len(value.now))
    size = _size(rng, "MM")
    n = int(rng.integers((len(universe) + 1) // 2, len(universe) + 1))
    for i in rng.choice(len(universe), size=n, replace=False):
        share = int(np.ceil(len(universe[i].options) * rng.uniform(0.5, 0.95)))
        quoted = np.sort(rng.choice(universe[i].options, size=min(share, MOST_QUOTED), replace=False))
        # Half of the flow comes back: what is kept is centred a little short, as makers are.
        held[quoted] = size * (rng.standard_normal(len(quoted)) - 0.1) / value.notional[quoted]
        held[quoted] = _in_lots(held, value)[quoted]
        _hedge(held, universe[i], value, delta=float(held[quoted] @ value.delta[quoted]))
    return held, {}


def _hedger(rng: np.random.Generator, universe: list[_Underlying], value: Values) -> _Draft:
    held = np.zeros(len(value.now))
    target = universe[rng.integers(len(universe))]
    size, sold, insured = _size(rng, "HEDGE"), rng.uniform(0.4, 0.9), rng.uniform(0.3, 1.0)
    # What cannot be held as a balance is held through its legs, net of what is sold.
    _hedge(held, target, value, delta=sold * size if target.is_coin else (sold - 1) * size)
    puts = target.options[(value.sign[target.options] < 0) & (value.log_moneyness[target.options] < 0)]
    if len(puts):
        held[rng.choice(puts)] += insured * size / value.notional[puts].mean()
    return held, {target.name: size / value.unit[target.name]} if target.is_coin else {}


def _directional(rng: np.random.Generator, universe: list[_Underlying], value: Values) -> _Draft:
    held = np.zeros(len(value.now))
    way = 1.0 if rng.random() < 0.65 else -1.0
    for i in rng.choice(len(universe), size=int(rng.integers(1, len(universe) + 1)), replace=False):
        if rng.random() < 0.7:
            _hedge(held, universe[i], value, delta=-way * _size(rng, "DIR"))
        bought = universe[i].options[value.sign[universe[i].options] == way]
        if len(bought):
            for j in rng.choice(bought, size=min(int(rng.integers(0, 4)), len(bought)), replace=False):
                held[j] += _size(rng, "DIR") / value.notional[j]
    return held, {}


def _short_vol(rng: np.random.Generator, universe: list[_Underlying], value: Values) -> _Draft:
    held = np.zeros(len(value.now))
    target = universe[rng.integers(len(universe))]
    for side in (1.0, -1.0):
        options = target.options
        out = options[(value.sign[options] == side) & (side * value.log_moneyness[options] > 0)]
        near = out[value.year[out] <= max(0.35, float(value.year[out].min(initial=np.inf)))]
        for j in rng.choice(near, size=min(int(rng.integers(1, 6)), len(near)), replace=False):
            held[j] -= _size(rng, "SHORTVOL") / value.notional[j]
    if rng.random() < 0.5:
        held = _in_lots(held, value)
        _hedge(held, target, value, delta=float(held @ value.delta))
    return held, {}


_BUILDERS = {"MM": _market_maker, "HEDGE": _hedger, "DIR": _directional, "SHORTVOL": _short_vol}


def _collateral(market: MarketSnapshot, asset: str) -> float:
    """What one unit of `asset` counts for, in base currency, after its haircut."""
    haircut = 0.0 if asset == market.base_currency else float(market.haircut[market.column(asset)])
    return market.base_price(asset) * (1 - haircut)


def _columns(rows: list[tuple[str, str, float]], names: tuple[str, str, str]) -> dict[str, np.ndarray]:
    """Rows as columns: two of strings, one of numbers."""
    first, second, number = zip(*rows, strict=True) if rows else ((), (), ())
    return {
        names[0]: np.array(first, dtype=object),
        names[1]: np.array(second, dtype=object),
        names[2]: np.array(number, dtype=float),
    }
