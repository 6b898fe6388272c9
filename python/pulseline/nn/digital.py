"""to_digital: an analog model as torch layers again, with the weights that its crossbars hold.

A class of analog modules says what it becomes by a method ``to_digital``, which returns the digital
module and leaves its own alone; those of this package by ``digital``, the class of it. Either has
to be the class's own: a subclass computes something else, which its parent's layer would not.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from ..cells import Cell
from ..errors import ConfigError
from .exchange import Exchange
from .report import forget

__all__ = ["to_digital"]


def to_digital(model: nn.Module, *, inplace: bool = False) -> nn.Module:
    """``model`` with torch layers in the place of analog ones, the inverse of ``to_analog``.

    Their weights are ``out_scale W`` as reads see it, write noise included; biases and all other
    modules are as they are, a shared layer stays shared, and ``state_dict`` has the keys and shapes
    of the model that was converted. What is pending is not taken over, as no gradient of a copy is.

    Args:
        model: with analog layers, or without.
        inplace: replace layers in ``model`` itself; one that is such a layer comes back new.

    Returns:
        The digital model.

    Raises:
        ConfigError: an analog module of a class that has no ``to_digital`` of its own. Nothing is
            changed.
    """
    found = _outermost(model)
    exchange = Exchange(model, inplace)
    for module in found:
        made: nn.Module = module.to_digital()
        made.train(module.training)
        exchange.put(module, made)
    model = exchange.finish()
    forget(model)
    return model


def _outermost(model: nn.Module) -> list[Any]:
    """Analog modules that lie in no other; refuses those that cannot go back."""
    found: list[Any] = []
    inside: set[int] = set()
    named = {name: module for name, module in model.named_modules() if name}
    for name in ("", *sorted(named, key=lambda name: name.count("."))):
        module = named[name] if name else model
        if id(module) in inside:
            continue
        if not {"to_digital", "digital"}.isdisjoint(vars(type(module))):
            found.append(module)
            inside |= set(map(id, module.modules()))
        elif hasattr(module, "to_digital") or any(isinstance(c, Cell) for c in module.children()):
            kind = type(module).__name__
            raise ConfigError(
                f"layer {name or 'model'!r} is a {kind}, which does not say what torch layer it "
                f"is; give {kind} a method to_digital that returns it"
            )
    return found
