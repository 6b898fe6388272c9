"""Weighted: a module with one analog weight, and everything by which torch may exchange it.

Torch sees the parameter ``weight``. The package itself works on ``held``, the same memory without a
count of writes, so that a write counted by the parameter came from outside: it is programmed at the
next touch (:meth:`Weighted.settle`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from .. import ops
from ..errors import ConfigError
from .form import Form
from .parameter import AnalogParameter, held, refuse_weight_write, replace_held

__all__ = ["Fixed", "Settings", "Weighted", "refuse_conversion"]

_F32 = torch.float32


class Fixed:
    """A setting that devices were drawn with: it can be read, and assigning it says what to do.

    Args:
        get: its value, of the object.
        remedy: what to do instead.
    """

    def __init__(self, get: Callable[[Any], Any], remedy: str) -> None:
        self._get, self._remedy, self._name = get, remedy, ""

    def __set_name__(self, _: type, name: str) -> None:
        self._name = name

    def __get__(self, one: Any, _: type | None = None) -> Any:
        return self if one is None else self._get(one)

    def __set__(self, one: Any, value: object) -> None:
        raise ConfigError(
            f"{self._name} of {type(one).__name__} is assigned {value!r:.60}, which would change "
            f"nothing that is computed; {self._remedy}"
        )


_BUILD = "build it anew with this setting and program it with the old effective_weight()"
_TAKE = "pulseline.nn.reconfigure(model, {}=...) exchanges it"
_SEED = "call reseed() for other devices, or build it anew"


class Settings:
    """What an array, a cell or a layer was made with, to be read; see :class:`Fixed`."""

    _made_with: Any  # a Crossbar
    crossbar = Fixed(lambda one: one._made_with, _BUILD)
    device = Fixed(lambda one: one.crossbar.device, _BUILD)
    io = Fixed(lambda one: one.crossbar.io, _TAKE.format("io"))
    mapping = Fixed(lambda one: one.crossbar.mapping, _TAKE.format("mapping"))
    update_config = Fixed(lambda one: one.crossbar.update, _TAKE.format("update"))
    seed = Fixed(lambda one: one.identity.seed, _SEED)
    tile_id = Fixed(lambda one: one.identity.tile_id, _SEED)


def refuse_conversion(fn: Callable[[Tensor], Tensor]) -> None:
    """Refuse to make another type of a crossbar's float32.

    Args:
        fn: what ``_apply`` does to each tensor.

    Raises:
        ConfigError: it makes another type.
    """
    made = fn(torch.zeros(1, dtype=_F32, device="cpu")).dtype
    if made is not _F32:
        kind = str(made).removeprefix("torch.")
        raise ConfigError(
            f"an analog layer is converted to {kind}, but a crossbar is simulated in float32; "
            "convert the digital parts alone, or use torch.autocast"
        )


class Weighted(Settings, nn.Module):
    """A module whose parameter ``weight`` is on devices.

    Attributes:
        held: (rows, cols) normalised weights, what reads and pulses use.
        form: in which the parameter shows them; None: as they are.
    """

    held: Tensor
    out_scale: float
    form: Form | None = None
    _watched: Tensor  # the same memory, with the count of writes that the parameter has
    _seen: int  # this count when nothing was left to take over
    _residents: dict[bool, ops.Resident]  # operators on what is read, and on what is pulsed

    def _hold(self, weight: AnalogParameter) -> None:
        self._parameters["weight"] = weight
        weight.array = self
        self._watch()

    def take_form(self, form: Form) -> None:
        """Show the matrix in another shape.

        Args:
            form: of as many numbers.
        """
        self.form = form
        self._exchange(self.held)

    def seen(self, matrix: Tensor) -> Tensor:
        """A (rows, cols) matrix in the shape of the parameter: a view."""
        return matrix if self.form is None else self.form.seen(matrix)

    def as_matrix(self, values: Tensor) -> Tensor:
        """Values in the shape of the parameter as (rows, cols); others as they are."""
        if self.form is None or values.shape != self.form.shape:
            return values
        return self.form.matrix(values)

    def _watch(self) -> None:
        weight = self._parameters["weight"]
        assert weight is not None
        with torch.inference_mode(False):
            watched = held(weight)
            self.__dict__.update(
                held=self.as_matrix(watched.data),
                _watched=watched,
                _seen=watched._version,
                _residents={},
            )

    def settle(self) -> None:
        """Program what somebody wrote into the parameter since the last touch.

        Raises:
            ConfigError: it is not finite, or an update is pending, which would be of other weights.
        """
        if self._watched._version == self._seen or self.held.is_meta:
            return
        self.program(self.held * self.out_scale)  # type: ignore[operator]
        cell = getattr(self._parameters["weight"], "cell", None)
        if cell is not None and cell.waits:
            cell.forget()  # it was the update of other weights
            refuse_weight_write(self)

    def effective_weight(self) -> Tensor:
        """``out_scale W``: a copy in the units of the layer."""
        self.settle()
        return self.held * self.out_scale

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """As torch's, but for the weight, which stays the one it is.

        Raises:
            ConfigError: the name is "weight".
        """
        if name == "weight":
            raise ConfigError(
                "the weight of a crossbar is assigned; it cannot be another tensor, nor shared: "
                "write its values with program(), or with weight.copy_() under torch.no_grad()"
            )
        super().register_parameter(name, param)

    # ---- copies, moves, states ----

    def __getstate__(self) -> dict[str, Any]:
        self.settle()
        state = self.__dict__.copy()
        for name in ("held", "_watched", "_seen", "_residents"):
            del state[name]
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._hold(self._parameters["weight"])  # type: ignore[arg-type]

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        refuse_conversion(fn)
        self.settle()
        weight = self._parameters.pop("weight")
        assert weight is not None
        try:
            super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        finally:
            self._parameters["weight"] = weight
        with torch.inference_mode(False), torch.no_grad():
            self._exchange(fn(self.held))
        return self

    def _exchange(self, values: Tensor) -> None:
        """Hold another matrix; as in torch, the parameter stays if tensors of its kind can."""
        weight: Any = self._parameters["weight"]
        values = self.seen(values)
        try:
            replace_held(weight, values)
        except RuntimeError:
            made = AnalogParameter(values, weight.requires_grad)
            made.cell, made.read = weight.cell, weight.read
            self._hold(made)
        self._watch()

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        self.settle()
        weight = self._parameters.pop("weight")
        assert weight is not None
        destination[prefix + "weight"] = weight if keep_vars else held(weight)
        try:
            super()._save_to_state_dict(destination, prefix, keep_vars)
        finally:
            self._parameters["weight"] = weight

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        name = prefix + "weight"
        value = state.get(name, self.held)
        if not (isinstance(value, Tensor) and value.is_floating_point()):
            what = getattr(value, "dtype", type(value).__name__)
            raise ConfigError(f"{name} is {what} in the state; load a float32 tensor")
        weight = self._parameters.pop("weight")
        assert weight is not None
        try:
            others = {key: value for key, value in state.items() if key != name}
            super()._load_from_state_dict(others, prefix, *rest)
        finally:
            self._parameters["weight"] = weight
        if name in state:
            value = self.as_matrix(held(state[name]).to(_F32))
            with torch.inference_mode(False), torch.no_grad():
                if self.held.is_meta:
                    self._exchange(value.clone(memory_format=torch.contiguous_format))
                else:
                    self.held.copy_(value)
                    self._watch()
            self.clip()  # type: ignore[operator]
        elif rest[1]:
            rest[2].append(name)
