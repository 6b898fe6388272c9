"""What a model computes beside its weight matrices: names of torch's operations, while it runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from .torch_private import tree_iter

__all__ = ["watched"]

# What moves numbers or makes room for them, and computes none.
_MOVES = {"cat", "clone", "contiguous", "copy", "expand", "flatten", "reshape", "stack", "to"}
_MOVES |= {f"new_{kind}" for kind in ("zeros", "ones", "empty", "full")}
_MOVES |= {f"{kind}_like" for kind in ("zeros", "ones", "empty", "full")}


class _Watch(TorchFunctionMode):
    """Notes every operation that makes numbers from numbers, outside of ``depth`` layers."""

    def __init__(self) -> None:
        super().__init__()
        self.depth = 0
        self.names: dict[str, None] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        if not self.depth:
            name = getattr(func, "__name__", str(func))
            short = name.strip("_")
            if short not in _MOVES and _computes(name, [*args, *(kwargs or {}).values()], result):
                self.names[short] = None
        return result


def _tensors(value: Any) -> list[Tensor]:
    return [leaf for leaf in tree_iter(value) if isinstance(leaf, Tensor)]


def _computes(name: str, inputs: list[Any], result: Any) -> bool:
    """Whether there is a new tensor made of others, or an old one that changed."""
    given = {one.untyped_storage().data_ptr() for one in _tensors(inputs)}
    in_place = name.endswith("_") and not name.endswith("__")
    made = [one.untyped_storage().data_ptr() for one in _tensors(result)]
    return bool(given) and any(in_place or pointer not in given for pointer in made)


@contextmanager
def watched(
    modules: Iterable[nn.Module], apart: Callable[[nn.Module], bool]
) -> Iterator[dict[str, None]]:
    """Notes what runs beside some layers.

    Args:
        modules: that will run. apart: whether a layer in them is one of those.

    Yields:
        Names of the operations so far, in order, each once.
    """
    watch = _Watch()

    def enter(*_: Any) -> None:
        watch.depth += 1

    def leave(*_: Any) -> None:
        watch.depth -= 1

    layers = {layer for module in modules for layer in module.modules() if apart(layer)}
    hooks = [layer.register_forward_pre_hook(enter) for layer in layers]
    hooks += [layer.register_forward_hook(leave, always_call=True) for layer in layers]
    try:
        with watch:
            yield watch.names
    finally:
        for hook in hooks:
            hook.remove()
