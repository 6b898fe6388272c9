"""Composite: an analog counterpart of a torch module that holds several matrices.

Each matrix is an :class:`AnalogLinear` under a name of its own; all other parameters, options and
shapes are those of torch's module, which is built on the meta device and asked. So a digital
state_dict can be loaded, numbers of matrices are those of the digital model, and ``to_digital``
gives torch's module back.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from ..arrays.meta import where
from ..configs import Crossbar
from ..errors import ConfigError
from ..identity import Identity, identify
from .base import Guarded
from .linear import AnalogLinear
from .parts import FOREIGN, parameter
from .tile_ids import MATRICES, tile_ids

__all__ = ["Composite", "rename_digital"]

C = TypeVar("C", bound="Composite")
_F32 = torch.float32
_SETTINGS = tuple(one.name for one in fields(Crossbar))


class Composite(nn.Module):
    """Torch's module of class ``digital`` with its matrices on crossbars.

    Args:
        arguments, options: as torch's module takes them, but for its ``device`` and ``dtype``.
        crossbar: configuration of every matrix, or a device.
        seed, tile_id: of the first matrix, see :class:`pulseline.Array`; the next ones have the
            ``tile_id`` that follow, as the digital module's parameters do.
        options: also ``device``, ``io``, ``update``, ``mapping``, ``algorithm`` of the crossbars.

    Raises:
        ConfigError: a seed or id out of range, or an unknown setting. What torch refuses, it says.
    """

    digital: ClassVar[type[nn.Module]]
    names: ClassVar[tuple[str, ...]]  # of torch's arguments: attributes of either module
    aliases: ClassVar[tuple[str, ...]] = ()  # other names that torch has for matrices

    def __init__(
        self,
        *arguments: Any,
        crossbar: Any = None,
        seed: int | Identity | None = None,
        tile_id: int | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        settings = {name: options.pop(name) for name in _SETTINGS if name in options}
        shell = self.digital(*arguments, **options, device="meta", dtype=_F32)
        crossbar, first = Crossbar.of(crossbar, **settings), identify(seed, tile_id)
        numbers = {one.name: first.tile_id + one.first for one in tile_ids(shell)}
        self._build(shell, crossbar, {n: replace(first, tile_id=k) for n, k in numbers.items()})

    @property
    def matrices(self) -> dict[str, tuple[str, ...]]:
        """Parameters of torch's module that hold matrices -> layers that do, from the top down."""
        found: dict[str, tuple[str, ...]] = self.__dict__[MATRICES]
        return found

    @classmethod
    def layers_of(cls, name: str) -> tuple[str, ...]:
        """The layers that hold a parameter of torch's module; none: it stays digital."""
        raise NotImplementedError

    @classmethod
    def options_of(cls, module: Any) -> dict[str, Any]:
        """The arguments that torch's module, or its counterpart, was made with."""
        return {name: getattr(module, name) for name in cls.names}

    @classmethod
    def of(cls: type[C], module: Any, crossbar: Crossbar, identities: Mapping[str, Identity]) -> C:
        """The counterpart of a module of torch: what conversion registers.

        Args:
            module: stays as it is. crossbar: of all matrices.
            identities: of its parameters that hold matrices; of several, that of the first.
        """
        made = cls.__new__(cls)
        nn.Module.__init__(made)
        made._build(cls._shell(module), crossbar, identities)
        made._take(module)
        made.train(module.training)
        return made

    @classmethod
    def missing(cls, module: nn.Module) -> list[str]:
        """Matrices that are no parameters of a module of torch: computed, or shared inside it."""
        held = dict(module.named_parameters())
        return [name for name, _ in cls._shell(module).named_parameters() if name not in held]

    @classmethod
    def _shell(cls, module: Any) -> nn.Module:
        """A module of torch's without values."""
        return cls.digital(**cls.options_of(module), device="meta", dtype=_F32)

    def _build(
        self, shell: nn.Module, crossbar: Crossbar, identities: Mapping[str, Identity]
    ) -> None:
        for name in self.names:
            if hasattr(shell, name):
                setattr(self, name, getattr(shell, name))
        self.__dict__[MATRICES] = {}
        self.__dict__[FOREIGN] = frozenset(vars(shell))
        known = dict(shell.named_parameters())
        for name, held in known.items():
            layers = self.layers_of(name)
            if layers:
                self.matrices[name] = layers
            for n, layer in enumerate(layers):
                rows, one = held.shape[0] // len(layers), identities[name]
                identity = replace(one, tile_id=one.tile_id + n)
                bias = f"{layer}.bias" in known
                made = AnalogLinear(held.shape[1], rows, bias, crossbar, seed=identity)
                self.add_module(layer, made)
            if not layers and "." not in name:
                zeros = torch.zeros(held.shape, dtype=_F32, device=where())
                self.register_parameter(name, nn.Parameter(zeros))
        self._guard()

    def _guard(self) -> None:
        layers = next(iter(self.matrices.values()))
        guarded = Guarded(
            (*self.matrices, *self.aliases),
            f"{{name}} of {type(self).__name__} is on crossbars: it cannot be replaced, computed "
            "from others (pruning, weight_norm, parametrizations) or shared; write its values with "
            f"{layers[0]}.cell.program(values)",
        )
        guarded.update(self._parameters)
        self.__dict__["_parameters"] = guarded

    # ---- values ----

    def _take(self, module: nn.Module) -> None:
        """Program the matrices of torch's module, copy its other parameters."""
        with torch.no_grad():
            for name, value in module.named_parameters():
                layers = self.matrices.get(name, ())
                for layer, part in zip(layers, value.chunk(max(len(layers), 1)), strict=False):
                    cell = self._linear(layer).cell
                    cell.program(part.detach().to(cell.weight.device))
                    cell.requires_grad_(value.requires_grad)
                if not layers:
                    own = self.get_parameter(name)
                    own.copy_(value)
                    own.requires_grad_(value.requires_grad)

    def _linear(self, name: str) -> AnalogLinear:
        layer = self._modules[name]
        assert isinstance(layer, AnalogLinear)
        return layer

    def reset_parameters(self) -> None:
        """Draw all parameters anew from torch's generator, as torch's module does."""
        trained = {name: p.requires_grad for name, p in self.named_parameters()}
        self._take(self.digital(**self.options_of(self), device="cpu", dtype=_F32))
        for name, p in self.named_parameters():
            p.requires_grad_(trained[name])

    def to_digital(self) -> nn.Module:
        """Torch's module that computes what this one would compute with perfect reads."""
        made = self._shell(self)
        for name, _ in list(made.named_parameters()):
            layers = [self._linear(layer) for layer in self.matrices.get(name, ())]
            if layers:
                value = torch.cat([layer.cell.effective_weight() for layer in layers])
                trained = any(layer.weight.requires_grad for layer in layers)
            else:
                value = self.get_parameter(name)
                trained = value.requires_grad
            owner, _, last = name.rpartition(".")
            setattr(made.get_submodule(owner), last, parameter(value, trained))
        return made

    def rename_digital(self, state: dict[str, Any], prefix: str) -> None:
        """Give the matrices of torch's module in a state_dict the names of their layers.

        Args:
            state: a state_dict, of torch's module or of this one; changed in place.
            prefix: of this module's names in it.

        Raises:
            ConfigError: a matrix has another shape; nothing is changed.
        """
        for name, layers in self.matrices.items():
            value = state.get(prefix + name)
            if not isinstance(value, Tensor):
                continue
            rows = sum(self._linear(one).out_features for one in layers)
            shape = (rows, self._linear(layers[0]).in_features)
            if value.shape != shape:
                raise ConfigError(
                    f"state holds {prefix}{name} of shape {tuple(value.shape)}; this layer holds "
                    f"{shape}"
                )
            del state[prefix + name]
            for layer, part in zip(layers, value.chunk(len(layers)), strict=True):
                state[f"{prefix}{layer}.weight"] = part

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *rest: Any) -> None:
        self.rename_digital(state, prefix)
        super()._load_from_state_dict(state, prefix, *rest)

    # ---- torch's names ----

    def __getattr__(self, name: str) -> Any:
        layers = self.__dict__.get(MATRICES, {}).get(name)
        if layers is None:
            return super().__getattr__(name)
        return self._linear(layers[0]).weight if len(layers) == 1 else None

    def __setattr__(self, name: str, value: Any) -> None:
        self._refuse_matrix(name)
        super().__setattr__(name, value)

    def register_parameter(self, name: str, param: nn.Parameter | None) -> None:
        """As torch's, but for matrices, which are on crossbars.

        Raises:
            ConfigError: the name is that of a matrix.
        """
        self._refuse_matrix(name)
        super().register_parameter(name, param)

    def _refuse_matrix(self, name: str) -> None:
        guarded = self.__dict__.get("_parameters")
        if isinstance(guarded, Guarded):
            guarded.refuse(name)

    def named_modules(
        self, memo: set[nn.Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, nn.Module]]:
        """As torch's, in the order of the matrices of torch's module: itself behind its own."""
        found = list(super().named_modules(memo, prefix, remove_duplicate))
        if not found or found[0][1] is not self:
            yield from found
            return
        start = len(prefix) + 1 if prefix else 0
        behind = {layers[0] for name, layers in self.matrices.items() if "." in name}
        first: list[tuple[str, nn.Module]] = []
        last: list[tuple[str, nn.Module]] = []  # torch's children come behind its own parameters
        for one in found[1:]:
            (last if one[0][start:].partition(".")[0] in behind else first).append(one)
        yield from (*first, found[0], *last)


def rename_digital(model: nn.Module, state: dict[str, Any], prefix: str) -> None:
    """See :meth:`Composite.rename_digital`, of all in a model.

    Args:
        model: its modules. state: a state_dict, changed in place. prefix: of its names.
    """
    for name, module in model.named_modules():
        if isinstance(module, Composite):
            module.rename_digital(state, f"{prefix}{name}." if name else prefix)
