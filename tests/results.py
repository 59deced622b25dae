"""Hand-made MarginResults: a small simulation in plain numpy, so that every number in them hangs together."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pmvar.risk.result import TABLES, AccountDetail, MarginResult

SPOTS = {"BTC": 61_000.0, "ETH": 3_250.0, "SOL": 142.0}
VOLS = {"BTC": 0.55, "ETH": 0.68, "SOL": 0.85}
DEGREES_OF_FREEDOM = 4.0
DAYS = 2.0
STRESS = {
    "spot −30%, vol +40%": (-0.3567, 0.3365),
    "spot −15%, vol +20%": (-0.1625, 0.1823),
    "spot −5%": (-0.0513, 0.0),
    "spot +5%": (0.0488, 0.0),
    "spot +15%, vol −10%": (0.1398, -0.1054),
    "spot +30%, vol +20%": (0.2624, 0.1823),
    "vol −30%": (0.0, -0.3567),
}
"""Name -> log change of every spot, log change of every vol."""


def make_result(
    *,
    n_accounts: int = 4,
    n_details: int = 3,
    n_scenarios: int = 2048,
    account_ids: Sequence[str] = (),
    with_stress: bool = True,
    with_greeks: bool = True,
    assumed: bool = True,
    notes: Sequence[str] = ("The accounts are synthetic: drawn at random, nobody's positions.",),
    seed: int = 7,
) -> MarginResult:
    """A consistent result: tails, components, splits and gradients of one fat-tailed simulation.

    `account_ids` names the first accounts; the rest are named after what they do.
    """
    rng = np.random.default_rng(seed)
    kinds = ("mm", "fund", "desk", "retail")
    names = [f"{kinds[min(3, int(4 * np.sqrt(i / max(n_accounts, 4))))]}-{i + 1:05d}" for i in range(n_accounts)]
    names[: len(account_ids)] = account_ids
    instruments = _instruments()
    shock = _shocks(rng, n_scenarios)
    parts = _instrument_pnl(instruments, shock)
    bumped = _gradients(instruments, shock) if with_greeks else {}
    pnl = _whole(parts)
    moves = {name: {f: np.array([x[f.endswith("vol")]]) for f in shock} for name, x in STRESS.items()}
    stressed = {name: _whole(_instrument_pnl(instruments, move))[:, 0] for name, move in moves.items()}
    n_tail = max(2, round(0.01 * n_scenarios))
    book = [_positions(rng, instruments, size=1e6 * np.exp(-0.9 * np.log1p(i))) for i in range(n_accounts)]

    rows: dict[str, list[tuple]] = {name: [] for name in TABLES}
    losses: dict[str, np.ndarray] = {}
    for account, quantity in zip(names, book, strict=True):
        loss = -(quantity @ pnl)
        order = np.argsort(-loss, kind="stable")
        tail, value_at_risk = order[:n_tail], float(loss[order[n_tail - 1]])
        es = float(loss[tail].mean())
        es_se = float(np.sqrt((loss[tail].var() + 0.99 * (es - value_at_risk) ** 2) / n_tail))
        held = np.flatnonzero(quantity)
        alone = np.partition(quantity[held, None] * pnl[held], n_tail, axis=1)[:, :n_tail]
        margin, own = max(es, 0.0), float(np.maximum(-alone.mean(axis=1), 0).sum())
        equity = margin * float(np.exp(rng.normal(0.55, 0.4)))
        status = "OK" if equity >= margin else "MARGIN_CALL" if equity >= 0.8 * margin else "LIQUIDATION"
        reason = (
            "" if status == "OK" else f"equity below {'initial' if status == 'MARGIN_CALL' else 'maintenance'} margin"
        )
        if rng.random() < 0.004 and account not in account_ids:
            status, reason = "WITHHELD", "XRP-USD has no price factor; Derive-standard baseline applied"
        tail_columns = (0.99, value_at_risk, es_se * 0.7, es, es_se)
        own_error = float(np.maximum(alone.std(axis=1), 0).sum() / np.sqrt(n_tail))
        margin_columns = (margin, 0.8 * margin, equity, equity - margin, own, own_error, own - margin)
        rows["margins"].append((account, *tail_columns, *margin_columns, status, reason))
        losses[account] = loss
        for i in held:
            split = [float(-quantity[i] * parts[part][i, tail].mean()) for part in ("spot", "vol", "time")]
            spread = float((quantity[i] * pnl[i, tail]).std() / np.sqrt(n_tail))
            name, underlying = instruments[i][:2]
            rows["components"].append((account, name, underlying, float(quantity[i]), sum(split), spread, *split))
        for (factor, greek), slope in bumped.items():
            values = -(quantity @ slope[:, tail])
            if np.any(values):
                error = float(values.std() / np.sqrt(n_tail))
                rows["greeks"].append((account, "margin", "", factor, greek, float(values.mean()), error))
        for factor in shock if with_greeks else ():
            # Of a margin that is proportional to every volatility, in equal parts.
            slope = margin / len(shock) / _volatility(factor)
            rows["model_greeks"].append((account, "volatility", factor, "", slope, 0.01 * slope))
        for rank, scenario in enumerate(order[:5], start=1):
            rows["worst"].append((account, rank, int(scenario), 1.0, float(loss[scenario])))
        if with_stress:
            rows["stress"] += [(account, name, float(-(quantity @ moved))) for name, moved in stressed.items()]
    for scenario in sorted({row[2] for row in rows["worst"]}):
        rows["shocks"] += [(scenario, factor, float(x[scenario])) for factor, x in shock.items()]
    tables = {name: _columns(name, found) for name, found in rows.items()}
    margins = tables["margins"]
    largest = np.argsort(-margins["initial_margin"], kind="stable")[:n_details]
    details = tuple(_detail(str(margins["account_id"][i]), losses[str(margins["account_id"][i])]) for i in largest)
    return MarginResult(tables, details, _settings(n_scenarios, assumed), tuple(notes))


def _columns(name: str, rows: list[tuple]) -> dict[str, np.ndarray]:
    columns = {}
    for j, column in enumerate(TABLES[name]):
        values = [row[j] for row in rows]
        text = column in {
            "account_id",
            "status",
            "reason",
            "instrument_id",
            "underlying",
            "of",
            "factor",
            "other_factor",
            "parameter",
            "greek",
        }
        text |= name == "stress" and column == "scenario"
        whole = column == "rank" or (column == "scenario" and not text)
        columns[column] = np.array(values, dtype=object if text else np.int64 if whole else np.float64)
    return columns


def _instruments() -> list[tuple[str, str, float, int]]:
    """(id, underlying, strike or 0, days to expiry or 0; a put has a negative strike)."""
    found: list[tuple[str, str, float, int]] = []
    for name, spot in SPOTS.items():
        found.append((f"{name}-PERPETUAL", name, 0.0, 0))
        for expiry, days in (("28JUN24", 18), ("27SEP24", 109)):
            for ratio in (0.7, 0.85, 1.0, 1.15, 1.4):
                strike = float(np.round(spot * ratio, -int(np.log10(spot)) + 1))
                for right in ("C", "P"):
                    sign = 1 if right == "C" else -1
                    found.append((f"{name}-{expiry}-{strike:.0f}-{right}", name, sign * strike, days))
        found.append((f"CASH:{name}", name, 0.0, 0))
    return found


def _shocks(rng: np.random.Generator, n_scenarios: int) -> dict[str, np.ndarray]:
    """Multivariate t log changes over two days, spots and vols."""
    mixing = np.sqrt((DEGREES_OF_FREEDOM - 2) / rng.chisquare(DEGREES_OF_FREEDOM, n_scenarios))
    common, shock = rng.normal(size=n_scenarios), {}
    for name, vol in VOLS.items():
        spot = np.sqrt(0.8) * common + np.sqrt(0.2) * rng.normal(size=n_scenarios)
        level = -0.3 * spot + np.sqrt(1 - 0.09) * rng.normal(size=n_scenarios)
        shock[f"{name}:spot"] = vol * np.sqrt(DAYS / 365) * spot * mixing
        shock[f"{name}:vol"] = np.tanh(0.9 * np.sqrt(DAYS / 365) * level * mixing / 1.6) * 1.6
    return shock


def _value(instrument: tuple[str, str, float, int], spot: np.ndarray, vol: np.ndarray, days: float) -> np.ndarray:
    """Black without rates; a normal distribution function good to 2e-4 will do here."""
    strike, left = abs(instrument[2]), (instrument[3] - days) / 365
    if not strike:
        return spot
    width = vol * np.sqrt(left)
    d = np.log(spot / strike) / width + width / 2
    below = [0.5 * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3))) for x in (d, d - width)]
    call = spot * below[0] - strike * below[1]
    return call if instrument[2] > 0 else call - spot + strike


def _instrument_pnl(instruments, shock, bump: tuple[str, float] = ("", 0.0)) -> dict[str, np.ndarray]:
    """P&L [instrument, scenario] from spot alone, then vol, then time."""
    parts: dict[str, list[np.ndarray]] = {"spot": [], "vol": [], "time": []}
    for instrument in instruments:
        name = instrument[1]
        spot0, vol0 = np.array(SPOTS[name]), np.array(VOLS[name])
        spot = (spot0 + bump[1] * (bump[0] == f"{name}:spot")) * np.exp(shock[f"{name}:spot"])
        vol = (vol0 + bump[1] * (bump[0] == f"{name}:vol")) * np.exp(shock[f"{name}:vol"])
        steps = [
            _value(instrument, spot0, vol0, 0.0) + 0 * spot,
            _value(instrument, spot, vol0, 0.0),
            _value(instrument, spot, vol, 0.0),
            _value(instrument, spot, vol, DAYS),
        ]
        for part, before, after in zip(parts, steps[:-1], steps[1:], strict=True):
            parts[part].append(after - before)
    return {part: np.array(pnl) for part, pnl in parts.items()}


def _whole(parts: dict[str, np.ndarray]) -> np.ndarray:
    return np.sum(list(parts.values()), axis=0)


def _gradients(instruments, shock) -> dict[tuple[str, str], np.ndarray]:
    """Slope [instrument, scenario] of the P&L in spot (delta) and vol (vega); a token rho."""
    base, slopes = _whole(_instrument_pnl(instruments, shock)), {}
    for factor in shock:
        name, _, kind = factor.partition(":")
        step = 1e-4 * SPOTS[name] if kind == "spot" else 1e-4
        moved = _whole(_instrument_pnl(instruments, shock, (factor, step)))
        # Both ends of the change move: today's value is the one without shock.
        today = [
            _whole(_instrument_pnl(instruments, {f: np.zeros(1) for f in shock}, bump))
            for bump in ((factor, step), ("", 0.0))
        ]
        slopes[factor, "delta" if kind == "spot" else "vega"] = (moved - base - (today[0] - today[1])) / step
    slopes["USD:rate", "rho"] = 0.05 * slopes["BTC:spot", "delta"] * SPOTS["BTC"]
    return slopes


def _positions(rng: np.random.Generator, instruments, size: float) -> np.ndarray:
    """Quantities: options both ways with a perpetual against them; `size` in USD of notional a position."""
    quantity = np.zeros(len(instruments))
    spot = np.array([SPOTS[i[1]] for i in instruments])
    n_held = int(np.clip(rng.poisson(4 + 8 * min(1.0, size / 1e5)), 2, len(instruments)))
    held = rng.choice(len(instruments), n_held, replace=False)
    raw = size * rng.normal(size=n_held) * np.exp(rng.normal(size=n_held)) / spot[held]
    quantity[held] = np.round(raw * 100) / 100
    quantity[held] += np.where(quantity[held] == 0, 0.01, 0.0)
    for i, instrument in enumerate(instruments):
        if instrument[0].startswith("CASH"):
            quantity[i] = abs(quantity[i])
    return quantity


def _detail(account: str, loss: np.ndarray) -> AccountDetail:
    count, edges = np.histogram(loss, bins=80)
    points = np.unique(np.geomspace(256, len(loss), 12).astype(np.int64))
    path = []
    for n in points:
        tail = -np.sort(-loss[:n])[: max(2, round(0.01 * n))]
        path.append((tail.mean(), np.sqrt((tail.var() + (tail.mean() - tail[-1]) ** 2) / len(tail))))
    es, se = np.array(path).T
    return AccountDetail(account, edges, count.astype(np.float64), points, es, se)


def _volatility(factor: str) -> float:
    """Over one day."""
    name, _, kind = factor.partition(":")
    return (VOLS[name] if kind == "spot" else 0.9) / np.sqrt(365)


def _settings(n_scenarios: int, assumed: bool) -> dict:
    source = "assumed" if assumed else "calibrated on 730 days to 2024-06-10"
    fit = {"degrees_of_freedom": DEGREES_OF_FREEDOM, "source": source, "n_obs": 0 if assumed else 730}
    factors = [
        {"name": f"{name}:{kind}", "volatility": _volatility(f"{name}:{kind}"), **fit}
        for name in VOLS
        for kind in ("spot", "vol")
    ]
    return {
        "as_of": "2024-06-10T08:00:00Z",
        "base_currency": "USD",
        "level": 0.99,
        "measure": "expected_shortfall",
        "multiplier": 1.0,
        "floor": 0.0,
        "maintenance_ratio": 0.8,
        "horizon": "2d",
        "n_scenarios": n_scenarios,
        "seed": 1,
        "sampling": "mc",
        "precision": "float32",
        "drift": "forward",
        "device": "cpu",
        "model": {"name": "t", "steps_per_year": 365, "source": source, "factors": factors},
        "spots": dict(SPOTS),
        "versions": {"pmvar": "0.1.0", "jax": "0.10.2", "numpy": "2.4.6"},
    }
