"""The rate of a fast array: fixed, or such that its trains are as long as asked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

__all__ = ["FastRate"]


class FastRate:
    """``lr_fast``, or with ``auto_scale`` (Rasch et al. 2024, eq. 15)::

        lr = lr_fast desired_bl dw_A / (M_x M_d),   M <- M + (1 - auto_momentum)(max|v| - M)

    once per sample, before the sample is pulsed; a maximum of 0 leaves its mean.

    Args:
        rule: with these fields.
    """

    def __init__(self, rule: Any) -> None:
        self._rule = rule

    def of(self, cell: Any, x: Tensor, d: Tensor, lr: float) -> tuple[Tensor, float]:
        """Errors and rate of an update.

        Args:
            cell: whose ``progress`` holds the means. x: (samples, cols). d: (samples, rows).
            lr: of the optimizer; 0: nothing moves.

        Returns:
            (d, rate), whose product with x the fast array is to move by.
        """
        rule = self._rule
        rate = rule.fast_rate(lr)
        if not rule.auto_scale:
            return d, rate / cell.array.out_scale
        rate *= cell.fast.update_config.desired_bl * cell.fast.device.granularity
        factors = [
            rate / (mx * md) if mx * md > 0 else 0.0
            for mx, md in zip(
                self._means(cell, "largest_x", x), self._means(cell, "largest_d", d), strict=True
            )
        ]
        scaled = torch.tensor(factors, dtype=torch.float32, device="cpu").to(d.device)
        return d * scaled[:, None], 1.0

    def _means(self, cell: Any, name: str, v: Tensor) -> list[float]:
        """The running mean of max|v| at every sample."""
        keep, now, found = self._rule.auto_momentum, cell.progress[name], []
        largest: list[float] = v.abs().amax(1).tolist() if v.numel() else [0.0] * len(v)
        for value in largest:
            if value > 0:
                now = now + (1 - keep) * (value - now) if now > 0 else value
            found.append(now)
        cell.progress[name] = now
        return found
