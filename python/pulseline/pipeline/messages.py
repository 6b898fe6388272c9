"""Messages of several tensors between stages: skips, masks, positions, tuples and dicts.

A stage passes on a tensor, or tuples, lists and dicts of tensors and plain values. One floating
tensor travels as it is; everything else as a :class:`Bundle`: the tensors in order, the form around
them, and which of them take gradients (those that require one where they come from; integers,
booleans and masks only go forward). The error of a bundle is a bundle of gradients, one for each
tensor that takes one and was used.

Between processes a bundle is one tensor of bytes::

    length of the head (int64) | head, JSON: dtypes, shapes, form, gradients | each tensor's bytes

with every part padded to 16 bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..errors import ConfigError
from ..ops import is_finite

__all__ = [
    "Bundle",
    "Message",
    "changed",
    "check_samples",
    "decode",
    "encode",
    "errors",
    "is_usable",
    "pack",
    "packed",
    "split",
    "tensors_of",
]

_PAD = 16
_PLAIN = (bool, int, float, str, type(None))
_GROUPS = (tuple, list, dict)


class Bundle(NamedTuple):
    """Several tensors of one micro-batch.

    Attributes:
        tensors: in the order of the form; detached and contiguous.
        form: what stands around them, see :func:`pack`; None: they are gradients.
        takes: numbers of tensors, of the output that they belong to, that take gradients.
    """

    tensors: tuple[Tensor, ...]
    form: Any
    takes: tuple[int, ...]

    def open(self) -> tuple[Any, tuple[Tensor, ...]]:
        """What the stage is given.

        Returns:
            The value of the form, and its tensors that collect gradients from here on.
        """
        for n in self.takes:
            self.tensors[n].requires_grad_()
        return _value(self.form, self.tensors), tuple(self.tensors[n] for n in self.takes)


# What a link carries.
Message = Tensor | Bundle


def packed(value: object) -> bool:
    """Whether an output travels as a bundle: everything but one floating tensor does."""
    return not isinstance(value, Tensor) or not value.is_floating_point()


def pack(value: object) -> tuple[Bundle, tuple[Tensor, ...]]:
    """The message of an output.

    Args:
        value: tensors, plain values (numbers, strings, None, dtypes, devices), or tuples, lists and
            dicts of them with strings as keys.

    Returns:
        The message, and the output's tensors that take gradients.

    Raises:
        ConfigError: something else is in it.
    """
    found: list[Tensor] = []
    form = _form(value, found)
    takes = tuple(n for n, one in enumerate(found) if one.requires_grad)
    tensors = tuple(one.detach().contiguous() for one in found)
    return Bundle(tensors, form, takes), tuple(found[n] for n in takes)


def errors(leaves: Sequence[Tensor]) -> Bundle:
    """The message upwards: gradients of what came down.

    Args:
        leaves: as :meth:`Bundle.open` gave them; one that was not used has no gradient.
    """
    grads = [(n, leaf.grad) for n, leaf in enumerate(leaves)]
    used = [(n, grad) for n, grad in grads if grad is not None]
    return Bundle(tuple(grad for _, grad in used), None, tuple(n for n, _ in used))


def _form(value: object, found: list[Tensor]) -> Any:
    """A value as JSON; tensors go to ``found``.

    A tensor is [0], a plain value [1, it], groups are [2, ..] (tuple), [3, ..] (list) and
    [4, keys, ..], a dtype [5, name], a device [6, name].
    """
    if isinstance(value, Tensor):
        found.append(value)
        return [0]
    if isinstance(value, _PLAIN):
        return [1, value]
    if isinstance(value, torch.dtype):
        return [5, str(value).removeprefix("torch.")]
    if isinstance(value, torch.device):
        return [6, str(value)]
    if type(value) in (tuple, torch.Size) or type(value).__module__ == "torch.return_types":
        return [2, *(_form(one, found) for one in value)]  # type: ignore[attr-defined]
    if type(value) is list:
        return [3, *(_form(one, found) for one in value)]
    if isinstance(value, dict) and all(isinstance(key, str) for key in value):
        return [4, [*value], *(_form(one, found) for one in value.values())]
    raise ConfigError(
        f"a stage passes on a {type(value).__qualname__}; use tensors and plain values, or tuples, "
        "lists and dicts (with strings as keys) of them"
    )


def _value(form: Any, tensors: Sequence[Tensor]) -> Any:
    return _built(form, iter(tensors), tensors[0].device if tensors else torch.device("cpu"))


def _built(form: Any, tensors: Iterator[Tensor], device: torch.device) -> Any:
    kind, *rest = form
    if kind == 0:
        return next(tensors)
    if kind == 1:
        return rest[0]
    if kind == 5:
        return getattr(torch, rest[0])
    if kind == 6:  # of its kind: another process may compute on another one
        return device if torch.device(rest[0]).type == device.type else torch.device(rest[0])
    if kind == 4:
        keys, *values = rest
        return {k: _built(v, tensors, device) for k, v in zip(keys, values, strict=True)}
    values = [_built(one, tensors, device) for one in rest]
    return values if kind == 3 else tuple(values)


# ---- bytes ----


def encode(bundle: Bundle) -> Tensor:
    """A bundle as bytes, on the device of its first tensor."""
    kinds = [[str(one.dtype).removeprefix("torch."), *one.shape] for one in bundle.tensors]
    head = json.dumps([kinds, bundle.form, bundle.takes]).encode()
    head += b" " * (-(len(head) + 8) % _PAD)
    start = len(head).to_bytes(8, "little") + head
    parts = [torch.frombuffer(bytearray(start), dtype=torch.uint8)]
    for one in bundle.tensors:
        flat = one.detach().contiguous().reshape(-1).view(torch.uint8)
        parts.append(flat)
        if rest := -len(flat) % _PAD:
            parts.append(flat.new_zeros(rest))
    device = bundle.tensors[0].device if bundle.tensors else None
    return torch.cat([part.to(device) for part in parts])


def decode(data: Tensor) -> Bundle:
    """What :func:`encode` was given; its tensors lie in ``data``."""
    length = int(data[:8].cpu().view(torch.int64))
    kinds, form, takes = json.loads(bytes(data[8 : 8 + length].cpu().numpy()))
    start, tensors = 8 + length, []
    for name, *shape in kinds:
        dtype = getattr(torch, name)
        size = math.prod(shape) * dtype.itemsize
        # .data: a version counter of its own, since one buffer holds them all
        tensors.append(data[start : start + size].view(dtype).reshape(shape).data)
        start += size + -size % _PAD
    return Bundle(tuple(tensors), form, tuple(takes))


# ---- what a pipeline is fed ----


def tensors_of(value: object) -> list[Tensor]:
    """The tensors of an input, or of an output, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = [*value.values()]
    if isinstance(value, (tuple, list)):
        return [tensor for one in value for tensor in tensors_of(one)]
    return []


