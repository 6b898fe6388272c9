"""Exchange: modules of a model for others, in place or in a copy of it."""

from __future__ import annotations

import copy
from typing import Any

from torch import nn

from .parts import FOREIGN

__all__ = ["Exchange"]


class Exchange:
    """Modules that get counterparts, wherever they hang in a model.

    In place each is exchanged at once, and nobody holds it any longer; else the model is copied at
    the end, without them.

    Args:
        model: that they are of. inplace: whether it is changed.
    """

    def __init__(self, model: nn.Module, inplace: bool) -> None:
        self._model = model
        self._slots = _slots_of(model) if inplace else None
        self._made: list[tuple[nn.Module, nn.Module]] = []

    def put(self, module: nn.Module, made: nn.Module) -> None:
        """Give a module its counterpart.

        Args:
            module: of the model. made: takes its place, its hooks and what others set on it.
        """
        if self._slots is None:
            self._made.append((module, made))
            return
        _hand_over(module, made, None)
        for parent, name in self._slots.get(id(module), ()):
            parent._modules[name] = made
        if module is self._model:
            self._model = made

    def finish(self) -> nn.Module:
        """The model with all counterparts."""
        if self._slots is None:
            memo: dict[int, Any] = {id(module): made for module, made in self._made}
            self._model = copy.deepcopy(self._model, memo)
            for module, made in self._made:
                _hand_over(module, made, memo)
        return self._model


def _slots_of(model: nn.Module) -> dict[int, list[tuple[nn.Module, str]]]:
    """Where each module of a model hangs: (parent, attribute)."""
    found: dict[int, list[tuple[nn.Module, str]]] = {}
    for parent in model.modules():
        for name, child in parent._modules.items():
            if child is not None:
                found.setdefault(id(child), []).append((parent, name))
    return found


_HOOKS = (
    "_forward_hooks",
    "_forward_hooks_with_kwargs",
    "_forward_hooks_always_called",
    "_forward_pre_hooks",
    "_forward_pre_hooks_with_kwargs",
    "_backward_hooks",
    "_backward_pre_hooks",
)


def _hand_over(module: nn.Module, analog: nn.Module, memo: dict[int, Any] | None) -> None:
    """Hooks of a module, and attributes that others set on it, to its counterpart.

    Args:
        module: that has them. analog: its counterpart.
        memo: of the deep copy that makes the model; None: the model is changed in place.
    """
    held, taken = vars(module), vars(analog)

    def copied(value: Any) -> Any:
        return value if memo is None else copy.deepcopy(value, memo)

    for name in _HOOKS:
        if held[name]:
            taken[name].update(copied(held[name]))
    if held["_is_full_backward_hook"] is not None:
        taken["_is_full_backward_hook"] = held["_is_full_backward_hook"]
    foreign = taken.get(FOREIGN, ())
    for name in held:
        if (
            name not in taken and name not in foreign and not name.startswith("_pulseline")
        ):  # ours, of what it was
            taken[name] = copied(held[name])
