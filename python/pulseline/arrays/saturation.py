"""Pulse trains that saturate, said once.

A line whose probability would be above 1 fires in every slot and no more: what arrives falls short
of ``lr d x^T``. With update management that begins where ``lr max|x| max|d|`` exceeds
``desired_bl`` steps of the device.
"""

from __future__ import annotations

import warnings

from ..configs import Crossbar

__all__ = ["Saturation"]

SHARE = 0.01  # of the trains
SAMPLES = 64  # at least, so that one odd sample of a long run is none of them


class Saturation:
    """What an array has seen of it since it last looked; see :meth:`add`."""

    def __init__(self) -> None:
        self._lines, self._since, self._said = 0, 0, False

    def add(self, lines: int, samples: int, width: int, crossbar: Crossbar, lr: float) -> None:
        """Count saturated lines; warn, once, if they are more than 1 % of all.

        Args:
            lines: that saturated in an update. samples: updated so far, these included.
            width: lines of a sample. crossbar: of the array. lr: learning rate of the update.
        """
        if self._said:
            return
        if samples < self._since:  # it began again: another identity, or an older state
            self._lines, self._since = 0, 0
        self._lines += lines
        seen = samples - self._since
        if seen < SAMPLES:
            return
        share, self._lines, self._since = self._lines / (seen * width), 0, samples
        if share <= SHARE:
            return
        self._said = True
        warnings.warn(
            f"more than 1 % of the pulse trains saturate at lr {lr:g}, so that updates fall short "
            f"of lr d x^T; use a smaller lr, an UpdateConfig with desired_bl above "
            f"{crossbar.update.desired_bl}, or a device of larger steps",
            stacklevel=2,
        )
