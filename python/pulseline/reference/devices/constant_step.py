"""ConstantStep in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from ...devices import ConstantStep
from .model import Crosspoints, Model

__all__ = ["MODEL", "constant_step"]


def constant_step(_device: ConstantStep, c: Crosspoints, _w: Tensor, up: Tensor) -> Tensor:
    """``s_up`` or ``-s_down``.

    Args:
        c: crosspoints. up: bool (rows, cols), the direction.
    """
    return torch.where(up, c.up, c.down)


MODEL = Model(constant_step)
