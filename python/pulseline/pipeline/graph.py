"""The graph of a model's modules, on which it is cut.

torch.fx follows the model's forward once, without data. Leaves are calls of the real objects: every
layer on crossbars, every layer of torch, every module without children, and those that cannot be
followed themselves (loops over data, branches on ``self.training`` or on values): these stay whole.
So no read, no pulse and no random number goes past its array.
"""

from __future__ import annotations

import inspect
import operator
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ..cells import Cell
from ..errors import ConfigError
from ..nn.base import AnalogLayer
from ..nn.composite import Composite

__all__ = ["BY_HAND", "Traced", "changes_in_place", "path_of", "trace"]

# In a node's meta: the modules whose forwards it stands in, the innermost last, the model left out.
_FORWARDS = "pulseline_forwards"
BY_HAND = "give the stages by hand: Pipeline([first, second, ..], optimizer=.., loss=..)"

# Makers of tensors: calls in the graph, made anew for every micro-batch.
_MAKERS = {
    *(torch.arange, torch.empty, torch.eye, torch.full, torch.linspace, torch.ones, torch.zeros),
    *(torch.normal, torch.rand, torch.randint, torch.randn, torch.randperm, torch.tensor),
    *(torch.tril_indices, torch.triu_indices),
}
_IN_PLACE = {
    *(operator.iadd, operator.isub, operator.imul, operator.itruediv, operator.ipow),
    *(operator.iand, operator.ior, operator.ixor, operator.setitem),
}


class _Whole(Exception):
    """A module that cannot be followed."""


class Traced:
    """A model's graph.

    Attributes:
        graph: of torch.fx, made here. model: whose it is.
        leaves: names of modules that are called, or that nothing calls, as a whole.
        constants: tensors that the model's forward holds by itself.
    """

    def __init__(
        self,
        graph: torch.fx.Graph,
        model: nn.Module,
        leaves: set[str],
        constants: dict[str, Tensor],
    ) -> None:
        self.graph, self.model, self.leaves, self.constants = graph, model, leaves, constants

    def value(self, target: str) -> Any:
        """What a node ``get_attr`` reads."""
        if target in self.constants:
            return self.constants[target]
        found: Any = self.model
        for name in target.split("."):
            found = getattr(found, name)
        return found


def _is_leaf(module: nn.Module) -> bool:
    """Whether the module is called as a whole, whatever it does."""
    if isinstance(module, (AnalogLayer, Composite, torch.jit.ScriptModule)):
        return True
    children = [child for child in module._modules.values() if child is not None]
    if not children or any(isinstance(child, Cell) for child in children):
        return True
    kind = type(module)
    if kind.get_extra_state is not nn.Module.get_extra_state or _hooked(module):
        return True
    containers = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
    return kind.__module__.startswith("torch.nn") and not isinstance(module, containers)


def _hooked(module: nn.Module) -> bool:
    runs = ("forward_hooks", "forward_pre_hooks", "backward_hooks", "backward_pre_hooks")
    states = ("state_dict_hooks", "load_state_dict_pre_hooks")
    return any(getattr(module, f"_{name}", None) for name in (*runs, *states))


class _Makers(TorchFunctionMode):
    """Makers of tensors become nodes too: those that draw must not draw once for all.

    In this thread, while torch.fx, too, has its hands on torch. As a mode it sees makers under any
    name; under torch's own also those that take a size from the graph, which torch would refuse.
    """

    def __init__(self, tracer: _Tracer) -> None:
        super().__init__()
        self.tracer = tracer

    def __enter__(self) -> Any:
        me = threading.get_ident()

        def node(function: Any, *args: Any, **kwargs: Any) -> Any:
            if threading.get_ident() != me:
                return function(*args, **kwargs)
            return self.tracer.create_proxy("call_function", function, args, kwargs)

        for function in _MAKERS:
            setattr(torch, function.__name__, partial(node, function))
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        for function in _MAKERS:
            setattr(torch, function.__name__, function)

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        try:
            made = func in _MAKERS
        except TypeError:  # some are not hashable
            made = False
        if made:
            return self.tracer.create_proxy("call_function", func, args, kwargs)
        return func(*args, **kwargs)


class _Tracer(torch.fx.Tracer):
    """Follows a model; modules in ``whole`` are called."""

    proxy_buffer_attributes = True

    def __init__(self, whole: set[str], inputs: Sequence[str]) -> None:
        super().__init__()
        self._kept, self._names = whole, inputs
        self._within: list[str] = []

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name in self._kept or _is_leaf(m)

    def create_args_for_root(self, root_fn: Any, is_module: bool, concrete_args: Any = None) -> Any:
        """Placeholders of the model's inputs; its other arguments keep their defaults."""

        def call(root: nn.Module, *given: Any) -> Any:
            return root_fn(root, **dict(zip(self._names, given, strict=True)))

        made = [self.create_proxy("placeholder", name, (), {}) for name in self._names]
        return call, [self.root, *made]

    def create_node(self, *args: Any, **kwargs: Any) -> torch.fx.Node:
        node = super().create_node(*args, **kwargs)
        # A leaf is called by the forward that it stands in: it decides nothing itself.
        node.meta[_FORWARDS] = tuple(self._within[: -1 if node.op == "call_module" else None])
        return node

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: Any, kwargs: dict[str, Any]
    ) -> Any:
        name = self.path_of_module(m)
        self._within.append(name)
        try:
            return super().call_module(m, forward, args, kwargs)
        except _Whole:
            raise
        except Exception as error:
            if self.is_leaf_module(m, name):
                raise
            raise _Whole(name) from error
        finally:
            self._within.pop()


