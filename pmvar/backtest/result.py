"""What every test of this layer returns."""

from __future__ import annotations

from typing import NamedTuple


class Outcome(NamedTuple):
    """A statistic and the probability, under the hypothesis, of one as extreme."""

    statistic: float
    p_value: float
