"""The exhaustible buffer: a quarter more than is calculated, which rising margins may use up."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float

BUFFER = 0.25
"""Of the calculated margin, when the buffer is full."""
REBUILD_DAYS = 30.0
"""Days in which an empty buffer fills up again: margins that rise more slowly than this leave it full."""


def buffered(
    calculated: Float[np.ndarray, "*account"],
    previous: Float[np.ndarray, "*account"],
    days: float | Float[np.ndarray, "*account"],
) -> Float[np.ndarray, "*account"]:
    """The margin that is charged where `calculated` is needed and `previous` was charged `days` ago (0: nothing was).

    clip(previous + ¼·calculated·days/REBUILD_DAYS, calculated, 1¼·calculated): a rise eats the buffer before it is
    charged, then the buffer fills again at its own pace; without a previous margin it is full.
    """
    full = (1 + BUFFER) * calculated
    carried = np.clip(previous + BUFFER * calculated * days / REBUILD_DAYS, calculated, full)
    return np.where(previous > 0, carried, full)
