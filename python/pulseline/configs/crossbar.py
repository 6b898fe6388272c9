"""Crossbar: the one configuration that a layer is given."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any

from ..devices import Device, Ideal, PulsedDevice, SoftBounds
from ..errors import ConfigError
from ..settings import check_kind
from .mapping import Mapping
from .read import IOConfig
from .update import UpdateConfig

__all__ = ["Crossbar"]


@dataclass(frozen=True)
class Crossbar:
    """What holds a matrix: devices, reads, pulses, physical tiles, and the algorithm above them.

    Attributes:
        device: population of crosspoints, see :mod:`pulseline.devices`.
        io, update, mapping: see :mod:`pulseline.configs`.
        algorithm: makes the cell of a (rows, cols) matrix: called with rows, cols, this crossbar
            and an :class:`pulseline.Identity`; a subclass of :class:`pulseline.Cell` does. None:
            one array that every update pulses.

    Raises:
        ConfigError: a value of another type.
    """

    device: Device = field(default_factory=SoftBounds)
    io: IOConfig = field(default_factory=IOConfig)
    update: UpdateConfig = field(default_factory=UpdateConfig)
    mapping: Mapping = field(default_factory=Mapping)
    algorithm: Callable[..., Any] | None = None

    def __post_init__(self) -> None:
        check_kind("device", self.device, PulsedDevice, Ideal)
        check_kind("io", self.io, IOConfig)
        check_kind("update", self.update, UpdateConfig)
        check_kind("mapping", self.mapping, Mapping)
        for one in fields(self):
            if one.name == "algorithm":
                ok = self.algorithm is None or callable(self.algorithm)
            else:
                ok = getattr(self, one.name) is not None
            if not ok:
                value = getattr(self, one.name)
                raise ConfigError(f"{one.name} is {value!r:.60}; leave it out for the default")

    @classmethod
    def of(cls, given: Crossbar | Device | None = None, **settings: Any) -> Crossbar:
        """A crossbar from what users write: itself, a device, or its fields by name.

        Args:
            given: a crossbar, whose fields ``settings`` replace, or a device.
            settings: fields by name; None: leave it as it is.

        Raises:
            ConfigError: an unknown name or a value of another type.
        """
        known = [one.name for one in fields(cls)]
        for name in settings:
            if name not in known:
                raise ConfigError(f"{name} is no setting of a crossbar; use {', '.join(known)}")
        chosen = {name: value for name, value in settings.items() if value is not None}
        if isinstance(given, Crossbar):
            return replace(given, **chosen) if chosen else given
        if given is not None and "device" in chosen:
            raise ConfigError(f"device is given twice, {given!r:.60} and by name; give it once")
        return cls(**(chosen if given is None else {"device": given, **chosen}))

    def settings(self) -> tuple[Any, ...]:
        """What a state holds: device, forward and backward read, update, mapping."""
        return (self.device, self.io.forward, self.io.backward, self.update, self.mapping)
