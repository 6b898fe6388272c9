"""What an array counts of its pulses, five numbers:

coincidences of pulsed updates and whole pulses of writes; slots and samples of these updates; slots
and columns of these writes. A column that is written takes as many slots as the crosspoint that
gets most.
"""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["tally"]


@torch.no_grad()
def tally(fired: Tensor | None, pulses: Tensor) -> None:
    """Count what is written to columns by whole pulses.

    Args:
        fired: an array's counts, in place; None: it counts nothing.
        pulses: (rows, columns) on each crosspoint, signed.
    """
    if fired is None or not pulses.numel():
        return
    count = pulses.abs()
    fired[0] += count.sum(dtype=torch.float64).long()
    fired[3] += count.amax(0).sum(dtype=torch.float64).long()
    fired[4] += pulses.shape[1]
