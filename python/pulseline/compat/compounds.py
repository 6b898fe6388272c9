"""What a compound of aihwkit becomes, and what its parts have in common."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from ..algorithms import Rule
from ..devices import PulsedDevice
from ..errors import ConfigError
from .fields import refusal
from .single import pulsed_device

__all__ = ["Compound", "devices_of", "geometric", "make", "minibatch"]


class Compound(NamedTuple):
    """Fields of a crossbar that a compound decides; names: the classes of its devices there."""

    device: PulsedDevice
    fast_device: PulsedDevice | None
    algorithm: Rule
    names: tuple[str, ...]


def devices_of(
    theirs: Any, batch: int | None, counts: Collection[int] = ()
) -> tuple[list[PulsedDevice], list[str]]:
    """Devices of a unit cell, in its order, and their classes there.

    Args:
        theirs: the cell. batch: samples of a mini-batch, or None.
        counts: how many there may be; (): any number from 1.

    Raises:
        ConfigError: another number, or one has no counterpart.
    """
    given = list(getattr(theirs, "unit_cell_devices", ()))
    names = [type(one).__name__ for one in given]
    if not given or (counts and len(given) not in counts):
        wanted = " or ".join(map(str, counts)) or "1 or more"
        raise refusal("device.unit_cell_devices", names, f"give {wanted} devices")
    found = [
        pulsed_device(one, batch, f"device.unit_cell_devices[{n}]") for n, one in enumerate(given)
    ]
    return found, names


def make(
    device: PulsedDevice, other: PulsedDevice, algorithm: Rule, names: Sequence[str]
) -> Compound:
    """A compound of two kinds of devices.

    Args:
        device: of array 0. other: of the arrays beside it. algorithm: the rule. names: of both
            classes there.
    """
    same = device == other
    return Compound(device, None if same else other, algorithm, tuple(names[: 1 if same else 2]))


def minibatch(batch: int | None, field: str, value: object) -> int:
    """The number of samples of a mini-batch.

    Args:
        batch: what the caller gave. field: that needs it. value: of the field.

    Raises:
        ConfigError: it is None.
    """
    if batch is None:
        raise ConfigError(
            f"batch is None, but {field} is {value!r}, which counts in mini-batches; "
            "pass its number of samples"
        )
    return batch


def geometric(field: str, values: Sequence[float]) -> float:
    """The quotient of numbers each of which is as many times the one before.

    Args:
        field: that holds them. values: the numbers, at least one.

    Raises:
        ConfigError: they are not so.
    """
    first = values[0]
    factor = values[1] / first if len(values) > 1 and first else 1.0
    wanted = [first * factor**n for n in range(len(values))]
    if any(abs(a - b) > 1e-6 * abs(b) for a, b in zip(values, wanted, strict=True)):
        raise refusal(field, list(values), "give numbers each the same multiple of the one before")
    return factor
