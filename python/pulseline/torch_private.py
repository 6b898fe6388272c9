"""Every name of torch that begins with an underscore and that the package relies on.

Each has a test of what is expected of it (``tests/test_torch_private.py``), so that a torch which
changes one says so there first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_iter, tree_map

__all__ = [
    "PlainTensors",
    "dispatch_modes",
    "functorch_is_active",
    "grad_in_slot",
    "grad_slot",
    "gradient_node",
    "has_effects",
    "no_torch_function",
    "not_compiled",
    "not_compiled_within",
    "plain_apply",
    "run_backward",
    "set_data",
    "trained",
    "tree_iter",
    "tree_map",
    "will_accumulate",
    "without_storage",
]

# In this scope an AnalogParameter is any tensor, and shows what it holds.
PlainTensors: Any = torch._C.DisableTorchFunctionSubclass

dispatch_modes: Callable[[], int] = torch._C._len_torch_dispatch_stack
functorch_is_active: Callable[[], bool] = torch._C._are_functorch_transforms_active

# Where autograd puts gradients: used in the scope of PlainTensors.
grad_slot: Any = torch._C.TensorBase.grad
grad_in_slot: Callable[[Tensor], Tensor | None] = grad_slot.__get__
_data: Any = torch._C.TensorBase.data
set_data: Callable[[Tensor, Tensor], None] = _data.__set__
no_torch_function: Any = torch._C._disabled_torch_function_impl

_will_execute = torch._C._will_engine_execute_node

_frames: Any = torch._C._dynamo.eval_frame
_DEFAULT, _SKIP = _frames._FrameAction.DEFAULT, _frames._FrameAction.SKIP
F = TypeVar("F", bound=Callable[..., Any])


def not_compiled(function: F) -> F:
    """A function that torch.compile leaves as it is: what it is called with need not be guarded.

    Without the import of torch's compiler that ``torch.compiler.disable`` brings, nor its wrapper.
    """
    return _not_compiled(function, _DEFAULT)


def not_compiled_within(function: F) -> F:
    """As :func:`not_compiled`, with whatever the function calls; graphs break before it."""
    function._torchdynamo_disable = True  # type: ignore[attr-defined]
    return _not_compiled(function, _SKIP)


def _not_compiled(function: F, called: Any) -> F:
    strategy = _frames._FrameExecStrategy(_SKIP, called)
    _frames.set_code_exec_strategy(function.__code__, strategy)
    return function


def will_accumulate(node: Any) -> bool | None:
    """Whether the backward pass that is running adds to the gradient of a leaf.

    Args:
        node: the leaf's, one of ``ctx.next_functions``.

    Returns:
        None: ``torch.autograd.grad`` asked for the leaf's gradient, which it returns to its caller.
    """
    try:
        return _will_execute(node)
    except RuntimeError:  # it says that a leaf is asked for
        return None


def plain_apply(function: type[torch.autograd.Function]) -> Callable[..., Any]:
    """``function.apply`` without its look at torch.func: 2 us of the 15 of a small read.

    Transforms of torch.func are not seen: what it is called with has no memory under them.

    Args:
        function: of autograd, with context and inputs in one ``forward``.
    """
    above: Any = super(torch.autograd.Function, function)
    apply: Callable[..., Any] = above.apply
    return apply


def gradient_node(leaf: Tensor) -> Any:
    """The node that accumulates the gradient of a leaf."""
    return torch.autograd.graph.get_gradient_edge(leaf).node


def has_effects(operator: Any) -> None:
    """Have torch.compile keep every call of an operator, and their order.

    Args:
        operator: an overload, ``torch.ops.namespace.name.default``.
    """
    from torch._higher_order_ops.effects import _EffectType, _register_effectful_op

    _register_effectful_op(operator, _EffectType.ORDERED)


_engine: Any = torch.autograd.Variable._execution_engine


def run_backward(outs: tuple[Tensor, ...], grads: tuple[Tensor, ...]) -> None:
    """The backward pass of tensors, without the 16 us that torch.autograd.backward checks for.

    A stage's B on a small layer takes about 40 us in all; who calls compares shapes himself.

    Args:
        outs: with a graph. grads: dL/d(out), of their shapes.
    """
    _engine.run_backward(
        outs, grads, False, False, (), allow_unreachable=True, accumulate_grad=True
    )


def trained(node: Any) -> bool:
    """Whether a leaf requires grad now, when the backward pass comes to it.

    Args:
        node: the leaf's, one of ``ctx.next_functions``.
    """
    with PlainTensors():
        leaf = getattr(node, "variable", None)  # in between others may stand: views, copies
        return leaf is None or bool(leaf.requires_grad)


def without_storage(kind: type[Tensor], shape: torch.Size, device: torch.device) -> Any:
    """A float32 tensor of a subclass that computes its values itself.

    Args:
        kind: the subclass. shape, device: of the tensor.
    """
    return torch.Tensor._make_wrapper_subclass(kind, shape, dtype=torch.float32, device=device)
