"""Pulse trains that saturate, said once.

A line whose probability would be above 1 fires in every slot and no more: what arrives falls short
of ``lr d x^T``. With update management that begins where ``lr max|x| max|d|`` exceeds
``desired_bl`` steps of the device.
"""

from __future__ import annotations

import math
import warnings

from ..configs import Crossbar

__all__ = ["SAMPLES", "SHARE", "Saturation"]

SHARE = 0.01  # of the trains
SAMPLES = 64  # at least, so that one odd sample of a long run is none of them


class Saturation:
    """What an array has seen of it since it last looked.

    Args:
        width: lines of a sample, rows and columns.
    """

    def __init__(self, width: int) -> None:
        self._width, self._lines, self._since = width, 0, 0
        self._enough: float = SHARE * SAMPLES * width  # infinite once it is said

    def suspect(self, lines: int) -> bool:
        """Count lines that saturated in an update; whether :meth:`judge` should look at it."""
        self._lines += lines
        return self._lines > self._enough

    def judge(self, samples: int, crossbar: Crossbar, lr: float) -> None:
        """Warn, once, if more than 1 % of the lines saturate since the last look.

        Args:
            samples: updated so far. crossbar: of the array. lr: learning rate of the last update.
        """
        seen = samples - self._since
        if 0 <= seen < SAMPLES:
            return
        # A counter that fell began again: with another identity, or an older state.
        share = self._lines / ((seen if seen > 0 else max(samples, SAMPLES)) * self._width)
        self._lines, self._since = 0, samples
        if share <= SHARE:
            return
        self._enough = math.inf
        warnings.warn(
            f"more than 1 % of the pulse trains saturate at lr {lr:g}, so that updates fall short "
            f"of lr d x^T; use a smaller lr, an UpdateConfig with desired_bl above "
            f"{crossbar.update.desired_bl}, or a device of larger steps",
            stacklevel=2,
        )
