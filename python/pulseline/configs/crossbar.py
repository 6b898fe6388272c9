"""Crossbar: the one configuration that a layer is given."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import Any

from ..devices import Device, Ideal, PulsedDevice, SoftBounds
from ..errors import ConfigError
from ..presets import advice, named
from ..settings import check_kind
from .mapping import Mapping
from .read import IOConfig
from .update import UpdateConfig

__all__ = ["Crossbar", "device_of"]

_TORCH_DEVICE = re.compile(r"(cpu|cuda|gpu|mps|xpu|hpu|meta)(:\d+)?", re.IGNORECASE)


def device_of(given: Any, name: str = "device") -> Device:
    """The crosspoint model that a user means.

    Args:
        given: a device; its class, for its defaults; or its name, such as ``soft_bounds`` or
            ``reram_es``.
        name: of the argument.

    Raises:
        ConfigError: an unknown name, another value, or where torch computes ("cuda").
    """
    if isinstance(given, type) and issubclass(given, (PulsedDevice, Ideal)):
        return given()
    where = f"{type(given).__module__}.{type(given).__name__}" == "torch.device"
    if where or (isinstance(given, str) and _TORCH_DEVICE.fullmatch(given)):
        raise ConfigError(
            f"{name} is {str(given)!r}, but {name} is the crosspoint model, such as soft_bounds or "
            f"reram_es; build the model and move it by .to({str(given)!r})"
        )
    if isinstance(given, str):
        return named(given, argument=name)
    if not isinstance(given, (PulsedDevice, Ideal)):
        raise ConfigError(
            f"{name} is {given!r:.60}; use a device of pulseline.devices or pulseline.presets, or "
            "its name"
        )
    return given


def _check_algorithm(given: object) -> None:
    """Refuse what makes no cell."""
    if isinstance(given, str):
        raise ConfigError(
            f"algorithm is {given!r:.60}; use a rule of pulseline.algorithms, such as "
            "pulseline.algorithms.rule_named(...) gives by name"
        )
    if isinstance(given, type) and is_dataclass(given):
        raise ConfigError(
            f"algorithm is the class {given.__name__}; use an instance, {given.__name__}()"
        )
    if given is not None and not callable(given):
        raise ConfigError(f"algorithm is {given!r:.60}; leave it out for the default")


@dataclass(frozen=True)
class Crossbar:
    """What holds a matrix: devices, reads, pulses, physical tiles, and the algorithm above them.

    Attributes:
        device: population of crosspoints, see :mod:`pulseline.devices`; what :func:`device_of`
            takes becomes one.
        io, update, mapping: see :mod:`pulseline.configs`.
        algorithm: makes the cell of a (rows, cols) matrix: called with rows, cols, this crossbar
            and an :class:`pulseline.Identity`; a subclass of :class:`pulseline.Cell` does. None:
            one array that every update pulses.
        fast_device: of the array beside array 0 that takes gradients, and of the other halves of
            pairs and vectors; None: ``device``.

    Raises:
        ConfigError: a value of another type, or ``fast_device`` without an algorithm.
    """

    device: Device = field(default_factory=SoftBounds)
    io: IOConfig = field(default_factory=IOConfig)
    update: UpdateConfig = field(default_factory=UpdateConfig)
    mapping: Mapping = field(default_factory=Mapping)
    algorithm: Callable[..., Any] | None = None
    fast_device: Device | None = None

    def __post_init__(self) -> None:
        if self.device is not None:
            object.__setattr__(self, "device", device_of(self.device))
        if self.fast_device is not None:
            object.__setattr__(self, "fast_device", device_of(self.fast_device, "fast_device"))
            if self.algorithm is None:
                raise ConfigError(
                    f"fast_device is {self.fast_device!r:.60} without an algorithm, which has the "
                    "one array of device; give algorithm=, or leave fast_device out"
                )
        check_kind("io", self.io, IOConfig)
        check_kind("update", self.update, UpdateConfig)
        check_kind("mapping", self.mapping, Mapping)
        for one in fields(self):
            if one.name == "algorithm":
                _check_algorithm(self.algorithm)
                ok = True
            elif one.name == "fast_device":
                ok = True
            else:
                ok = getattr(self, one.name) is not None
            if not ok:
                value = getattr(self, one.name)
                raise ConfigError(f"{one.name} is {value!r:.60}; leave it out for the default")

    @classmethod
    def of(cls, given: Crossbar | Device | str | None = None, **settings: Any) -> Crossbar:
        """A crossbar from what users write: itself, a device, or its fields by name.

        Args:
            given: a crossbar, whose fields ``settings`` replace, or what :func:`device_of` takes.
            settings: fields by name; None: leave it as it is.

        Returns:
            ``given`` itself if it is a crossbar and no field is replaced.

        Raises:
            ConfigError: an unknown name or a value of another type.
        """
        known = [one.name for one in fields(cls)]
        for name in settings:
            if name not in known:
                raise ConfigError(f"{name} is no setting of a crossbar; {advice(name, known)}")
        chosen = {name: value for name, value in settings.items() if value is not None}
        if isinstance(given, Crossbar):
            return replace(given, **chosen) if chosen else given
        if given is not None and "device" in chosen:
            raise ConfigError(f"device is given twice, {given!r:.60} and by name; give it once")
        return cls(**(chosen if given is None else {"device": given, **chosen}))

    @property
    def fast(self) -> Crossbar:
        """Of the arrays beside array 0: of ``fast_device``, in normalised units."""
        return replace(
            self,
            device=self.fast_device or self.device,
            fast_device=None,
            mapping=replace(self.mapping, omega=0.0),
        )

    def settings(self) -> tuple[Any, ...]:
        """What a state holds: device, forward and backward read, update, mapping."""
        return (self.device, self.io.forward, self.io.backward, self.update, self.mapping)
