"""Pulses that the arrays of modules counted in their updates and writes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import NamedTuple

from torch import nn

from .arrays import Array
from .cells import Cell
from .devices import Ideal

__all__ = [
    "Counted",
    "Fired",
    "arrays",
    "cells",
    "count",
    "pulses_fired",
    "slots",
    "transfers",
    "write_slots",
]


class Fired(NamedTuple):
    """What the updates of an array fired, and what was written to it by whole pulses.

    Attributes:
        pulses: coincidences and whole pulses. slots, samples: of the trains, and updates.
        write_slots, writes: of writes, and columns written; see ``arrays/fired.py``.
    """

    pulses: int
    slots: int
    samples: int
    write_slots: int = 0
    writes: int = 0


# By the key of an array's identity; arrays that counted nothing are absent.
Counted = Mapping[Hashable, Fired]


def arrays(modules: Iterable[nn.Module]) -> list[Array]:
    """Every array of the modules."""
    held = (layer for module in modules for layer in module.modules())
    return [array for array in held if isinstance(array, Array)]


def cells(modules: Iterable[nn.Module]) -> list[Cell]:
    """Every cell of the modules, each once."""
    held = (layer for module in modules for layer in module.modules())
    return [*dict.fromkeys(cell for cell in held if isinstance(cell, Cell))]


def count(modules: Iterable[nn.Module]) -> Counted:
    """What the arrays of the modules counted since ``Array.count_pulses``.

    An array that took nothing is absent, unless its cell did and never writes to it: then it is
    known to have taken 0.
    """
    modules = [*modules]
    found: dict[Hashable, Fired] = {
        array.identity.key: Fired(*array.fired.tolist())
        for array in arrays(modules)
        if array.fired is not None
    }
    known = {key: fired for key, fired in found.items() if fired.samples or fired.writes}
    for cell in cells(modules):
        keys = [array.identity.key for array in cell.arrays]
        if not cell.work().writes and any(key in known for key in keys):
            known |= {key: found[key] for key in keys if key in found}
    return known


def slots(cell: Cell, counted: Counted) -> float:
    """Mean pulse slots per update of a cell.

    Args:
        cell: whose arrays that take updates count. counted: pulses of arrays, see :func:`count`.

    Returns:
        What was counted, the most of its arrays, else ``desired_bl``.
    """
    takers: list[Array] = [cell.arrays[n] for n in cell.work().takers or (-1,)]
    found = [counted.get(array.identity.key) for array in takers]
    means = [fired.slots / fired.samples for fired in found if fired is not None and fired.samples]
    return max(means) if means else float(takers[0].crossbar.update.desired_bl)


def write_slots(cell: Cell, counted: Counted) -> dict[int, float]:
    """Mean slots of the writes on each array of a cell, by number; those not counted are absent.

    Args:
        cell: whose. counted: pulses of arrays, see :func:`count`.
    """
    takers = {n % len(cell.arrays) for n in cell.work().takers}
    means = {}
    for n, array in enumerate(cell.arrays):
        fired = counted.get(array.identity.key)
        if fired is None:
            continue
        if fired.writes:
            means[n] = fired.write_slots / fired.writes
        elif n not in takers and fired.samples:  # written by trains
            means[n] = fired.slots / fired.samples
    return means


def pulses_fired(modules: Iterable[nn.Module], counted: Counted) -> int | None:
    """Pulses that pulsed arrays took, in updates and in writes.

    Args:
        modules: that hold the arrays. counted: pulses of arrays, see :func:`count`.

    Returns:
        Their sum; None if one of the arrays did not count, or there is none.
    """
    pulsed = [a for a in arrays(modules) if not isinstance(a.crossbar.device, Ideal)]
    known = [counted.get(array.identity.key) for array in pulsed]
    if not known or None in known:
        return None
    return sum(fired.pulses for fired in known if fired is not None)


def transfers(modules: Iterable[nn.Module]) -> dict[Hashable, int]:
    """Columns that each cell has moved so far, by the key of its identity."""
    return {cell.identity.key: cell.transfers() for cell in cells(modules)}
