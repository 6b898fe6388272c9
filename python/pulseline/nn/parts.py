"""Small things about torch modules: where they hang, and parameters of their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["FOREIGN", "parameter", "slots_of"]

# Beside the parameters of an analog module: attributes of its digital one that it does not take.
FOREIGN = "_pulseline_foreign"


def parameter(values: Tensor, requires_grad: bool) -> nn.Parameter:
    """A parameter of a torch layer: a copy.

    Args:
        values: of it. requires_grad: whether it is trained.
    """
    with torch.inference_mode(False):
        return nn.Parameter(values.detach().clone(), requires_grad)


def slots_of(model: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """Where each module of a model hangs: (parent, attribute)."""
    found: dict[int, list[tuple[nn.Module, str]]] = {}
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is not None:
                found.setdefault(id(child), []).append((parent, name))
    return found
