"""AnalogParameter: what torch sees of an array, and the one number that an optimizer gives it.

It holds normalised conductances and answers in the units of the layer, ``out_scale`` times them:

- a function of torch that reads it gets these values; products do not bypass the reads of the
  crossbar but are refused,
- what writes it programs the array: clipped to its bounds, also where they are hidden,
- its gradient is what is pending (:mod:`.gradient`), and nobody else's may be.
"""

from __future__ import annotations

import copy
import re
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from ..torch_private import (
    PlainTensors,
    grad_in_slot,
    grad_slot,
    not_compiled,
    set_data,
    tree_iter,
    tree_map,
)
from .gradient import PendingGradient, refuse_gradient

__all__ = [
    "AnalogParameter",
    "LayerValues",
    "check_lr",
    "collect",
    "held",
    "refuse_dense",
    "refuse_weight_write",
    "replace_held",
]

_LARGEST = torch.finfo(torch.float32).max
_PRODUCTS = re.compile(
    "linear|bilinear|matmul|__matmul__|__rmatmul__|mm|bmm|mv|inner|addmm_?|addmv_?|baddbmm|addbmm|"
    "einsum|tensordot|kron|chain_matmul|multi_dot|embedding|embedding_bag|conv[123]d|"
    "conv_transpose[123]d|scaled_dot_product_attention|multi_head_attention_forward|"
    "_transformer_encoder_layer_fwd|_native_multi_head_attention|"
    "t|T|mT|H|mH|transpose|adjoint|permute|swapaxes|swapdims|movedim|moveaxis"
)
_HOOKS = ("register_hook", "register_post_accumulate_grad_hook")
_VIEWS = frozenset(("T", "H", "mT", "mH", "real"))  # properties that are values
_NO_WRITE = ("requires_grad_", "share_memory_")
# About the parameter itself, whatever its values.
_ITSELF = frozenset((*_HOOKS, *_NO_WRITE, "grad", "backward", "__hash__", "is_shared"))
_LEAF = ("expand_as", "view_as")  # of itself: the way to the node that accumulates its gradient


