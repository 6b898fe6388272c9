"""What an algorithm asks of hardware for a matrix: crossbars, transfers, digital work, as numbers.

A plain array is read once each way and pulsed once per sample; that is ``Work()``. Algorithms of
several arrays add, per sample, reads of single columns (m conversions each), writes of single lines
by whole pulses, and digital operations on buffers that hold something per crosspoint.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields

from ..errors import ConfigError

__all__ = ["Work"]


@dataclass(frozen=True)
class Work:
    """Crossbars of one matrix, and what a sample does on them beside F, B and U; inert by default.

    Attributes:
        crossbars: that there are, each of the matrix's size.
        arrays: of them that F and B read, as one sum of currents: one conversion per line.
        update_array: updates pulse a crossbar that F and B do not read, and run beside them.
        takers: numbers of the arrays that updates pulse by trains; -1: the last one.
        driven: crossbars on whose lines the trains of a sample are.
        struck: crosspoints that one slot may strike, in units of rows x cols.
        reads: columns read per sample.
        writes: lines written per sample. by_rows: they are rows, otherwise columns.
        write_slots: slots of each sign of a write.
        operations: digital ones per sample. traffic_bytes: to and from buffers, per sample.
        buffer_bytes: digital memory that the algorithm keeps.

    Raises:
        ConfigError: a number is negative or not finite.
    """

    crossbars: int = 1
    arrays: int = 1
    update_array: bool = False
    takers: tuple[int, ...] = (-1,)
    driven: float = 1
    struck: float = 1
    reads: float = 0.0
    writes: float = 0.0
    by_rows: bool = False
    write_slots: float = 0.0
    operations: float = 0.0
    traffic_bytes: float = 0.0
    buffer_bytes: float = 0.0

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if one.name != "takers" and not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"{one.name} is {value}; use a finite number >= 0")
