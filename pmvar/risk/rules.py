"""MarginRules: how a tail measure becomes initial and maintenance margin."""

from __future__ import annotations

from dataclasses import dataclass

from pmvar.errors import UsageError
from pmvar.types import ApcTool, Liquidity, Measure, StressOf

HALF = 0.5
"""Of the tail: where the stress of dependence looks, 99.5% for 99%."""


@dataclass(frozen=True)
class MarginRules:
    """IM = multiplier · max(measure, floor), raised by the tools of `apc` (see `pmvar.risk.anti_procyclicality`), and
    add-ons; MM = maintenance_ratio · IM. Amounts in base currency.

    Add-ons: stress_share · max(stressed measure − measure, 0), and the cost of closing out (see `close_out`).
    """

    level: float = 0.99
    """Upper tail of the loss, in (0.5, 1)."""
    measure: Measure = Measure.EXPECTED_SHORTFALL
    multiplier: float = 1.0
    floor: float = 0.0
    maintenance_ratio: float = 0.8
    apc: tuple[ApcTool, ...] = ()
    """Tools against procyclicality that are switched on."""
    stress_share: float = 0.0
    stress_of: StressOf = StressOf.DEPENDENCE
    liquidity: Liquidity = Liquidity.NONE

    def __post_init__(self) -> None:
        sound = 0.5 < self.level < 1 and 0 < self.multiplier < 1e6 and 0 <= self.floor < 1e15
        if not (sound and 0 < self.maintenance_ratio <= 1 and 0 <= self.stress_share <= 1):
            raise UsageError(
                f"margin rules out of range: level {self.level} in (0.5, 1), multiplier {self.multiplier} in (0, 1e6), "
                f"floor {self.floor} ≥ 0, maintenance_ratio {self.maintenance_ratio} in (0, 1], "
                f"stress_share {self.stress_share} in [0, 1]"
            )

    @property
    def least_tail(self) -> float:
        """The smallest tail that a margin looks at."""
        halved = self.stress_share > 0 and self.stress_of is StressOf.DEPENDENCE
        return (1 - self.level) * (HALF if halved else 1.0)
