"""Small things about torch modules: parameters of their own, and what they do not take over."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["FOREIGN", "parameter"]

# Beside the parameters of an analog module: attributes of its digital one that it does not take.
FOREIGN = "_pulseline_foreign"


def parameter(values: Tensor, requires_grad: bool) -> nn.Parameter:
    """A parameter of a torch layer: a copy.

    Args:
        values: of it. requires_grad: whether it is trained.
    """
    with torch.inference_mode(False):
        return nn.Parameter(values.detach().clone(), requires_grad)
