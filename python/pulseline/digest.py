"""One number for a training state: sha256 over a state_dict, in order of full names.

Two runs with the same digest hold the same bits in every weight, digital parameter and counter.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from .errors import ConfigError

__all__ = ["digest"]


def digest(state: Mapping[str, object]) -> str:
    """Hex sha256 over name, dtype, shape and bytes of every tensor.

    Args:
        state: a ``state_dict()``; nested mappings (what a module's ``get_extra_state`` returns) and
            lists count with their joined names, plain numbers and strings by their type and value.

    Returns:
        64 hexadecimal digits.

    Raises:
        ConfigError: an entry of another type.
    """
    total = hashlib.sha256()
    for name, value in sorted(_flatten("", state).items()):
        if isinstance(value, Tensor):
            tensor = value.detach().cpu().contiguous()
            head = f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|"
            body = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
        else:
            head, body = f"{name}|{type(value).__name__}|", repr(value).encode()
        total.update(head.encode())
        total.update(body)
    return total.hexdigest()


def _flatten(prefix: str, state: Mapping[Any, object]) -> dict[str, object]:
    flat: dict[str, object] = {}
    for key, value in state.items():
        name = f"{prefix}{key}"
        if isinstance(value, (list, tuple)):
            value = dict(enumerate(value))
        if isinstance(value, Mapping):
            flat.update(_flatten(f"{name}.", value))
        elif isinstance(value, (Tensor, bool, int, float, str)) or value is None:
            flat[name] = value
        else:
            raise ConfigError(
                f"state entry {name} is a {type(value).__name__}; use tensors, numbers and "
                "strings, which have a digest"
            )
    return flat
