"""Tiki-Taka version 1 (Gokmen & Haensch 2020), written outside the package on ``pl.Cell`` alone.

Gradients pulse the fast array A (1); behind every so many samples one of its columns is read and
pulsed onto the slow array C (0), which is what the network reads. Columns take turns.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

import pulseline as pl


class TikiTaka(pl.Cell):
    """A (rows, cols) matrix on two arrays."""

    def __init__(
        self, rows: int, cols: int, crossbar: pl.Crossbar, identity: pl.Identity, every: int = 2
    ) -> None:
        super().__init__(rows, cols, crossbar, identity)
        self.add_array()
        self.every = every

    def settings(self) -> Mapping[str, Any]:
        return {"every": self.every}

    def pulse(self, x: Tensor, d: Tensor, lr: float, batch: Any = None) -> None:
        slow, fast = self.arrays
        for part, border in self.spans(len(x), self.every):
            fast.pulse(x[part], d[part], lr, batch)
            if border is None:
                continue
            if batch is not None:
                batch.launch()
            j = border % self.shape[1]
            one = torch.zeros_like(x[:1])
            one[0, j] = 1.0
            slow.pulse(one, -fast.column(j)[None], 0.5, batch)

    def transfers(self) -> int:
        return self.samples // self.every


def crossbar(every: int = 2, **settings: Any) -> pl.Crossbar:
    """Noisy soft bounds, default converters, physical tiles of three inputs."""
    return pl.Crossbar(
        pl.devices.SoftBounds(dw_min=0.005, write_noise_std=2.0),
        mapping=pl.configs.Mapping(tile_in=3),
        algorithm=partial(TikiTaka, every=every),
        **settings,
    )
