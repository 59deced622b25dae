"""The enumerations and constants that every layer shares."""

from __future__ import annotations

from enum import StrEnum

SECONDS_PER_YEAR = 31_536_000.0
"""Act/365: decay, expiry and interest run in calendar seconds over this."""

DAY = 86_400.0
"""Seconds in a day."""

PATH_TILE = 4096
"""Scenarios in one tile: the canonical width of every kernel, so that bits do not depend on chunking."""


class Kind(StrEnum):
    """Product of an instrument; `cash` is a balance, which the portfolio treats as one more instrument."""

    SPOT = "spot"
    FUTURE = "future"
    PERPETUAL = "perpetual"
    OPTION = "option"
    CASH = "cash"
    BOND = "bond"
    DIGITAL = "digital"
    ASIAN = "asian"
    BARRIER = "barrier"


class Settlement(StrEnum):
    """`linear`: settled in the quote currency. `inverse`: quoted in it, settled in the underlying coin. `quanto`:
    quoted in it, settled in another currency at a fixed rate."""

    LINEAR = "linear"
    INVERSE = "inverse"
    QUANTO = "quanto"


OPTION_KINDS = (Kind.OPTION, Kind.DIGITAL, Kind.ASIAN, Kind.BARRIER)
"""Kinds that have a strike, and a value that hangs on volatility."""


class PutCall(StrEnum):
    """Option right."""

    CALL = "call"
    PUT = "put"


class Exercise(StrEnum):
    """When an option may be exercised: at expiry, or at any moment until then."""

    EUROPEAN = "european"
    AMERICAN = "american"


class Deliverable(StrEnum):
    """What exercise of an American option delivers: the underlying, or its future for the option's expiry."""

    SPOT = "spot"
    FUTURE = "future"


class DayCount(StrEnum):
    """How a bond's coupon grows over a period: by the days that pass, or the same for every regular period."""

    ACTUAL_365 = "act/365"
    ACTUAL_360 = "act/360"
    THIRTY_360 = "30/360"
    ACTUAL_ACTUAL = "act/act"


class Payoff(StrEnum):
    """What a digital option in the money pays: one unit of its quote currency, or of its underlying."""

    CASH_OR_NOTHING = "cash_or_nothing"
    ASSET_OR_NOTHING = "asset_or_nothing"


class BarrierType(StrEnum):
    """Which way a barrier option is hit, and whether it then comes to life or ends."""

    UP_IN = "up_in"
    UP_OUT = "up_out"
    DOWN_IN = "down_in"
    DOWN_OUT = "down_out"


class FactorKind(StrEnum):
    """What a risk factor moves, the part of its name after the colon."""

    SPOT = "spot"
    VOL = "vol"
    BASIS = "basis"
    """ln of the forward over the spot, for one expiry or tenor."""
    RATE = "rate"
    """Zero rate of a currency at one tenor; absolute."""
    SPREAD = "spread"
    """Of an issuer over the zero rates of the currency; absolute."""
    SKEW = "skew"
    """Of a fitted smile: a shift of atanh ρ."""
    CURVATURE = "curvature"
    """Of a fitted smile: a shift of ln q of w(qk), for SSVI of ln η."""
    TERM = "term"
    """Of the vols of an underlying: a shift of the slope of ln σ in ln τ."""


class SurfaceKind(StrEnum):
    """How vols between and beyond quotes are had: quotes interpolated, or smiles fitted to them."""

    RAW = "raw"
    SVI = "svi"
    SSVI = "ssvi"


class PriceMap(StrEnum):
    """How a price factor's x becomes the price ratio S₁/S₀; see `pmvar.models.price_map`."""

    EXP_LINEAR = "exp_linear"
    EXP = "exp"
    LINEAR = "linear"


class Drift(StrEnum):
    """`forward`: prices grow to their forward on average. `none`: x is taken as it is."""

    FORWARD = "forward"
    NONE = "none"


class Sampling(StrEnum):
    """How the unit cube is filled: pseudo-random, scrambled Sobol', or that leaning towards the tail, with weights."""

    MC = "mc"
    SOBOL = "sobol"
    SOBOL_IS = "sobol-is"


class Parameters(StrEnum):
    """`predictive`: a path takes its parameters from a draw of their posterior, where the model has one. `plug-in`:
    every path takes the estimates."""

    PREDICTIVE = "predictive"
    PLUG_IN = "plug-in"


class VolatilitySource(StrEnum):
    """Where today's volatility of a price comes from: `model.json`, or option quotes too where they say more."""

    MODEL = "model"
    IMPLIED = "implied"


class Stickiness(StrEnum):
    """What of a smile stays when the forward moves: the vol of a moneyness, or that of a strike."""

    MONEYNESS = "moneyness"
    STRIKE = "strike"


class Netting(StrEnum):
    """What to do with several rows for one (account, instrument)."""

    REJECT = "reject"
    SUM = "sum"


class Measure(StrEnum):
    """Tail measure that the margin is taken from."""

    EXPECTED_SHORTFALL = "expected_shortfall"
    VALUE_AT_RISK = "value_at_risk"


class StressOf(StrEnum):
    """What a margin's share of stress is a share of."""

    DEPENDENCE = "dependence"
    """The measure of half the tail, under the model and under its decorrelation: the larger."""
    LIST = "list"
    """The largest loss under the stress list."""


class Liquidity(StrEnum):
    """Whether a margin holds the cost of closing the account out."""

    NONE = "none"
    CHARGE = "charge"


class ApcTool(StrEnum):
    """Tools against procyclical margins: EMIR's, article 28(1) of Commission Delegated Regulation (EU) 153/2013."""

    BUFFER = "buffer"
    """(a) a quarter more than is calculated, which rising margins may use up."""
    STRESSED = "stressed"
    """(b) a quarter of the weight on scenarios of stressed volatility."""
    FLOOR = "floor"
    """(c) never below the margin under volatility estimated over ten years."""


class Precision(StrEnum):
    """Precision of the instrument P&L tile and of tail selection; everything else is float64."""

    FLOAT32 = "float32"
    FLOAT64 = "float64"


class Detail(StrEnum):
    """How much a run says of each account."""

    MARGINS = "margins"
    """Measures, margins and stress losses."""
    COMPONENTS = "components"
    """And what each position adds, and the worst scenarios."""
    GREEKS = "greeks"
    """And gradients by market and model, and the split by spot, vol and time."""


class Executor(StrEnum):
    """Where a run's blocks are computed."""

    LOCAL = "local"
    """One after the other, in the process itself."""
    RAY = "ray"
    """On the workers of a Ray cluster."""


class Status(StrEnum):
    """Where an account stands."""

    OK = "OK"
    MARGIN_CALL = "MARGIN_CALL"
    LIQUIDATION = "LIQUIDATION"
    WITHHELD = "WITHHELD"


class Greek(StrEnum):
    """Sensitivities reported, with the units of the output table."""

    DELTA = "delta"
    GAMMA = "gamma"
    VEGA = "vega"
    THETA = "theta"
    RHO = "rho"


class PriceModel(StrEnum):
    """How a price moves, and what its options' volatilities mean; see `pmvar.market.price_scale`."""

    LOGNORMAL = "lognormal"
    SHIFTED = "shifted"
    BACHELIER = "bachelier"


def factor_name(underlying: str, kind: FactorKind, point: str = "") -> str:
    """`BTC:spot` or `USD:rate.1y`, the only join between model and market."""
    return f"{underlying}:{kind}.{point}" if point else f"{underlying}:{kind}"