class AnalogParameter(nn.Parameter):
    """The weight of an array, kept in normalised conductance units; see the module.

    Where a copy goes, its cell goes too: an optimizer that is copied or pickled still finds it.

    Attributes:
        cell: whose matrix it is; None for an array alone.
        array: which holds it.
        read: whether it is what the cell reads, and so what pending pairs are about.
    """

    cell: Any = None  # its Cell, which lies above and sets it
    array: Any = None  # its Array, which sets it
    read = False  # whether it is what its cell reads, which pairs are about

    @classmethod
    def __torch_function__(cls, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__
        if name in ("__get__", "__set__"):
            name = func.__self__.__name__
            if name not in _VIEWS:
                with PlainTensors():
                    return func(*args, **(kwargs or {}))
        return _answer(func, name, args, kwargs or {})

    # ---- properties that torch's own code uses ----

    @property
    @not_compiled
    def grad(self) -> Tensor | None:
        """What is pending, as the matrix it means in the units of the layer; None: nothing."""
        pending = collect(self)
        if pending is None:
            with PlainTensors():
                found: Tensor | None = grad_in_slot(self)
            return found
        self.array.settle()
        return PendingGradient(pending, self.shape, self.device, self.array.form)

    @grad.setter
    @not_compiled
    def grad(self, value: Tensor | None) -> None:
        if value is not None and not isinstance(value, PendingGradient):
            raise ConfigError(
                "a gradient is assigned to the weight of a crossbar, which only moves by the pairs "
                "of its own backward passes; multiply .grad by a factor or set it to None"
            )
        with PlainTensors():
            self.forget()
        if self.read and value is not None:
            self.cell.forget(value.pairs)

    @grad.deleter
    def grad(self) -> None:
        self.grad = None

    @not_compiled
    def forget(self) -> None:
        """Drop what is pending; in the scope of PlainTensors."""
        array = self.array
        if array is not None and array._watched._version != array._seen:
            array.settle()
        if grad_in_slot(self) is not None:
            grad_slot.__set__(self, None)
        if self.read:
            self.cell.forget()

    @property
    def data(self) -> Tensor:
        """Its values in the units of the layer; what is written to them is programmed."""
        return self.detach()

    @data.setter
    def data(self, value: Tensor) -> None:
        if self.cell is not None and self.cell.waits:
            refuse_weight_write(self.array)
        self.array.program(value.detach())

    # ---- copies ----

    def __reduce_ex__(self, protocol: Any) -> Any:
        return (
            AnalogParameter,
            (held(self), self.requires_grad),
            {"cell": self.cell, "read": self.read},
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.cell, self.read = state["cell"], state["read"]

    def __deepcopy__(self, memo: dict[int, Any]) -> AnalogParameter:
        if id(self) not in memo:
            copied = memo[id(self)] = AnalogParameter(held(self).clone(), self.requires_grad)
            copied.cell, copied.read = copy.deepcopy(self.cell, memo), self.read
        found: AnalogParameter = memo[id(self)]
        return found


class LayerValues(Tensor):
    """Values of an array whose units differ from its layer's: written back when they are written.

    Attributes:
        array: whose. whole: the matrix that this is, or is a view of.
    """

    array: Any
    whole: Tensor

    def __reduce_ex__(self, protocol: Any) -> Any:
        plain: Any = self.as_subclass(Tensor)
        return plain.__reduce_ex__(protocol)

    def __deepcopy__(self, _: Any) -> Tensor:
        return self.as_subclass(Tensor).clone()

    @classmethod
    def of(cls, array: Any, whole: Tensor, part: Tensor) -> LayerValues:
        """A view of a matrix in the units of its layer.

        Args:
            array: that holds the matrix. whole: the matrix. part: the view.
        """
        made: LayerValues = part.as_subclass(cls)
        made.array, made.whole = array, whole
        return made

    @classmethod
    def __torch_function__(cls, func: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        own = [t for t in tree_iter((args, kwargs)) if isinstance(t, LayerValues)]
        with PlainTensors():
            for one in own:
                _refresh(one)
            before = [one.whole._version for one in own]
            result = func(*args, **kwargs)
            for one, version in zip(own, before, strict=True):
                if one.whole._version != version:
                    one.array.program(one.whole.as_subclass(Tensor))
                    _refresh(one)
            return _wrapped(own[0].array, own[0].whole, result)


def _refresh(one: LayerValues) -> None:
    with torch.no_grad():
        one.whole.copy_(one.array.seen(one.array.effective_weight()))


def _wrapped(array: Any, whole: Tensor, result: Any) -> Any:
    """What is a view of the matrix in a result is one whose writes are programmed."""
    memory = whole.untyped_storage().data_ptr()

    def wrapped(leaf: Any) -> Any:
        if (type(leaf) is not LayerValues and type(leaf) is not Tensor) or leaf.requires_grad:
            return leaf
        plain = leaf.as_subclass(Tensor)
        ours = plain.untyped_storage().data_ptr() == memory and whole.numel()
        return LayerValues.of(array, whole, plain) if ours else plain

    return tree_map(wrapped, result)


@not_compiled
def held(p: Tensor) -> Tensor:
    """What a parameter holds, not what it answers: the same memory, the same count of writes."""
    with PlainTensors():
        return torch.Tensor.detach(p)


@not_compiled
def replace_held(p: Tensor, values: Tensor) -> None:
    """Have a parameter hold another tensor, wherever that is.

    Args:
        p: the parameter. values: of its shape.
    """
    with PlainTensors():
        set_data(p, values)


@not_compiled
def collect(p: AnalogParameter) -> Any:
    """The pairs pending for a parameter, those that autograd has put in its ``grad`` included.

    Returns:
        None: there are none.
    """
    with PlainTensors():
        found = grad_in_slot(p)
        if isinstance(found, PendingGradient):
            grad_slot.__set__(p, None)
            p.cell.pending.extend(found.pairs)
    if not p.read or not p.cell.pending:
        return None
    return p.cell.pending


@not_compiled
def refuse_dense(p: AnalogParameter) -> None:
    """Refuse a matrix that autograd has put into ``grad``; pairs go where they belong.

    Raises:
        ConfigError: ``grad`` is no pair of input and error.
    """
    with PlainTensors():
        found = grad_in_slot(p)
    if found is None:
        return
    if isinstance(found, PendingGradient):
        collect(p)
        return
    raise ConfigError(
        f"a gradient that is no pair of input and error has reached the weight of matrix "
        f"{p.array.identity.tile_id}, by a function of the weight itself (a penalty) or by "
        "DistributedDataParallel; a crossbar is moved only by backward passes through its layer: "
        "take the weight's .detach(), or leave it out of what synchronises"
    )


def refuse_weight_write(array: Any) -> None:
    """Refuse to move a weight whose update is pending.

    Args:
        array: of the weight.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(
        f"the weight of matrix {array.identity.tile_id} is written while an update is pending for "
        "it; optimizers other than pulseline.optim.AnalogSGD cannot move a crossbar, and other "
        "writes come after its step() or zero_grad()"
    )


def _writes(name: str) -> bool:
    in_place = name.endswith("_") and not name.endswith("__") and name not in _NO_WRITE
    operator = name.startswith("__i") and name not in ("__index__", "__int__", "__invert__")
    return in_place or operator or name == "__setitem__"


def _answer(func: Any, name: str, args: Any, kwargs: Any) -> Any:
    """A function of torch, with weights in the units of their layers."""
    if _PRODUCTS.fullmatch(name):
        raise ConfigError(
            f"{name} of the weight of an analog layer is on the way to a product that bypasses its "
            "reads; call the layer, keep it digital, or take weight.detach() for the values"
        )
    leaves = list(tree_iter((args, kwargs)))
    own = [p for p in leaves if isinstance(p, AnalogParameter)]
    if any(isinstance(leaf, PendingGradient) for leaf in leaves):
        refuse_gradient(name)
    for p in own:
        if name in _HOOKS and p.cell is not None:
            p.cell.hooked = True
        p.array.settle()
        if p.cell is not None and p.cell.waits and _writes(name):
            refuse_weight_write(p.array)
    scaled = {id(p): p for p in own if p.array.out_scale != 1.0}
    if name in _LEAF and args[0] is args[-1]:
        scaled = {}
    if scaled and name not in _ITSELF:
        return _answer_scaled(func, args, kwargs, scaled)
    with PlainTensors():
        result = func(*args, **kwargs)
    for p in own:
        p.array.settle()
    return result


def _answer_scaled(func: Any, args: Any, kwargs: Any, scaled: dict[int, AnalogParameter]) -> Any:
    grad = torch.is_grad_enabled()
    with PlainTensors(), torch.inference_mode(False), torch.set_grad_enabled(grad):
        values = {key: p * p.array.out_scale for key, p in scaled.items()}
        before = {key: (value._version, value.grad_fn) for key, value in values.items()}
    args, kwargs = tree_map(lambda leaf: values.get(id(leaf), leaf), (args, kwargs))
    with PlainTensors():
        result = func(*args, **kwargs)
        for key, p in scaled.items():
            value = values[key]
            if value._version != before[key][0]:
                if value.grad_fn is not before[key][1]:
                    raise ConfigError(
                        "a weight that requires grad is written; do that under torch.no_grad()"
                    )
                p.array.program(value.detach())
            if result is value:
                return p
            result = _wrapped(p.array, value.detach(), result)
    return result


def check_lr(lr: float | Tensor) -> float:
    """The learning rate as a number.

    Raises:
        ConfigError: it is negative, or not finite as float32.
    """
    if not hasattr(lr, "__float__") or not 0 <= float(lr) <= _LARGEST:
        raise ConfigError(f"lr is {lr}; use a finite learning rate >= 0")
    return float(lr)
