"""Arguments of the operators from a device and configurations, as a tile would pack them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pulseline import ops
from pulseline.configs import Mapping, ReadConfig, UpdateConfig
from pulseline.devices import Device, PulsedDevice
from pulseline.reference import rng


def counted(k: int, device: str = "cpu") -> Tensor:
    """Counters of an array that has read and pulsed k samples."""
    return torch.full((len(ops.Counters._fields),), k, dtype=torch.int64, device=device)


def update_arguments(
    weight: Tensor,
    stored: Sequence[Tensor] | None,
    x: Tensor,
    d: Tensor,
    device: Device,
    config: UpdateConfig,
    lr: float,
    key: tuple[int, int, int],
    fired: Tensor | None = None,
) -> tuple[Any, ...]:
    """Of ``update_``; key: seed, tile_id and number of the first sample."""
    seed, tile_id, k = key
    pulsed = isinstance(device, PulsedDevice)
    parameters = device.parameters() if isinstance(device, PulsedDevice) else ()
    fidelity = ops.FIDELITY_INDEX[config.resolve(device.default_fidelity)]
    return (
        weight,
        *(stored if pulsed and stored is not None else (None, None, None)),
        *(x, d, lr, device.name, parameters),
        ops.PulseSettings.of(config, device),
        *(counted(k), ops.UpdateKey(seed, tile_id, fidelity)),
        fired,
    )


def replaced(arguments: Sequence[Any], kind: type, **changes: Any) -> tuple[Any, ...]:
    """The arguments with other fields in their settings of one kind."""
    assert any(isinstance(a, kind) for a in arguments)
    return tuple(a._replace(**changes) if isinstance(a, kind) else a for a in arguments)


def redraw_arguments(
    visible: Tensor,
    hidden: Tensor,
    step: Tensor,
    x: Tensor,
    d: Tensor,
    device: PulsedDevice,
    config: UpdateConfig,
    lr: float,
    deviation: float,
    key: tuple[int, int, int],
) -> tuple[Any, ...]:
    """Of ``redraw_``, after such an update."""
    fidelity = ops.FIDELITY_INDEX[config.resolve(device.default_fidelity)]
    pulses = ops.PulseSettings.of(config, device)
    seed, tile_id, k = key
    whose = ops.UpdateKey(seed, tile_id, fidelity)
    return visible, hidden, step, x, d, lr, pulses, deviation, counted(k + len(x)), whose


def read_arguments(
    x: Tensor,
    weight: Tensor,
    config: ReadConfig,
    key: tuple[int, int, int],
    *,
    transposed: bool = False,
    mapping: Mapping = Mapping(),  # noqa: B008
    purpose: int = rng.FORWARD,
    out_scale: float = 1.0,
) -> tuple[Any, ...]:
    """Of ``read``; key: seed, tile_id and number of the first sample."""
    seed, tile_id, k = key
    whose = ops.ReadKey.of(seed, tile_id, purpose, mapping, transposed)
    return x, weight, transposed, counted(k), whose, ops.ReadSettings.of(config, out_scale)


def chain_arguments(
    x: Tensor,
    weight: Tensor,
    average: Tensor | None,
    config: ReadConfig,
    key: tuple[int, int, int],
    **options: Any,
) -> tuple[Any, ...]:
    """Of ``read_chain_``; only reads in training advance the average."""
    advance = options.get("purpose") != rng.EVALUATION
    read = read_arguments(x, weight, config, key, **options)
    return *read, ops.ConverterSettings.of(config, advance), average