def changed(value: Any, change: Any) -> Any:
    """A value with its tensors changed.

    Args:
        value: tensors and other things in tuples, lists and dicts. change: of a tensor.
    """
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, dict):
        return {key: changed(one, change) for key, one in value.items()}
    if isinstance(value, (tuple, list)):
        return type(value)(changed(one, change) for one in value)
    return value


def split(value: Any, size: int) -> list[Any]:
    """An input cut along its samples.

    Args:
        value: see :func:`check_samples`. size: samples of each part, the last one's rest.
    """
    if isinstance(value, Tensor):
        return list(torch.split(value, size))
    if isinstance(value, dict):
        parts = zip(*(split(one, size) for one in value.values()), strict=True)
        return [dict(zip(value, part, strict=True)) for part in parts]
    return [type(value)(part) for part in zip(*(split(one, size) for one in value), strict=True)]


def is_usable(value: object) -> bool:
    """No NaN and no infinity; beside other tensors -inf is that of a mask."""
    if isinstance(value, Tensor):
        return is_finite(value)
    floats = [one for one in tensors_of(value) if one.is_floating_point()]
    return not any(bool((one.isnan() | (one == math.inf)).any()) for one in floats)


def check_samples(name: str, value: object) -> int:
    """Refuse an input that holds something else than tensors of equally many samples.

    Args:
        name: for the message. value: a tensor, or tuples, lists and dicts of tensors.

    Returns:
        How many samples.

    Raises:
        ConfigError: which entry it is, and what is wrong.
    """
    if isinstance(value, Tensor):
        if value.dim() == 0:
            raise ConfigError(f"{name} has shape (); use (samples, ...)")
        return len(value)
    if type(value) not in _GROUPS or not value:
        raise ConfigError(
            f"{name} is a {type(value).__name__}; stack the samples to a tensor, or to a tuple or "
            "dict of tensors"
        )
    entries = value.items() if isinstance(value, dict) else enumerate(value)  # type: ignore[arg-type]
    counts = {f"{name}[{key!r}]": check_samples(f"{name}[{key!r}]", one) for key, one in entries}
    if len({*counts.values()}) > 1:
        told = ", ".join(f"{where} {count}" for where, count in counts.items())
        raise ConfigError(f"samples are {told}; use as many in each, in the first dimension")
    return next(iter(counts.values()))