def _inputs_of(model: nn.Module, inputs: Sequence[str] | None) -> list[str]:
    """Arguments of forward that a micro-batch brings."""
    known = inspect.signature(model.forward).parameters
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    names = [name for name, one in known.items() if one.kind not in kinds]
    needed = [name for name in names if known[name].default is inspect.Parameter.empty]
    if inputs is None:
        return needed or names[:1]
    chosen = list(inputs)
    if isinstance(inputs, str) or not {*needed} <= {*chosen} <= {*names}:
        raise ConfigError(
            f"inputs is {inputs!r}; use names of {type(model).__name__}.forward's arguments "
            f"({', '.join(names)}), with all that have no default"
        )
    return chosen


def trace(model: nn.Module, inputs: Sequence[str] | None = None) -> Traced:
    """Follow a model's forward.

    Args:
        model: stays as it is.
        inputs: arguments of its forward that a micro-batch brings; None: those without a default.

    Raises:
        ConfigError: its own forward cannot be followed; what to do instead is said.
    """
    names = _inputs_of(model, inputs)
    whole: set[str] = set()
    while True:
        try:
            traced = _trace(model, names, whole, training=True)
            other = _trace(model, names, whole, training=False)
        except _Whole as found:
            whole.add(str(found))
            continue
        if (differs := _difference(traced.graph, other.graph)) is None:
            return traced
        if not differs:
            raise ConfigError(
                f"model is a {type(model).__name__} whose own forward does something else in "
                f"training, so it cannot be cut; put that into a submodule, or {BY_HAND}"
            )
        whole.add(differs)


@contextmanager
def _in_mode(model: nn.Module, training: bool) -> Iterator[None]:
    """All modules in a mode, without a word to them: draws of evaluation stay where they are."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in modes:
            module.training = training
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def _trace(model: nn.Module, names: Sequence[str], whole: set[str], training: bool) -> Traced:
    before = set(vars(model))
    tracer = _Tracer(whole, names)
    try:
        with _in_mode(model, training), _Makers(tracer):
            graph = tracer.trace(model)
    except _Whole:
        raise
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ConfigError(
            f"model is a {type(model).__name__} whose forward cannot be followed without data, so "
            f"it cannot be cut ({reason.rstrip('.')}); {BY_HAND}"
        ) from error
    finally:
        made = set(vars(model)) - before
        constants = {name: model.__dict__.pop(name) for name in made}
    kept = {n for n, m in model.named_modules(remove_duplicate=False) if n in whole or _is_leaf(m)}
    return Traced(graph, model, kept, constants)


def _difference(one: torch.fx.Graph, other: torch.fx.Graph) -> str | None:
    """The module whose forward differs first; "": the model's own; None: none does."""
    first, second = list(one.nodes), list(other.nodes)
    for a, b in zip(first, second, strict=False):
        if _shown(a) != _shown(b):  # what both forwards stand in chose between them
            both = zip(a.meta[_FORWARDS], b.meta[_FORWARDS], strict=False)
            return _innermost([one for one, _ in takewhile(lambda pair: pair[0] == pair[1], both)])
    if len(first) != len(second):
        return ""
    return None


def _shown(node: torch.fx.Node) -> tuple[str, ...]:
    return (node.op, str(node.target), repr(node.args), repr(node.kwargs))


def path_of(node: torch.fx.Node) -> str:
    """The module that a node calls, or in whose forward it stands; "": the model.

    Args:
        node: of a traced graph.
    """
    if node.op == "call_module":
        return str(node.target)
    return _innermost(node.meta[_FORWARDS])


def _innermost(forwards: Sequence[str]) -> str:
    return forwards[-1] if forwards else ""


def changes_in_place(node: torch.fx.Node, traced: Traced) -> bool:
    """Whether a node writes into one of its inputs.

    Args:
        node: of the graph. traced: the graph.
    """
    if node.op == "call_module":
        return any(
            bool(getattr(part, "inplace", False))
            for part in traced.model.get_submodule(str(node.target)).modules()
        )
    if node.op == "call_method":
        name = str(node.target)
        return (name.endswith("_") and not name.endswith("__")) or name == "__setitem__"
    if node.op == "call_function":
        name = getattr(node.target, "__name__", "")
        written = name.endswith("_") and not name.endswith("__")
        return node.target in _IN_PLACE or bool(node.kwargs.get("inplace")) or written
    return False
