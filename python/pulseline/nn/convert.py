"""to_analog: a digital model whose matrices move onto crossbars."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ..arrays import refuse_twin_arrays
from ..configs import Crossbar
from ..devices import Device
from ..errors import ConfigError
from ..identity import Identity, identify
from .linear import AnalogLinear
from .tile_ids import tile_ids


def _refuse_traced(model: nn.Module) -> None:
    """torch's traced pipelines bypass a cell's backward and update without a word."""
    from torch.fx import GraphModule

    for name, module in model.named_modules():
        if isinstance(module, GraphModule):
            raise ConfigError(
                f"module {name or 'model'!r} is a traced graph, which bypasses analog updates; "
                "convert the original module and cut it with pulseline.pipeline"
            )


def _refuse_computed(model: nn.Module) -> None:
    """A weight that torch computes before every forward pass has no place on a crossbar."""
    for name, layer in model.named_modules():
        if type(layer) is nn.Linear and "weight" not in layer._parameters:
            raise ConfigError(
                f"the weight of {name or 'model'!r} is computed from others (pruning, weight_norm, "
                "spectral_norm); make it a parameter first, as prune.remove does"
            )


def _numbers(model: nn.Module) -> dict[int, int]:
    """Id of every digital parameter that holds matrices -> number of its first."""
    held = dict(model.named_parameters())
    return {id(held[name]): first for name, first, _ in tile_ids(model) if name in held}


def _layers(model: nn.Module) -> list[tuple[nn.Linear, int]]:
    """Every nn.Linear in module order with the number of its matrix, each checked."""
    order = [m for m in model.modules() if type(m) is nn.Linear]
    if not order:
        raise ConfigError("model has no nn.Linear; give a model with at least one")
    numbers, found = _numbers(model), {}
    for layer in order:
        weight = layer.weight
        if weight.dtype is not torch.float32 or weight.device.type != "cpu":
            raise ConfigError(
                f"a weight of {layer} is {weight.dtype} on {weight.device}; "
                "convert a float32 model on the CPU"
            )
        if id(weight) in found:
            raise ConfigError(f"{layer} shares its weight with another; share the layer instead")
        found[id(weight)] = numbers[id(weight)]
    return list(zip(order, found.values(), strict=True))


def _check_state(module: nn.Module, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Before anything is loaded: every layer finds its part."""
    for name, layer in module.named_modules():
        if isinstance(layer, AnalogLinear):
            layer.check_state(state, f"{prefix}{name}." if name else prefix)


def _slots(model: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Linear]]:
    """(parent, attribute, layer) of every nn.Linear in module order; a shared one each time."""
    for parent in list(model.modules()):
        for name, child in list(parent._modules.items()):
            if type(child) is nn.Linear:
                yield parent, name, child


def to_analog(
    model: nn.Module,
    crossbar: Crossbar | Device | None = None,
    *,
    seed: int | None = None,
    **settings: Any,
) -> nn.Module:
    """A copy of ``model`` in which every ``nn.Linear`` is an :class:`AnalogLinear`.

    Weights are programmed (clipped to each crosspoint's bounds), biases stay digital. ``tile_id``
    is the number of the matrix in the digital model (:func:`pulseline.nn.tile_ids`), whatever stays
    digital and whatever is cut later, so that a model draws the same devices on one stage or on
    many. Subclasses of nn.Linear stay digital: what owns them (nn.MultiheadAttention) reads their
    weights itself. If a layer cannot take its part of a state_dict, nothing is loaded.

    Args:
        model: float32, on the CPU.
        crossbar: of all layers, or a device.
        settings: fields of the crossbar by name, see :class:`pulseline.Crossbar`.
        seed: of all layers: a request for certain devices, the same ones when asked again, which a
            state_dict must then be of. None: the next of the process, see
            :func:`pulseline.manual_seed`; a state_dict's identities are then taken over.

    Raises:
        ConfigError: there is no nn.Linear, a weight is not float32, is no parameter or belongs to
            two layers, the model was traced, or an analog layer of it has a new one's devices.
    """
    _refuse_traced(model)
    _refuse_computed(model)
    holder = nn.ModuleList([copy.deepcopy(model)])
    order = _layers(holder)
    crossbar = Crossbar.of(crossbar, **settings)
    requested = () if seed is None else ("seed", "tile_id")
    seed = identify(seed).seed
    made: dict[int, AnalogLinear] = {}
    for layer, number in order:
        analog = AnalogLinear(
            layer.in_features,
            layer.out_features,
            layer.bias is not None,
            crossbar,
            seed=Identity(seed, number, requested=requested),
        )
        analog.cell.program(layer.weight.data)
        if layer.bias is not None and analog.bias is not None:
            analog.bias.data.copy_(layer.bias.data)
        analog.cell.requires_grad_(layer.weight.requires_grad)
        if layer.bias is not None and analog.bias is not None:
            analog.bias.requires_grad_(layer.bias.requires_grad)
        analog.train(layer.training)
        made[id(layer)] = analog
    for parent, name, layer in _slots(holder):
        parent._modules[name] = made[id(layer)]
    converted = holder[0]
    refuse_twin_arrays((f"layer {name}", p) for name, p in converted.named_parameters())
    converted.register_load_state_dict_pre_hook(_check_state)
    return converted
