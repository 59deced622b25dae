"""What every test of this layer returns."""

from __future__ import annotations

from typing import NamedTuple


class TestResult(NamedTuple):
    """A statistic and the probability, under the hypothesis, of one as extreme."""

    # pytest collects classes named Test… that have no constructor of their own; this is none of its.
    __test__ = False

    statistic: float
    p_value: float
