"""AnalogLayer: what every layer with one matrix on a crossbar answers, whatever its product is."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ..arrays import AnalogParameter, Fixed, Settings, refuse_conversion
from ..arrays.meta import where
from ..cells import Cell
from ..cells.saving import check_entry
from ..errors import ConfigError
from ..identity import Identity
from ..ops import check_tensor, refuse_traced
from ..torch_private import functorch_is_active
from .compiled import compiled_read
from .function import read
from .parts import parameter

__all__ = ["AnalogLayer", "Guarded"]

_F32 = torch.float32
_HERE = (
    "the weight of an analog layer is on its crossbar: it cannot be replaced, computed from others "
    "(pruning, spectral_norm, parametrizations, functional_call) or shared with another module; "
    "write its values with layer.cell.program(values), or share the whole layer"
)
_TRACED = (
    "an analog layer is traced into a graph or transformed (torch.jit.trace, torch.export, "
    "torch.func)"
)


class Guarded(dict[str, Any]):
    """Parameters beside matrices; who looks for one of these would exchange it behind its crossbar.

    Args:
        names: of matrices. sentence: what is said then, of ``{name}``.
    """

    def __init__(self, names: Iterable[str] = ("weight",), sentence: str = _HERE) -> None:
        super().__init__()
        self.names, self.sentence = frozenset(names), sentence

    def refuse(self, name: object) -> None:
        """Say that a name is that of a matrix, if it is.

        Raises:
            ConfigError: it is.
        """
        if name in self.names:
            raise ConfigError(self.sentence.replace("{name}", str(name)))

    def __contains__(self, name: object) -> bool:
        self.refuse(name)
        return super().__contains__(name)

    def __missing__(self, name: str) -> Any:
        self.refuse(name)
        raise KeyError(name)

    def __delitem__(self, name: str) -> None:
        self.refuse(name)
        super().__delitem__(name)


class AnalogLayer(Settings, nn.Module):
    """A matrix on a crossbar and a digital bias; subclasses say what they multiply.

    Attributes:
        cell: what stands for the matrix.
        bias: one number per output, or None.
    """

    cell: Cell
    bias: nn.Parameter | None
    digital: ClassVar[type[nn.Module]]  # torch's layer, of a class that goes back to one
    crossbar = Fixed(lambda layer: layer.cell.crossbar, "build the layer anew")

    def _hold(self, cell: Cell, outputs: int, bias: bool) -> None:
        """Take over a new cell, with initial weights; the bias is zero."""
        self.__dict__["_parameters"] = Guarded()
        self.cell = cell
        with torch.inference_mode(False):
            zeros = torch.zeros(outputs, dtype=torch.float32, device=where())
            self.register_parameter("bias", nn.Parameter(zeros) if bias else None)
        self.cell.initialise()

    @property
    def identity(self) -> Identity:
        """Whose random numbers the layer draws."""
        return self.cell.identity

    @property
    def weight(self) -> AnalogParameter:
        """What is read, in the units of the layer; what is written to it is programmed."""
        return self.cell.weight

    @weight.setter
    def weight(self, value: object) -> None:
        if value is not self.cell.weight:
            raise ConfigError(_HERE)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """As torch's, but for the weight and what would compute it.

        Raises:
            ConfigError: another tensor comes as the weight, or the weight under another name.
        """
        if name == "weight" or isinstance(param, AnalogParameter):
            if name != "weight" or param is not self.cell.weight:
                raise ConfigError(_HERE)
            return
        super().register_parameter(name, param)

    def reset_parameters(self) -> None:
        """Draw weight and bias anew from torch's generator, as the layers of torch.nn do."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            inputs = math.prod(self.weight.shape[1:])
            bound = 1 / math.sqrt(inputs) if inputs else 0.0
            nn.init.uniform_(self.bias, -bound, bound)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """As torch's, with the layer behind its cell: so its weight comes before its bias."""
        found = list(super().named_modules(memo, prefix, remove_duplicate))
        yield from (*found[1:], *found[:1])

    def _input(self, x: Tensor) -> Tensor:
        """What a forward pass was given, refused where torch makes a graph of it."""
        if torch.compiler.is_exporting() or torch.jit.is_tracing():  # type: ignore[attr-defined]
            refuse_traced(_TRACED)
        check_tensor(x)
        if x.dtype is not _F32 and torch.is_autocast_enabled(x.device.type):
            return x.float()  # a crossbar has its own precision: its converters'
        return x

    def _product(self, x: Tensor, by: Any) -> Tensor:
        """The reads of a forward pass.

        Args:
            x: inputs. by: reads them: the cell, or what unfolds them for it.
        """
        training = self.training
        cell: Any = self._modules["cell"]
        if torch.compiler.is_compiling() and by is cell:
            return compiled_read(x, cell, training, cell.weight.shape[0])
        weight: Any = by.weight
        if getattr(weight, "cell", weight) is not cell:
            raise ConfigError(_HERE)
        try:
            return read(x, weight, by, training)
        except RuntimeError:
            if not functorch_is_active():  # which torch.func is
                raise
            refuse_traced(_TRACED)

    def _devices(self) -> str:
        """Device and identity, for repr."""
        one = self.cell.identity
        device = self.cell.crossbar.device.name
        return f"device={device}, seed={one.seed}, tile_id={one.tile_id}"

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        refuse_conversion(fn)
        super()._apply(fn, recurse)
        return self

    def train(self, mode: bool = True) -> Any:
        """Switch mode; entering evaluation restarts its draws."""
        if not mode:
            self.cell.begin_evaluation()
        super().train(mode)
        return self

    # ---- torch's layer, and states ----

    def shell(self) -> nn.Module:
        """Torch's layer on the meta device, of the same options."""
        raise NotImplementedError

    def to_digital(self) -> nn.Module:
        """Torch's layer that computes what this one would compute with perfect reads."""
        made = self.shell()
        made.weight = parameter(self.digital_weight(), self.weight.requires_grad)
        if self.bias is not None:
            made.bias = parameter(self.bias, self.bias.requires_grad)
        return made

    def digital_weight(self, weight: Tensor | None = None) -> Tensor:
        """The weight as torch's layer holds it.

        Args:
            weight: of torch's layer, for the matrix of the cell; None: the other way.
        """
        if weight is not None:
            return weight
        form, matrix = self.cell.array.form, self.cell.effective_weight()
        return matrix if form is None else form.torchs(matrix)

    def _is_digital(self, state: Mapping[str, Any], prefix: str) -> bool:
        """Whether a state_dict is of torch's layer."""
        return f"{prefix}weight" in state and f"{prefix}cell._extra_state" not in state

    def _take_digital(self, state: dict[str, Any], prefix: str) -> None:
        """Program the weight of torch's layer; the cell finds in the state what it then is."""
        weight = self.digital_weight(state.pop(f"{prefix}weight"))
        self.cell.program(weight.detach().to(self.weight.device))
        state.update(self.cell.state_dict(prefix=f"{prefix}cell."))

    def check_state(self, state: Mapping[str, Any], prefix: str = "", whole: bool = True) -> None:
        """Refuse entries of a state_dict that this layer cannot take over; changes nothing.

        Args:
            state: a state_dict. prefix: of this layer's names in it.
            whole: False: all entries may be absent. One of torch's layer is programmed.

        Raises:
            ConfigError: an entry is missing, misshapen, not finite, or of a cell of another
                configuration.
        """
        name = f"layer {prefix[:-1]}" if prefix else "layer"
        digital = self._is_digital(state, prefix)
        whole = whole or digital
        if self.bias is not None and f"{prefix}bias" in state:
            check_entry(f"{prefix}bias", state[f"{prefix}bias"], self.bias)
            whole = True
        elif self.bias is not None and (whole or f"{prefix}cell._extra_state" in state):
            raise ConfigError(
                f"state lacks {prefix}bias; load the whole state_dict() of an analog model, "
                "or convert a digital one with to_analog"
            )
        if digital:
            held: Any = self.shell().weight
            check_entry(f"{prefix}weight", state[f"{prefix}weight"], held)
        else:
            self.cell.check_state(state, f"{prefix}cell.", whole, name)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        self.check_state(state, prefix, whole=False)
        if self._is_digital(state, prefix):
            self._take_digital(state, prefix)
        super()._load_from_state_dict(state, prefix, *rest)
