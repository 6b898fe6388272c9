"""PendingGradient: the gradient of an array, kept as the pairs that will pulse it.

``G = sum over samples of d x^T``, in the units of the layer. Whoever reads it (norms, histograms,
copies) gets the numbers of the dense matrix; whoever multiplies it by a number scales the errors d,
which is what reaches the crossbar; anything else that would write it is refused, since pulses could
not follow.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NoReturn

import torch
from torch import Tensor

from ..errors import ConfigError
from ..torch_private import no_torch_function, tree_iter, tree_map, without_storage
from .form import Form
from .patches import Patches, outer_sum

__all__ = ["GradientView", "Pairs", "PendingGradient", "refuse_gradient"]

Pairs = list[tuple[Any, Tensor]]  # x is a Tensor, or Patches

_SCALED = {"mul": 1, "div": -1, "true_divide": -1}  # power of the factor
_SUMS = {"add": 1, "sub": -1}
_SAME = ("detach", "alias")


class PendingGradient(Tensor):
    """``sum of d x^T`` of pairs (x, d); see the module.

    Attributes:
        pairs: the very list that a cell keeps pending, or one of its own.
        shape: of the parameter. form: in which it shows the (rows, cols) matrix; None: as it is.
    """

    pairs: Pairs
    form: Form | None
    __torch_function__ = no_torch_function

    @staticmethod
    def __new__(
        cls, pairs: Pairs, shape: torch.Size, device: torch.device, form: Form | None = None
    ) -> PendingGradient:
        made: PendingGradient = without_storage(cls, shape, device)
        made.pairs, made.form = pairs, form
        return made

    def __init__(self, *_: Any) -> None:
        pass

    def _like(self, pairs: Pairs) -> PendingGradient:
        return PendingGradient(pairs, self.shape, self.device, self.form)

    def dense(self) -> Tensor:
        """The matrix."""
        if not self.pairs:
            return torch.zeros(self.shape, dtype=torch.float32, device=self.device)
        if self.form is None:
            x, d = (torch.cat([pair[n] for pair in self.pairs]) for n in (0, 1))
            return d.T @ x
        (x, d), *others = self.pairs
        total = outer_sum(x, d, self.form.blocks)
        for x, d in others:
            total += outer_sum(x, d, self.form.blocks)
        return self.form.seen(total)

    def scaled(self, factor: float | Tensor) -> Pairs:
        """The pairs of the gradient times a number."""
        return [(x, d * factor) for x, d in self.pairs]

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        name = func.overloadpacket.__name__
        first = args[0] if args else None
        if isinstance(first, PendingGradient):
            done = first._own(name, args[1:], kwargs)
            if done is not NotImplemented:
                return done
        elif name.startswith("_foreach") and name.endswith("_"):
            if _each(name, args):
                return None
        elif name == "_amp_foreach_non_finite_check_and_unscale_":
            return _unscale(*args)
        return _as_matrices(func, args, kwargs)

    def _own(self, name: str, rest: Any, kwargs: Any) -> Any:
        """What keeps pairs; NotImplemented: this is not it."""
        if name in _SAME:
            return self._like(self.pairs)
        if name == "clone":
            return self._like(list(self.pairs))
        if name == "new_empty_strided" and tuple(rest[0]) == self.shape:
            return self._like([])  # autograd copies into it a gradient that somebody keeps
        if name == "copy_" and isinstance(rest[0], PendingGradient):
            self.pairs[:] = rest[0].pairs
            return self
        if name == "neg":
            return self._like(self.scaled(-1.0))
        if name == "zero_":
            self.pairs.clear()
            return self
        base = name.rstrip("_")
        if base in _SCALED and not kwargs and (factor := _number(rest[0])) is not None:
            pairs = self.scaled(factor if _SCALED[base] > 0 else 1 / factor)
        elif base in _SUMS and isinstance(rest[0], PendingGradient):
            alpha = _SUMS[base] * kwargs.get("alpha", 1)
            pairs = [*self.pairs, *(rest[0].pairs if alpha == 1 else rest[0].scaled(alpha))]
        else:
            return NotImplemented
        if base == name:
            return self._like(pairs)
        self.pairs[:] = pairs
        return self

    # Python reads and writes these without an operator.

    @property
    def data(self) -> Tensor:
        """The same pairs."""
        return self._like(self.pairs)

    @data.setter
    def data(self, value: Tensor) -> None:
        refuse_gradient("data")

    def numpy(self, *, force: bool = False) -> Any:
        """The matrix as a numpy array: a copy that cannot be written."""
        return _read_only(self.dense().numpy(force=force))

    def __dlpack__(self, **options: Any) -> Any:
        """A capsule of a copy."""
        return self.dense().__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        """Where it is."""
        return self.dense().__dlpack_device__()

    def data_ptr(self) -> int:
        """Refuse: there is no matrix in memory."""
        refuse_gradient("data_ptr")

    def share_memory_(self) -> Any:
        """Refuse: there is no matrix in memory."""
        refuse_gradient("share_memory_")

    def apply_(self, *_: Any) -> Any:
        """Refuse: pulses could not follow."""
        refuse_gradient("apply_")

    def map_(self, *_: Any) -> Any:
        """Refuse: pulses could not follow."""
        refuse_gradient("map_")

    def tolist(self) -> Any:
        """The matrix as nested lists."""
        return self.dense().tolist()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"{self.dense()!r} of {len(self.pairs)} pending pairs"

    def __deepcopy__(self, _: Any) -> PendingGradient:
        return self._like([(_clone(x), d.clone()) for x, d in self.pairs])

    def __reduce_ex__(self, _: Any) -> Any:
        return PendingGradient, (self.pairs, self.shape, self.device, self.form)


def _clone(x: Tensor | Patches) -> Tensor | Patches:
    return x.apply(torch.clone) if isinstance(x, Patches) else x.clone()


class GradientView(Tensor):
    """A part of a pending gradient, or another shape of it: values that cannot be written.

    Attributes:
        numbers: they.
    """

    numbers: Tensor
    __torch_function__ = no_torch_function

    @staticmethod
    def __new__(cls, values: Tensor) -> GradientView:
        made: GradientView = without_storage(cls, values.shape, values.device)
        made.numbers = values
        return made

    def __init__(self, *_: Any) -> None:
        pass

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        kwargs = kwargs or {}
        for argument, value in zip(func._schema.arguments, args, strict=False):
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written and any(isinstance(leaf, GradientView) for leaf in tree_iter(value)):
                refuse_gradient(func.overloadpacket.__name__)
        return _as_matrices(func, args, kwargs, written=True)

    def numpy(self, *, force: bool = False) -> Any:
        """The values as a numpy array that cannot be written."""
        return _read_only(self.numbers.numpy(force=force))

    def tolist(self) -> Any:
        """The values as nested lists."""
        return self.numbers.tolist()

    def __dlpack__(self, **options: Any) -> Any:
        """A capsule of a copy."""
        return self.numbers.clone().__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        """Where it is."""
        return self.numbers.__dlpack_device__()

    def __repr__(self) -> str:  # type: ignore[override]
        return f"{self.numbers!r} of pending pairs"


def _read_only(array: Any) -> Any:
    array.flags.writeable = False
    return array


def _number(value: Any) -> float | Tensor | None:
    """A factor of the whole matrix, or None."""
    if isinstance(value, Tensor):
        plain = value.dim() == 0 and not isinstance(value, PendingGradient)
        return value if plain else None
    return value if isinstance(value, (int, float)) else None


def _each(name: str, args: Any) -> bool:
    """A scaling of many tensors, one by one; whether it was one of those."""
    single: Any = getattr(Tensor, name.removeprefix("_foreach_"), None)
    if name not in ("_foreach_mul_", "_foreach_div_", "_foreach_zero_"):
        return False
    for n, one in enumerate(args[0]):
        rest = [value[n] if isinstance(value, (list, tuple)) else value for value in args[1:]]
        single(one, *rest)
    return True


def _unscale(grads: Iterable[Tensor], found_inf: Tensor, inv_scale: Tensor) -> None:
    """What GradScaler does: divide by the scale, and look for what is not finite."""
    for grad in grads:
        matrix = grad.dense() if isinstance(grad, PendingGradient) else grad
        if not torch.isfinite(matrix).all():
            found_inf.fill_(1.0)
        grad.mul_(inv_scale)


def refuse_gradient(name: str) -> NoReturn:
    """Refuse what pulses cannot do with a gradient.

    Args:
        name: of torch's function.

    Raises:
        ConfigError: always.
    """
    raise ConfigError(
        f"torch's {name} would combine the gradient of a crossbar with its weight, overwrite it or "
        "send it, which pulses cannot follow; move analog layers by pulseline.optim.AnalogSGD, "
        "change gradients only by a factor (clip_grad_norm_, GradScaler), and take .grad.dense() "
        "for the values alone"
    )


def _plain(leaf: Any) -> Any:
    if isinstance(leaf, PendingGradient):
        return leaf.dense()
    return leaf.numbers if isinstance(leaf, GradientView) else leaf


def _as_matrices(func: Any, args: Any, kwargs: Any, written: bool = False) -> Any:
    """Any other function, of the dense matrices; writes are refused, views cannot be written.

    Args:
        written: what the function writes is somebody else's.
    """
    if (func._schema.is_mutable and not written) or func.namespace != "aten":  # others communicate
        refuse_gradient(func.overloadpacket.__name__)
    args, kwargs = tree_map(_plain, (args, kwargs))
    result = func(*args, **kwargs)
    returned = [one.alias_info for one in func._schema.returns]
    if any(alias is not None and not alias.is_write for alias in returned):
        return tree_map(lambda leaf: GradientView(leaf) if type(leaf) is Tensor else leaf, result)
    return result
