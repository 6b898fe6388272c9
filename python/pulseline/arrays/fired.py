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
def tally(fired: Tensor | None, counted: Tensor | None, columns: int) -> None:
    """Add what was written to columns by whole pulses.

    Args:
        fired: an array's counts, in place; None: it counts nothing.
        counted: pulses and slots of the write. columns: how many.
    """
    if fired is not None and counted is not None:
        fired[0] += counted[0]
        fired[3] += counted[1]
        fired[4] += columns
