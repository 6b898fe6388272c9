"""reconfigure: the same trained weights under other converters."""

from __future__ import annotations

from typing import Any, TypeVar

from torch import nn

from ..cells import Cell
from ..configs import IOConfig, Mapping, UpdateConfig
from ..errors import ConfigError

__all__ = ["reconfigure"]

M = TypeVar("M", bound=nn.Module)


def reconfigure(
    model: M,
    *,
    io: IOConfig | None = None,
    update: UpdateConfig | None = None,
    mapping: Mapping | None = None,
) -> M:
    """Read and pulse a model by other settings from now on.

    Weights, devices, counters and identities stay as they are: train once, then sweep converters::

        for bits in (4, 6, 8):
            adc = pl.configs.ReadConfig(out_res=2.0**-bits)
            accuracy(pl.nn.reconfigure(model, io=pl.configs.IOConfig(forward=adc)))

    A state is of the settings it was saved under: take these before it is loaded, and others then.

    Args:
        model: changed in place, all analog layers of it; a layer of a larger model is one too.
        io: converters and noise of reads. update: pulse trains.
        mapping: physical tiles; its ``omega`` counts when weights are programmed next.

    Returns:
        ``model``.

    Raises:
        ConfigError: nothing is given or of another type, the model has no analog layer, its devices
            cannot take it, or an update is pending. Nothing is changed.
    """
    given: dict[str, Any] = {"io": io, "update": update, "mapping": mapping}
    settings = {name: value for name, value in given.items() if value is not None}
    if not settings:
        raise ConfigError("reconfigure is given no settings; pass io=, update= or mapping=")
    cells = [module for module in model.modules() if isinstance(module, Cell)]
    if not cells:
        raise ConfigError(f"{type(model).__name__} has no analog layer; convert it by to_analog")
    for cell in cells:
        cell.reconfigured(**settings)
    for cell in cells:
        cell.reconfigure(**settings)
    return model
